//! From an accepted socket to a connection that ntex-mqtt can serve, for both versions.
//!
//! In: a socket. Out: a [`Ticket`]: the CONNECT was decoded, its sender authenticated, the session core has accepted it, and the
//! read buffer begins with a small CONNECT that carries the ticket's number, which the handshake of ntex-mqtt answers with our
//! CONNACK; or nothing, after the client was told why. Assigns client identifiers, clamps session expiry and keep-alive.
//! The waits end early when the socket is gone, when its time is over, and when the node shuts down.

use std::rc::Rc;
use std::time::Duration;

use ntex::channel::oneshot;
use ntex::io::IoBoxed;
use ntex::util::{BytesMut, Either, select};
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::Arrival;
use super::attached::Attached;
use super::auth::{ConnectRequest, Decision};
use super::broker::Broker;
use super::connack::{self, Terms};
use super::connect::{ConnectIn, Dialect};
use super::connection::{Client, ConnAck, Connection, Opening};
use super::counters;
use super::exchange::{self, Authentication, Failed};
use super::frames::{Fault, Frames};
use super::handshake::Admitted;
use super::last_words;
use super::linger::{WriteHalf, linger};
use super::preface::{Preface, PrefaceCodec};
use crate::session::RESERVED_CLIENT_PREFIX;
use crate::wire::{ConnId, Connect, Version};

/// A place in the table of those who are admitted, given back when dropped.
pub(super) struct Ticket {
    broker: Rc<Broker>,
    id: ConnId,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.broker.admitted.borrow_mut().remove(&self.id);
    }
}

