//! CONNECT (3.1): form, flags, properties, client identifiers, what is refused.

use fellbeck_tests::mqtt::wire::{hex, packet, property};
use fellbeck_tests::mqtt::{Accepted, Answer, Connect, LastWill, Publish, Raw, Version, encode};

use crate::brokers::{Target, on_each, on_each_v3, on_each_version, on_own, target, unique};
use crate::cases::{Case, MALFORMED, PROTOCOL_ERROR, WRONG, case, each_ends, each_is_refused};

/// [MQTT5-3.1.0-1] [MQTT5-3.14.0-1] [MQTT5-4.13.1-1] [MQTT3-3.1.0-1] [MQTT3-3.2.0-1] Any other packet before CONNECT closes the connection;
/// nothing is sent first, as the version is not known.
#[test]
fn the_first_packet_has_to_be_connect() {
    on_each_version(|target| {
        let openers = [
            "c000",
            "e000",
            "e0020000",
            "f000",
            "40020001",
            "62020001",
            "20020000",
            "0000",
            "3003000161",
            "82060001000161 00",
        ];
        for opener in openers {
            let mut client = target.open();
            client.send_anyway(&hex(opener));
            client.send_anyway(&target.hello("late").bytes());
            client.expect_close();
        }
    });
}

/// [MQTT5-3.1.0-2] [MQTT5-3.2.0-2] [MQTT3-3.1.0-2] A second CONNECT, the same or another, ends the connection: 0x82, and no second CONNACK.
#[test]
fn a_second_connect_ends_the_connection() {
    on_each_version(|target| {
        let same = target.hello("twice");
        let mut client = target.connect(&same);
        client.send(&same.bytes());
        client.expect_end(0x82);
        each_ends(
            target,
            [case("another CONNECT", target.hello("other").bytes(), PROTOCOL_ERROR)],
        );
    });
}

/// Demands a refusal in the form of either version (0x84 or 0x01), or the close alone.
fn expect_not_served(client: &mut Raw) {
    if let Some(seen) = client.recv_bytes() {
        let refused = seen == hex("20020001") || (seen[0] == 0x20 && seen[2] == 0 && seen[3] == 0x84);
        assert!(refused, "{seen:02x?}");
        client.expect_close();
    }
}

/// [MQTT5-3.1.2-1] [MQTT3-3.1.2-1] A protocol name that is not "MQTT" to the letter is not served.
#[test]
fn another_protocol_name_is_not_served() {
    on_each_version(|target| {
        let level = if target.is_v5() { 5 } else { 4 };
        for name in [
            "",
            "M",
            "MQT",
            "mqtt",
            "MQTt",
            "MQTTX",
            "MQTT\0",
            "MQIsdp",
            "HTTP",
            "\u{FEFF}MQTT",
        ] {
            let mut client = target.open();
            client.send_anyway(&target.hello("name").bytes_with(name.as_bytes(), level, 2));
            expect_not_served(&mut client);
        }
    });
}

/// [MQTT5-3.1.2-2] [MQTT5-3.2.2-7] A level that is not known is refused with 0x84 in the form of 5.0 or with 0x01 in that of 3.1.1.
#[test]
fn an_unknown_level_is_not_served() {
    on_each(|target| {
        for level in [0, 1, 2, 6, 7, 0x7F, 0xFF] {
            let mut client = target.open();
            client.send_anyway(&target.hello("level").bytes_with(b"MQTT", level, 2));
            expect_not_served(&mut client);
        }
    });
}

/// [MQTT3-3.1.2-2] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5] Levels that are not supported get CONNACK 0x01 and the close.
#[test]
fn an_unknown_level_is_refused_with_01() {
    on_each_v3(|target| {
        for level in [0, 1, 2, 6, 0x7F, 0xFF] {
            let mut client = target.open();
            client.send(&target.hello("level").bytes_with(b"MQTT", level, 2));
            client.expect_refused(1);
        }
    });
}

/// A CONNECT of these flags, and with whatever fields follow the client identifier.
fn flagged(target: Target, flags: u8, fields: &str) -> Vec<u8> {
    let mut bytes = Connect::new(target.version, "f").bytes_with(b"MQTT", if target.is_v5() { 5 } else { 4 }, flags);
    bytes.extend(hex(fields));
    packet(0x10, &[&bytes[2..]])
}

