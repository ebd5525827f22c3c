//! Shared subscriptions (4.8.2).

use std::collections::BTreeSet;

use fellbeck_tests::mqtt::wire::{packet, property};
use fellbeck_tests::mqtt::{Answer, Connect, Delivery, Publish, Raw};
use fellbeck_tests::wait;

use crate::brokers::{Target, expect_nothing, expect_nothing_own, on_each, unique};

/// A member of a share.
fn member(target: Target, hello: &Connect, shared: &str, qos: u8) -> Raw {
    let mut client = target.connect(hello);
    assert_eq!(client.subscribe(shared, qos), qos);
    client
}

/// What comes to all clients together, until there are `count`. Nothing is acknowledged.
fn collect(clients: &mut [Raw], count: usize) -> Vec<Vec<Delivery>> {
    let mut seen: Vec<Vec<Delivery>> = clients.iter().map(|_| Vec::new()).collect();
    wait::until_true("all messages", wait::SOON, || {
        for (client, seen) in clients.iter_mut().zip(&mut seen) {
            match client.poll() {
                Some(Answer::Publish(delivery)) => seen.push(delivery),
                other => assert_eq!(other, None),
            }
        }
        seen.iter().map(Vec::len).sum::<usize>() >= count
    });
    seen
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(Delivery::text).collect()
}

/// [MQTT5-4.8.2] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] Each message goes to exactly one member of each share: members of one share split them, two
/// shares of different name each get all, and so does a subscription that is not shared.
#[test]
fn each_share_gets_each_message_once() {
    on_each(|target| {
        let topic = unique("split");
        let filter = |name: &str| format!("$share/{name}/{topic}");
        let hello = || target.hello("member");
        let mut one: Vec<Raw> = (0..3).map(|_| member(target, &hello(), &filter("one"), 0)).collect();
        let mut two = [member(target, &hello(), &filter("two words $"), 0)];
        let mut plain = member(target, &hello(), &topic, 0);
        let mut sender = target.client("split-sender");
        let all: BTreeSet<String> = (0..120).map(|n| n.to_string()).collect();
        for n in 0..120 {
            sender.publish(&Publish::new(&topic, n.to_string()));
        }
        for n in 0..120 {
            plain.expect_message(&n.to_string());
        }
        let two: BTreeSet<String> = texts(&collect(&mut two, 120)[0]).into_iter().collect();
        assert_eq!(two, all);
        let parts = collect(&mut one, 120);
        assert!(parts.iter().all(|part| !part.is_empty()), "each takes part: {parts:?}");
        let together: BTreeSet<String> = parts.iter().flat_map(|part| texts(part)).collect();
        assert_eq!(together, all);
    });
}

/// [MQTT5-4.8.2] A client that has the same topic shared and not shared gets a copy for each; wildcards work within a share.
#[test]
fn a_shared_subscription_is_another_one_than_the_plain() {
    on_each(|target| {
        let topic = unique("both");
        let mut client = target.client("both");
        let identified = |client: &mut Raw, filter: &str, id| {
            assert_eq!(
                client.subscribe_all(&[property::subscription_id(id)], &[(filter, 0)]),
                [0]
            );
        };
        identified(&mut client, &format!("{topic}/a"), 1);
        identified(&mut client, &format!("$share/g/{topic}/+"), 2);
        client.publish(&Publish::new(&format!("{topic}/a"), "x"));
        let ids: BTreeSet<u8> = (0..2)
            .map(|_| client.expect_message("x").property(0x0B).expect("an identifier")[3])
            .collect();
        assert_eq!(ids, BTreeSet::from([1, 2]));
        client.publish(&Publish::new(&format!("{topic}/b"), "y"));
        assert_eq!(client.expect_message("y").property(0x0B).expect("an identifier")[3], 2);
        client.ping();
    });
}

/// [MQTT5-4.8.2] [MQTT5-3.3.1-9] A retained message is not sent for a new shared subscription.
#[test]
fn no_retained_message_is_sent_to_a_share() {
    on_each(|target| {
        let topic = unique("retained");
        let mut client = target.client("retained");
        client.publish(&Publish::new(&topic, "retained").retain().qos(1));
        assert_eq!(client.subscribe(&format!("$share/g/{topic}"), 1), 1);
        client.ping();
        client.publish(&Publish::new(&topic, "").retain().qos(0));
        client.expect_message("");
    });
}

/// [MQTT5-4.8.2-3] Each member gets its messages at the QoS that it was granted.
#[test]
fn each_member_has_its_own_qos() {
    on_each(|target| {
        let topic = unique("granted");
        let shared = format!("$share/g/{topic}");
        let mut members: Vec<Raw> = (0..3)
            .map(|qos| member(target, &target.hello("granted"), &shared, qos))
            .collect();
        let mut sender = target.client("granted-sender");
        for _ in 0..30 {
            sender.publish(&Publish::new(&topic, "x").qos(2));
        }
        for (qos, deliveries) in collect(&mut members, 30).iter().enumerate() {
            assert!(!deliveries.is_empty());
            assert!(
                deliveries.iter().all(|delivery| usize::from(delivery.qos) == qos),
                "{qos}: {deliveries:?}"
            );
        }
    });
}

