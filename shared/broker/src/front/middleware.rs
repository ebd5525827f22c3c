//! Our middleware: takes every packet of an open connection before the stock dispatcher of ntex-mqtt would.
//!
//! In: decoded control packets of either version. Out: calls on the session core; the answers go through the write buffer, not
//! through the service's response. A PUBLISH never comes here: the intake has taken it out of the buffer before. The stock dispatcher behind it is never called: it disconnects on legal acks, answers PINGREQ behind
//! delayed PUBACKs and lets a second CONNECT pass.
//! No future here ever waits in `call`; what must wait (a held publish, a pause) waits in `ready`, which stops the reading.

use std::future::poll_fn;
use std::rc::Rc;

use fellbeck_core::QoS;
use ntex::service::cfg::SharedCfg;
use ntex::service::{Middleware, Service, ServiceCtx};
use ntex::util::ByteString;
use ntex_mqtt::error::DispatcherError;
use ntex_mqtt::{v3, v5};

use super::attached::Attached;
use super::encode;
use super::frames::Fault;
use super::handshake::{State, Unanswered};
use crate::wire::{Subscribe, SubscribeIn, Unsubscribe};

/// Factory of [`Packets`].
#[derive(Debug, Clone, Copy)]
pub(super) struct TakeAll;

/// The service in front of `inner`, for one connection.
pub(super) struct Packets<S> {
    inner: S,
    attached: State,
}

const UNEXPECTED: Fault = Fault::protocol("packet that does not belong here");

impl<S> Middleware<S, (SharedCfg, v3::Session<State>)> for TakeAll {
    type Service = Packets<S>;

    fn create(&self, inner: S, (_, session): (SharedCfg, v3::Session<State>)) -> Packets<S> {
        Packets::open(inner, &session)
    }
}

impl<S> Middleware<S, (SharedCfg, v5::Session<State>)> for TakeAll {
    type Service = Packets<S>;

    fn create(&self, inner: S, (_, session): (SharedCfg, v5::Session<State>)) -> Packets<S> {
        Packets::open(inner, &session)
    }
}

impl<S> Packets<S> {
    /// ntex-mqtt has just put CONNACK into the write buffer.
    fn open(inner: S, attached: &State) -> Self {
        attached.connection().open();
        attached.writable();
        Self {
            inner,
            attached: attached.clone(),
        }
    }
}

impl<S> Service<v3::codec::Decoded> for Packets<S>
where
    S: Service<v3::codec::Decoded, Response = Option<v3::codec::Encoded>, Error = DispatcherError<Unanswered>>,
{
    type Response = Option<v3::codec::Encoded>;
    type Error = DispatcherError<Unanswered>;

    async fn ready(&self, _: ServiceCtx<'_, Self>) -> Result<(), Self::Error> {
        poll_fn(|_| self.attached.poll_readable()).await;
        Ok(())
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }

    async fn call(&self, packet: v3::codec::Decoded, _: ServiceCtx<'_, Self>) -> Result<Self::Response, Self::Error> {
        if self.attached.take_packet() {
            take_v3(&self.attached, packet);
        }
        Ok(None)
    }
}

impl<S> Service<v5::codec::Decoded> for Packets<S>
where
    S: Service<v5::codec::Decoded, Response = Option<v5::codec::Encoded>, Error = DispatcherError<Unanswered>>,
{
    type Response = Option<v5::codec::Encoded>;
    type Error = DispatcherError<Unanswered>;

    async fn ready(&self, _: ServiceCtx<'_, Self>) -> Result<(), Self::Error> {
        poll_fn(|_| self.attached.poll_readable()).await;
        Ok(())
    }

    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }

    async fn call(&self, packet: v5::codec::Decoded, _: ServiceCtx<'_, Self>) -> Result<Self::Response, Self::Error> {
        if self.attached.take_packet() {
            take_v5(&self.attached, packet);
        }
        Ok(None)
    }
}

