//! File descriptors of the process: enough for the connections that the configuration allows.
//!
//! In: `mqtt.connections_max`. Out: the soft limit of the system, raised as far as its hard limit lets us, and a warning where that is
//! not enough. Called once, at start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the node opens beside MQTT connections: files of the store, listeners, link, HTTP.
const BESIDE: u64 = 512;

/// Raises the soft limit to what is needed; warns by name where the hard limit is below.
pub(crate) fn make_room(connections_max: u32) {
    let needed = u64::from(connections_max) + BESIDE;
    let present = getrlimit(Resource::Nofile);
    let Some(wanted) = raised(present, needed) else {
        return;
    };
    let outcome = setrlimit(Resource::Nofile, wanted);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < needed {
        let error = outcome.err().map(|error| error.to_string());
        tracing::warn!(
            limit,
            needed,
            connections_max,
            error,
            "RLIMIT_NOFILE is too small for mqtt.connections_max: further clients will wait without an answer"
        );
    }
}

/// The limits to ask for; `None`: there is room already.
fn raised(present: Rlimit, needed: u64) -> Option<Rlimit> {
    let is_enough = present.current.is_none_or(|current| current >= needed);
    let current = present.maximum.map_or(needed, |maximum| maximum.min(needed));
    (!is_enough).then_some(Rlimit {
        current: Some(current),
        maximum: present.maximum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_as_far_as_the_hard_one_and_never_lowered() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(raised(limit(Some(1024), Some(4096)), 1000), None);
        assert_eq!(raised(limit(None, None), 1 << 40), None);
        assert_eq!(
            raised(limit(Some(1024), Some(4096)), 3000),
            Some(limit(Some(3000), Some(4096)))
        );
        assert_eq!(
            raised(limit(Some(1024), Some(4096)), 9000),
            Some(limit(Some(4096), Some(4096)))
        );
        assert_eq!(raised(limit(Some(1024), None), 9000), Some(limit(Some(9000), None)));
    }
}
