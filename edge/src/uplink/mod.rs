//! The uplink: keeps a link to the cloud and sends every lane over it.
//!
//! In: the store's log, the configuration, the identity of the edge. Out: frames to the cloud, and the cursor that lets the store trim.
//! One task owns all of it. It dials, runs one connection after another ([`driver`]), and waits between them.
//! It decides nothing about data: [`fellbeck_link::Sender`] does. Without an identity it waits for one: `join` may come later.

pub(crate) mod dial;
mod driver;
pub(crate) mod entries;
mod heartbeat;
pub(crate) mod lanes;
mod memory;
pub(crate) mod progress;
pub(crate) mod state;
mod streams;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_core::TrackId;
use fellbeck_link::{Backoff, Sender, SenderConfig};
use fellbeck_ops::config::HostPorts;
use fellbeck_ops::identity::{EdgeKeys, edge_client_config};
use fellbeck_ops::{NodeClock, Shutdown};
use fellbeck_store::Store;

use crate::config::UplinkConfig;
use crate::downlink::{Downlink, DownlinkParts};
use crate::ledger::LaneBooks;
use dial::Dialer;
use driver::{Driver, End};
use heartbeat::Heart;
use lanes::Lanes;
use memory::Memory;
use state::{LinkState, UplinkState};

/// How often the identity in the data directory is looked at: `join` runs beside the node.
const IDENTITY_POLL: Duration = Duration::from_secs(2);

/// What the uplink works with.
pub(crate) struct Uplink {
    /// `[uplink]`.
    pub(crate) config: UplinkConfig,
    /// Where the identity is.
    pub(crate) data_dir: PathBuf,
    /// The log.
    pub(crate) store: Store,
    /// Time.
    pub(crate) clock: NodeClock,
    /// What the status page shows.
    pub(crate) state: Arc<UplinkState>,
    /// The way down; `None`: this node has no broker.
    pub(crate) downlink: Option<DownlinkParts>,
    /// What became of the lanes' positions.
    pub(crate) books: Arc<LaneBooks>,
    /// Track of the lane that carries heartbeats: that of the first forward rule.
    pub(crate) heart_track: Option<TrackId>,
}

impl Uplink {
    /// Runs until shutdown.
    pub(crate) async fn run(self, mut shutdown: Shutdown) {
        let Some(keys) = self.identity(&mut shutdown).await else {
            return;
        };
        let mut driver = self.driver(&keys);
        let mut backoff = self.backoff();
        let mut keys = keys;
        while !shutdown.is_requested() {
            let wait = match self.attempt(&mut driver, &keys, &mut shutdown).await {
                End::Lost { acked } => {
                    if acked {
                        backoff.reset();
                    }
                    backoff.next_wait()
                }
                End::Refused { retry_after } => backoff.next_wait_at_least(retry_after.unwrap_or_default()),
            };
            self.state.waiting(wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.requested() => return,
            }
            // A new join replaces the identity while the node runs.
            if let Ok(Some(fresh)) = EdgeKeys::load(&self.data_dir) {
                if fresh.identity.name != keys.identity.name {
                    driver = self.driver(&fresh);
                }
                keys = fresh;
            }
        }
    }

    fn driver(&self, keys: &EdgeKeys) -> Driver {
        let lanes = Lanes::of(&self.store);
        let config = SenderConfig {
            read_bytes_max: self.read_bytes_max(),
            ..SenderConfig::default()
        };
        let sender = Sender::new(config, keys.identity.name.as_str(), lanes.specs());
        let memory = Memory::new(&self.store, self.books.clone());
        let heart = self.heart(keys.identity.name.as_str(), &lanes);
        let downlink = self.downlink.clone();
        let downlink = downlink.map(|parts| Downlink::new(parts, keys.identity.name.as_str()));
        Driver::new(
            sender,
            (heart, downlink),
            (lanes, memory),
            self.store.clone(),
            self.clock.clone(),
            self.state.clone(),
        )
    }

    /// `None`: heartbeats are off.
    fn heart(&self, edge: &str, lanes: &Lanes) -> Option<Heart> {
        let track = self.heart_track?;
        let lane = lanes.find(track)?;
        let interval = Duration::from_millis(self.config.heartbeat_ms);
        let is_on = !interval.is_zero();
        is_on.then(|| Heart::new(interval, edge, (lane, track), lanes.specs().len(), &self.store))
    }

