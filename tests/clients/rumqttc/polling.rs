//! The thread that polls a connection of rumqttc, for either version, and what it saw.
//!
//! In: what kind of session. Out: rumqttc's handle for requests, and a channel of [`Came`]. The thread ends with the first error, since
//! polling on would connect again.

use std::sync::mpsc::Sender;
use std::thread;

use rumqttc::{Outgoing, Packet, QoS, SubscribeReasonCode, v5};

use crate::device::Session;
use crate::message::Message;

/// Requests that rumqttc keeps before a publish blocks.
const REQUESTS: usize = 100;
/// rumqttc's own bound is 10 KiB.
const PACKET_MAX: u32 = 2 << 20;

/// Handle for requests.
pub(crate) enum Client {
    /// 3.1.1.
    V3(rumqttc::Client),
    /// 5.0.
    V5(v5::Client),
}

/// What the thread saw.
pub(crate) enum Came {
    /// CONNACK.
    Connected {
        /// Session Present.
        session_present: bool,
    },
    /// SUBACK.
    Granted(Vec<u8>),
    /// PUBLISH.
    Message(Message),
    /// An acknowledgement in full, or a QoS 0 message on its way.
    Acked,
    /// The connection is gone.
    Ended {
        /// Reason code of DISCONNECT.
        reason: Option<u8>,
    },
}

/// A QoS for 3.1.1.
pub(crate) fn level_3(qos: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

/// A QoS for 5.0, which has a type of its own.
pub(crate) fn level_5(qos: u8) -> v5::mqttbytes::QoS {
    use v5::mqttbytes::QoS;
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

/// Starts a connection with 3.1.1.
pub(crate) fn connect_3(id: &str, (host, port): (&str, u16), session: &Session, sender: Sender<Came>) -> Client {
    let mut options = rumqttc::MqttOptions::new(id, host, port);
    options.set_clean_session(!session.lasting);
    options.set_max_packet_size(PACKET_MAX as usize, PACKET_MAX as usize);
    if let Some((topic, payload, qos)) = &session.will {
        options.set_last_will(rumqttc::LastWill::new(topic, payload.clone(), level_3(*qos), false));
    }
    let (client, mut connection) = rumqttc::Client::new(options, REQUESTS);
    thread::spawn(move || {
        for event in connection.iter() {
            let came = match event {
                Ok(event) => of_3(event),
                Err(_) => Some(Came::Ended { reason: None }),
            };
            let ended = matches!(came, Some(Came::Ended { .. }));
            let heard = came.is_none_or(|came| sender.send(came).is_ok());
            if ended || !heard {
                return;
            }
        }
    });
    Client::V3(client)
}

fn of_3(event: rumqttc::Event) -> Option<Came> {
    Some(match event {
        rumqttc::Event::Incoming(Packet::ConnAck(answer)) => Came::Connected {
            session_present: answer.session_present,
        },
        rumqttc::Event::Incoming(Packet::SubAck(answer)) => {
            let granted = answer.return_codes.iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => *qos as u8,
                SubscribeReasonCode::Failure => 0x80,
            });
            Came::Granted(granted.collect())
        }
        rumqttc::Event::Incoming(Packet::Publish(publish)) => Came::Message(Message::of_3(publish)),
        rumqttc::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))
        | rumqttc::Event::Outgoing(Outgoing::Publish(0)) => Came::Acked,
        _ => return None,
    })
}

/// Starts a connection with 5.0.
pub(crate) fn connect_5(id: &str, (host, port): (&str, u16), session: &Session, sender: Sender<Came>) -> Client {
    let mut options = v5::MqttOptions::new(id, host, port);
    options.set_clean_start(!session.lasting);
    options.set_max_packet_size(Some(PACKET_MAX));
    if session.lasting {
        options.set_session_expiry_interval(Some(3600));
    }
    if let Some((topic, payload, qos)) = &session.will {
        let will = v5::mqttbytes::v5::LastWill::new(topic, payload.clone(), level_5(*qos), false, None);
        options.set_last_will(will);
    }
    let (client, mut connection) = v5::Client::new(options, REQUESTS);
    thread::spawn(move || {
        for event in connection.iter() {
            let came = match event {
                Ok(event) => of_5(event),
                Err(v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect { reason_code, .. })) => {
                    Some(Came::Ended {
                        reason: Some(reason_code as u8),
                    })
                }
                Err(_) => Some(Came::Ended { reason: None }),
            };
            let ended = matches!(came, Some(Came::Ended { .. }));
            let heard = came.is_none_or(|came| sender.send(came).is_ok());
            if ended || !heard {
                return;
            }
        }
    });
    Client::V5(client)
}

fn of_5(event: v5::Event) -> Option<Came> {
    use v5::mqttbytes::v5::Packet;
    Some(match event {
        v5::Event::Incoming(Packet::ConnAck(answer)) => Came::Connected {
            session_present: answer.session_present,
        },
        v5::Event::Incoming(Packet::SubAck(answer)) => {
            use v5::mqttbytes::v5::SubscribeReasonCode::Success;
            let granted = answer.return_codes.iter().map(|code| match code {
                Success(qos) => *qos as u8,
                _ => 0x80,
            });
            Came::Granted(granted.collect())
        }
        v5::Event::Incoming(Packet::Publish(publish)) => Came::Message(Message::of_5(publish)),
        v5::Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) | v5::Event::Outgoing(Outgoing::Publish(0)) => {
            Came::Acked
        }
        _ => return None,
    })
}