/// A will without properties, topic "t" and payload "p", as it is in this version.
fn will_fields(target: Target) -> &'static str {
    if target.is_v5() {
        "00 000174 000170"
    } else {
        "000174 000170"
    }
}

/// [MQTT5-3.1.2-3] [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13] [MQTT5-3.1.4-1] [MQTT3-3.1.2-3] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13]
/// [MQTT3-3.1.2-14] [MQTT3-3.1.2-15] [MQTT3-3.1.4-1] [MQTT3-3.2.2-6] The reserved flag, a Will QoS of 3, and will flags without a will are
/// refused: 0x81, without CONNACK in 3.1.1.
#[test]
fn connect_flags_that_contradict_are_refused() {
    on_each_version(|target| {
        let will = will_fields(target);
        each_is_refused(
            target,
            [
                case("reserved flag", flagged(target, 0x03, ""), MALFORMED),
                case("reserved flag alone", flagged(target, 0x01, ""), MALFORMED),
                case("Will QoS 3", flagged(target, 0x1E, will), MALFORMED),
                case("Will QoS 1 without will", flagged(target, 0x0A, ""), WRONG),
                case("Will QoS 2 without will", flagged(target, 0x12, ""), WRONG),
                case("Will QoS 3 without will", flagged(target, 0x1A, ""), WRONG),
                case("Will Retain without will", flagged(target, 0x22, ""), WRONG),
            ],
        );
    });
}

/// [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT5-3.1.4-1] [MQTT3-3.1.2-9] [MQTT3-3.1.2-18]
/// [MQTT3-3.1.2-19] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21] [MQTT3-3.1.4-1] A field without its flag, and a flag without its field, are refused.
#[test]
fn flags_and_fields_of_a_connect_have_to_agree() {
    on_each_version(|target| {
        let will = will_fields(target);
        let cut = &will[..will.len() - 7];
        let mut cases = vec![
            case("a field without a flag", flagged(target, 0x02, "000175"), MALFORMED),
            case(
                "two fields without a flag",
                flagged(target, 0x02, "000175 000170"),
                MALFORMED,
            ),
            case("a will without its flag", flagged(target, 0x02, will), MALFORMED),
            case("User Name Flag alone", flagged(target, 0x82, ""), MALFORMED),
            case(
                "a password without its flag",
                flagged(target, 0x82, "000175 000170"),
                MALFORMED,
            ),
            case(
                "Password Flag without a field",
                flagged(target, 0xC2, "000175"),
                MALFORMED,
            ),
            case("Will Flag alone", flagged(target, 0x06, ""), MALFORMED),
            case("will without a payload", flagged(target, 0x06, cut), MALFORMED),
            case(
                "more than a will",
                flagged(target, 0x06, &format!("{will} 000175")),
                MALFORMED,
            ),
            case("one byte too many", flagged(target, 0x02, "00"), MALFORMED),
        ];
        if target.is_v5() {
            cases.push(case(
                "will without properties",
                flagged(target, 0x06, "000174 000170"),
                MALFORMED,
            ));
        }
        each_is_refused(target, cases);
    });
}

/// [MQTT3-3.1.2-22] [MQTT3-3.1.4-1] In 3.1.1 a password without a user name is refused without CONNACK.
#[test]
fn a_password_without_a_user_name_is_refused_in_3_1_1() {
    on_each_v3(|target| {
        let bytes = target.hello("password").password("secret").bytes();
        each_is_refused(target, [case("password alone", bytes, MALFORMED)]);
    });
}

/// [MQTT5-3.1.2.9] In 5.0 a password needs no user name.
#[test]
fn a_password_without_a_user_name_is_accepted_in_5_0() {
    on_each(|target| {
        target.connect(&target.hello("password").password("secret")).ping();
    });
}

