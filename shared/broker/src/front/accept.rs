//! Accepts sockets on the broker thread and gives each to ntex-mqtt, with our handshake and middleware.
//!
//! In: listeners. Out: one task per connection. Bounded: beyond `connections_max` a socket is closed at once; beyond the rate it
//! waits in the backlog; one without a whole CONNECT in time, whatever its transport needs first, is closed. ntex's own server is not used: it would put the connections on a thread of their own.

use std::cell::Cell;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use ntex::io::{IoBoxed, IoConfig};
use ntex::rt::{JoinHandle, from_tcp_stream, spawn};
use ntex::service::cfg::SharedCfg;
use ntex::service::{Pipeline, Service, ServiceFactory, fn_factory_with_config, fn_service};
use ntex::time::Seconds;
use ntex_mqtt::error::{DecodeError, ProtocolError};
use ntex_mqtt::{Control, HandshakeError, MqttError, MqttServer, MqttServiceConfig, QoS, Reason, v3, v5};
use tokio::time::{Instant, timeout_at};

use super::arrival::Arrival;
use super::broker::Broker;
use super::counters;
use super::frames::Fault;
use super::handshake::{State, Unanswered, connect_v3, connect_v5};
use super::linger::WriteHalf;
use super::middleware::TakeAll;
use super::transport::{AcceptRate, Layers, Listening, Transport, open};
use super::welcome::welcome;

/// Accepting ends when this is dropped.
pub(super) struct Accepting(Vec<Option<JoinHandle<()>>>);

impl Drop for Accepting {
    fn drop(&mut self) {
        for task in self.0.iter_mut().filter_map(Option::take) {
            task.cancel();
        }
    }
}

pub(super) async fn start(broker: &Rc<Broker>, listeners: Vec<Listening>) -> std::io::Result<Accepting> {
    let cfg = shared_cfg(broker);
    let service = mqtt(broker)
        .create(cfg.clone())
        .await
        .map_err(|_| std::io::Error::other("MQTT service"))?;
    let door = Rc::new(Door {
        broker: broker.clone(),
        mqtt: Pipeline::new(service),
        cfg,
        layers: Layers {
            tls: broker.config.tls.clone(),
            frame_max: broker.config.frame_max(),
            ws_origins: broker.config.ws_origins.clone(),
        },
        rate: AcceptRate::new(broker.config.connect_rate, broker.config.connect_burst),
        complained: Cell::new(None),
    });
    let mut tasks = Vec::new();
    for Listening { transport, socket } in listeners {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        tasks.push(Some(spawn(accept(door.clone(), listener, transport))));
    }
    Ok(Accepting(tasks))
}

/// What all listeners share.
struct Door<S> {
    broker: Rc<Broker>,
    mqtt: Pipeline<S>,
    cfg: SharedCfg,
    layers: Layers,
    rate: AcceptRate,
    complained: Cell<Option<Instant>>,
}

impl<S> Door<S> {
    /// Says that the system gave no socket, and not ten times a second.
    fn complain(&self, error: &std::io::Error) {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now >= last + COMPLAIN_EVERY) {
            self.complained.set(Some(now));
            tracing::warn!(%error, "the system gives no more sockets; those that come wait in the backlog");
        }
    }
}

fn shared_cfg(broker: &Broker) -> SharedCfg {
    let config = &broker.config;
    let timeout = Seconds(u16::try_from(config.first_packet_timeout.as_secs().max(1)).unwrap_or(u16::MAX));
    SharedCfg::new("MQTT")
        .add(IoConfig::new().set_write_buf(config.write_buffer_high, WRITE_LOW, BUFFERS_KEPT))
        .add(
            MqttServiceConfig::new()
                .set_max_qos(QoS::ExactlyOnce)
                .set_max_size(config.packet_max)
                // Packets reach the codec whole (`frames`), so payloads are never handed out in chunks.
                .set_min_chunk_size(config.packet_max)
                .set_max_topic_alias(config.topic_alias_maximum)
                .set_connect_timeout(timeout),
        )
        .build()
}

