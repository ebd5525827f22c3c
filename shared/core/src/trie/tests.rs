//! Tests of the trie: a few stories, and random subscriptions against the plain rule.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn matched(trie: &Trie<u32>, topic: &str) -> Vec<u32> {
    let mut out = Vec::new();
    trie.matches(topic, |value| out.push(*value));
    out.sort_unstable();
    out
}

#[test]
fn every_filter_that_matches_gives_its_values() {
    let mut trie = Trie::new();
    for (value, text) in ["#", "a/#", "a/+", "a/b", "+/b", "/a", "$SYS/#", "$SYS/+", "+/+"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(trie.insert(&filter(text), value as u32), None);
    }
    assert_eq!(matched(&trie, "a/b"), [0, 1, 2, 3, 4, 8]);
    assert_eq!(matched(&trie, "a"), [0, 1]);
    assert_eq!(matched(&trie, "/a"), [0, 5, 8]);
    assert_eq!(matched(&trie, "$SYS/x"), [6, 7]);
    assert_eq!(matched(&trie, "$SYS"), [6]);
    assert_eq!(matched(&trie, "$other"), []);
    // A topic name never holds these, yet a walk with them must not take the wildcard's branch for a literal.
    assert_eq!(matched(&trie, "+"), [0]);
}

/// A value may carry more than its key: the newer one replaces the older.
#[test]
fn an_equal_value_is_replaced_and_given_back() {
    #[derive(Debug, Clone, Copy)]
    struct Entry(u32, &'static str);
    impl PartialEq for Entry {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    let mut trie = Trie::new();
    assert!(trie.insert(&filter("a/#"), Entry(1, "old")).is_none());
    assert_eq!(trie.insert(&filter("a/#"), Entry(1, "new")).unwrap().1, "old");
    assert_eq!((trie.len(), trie.get(&filter("a/#"))[0].1), (1, "new"));
    assert_eq!(trie.remove(&filter("a/#"), &Entry(1, "")).unwrap().1, "new");
    assert!(trie.is_empty() && trie.get(&filter("a/#")).is_empty());
}

#[test]
fn nodes_are_pruned_when_their_last_value_goes() {
    let mut trie = Trie::new();
    trie.insert(&filter("keep"), 0);
    for n in 0..100 {
        trie.insert(&filter(&format!("x/{n}/+/y")), n);
    }
    let peak = trie.nodes.len();
    for n in 0..100 {
        assert_eq!(trie.remove(&filter(&format!("x/{n}/+/y")), &n), Some(n));
        assert_eq!(trie.remove(&filter(&format!("x/{n}/+/y")), &n), None);
    }
    assert_eq!((trie.nodes.len() - trie.free.len(), trie.literals.len()), (2, 1));
    trie.insert(&filter("x/1/2/3"), 7);
    assert_eq!(trie.nodes.len(), peak, "freed nodes are used again");
    trie.remove(&filter("x/1/2/3"), &7);
    trie.remove(&filter("keep"), &0);
    assert_eq!((trie.nodes.len(), trie.len()), (1, 0));
}

/// The root holds the values of `#` and is no other node's child: it must outlive its siblings.
#[test]
fn removing_one_value_of_the_root_keeps_the_other() {
    let mut trie = Trie::new();
    trie.insert(&filter("#"), 0);
    trie.insert(&filter("#"), 2);
    assert_eq!(trie.remove(&filter("#"), &2), Some(2));
    assert_eq!((trie.len(), matched(&trie, "a")), (1, vec![0]));
}

/// The deepest filter and a topic far deeper: the walk ends with the filter.
#[test]
fn depth_is_bounded_by_the_filters() {
    let levels = crate::limits::TOPIC_LEVELS_MAX;
    let mut trie = Trie::new();
    trie.insert(&filter(&vec!["+"; levels].join("/")), 1);
    trie.insert(&filter(&vec!["a"; levels].join("/")), 2);
    trie.insert(&filter(&format!("{}/#", vec!["a"; levels - 1].join("/"))), 3);
    assert_eq!(matched(&trie, &vec!["a"; levels].join("/")), [1, 2, 3]);
    assert_eq!(matched(&trie, &vec!["a"; 30_000].join("/")), [3]);
}

/// The rule read off the standard, level lists instead of text: the model of both implementations.
fn model_matches(filter: &[&str], topic: &[&str], at_front: bool) -> bool {
    match (filter, topic) {
        (["#"], [first, ..]) => !(at_front && first.starts_with('$')),
        (["#"], []) => true,
        (["+", _rest @ ..], [first, ..]) if at_front && first.starts_with('$') => false,
        (["+", filter @ ..], [_, topic @ ..]) => model_matches(filter, topic, false),
        ([literal, filter @ ..], [first, topic @ ..]) => literal == first && model_matches(filter, topic, false),
        ([], []) => true,
        _ => false,
    }
}

fn arb_filter() -> impl Strategy<Value = String> {
    let level =
        prop_oneof![3 => "[ab]", 2 => Just("+".to_owned()), 1 => Just(String::new()), 1 => Just("$s".to_owned())];
    (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, multi)| {
        if multi || levels.is_empty() || levels == [""] {
            levels.push("#".to_owned());
        }
        levels.join("/")
    })
}

fn arb_topic() -> impl Strategy<Value = String> {
    let level = prop_oneof![4 => "[abc]", 1 => Just(String::new()), 1 => Just("$s".to_owned())];
    prop::collection::vec(level, 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    /// Random inserts and removes, then random topics: trie, plain rule and model agree, and nothing is left behind.
    #[test]
    fn trie_and_filter_agree_with_the_model(
        steps in prop::collection::vec((any::<bool>(), arb_filter(), 0u32..3), 0..60),
        topics in prop::collection::vec(arb_topic(), 1..20),
    ) {
        let mut trie = Trie::new();
        let mut model: BTreeMap<(String, u32), ()> = BTreeMap::new();
        for (insert, text, value) in &steps {
            let key = (text.clone(), *value);
            let was = if *insert {
                let was = model.insert(key, ()).is_some();
                prop_assert_eq!(trie.insert(&filter(text), *value).is_some(), was);
                was
            } else {
                let was = model.remove(&key).is_some();
                prop_assert_eq!(trie.remove(&filter(text), value).is_some(), was);
                was
            };
            prop_assert!(was || !*insert || trie.get(&filter(text)).contains(value));
            prop_assert_eq!(trie.len(), model.len());
        }
        for topic in &topics {
            let names: Vec<&str> = topic.split('/').collect();
            let mut expected = Vec::new();
            for (text, value) in model.keys() {
                let levels: Vec<&str> = text.split('/').collect();
                let hit = model_matches(&levels, &names, true);
                prop_assert_eq!(filter(text).matches(topic), hit, "{} against {}", text, topic);
                prop_assert!(!hit || topic.starts_with(filter(text).literal_prefix()) || topic.is_empty());
                expected.extend(hit.then_some(*value));
            }
            expected.sort_unstable();
            prop_assert_eq!(matched(&trie, topic), expected);
        }
        for (text, value) in model.keys() {
            trie.remove(&filter(text), value);
        }
        prop_assert_eq!((trie.len(), trie.nodes.len(), trie.literals.len()), (0, 1, 0));
    }

    /// A topic matches the intersection exactly where it matches both.
    #[test]
    fn the_intersection_matches_what_both_match(
        one in arb_filter(),
        other in arb_filter(),
        topics in prop::collection::vec(arb_topic(), 1..20),
    ) {
        let common = filter(&one).intersection(&filter(&other));
        for topic in &topics {
            let both = filter(&one).matches(topic) && filter(&other).matches(topic);
            let hit = common.as_ref().is_some_and(|common| common.matches(topic));
            prop_assert_eq!(hit, both, "{} and {} on {}", one, other, topic);
        }
    }

    /// The list of filters is that of the model, and the number of changes moves with it and with nothing else.
    #[test]
    fn filters_are_listed_and_their_changes_counted(
        steps in prop::collection::vec((any::<bool>(), arb_filter(), 0u32..3), 0..60),
    ) {
        let mut trie = Trie::new();
        let listed = |trie: &Trie<u32>| trie.filters().collect::<std::collections::BTreeSet<_>>();
        for (insert, text, value) in &steps {
            let (before, changes) = (listed(&trie), trie.changes());
            if *insert {
                trie.insert(&filter(text), *value);
            } else {
                trie.remove(&filter(text), value);
            }
            let after = listed(&trie);
            prop_assert_eq!(after.contains(text), !trie.get(&filter(text)).is_empty());
            prop_assert_eq!(before != after, changes != trie.changes());
            prop_assert_eq!(trie.filters().count(), after.len(), "each once");
        }
    }

    /// Any text at all is parsed or refused, and what is accepted prints as it came.
    #[test]
    fn parsing_never_panics_and_keeps_the_text(text in "[$share/+#a\u{0}ü]{0,12}|\\PC{0,30}") {
        if let Ok(parsed) = Filter::parse(&text) {
            prop_assert_eq!(parsed.as_str(), &text);
        }
        if let Ok(parsed) = Filter::parse_subscription(&text) {
            prop_assert_eq!(parsed.to_string(), text);
        }
    }
}

#[test]
fn a_first_level_is_known_while_something_is_subscribed_below_it() {
    let mut trie = Trie::new();
    let filters = ["#", "+/a", "a/$SYS/b"].map(|text| Filter::parse(text).unwrap());
    for filter in &filters {
        trie.insert(filter, 1);
    }
    assert!(!trie.has_first_level("$SYS"));
    let below = Filter::parse("$SYS/a/#").unwrap();
    trie.insert(&below, 1);
    assert!(trie.has_first_level("$SYS"));
    trie.remove(&below, &1);
    assert!(!trie.has_first_level("$SYS"));
}
