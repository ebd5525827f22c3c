//! Who is taken, who is probed, who is refused: one rule of DESIGN section 5 each.

use fellbeck_core::incarnation::NO_PARENT;
use fellbeck_core::{ClockQuality, WallTime};

use super::*;
use crate::NodeKind;

const LOG: [u8; 16] = [7; 16];

fn incarnation(n: u8) -> Incarnation {
    Incarnation {
        epoch: Epoch(u32::from(n)),
        id: [n; 16],
        parent: if n == 1 { NO_PARENT } else { [n - 1; 16] },
    }
}

/// An edge with the incarnations of `chain`, which holds records up to 100 and knows W = 50.
fn hello(chain: std::ops::RangeInclusive<u8>) -> Hello {
    let lane = LaneHello {
        lane: "default".into(),
        run: Run(0),
        epoch: Epoch(u32::from(*chain.end())),
        first: Seq(20),
        end: Seq(101),
        acked: Some(Seq(50)),
    };
    Hello {
        edge: "e1".into(),
        instance: 1,
        kind: NodeKind::Edge,
        chain: chain.map(incarnation).collect(),
        log_id: Some(LOG),
        lanes: vec![lane],
        now: WallTime(0),
        clock: ClockQuality::Synced,
    }
}

fn known(last: u8, w: u64) -> KnownEdge {
    let w = Position {
        epoch: Epoch(u32::from(last)),
        seq: Seq(w),
    };
    KnownEdge {
        instance: 1,
        incarnation: Some(incarnation(last)),
        lanes: vec![LaneMark {
            lane: "default".into(),
            run: Run(0),
            w,
        }],
    }
}

fn decide(known: Option<&KnownEdge>, live: LiveConnection, hello: &Hello) -> Decision {
    let circumstances = Circumstances {
        log_id: LOG,
        certificate_name: "e1",
        known,
        live,
    };
    admit(&circumstances, hello)
}

fn accepted(known: Option<&KnownEdge>, hello: &Hello) -> Admission {
    match decide(known, LiveConnection::None, hello) {
        Decision::Accept(admission) => admission,
        other => panic!("not accepted: {other:?}"),
    }
}