/// Why a socket does not become a connection.
enum Turned {
    /// The client left, or there is no language to say it in.
    Away(&'static str),
    /// To be told.
    Refused {
        version: Version,
        packet_max: u32,
        fault: Fault,
    },
}

const TOO_MUCH: Fault = Fault {
    reason: 0x97,
    text: "too many large packets at once",
};

pub(super) async fn welcome(broker: &Rc<Broker>, io: &IoBoxed, half: WriteHalf, deadline: Instant) -> Option<Ticket> {
    let turned = match introduce(broker, io, deadline).await {
        Ok(guest) => match admit(broker, io, half, guest).await {
            Ok(ticket) => return Some(ticket),
            Err(turned) => turned,
        },
        Err(turned) => turned,
    };
    match turned {
        Turned::Away(why) => counters::rejected(why),
        Turned::Refused {
            version,
            packet_max,
            fault,
        } => {
            counters::rejected(fault.text);
            let answer = connack::refusal(version, fault, packet_max);
            if !answer.is_empty() && io.encode_slice(&answer).is_ok() {
                broker.traffic.send(answer.len());
                linger(io, half).await;
            }
            // Nothing is to be done about a socket that does not even close.
            drop(io.shutdown().await);
        }
    }
    None
}

const WILL_TOO_DEEP: Fault = Fault {
    reason: 0x90,
    text: "will topic has too many levels",
};

const RESERVED: Fault = Fault {
    reason: 0x85,
    text: "client identifier of the nodes themselves",
};

/// A CONNECT whose sender is who it says.
struct Guest {
    connect: ConnectIn,
    client_id: String,
    is_assigned: bool,
    /// Last data of the exchange of its method.
    auth_data: Vec<u8>,
}

async fn introduce(broker: &Rc<Broker>, io: &IoBoxed, deadline: Instant) -> Result<Guest, Turned> {
    let arrival = broker.expect_arrival();
    let introduced = tokio::select! {
        biased;
        introduced = timeout_at(deadline, read_and_authenticate(broker, io, &arrival)) => {
            introduced.unwrap_or(Err(Turned::Away("first_packet_timeout")))
        }
        () = arrival.given_up() => Err(match arrival.version() {
            Some(version) => Turned::Refused { version, packet_max: u32::MAX, fault: TOO_MUCH },
            None => Turned::Away(TOO_MUCH.text),
        }),
        // A shutdown does not wait for who has said nothing yet.
        () = broker.until_closing() => Err(Turned::Away("shutting_down")),
    };
    broker.forget_arrival(&arrival);
    introduced
}

async fn read_and_authenticate(broker: &Rc<Broker>, io: &IoBoxed, arrival: &Arrival) -> Result<Guest, Turned> {
    let codec = PrefaceCodec {
        packet_max: broker.config.packet_max,
        arrival,
        traffic: &broker.traffic,
    };
    let connect = match io.recv(&codec).await {
        Ok(Some(Preface::Connect(connect))) => *connect,
        Ok(Some(Preface::Refuse(None, fault))) => return Err(Turned::Away(fault.text)),
        Ok(Some(Preface::Refuse(Some(version), fault))) => {
            return Err(Turned::Refused {
                version,
                packet_max: u32::MAX,
                fault,
            });
        }
        Ok(None) | Err(_) => return Err(Turned::Away("closed_before_connect")),
    };
    let is_assigned = connect.client_id.is_empty();
    let client_id = if is_assigned {
        format!("auto-{:032x}", rand::random::<u128>()) // [MQTT5-3.1.3-6]
    } else {
        connect.client_id.clone()
    };
    if client_id.starts_with(RESERVED_CLIENT_PREFIX) {
        return Err(refused(&connect, RESERVED));
    }
    match authenticate(broker, io, arrival, &connect, &client_id).await {
        Ok(auth_data) => Ok(Guest {
            connect,
            client_id,
            is_assigned,
            auth_data,
        }),
        Err(Failed::Gone) => Err(Turned::Away("closed_before_connack")),
        Err(Failed::Refused(fault)) => Err(refused(&connect, fault)),
    }
}

fn refused(connect: &ConnectIn, fault: Fault) -> Turned {
    Turned::Refused {
        version: connect.dialect.version(),
        packet_max: connect.wishes.packet_max.unwrap_or(u32::MAX),
        fault,
    }
}

async fn authenticate(
    broker: &Broker,
    io: &IoBoxed,
    arrival: &Arrival,
    connect: &ConnectIn,
    client_id: &str,
) -> Result<Vec<u8>, Failed> {
    let request = ConnectRequest {
        version: connect.dialect.version(),
        client_id,
        user_name: connect.user_name.as_deref(),
        password: connect.password.as_deref(),
        method: connect.wishes.auth_method.as_deref(),
    };
    // [MQTT5-3.1.4-2]
    if let Decision::Refuse(reason) = broker.config.authenticator.connect(&request) {
        let text = "not authorized";
        return Err(Failed::Refused(Fault { reason, text }));
    }
    match request.method {
        Some(_) => exchange::run(broker, io, arrival, client_id, &connect.wishes).await,
        None => Ok(Vec::new()),
    }
}

/// Asks the core, and lays the ticket where the handshake finds it.
async fn admit(broker: &Rc<Broker>, io: &IoBoxed, half: WriteHalf, guest: Guest) -> Result<Ticket, Turned> {
    let version = guest.connect.dialect.version();
    let terms = terms(broker, &guest);
    let client_max = guest.connect.wishes.packet_max.unwrap_or(u32::MAX);
    if version == Version::V5 && !connack::fits(connack::accepted(&terms, false), client_max) {
        return Err(Turned::Away("client takes no CONNACK"));
    }
    let will = guest.connect.will.as_ref();
    if will.is_some_and(|will| broker.has_too_many_levels(&will.topic)) {
        return Err(refused(&guest.connect, WILL_TOO_DEEP));
    }
    let (attached, ack) = decide(broker, io, half, &guest, &terms).await?;
    if ack.reason != 0 {
        let text = "refused by the session core";
        return Err(refused(
            &guest.connect,
            Fault {
                reason: ack.reason,
                text: super::reasons::text(ack.reason).unwrap_or(text),
            },
        ));
    }
    counters::connected(version);
    let id = attached.connection().id;
    let admitted = Admitted {
        attached,
        // 3.1 has no such flag: the byte is reserved.
        session_present: ack.session_present && guest.connect.dialect != Dialect::V31,
        terms,
    };
    broker.admitted.borrow_mut().insert(id, admitted);
    io.with_read_buf(|buffer| put_in_front(buffer, &stand_in(version, id)));
    Ok(Ticket {
        broker: broker.clone(),
        id,
    })
}

fn terms(broker: &Broker, guest: &Guest) -> Terms {
    let wishes = &guest.connect.wishes;
    let expiry = wishes.session_expiry_secs.min(broker.session_expiry_max_secs);
    let asked = guest.connect.keep_alive;
    Terms {
        receive_maximum: broker.receive_maximum,
        packet_max: broker.config.packet_max,
        topic_alias_maximum: broker.config.topic_alias_maximum,
        session_expiry_secs: (expiry != wishes.session_expiry_secs).then_some(expiry),
        assigned_client_id: guest.is_assigned.then(|| guest.client_id.clone()),
        server_keep_alive: broker
            .config
            .keep_alive_max
            .filter(|&max| guest.connect.dialect.version() == Version::V5 && (asked == 0 || asked > max)),
        auth: wishes
            .auth_method
            .clone()
            .map(|method| (method, guest.auth_data.clone())),
    }
}

/// Gives the CONNECT to the core and waits for its answer.
async fn decide(
    broker: &Rc<Broker>,
    io: &IoBoxed,
    half: WriteHalf,
    guest: &Guest,
    terms: &Terms,
) -> Result<(Rc<Attached>, ConnAck), Turned> {
    const GONE: Turned = Turned::Away("closed_before_connack");
    let (answer, waiting) = oneshot::channel();
    let connect = for_core(broker, guest);
    let wishes = &guest.connect.wishes;
    let keep_alive = terms.server_keep_alive.unwrap_or(guest.connect.keep_alive);
    let opening = Opening {
        id: broker.next_id(),
        traffic: broker.traffic.clone(),
        io: io.get_ref(),
        client: Client {
            version: connect.version,
            packet_max: wishes.packet_max.unwrap_or(u32::MAX),
            problem_information: wishes.problem_information,
            may_repeat: guest.connect.dialect == Dialect::V31,
        },
        topic_alias_maximum: wishes.topic_alias_maximum,
        authentication: Authentication::new(&guest.client_id, wishes.auth_method.clone()),
        half,
        silence_max: Duration::from_millis(u64::from(keep_alive) * 1500),
        ends_with_connection: connect.session_expiry_secs == 0,
        frames: Frames::new(connect.version, broker.config.packet_max, &broker.assembly),
        now: broker.now().tick,
    };
    let attached = Rc::new(Attached::new(broker.clone(), Rc::new(Connection::new(opening, answer))));
    broker.connect(attached.connection(), connect);
    let mut waiting = std::pin::pin!(waiting);
    match select(waiting.as_mut(), io.on_disconnect()).await {
        Either::Left(Ok(ack)) => return Ok((attached, ack)),
        Either::Left(Err(_)) => {}
        Either::Right(()) => {
            let within = broker.config.first_packet_timeout;
            if let Ok(Ok(ConnAck { reason: 0, .. })) = timeout(within, waiting).await {
                last_words::hear(&attached, within).await;
            }
        }
    }
    Err(GONE)
}

fn for_core(broker: &Broker, guest: &Guest) -> Connect {
    let connect = &guest.connect;
    let version = connect.dialect.version();
    let (session_expiry_secs, receive_maximum) = match version {
        Version::V3 if connect.clean_start => (0, broker.receive_maximum),
        Version::V3 => (u32::MAX, broker.receive_maximum),
        Version::V5 => (
            connect.wishes.session_expiry_secs.min(broker.session_expiry_max_secs),
            connect.wishes.receive_maximum,
        ),
    };
    Connect {
        version,
        client_id: guest.client_id.clone(),
        clean_start: connect.clean_start,
        session_expiry_secs,
        receive_maximum,
        packet_max: connect.wishes.packet_max,
        will: connect.will.clone(),
    }
}

/// The CONNECT that ntex-mqtt sees: one that it accepts, with the number of the ticket as client identifier.
fn stand_in(version: Version, id: ConnId) -> Vec<u8> {
    let number = id.0.to_string();
    let (level, properties): (u8, &[u8]) = match version {
        Version::V3 => (4, &[]),
        Version::V5 => (5, &[0]),
    };
    let length = 12 + properties.len() + number.len();
    let mut packet = vec![0x10, length as u8];
    packet.extend_from_slice(b"\x00\x04MQTT");
    packet.extend_from_slice(&[level, 0x02, 0, 0]);
    packet.extend_from_slice(properties);
    packet.extend_from_slice(&[0, number.len() as u8]);
    packet.extend_from_slice(number.as_bytes());
    packet
}

fn put_in_front(buffer: &mut BytesMut, packet: &[u8]) {
    let mut joined = BytesMut::with_capacity(packet.len() + buffer.len());
    joined.extend_from_slice(packet);
    joined.extend_from_slice(buffer);
    *buffer = joined;
}
