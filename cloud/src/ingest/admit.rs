//! Admission of one link: from the edge's certificate and Hello to a running driver, or to a refusal that both sides can read.
//!
//! In: a connection of the link protocol. Out: an admitted link. What to do is decided by [`fellbeck_link::admit`]; this module asks
//! the other connection, waits for it to drain, and makes the admission durable before the edge is welcomed.
//! The slot's admission lock is held meanwhile, so that two connections of one edge are judged one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fellbeck_core::Incarnation;
use fellbeck_core::limits::FRAME_MAX;
use fellbeck_link::admission::{Circumstances, Relation};
use fellbeck_link::{
    Admission, ByeReason, ControlFrame, Decision, Hello, LiveConnection, Receiver, ReceiverConfig, RefuseCode,
};
use fellbeck_ops::Shutdown;
use fellbeck_ops::identity::{EdgeIdentity, PeerError, Refusal};
use fellbeck_store::{Committed, Submitter};
use quinn::Connection;
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot, watch};

use super::accept::{LinkParts, StrangerGuard, explain};
use super::driver::{Driver, Ends, STALL_MAX};
use super::edges::{Command, Live, Slot};
use super::streams::{Source, Streams};
use crate::downlink;

/// Time for the Hello after the handshake.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Connections of one edge that may wait to be admitted; one more is told to come back.
const WAITING_MAX: usize = 2;
/// Time for a refusal to arrive before the connection is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a link did not come about.
enum Fault {
    /// Tell the edge.
    Refuse(RefuseCode, String),
    /// The connection, or this node, cannot go on.
    Broken(String),
}

/// Serves one link from its handshake to its end.
pub(crate) async fn link(
    connection: Connection,
    parts: Arc<LinkParts>,
    stranger: StrangerGuard,
    mut shutdown: Shutdown,
) {
    let peer = connection.remote_address();
    // Without a certificate of ours nobody gets as far as a stream.
    let identity = match identify(&connection) {
        Ok(identity) => identity,
        Err(error) => {
            metrics::counter!("fellbeck_link_refused_total", "code" => "no_certificate").increment(1);
            if let Some(suppressed) = parts.noise.admit(parts.clock.tick()) {
                tracing::warn!(%peer, reason = %error, suppressed, "link refused");
            }
            return connection.close(1u32.into(), error.to_string().as_bytes());
        }
    };
    let accepted = tokio::select! {
        outcome = tokio::time::timeout(HELLO_WITHIN, Streams::accept(&connection)) => outcome,
        () = shutdown.requested() => return,
    };
    let mut streams = match accepted {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => return tracing::warn!(%peer, reason = explain(&error), "link ended before its hello"),
        Err(_) => return tracing::warn!(%peer, "link ended before its hello: it took too long"),
    };
    let slot = parts.edges.slot(identity.name.as_str());
    let outcome = tokio::select! {
        outcome = negotiate(&connection, &mut streams, &parts, &slot, &identity) => outcome,
        error = connection.closed() => Err(Fault::Broken(explain(&error))),
        () = shutdown.requested() => Err(Fault::Refuse(RefuseCode::Busy, "the cloud is shutting down".into())),
    };
    drop(stranger);
    match outcome {
        Ok((driver, ends)) => {
            let downlink = downlink::serve(connection, &parts, identity.name.as_str());
            tokio::join!(driver.run(streams, ends, shutdown), downlink);
        }
        Err(fault) => refuse(&connection, streams, identity.name.as_str(), fault).await,
    }
}

/// The edge's name and instance, from its certificate.
fn identify(connection: &Connection) -> Result<EdgeIdentity, PeerError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    EdgeIdentity::from_chain(&chain.map(|chain| *chain).unwrap_or_default())
}

/// From the Hello to a driver. May be dropped at any point: until a driver is returned nothing of the edge is under way, and an
/// incarnation that was stored without being welcomed is one that the edge really has.
async fn negotiate(
    connection: &Connection,
    streams: &mut Streams,
    parts: &Arc<LinkParts>,
    slot: &Arc<Slot>,
    identity: &EdgeIdentity,
) -> Result<(Driver, Ends), Fault> {
    let _waiting = Waiting::enter(slot)?;
    let hello = greet(streams, parts, identity).await?;
    let (driver, ends) = admit(connection, parts, slot, identity, &hello).await?;
    streams.open_lanes(connection, hello.lanes.len(), FRAME_MAX);
    Ok((driver, ends))
}

/// Counts the connections that wait for a slot.
struct Waiting<'a>(&'a Slot);

