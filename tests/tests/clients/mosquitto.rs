//! Debian's mosquitto_pub, mosquitto_sub and mosquitto_rr.
//!
//! In: their command lines. Out: what mosquitto_sub and mosquitto_rr printed, and what our witness saw. mosquitto_sub prints a line per
//! message and, with `-d`, one per packet, so that nothing is published before its subscription stands.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use fellbeck_tests::{Kind, Node, Site, wait};
use serde_json::{Value, json};

use crate::messages::{payloads, user_properties, without_expiry};
use crate::nodes;
use crate::program::{Library, Program, Task, bytes, text};
use crate::properties;
use crate::raw::Raw;

/// Longest orderly end of a node.
const END_MAX: Duration = Duration::from_secs(20);
/// Both versions by the names of mosquitto's clients.
const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];
/// Begins the lines that are messages.
const MARK: &str = "message:";
/// Printed behind the mark: topic, QoS, retain, payload in hexadecimal digits.
const FORMAT: &str = "message:%t|%q|%r|%x";

fn client(program: &str, at: SocketAddr, version: &str, args: &[&str]) -> Command {
    // Line by line, since a line in a block buffer would never be seen.
    let mut command = Command::new("stdbuf");
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    command.args(["-oL", program, "-h", &host, "-p", &port, "-V", version]);
    command.args(args);
    command
}

/// Runs mosquitto_pub to its end: at QoS above 0 all is acknowledged then.
fn publish(at: SocketAddr, version: &str, args: &[&str]) {
    Program::spawn("mosquitto_pub", client("mosquitto_pub", at, version, args)).finish();
}

/// Starts mosquitto_sub and waits for its SUBACK.
fn subscribe(at: SocketAddr, version: &str, args: &[&str]) -> Program {
    let mut program = Program::spawn("mosquitto_sub", client("mosquitto_sub", at, version, args));
    program.await_text("Subscribed (mid");
    program
}

/// Topic, QoS, retain flag and payload of each message line.
fn messages(lines: &[Value]) -> Vec<(String, u8, bool, Vec<u8>)> {
    let message = |line: &Value| {
        let line = line.as_str()?.strip_prefix(MARK)?;
        let parts: Vec<&str> = line.split('|').collect();
        let [topic, qos, retain, payload] = parts[..] else {
            panic!("not in our format: {line}");
        };
        let qos = qos.parse().expect("a QoS");
        Some((topic.to_owned(), qos, retain == "1", bytes(payload)))
    };
    lines.iter().filter_map(message).collect()
}

fn each_version_and_qos() -> impl Iterator<Item = (&'static str, u8)> {
    VERSIONS
        .into_iter()
        .flat_map(|version| (0..=2).map(move |qos| (version, qos)))
}

#[test]
fn messages_keep_content_qos_and_order() {
    let world = nodes::shared();
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = |name: &str, payload: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, payload).expect("a temporary file can be written");
        text(&json!(path))
    };
    let listed = payloads(true);
    let (binary, large) = (file("binary", &listed[1]), file("large", &listed[23]));
    for (node, at) in nodes::both(&world) {
        for (version, qos) in each_version_and_qos() {
            let topic = format!("mosquitto/{node}/messages/{version}/{qos}");
            let level = qos.to_string();
            let mut witness = Raw::watching(at, &topic);
            let wanted = ["-d", "-q", &level, "-t", &topic, "-C", "24", "-F", FORMAT];
            let reader = subscribe(at, version, &wanted);
            // Each mosquitto_pub is a client of its own: at QoS 0 only what has arrived is before the next one.
            let mut seen = Vec::new();
            let mut send = |more: &[&str]| {
                publish(at, version, &[&["-q", &level, "-t", &topic], more].concat());
                seen.push(witness.next());
            };
            send(&["-n"]);
            send(&["-f", &binary]);
            send(&["-m", "grüße ✓"]);
            let mut lines = client("mosquitto_pub", at, version, &["-q", &level, "-t", &topic, "-l"]);
            lines.stdin(std::process::Stdio::piped());
            let mut writer = Program::spawn("mosquitto_pub", lines);
            for payload in &listed[3..23] {
                writer.write(&[payload.as_slice(), b"\n"].concat());
            }
            writer.finish_input();
            seen.extend(witness.next_many(20));
            publish(at, version, &["-q", &level, "-t", &topic, "-f", &large]);
            seen.push(witness.next());
            let heard = messages(&reader.finish());
            for ((sent, seen), heard) in listed.iter().zip(&seen).zip(&heard) {
                let what = format!("{topic}: {} bytes", sent.len());
                assert!((seen.qos, &seen.payload) == (qos, sent), "{what} at the witness");
                assert!(
                    (heard.1, heard.2, &heard.3) == (qos, false, sent),
                    "{what} at mosquitto_sub"
                );
            }
            assert_eq!(heard.len(), listed.len());
        }
    }
}