fn refused(known: Option<&KnownEdge>, hello: &Hello) -> RefuseCode {
    match decide(known, LiveConnection::None, hello) {
        Decision::Refuse { code, text } => {
            assert!(text.contains("e1"), "a refusal names the edge: {text}");
            code
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_stranger_with_a_good_certificate_begins_at_record_one() {
    let mut hello = hello(1..=3);
    hello.log_id = None;
    hello.instance = 0;
    let admission = accepted(None, &hello);
    assert_eq!((admission.relation, admission.instance), (Relation::First, 1));
    assert_eq!((admission.lanes, admission.adopt), (vec![None], None));
    assert_eq!(admission.incarnation, incarnation(3));
}

#[test]
fn the_same_incarnation_reconnects_and_a_later_one_restarts() {
    let known = known(3, 60);
    assert_eq!(accepted(Some(&known), &hello(1..=3)).relation, Relation::Reconnect);
    let admission = accepted(Some(&known), &hello(1..=9));
    assert_eq!(admission.relation, Relation::Restart);
    assert_eq!(admission.lanes, [Some(known.lanes[0].w)]);
    assert_eq!(admission.went_back, []);
}

#[test]
fn a_history_without_the_last_known_incarnation_is_fenced() {
    assert_eq!(refused(Some(&known(5, 60)), &hello(1..=3)), RefuseCode::Fenced);
    assert_eq!(refused(Some(&known(2, 60)), &hello(10..=12)), RefuseCode::Fenced);
}

#[test]
fn a_w_above_the_clouds_own_says_that_the_cloud_was_restored() {
    let admission = accepted(Some(&known(2, 30)), &hello(1..=3));
    assert_eq!(admission.relation, Relation::CloudRestored);
    assert_eq!(admission.went_back, [LaneIndex(0)]);
    // It may have forgotten the incarnation that it admitted last, too.
    let admission = accepted(Some(&known(2, 30)), &hello(10..=12));
    assert_eq!(admission.relation, Relation::CloudRestored);
    let mut other_log = hello(10..=12);
    other_log.log_id = Some([9; 16]);
    assert_eq!(
        refused(Some(&known(2, 30)), &other_log),
        RefuseCode::Fenced,
        "a W of another log proves nothing about this one"
    );
}

#[test]
fn a_w_that_the_edge_has_not_minted_is_refused() {
    assert_eq!(refused(Some(&known(2, 101)), &hello(1..=3)), RefuseCode::EdgeBehind);
    accepted(Some(&known(2, 100)), &hello(1..=3));
}

#[test]
fn an_empty_store_under_a_known_name_adopts_the_next_epoch() {
    let mut fresh = hello(1..=1);
    fresh.chain[0].id = [99; 16];
    fresh.log_id = None;
    fresh.lanes[0] = LaneHello {
        first: Seq(1),
        end: Seq(1),
        acked: None,
        ..fresh.lanes[0].clone()
    };
    let admission = accepted(Some(&known(7, 60)), &fresh);
    assert_eq!(
        (admission.relation, admission.adopt),
        (Relation::EmptyStore, Some(Epoch(8)))
    );
    fresh.lanes[0].end = Seq(2);
    assert_eq!(refused(Some(&known(7, 60)), &fresh), RefuseCode::Fenced);
}

#[test]
fn a_chain_too_short_for_its_restarts_is_taken_only_with_all_of_its_evidence() {
    let known = known(3, 60);
    let many = hello(100..=163);
    assert_eq!(accepted(Some(&known), &many).relation, Relation::RestartBeyondChain);

    assert_eq!(
        refused(Some(&known), &hello(100..=162)),
        RefuseCode::Fenced,
        "a chain with room has forgotten nothing"
    );
    let mut other_log = many.clone();
    other_log.log_id = None;
    assert_eq!(refused(Some(&known), &other_log), RefuseCode::Fenced);
    let mut behind = many.clone();
    behind.lanes[0].end = Seq(60);
    assert_eq!(refused(Some(&known), &behind), RefuseCode::Fenced);
    let mut later = known.clone();
    later.incarnation = Some(Incarnation {
        epoch: Epoch(120),
        ..incarnation(3)
    });
    assert_eq!(
        refused(Some(&later), &many),
        RefuseCode::Fenced,
        "the known epoch should be in that chain"
    );
}

#[test]
fn an_adopted_instance_begins_anew_and_is_told_its_number() {
    let adopted = KnownEdge {
        instance: 2,
        incarnation: None,
        lanes: Vec::new(),
    };
    let admission = accepted(Some(&adopted), &hello(10..=12));
    assert_eq!((admission.instance, admission.lanes), (2, vec![None]));
    // The cloud is put back to before the adoption: its marks are of the former instance.
    let mut later = hello(10..=12);
    later.instance = 2;
    let admission = accepted(Some(&known(3, 60)), &later);
    assert_eq!((admission.instance, admission.lanes), (2, vec![None]));
    assert_eq!(admission.relation, Relation::CloudRestored);
}

#[test]
fn a_live_connection_is_taken_over_by_its_own_incarnation_and_probed_for_another() {
    let known = known(3, 60);
    let decide = |live, chain| decide(Some(&known), live, &hello(chain));
    let live = incarnation(3);
    assert_eq!(
        decide(LiveConnection::Unprobed(live), 1..=3),
        Decision::TakeOver(ByeReason::TakenOver)
    );
    assert_eq!(decide(LiveConnection::Unprobed(live), 1..=4), Decision::Probe);
    assert_eq!(
        decide(LiveConnection::Silent(live), 1..=4),
        Decision::TakeOver(ByeReason::Replaced)
    );
    let refusal = decide(LiveConnection::Answered(live), 1..=4);
    assert!(matches!(
        refusal,
        Decision::Refuse {
            code: RefuseCode::SecondIdentity,
            ..
        }
    ));
    assert_eq!(decide(LiveConnection::Draining, 1..=4), Decision::AwaitDrained);
    let clone = decide(LiveConnection::Unprobed(live), 10..=12);
    assert!(
        matches!(
            clone,
            Decision::Refuse {
                code: RefuseCode::Fenced,
                ..
            }
        ),
        "no need to trouble the original for a clone that is fenced anyway"
    );
}

#[test]
fn a_hello_that_contradicts_itself_is_refused() {
    let breaks: [fn(&mut Hello); 8] = [
        |hello| hello.chain.clear(),
        |hello| hello.chain.swap(0, 1),
        |hello| hello.chain[0].id = [0; 16],
        |hello| hello.chain[2].epoch = Epoch(u32::MAX),
        |hello| hello.lanes[0].first = Seq(0),
        |hello| hello.lanes[0].first = Seq(102),
        |hello| hello.lanes[0].acked = Some(Seq(101)),
        |hello| hello.lanes.push(hello.lanes[0].clone()),
    ];
    for (index, break_it) in breaks.iter().enumerate() {
        let mut hello = hello(1..=3);
        break_it(&mut hello);
        assert_eq!(refused(None, &hello), RefuseCode::Malformed, "case {index}");
    }
    let mut other = hello(1..=3);
    other.edge = "e2".into();
    assert_eq!(refused(None, &other), RefuseCode::Name);
}