impl<'a> Waiting<'a> {
    fn enter(slot: &'a Slot) -> Result<Self, Fault> {
        if slot.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            slot.waiting.fetch_sub(1, Ordering::Relaxed);
            let text = "other connections of this edge are still being admitted".into();
            return Err(Fault::Refuse(RefuseCode::Busy, text));
        }
        Ok(Self(slot))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the registry, and reads the Hello.
async fn greet(streams: &mut Streams, parts: &Arc<LinkParts>, identity: &EdgeIdentity) -> Result<Hello, Fault> {
    let judged = parts.clone();
    let shown = identity.clone();
    tokio::task::spawn_blocking(move || judged.identity.edges().admit(&shown, judged.clock.wall()))
        .await
        .map_err(|error| Fault::Broken(error.to_string()))?
        .map_err(|refusal| {
            // What the disk will not say now it may say soon; the rest is for an operator.
            let code = if matches!(refusal, Refusal::Registry(_)) {
                RefuseCode::Busy
            } else {
                RefuseCode::Fenced
            };
            Fault::Refuse(code, refusal.to_string())
        })?;
    let first = tokio::time::timeout(HELLO_WITHIN, streams.frames.recv()).await;
    let frame = match first {
        Ok(Some((Source::Control, Ok(frame)))) => frame,
        Ok(Some((_, Err(error)))) => return Err(Fault::Refuse(RefuseCode::Malformed, error.to_string())),
        Ok(Some(_)) => {
            return Err(Fault::Refuse(
                RefuseCode::Malformed,
                "the first frame is not a hello".into(),
            ));
        }
        Ok(None) | Err(_) => return Err(Fault::Broken("no hello came".into())),
    };
    match ControlFrame::decode(&frame) {
        Ok(ControlFrame::Hello(hello)) => Ok(hello),
        Ok(other) => Err(Fault::Refuse(
            RefuseCode::Malformed,
            format!("{} instead of a hello", other.name()),
        )),
        Err(error @ fellbeck_link::FrameError::Version { .. }) => {
            Err(Fault::Refuse(RefuseCode::Version, error.to_string()))
        }
        Err(error) => Err(Fault::Refuse(RefuseCode::Malformed, error.to_string())),
    }
}

/// Asks the pure decision until it is final, acting on it in between.
async fn admit(
    connection: &Connection,
    parts: &Arc<LinkParts>,
    slot: &Arc<Slot>,
    identity: &EdgeIdentity,
    hello: &Hello,
) -> Result<(Driver, Ends), Fault> {
    let mut place = slot.admission.lock().await;
    if let Some(other) = place.as_mut().filter(|other| other.instance < identity.instance) {
        // The edge has joined again: the older certificate is superseded, whoever still uses it.
        other.commands.send(Command::Leave(ByeReason::Replaced)).await.ok();
        drained(Some(other)).await;
    }
    let mut live = state_of(place.as_ref());
    let admission = loop {
        let known = slot.book().known(identity.instance, &hello.chain);
        let circumstances = Circumstances {
            log_id: parts.store.log_id(),
            certificate_name: identity.name.as_str(),
            known: Some(&known),
            live,
        };
        match fellbeck_link::admit(&circumstances, hello) {
            Decision::Accept(admission) => break admission,
            Decision::Refuse { code, text } => return Err(Fault::Refuse(code, text)),
            Decision::Probe => live = probe(place.as_ref(), parts).await,
            Decision::TakeOver(reason) => {
                if let Some(other) = place.as_ref() {
                    // A driver that no longer listens has ended already.
                    other.commands.send(Command::Leave(reason)).await.ok();
                }
                drained(place.as_mut()).await;
                live = LiveConnection::None;
            }
            Decision::AwaitDrained => {
                drained(place.as_mut()).await;
                live = LiveConnection::None;
            }
        }
    };
    let (driver, ends, new) = start(connection, parts, slot, identity, hello, &admission).await?;
    *place = Some(new);
    Ok((driver, ends))
}

fn state_of(live: Option<&Live>) -> LiveConnection {
    match live {
        None => LiveConnection::None,
        Some(live) if *live.drained.borrow() => LiveConnection::None,
        Some(live) if *live.gone.borrow() => LiveConnection::Draining,
        Some(live) => LiveConnection::Unprobed(live.incarnation),
    }
}

/// Asks the other connection whether its edge is there. The driver's receiver sets the deadline.
async fn probe(live: Option<&Live>, parts: &LinkParts) -> LiveConnection {
    let Some(live) = live else { return LiveConnection::None };
    let (answer, answered) = oneshot::channel();
    if live.commands.send(Command::Probe(answer)).await.is_err() {
        return LiveConnection::Draining;
    }
    // The driver may be busy with a write that the edge does not take.
    let within = Duration::from_millis(parts.config.probe_timeout_ms) + STALL_MAX;
    match tokio::time::timeout(within, answered).await {
        Ok(Ok(true)) => LiveConnection::Answered(live.incarnation),
        Ok(Ok(false) | Err(_)) | Err(_) => LiveConnection::Silent(live.incarnation),
    }
}

/// Waits until nothing of the other connection is under way to the log. The store bounds that time, or halts.
async fn drained(live: Option<&mut Live>) {
    if let Some(live) = live {
        // A driver that is gone without a word has panicked, and the node is about to end.
        live.drained.wait_for(|drained| *drained).await.ok();
    }
}

/// Makes the admission durable, and the driver.
async fn start(
    connection: &Connection,
    parts: &Arc<LinkParts>,
    slot: &Arc<Slot>,
    identity: &EdgeIdentity,
    hello: &Hello,
    admission: &Admission,
) -> Result<(Driver, Ends, Live), Fault> {
    let store = remember(parts, slot, identity, hello, admission.incarnation).await?;
    tell(connection, identity, hello, admission);
    slot.ledger().connected(identity.instance, hello, parts.clock.tick());
    let config = ReceiverConfig {
        credit: parts.config.credit.0,
        probe_timeout: Duration::from_millis(parts.config.probe_timeout_ms),
        ..ReceiverConfig::new(parts.store.log_id())
    };
    let receiver = Receiver::new(config, hello, admission, parts.clock.wall());
    let (commands, inbox) = mpsc::channel(4);
    let (gone_sender, gone) = watch::channel(false);
    let (drained_sender, drained) = watch::channel(false);
    let driver = Driver::new(
        connection.clone(),
        receiver,
        store,
        parts.clone(),
        slot.clone(),
        identity,
    );
    let ends = Ends {
        commands: inbox,
        gone: gone_sender,
        drained: drained_sender,
    };
    let live = Live {
        instance: identity.instance,
        incarnation: admission.incarnation,
        commands,
        gone,
        drained,
    };
    Ok((driver, ends, live))
}

/// Stores who was admitted, before anything of the edge is taken: no later crash of the cloud lifts the fence.
/// Returns the link's own way to the store.
async fn remember(
    parts: &LinkParts,
    slot: &Slot,
    identity: &EdgeIdentity,
    hello: &Hello,
    incarnation: Incarnation,
) -> Result<(Submitter, mpsc::Receiver<Committed>), Fault> {
    let name = identity.name.as_str();
    let (submitter, mut answers) = parts.store.submitter(super::driver::OUTSTANDING_MAX);
    let shown = (name, identity.instance);
    let (commit, carried) = slot
        .book()
        .admission(shown, incarnation, &hello.chain, &parts.places.track_names);
    let submitted = submitter.submit(commit);
    submitted.map_err(|error| Fault::Broken(error.to_string()))?;
    let halted = || Fault::Broken("the store has halted".into());
    answers.recv().await.ok_or_else(halted)?;
    slot.book().admitted(identity.instance, incarnation, carried);
    Ok((submitter, answers))
}

fn tell(connection: &Connection, identity: &EdgeIdentity, hello: &Hello, admission: &Admission) {
    let name = identity.name.as_str();
    tracing::info!(
        edge = name, instance = identity.instance, epoch = admission.incarnation.epoch.0, relation = ?admission.relation,
        peer = %connection.remote_address(), "link up"
    );
    if admission.relation != Relation::CloudRestored {
        return;
    }
    for lane in &admission.went_back {
        let lane = &hello.lanes[lane.as_usize()].lane;
        tracing::error!(
            edge = name,
            lane,
            "this cloud was restored: the edge knows a higher watermark and sends again"
        );
    }
}

async fn refuse(connection: &Connection, mut streams: Streams, edge: &str, fault: Fault) {
    let peer = connection.remote_address();
    match fault {
        Fault::Refuse(code, text) => {
            metrics::counter!("fellbeck_link_refused_total", "code" => code.as_str()).increment(1);
            tracing::warn!(edge, %peer, code = code.as_str(), reason = text, "link refused");
            let frame = ControlFrame::Refused { code, text }.encode();
            let said = async {
                if streams.control.write_chunk(frame).await.is_ok() && streams.control.finish().is_ok() {
                    // The edge closes once it has read the refusal.
                    connection.closed().await;
                }
            };
            tokio::time::timeout(FAREWELL, said).await.ok();
        }
        Fault::Broken(reason) => tracing::warn!(edge, %peer, reason, "link ended before it was admitted"),
    }
    connection.close(0u32.into(), b"");
    streams.stop().await;
}