/// [MQTT5-4.8.2] What a member with a session of its connection had not acknowledged at QoS 1 goes to another member when it is gone: no
/// message is lost.
#[test]
fn unacknowledged_messages_of_a_member_that_ended_go_to_another() {
    on_each(|target| {
        let topic = unique("leaves");
        let shared = format!("$share/g/{topic}");
        let mut leaver = member(target, &target.hello("leaver"), &shared, 1);
        let mut sender = target.client("leaves-sender");
        let wanted: BTreeSet<String> = (0..8).map(|n| n.to_string()).collect();
        for text in &wanted {
            sender.publish(&Publish::new(&topic, text).qos(1));
        }
        for text in &wanted {
            leaver.expect_message(text);
        }
        let mut stayer = member(target, &target.hello("stayer"), &shared, 1);
        leaver.reset();
        let mut got = BTreeSet::new();
        for _ in 0..8 {
            let delivery = stayer.expect_publish();
            stayer.acknowledge(&delivery);
            got.insert(delivery.text());
        }
        assert_eq!(got, wanted);
        stayer.ping();
    });
}

/// A kept member that holds one QoS 2 message, not acknowledged and then gone, and another member that is connected and has none.
fn absent_with_qos_2(target: Target) -> (Connect, String, Delivery, Raw) {
    let topic = unique("absent");
    let shared = format!("$share/g/{topic}");
    let hello = Connect::kept(target.version, unique("absent"));
    let mut absent = member(target, &hello, &shared, 2);
    target
        .client("absent-sender")
        .publish(&Publish::new(&topic, "once").qos(2));
    let delivery = absent.expect_message("once");
    let other = member(target, &target.hello("other"), &shared, 2);
    absent.disconnect();
    (hello, topic, delivery, other)
}

/// [MQTT5-4.8.2-4] A QoS 2 message in flight to a member that went away is completed by that member when it is back; no other member gets it
/// meanwhile.
#[test]
fn a_qos_2_message_waits_for_its_member() {
    on_each(|target| {
        let (hello, topic, first, mut other) = absent_with_qos_2(target);
        target
            .client("absent-marker")
            .publish(&Publish::new(&topic, "marker").qos(1));
        let marker = other.expect_message("marker");
        other.acknowledge(&marker);
        let mut back = target.connect(&hello);
        let again = back.expect_message("once");
        assert_eq!((again.id, again.qos, again.dup), (first.id, 2, true));
        back.acknowledge(&again);
        back.ping();
        other.ping();
    });
}

/// [MQTT5-4.8.2-5] When the session of that member ends first, the message goes to nobody else.
#[test]
fn a_qos_2_message_ends_with_the_session_of_its_member() {
    on_each(|target| {
        let (hello, topic, _, mut other) = absent_with_qos_2(target);
        let mut back = target.connect(&hello.clean(true));
        back.publish(&Publish::new(&topic, "marker").qos(1));
        other.expect_message("marker");
        expect_nothing_own(&mut back);
    });
}

/// [MQTT5-4.8.2-6] [MQTT5-4.4.0-2] [MQTT5-4.3.3-4] A message that a member answers with a reason from 0x80 on is discarded: neither another
/// member nor the same one gets it again.
#[test]
fn a_message_that_a_member_refuses_goes_to_nobody_else() {
    on_each(|target| {
        let topic = unique("refuses");
        let shared = format!("$share/g/{topic}");
        let hello = Connect::kept(target.version, unique("refuser"));
        let mut refuser = member(target, &hello, &shared, 2);
        let mut sender = target.client("refuses-sender");
        for (qos, first) in [(1, 0x40), (2, 0x50)] {
            sender.publish(&Publish::new(&topic, "refused").qos(qos));
            let delivery = refuser.expect_message("refused");
            refuser.send(&packet(first, &[&delivery.id.to_be_bytes(), &[0x83]]));
        }
        refuser.ping();
        let mut other = member(target, &target.hello("other"), &shared, 2);
        refuser.disconnect();
        sender.publish(&Publish::new(&topic, "marker").qos(1));
        other.expect_message("marker");
        let mut back = target.connect(&hello);
        expect_nothing(&mut back, &mut sender);
    });
}

/// [MQTT5-4.8.2] [MQTT5-4.9.0-2] A member whose Receive Maximum is used up takes nothing from the share: what it cannot take goes to another
/// one, at the latest when it is gone.
#[test]
fn a_member_without_quota_takes_nothing_from_the_share() {
    on_each(|target| {
        let topic = unique("quota");
        let shared = format!("$share/g/{topic}");
        let small = target.hello("small").property(property::receive_maximum(1));
        let slow = member(target, &small, &shared, 1);
        let mut fast = member(target, &target.hello("fast"), &shared, 1);
        let mut sender = target.client("quota-sender");
        for n in 0..20 {
            sender.publish(&Publish::new(&topic, n.to_string()).qos(1));
        }
        slow.reset();
        let mut got: BTreeSet<String> = BTreeSet::new();
        while got.len() < 20 {
            let delivery = fast.expect_publish();
            fast.acknowledge(&delivery);
            assert!(got.insert(delivery.text()), "{delivery:?} came twice");
        }
    });
}