#[test]
fn messages_keep_content_over_tls() {
    let nodes = nodes::shared();
    let ca = text(&json!(nodes.certificate()));
    for (node, plain, at) in nodes.over("tls") {
        for (version, qos) in each_version_and_qos() {
            let (topic, level) = (format!("mosquitto/{node}/tls/{version}/{qos}"), qos.to_string());
            let mut witness = Raw::watching(plain, &topic);
            let common = ["--cafile", &ca, "-q", &level, "-t", &topic];
            let reader = subscribe(
                at,
                version,
                &[common.as_slice(), &["-d", "-C", "1", "-F", FORMAT]].concat(),
            );
            publish(at, version, &[common.as_slice(), &["-m", "21.5"]].concat());
            let seen = witness.next();
            assert_eq!(
                (seen.payload.as_slice(), seen.qos),
                (b"21.5".as_slice(), qos),
                "{topic}"
            );
            assert_eq!(messages(&reader.finish()), [(topic, qos, false, b"21.5".to_vec())]);
        }
    }
}

#[test]
fn retained_messages_are_kept_replaced_and_deleted() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        for (version, qos) in each_version_and_qos() {
            let prefix = format!("mosquitto/{node}/retained/{version}/{qos}");
            let (topic, fence) = (format!("{prefix}/kept"), format!("{prefix}/fence"));
            let level = qos.to_string();
            // At QoS 0 only what has arrived is before the next client's.
            let mut witness = Raw::watching(at, &topic);
            let mut retain = |more: &[&str]| {
                publish(at, version, &[&["-q", &level, "-r", "-t", &topic], more].concat());
                witness.next();
            };
            retain(&["-m", "replaced"]);
            retain(&["-m", "kept"]);
            let first_of_both = ["-d", "-q", &level, "-t", &topic, "-t", &fence, "-C", "1", "-F", FORMAT];
            let heard = messages(&subscribe(at, version, &first_of_both).finish());
            assert_eq!(heard, [(topic.clone(), qos, true, b"kept".to_vec())]);
            retain(&["-n"]);
            Raw::watching(at, &topic).assert_silent();
            let late = subscribe(at, version, &first_of_both);
            publish(at, version, &["-q", &level, "-t", &fence, "-m", "fence"]);
            assert_eq!(messages(&late.finish()), [(fence, qos, false, b"fence".to_vec())]);
        }
    }
}

#[test]
fn wills_follow_a_kill_but_not_a_goodbye() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        for (version, qos) in each_version_and_qos() {
            let prefix = format!("mosquitto/{node}/will/{version}/{qos}");
            let (topic, end) = (format!("{prefix}/will"), format!("{prefix}/end"));
            let mut witness = Raw::watching(at, &topic);
            let level = qos.to_string();
            let with_will = [
                "-d",
                "--will-topic",
                &topic,
                "--will-payload",
                "gone",
                "--will-qos",
                &level,
                "-t",
                &end,
            ];
            subscribe(at, version, &with_will).kill();
            let will = witness.next();
            assert_eq!(
                (will.payload.as_slice(), will.qos, will.retain),
                (b"gone".as_slice(), qos, false),
                "{topic}"
            );
            let polite = subscribe(at, version, &[with_will.as_slice(), &["-C", "1"]].concat());
            publish(at, version, &["-q", "1", "-t", &end, "-m", "end"]);
            polite.finish();
            witness.assert_silent();
        }
    }
}

/// A session of mosquitto_sub that outlives its process.
struct Sleeper {
    version: &'static str,
    qos: u8,
    name: String,
}

impl Sleeper {
    fn command(&self, node: &Node, more: &[&str]) -> Command {
        let level = self.qos.to_string();
        let mut args = vec![
            "-d", "-c", "-i", &self.name, "-q", &level, "-t", &self.name, "-F", FORMAT,
        ];
        if self.version == "mqttv5" {
            args.extend(["-x", "3600"]);
        }
        args.extend(more);
        client("mosquitto_sub", node.ready().mqtt, self.version, &args)
    }