fn take_v3(attached: &Rc<Attached>, packet: v3::codec::Decoded) {
    use v3::codec::{Decoded, Packet};
    let packet = match packet {
        Decoded::Packet(packet, _) => packet,
        // The intake has taken every PUBLISH.
        Decoded::Publish(..) | Decoded::PayloadChunk(..) => return attached.fail(UNEXPECTED),
    };
    match packet {
        Packet::PublishAck { packet_id } => attached.puback(packet_id.get(), 0),
        Packet::PublishReceived { packet_id } => attached.pubrec(packet_id.get(), 0),
        Packet::PublishRelease { packet_id } => attached.pubrel(packet_id.get(), 0),
        Packet::PublishComplete { packet_id } => attached.pubcomp(packet_id.get(), 0),
        Packet::PingRequest => attached.connection().write(&encode::PINGRESP, &[]),
        Packet::Subscribe {
            packet_id,
            topic_filters,
        } => attached.subscribe(Subscribe {
            packet_id: packet_id.get(),
            subscription_id: None,
            filters: topic_filters
                .into_iter()
                .map(|(filter, max)| filter_v3(&filter, max))
                .collect(),
        }),
        Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => attached.unsubscribe(Unsubscribe {
            packet_id: packet_id.get(),
            filters: topic_filters.into_iter().map(|filter| filter.to_string()).collect(),
        }),
        Packet::Disconnect => attached.disconnect(0, None),
        _ => attached.fail(UNEXPECTED),
    }
}

fn take_v5(attached: &Rc<Attached>, packet: v5::codec::Decoded) {
    use v5::codec::{Decoded, Packet};
    let packet = match packet {
        Decoded::Packet(packet, _) => packet,
        // The intake has taken every PUBLISH.
        Decoded::Publish(..) | Decoded::PayloadChunk(..) => return attached.fail(UNEXPECTED),
    };
    match packet {
        Packet::PublishAck(ack) => attached.puback(ack.packet_id.get(), ack.reason_code.into()),
        Packet::PublishReceived(ack) => attached.pubrec(ack.packet_id.get(), ack.reason_code.into()),
        Packet::PublishRelease(ack) => attached.pubrel(ack.packet_id.get(), ack.reason_code.into()),
        Packet::PublishComplete(ack) => attached.pubcomp(ack.packet_id.get(), ack.reason_code.into()),
        Packet::PingRequest => attached.connection().write(&encode::PINGRESP, &[]),
        Packet::Subscribe(subscribe) => attached.subscribe(Subscribe {
            packet_id: subscribe.packet_id.get(),
            subscription_id: subscribe.id.map(std::num::NonZero::get),
            filters: subscribe.topic_filters.iter().map(filter_v5).collect(),
        }),
        Packet::Unsubscribe(unsubscribe) => attached.unsubscribe(Unsubscribe {
            packet_id: unsubscribe.packet_id.get(),
            filters: unsubscribe.topic_filters.iter().map(ToString::to_string).collect(),
        }),
        Packet::Disconnect(disconnect) => {
            attached.disconnect(disconnect.reason_code.into(), disconnect.session_expiry_interval_secs);
        }
        Packet::Auth(auth) => attached.authenticate(&auth),
        _ => attached.fail(UNEXPECTED),
    }
}

fn filter_v3(filter: &ByteString, max: ntex_mqtt::QoS) -> SubscribeIn {
    SubscribeIn {
        filter: filter.to_string(),
        qos: qos(max),
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

fn filter_v5((filter, options): &(ByteString, v5::codec::SubscriptionOptions)) -> SubscribeIn {
    SubscribeIn {
        filter: filter.to_string(),
        qos: qos(options.qos),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: options.retain_handling.into(),
    }
}

fn qos(qos: ntex_mqtt::QoS) -> QoS {
    match qos {
        ntex_mqtt::QoS::AtMostOnce => QoS::AtMostOnce,
        ntex_mqtt::QoS::AtLeastOnce => QoS::AtLeastOnce,
        ntex_mqtt::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}
