//! The list of this node's runs in its store.
//!
//! In: the store at start. Out: the list with the present run, durable before anything is sent to an edge.

use bytes::Bytes;
use fellbeck_link::downlink::Openings;
use fellbeck_store::{Commit, Put, Space, Store, Urgency};

/// Key of the list in the node's own keyed space.
const KEY: &[u8] = b"downlink/openings";

/// Begins a run. To be called before anything else makes a commit.
pub(crate) async fn begin(store: &Store) -> Result<Openings, String> {
    let stored = store.get(Space::Node, KEY).map_err(|error| error.to_string())?;
    let known = stored.map(|stored| Openings::decode(&stored.value));
    if known == Some(None) {
        // Edges are then sent again what they did not acknowledge, and cannot tell what they had.
        tracing::error!("the list of openings is damaged: edges may publish messages twice");
    }
    let mut openings = known.flatten().unwrap_or_default();
    openings.begin(rand::random(), store.newest_commit().next());
    let (submitter, mut answers) = store.submitter(1);
    let commit = Commit {
        puts: vec![Put {
            space: Space::Node,
            key: Bytes::from_static(KEY),
            value: openings.encode().into(),
        }],
        urgency: Urgency::Now,
        ..Commit::default()
    };
    submitter.submit(commit).map_err(|error| error.to_string())?;
    answers.recv().await.ok_or("the store has halted")?;
    Ok(openings)
}