    fn fall_asleep(&self, node: &Node) {
        // Ends once its subscription stands.
        Program::spawn("mosquitto_sub", self.command(node, &["-E"])).finish();
    }

    fn publish(&self, node: &Node, numbers: Range<u8>) {
        let mut source = Raw::connect(node.ready().mqtt);
        for n in numbers {
            source.publish(&self.name, &[n], self.qos, Vec::new());
        }
    }

    /// Wakes up, is sent the last of `numbers`, and must have got all of them at its end.
    fn assert_wakes_up_to(&self, node: &Node, numbers: Range<u8>) {
        let mut program = Program::spawn("mosquitto_sub", self.command(node, &["-C", &numbers.len().to_string()]));
        // The last message is sent behind its SUBACK: with that unread it would reset the connection at its end, and take what it
        // acknowledged with it.
        program.await_text("Subscribed (mid");
        self.publish(node, numbers.end - 1..numbers.end);
        let expected: Vec<_> = numbers.map(|n| (self.name.clone(), self.qos, false, vec![n])).collect();
        assert_eq!(messages(&program.finish()), expected);
    }
}

#[test]
fn sessions_survive_a_restart_of_the_node() {
    for kind in [Kind::Edge, Kind::Cloud] {
        let site = Site::new();
        let mut node = Node::new(kind, &site.path("node"));
        node.start();
        for way in ["killed", "ended"] {
            let sleeper = |(version, qos)| Sleeper {
                version,
                qos,
                name: format!("mosquitto/{way}/{version}/{qos}"),
            };
            let sleepers: Vec<Sleeper> = each_version_and_qos()
                .filter(|(_, qos)| *qos > 0)
                .map(sleeper)
                .collect();
            for sleeper in &sleepers {
                sleeper.fall_asleep(&node);
                sleeper.publish(&node, 0..5);
            }
            if way == "killed" {
                node.kill();
            } else {
                assert!(node.terminate(END_MAX).success(), "{kind:?} ends with 0");
            }
            node.start();
            for sleeper in &sleepers {
                sleeper.publish(&node, 5..9);
                sleeper.assert_wakes_up_to(&node, 0..10);
                // Nothing is left: what comes next is new.
                sleeper.assert_wakes_up_to(&node, 10..11);
            }
        }
    }
}

#[test]
fn shared_subscriptions_share_the_work() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        for qos in 0..=2 {
            let topic = format!("mosquitto/{node}/shared/{qos}");
            let (filter, level) = (format!("$share/crew/{topic}"), qos.to_string());
            let member = || subscribe(at, "mqttv5", &["-d", "-q", &level, "-t", &filter, "-F", FORMAT]);
            let mut members = [member(), member()];
            let mut source = Raw::connect(at);
            for n in 0..40 {
                source.publish(&topic, &[n], qos, Vec::new());
            }
            let shares = wait::until("both members have taken all", wait::SOON, || {
                let shares = members.each_mut().map(|member| messages(member.so_far()));
                (shares.concat().len() >= 40).then_some(shares)
            });
            assert!(
                shares.iter().all(|share| !share.is_empty()),
                "{topic}: a member got nothing"
            );
            let mut done: Vec<u8> = shares
                .concat()
                .into_iter()
                .flat_map(|(_, _, _, payload)| payload)
                .collect();
            done.sort_unstable();
            assert_eq!(
                done,
                (0..40).collect::<Vec<u8>>(),
                "{topic}: each message came to one member"
            );
        }
    }
}

#[test]
fn a_request_of_mosquitto_rr_finds_the_response_of_each_library() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        for library in [Library::Paho, Library::MqttJs, Library::Rumqttc] {
            let topic = format!("mosquitto/{node}/request/{}", library.name());
            let task = Task::new(at, &topic).only_5().with(&["--stage=respond"]);
            let mut responder = Program::start(library, "request", &task);
            for (_, qos, topic) in task.rounds() {
                responder.await_event("subscribed");
                let (question, answers) = (format!("{topic}/question"), format!("{topic}/answers"));
                let mut witness = Raw::watching(at, &format!("{topic}/#"));
                let level = qos.to_string();
                let mut args = vec!["-q", &level, "-t", &question, "-e", &answers, "-m", "who?"];
                args.extend(["-D", "publish", "correlation-data", "corr-1", "-F", "answer:%p|%D"]);
                args.extend(["-D", "publish", "user-property", "zone", "north"]);
                let lines = Program::spawn("mosquitto_rr", client("mosquitto_rr", at, "mqttv5", &args)).finish();
                assert_eq!(lines, ["answer:re: who?|corr-1"], "{topic}");
                let mut seen = witness.next_many(2);
                seen.sort_by(|a, b| b.topic.cmp(&a.topic));
                let correlation = crate::program::hex(b"corr-1");
                assert_eq!(
                    properties::decode(&seen[0].properties),
                    json!({ "response_topic": answers, "correlation": correlation, "user": [["zone", "north"]] })
                );
                assert_eq!(
                    properties::decode(&seen[1].properties),
                    json!({ "correlation": correlation, "user": [["zone", "north"], ["answered", "yes"]] })
                );
            }
            responder.finish();
        }
    }
}