/// [MQTT5-3.1.3-1] [MQTT5-3.1.2-9] [MQTT5-3.1.2-17] [MQTT5-3.1.2-19] [MQTT5-3.1.3-3] [MQTT5-3.1.2-7] [MQTT3-3.1.3-1] [MQTT3-3.1.2-9]
/// [MQTT3-3.1.2-19] [MQTT3-3.1.2-21] [MQTT3-3.1.3-3] [MQTT3-3.1.2-8] All fields at once are read in their order: the will that comes has the
/// topic and payload given.
#[test]
fn a_connect_with_every_field_is_accepted() {
    on_each_version(|target| {
        let topic = unique("full/will");
        let mut watcher = target.client("full-watcher");
        assert_eq!(watcher.subscribe("full/will/+", 2), 2);
        assert_eq!(watcher.subscribe(&topic, 2), 2);
        let will = LastWill::new(&topic, "bye").qos(1);
        let hello = target
            .hello("full")
            .will(will)
            .user("user")
            .password([0, 0xFF, 0])
            .keep_alive(600);
        target.connect(&hello).reset();
        let delivery = watcher.expect_message("bye");
        assert_eq!((delivery.topic.as_str(), delivery.qos), (topic.as_str(), 1));
    });
}

/// [MQTT5-3.1.2.11.2] [MQTT5-3.1.2.11.3] [MQTT5-3.1.2.11.4] [MQTT5-3.1.2.11.6] [MQTT5-3.1.2.11.7] [MQTT5-3.1.2.11.10] [MQTT5-3.1.4-1]
/// [MQTT5-4.13.1] Properties with a value that they may not have are refused with 0x82.
#[test]
fn connect_properties_with_wrong_values_are_refused() {
    on_each(|target| {
        let with = |what: &str, property: Vec<u8>| -> Case {
            case(what, target.hello("values").property(property).bytes(), PROTOCOL_ERROR)
        };
        each_is_refused(
            target,
            [
                with("Receive Maximum 0", property::receive_maximum(0)),
                with("Maximum Packet Size 0", property::packet_maximum(0)),
                with("Request Problem Information 2", property::request_problem(2)),
                with("Request Problem Information 255", property::request_problem(255)),
                with("Request Response Information 2", property::request_response(2)),
                with("Request Response Information 255", property::request_response(255)),
                with("Authentication Data alone", property::auth_data("x")),
            ],
        );
    });
}

/// [MQTT5-3.1.3-5] [MQTT5-3.1.3.1] [MQTT3-3.1.3-5] Client identifiers of 1 and of 23 characters, all letters and digits, longer ones and other
/// characters are accepted.
#[test]
fn client_identifiers_of_any_length_and_alphabet_are_accepted() {
    on_each_version(|target| {
        let version = if target.is_v5() { '5' } else { '3' };
        let longest = format!("{}{}", unique("long"), "x".repeat(1000));
        let identifiers = [
            version.to_string(),
            format!("{version}abcdefghijklmnopqrstuv"),
            format!("{version}wxyzABCDEFGHIJKLMNOPQR"),
            format!("{version}STUVWXYZ0123456789abcd"),
            format!("{version}/+#$ \u{E9}\u{10FFFD}"),
            longest,
        ];
        for id in identifiers {
            target.connect(&Connect::new(target.version, &id)).ping();
        }
    });
}

/// [MQTT5-3.1.3-8] [MQTT5-3.2.2-7] [MQTT3-3.1.3-9] A client identifier that is longer than the node can keep is refused as such: 0x85, or
/// 0x02 in 3.1.1, and the close.
#[test]
fn a_client_identifier_that_is_too_long_is_refused() {
    on_each_version(|target| {
        let mut client = target.open();
        client.send(&Connect::new(target.version, "x".repeat(65_535)).bytes());
        client.expect_refused(if target.is_v5() { 0x85 } else { 2 });
    });
}

/// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16] [MQTT3-3.1.3-6] An empty client identifier is accepted; in 5.0 the CONNACK names the one
/// assigned, which is another one each time.
#[test]
fn an_empty_client_identifier_is_replaced_by_a_unique_one() {
    on_each_version(|target| {
        let anonymous = Connect::new(target.version, "");
        let (mut first, one) = Raw::connect(target.at, &anonymous);
        let (mut second, other) = Raw::connect(target.at, &anonymous);
        first.ping();
        second.ping();
        if target.is_v5() {
            let assigned = one.property(0x12).expect("an assigned client identifier");
            assert!(!assigned.is_empty());
            assert_ne!(Some(assigned), other.property(0x12));
        }
    });
}