    fn read_bytes_max(&self) -> usize {
        // A lane holds up to two reads in memory.
        (self.config.read_ahead.as_usize() / 4).clamp(32 << 10, 256 << 10)
    }

    fn backoff(&self) -> Backoff {
        let first = Duration::from_millis(self.config.backoff_min_ms);
        let max = Duration::from_millis(self.config.backoff_max_ms);
        Backoff::new(first, max, rand::random())
    }

    /// Waits for an identity; `None` at shutdown.
    async fn identity(&self, shutdown: &mut Shutdown) -> Option<EdgeKeys> {
        let mut told = false;
        loop {
            match EdgeKeys::load(&self.data_dir) {
                Ok(Some(keys)) => return Some(keys),
                Ok(None) if !told => {
                    told = true;
                    tracing::warn!(
                        "this edge has not joined a cloud: it serves and buffers; run `fellbeck-edge join TOKEN`"
                    );
                    self.state.set(LinkState::NotJoined);
                }
                Ok(None) => {}
                Err(error) if !told => {
                    told = true;
                    tracing::error!(%error, "the identity of this edge cannot be used");
                    self.state.failed(&error.to_string());
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(IDENTITY_POLL) => {}
                () = shutdown.requested() => return None,
            }
        }
    }

    /// One round over the cloud's addresses; ends with the first connection that worked, or with none.
    async fn attempt(&self, driver: &mut Driver, keys: &EdgeKeys, shutdown: &mut Shutdown) -> End {
        let addresses = if self.config.cloud.0.is_empty() {
            &keys.cloud
        } else {
            &self.config.cloud
        };
        let dialer = match edge_client_config(keys)
            .map_err(|e| e.to_string())
            .and_then(|tls| Dialer::new(&self.config, tls))
        {
            Ok(dialer) => dialer,
            Err(error) => {
                self.state.failed(&error);
                return End::Lost { acked: false };
            }
        };
        let end = self.first_that_works(driver, &dialer, addresses, keys, shutdown).await;
        dialer.idle().await;
        end
    }

    async fn first_that_works(
        &self,
        driver: &mut Driver,
        dialer: &Dialer,
        addresses: &HostPorts,
        keys: &EdgeKeys,
        shutdown: &mut Shutdown,
    ) -> End {
        let within = Duration::from_millis(self.config.connect_timeout_ms);
        let mut end = End::Lost { acked: false };
        for address in &addresses.0 {
            self.state.connecting(address);
            let outcome = tokio::select! {
                outcome = dialer.connect(address, within) => outcome,
                () = shutdown.requested() => return end,
            };
            match outcome {
                Ok((connection, peer)) => {
                    end = self.converse(driver, connection, peer, keys, shutdown).await;
                    // An address that handshakes but does not work must not hide the next one.
                    if end.worked() || shutdown.is_requested() {
                        return end;
                    }
                }
                Err(error) => self.state.failed(&format!("{address}: {error}")),
            }
        }
        if addresses.0.is_empty() {
            self.state
                .failed("no cloud address: set uplink.cloud, or join with a token that names one");
        }
        end
    }

    /// Runs one connection; ends it early when the edge joins again meanwhile.
    async fn converse(
        &self,
        driver: &mut Driver,
        connection: quinn::Connection,
        peer: SocketAddr,
        keys: &EdgeKeys,
        shutdown: &Shutdown,
    ) -> End {
        let (leave, mut leaving) = Shutdown::manual();
        let mut stopping = shutdown.clone();
        let watch = async {
            tokio::select! {
                () = stopping.requested() => {}
                () = self.identity_changes(keys) => tracing::info!("the identity of this edge has changed: linking anew"),
            }
            leave.stop();
            // The driver ends by itself.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = driver.run(connection, peer, keys.identity.instance, &mut leaving) => end,
            () = watch => End::Lost { acked: false },
        }
    }

    async fn identity_changes(&self, keys: &EdgeKeys) {
        loop {
            tokio::time::sleep(IDENTITY_POLL).await;
            let now = EdgeKeys::load(&self.data_dir).ok().flatten();
            if now.is_some_and(|now| now.identity != keys.identity) {
                return;
            }
        }
    }
}
