//! The order in which the core is given the store's answers and blocks, and what a pause excuses.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use fellbeck_core::{ClockQuality, QoS, TrackId};
use fellbeck_store::StoreConfig;
use tempfile::TempDir;

use super::*;
use crate::front::broker::Parts;
use crate::front::config::MqttServerConfig;
use crate::front::connection::excused;
use crate::front::failure::Failure;
use crate::session::{Core, CoreConfig, CoreLimits, Mode, Pressure, Route};
use crate::wire::{ConnId, Connect, PublishIn, Version};

struct AllTo(TrackId);

impl Route for AllTo {
    fn route(&self, _: &str, _: &str) -> Option<TrackId> {
        Some(self.0)
    }
}

const CLIENT: ConnId = ConnId(1);

/// A broker with one client at the core, and the answers that would go to its follower.
fn broker(store: &Store) -> (Rc<Broker>, mpsc::Receiver<Committed>) {
    let config = MqttServerConfig {
        clock: || ClockQuality::Synced,
        ..MqttServerConfig::default()
    };
    let limits = CoreLimits::default();
    let core = CoreConfig {
        mode: Mode::CommittedOnly,
        local_track: None,
        limits,
    };
    let lane = store.track("lane/default/0").unwrap();
    let (submitter, answers) = store.submitter(config.submissions_max);
    let parts = Parts {
        core: Core::new(core, Box::new(AllTo(lane)), "test"),
        limits,
        store: store.clone(),
        submitter,
        failure: Failure::new().0,
        count: Arc::new(AtomicUsize::new(0)),
        node_name: "test".to_owned(),
        status: Box::new(|_| Vec::new()),
        notices: super::super::inside::channel().2,
        books: watch::Sender::new(Arc::default()),
    };
    let broker = Rc::new(Broker::new(config, parts));
    let connect = Connect {
        version: Version::V5,
        client_id: "a".to_owned(),
        clean_start: true,
        session_expiry_secs: 0,
        receive_maximum: 10,
        packet_max: None,
        will: None,
    };
    broker.with(|state, now| state.core.handle_connect(CLIENT, connect, now, &mut state.wire));
    (broker, answers)
}

fn publish(broker: &Broker) {
    let publish = PublishIn {
        topic: "t",
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        properties: &[],
        expiry_secs: None,
    };
    broker.with(|state, now| {
        state
            .core
            .handle_publish(CLIENT, publish, Pressure::Normal, now, &mut state.wire)
    });
    broker.run_turn();
}

#[test]
fn answers_that_are_there_are_given_before_a_block_whatever_woke_the_drain() {
    let dir = TempDir::new().unwrap();
    let store = fellbeck_store::open(dir.path(), StoreConfig::edge(vec!["lane/default/0".to_owned()]))
        .unwrap()
        .0;
    let (broker, mut answers) = broker(&store);
    let mut newest = store.watch();
    publish(&broker);
    let deadline = Instant::now() + Duration::from_secs(10);
    while answers.is_empty()
        || matches!(
            store.tail().read(broker.with(|state, _| state.tail_next), 1),
            TailRead::Empty
        )
    {
        assert!(Instant::now() < deadline, "the store does not answer");
        std::thread::yield_now();
    }
    // As when the move of the newest commit is seen first, and as in every pass but the first.
    assert!(drain(&broker, None, &mut answers, &mut newest), "there was a block");
    assert!(answers.is_empty(), "the answer is still in the channel");
    broker.run_turn();
    drop(broker);
    store.close();
}

#[test]
fn a_handful_of_paused_ticks_does_not_excuse_a_silence_of_minutes() {
    let second = Duration::from_secs(1);
    let at = |secs| Tick(Duration::from_secs(secs));
    let mut last = at(100);
    for now in [110, 120, 130] {
        last = excused(last, second, at(now));
    }
    assert_eq!(last, at(103));
    // Never beyond the present: all of a long pause is excused, no more.
    assert_eq!(excused(at(100), second * 50, at(130)), at(130));
}
