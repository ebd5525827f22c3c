//! CONNECT to CONNACK, for both versions.
//!
//! In: a decoded CONNECT. Out: a `wire::Connect` for the session core, and, once the core has decided, the CONNACK. Assigns
//! client identifiers, clamps session expiry and keep-alive, refuses enhanced authentication (none is configured).
//! The wait for the core ends early when the socket is gone.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use fellbeck_core::properties::{Property, put};
use fellbeck_core::{QoS, validate_topic_name};
use ntex::channel::oneshot;
use ntex::io::IoRef;
use ntex::time::Seconds;
use ntex::util::{ByteString, Either, select};
use ntex_mqtt::{v3, v5};

use super::attached::Attached;
use super::broker::Broker;
use super::connection::{ConnAck, Connection, Opening};
use super::counters;
use super::frames::Frames;
use crate::wire::{Connect, Version, Will};

/// The handshake cannot be answered: the socket is gone, or the core closed the connection meanwhile.
#[derive(Debug)]
pub(super) struct Unanswered;

impl From<()> for Unanswered {
    fn from((): ()) -> Self {
        Self
    }
}

impl TryFrom<Unanswered> for v5::PublishAck {
    type Error = Unanswered;

    fn try_from(error: Unanswered) -> Result<Self, Unanswered> {
        Err(error)
    }
}

/// Longest timer of ntex, which must be given one for MQTT 5; keep-alive is watched by the tick instead.
const NO_TIMER: u16 = u16::MAX;

/// Length of a CONNACK that refuses, for the count of bytes.
const V3_REFUSAL_BYTES: usize = 4;
/// As for 3.1.1, with an empty property block.
const V5_REFUSAL_BYTES: usize = 5;

/// State of a connection as ntex-mqtt carries it.
pub(super) type State = Rc<Attached>;

pub(super) async fn connect_v3(
    broker: Rc<Broker>,
    handshake: v3::Handshake,
) -> Result<v3::HandshakeAck<State>, Unanswered> {
    let packet = handshake.packet();
    let will = packet.last_will.as_ref().map(|will| {
        Some(Will {
            topic: topic_name(&will.topic)?,
            payload: will.message.to_vec(),
            qos: qos(will.qos),
            retain: will.retain,
            properties: Vec::new(),
            expiry_secs: None,
            delay_secs: 0,
        })
    });
    let will = match will {
        Some(None) => {
            counters::rejected("will_topic_invalid");
            return Err(Unanswered);
        }
        other => other.flatten(),
    };
    let connect = Connect {
        version: Version::V3,
        client_id: given_or_assigned(&packet.client_id).0,
        clean_start: packet.clean_session,
        session_expiry_secs: if packet.clean_session { 0 } else { u32::MAX },
        receive_maximum: broker.receive_maximum,
        packet_max: None,
        will,
    };
    if connect.client_id.contains('\0') {
        counters::rejected("client_id_invalid");
        broker.traffic.send(V3_REFUSAL_BYTES);
        return Ok(handshake.identifier_rejected());
    }
    let io = handshake.io().get_ref();
    let (attached, ack) = decide(&broker, io, connect, packet.keep_alive).await?;
    if ack.reason != 0 {
        broker.traffic.send(V3_REFUSAL_BYTES);
        return Ok(handshake.failed(v3_code(ack.reason)));
    }
    Ok(handshake.ack(attached, ack.session_present).idle_timeout(Seconds::ZERO))
}

pub(super) async fn connect_v5(
    broker: Rc<Broker>,
    handshake: v5::Handshake,
) -> Result<v5::HandshakeAck<State>, Unanswered> {
    use v5::codec::ConnectAckReason as Reason;
    let packet = handshake.packet();
    if packet.auth_method.is_some() {
        // [MQTT5-4.12.0-1]
        counters::rejected("auth_method");
        broker.traffic.send(V5_REFUSAL_BYTES);
        return Ok(handshake.failed(Reason::BadAuthenticationMethod));
    }
    let (client_id, assigned) = given_or_assigned(&packet.client_id);
    if client_id.contains('\0') {
        counters::rejected("client_id_invalid");
        broker.traffic.send(V5_REFUSAL_BYTES);
        return Ok(handshake.failed(Reason::ClientIdentifierNotValid));
    }
    let will = match packet.last_will.as_ref().map(will_v5) {
        Some(None) => {
            counters::rejected("will_topic_invalid");
            broker.traffic.send(V5_REFUSAL_BYTES);
            return Ok(handshake.failed(Reason::TopicNameInvalid));
        }
        other => other.flatten(),
    };
    let expiry = packet.session_expiry_interval_secs.min(broker.session_expiry_max_secs);
    let expiry_changed = expiry != packet.session_expiry_interval_secs;
    let server_keep_alive = broker
        .config
        .keep_alive_max
        .filter(|&max| packet.keep_alive == 0 || packet.keep_alive > max);
    let keep_alive = server_keep_alive.unwrap_or(packet.keep_alive);
    let connect = Connect {
        version: Version::V5,
        client_id: client_id.clone(),
        clean_start: packet.clean_start,
        session_expiry_secs: expiry,
        receive_maximum: packet.receive_max.map_or(u16::MAX, NonZeroU16::get),
        packet_max: packet.max_packet_size.map(std::num::NonZero::get),
        will,
    };
    let io = handshake.io().get_ref();
    let (attached, ack) = decide(&broker, io, connect, keep_alive).await?;
    if ack.reason != 0 {
        let reason = Reason::try_from(ack.reason).unwrap_or(Reason::UnspecifiedError);
        broker.traffic.send(V5_REFUSAL_BYTES);
        return Ok(handshake.failed(reason));
    }
    let config = &broker.config;
    let packet_max = config.packet_max;
    let receive_maximum = NonZeroU16::new(broker.receive_maximum).unwrap_or(NonZeroU16::MAX);
    let alias_maximum = config.topic_alias_maximum;
    Ok(handshake.ack(attached).keep_alive(NO_TIMER).with(|packet| {
        packet.session_present = ack.session_present;
        packet.receive_max = receive_maximum;
        packet.topic_alias_max = alias_maximum;
        packet.max_packet_size = Some(packet_max);
        packet.max_qos = v5::QoS::ExactlyOnce;
        packet.session_expiry_interval_secs = expiry_changed.then_some(expiry);
        packet.assigned_client_id = assigned.then(|| ByteString::from(client_id));
        packet.server_keepalive_sec = server_keep_alive;
    }))
}

