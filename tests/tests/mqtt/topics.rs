//! Topic Names and Topic Filters (4.7): wildcards, `$` topics, lengths.

use fellbeck_tests::mqtt::wire::{packet, text};
use fellbeck_tests::mqtt::{AckKind, Answer, Publish, Version, encode};

use crate::brokers::{Target, expect_nothing, expect_nothing_own, on_each_version, unique};
use crate::cases::{WRONG, case, each_ends};

/// Filter, topics that match, topics that do not. `@` stands for a name of its own, at any place but the first level of a wildcard.
const MATCHES: [(&str, &[&str], &[&str]); 18] = [
    ("@", &["@"], &["@/", "/@", "@/a"]),
    ("@/#", &["@", "@/", "@/a", "@/a/b/c", "@//"], &["@a", "/@"]),
    ("@/a/#", &["@/a", "@/a/", "@/a/b"], &["@", "@/ab", "@/b/a"]),
    ("@/+", &["@/", "@/a", "@/$a"], &["@", "@/a/", "@/a/b"]),
    ("@/+/+", &["@//", "@/a/b", "@/a/"], &["@/a", "@/a/b/c"]),
    ("@/+/b", &["@/a/b", "@//b"], &["@/b", "@/a/c/b", "@/a/b/"]),
    ("@/+/b/#", &["@/a/b", "@/a/b/c/d"], &["@/a/c", "@/b"]),
    ("@/+/#", &["@/", "@/a", "@/a/b"], &["@"]),
    ("@/a/+", &["@/a/", "@/a/b"], &["@/a", "@/b/a"]),
    ("@//a", &["@//a"], &["@/a", "@///a"]),
    ("@/", &["@/"], &["@", "@//"]),
    ("+/@", &["a/@", "/@"], &["@", "a/b/@", "a/@/"]),
    ("+/@/#", &["a/@", "/@/b/c"], &["@/b", "a/b/@"]),
    ("/@", &["/@"], &["@", "//@"]),
    ("/+/@", &["//@", "/a/@"], &["a/@", "/@"]),
    ("@/A", &["@/A"], &["@/a"]),
    ("@/a b", &["@/a b"], &["@/ab", "@/a  b", "@/a b "]),
    ("@/\u{E9}", &["@/\u{E9}"], &["@/e\u{301}", "@/e"]),
];

/// [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.1] [MQTT5-4.7.3-4] [MQTT5-3.3.2-3] [MQTT5-4.5.0-1] [MQTT5-4.7.0-1] [MQTT3-4.7.1-1] [MQTT3-4.7.1-2]
/// [MQTT3-4.7.1-3] [MQTT3-4.7.3-4] [MQTT3-3.3.2-3] [MQTT3-4.5.0-1] A table of filters with topics that match and topics that do not, live and
/// retained.
#[test]
fn filters_match_what_they_should() {
    on_each_version(|target| {
        let mut sender = target.client("match-sender");
        for (filter, matching, others) in MATCHES {
            let own = unique("match");
            let named = |pattern: &str| pattern.replace('@', &own);
            let mut client = target.client("match");
            let filter = named(filter);
            assert_eq!(client.subscribe(&filter, 0), 0, "{filter}");
            for topic in others.iter().chain(matching) {
                sender.publish(&Publish::new(&named(topic), *topic).retain());
            }
            for topic in matching {
                let delivery = client.expect_message(topic);
                assert_eq!(delivery.topic, named(topic), "{filter}");
            }
            assert_eq!(client.unsubscribe(&[&filter]).len(), usize::from(target.is_v5()));
            assert_eq!(client.subscribe(&filter, 0), 0, "{filter}");
            let mut retained: Vec<String> = matching.iter().map(|_| client.expect_publish().text()).collect();
            let mut wanted = matching.to_vec();
            retained.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(retained, wanted, "{filter}");
            expect_nothing(&mut client, &mut sender);
            for topic in others.iter().chain(matching) {
                sender.publish(&Publish::new(&named(topic), "").retain());
            }
        }
    });
}

/// [MQTT5-4.7.2-1] [MQTT3-4.7.2-1] A filter that begins with a wildcard matches no topic that begins with `$`, live or retained; one that
/// begins with that `$` level does.
#[test]
fn a_leading_wildcard_does_not_match_dollar_topics() {
    on_each_version(|target| {
        let own = unique("dollar");
        let topic = format!("${own}/{own}");
        let mut sender = target.client("dollar-sender");
        let marker = unique("dollar/marker");
        let leading = [
            format!("+/{own}"),
            format!("+/{own}/#"),
            "#".to_owned(),
            "+/+".to_owned(),
        ];
        let mut clients = leading.each_ref().map(|filter| {
            let mut client = target.client("dollar");
            assert!(client.subscribe_all(&[], &[(&marker, 0)]) == [0]);
            client.send(&encode::subscribe(target.version, 5, &[(filter, 0)]));
            client
        });
        let mut exact = target.client("dollar-exact");
        assert_eq!(exact.subscribe(&format!("${own}/#"), 0), 0);
        sender.publish(&Publish::new(&topic, &own).retain());
        exact.expect_message(&own);
        let mut late = target.client("dollar-late");
        assert_eq!(late.subscribe(&leading[0], 0), 0);
        assert_eq!(late.subscribe(&format!("${own}/+"), 0), 0);
        assert_eq!(late.expect_message(&own).topic, topic);
        expect_nothing(&mut late, &mut sender);
        sender.publish(&Publish::new(&marker, "marker"));
        for client in &mut clients {
            loop {
                // Other tests publish too, and `#` sees it.
                match client.recv() {
                    Answer::Publish(delivery) if delivery.topic == marker => break,
                    Answer::Publish(delivery) => {
                        assert!(!delivery.topic.starts_with('$'), "{delivery:?}")
                    }
                    other => assert!(matches!(other, Answer::SubAck { .. }), "{other:?}"),
                }
            }
        }
        sender.publish(&Publish::new(&topic, "").retain());
    });
}

