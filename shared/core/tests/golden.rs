//! Golden bytes of the codecs of `core`: files written by version 1 decode to the values spelled out here, and are written again
//! byte for byte. Bodies compressed with zstd are only decoded: another release of the library may compress them otherwise.

use bytes::Bytes;
use fellbeck_core::properties::{Property, put};
use fellbeck_core::{
    Batch, BatchError, BatchHeader, ChainError, ClockQuality, Codec, CommitNumber, DropReason, Epoch, Incarnation,
    IncarnationChain, KafkaError, Offset, Origin, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Run, Seq,
    WallTime, kafka,
};

#[path = "golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden, golden_of};

const RAW_MAX: usize = 1 << 20;

const PROPERTIES: [Property<'static>; 6] = [
    Property::PayloadFormat(1),
    Property::ContentType("application/json"),
    Property::User("mqtt.site", "north"),
    Property::ResponseTopic("plant/answers"),
    Property::CorrelationData(&[0x00, 0xff, 0x10]),
    Property::User("mqtt.site", "north"),
];

fn property_block() -> Vec<u8> {
    let mut out = Vec::new();
    PROPERTIES
        .iter()
        .for_each(|property| put(&mut out, property).expect("the properties are short"));
    out
}

/// Nothing set that may be left out.
fn bare() -> Record<'static> {
    Record {
        device: "",
        topic: "t",
        payload: b"",
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        accepted_at: WallTime(0),
        clock: ClockQuality::Unknown,
        expiry_secs: None,
        origin: None,
        path: "",
    }
}

/// Everything set.
fn full<'a>(properties: &'a [u8], payload: &'a [u8]) -> Record<'a> {
    Record {
        device: "sensor-7",
        topic: "plant/hall 1/temp\u{e9}rature",
        payload,
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: Properties::parse(properties).expect("the properties are well-formed"),
        accepted_at: WallTime(1_700_000_000_123),
        clock: ClockQuality::Synced,
        expiry_secs: Some(3_600),
        origin: Some(Origin {
            edge: "barn",
            instance: 2,
            lane: "alarms",
            run: Run(513),
            epoch: Epoch(7),
            seq: Seq(1 << 40),
        }),
        path: "barn/relay",
    }
}

/// Some of both.
fn plain() -> Record<'static> {
    Record {
        device: "sensor-8",
        topic: "plant/1",
        payload: b"21.5",
        qos: QoS::AtLeastOnce,
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Unsynced,
        expiry_secs: Some(0),
        ..bare()
    }
}

fn block_of(records: &[Record<'_>]) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    records.iter().for_each(|record| builder.push(record));
    builder.finish()
}

/// Fifty readings of one sensor, which compress well.
fn readings() -> RecordBlock {
    let payloads: Vec<String> = (0..50).map(|n| format!("{{\"n\":{n},\"celsius\":21.5}}")).collect();
    let reading = |payload| Record { payload, ..plain() };
    let records: Vec<Record<'_>> = payloads.iter().map(|payload| reading(payload.as_bytes())).collect();
    block_of(&records)
}

/// 4 KiB that nothing compresses.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..4096).map(|_| step()).collect()
}

