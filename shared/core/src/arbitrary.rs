//! Random records and blocks for the property tests of this crate.

use proptest::prelude::*;

use crate::properties::{Property, put};
use crate::{
    ClockQuality, Epoch, Origin, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Run, Seq, WallTime,
};

/// A block of plain records with these payloads.
pub(crate) fn block_of<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    for payload in payloads {
        builder.push(&Record {
            device: "device-1",
            topic: "plant/hall/line/temperature",
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1_700_000_000_000),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}

/// A record that owns its parts.
#[derive(Debug, Clone)]
struct Owned {
    device: String,
    topic: String,
    payload: Vec<u8>,
    flags: (u8, bool, u8),
    properties: Vec<u8>,
    accepted_at: u64,
    expiry_secs: Option<u32>,
    origin: Option<(String, u32, String, u16, u32, u64)>,
    path: String,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        Record {
            device: &self.device,
            topic: &self.topic,
            payload: &self.payload,
            qos: QoS::from_u8(self.flags.0).unwrap(),
            retain: self.flags.1,
            properties: Properties::parse(&self.properties).unwrap(),
            accepted_at: WallTime(self.accepted_at),
            clock: ClockQuality::from_u8(self.flags.2).unwrap(),
            expiry_secs: self.expiry_secs,
            origin: self
                .origin
                .as_ref()
                .map(|(edge, instance, lane, run, epoch, seq)| Origin {
                    edge,
                    instance: *instance,
                    lane,
                    run: Run(*run),
                    epoch: Epoch(*epoch),
                    seq: Seq(*seq),
                }),
            path: &self.path,
        }
    }
}

/// Names that clash with ours among them.
fn arb_properties() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        "[a-c]{0,2}",
        Just("mqtt.topic".to_owned()),
        Just("mqtt.user.mqtt.topic".to_owned()),
        Just("fellbeck.meta".to_owned()),
        "mqtt\\.[a-z]{0,3}",
    ];
    prop::collection::vec((0u8..5, name, "\\PC{0,9}"), 0..4).prop_map(|list| {
        let mut out = Vec::new();
        for (kind, name, value) in &list {
            let property = match kind {
                0 => Property::PayloadFormat(value.len() as u8),
                1 => Property::ContentType(value),
                2 => Property::ResponseTopic(name),
                3 => Property::CorrelationData(value.as_bytes()),
                _ => Property::User(name, value),
            };
            put(&mut out, &property).unwrap();
        }
        out
    })
}

fn arb_record() -> impl Strategy<Value = Owned> {
    let origin = prop::option::of((
        "[a-z]{0,8}",
        any::<u32>(),
        "[a-z/]{0,90}",
        any::<u16>(),
        any::<u32>(),
        any::<u64>(),
    ));
    let time = prop_oneof![4 => 1_700_000_000_000u64..1_700_000_100_000, 1 => any::<u64>()];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0usize..3000).prop_map(|(byte, len)| vec![byte; len]),
    ];
    (
        ("\\PC{0,12}", "[a-z/]{1,20}", payload, arb_properties()),
        (0u8..3, any::<bool>(), 0u8..3),
        (time, prop::option::of(any::<u32>()), origin, "[a-z/]{0,12}"),
    )
        .prop_map(|(message, flags, (accepted_at, expiry_secs, origin, path))| Owned {
            device: message.0,
            topic: message.1,
            payload: message.2,
            properties: message.3,
            flags,
            accepted_at,
            expiry_secs,
            origin,
            path,
        })
}

/// A block of 1 to 11 records, each field at random.
pub(crate) fn arb_block() -> impl Strategy<Value = RecordBlock> {
    prop::collection::vec(arb_record(), 1..12).prop_map(|records| {
        let mut builder = RecordBlockBuilder::default();
        records.iter().for_each(|record| builder.push(&record.record()));
        let block = builder.finish();
        assert!(
            block.iter().eq(records.iter().map(Owned::record)),
            "a block holds what was pushed"
        );
        block
    })
}
