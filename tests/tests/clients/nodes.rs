//! The edge and the cloud that all tests of this process share, joined by a link.
//!
//! Out: their addresses. They live as long as a test holds them, so that none outlives the test process; the next test starts new ones.
//! Topics and client IDs are unique per test. Tests that kill a node have nodes of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fellbeck_tests::World;

static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());

/// The shared nodes.
pub(crate) fn shared() -> Arc<World> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let world = Arc::new(World::start());
        *shared = Arc::downgrade(&world);
        world
    })
}

/// Name and MQTT address of both nodes.
pub(crate) fn both(world: &World) -> [(&'static str, SocketAddr); 2] {
    [("edge", world.edge.ready().mqtt), ("cloud", world.cloud.ready().mqtt)]
}