#[test]
fn properties_travel_from_the_edge_to_the_cloud_unchanged() {
    let world = nodes::shared();
    let [(_, edge), (_, cloud)] = nodes::both(&world);
    for qos in 0..=2 {
        let (topic, level) = (format!("mosquitto/forward/{qos}"), qos.to_string());
        let mut witness = Raw::watching(cloud, &topic);
        let identified = ["-D", "subscribe", "subscription-identifier", "7"];
        let wanted = [
            "-d",
            "-q",
            &level,
            "-t",
            &topic,
            "-C",
            "1",
            "-F",
            "message:%C|%D|%E|%F|%P|%R|%S|%p",
        ];
        let reader = subscribe(cloud, "mqttv5", &[wanted.as_slice(), &identified].concat());
        let mut args = vec!["-q", &level, "-t", &topic, "-m", "21.5"];
        for property in [
            ["content-type", "text/plain"],
            ["correlation-data", "corr-1"],
            ["message-expiry-interval", "300"],
            ["payload-format-indicator", "1"],
            ["response-topic", "answers"],
        ] {
            args.extend(["-D", "publish"]);
            args.extend(property);
        }
        let user = [["zone", "north"], ["zone", "south"], ["unit", "°C"]];
        for [name, value] in user {
            args.extend(["-D", "publish", "user-property", name, value]);
        }
        publish(edge, "mqttv5", &args);
        let seen = witness.next();
        assert_eq!((seen.payload.as_slice(), seen.qos), (b"21.5".as_slice(), qos));
        let described = without_expiry(properties::decode(&seen.properties), 300);
        let expected = json!({
            "content_type": "text/plain", "correlation": crate::program::hex(b"corr-1"), "payload_format": 1,
            "response_topic": "answers", "user": user_properties(),
        });
        assert_eq!(described, expected, "{topic}: at the witness");
        let lines = reader.finish();
        let line = lines
            .iter()
            .find_map(|line| line.as_str()?.strip_prefix(MARK))
            .expect("a message line");
        let parts: Vec<&str> = line.split('|').collect();
        let left: u32 = parts[2].parse().expect("an expiry");
        assert!((270..=300).contains(&left), "{line}");
        let others = [&parts[..2], &parts[3..]].concat();
        let user = "zone:north zone:south unit:°C";
        assert_eq!(
            others,
            ["text/plain", "corr-1", "1", user, "answers", "7", "21.5"],
            "at mosquitto_sub"
        );
    }
}

#[test]
fn aliases_of_a_device_stand_for_their_topics() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        for qos in 0..=2 {
            let (topic, level) = (format!("mosquitto/{node}/alias/{qos}"), qos.to_string());
            let mut witness = Raw::watching(at, &topic);
            let aliased = ["-D", "publish", "topic-alias", "3", "--repeat", "5", "-d"];
            let args = [&["-q", &level, "-t", &topic, "-m", "again"], aliased.as_slice()].concat();
            publish(at, "mqttv5", &args);
            for message in witness.next_many(5) {
                assert_eq!((message.topic.as_str(), message.qos), (topic.as_str(), qos));
            }
            witness.assert_silent();
        }
    }
}

#[test]
fn sessions_move_to_the_newest_connection() {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let topic = format!("mosquitto/{node}/takeover");
        let args = ["-d", "-i", &topic, "-q", "1", "-t", &topic, "-F", FORMAT];
        let mut first = subscribe(at, "mqttv5", &args);
        let mut second = subscribe(at, "mqttv5", &args);
        first.await_text("Received DISCONNECT (142)");
        // It would connect again, and the two would take the session from one another for ever.
        first.kill();
        Raw::connect(at).publish(&topic, b"news", 1, Vec::new());
        second.await_text(MARK);
    }
}