/// The records, to compare them by: a block keeps its bytes to itself, and they are not what is asked for here.
fn spelled(block: &RecordBlock) -> String {
    format!("{:?}", block.iter().collect::<Vec<_>>())
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn properties_of_version_1() {
    let stored = golden_of("properties.bin", &property_block());
    let parsed = Properties::parse(&stored).unwrap();
    assert_eq!(parsed.iter().collect::<Vec<_>>(), PROPERTIES);
    assert_damage_shows(
        &stored,
        |_| false,
        |bytes| Properties::parse(bytes).ok().map(|parsed| format!("{parsed:?}")),
    );
}

#[test]
fn a_record_block_of_version_1() {
    let properties = property_block();
    let records = [full(&properties, b"\x00\xff21.5"), bare(), plain()];
    let stored = golden_of("record-block.bin", block_of(&records).bytes());
    let block = RecordBlock::parse(Bytes::from(stored.clone()), 3).unwrap();
    assert_eq!(block.iter().collect::<Vec<_>>(), records);
    assert_damage_shows(
        &stored,
        |_| false,
        |bytes| {
            let block = RecordBlock::parse(Bytes::copy_from_slice(bytes), 3).ok()?;
            Some(spelled(&block))
        },
    );
}

fn open(bytes: &[u8]) -> Option<(BatchHeader, String)> {
    let batch = Batch::parse(Bytes::copy_from_slice(bytes)).ok()?;
    Some((batch.header, spelled(&batch.open(RAW_MAX).ok()?)))
}

#[test]
fn a_raw_edge_batch_of_version_1() {
    let properties = property_block();
    let record = full(&properties, b"\x00\xff21.5");
    let block = block_of(&[record]);
    let batch = Batch::seal(Epoch(7), Seq(1 << 40), &block);
    let stored = golden_of("batch-raw.bin", &batch.encode());
    let header = BatchHeader {
        codec: Codec::Raw,
        epoch: Epoch(7),
        first: Seq(1 << 40),
        count: 1,
        raw_len: 168,
        earliest_expiry: Some(WallTime(1_700_003_600_123)),
    };
    assert_eq!(open(&stored), Some((header, spelled(&block))));
    assert_damage_shows(&stored, |_| false, open);
    let parse = |bytes: &[u8]| Batch::parse(Bytes::copy_from_slice(bytes)).unwrap_err();
    assert_eq!(parse(&stored[..47]), BatchError::Length { size: 47 });
    for at in 0..stored.len() {
        let error = if at == 8 {
            BatchError::Version(0)
        } else {
            BatchError::Checksum
        };
        assert_eq!(parse(&flipped(&stored, at)), error, "byte {at}");
    }
}

#[test]
fn a_compressed_edge_batch_of_version_1() {
    let stored = golden("batch-zstd.bin", || {
        Batch::seal(Epoch(u32::MAX), Seq(12), &readings()).encode().to_vec()
    });
    let batch = Batch::parse(stored.clone().into()).unwrap();
    let header = BatchHeader {
        codec: Codec::Zstd,
        epoch: Epoch(u32::MAX),
        first: Seq(12),
        count: 50,
        raw_len: 2490,
        earliest_expiry: Some(WallTime(1_700_000_000_000)),
    };
    assert_eq!(open(&stored), Some((header, spelled(&readings()))));
    assert_eq!(batch.encode(), stored, "what is around the body is written as it was");
    assert_damage_shows(&stored, |_| false, open);
}

fn decode_kafka(bytes: &[u8]) -> Option<(Offset, CommitNumber, String)> {
    let batch = kafka::decode(&Bytes::copy_from_slice(bytes), RAW_MAX).ok()?;
    Some((batch.base, batch.commit, spelled(&batch.block)))
}

/// The leader epoch lies outside the CRC, belongs to Kafka's brokers, and is not read.
fn is_leader_epoch(at: usize) -> bool {
    (12..16).contains(&at)
}

#[test]
fn a_raw_kafka_batch_of_version_1() {
    let (properties, noise) = (property_block(), noise());
    let block = block_of(&[full(&properties, &noise), bare(), plain()]);
    let stored = golden_of(
        "kafka-raw.bin",
        &kafka::encode(&block, Offset(40), CommitNumber(1 << 33)),
    );
    assert_eq!(stored[21..23], [0, 0], "not compressed");
    assert_eq!(
        decode_kafka(&stored),
        Some((Offset(40), CommitNumber(1 << 33), spelled(&block)))
    );
    assert_damage_shows(&stored, is_leader_epoch, decode_kafka);
}

#[test]
fn a_compressed_kafka_batch_of_version_1() {
    let stored = golden("kafka-zstd.bin", || {
        kafka::encode(&readings(), Offset(1 << 40), CommitNumber(9)).to_vec()
    });
    assert_eq!(stored[21..23], [0, 4], "one zstd frame");
    assert_eq!(
        decode_kafka(&stored),
        Some((Offset(1 << 40), CommitNumber(9), spelled(&readings())))
    );
    let header = kafka::read_header(&stored).unwrap();
    assert_eq!((header.count, header.last()), (50, Offset((1 << 40) + 49)));
    let times = (header.base_timestamp, header.max_timestamp);
    assert_eq!(times, (1_700_000_000_000, 1_700_000_000_000));
    assert_damage_shows(&stored, is_leader_epoch, decode_kafka);
    let decode = |bytes: &[u8]| kafka::decode(&Bytes::copy_from_slice(bytes), RAW_MAX).unwrap_err();
    let cut = stored.len() - 1;
    assert_eq!(decode(&stored[..cut]), KafkaError::Length { size: cut });
    assert_eq!(decode(&flipped(&stored, 16)), KafkaError::Magic(3));
    for at in 61..stored.len() {
        assert_eq!(decode(&flipped(&stored, at)), KafkaError::Checksum, "byte {at}");
    }
}

fn chain() -> Vec<Incarnation> {
    let incarnation = |epoch, id, parent| Incarnation {
        epoch: Epoch(epoch),
        id: [id; 16],
        parent: [parent; 16],
    };
    // The oldest names a parent that is forgotten; the epoch of the newest was adopted.
    vec![
        incarnation(3, 0xa3, 0xa2),
        incarnation(4, 0xa4, 0xa3),
        incarnation(70_000, 0xa5, 0xa4),
    ]
}

#[test]
fn a_chain_of_incarnations_of_version_1() {
    let mut built = IncarnationChain::default();
    chain().into_iter().for_each(|next| built.push(next).unwrap());
    let stored = golden_of("incarnation-chain.bin", &built.encode());
    assert_eq!(IncarnationChain::decode(&stored).unwrap().as_slice(), chain());
    assert_damage_shows(&stored, |_| false, |bytes| IncarnationChain::decode(bytes).ok());
    let newer = [&[2], &stored[1..]].concat();
    assert_eq!(IncarnationChain::decode(&newer), Err(ChainError::Version(2)));
}

/// Numbers of reasons stand in gaps and in the books of readers, on flash and on the link.
#[test]
fn the_numbers_of_drop_reasons_stay() {
    let frozen = [
        (1, "quota"),
        (2, "expired"),
        (3, "session_queue_full"),
        (4, "qos0_offline"),
        (5, "qos0_quota"),
        (6, "qos0_slow_reader"),
        (7, "packet_too_large"),
        (8, "lost_suffix"),
        (9, "damaged"),
        (10, "trimmed"),
        (11, "session_ended"),
        (12, "beyond_grace"),
        (13, "not_permitted"),
        (14, "not_logged"),
        (15, "invalid"),
    ];
    for (number, label) in frozen {
        assert_eq!(DropReason::from_u8(number).map(DropReason::as_str), Some(label));
    }
}
