//! The harness checked against Debian's broker, so that a failure elsewhere is the nodes' and not ours.
//!
//! In: mosquitto. Out: the raw client, device, reader and ledger do at each QoS and version what a correct client does.

use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version};
use fellbeck_tests::{
    Address, Device, DevicePlan, Mosquitto, Reader, ReaderPlan, Site, Subscription, judge, publish_lines, wait,
};

#[test]
fn devices_and_readers_keep_balanced_books_with_mosquitto() {
    let site = Site::new();
    let broker = Mosquitto::start(&site);
    let node = Address::fixed(broker.address());
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &node);
    let mut devices = Vec::new();
    for version in Version::BOTH {
        for qos in [1, 2] {
            let plan = DevicePlan::burst(&format!("dev-{version:?}-{qos}"), version, qos, 500);
            devices.push(Device::start(plan, node.clone()));
        }
    }
    let books: Vec<_> = devices.into_iter().map(Device::finish).collect();
    reader.await_all_acked(&books);
    let verdict = judge(&books, &reader.book());
    verdict.assert_clean("reader");
    assert_eq!((verdict.published, verdict.acked, verdict.received), (2000, 2000, 2000));
}

#[test]
fn an_unacknowledged_publish_is_resent_with_dup_and_comes_once_at_qos_2() {
    let site = Site::new();
    let broker = Mosquitto::start(&site);
    let mut reader = Client::connected(broker.address(), ConnectOptions::clean(Version::V3, "reader"));
    assert_eq!(reader.subscribe(&[("a", 2)]), [2]);
    let mut device = Client::connected(broker.address(), ConnectOptions::persistent(Version::V3, "device"));
    device.publish("a", b"once".to_vec(), 2, 7);
    // The broker has it; the device never reads PUBREC.
    wait::until_true("the broker took the publish", wait::SOON, || publish_is_held(&broker));
    device.drop_connection();
    let answer = device.connect(broker.address()).expect("mosquitto answers");
    assert!(answer.session_present);
    assert!(device.poll_until(wait::SOON, |event| event == Event::Acked { tag: 7 }));
    wait::until_true("the release is complete", wait::SOON, || {
        device.poll(Duration::from_millis(20));
        device.in_flight() == 0
    });
    let mut got = 0;
    device.publish("a", b"end".to_vec(), 2, 8);
    let ended = reader.poll_until(wait::SOON, |event| {
        device.poll(Duration::from_millis(1));
        let Event::Message(message) = event else { return false };
        got += usize::from(message.payload == b"once");
        message.payload == b"end"
    });
    assert!(ended || wait_for_end(&mut device, &mut reader, &mut got));
    assert_eq!(got, 1);
}

/// The publisher must be polled for its PUBREL before the broker delivers.
fn wait_for_end(device: &mut Client, reader: &mut Client, got: &mut usize) -> bool {
    wait::until_true("the end marker", wait::SOON, || {
        device.poll(Duration::from_millis(5));
        reader.poll(Duration::from_millis(5)).into_iter().any(|event| {
            let Event::Message(message) = event else { return false };
            *got += usize::from(message.payload == b"once");
            message.payload == b"end"
        })
    });
    true
}

/// A second session of the broker's own shows that it has read what came before: it answers in order of arrival.
fn publish_is_held(broker: &Mosquitto) -> bool {
    let mut probe = Client::connected(broker.address(), ConnectOptions::clean(Version::V3, "probe"));
    probe.publish("elsewhere", b"x".to_vec(), 1, 0);
    probe.poll_until(wait::SOON, |event| event == Event::Acked { tag: 0 })
}

#[test]
fn mosquitto_sub_prints_what_mosquitto_pub_sends() {
    let site = Site::new();
    let broker = Mosquitto::start(&site);
    for version in Version::BOTH {
        let sub = Subscription::start(&site, broker.address(), version, 2, "t/#");
        publish_lines(
            broker.address(),
            version,
            1,
            "t/x",
            &["one".to_owned(), "two".to_owned()],
        );
        assert_eq!(sub.await_lines(2), ["t/x 1 one", "t/x 1 two"]);
    }
}

/// A broker without a log loses what it acknowledged when it is killed. If this passed unnoticed, the kill loop would prove nothing.
#[test]
fn a_broker_that_forgets_what_it_acknowledged_is_found_out() {
    let site = Site::new();
    let broker = Mosquitto::start(&site);
    let node = Address::fixed(broker.address());
    let away = Reader::start(&ReaderPlan::all("reader", Version::V5, 1), &node).leave();
    let device = Device::start(DevicePlan::steady("dev", Version::V3, 1), node.clone());
    device.await_acked(50);
    node.put(None);
    broker.kill();
    let broker = Mosquitto::start(&site);
    node.put(Some(broker.address()));
    let reader = away.come_back();
    device.await_acked(device.acked() + 50);
    let book = device.settle();
    wait::until_true("the reader is connected again", wait::SOON, || {
        reader.book().connects == 2
    });
    assert_eq!((book.connects, book.sessions_lost), (2, 1));
    assert_eq!(reader.book().sessions_lost, 1);
    assert!(judge(&[book], &reader.book()).lost >= 50);
}
