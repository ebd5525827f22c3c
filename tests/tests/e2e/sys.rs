//! `$SYS` on both nodes, as users of MQTT brokers know it: values at once, changes while one looks, and nothing on flash.
//!
//! In: an edge and a cloud, mosquitto_sub and our own client. Out: names, values that follow the traffic, and what must not happen.

use std::collections::{BTreeMap, BTreeSet};

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version};
use fellbeck_tests::{Node, Subscription, World, publish_lines, wait};

const UPTIME: &str = "$SYS/broker/uptime";
const RECEIVED: &str = "$SYS/broker/publish/messages/received";
const COMMITS: &str = "fellbeck_store_commits_total";
const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// Names of mosquitto below `$SYS/broker/` that a node must know. Those of the load averages are made from these and a window.
const NAMES: &str = "version uptime clients/total clients/connected clients/active clients/disconnected clients/inactive \
    clients/maximum clients/expired messages/received messages/sent messages/stored publish/messages/received \
    publish/messages/sent publish/messages/dropped publish/bytes/received publish/bytes/sent bytes/received bytes/sent \
    subscriptions/count shared_subscriptions/count store/messages/count store/messages/bytes";
const LOADS: &str = "messages/received messages/sent publish/received publish/sent publish/dropped bytes/received bytes/sent \
    sockets connections";

fn start() -> World {
    World::start_with(|edge, cloud| {
        edge.set("mqtt.sys_interval_secs", "1");
        // A heartbeat is a record more in the lane, and these tests count exactly.
        edge.set("uplink.heartbeat_ms", "0");
        cloud.set("mqtt.sys_interval_secs", "1");
    })
}

/// Newest value per topic of what mosquitto_sub has printed.
fn newest(subscription: &Subscription) -> BTreeMap<String, String> {
    let lines = subscription.lines().into_iter();
    let parsed = lines.map(|line| {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().expect("topic, QoS and payload").to_owned();
        let (topic, qos, payload) = (next(), next(), next());
        assert_eq!(qos, "0", "{topic}");
        (topic, payload)
    });
    parsed.collect()
}

fn await_value(subscription: &Subscription, topic: &str, expected: &str) {
    wait::until_true(&format!("{topic} is {expected}"), wait::EVENTUALLY, || {
        newest(subscription).get(topic).is_some_and(|value| value == expected)
    });
}

/// A client that counts the values of the node's uptime: the clock of these tests.
struct Watch(Client);

impl Watch {
    fn start(node: &Node) -> Self {
        let mut client = Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V5, "watch"));
        assert_eq!(client.subscribe(&[(UPTIME, 0)]), [0]);
        let mut watch = Self(client);
        watch.next();
        watch
    }

    /// The next value, in seconds.
    fn next(&mut self) -> u64 {
        let mut seconds = None;
        let came = self.0.poll_until(wait::EVENTUALLY, |event| {
            seconds = uptime(&event);
            seconds.is_some()
        });
        assert!(came, "the uptime goes on");
        seconds.expect("the value of the uptime")
    }
}

fn uptime(event: &Event) -> Option<u64> {
    let Event::Message(message) = event else {
        return None;
    };
    let text = String::from_utf8(message.payload.clone()).ok()?;
    (message.topic == UPTIME).then(|| text.strip_suffix(" seconds")?.parse().ok())?
}

fn is_sys(event: &Event) -> bool {
    matches!(event, Event::Message(message) if message.topic.starts_with("$SYS"))
}

#[test]
fn mosquitto_sub_is_shown_all_names_at_once() {
    // The interval is the default one: what comes sooner came by the subscription.
    let world = World::start();
    let loads = LOADS
        .split(' ')
        .flat_map(|name| ["1min", "5min", "15min"].map(|window| format!("load/{name}/{window}")));
    let names: BTreeSet<String> = NAMES
        .split_whitespace()
        .map(str::to_owned)
        .chain(loads)
        .map(|name| format!("$SYS/broker/{name}"))
        .collect();
    for (node, kind) in [(&world.edge, "edge"), (&world.cloud, "cloud")] {
        for version in VERSIONS {
            let subscription = Subscription::start(&world.site, node.ready().mqtt, version, 1, "$SYS/#");
            await_value(&subscription, "$SYS/fellbeck/node/kind", kind);
            wait::until_true("all names are there", wait::SOON, || {
                let found = newest(&subscription);
                names.iter().all(|name| found.contains_key(name))
            });
            let found = newest(&subscription);
            let unknown: Vec<_> = found
                .keys()
                .filter(|topic| topic.starts_with("$SYS/broker/") && !names.contains(*topic))
                .collect();
            assert_eq!(unknown, Vec::<&String>::new());
            assert!(found[UPTIME].ends_with(" seconds"), "{}", found[UPTIME]);
        }
    }
}

