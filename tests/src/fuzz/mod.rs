//! Fuzz bodies: what must hold for any bytes that a decoder is given.
//!
//! In: bytes of any kind. Out: whether they reached the end of the body; a broken property is a panic.
//! One body per target of `tests/fuzz`, which runs them under libFuzzer; `tests/fuzz_corpora.rs` runs the same bodies over the
//! committed corpora with the stable compiler. Where a checksum stands before a decoder, the body also mends it, so that a mutation
//! reaches what lies behind. How to run them, and what becomes of a finding, is in `docs/fuzzing.md`.

mod batch;
mod block;
mod chain;
mod core;
mod downlink;
mod frames;
mod kafka;
mod mqtt;
mod node;
mod properties;
mod receiver;
mod session;
mod topics;
mod websocket;

pub use node::{NEWEST, Node};

/// A body. True: the input was accepted and all properties were checked on it. False: a decoder refused it.
pub type Body = fn(&[u8]) -> bool;

/// Every target by its name: that of its file in `tests/fuzz/fuzz_targets` and of its folder in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Body); 18] = [
    ("incarnation_chain", chain::incarnation_chain),
    ("kafka_batch", kafka::kafka_batch),
    ("link_control_frame", frames::link_control_frame),
    ("link_downlink", downlink::link_downlink),
    ("link_frame_decoder", frames::link_frame_decoder),
    ("link_lane_frame", frames::link_lane_frame),
    ("link_receiver", receiver::link_receiver),
    ("mqtt_connect", mqtt::mqtt_connect),
    ("mqtt_control", mqtt::mqtt_control),
    ("mqtt_publish", mqtt::mqtt_publish),
    ("properties", properties::properties),
    ("record_batch", batch::record_batch),
    ("record_block", block::record_block),
    ("session_core", core::session_core),
    ("session_state", session::session_state),
    ("topic_filter", topics::topic_filter),
    ("ws_frames", websocket::ws_frames),
    ("ws_upgrade", websocket::ws_upgrade),
];

/// Runs the target `name` on `data`. Panics where a property does not hold, or where there is no such target.
pub fn run(name: &str, data: &[u8]) -> bool {
    let (_, body) = TARGETS
        .iter()
        .find(|(target, _)| *target == name)
        .expect("a fuzz target names one of the bodies");
    body(data)
}

/// Raw bytes up to which a body opens a compressed batch.
const RAW_MAX: usize = 1 << 20;