/// [MQTT5-3.1.3-7] [MQTT5-3.1.3-2] The identifier assigned names the session: a client that comes back with it resumes what it had. One
/// that gave its own is told none.
#[test]
fn an_assigned_client_identifier_names_the_session() {
    on_each(|target| {
        let topic = unique("assigned");
        let (mut client, accepted) = Raw::connect(target.at, &Connect::kept(target.version, ""));
        let assigned = accepted.property(0x12).expect("an assigned client identifier").to_vec();
        assert_eq!(client.subscribe(&topic, 1), 1);
        client.disconnect();
        target
            .client("assigned-sender")
            .publish(&Publish::new(&topic, "kept").qos(1));
        let (mut again, accepted) = Raw::connect(target.at, &Connect::kept(target.version, assigned));
        assert!(accepted.session_present);
        assert!(accepted.property(0x12).is_none());
        again.expect_message("kept");
    });
}

/// [MQTT3-3.1.3-7] [MQTT3-3.1.3-8] [MQTT3-3.1.3-9] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5] An empty client identifier without Clean Session: CONNACK
/// 0x02 and the close.
#[test]
fn an_empty_client_identifier_cannot_be_kept_in_3_1_1() {
    on_each_v3(|target| {
        let mut client = target.open();
        client.send(&Connect::new(target.version, "").clean(false).bytes());
        client.expect_hex("20020002");
        client.expect_close();
    });
}

/// [MQTT5-3.1.4-5] [MQTT5-3.1.4] [MQTT5-3.2.0-1] [MQTT3-3.1.4-4] [MQTT3-3.1.4] [MQTT3-3.2.0-1] Packets right behind CONNECT are processed
/// once it is accepted, in order, and CONNACK comes first.
#[test]
fn a_client_need_not_wait_for_connack() {
    on_each_version(|target| {
        let topic = unique("eager");
        let mut client = target.open();
        let packets = [
            target.hello("eager").bytes(),
            encode::subscribe(target.version, 7, &[(&topic, 0)]),
            encode::publish(target.version, &Publish::new(&topic, "soon")),
        ];
        client.send(&packets.concat());
        client.expect_accepted();
        // A delivery may come before its SUBACK.
        let mut answers = [client.recv(), client.recv()];
        answers.sort_by_key(|answer| matches!(answer, Answer::Publish(_)));
        assert!(
            matches!(&answers[0], Answer::SubAck { id: 7, reasons, .. } if reasons == &[0]),
            "{answers:?}"
        );
        assert!(
            matches!(&answers[1], Answer::Publish(delivery) if delivery.text() == "soon"),
            "{answers:?}"
        );
    });
}

/// [MQTT5-3.1.4-6] [MQTT5-3.1.4-2] [MQTT5-3.1.2-30] [MQTT3-3.1.4-5] What follows a CONNECT that is refused is not processed: its PUBLISH
/// reaches nobody.
#[test]
fn nothing_is_processed_after_a_refused_connect() {
    on_each_version(|target| {
        let topic = unique("refused");
        let mut watcher = target.client("refused-watcher");
        assert_eq!(watcher.subscribe(&topic, 0), 0);
        let mut bad = vec![
            target.hello("refused").bytes_with(b"MQTT", 9, 2),
            flagged(target, 0x03, ""),
        ];
        match target.version {
            Version::V3 => bad.push(Connect::new(target.version, "").clean(false).bytes()),
            Version::V5 => {
                bad.push(target.hello("refused").property(property::receive_maximum(0)).bytes());
                bad.push(target.hello("refused").property(property::auth_method("none")).bytes());
            }
        }
        for connect in bad {
            let mut client = target.open();
            let publish = encode::publish(target.version, &Publish::new(&topic, "never"));
            client.send_anyway(&[connect, publish].concat());
            if client.recv_bytes().is_some() {
                client.expect_close();
            }
        }
        target.client("refused-marker").publish(&Publish::new(&topic, "marker"));
        watcher.expect_message("marker");
    });
}