#[test]
fn what_is_published_is_counted_exactly() {
    let world = start();
    for node in [&world.edge, &world.cloud] {
        let at = node.ready().mqtt;
        let subscription = Subscription::start(&world.site, at, Version::V5, 0, "$SYS/#");
        wait::until_true("the value is there", wait::SOON, || {
            newest(&subscription).contains_key("$SYS/fellbeck/store/records/appended")
        });
        let before = newest(&subscription);
        let count = |topic: &str| before[topic].parse::<u64>().expect("a number");
        let lines: Vec<String> = (0..137).map(|n| format!("line {n:03}")).collect();
        publish_lines(at, Version::V3, 1, "site/a/b/c", &lines);
        publish_lines(at, Version::V5, 2, "site/a/b/c", &lines[..13]);
        await_value(&subscription, RECEIVED, &(count(RECEIVED) + 150).to_string());
        let bytes = "$SYS/broker/publish/bytes/received";
        await_value(&subscription, bytes, &(count(bytes) + 150 * 8).to_string());
        // This world's nodes log the topic, each publish as one record.
        let appended = "$SYS/fellbeck/store/records/appended";
        assert!(newest(&subscription)[appended].parse::<u64>().expect("a number") >= count(appended) + 150);
        wait::until_true("the load shows it", wait::EVENTUALLY, || {
            let load = newest(&subscription)["$SYS/broker/load/publish/received/1min"].clone();
            load.parse::<f64>().expect("a number") > 0.0
        });
        let held = node.metrics().sum("fellbeck_broker_received_total").unwrap_or(0.0);
        assert_eq!(newest(&subscription)[RECEIVED], held.to_string());
    }
}

#[test]
fn the_link_shows_on_both_sides() {
    let world = start();
    let edge = Subscription::start(&world.site, world.edge.ready().mqtt, Version::V5, 0, "$SYS/#");
    let cloud = Subscription::start(&world.site, world.cloud.ready().mqtt, Version::V3, 0, "$SYS/fellbeck/#");
    await_value(&edge, "$SYS/fellbeck/uplink/connected", "1");
    await_value(&cloud, "$SYS/fellbeck/edges/connected", "1");
    world.link.aim(None);
    await_value(&edge, "$SYS/fellbeck/uplink/connected", "0");
    await_value(&cloud, "$SYS/fellbeck/edges/connected", "0");
    let lines: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    publish_lines(world.edge.ready().mqtt, Version::V5, 1, "site/a/b/c", &lines);
    await_value(&edge, "$SYS/fellbeck/uplink/records/waiting", "40");
    world.link.aim(world.cloud.ready().link);
    await_value(&edge, "$SYS/fellbeck/uplink/records/waiting", "0");
    await_value(&edge, "$SYS/fellbeck/uplink/records/acked", "40");
    await_value(&edge, "$SYS/fellbeck/uplink/state", "connected");
    await_value(&cloud, "$SYS/fellbeck/edges/connected", "1");
}

/// [MQTT5-4.7.2-1] Filters that begin with a wildcard get nothing of the tree below `$SYS`.
#[test]
fn a_wildcard_at_the_front_sees_nothing_of_it() {
    let world = start();
    for node in [&world.edge, &world.cloud] {
        let options = ConnectOptions::clean(Version::V5, "wild");
        let mut wild = Client::connected(node.ready().mqtt, options);
        assert_eq!(
            wild.subscribe(&[("#", 0), ("+/#", 0), ("+/broker/uptime", 0)]),
            [0, 0, 0]
        );
        let mut watch = Watch::start(node);
        watch.next();
        watch.next();
        // What comes before this one has come.
        assert_eq!(wild.subscribe(&[("end", 0)]), [0]);
        assert!(!wild.poll(std::time::Duration::ZERO).iter().any(is_sys));
    }
}

