//! Brokers for the bench: an edge alone, and an edge joined to a cloud.
//!
//! In: a folder for their data. Out: running nodes on free ports with default settings.

use std::path::Path;

use crate::node::{Node, NodeError, NodeSpec, Programs, Tier};

/// An edge that has joined no cloud: it serves devices all the same.
pub(super) async fn edge_alone(programs: &Programs, folder: &Path) -> Result<Node, NodeError> {
    edge_alone_with(programs, folder, &[]).await
}

/// The same with more settings, each as `key=value`.
pub(super) async fn edge_alone_with(programs: &Programs, folder: &Path, settings: &[&str]) -> Result<Node, NodeError> {
    let mut spec = edge_spec(programs, folder);
    spec.settings.extend(settings.iter().map(ToString::to_string));
    spec.start().await
}

/// A cloud and an edge that has joined it.
pub(super) async fn edge_and_cloud(programs: &Programs, folder: &Path) -> Result<(Node, Node), NodeError> {
    let cloud_spec = spec(
        Tier::Cloud,
        programs,
        folder,
        &["link.listen", "mqtt.listen", "http.listen"],
    );
    let cloud = cloud_spec.start().await?;
    let link = cloud.address("link")?.to_string();
    let token = cloud_spec
        .command(&["token", "create", "--edge", "bench", "--address", &link])
        .await?;
    let edge_spec = edge_spec(programs, folder);
    edge_spec
        .command(&["join", token.split_whitespace().last().unwrap_or_default()])
        .await?;
    Ok((edge_spec.start().await?, cloud))
}

fn edge_spec(programs: &Programs, folder: &Path) -> NodeSpec {
    spec(Tier::Edge, programs, folder, &["mqtt.listen", "http.listen"])
}

fn spec(tier: Tier, programs: &Programs, folder: &Path, listeners: &[&str]) -> NodeSpec {
    NodeSpec {
        tier,
        programs: programs.clone(),
        data_dir: folder.join(tier.program()),
        settings: listeners
            .iter()
            .map(|listener| format!("{listener}=127.0.0.1:0"))
            .collect(),
    }
}