const WRITE_LOW: usize = 1024;
const BUFFERS_KEPT: usize = 64;

/// Looks for room before a connection is refused, and the time between them.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Wait after the system refused a socket (out of file descriptors, mostly).
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Time between two lines of the log about that.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

async fn accept<S>(door: Rc<Door<S>>, listener: tokio::net::TcpListener, transport: Transport)
where
    S: Service<IoBoxed, Response = (), Error = MqttError<Unanswered>> + 'static,
{
    let broker = &door.broker;
    loop {
        door.rate.ready().await;
        let accepted = listener.accept().await;
        door.rate.take();
        match accepted {
            Ok((stream, _)) if !has_room(broker).await => {
                counters::rejected("too_many_connections");
                drop(stream);
            }
            Ok((stream, _)) => {
                let socket = Socket::new(broker.clone());
                spawn(admit(socket, stream.into_std(), transport, door.clone()));
            }
            Err(error) => {
                counters::rejected("accept_error");
                door.complain(&error);
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}

/// At the bound, waits a moment for sockets whose clients have closed: they may just not have been looked at.
async fn has_room(broker: &Broker) -> bool {
    let is_full = || broker.sockets.get() >= broker.config.connections_max;
    for _ in 0..LOOKS {
        if !is_full() {
            return true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    !is_full()
}

/// Brings a socket to where MQTT begins, and serves it.
async fn admit<S>(socket: Socket, stream: std::io::Result<TcpStream>, transport: Transport, door: Rc<Door<S>>)
where
    S: Service<IoBoxed, Response = (), Error = MqttError<Unanswered>> + 'static,
{
    let half = match (transport, &stream) {
        (Transport::Tcp, Ok(stream)) => WriteHalf::of(stream),
        _ => WriteHalf::NONE,
    };
    let Ok(io) = stream.and_then(|stream| from_tcp_stream(stream, door.cfg.clone())) else {
        counters::rejected("socket_error");
        return;
    };
    let deadline = Instant::now() + door.broker.config.first_packet_timeout;
    let opened = {
        let Some(_handshake) = Handshake::begin(&door.broker, transport) else {
            return counters::rejected("too_many_handshakes");
        };
        let arrival = Expected::new(&door.broker);
        tokio::select! {
            biased;
            opened = timeout_at(deadline, open(io, transport, &door.layers, &arrival.arrival)) => opened,
            () = arrival.arrival.given_up() => return counters::rejected("too many large packets at once"),
            () = door.broker.until_closing() => return counters::rejected("shutting_down"),
        }
    };
    match opened {
        Ok(Ok(io)) => serve(socket, io, half, deadline, &door.mqtt).await,
        Ok(Err(reason)) => counters::rejected(reason),
        Err(_) => counters::rejected("first_packet_timeout"),
    }
}

/// Counts a TLS handshake that is in progress.
struct Handshake<'a>(Option<&'a Broker>);

impl<'a> Handshake<'a> {
    /// `None`: there are too many already.
    fn begin(broker: &'a Broker, transport: Transport) -> Option<Self> {
        if !matches!(transport, Transport::Tls | Transport::Wss) {
            return Some(Self(None));
        }
        let present = broker.handshakes.get();
        if present >= broker.config.handshakes_max {
            return None;
        }
        broker.handshakes.set(present + 1);
        Some(Self(Some(broker)))
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        if let Some(broker) = self.0 {
            broker.handshakes.set(broker.handshakes.get() - 1);
        }
    }
}

/// A socket among those that hold bytes and are no connection yet.
struct Expected<'a> {
    broker: &'a Rc<Broker>,
    arrival: Rc<Arrival>,
}

impl<'a> Expected<'a> {
    fn new(broker: &'a Rc<Broker>) -> Self {
        let arrival = broker.expect_arrival();
        Self { broker, arrival }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.broker.forget_arrival(&self.arrival);
    }
}

/// Counts an accepted socket until its task ends.
struct Socket(Rc<Broker>);

impl Socket {
    fn new(broker: Rc<Broker>) -> Self {
        broker.sockets.set(broker.sockets.get() + 1);
        broker.traffic.sockets.increment(1);
        Self(broker)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.sockets.set(self.0.sockets.get() - 1);
    }
}

async fn serve<S>(socket: Socket, io: IoBoxed, half: WriteHalf, deadline: Instant, mqtt: &Pipeline<S>)
where
    S: Service<IoBoxed, Response = (), Error = MqttError<Unanswered>> + 'static,
{
    // The ticket lives as long as the call, which needs it at its beginning.
    if let Some(_ticket) = welcome(&socket.0, &io, half, deadline).await
        && let Err(MqttError::Handshake(HandshakeError::Protocol(_))) = mqtt.call(io).await
    {
        counters::rejected("handshake");
    }
}

fn mqtt(
    broker: &Rc<Broker>,
) -> impl ServiceFactory<
    IoBoxed,
    SharedCfg,
    Response = (),
    Service = impl Service<IoBoxed, Response = (), Error = MqttError<Unanswered>> + 'static,
> {
    let (for_v3, for_v5) = (broker.clone(), broker.clone());
    let v3 = v3::MqttServer::new(async move |handshake: v3::Handshake| connect_v3(for_v3.clone(), handshake).await)
        .replace_middlewares(TakeAll)
        .control(fn_factory_with_config(async |session: v3::Session<State>| {
            Ok::<_, Unanswered>(fn_service(move |control| {
                on_control(&session, &control);
                async { Ok::<_, Unanswered>(None) }
            }))
        }))
        .publish(fn_factory_with_config(async |_: v3::Session<State>| {
            Ok::<_, Unanswered>(fn_service(async |_: v3::Publish| Ok::<_, Unanswered>(())))
        }));
    let v5 = v5::MqttServer::new(async move |handshake: v5::Handshake| connect_v5(for_v5.clone(), handshake).await)
        .replace_middlewares(TakeAll)
        .control(fn_factory_with_config(async |session: v5::Session<State>| {
            Ok::<_, Unanswered>(fn_service(move |control| {
                on_control(&session, &control);
                async { Ok::<_, Unanswered>(None) }
            }))
        }))
        .publish(fn_factory_with_config(async |_: v5::Session<State>| {
            Ok::<_, Unanswered>(fn_service(async |publish: v5::Publish| {
                Ok::<_, Unanswered>(publish.ack())
            }))
        }));
    MqttServer::new().v3(v3).v5(v5)
}

/// What the dispatcher of ntex-mqtt tells about a connection.
fn on_control(attached: &State, control: &Control<Unanswered>) {
    match control {
        Control::WrBackpressure(state) if state.enabled() => attached.backlogged(),
        Control::WrBackpressure(_) => attached.writable(),
        Control::Stop(Reason::Protocol(error)) => attached.fail(fault(error.get_ref())),
        // The drop of the last service tells the broker.
        Control::Stop(Reason::Error(_) | Reason::PeerGone(_)) => {}
    }
}

fn fault(error: &ProtocolError) -> Fault {
    match error {
        ProtocolError::Decode(DecodeError::MaxSizeExceeded { .. }) => Fault {
            reason: 0x95,
            text: "packet exceeds the maximum packet size",
        },
        ProtocolError::Decode(_) => Fault::malformed("malformed packet"),
        ProtocolError::KeepAliveTimeout | ProtocolError::ReadTimeout => Fault {
            reason: 0x8D,
            text: "keep alive timeout",
        },
        ProtocolError::Encode(_) | ProtocolError::ProtocolViolation(_) => Fault::protocol("protocol error"),
    }
}