/// [MQTT5-3.1.4-2] [MQTT5-3.2.2-8] [MQTT3-3.1.4-5] With as many sessions as may be, the next CONNECT is refused as such (0x97; 0x03 in 3.1.1),
/// and those that are there go on.
#[test]
fn a_session_too_many_is_refused() {
    on_own(&[("session.sessions_max", "2")], |node| {
        let at = |version| target(node, version);
        let mut first = at(Version::V5).client("one");
        let mut second = at(Version::V3).client("two");
        for (version, reason) in [(Version::V5, 0x97), (Version::V3, 3)] {
            let mut third = at(version).open();
            third.send(&at(version).hello("three").bytes());
            third.expect_refused(reason);
        }
        first.ping();
        second.ping();
    });
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25] [MQTT5-3.1.2.11.4] A message above the client's Maximum Packet Size is left out at every QoS, counts as
/// delivered, and what fits to the byte comes.
#[test]
fn messages_above_the_maximum_packet_size_are_left_out() {
    on_each(|target| {
        let topic = unique("big");
        let id = unique("big-reader");
        let hello = Connect::kept(target.version, &id).property(property::packet_maximum(200));
        let mut reader = target.connect(&hello);
        assert_eq!(reader.subscribe(&topic, 2), 2);
        let mut sender = target.client("big-sender");
        // Fixed header, topic, identifier, property length.
        let fits = 200 - 3 - (2 + topic.len()) - 2 - 1;
        for qos in 0..3 {
            sender.publish(&Publish::new(&topic, "n".repeat(fits + 3)).qos(qos));
            sender.publish(&Publish::new(&topic, "n".repeat(100_000)).qos(qos));
        }
        for qos in [1, 2] {
            sender.publish(&Publish::new(&topic, "n".repeat(fits + 1)).qos(qos));
            sender.publish(&Publish::new(&topic, "y".repeat(fits)).qos(qos));
            let delivery = reader.expect_publish();
            assert_eq!((delivery.qos, delivery.text()), (qos, "y".repeat(fits)));
            reader.acknowledge(&delivery);
        }
        reader.disconnect();
        let mut again = target.connect(&Connect::kept(target.version, &id));
        sender.publish(&Publish::new(&topic, "marker").qos(1));
        again.expect_message("marker");
    });
}

/// Deliveries of three messages each on two topics, in turn: topic or alias as they came.
fn alternating(target: Target, hello: &Connect) -> Vec<(String, Option<u16>)> {
    let topics = [unique("alias/a"), unique("alias/b")];
    let mut reader = target.connect(hello);
    for topic in &topics {
        assert_eq!(reader.subscribe(topic, 0), 0);
    }
    let mut sender = target.client("alias-sender");
    let mut known = std::collections::BTreeMap::new();
    let mut seen = Vec::new();
    for n in 0..6 {
        let topic = &topics[n % 2];
        sender.publish(&Publish::new(topic, n.to_string()));
        let delivery = reader.expect_message(&n.to_string());
        let alias = delivery
            .property(0x23)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        if let (Some(alias), false) = (alias, delivery.topic.is_empty()) {
            known.insert(alias, delivery.topic.clone());
        }
        let meant = match alias {
            Some(alias) if delivery.topic.is_empty() => known.get(&alias),
            _ => Some(&delivery.topic),
        };
        assert_eq!(meant, Some(topic), "{delivery:?}");
        seen.push((delivery.topic, alias));
    }
    seen
}

/// [MQTT5-3.1.2-26] [MQTT5-3.3.2-8] [MQTT5-3.3.2-11] With a Topic Alias Maximum of 1 the only alias is 1, and it always stands for the right
/// topic.
#[test]
fn topic_aliases_stay_within_the_maximum_of_the_client() {
    on_each(|target| {
        let hello = target.hello("alias").property(property::alias_maximum(1));
        let aliases: Vec<u16> = alternating(target, &hello)
            .into_iter()
            .filter_map(|(_, alias)| alias)
            .collect();
        assert!(!aliases.is_empty(), "the node uses aliases");
        assert!(aliases.iter().all(|alias| *alias == 1), "{aliases:?}");
    });
}