#[test]
fn clients_may_not_publish_there() {
    let world = start();
    for node in [&world.edge, &world.cloud] {
        let mut watch = Watch::start(node);
        for topic in [UPTIME, "$SYS/mine"] {
            let mut new = Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V5, "new"));
            new.publish_retained(topic, b"0 seconds".to_vec(), 1, 3);
            let refused = Event::Rejected { tag: 3, reason: 0x87 };
            assert!(new.poll_until(wait::SOON, |event| event == refused));
            let mut old = Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V3, "old"));
            old.publish_retained(topic, b"0 seconds".to_vec(), 1, 3);
            assert!(old.poll_until(wait::SOON, |event| matches!(event, Event::Lost { .. })));
        }
        let (first, second) = (watch.next(), watch.next());
        assert!(0 < first && first < second, "{first} {second}");
        let mut after = Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V5, "after"));
        assert_eq!(after.subscribe(&[("$SYS/mine", 0)]), [0]);
        // What comes before this one has come.
        assert_eq!(after.subscribe(&[("end", 0)]), [0]);
        assert!(!after.poll(std::time::Duration::ZERO).iter().any(is_sys));
    }
}

#[test]
fn a_session_that_is_away_is_kept_none_of_it() {
    let world = start();
    for node in [&world.edge, &world.cloud] {
        let at = node.ready().mqtt;
        let mut watch = Watch::start(node);
        let mut reader = Client::connected(at, ConnectOptions::persistent(Version::V5, "reader"));
        assert_eq!(reader.subscribe(&[("$SYS/#", 1)]), [1]);
        assert!(reader.poll_until(wait::SOON, |event| uptime(&event).is_some()));
        reader.disconnect();
        watch.next();
        watch.next();
        let last = watch.next();
        assert!(reader.connect(at).expect("the node is there").session_present);
        let mut events = Vec::new();
        assert!(reader.poll_until(wait::EVENTUALLY, |event| {
            events.push(event);
            events.iter().filter_map(uptime).count() >= 2
        }));
        let times: Vec<u64> = events.iter().filter_map(uptime).collect();
        assert!(last <= times[0] && times[0] < times[1], "{last} {times:?}");
        let stale = |event: &&Event| matches!(event, Event::Message(message) if message.topic.ends_with("/version") || message.retain);
        assert_eq!(events.iter().find(stale), None);
    }
}

/// Readers of all kinds look on, and the stores are at rest.
#[test]
fn it_makes_no_commits() {
    let world = start();
    let commits = |node: &Node| node.metrics().sum(COMMITS).unwrap_or(0.0);
    for node in [&world.edge, &world.cloud] {
        let mut watch = Watch::start(node);
        let mut readers = Vec::new();
        for (name, filter) in [("plain", "$SYS/#"), ("member", "$share/g/$SYS/#")] {
            let options = ConnectOptions::persistent(Version::V5, name);
            let mut reader = Client::connected(node.ready().mqtt, options);
            assert_eq!(reader.subscribe(&[(filter, 2)]), [2]);
            readers.push(reader);
        }
        wait::until_true("the store is at rest for four intervals", wait::EVENTUALLY, || {
            let before = commits(node);
            (0..4).for_each(|_| {
                watch.next();
            });
            commits(node) <= before
        });
        for reader in &mut readers {
            assert!(reader.poll_until(wait::SOON, |event| is_sys(&event)));
        }
    }
}

#[test]
fn it_can_be_turned_off() {
    let world = World::start_with(|edge, cloud| {
        edge.set("mqtt.sys_interval_secs", "0");
        cloud.set("mqtt.sys_interval_secs", "0");
    });
    for node in [&world.edge, &world.cloud] {
        let mut reader = Client::connected(node.ready().mqtt, ConnectOptions::clean(Version::V5, "reader"));
        assert_eq!(reader.subscribe(&[("$SYS/#", 0), ("marks/#", 0)]), [0, 0]);
        reader.publish("marks/a", b"x".to_vec(), 0, 0);
        let mut first = None;
        assert!(reader.poll_until(wait::SOON, |event| {
            let is_message = matches!(event, Event::Message(_));
            first = Some(event);
            is_message
        }));
        assert!(!first.as_ref().is_some_and(is_sys), "{first:?}");
    }
}
