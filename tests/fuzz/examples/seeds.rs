//! Writes the first inputs of every target into `corpus/<target>/seed-*`: small valid ones, from which the fuzzer goes on.
//!
//! In: nothing. Out: files beside this crate. The same bytes at every run, as long as the formats stay.

use std::fs;
use std::path::Path;

use fellbeck_core::properties::{Property, put};
use fellbeck_core::varint::{put_bytes, put_u64};
use fellbeck_core::{
    Batch, ClockQuality, CommitNumber, DropReason, Epoch, Filter, IncarnationChain, LogPosition, Offset, Origin, Position, Properties, QoS,
    Record, RecordBlock, RecordBlockBuilder, Run, Seq, WallTime, kafka,
};
use fellbeck_link::downlink::{
    DownMark, FromCloud, FromEdge, Messages, Open, Opened, Tag, Wanted,
};
use fellbeck_link::{
    ByeReason, ControlFrame, Gap, Hello, LaneAck, LaneFrame, LaneHello, LaneIndex, LaneWelcome, NodeKind, RefuseCode,
    Skip, Welcome,
};
use fellbeck_tests::fuzz::Node;

fn main() {
    let mut seeds: Vec<(&str, Vec<u8>)> = Vec::new();
    for block in blocks() {
        let batch = Batch::seal(Epoch(3), Seq(1), &block);
        seeds.push(("record_block", block.bytes().to_vec()));
        seeds.push(("record_batch", batch.encode().to_vec()));
        seeds.push((
            "kafka_batch",
            kafka::encode(&block, Offset(5), CommitNumber(9)).to_vec(),
        ));
        let batch = LaneFrame::Batch {
            sent_at: WallTime(1_700_000_000_500),
            batch,
        };
        seeds.push(("link_lane_frame", batch.encode()[4..].to_vec()));
    }
    seeds.extend(property_blocks().into_iter().map(|block| ("properties", block)));
    seeds.extend([0, 1, 3, 64].map(|links| ("incarnation_chain", chain(links).encode())));
    for frame in [LaneFrame::Start(LaneIndex(1)), gap(5, 9), skip(10, 10)] {
        seeds.push(("link_lane_frame", frame.encode()[4..].to_vec()));
    }
    let control: Vec<_> = control_frames().iter().map(|frame| frame.encode().to_vec()).collect();
    seeds.extend(control.iter().map(|frame| ("link_control_frame", frame[4..].to_vec())));
    for (limit, portion) in [(255, 0), (255, 6)] {
        seeds.push(("link_frame_decoder", [vec![limit, portion], control.concat()].concat()));
    }
    // The largest frames come last, where they exceed the limit.
    let reversed: Vec<u8> = control.iter().rev().flatten().copied().collect();
    seeds.push(("link_frame_decoder", [vec![10, 200], reversed].concat()));
    seeds.extend(downlink_frames().into_iter().map(|bytes| ("link_downlink", bytes)));
    seeds.extend(conversations().into_iter().map(|wire| ("link_receiver", wire)));
    seeds.extend(stores().into_iter().map(|values| ("session_state", values)));
    seeds.extend(SCRIPTS.iter().map(|script| ("session_core", script.to_vec())));
    for text in TOPICS {
        seeds.push(("topic_filter", text.as_bytes().to_vec()));
    }
    seeds.extend(CONNECTS.iter().map(|bytes| ("mqtt_connect", bytes.to_vec())));
    seeds.extend(PUBLISHES.iter().map(|bytes| ("mqtt_publish", bytes.to_vec())));
    seeds.extend(CONTROLS.iter().map(|bytes| ("mqtt_control", bytes.to_vec())));
    seeds.extend(FRAMES.iter().map(|bytes| ("ws_frames", bytes.to_vec())));
    seeds.extend(UPGRADES.iter().map(|text| ("ws_upgrade", text.as_bytes().to_vec())));
    write(&seeds);
}