/// [MQTT5-3.1.2-27] Without a Topic Alias Maximum, and with 0, no alias is sent.
#[test]
fn no_topic_alias_is_sent_to_who_wants_none() {
    on_each(|target| {
        for hello in [
            target.hello("alias"),
            target.hello("alias").property(property::alias_maximum(0)),
        ] {
            let seen = alternating(target, &hello);
            assert!(
                seen.iter().all(|(topic, alias)| alias.is_none() && !topic.is_empty()),
                "{seen:?}"
            );
        }
    });
}

fn accepted(target: Target, property: Vec<u8>) -> Accepted {
    Raw::connect(target.at, &target.hello("asks").property(property)).1
}

/// [MQTT5-3.1.2-28] [MQTT5-3.1.2.11.6] Response Information is never returned to who did not ask for it.
#[test]
fn no_response_information_is_returned_unasked() {
    on_each(|target| {
        assert!(accepted(target, property::request_response(0)).property(0x1A).is_none());
        assert!(accepted(target, property::receive_maximum(9)).property(0x1A).is_none());
        accepted(target, property::request_response(1));
    });
}

/// [MQTT5-3.1.2-29] [MQTT5-3.1.2.11.7] Acknowledgements that refuse have a Reason String, as by default with Request Problem Information 1,
/// and none with 0; a DISCONNECT may have one in each case.
#[test]
fn reason_strings_are_left_out_when_they_are_not_wanted() {
    on_each(|target| {
        for (wish, wanted) in [(None, true), (Some(1), true), (Some(0), false)] {
            let hello = wish.into_iter().fold(target.hello("reasons"), |hello, wish| {
                hello.property(property::request_problem(wish))
            });
            let mut client = target.connect(&hello);
            let deep = format!("{}{}", unique("deep"), "/".repeat(300));
            let refused = [
                encode::subscribe(target.version, 1, &[(&deep, 0)]),
                encode::publish(target.version, &Publish::new("$SYS/x", "x").qos(1).id(2)),
                encode::ack(fellbeck_tests::mqtt::AckKind::PubRel, 3),
            ];
            for request in refused {
                client.send(&request);
                let answer = client.recv_bytes().expect("an answer");
                // Packet, identifier, then the reason, or the properties of a SUBACK.
                let has_string = answer.len() > 6;
                assert_eq!(has_string, wanted, "{wish:?}: {answer:02x?}");
            }
        }
    });
}

/// A CONNECT of MQTT 3.1.
fn of_3_1(id: &str, flags: u8) -> Vec<u8> {
    Connect::new(Version::V3, id).bytes_with(b"MQIsdp", 3, flags)
}

/// MQTT 3.1 (`MQIsdp`, level 3) is served as mosquitto does: the flag that 3.1.1 reserves is unused, Session Present stays 0 also when a
/// session is resumed, and messages flow.
#[test]
fn mqtt_3_1_is_served() {
    on_each_v3(|target| {
        let (id, topic) = (unique("old"), unique("old/topic"));
        for flags in [0x00, 0x01] {
            let mut client = target.open();
            client.send(&of_3_1(&id, flags));
            client.expect_hex("20020000");
            assert_eq!(client.subscribe(&topic, 1), 1);
            target.client("old-sender").publish(&Publish::new(&topic, "x").qos(2));
            let delivery = client.expect_message("x");
            assert_eq!(delivery.qos, 1);
            client.acknowledge(&delivery);
            client.publish(&Publish::new(&unique("old/other"), "x").qos(2));
            assert_eq!(client.unsubscribe(&[&topic]), [0_u8; 0]);
            client.disconnect();
        }
    });
}

/// MQTT 3.1 wants a client identifier (CONNACK 0x02), and knows its name at level 3 only (CONNACK 0x01, as mosquitto).
#[test]
fn mqtt_3_1_is_refused_where_mosquitto_refuses_it() {
    on_each_v3(|target| {
        let mut anonymous = target.open();
        anonymous.send(&of_3_1("", 2));
        anonymous.expect_refused(2);
        for (name, level) in [(&b"MQIsdp"[..], 4), (b"MQIsdp", 5), (b"MQTT", 3)] {
            let mut client = target.open();
            client.send(&target.hello("mixed").bytes_with(name, level, 2));
            client.expect_refused(1);
        }
    });
}
