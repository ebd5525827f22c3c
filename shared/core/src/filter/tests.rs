//! Tests of topic filters: the examples and rules of the standard, one by one.

use super::*;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

/// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2] [MQTT5-4.7.3-3]
/// [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-1] [MQTT3-4.7.3-2] [MQTT3-4.7.3-3]
#[test]
fn filters_are_checked_level_by_level() {
    for good in [
        "#",
        "+",
        "/",
        "a",
        "a/#",
        "+/#",
        "+/a/#",
        "a/+/b",
        "/+",
        "+/",
        "$SYS/#",
        "a b",
        "$share",
        "$sharex/a",
    ] {
        assert_eq!(filter(good).as_str(), good);
    }
    for bad in [
        "#/a", "a#", "a/#/b", "a/b#", "+a", "a+", "a/b+/c", "##", "++", "#/", "a/+#", "#+",
    ] {
        assert_eq!(Filter::parse(bad), Err(FilterError::Wildcard), "{bad}");
    }
    assert_eq!(Filter::parse(""), Err(FilterError::Empty));
    assert_eq!(Filter::parse("a/\0"), Err(FilterError::Nul));
    let long = "a".repeat(TOPIC_BYTES_MAX + 1);
    assert_eq!(Filter::parse(&long), Err(FilterError::TooLong { size: long.len() }));
    assert!(Filter::parse(&"/".repeat(TOPIC_LEVELS_MAX - 1)).is_ok());
    assert_eq!(
        Filter::parse(&"/".repeat(TOPIC_LEVELS_MAX)),
        Err(FilterError::TooManyLevels {
            levels: TOPIC_LEVELS_MAX + 1
        })
    );
}

/// The examples of section 4.7 of both versions, and each edge of the rules. [MQTT5-4.7.2-1] [MQTT3-4.7.2-1]
#[test]
fn matching_follows_the_examples_of_the_standard() {
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "sport/tennis/player1/#",
            &[
                "sport/tennis/player1",
                "sport/tennis/player1/ranking",
                "sport/tennis/player1/score/wimbledon",
            ],
            &["sport/tennis/player2", "sport/tennis", "sport/tennis/player10"],
        ),
        (
            "sport/#",
            &["sport", "sport/", "sport/a/b"],
            &["sports", "Sport", "/sport"],
        ),
        ("#", &["a", "/", "/a", "a/b/c"], &["$SYS/a", "$", "$share/g/a"]),
        (
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/"],
            &["sport/tennis/player1/ranking", "sport/tennis"],
        ),
        ("sport/+", &["sport/"], &["sport", "sport//"]),
        ("+", &["finance", "a"], &["/finance", "$SYS", "/"]),
        ("+/+", &["/finance", "/", "a/b"], &["finance", "a/b/c", "$SYS/a"]),
        ("/+", &["/finance", "/"], &["finance", "/a/b"]),
        ("+/tennis/#", &["a/tennis", "/tennis/b/c"], &["$a/tennis", "tennis"]),
        ("+/monitor/Clients", &["a/monitor/Clients"], &["$SYS/monitor/Clients"]),
        ("$SYS/#", &["$SYS", "$SYS/", "$SYS/monitor/Clients"], &["SYS", "$SYSa"]),
        (
            "$SYS/monitor/+",
            &["$SYS/monitor/Clients"],
            &["$SYS/monitor", "$SYS/monitor/a/b"],
        ),
        ("a/$b/+", &["a/$b/c"], &["a/b/c"]),
        ("a/+/#", &["a/$b", "a/b/c/d", "a/"], &["a"]),
        ("/", &["/"], &["", "//", "a/"]),
        ("Accounts payable", &["Accounts payable"], &["ACCOUNTS PAYABLE"]),
    ];
    for (text, hits, misses) in table {
        hits.iter()
            .for_each(|topic| assert!(filter(text).matches(topic), "{text} should match {topic}"));
        misses
            .iter()
            .for_each(|topic| assert!(!filter(text).matches(topic), "{text} should not match {topic}"));
    }
}

#[test]
fn the_literal_prefix_begins_every_topic_that_can_match() {
    for (text, prefix, wild) in [
        ("a/b", "a/b", false),
        ("/", "/", false),
        ("a/+", "a/", true),
        ("a/+/#", "a/", true),
        ("a/b/#", "a/b", true),
        ("/#", "/", true),
        ("//#", "/", true),
        ("/+", "/", true),
        ("#", "", true),
        ("+/a", "", true),
    ] {
        assert_eq!(
            (filter(text).literal_prefix(), filter(text).has_wildcard()),
            (prefix, wild),
            "{text}"
        );
    }
}

/// [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
#[test]
fn share_names_are_taken_off_the_front_or_refused() {
    for (text, share, rest) in [
        ("$share/g/a/#", Some("g"), "a/#"),
        ("$share/g//", Some("g"), "/"),
        ("$share/g h/+", Some("g h"), "+"),
        ("$share/g/$SYS/a", Some("g"), "$SYS/a"),
        ("$share", None, "$share"),
        ("$shared/g/a", None, "$shared/g/a"),
        ("$Share/g/a", None, "$Share/g/a"),
        ("a/$share/g", None, "a/$share/g"),
    ] {
        let parsed = Filter::parse_subscription(text).unwrap();
        assert_eq!(parsed.share.as_ref().map(ShareName::as_str), share, "{text}");
        assert_eq!(parsed.filter.as_str(), rest, "{text}");
        assert_eq!(parsed.to_string(), text);
    }
    for bad in [
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/g#/a",
        "$share/#",
        "$share/#/a",
        "$share//",
    ] {
        assert_eq!(Filter::parse_subscription(bad), Err(FilterError::Share), "{bad}");
    }
    assert_eq!(Filter::parse_subscription("$share/g\0/a"), Err(FilterError::Nul));
    assert_eq!(Filter::parse_subscription("$share/g/a#"), Err(FilterError::Wildcard));
    assert_eq!(Filter::parse_subscription(""), Err(FilterError::Empty));
    let long = format!("$share/g/{}", "a".repeat(TOPIC_BYTES_MAX - 8));
    assert_eq!(
        Filter::parse_subscription(&long),
        Err(FilterError::TooLong { size: long.len() })
    );
}

#[test]
fn the_intersection_of_two_filters_is_the_narrower_of_each_level() {
    for (one, other, common) in [
        ("#", "cmd/#", Some("cmd/#")),
        ("cmd/#", "cmd/+/reboot", Some("cmd/+/reboot")),
        ("+/b", "a/+", Some("a/b")),
        ("a/#", "a", Some("a")),
        ("a/#", "+", Some("a")),
        ("+/#", "#", Some("+/#")),
        ("a/b", "a/c", None),
        ("a", "a/+", None),
        ("#", "$SYS/#", None),
        ("+/x", "$s/x", None),
        ("$s/#", "$s/+", Some("$s/+")),
        ("/", "+/+", Some("/")),
    ] {
        let common = common.map(filter);
        assert_eq!(filter(one).intersection(&filter(other)), common, "{one} and {other}");
        assert_eq!(filter(other).intersection(&filter(one)), common, "{other} and {one}");
    }
}