/// Mode and acts, as `tests/src/fuzz/core` reads them: QoS 2 both ways and a crash; a will, retained, a restart; a shared group;
/// a backlog of an old client under pressure; commits and lookups that come late.
const SCRIPTS: [&[u8]; 5] = [
    b"\x00\x0d\x00\x2c\x00\x0d\x01\x2c\x00\x26\x09\x00\x00\x02\x26\x00\x01\x00\x02\x01\x00\x01\x01\x01\x02\x26\x11\x00\x00\x26\x11\x00\x00\x18\x01\x00\x26\x22\x0d\x00\x2c\x00\x26\x11\x00\x00\x26",
    b"\x01\x0d\x00\x2c\x01\x0d\x01\x2c\x00\x26\x00\x00\x00\x05\x01\x26\x09\x01\x03\x41\x26\x11\x01\x00\x10\x00\x03\x20\x03\x26\x11\x01\x00\x23\x0d\x01\x2c\x00\x26",
    b"\x00\x0d\x00\x2c\x00\x0d\x01\x2c\x00\x0d\x02\x2c\x00\x26\x09\x00\x05\x01\x09\x01\x05\x02\x26\x00\x02\x03\x02\x01\x00\x02\x03\x01\x02\x00\x02\x03\x01\x03\x26\x11\x00\x00\x10\x00\x03\x26\x11\x01\x00\x26",
    b"\x00\x0d\x00\x0e\x00\x0d\x01\x0e\x00\x26\x09\x00\x03\x01\x26\x1a\x00\x00\x01\x00\x01\x01\x2e\x00\x01\x00\x01\x02\x2e\x00\x01\x00\x01\x03\x2e\x00\x01\x01\x01\x04\x2e\x00\x01\x00\x00\x00\x26\x24\x01\x00\x01\x00\x01\x05\x24\x00\x26\x1a\x00\x26\x11\x00\x00\x26\x22\x0d\x00\x0e\x00\x26",
    b"\x01\x0d\x00\x2c\x00\x0d\x01\x2c\x00\x1b\x1c\x03\x1d\x09\x00\x00\x02\x1b\x1c\x01\x1d\x1e\x1f\x00\x00\x01\x00\x02\x01\x1b\x00\x01\x00\x02\x01\x1c\x01\x1d\x18\x01\x00\x1b\x1c\x02\x1d\x1e\x1f\x00\x11\x00\x00\x21\x02\x1b\x1c\x03\x1d\x26",
];

/// One frame of each kind of the downlink, without its length.
fn downlink_frames() -> Vec<Vec<u8>> {
    let at = |commit, index| LogPosition {
        commit: CommitNumber(commit),
        index,
    };
    let filter = |text| Filter::parse(text).expect("a filter");
    let mark = DownMark {
        log_id: [1; 16],
        opening: [2; 16],
        position: at(70_000, 3),
    };
    let wanted = |text, edges| Wanted {
        filter: filter(text),
        edges,
    };
    let opened = Opened {
        log_id: [1; 16],
        opening: [3; 16],
        shared: Some(at(60_000, u32::MAX)),
        now: WallTime(1_700_000_000_500),
    };
    let from_edge = [
        FromEdge::Open(Open {
            window: 256,
            mark: Some(mark),
        }),
        FromEdge::Want(vec![wanted("cmd/+/#", false), wanted("plant/a", true)]),
        FromEdge::Unwant(vec![filter("cmd/+/#")]),
        FromEdge::Complete,
        FromEdge::Ack(vec![1, 300]),
    ];
    let messages = blocks().into_iter().take(2).map(|block| {
        let tag = |n: usize| Tag {
            packet_id: (n % 2 == 0).then_some(n as u16 + 1),
            position: Some(at(9, n as u32)),
        };
        FromCloud::Messages(Messages {
            sent_at: WallTime(1_700_000_000_500),
            tags: (0..block.len()).map(tag).collect(),
            batch: Batch::seal(Epoch(0), Seq(1), &block),
        })
    });
    let from_cloud = [FromCloud::Opened(opened), FromCloud::NotGranted(3)].into_iter().chain(messages);
    let frames = from_edge.iter().map(FromEdge::encode).chain(from_cloud.map(|frame| frame.encode()));
    frames.map(|frame| frame[4..].to_vec()).collect()
}

/// The size of a portion, and masked frames: a CONNECT, fragments with a ping among them, a longer frame, single bytes.
const FRAMES: [&[u8]; 4] = [
    b"\x01\x82\x8F7\xFA!='\xF7!9z\xABui3\xF8!\x017\xFB@",
    b"\x03\x02\x847\xFA!='\xF7!9\x89\x847\xFA!=G\x93OZ\x00\x807\xFA!=\x80\x8B7\xFA!=z\xABui3\xF8!\x017\xFB@\x8A\x807\xFA!=",
    b"@\x82\xFE\x00\xCB7\xFA!=\x072 =6\x8EYEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82Y\x82\x847\xFA!=\xF7\xFA\xE1=",
    b"\x02\x82\x817\xFA!=\xF7\x82\x817\xFA!=7\x89\xFD7\xFA!=O\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO\x82YEO",
];