/// Gives the CONNECT to the core and waits for its answer.
async fn decide(
    broker: &Rc<Broker>,
    io: IoRef,
    connect: Connect,
    keep_alive: u16,
) -> Result<(State, ConnAck), Unanswered> {
    let (answer, waiting) = oneshot::channel();
    let opening = Opening {
        id: broker.next_id(),
        io: io.clone(),
        version: connect.version,
        client_packet_max: connect.packet_max.unwrap_or(u32::MAX),
        silence_max: Duration::from_millis(u64::from(keep_alive) * 1500),
        ends_with_connection: connect.session_expiry_secs == 0,
        frames: Frames::new(connect.version, broker.config.packet_max, &broker.assembly),
        traffic: broker.traffic.clone(),
        now: broker.now().tick,
    };
    let version = connect.version;
    let attached = Rc::new(Attached::new(broker.clone(), Rc::new(Connection::new(opening, answer))));
    broker.connect(attached.connection(), connect);
    let ack = match select(waiting, io.on_disconnect()).await {
        Either::Left(Ok(ack)) => ack,
        Either::Left(Err(_)) | Either::Right(()) => return Err(Unanswered),
    };
    if ack.reason == 0 {
        counters::connected(version);
    } else {
        counters::rejected("session");
    }
    Ok((attached, ack))
}

fn given_or_assigned(client_id: &str) -> (String, bool) {
    if client_id.is_empty() {
        (format!("auto-{:032x}", rand::random::<u128>()), true)
    } else {
        (client_id.to_owned(), false)
    }
}

fn topic_name(topic: &str) -> Option<String> {
    validate_topic_name(topic).is_ok().then(|| topic.to_owned())
}

fn will_v5(will: &v5::codec::LastWill) -> Option<Will> {
    let mut properties = Vec::new();
    let mut add = |property: &Property<'_>| put(&mut properties, property).is_ok();
    let fits = will
        .is_utf8_payload
        .is_none_or(|utf8| add(&Property::PayloadFormat(u8::from(utf8))))
        && will
            .content_type
            .as_ref()
            .is_none_or(|text| add(&Property::ContentType(text)))
        && will
            .response_topic
            .as_ref()
            .is_none_or(|text| add(&Property::ResponseTopic(text)))
        && will
            .correlation_data
            .as_ref()
            .is_none_or(|data| add(&Property::CorrelationData(data)))
        && will
            .user_properties
            .iter()
            .all(|(name, value)| add(&Property::User(name, value)));
    if !fits {
        return None;
    }
    Some(Will {
        topic: topic_name(&will.topic)?,
        payload: will.message.to_vec(),
        qos: qos(will.qos),
        retain: will.retain,
        properties,
        expiry_secs: will.message_expiry_interval.map(std::num::NonZero::get),
        delay_secs: will.will_delay_interval_sec.unwrap_or(0),
    })
}

pub(super) fn qos(qos: ntex_mqtt::QoS) -> QoS {
    match qos {
        ntex_mqtt::QoS::AtMostOnce => QoS::AtMostOnce,
        ntex_mqtt::QoS::AtLeastOnce => QoS::AtLeastOnce,
        ntex_mqtt::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn v3_code(reason: u8) -> v3::codec::ConnectAckReason {
    use v3::codec::ConnectAckReason as Code;
    match reason {
        0x84 => Code::UnacceptableProtocolVersion,
        0x85 => Code::IdentifierRejected,
        0x86 => Code::BadUserNameOrPassword,
        0x87 => Code::NotAuthorized,
        _ => Code::ServiceUnavailable,
    }
}