/// [MQTT5-4.7.2-1] [MQTT3-4.7.2-1] No client publishes below `$SYS`: what it sends there reaches nobody.
#[test]
fn a_client_does_not_publish_to_the_topics_of_the_server() {
    on_each_version(|target| {
        let topic = format!("$SYS/{}", unique("foreign"));
        let mut client = target.client("foreign");
        assert_eq!(client.subscribe(&topic, 0), 0);
        client.send_publish(&Publish::new(&topic, "never"));
        expect_nothing_own(&mut client);
    });
}

/// A publish to `topic` at a QoS.
fn publish(target: Target, topic: &[u8], qos: u8) -> Vec<u8> {
    let id: &[u8] = if qos > 0 { &[0, 1] } else { &[] };
    let section: &[u8] = if target.is_v5() { &[0] } else { &[] };
    packet(0x30 | (qos << 1), &[&text(topic), id, section, b"x"])
}

/// [MQTT5-4.7.0-1] [MQTT5-4.7.1-1] [MQTT5-3.3.2-2] [MQTT5-4.7.3-1] [MQTT5-3.3.2.1] [MQTT3-4.7.1-1] [MQTT3-3.3.2-2] [MQTT3-4.7.3-1] A Topic Name
/// with a wildcard, and one without a character, end the connection.
#[test]
fn topic_names_have_no_wildcards_and_are_not_empty() {
    on_each_version(|target| {
        let names = ["#", "+", "a/#", "a/+/b", "a+", "#a", ""];
        let cases = names.iter().flat_map(|name| {
            [0, 1, 2].map(|qos| {
                case(
                    format!("{name:?} at QoS {qos}"),
                    publish(target, name.as_bytes(), qos),
                    WRONG,
                )
            })
        });
        each_ends(target, cases);
    });
}

/// [MQTT5-4.7.3-3] [MQTT3-4.7.3-3] A Topic Name and a Topic Filter of 65,535 bytes go through and match in full.
#[test]
fn a_topic_may_have_65_535_bytes() {
    on_each_version(|target| {
        let own = unique("longest");
        let longest = format!("{own}/{}", "x".repeat(65_535 - own.len() - 1));
        let other = format!("{}y", &longest[..65_534]);
        let mut client = target.client("longest");
        assert_eq!(client.subscribe(&longest, 1), 1);
        client.publish(&Publish::new(&other, "never"));
        client.send_publish(&Publish::new(&longest, "x"));
        assert_eq!(client.expect_message("x").topic, longest);
        client.unsubscribe(&[&longest]);
        client.send_publish(&Publish::new(&longest, "never"));
        expect_nothing_own(&mut client);
    });
}

/// [MQTT5-4.7.3-4] [MQTT3-4.7.3-4] A hundred levels, all empty or all named, are matched level by level.
#[test]
fn deep_topics_match() {
    on_each_version(|target| {
        let own = unique("deep");
        let mut client = target.client("deep");
        let empty = format!("{own}{}", "/".repeat(100));
        let named = format!("{own}{}", "/a".repeat(100));
        let wild = format!("{own}{}", "/+".repeat(100));
        for filter in [&wild, &named] {
            assert_eq!(client.subscribe(filter, 0), 0);
            client.send_publish(&Publish::new(format!("{named}/a").as_str(), "never"));
            client.send_publish(&Publish::new(&named, "named"));
            client.expect_message("named");
            client.send_publish(&Publish::new(&empty, "empty"));
            if filter == &wild {
                client.expect_message("empty");
            }
            client.unsubscribe(&[filter]);
        }
        expect_nothing_own(&mut client);
    });
}

/// [MQTT3-3.3.5-2] A name of more levels than are allowed is never acknowledged as if it were taken: 5.0 is told (0x90), a connection of
/// 3.1.1 ends. One with just as many levels as are allowed is taken.
#[test]
fn a_name_of_too_many_levels_is_not_acknowledged_as_taken() {
    on_each_version(|target| {
        for (qos, kind) in [(1, AckKind::PubAck), (2, AckKind::PubRec)] {
            let most = format!("{}{}", unique("levels"), "/a".repeat(255));
            let more = format!("{most}/a");
            let mut client = target.client("levels");
            client.publish(&Publish::new(&most, "taken").qos(qos));
            let id = client.fresh_id();
            client.send_publish(&Publish {
                id,
                ..Publish::new(&more, "refused").qos(qos)
            });
            match client.version {
                Version::V5 => client.expect_ack(kind, id, 0x90),
                Version::V3 => client.expect_close(),
            }
        }
    });
}