/// Plain, with lists, without a sub-protocol, and with a longer path.
const UPGRADES: [&str; 4] = [
    "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
    "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqttv3.1\r\n\r\n",
    "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://a\r\nUser-Agent: some browser of some length, which may be changed without harm\r\nCookie: a=b; c=d\r\nPragma: no-cache\r\n\r\n",
    "GET /a/long/path?with=a&query=of&some=length HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
];

/// One of each dialect, one with everything, and one with packets behind it.
const CONNECTS: [&[u8]; 5] = [
    b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01a",
    b"\x10\x1C\x00\x04MQTT\x04\xF6\x00\x3C\x00\x01a\x00\x01t\x00\x03bye\x00\x01u\x00\x02pw",
    b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01a",
    b"\x10\x56\x00\x04MQTT\x05\xEE\x00\x0A\x21\x11\x00\x00\x0E\x10\x21\x00\x14\x27\x00\x01\x00\x00\x22\x00\x0A\x17\x00\x15\x00\x01m\x16\x00\x01d\x26\x00\x01k\x00\x01v\
      \x00\x02id\x19\x18\x00\x00\x00\x05\x02\x00\x00\x00\x00\x01\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x02xy\x00\x01t\x00\x01p\x00\x01u\x00\x01w",
    b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01b\xC0\x00\x30\x03\x00\x01t",
];

/// The version, the first byte, and the body.
const PUBLISHES: [&[u8]; 5] = [
    b"\x00\x30\x00\x03a/bpayload",
    b"\x00\x3D\x00\x01t\x12\x34\xFF",
    b"\x01\x32\x00\x03a/b\x00\x07\x00x",
    b"\x01\x34\x00\x01t\x00\x01\x25\x26\x00\x01a\x00\x01b\x02\x00\x00\x00\x09\x01\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x02xy\x23\x00\x05\x26\x00\x01a\x00\x01btext",
    b"\x01\x31\x00\x00\x03\x23\x00\x01",
];

/// The version, the first byte, and the body.
const CONTROLS: [&[u8]; 9] = [
    b"\x00\x40\x00\x01",
    b"\x01\x50\x00\x01\x97\x09\x1F\x00\x06reason",
    b"\x01\x62\x00\x01\x92\x00",
    b"\x00\x82\x00\x01\x00\x03a/+\x01\x00\x01#\x02",
    b"\x01\x82\x00\x01\x02\x0B\x05\x00\x0A$share/g/t\x21",
    b"\x01\xA2\x00\x01\x00\x00\x01t",
    b"\x00\xC0",
    b"\x01\xE0\x04\x05\x11\x00\x00\x00\x09",
    b"\x01\xF0\x19\x08\x15\x00\x01m\x16\x00\x01d",
];

fn write(seeds: &[(&str, Vec<u8>)]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut of_target = std::collections::BTreeMap::<&str, usize>::new();
    for (target, bytes) in seeds {
        let number = of_target.entry(target).or_default();
        let dir = corpus.join(target);
        fs::create_dir_all(&dir).expect("the corpus can be written");
        fs::write(dir.join(format!("seed-{number:02}")), bytes).expect("the corpus can be written");
        *number += 1;
    }
}

const TOPICS: [&str; 6] = [
    "a/+/#\na/b/c\n+/b/c\n#\n$SYS/#\na/b/c",
    "$share/g/a/#\n$share/g/+\n$share//a\n$share/g\n$SYS/+\na",
    "#\n+/x\n$SYS/#\n$SYS/+/x\n$SYS/a/x",
    "/\n/#\n+/+\n//\n/+\n/",
    "a/#\na\na/+\na/b#\n#/a\na++\na",
    "plant/+/line/+/temperature\nplant/#\nplant/hall/line/7/temperature\nplant/hall/line/7/temperature",
];

