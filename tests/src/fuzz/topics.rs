//! Topic filters and the trie against the rules of the standard, written down once more and as plainly as possible.

use fellbeck_core::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use fellbeck_core::{Filter, Trie, validate_topic_name};

/// Filters of one input at most, so that a run stays short.
const FILTERS_MAX: usize = 64;

/// The input is text: lines of filters as they stand in a SUBSCRIBE, and a topic name as the last line.
pub(super) fn topic_filter(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let (filters, topic) = text.rsplit_once('\n').unwrap_or((text, "a"));
    assert_eq!(validate_topic_name(topic).is_ok(), is_topic_name(topic), "{topic:?}");
    let filters: Vec<Filter> = filters.split('\n').take(FILTERS_MAX).filter_map(check_filter).collect();
    if !is_topic_name(topic) || filters.is_empty() {
        return false;
    }
    let expected: Vec<usize> = (0..filters.len())
        .filter(|&index| naive_match(filters[index].as_str(), topic))
        .collect();
    for (index, filter) in filters.iter().enumerate() {
        let matches = filter.matches(topic);
        assert_eq!(matches, expected.contains(&index), "{filter} on {topic:?}");
        assert!(
            !matches || topic.starts_with(filter.literal_prefix()),
            "{filter}: its prefix {:?} would miss {topic:?}",
            filter.literal_prefix()
        );
    }
    check_trie(&filters, topic, &expected);
    true
}

/// Parses one line as both kinds of filter. Returns the filter that the trie would hold.
fn check_filter(text: &str) -> Option<Filter> {
    let plain = Filter::parse(text);
    assert_eq!(plain.is_ok(), is_filter(text), "{text:?}");
    if let Ok(filter) = &plain {
        assert_eq!(filter.as_str(), text);
        assert_eq!(filter.has_wildcard(), text.contains(['+', '#']), "{text:?}");
        assert!(text.starts_with(filter.literal_prefix()), "{text:?}");
        assert!(!filter.literal_prefix().contains(['+', '#']), "{text:?}");
    }
    let subscription = Filter::parse_subscription(text);
    assert_eq!(subscription.is_ok(), is_subscription(text), "{text:?}");
    let subscription = subscription.ok()?;
    assert_eq!(subscription.to_string(), text);
    assert_eq!(subscription.share.is_some(), text.starts_with("$share/"), "{text:?}");
    Some(subscription.filter)
}

fn check_trie(filters: &[Filter], topic: &str, expected: &[usize]) {
    let mut trie = Trie::new();
    for (index, filter) in filters.iter().enumerate() {
        assert_eq!(trie.insert(filter, index), None);
        assert_eq!(trie.insert(filter, index), Some(index), "an equal value is replaced");
    }
    assert_eq!(trie.len(), filters.len());
    assert_eq!(visited(&trie, topic), expected, "{topic:?}");
    // Every second one leaves; the others must not notice.
    for (index, filter) in filters.iter().enumerate().step_by(2) {
        assert_eq!(trie.remove(filter, &index), Some(index));
        assert_eq!(trie.remove(filter, &index), None);
    }
    let odd: Vec<usize> = expected.iter().copied().filter(|index| index % 2 == 1).collect();
    assert_eq!(visited(&trie, topic), odd, "{topic:?}");
    for (index, filter) in filters.iter().enumerate().skip(1).step_by(2) {
        assert!(trie.get(filter).contains(&index));
        assert_eq!(trie.remove(filter, &index), Some(index));
    }
    assert!(trie.is_empty() && visited(&trie, topic).is_empty());
}

fn visited(trie: &Trie<usize>, topic: &str) -> Vec<usize> {
    let mut found = Vec::new();
    trie.matches(topic, |index| found.push(*index));
    found.sort_unstable();
    found
}

fn is_topic_name(text: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&text.len()) && !text.contains(['\0', '+', '#'])
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let level_is_sound = |(index, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => index + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    (1..=TOPIC_BYTES_MAX).contains(&text.len())
        && levels.len() <= TOPIC_LEVELS_MAX
        && !text.contains('\0')
        && levels.iter().enumerate().all(level_is_sound)
}

fn is_subscription(text: &str) -> bool {
    let mut levels = text.splitn(3, '/');
    match (levels.next(), levels.next(), levels.next()) {
        (Some("$share"), Some(name), Some(filter)) => {
            let name_is_sound = !name.is_empty() && !name.contains(['+', '#', '\0']);
            name_is_sound && is_filter(filter) && text.len() <= TOPIC_BYTES_MAX
        }
        (Some("$share"), Some(_), None) => false,
        _ => is_filter(text),
    }
}

fn naive_match(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    levels_match(&filter, &topic)
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
        ([level, filter @ ..], [name, topic @ ..]) => level == name && levels_match(filter, topic),
        _ => false,
    }
}
