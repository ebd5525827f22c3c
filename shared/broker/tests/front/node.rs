//! A broker with its store, as a node would wire them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fellbeck_broker::front::{CoreSetup, MqttServer, MqttServerConfig, Shutdown, start};
use fellbeck_broker::session::{CoreConfig, CoreLimits, Mode, Route};
use fellbeck_core::{ClockQuality, TrackId};
use fellbeck_store::{Store, StoreConfig};
use tempfile::TempDir;

struct AllTo(TrackId);

impl Route for AllTo {
    fn route(&self, topic: &str, _: &str) -> Option<TrackId> {
        (!topic.starts_with("local/")).then_some(self.0)
    }
}

pub(crate) struct Node {
    pub(crate) server: Option<MqttServer>,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

pub(crate) fn config() -> MqttServerConfig {
    MqttServerConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        packet_max: 1 << 20,
        clock: || ClockQuality::Synced,
        ..MqttServerConfig::default()
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with(config(), CoreLimits::default())
    }

    pub(crate) fn start_with(config: MqttServerConfig, limits: CoreLimits) -> Self {
        Self::start_in(TempDir::new().unwrap(), config, limits, |store| store)
    }

    pub(crate) fn start_in(
        dir: TempDir,
        config: MqttServerConfig,
        limits: CoreLimits,
        tune: impl FnOnce(StoreConfig) -> StoreConfig,
    ) -> Self {
        let store = open(dir.path(), tune);
        let server = serve(config, limits, store.clone());
        Self {
            server: Some(server),
            store,
            dir,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addresses()[0]
    }

    /// Stops the server and closes the store; the directory stays.
    pub(crate) fn stop(mut self) -> TempDir {
        let server = self.server.take().unwrap();
        assert_eq!(server.shutdown(Duration::from_secs(10)), Shutdown::Clean);
        self.store.close();
        self.dir
    }
}

fn open(dir: &Path, tune: impl FnOnce(StoreConfig) -> StoreConfig) -> Store {
    let tracks = vec!["lane/default/0".to_owned(), "lane/local/0".to_owned()];
    let config = StoreConfig {
        sessions_only: vec!["lane/local/0".to_owned()],
        ..StoreConfig::edge(tracks)
    };
    fellbeck_store::open(dir, tune(config)).unwrap().0
}

pub(crate) fn serve(config: MqttServerConfig, limits: CoreLimits, store: Store) -> MqttServer {
    start(config, setup(&store, limits), store).unwrap()
}

pub(crate) fn setup(store: &Store, limits: CoreLimits) -> CoreSetup {
    let lane = store.track("lane/default/0").unwrap();
    CoreSetup {
        config: CoreConfig {
            mode: Mode::ImmediateForClean,
            local_track: store.track("lane/local/0"),
            limits,
        },
        route: Box::new(move || Box::new(AllTo(lane))),
        node_name: "test".to_owned(),
        status: Box::new(|_| Vec::new()),
    }
}