fn property_blocks() -> Vec<Vec<u8>> {
    let lists: [&[Property<'_>]; 4] = [
        &[],
        &[Property::User("a", "1"), Property::User("a", "1")],
        &[
            Property::PayloadFormat(1),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("r/t"),
            Property::CorrelationData(&[0, 255]),
        ],
        &[
            Property::User("mqtt.topic", "x"),
            Property::User("mqtt.user.mqtt.topic", ""),
            Property::User("fellbeck.meta", "y"),
        ],
    ];
    let encode = |list: &[Property<'_>]| {
        let mut out = Vec::new();
        list.iter()
            .for_each(|property| put(&mut out, property).expect("it is short"));
        out
    };
    lists.map(encode).to_vec()
}

/// A record alone, one with every field, several small ones, and ones that compress.
fn blocks() -> Vec<RecordBlock> {
    let properties = property_blocks();
    let plain = Record {
        device: "device-1",
        topic: "plant/1/t",
        payload: b"21.5",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
        expiry_secs: None,
        origin: None,
        path: "",
    };
    let full = |list: &'static [u8]| Record {
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: Properties::parse(list).expect("it was just encoded"),
        clock: ClockQuality::Unsynced,
        expiry_secs: Some(60),
        origin: Some(Origin {
            edge: "barn",
            instance: 2,
            lane: "default",
            run: Run(1),
            epoch: Epoch(3),
            seq: Seq(300),
        }),
        path: "barn/cloud",
        ..plain
    };
    let full: Vec<_> = properties.into_iter().map(|list| full(list.leak())).collect();
    let unknown = Record {
        clock: ClockQuality::Unknown,
        expiry_secs: Some(0),
        payload: b"",
        ..plain
    };
    let long = Record {
        payload: &[b'x'; 1500],
        ..plain
    };
    let late = Record {
        accepted_at: WallTime(u64::MAX),
        expiry_secs: Some(u32::MAX),
        ..plain
    };
    let early = Record {
        accepted_at: WallTime(0),
        device: "",
        topic: "a",
        ..plain
    };
    let lists = [
        vec![plain],
        full,
        vec![plain; 12],
        vec![long],
        vec![unknown, late, early, unknown],
    ];
    let build = |list: Vec<Record<'_>>| {
        let mut builder = RecordBlockBuilder::default();
        list.iter().for_each(|record| builder.push(record));
        builder.finish()
    };
    lists.map(build).to_vec()
}

fn chain(links: u8) -> IncarnationChain {
    let mut chain = IncarnationChain::default();
    for n in 1..=links {
        chain.succeed([n; 16], Epoch(1)).expect("ids differ from zero");
    }
    chain
}

fn gap(first: u64, last: u64) -> LaneFrame {
    LaneFrame::Gap(Gap {
        epoch: Epoch(3),
        first: Seq(first),
        last: Seq(last),
        reason: DropReason::LostSuffix,
    })
}

fn skip(first: u64, last: u64) -> LaneFrame {
    LaneFrame::Skip(Skip {
        epoch: Epoch(3),
        first: Seq(first),
        last: Seq(last),
    })
}

fn hello(instance: u32, acked: Option<u64>) -> ControlFrame {
    let lane = |name: &str, end: u64, acked: Option<u64>| LaneHello {
        lane: name.into(),
        run: Run(0),
        epoch: Epoch(3),
        first: Seq(1),
        end: Seq(end),
        acked: acked.map(Seq),
    };
    ControlFrame::Hello(Hello {
        edge: "barn".into(),
        instance,
        kind: NodeKind::Edge,
        chain: chain(3).as_slice().to_vec(),
        log_id: acked.map(|_| [7; 16]),
        lanes: vec![lane("default", 1000, acked), lane("alarm", 1, None)],
        now: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
    })
}

fn control_frames() -> Vec<ControlFrame> {
    let w = |seq| Position {
        epoch: Epoch(3),
        seq: Seq(seq),
    };
    let lanes = vec![LaneWelcome { w: Some(w(300)) }, LaneWelcome { w: None }];
    let welcome = |adopt| {
        ControlFrame::Welcome(Welcome {
            log_id: [7; 16],
            instance: 2,
            now: WallTime(1_700_000_000_000),
            lanes: lanes.clone(),
            credit: 4 << 20,
            lane_credit: 128 << 10,
            adopt,
        })
    };
    vec![
        hello(0, None),
        hello(2, Some(4)),
        welcome(None),
        welcome(Some(Epoch(4))),
        ControlFrame::Refused {
            code: RefuseCode::Fenced,
            text: "a clone".into(),
        },
        ControlFrame::Ack(vec![
            LaneAck {
                lane: LaneIndex(0),
                w: w(300),
            },
            LaneAck {
                lane: LaneIndex(1),
                w: w(1),
            },
        ]),
        ControlFrame::Credit(300),
        ControlFrame::Ping { nonce: 1 },
        ControlFrame::Pong { nonce: 1 },
        ControlFrame::Bye(ByeReason::Shutdown),
    ]
}

/// Conversations for the receiver; the calls are those of `tests/src/fuzz/receiver.rs`.
fn conversations() -> Vec<Vec<u8>> {
    let call = |kind: u8, body: &[u8]| {
        let size = 1 + body.len() as u32;
        [&size.to_be_bytes()[..], &[kind], body].concat()
    };
    let batch = |first: u64| {
        let mut builder = RecordBlockBuilder::default();
        let block = &blocks()[2];
        block.iter().take(3).for_each(|record| builder.push(&record));
        let batch = Batch::seal(Epoch(3), Seq(first), &builder.finish());
        LaneFrame::Batch {
            sent_at: WallTime(5),
            batch,
        }
        .encode()
        .to_vec()
    };
    let lane = |frame: LaneFrame| frame.encode().to_vec();
    let (ingest, transmit, probe, timeout) = (call(0x90, &[]), call(0x96, &[]), call(0x92, &[]), call(0x93, &[]));
    let (durable, other_durable) = (call(0x91, &[0]), call(0x91, &[1]));
    let start = |index| lane(LaneFrame::Start(LaneIndex(index)));
    let pong = ControlFrame::Pong { nonce: 1 }.encode().to_vec();
    let bye = ControlFrame::Bye(ByeReason::Shutdown).encode().to_vec();
    let fresh = hello(1, None).encode().to_vec();
    let resumed = hello(2, Some(4)).encode().to_vec();
    let join = |parts: &[&[u8]]| parts.concat();
    vec![
        join(&[
            &fresh,
            &start(0),
            &batch(1),
            &ingest,
            &batch(4),
            &ingest,
            &durable,
            &transmit,
            &durable,
            &transmit,
            &bye,
        ]),
        join(&[
            &resumed,
            &start(0),
            &batch(4),
            &batch(3),
            &lane(gap(5, 9)),
            &lane(skip(10, 10)),
            &ingest,
            &durable,
        ]),
        join(&[
            &fresh,
            &start(0),
            &call(0x81, &[]),
            &start(1),
            &lane(gap(1, 1)),
            &ingest,
            &call(0x80, &[]),
            &batch(1),
        ]),
        join(&[
            &fresh,
            &transmit,
            &probe,
            &pong,
            &probe,
            &timeout,
            &start(0),
            &batch(1),
            &ingest,
            &call(0x95, &[]),
            &durable,
        ]),
        join(&[
            &resumed,
            &start(0),
            &batch(5),
            &ingest,
            &call(0x94, &[]),
            &durable,
            &transmit,
            &call(0x95, &[]),
        ]),
        join(&[
            &fresh,
            &start(1),
            &batch(1),
            &ingest,
            &other_durable,
            &batch(5),
            &transmit,
        ]),
    ]
}

/// Stores of nodes that stopped with sessions: away with messages unread, in flight, in shared groups, and with QoS 2 half done.
fn stores() -> Vec<Vec<u8>> {
    let away = store(|node| {
        node.connect("reader", false);
        node.subscribe("a/#", QoS::AtLeastOnce);
        node.subscribe("b/+/c", QoS::AtMostOnce);
        node.close_all();
        node.connect("device", false);
        node.publish("a/b", QoS::AtLeastOnce);
        node.publish("a/c", QoS::ExactlyOnce);
        node.close_all();
    });
    let in_flight = store(|node| {
        node.connect("reader", false);
        node.subscribe("a/#", QoS::ExactlyOnce);
        (0..3).for_each(|_| node.publish("a/b", QoS::ExactlyOnce));
        node.close_all();
    });
    let shared = store(|node| {
        node.connect("one", false);
        node.subscribe("$share/g/a/+", QoS::ExactlyOnce);
        node.connect("two", false);
        node.subscribe("$share/g/a/+", QoS::AtLeastOnce);
        node.subscribe("$share/h/#", QoS::AtLeastOnce);
        (0..4).for_each(|_| node.publish("a/b", QoS::ExactlyOnce));
        node.close_all();
    });
    let alive = store(|node| {
        node.connect("reader", false);
        node.subscribe("#", QoS::AtLeastOnce);
        node.publish("a", QoS::AtLeastOnce);
    });
    vec![away, in_flight, shared, alive]
}

/// The values that a node stores while `live` goes on.
fn store(live: impl Fn(&mut Node)) -> Vec<u8> {
    let mut node = Node::restored(Vec::new(), CommitNumber(900)).expect("an empty store is one");
    live(&mut node);
    node.run();
    let mut out = Vec::new();
    for stored in node.stored() {
        put_bytes(&mut out, &stored.key);
        put_bytes(&mut out, &stored.value);
        put_u64(&mut out, stored.commit.0);
    }
    out
}
