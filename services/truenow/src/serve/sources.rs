//! Whom a node asks for the checkpoint of a partition that it is to hold.

use std::{path::PathBuf, time::Duration};

use placement::PlacementMap;
use proto::{
    checkpoints::{CheckpointsClient, CopyRequest},
    members::{HOT_TIER, Members},
    wire::Connector,
};
use service::Shutdown;
use tokio::sync::watch;
use types::{ErrorCode, NodeId, PartitionId};

/// How often all holders are asked where one of them is busy, and the wait in between.
const ROUNDS_MAX: usize = 60;
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The other nodes of the cluster.
pub(crate) struct Sources {
    members: watch::Receiver<Members>,
    connector: Connector,
}

impl Sources {
    pub(crate) fn new(members: watch::Receiver<Members>, connector: Connector) -> Self {
        Self { members, connector }
    }

    /// Whether any other node that lives holds a partition.
    pub(crate) fn any(&self, here: NodeId, map: &PlacementMap, partition: PartitionId) -> bool {
        !self.of(here, map, partition).0.is_empty()
    }

    /// The other nodes that hold a partition and live, those first that answer for it.
    pub(crate) fn of(&self, here: NodeId, map: &PlacementMap, partition: PartitionId) -> Holders {
        let source = map.moves.get(&partition).filter(|step| step.to == here).map(|step| step.from);
        let replicas = map.replicas.get(&partition).into_iter().flatten().copied();
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in source.into_iter().chain(replicas).filter(|node| *node != here) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        let members = self.members.borrow();
        let reach = |node: NodeId| {
            let connection = self.connector.to(members.get(&node)?.address(HOT_TIER)?).ok()?;
            Some((node, CheckpointsClient::new(connection)))
        };
        Holders(nodes.into_iter().filter_map(reach).collect())
    }
}

/// Nodes that hold a partition.
pub(crate) struct Holders(Vec<(NodeId, CheckpointsClient)>);

impl Holders {
    /// Fetches the newest checkpoint of the first that has one. Where none has, or `stop` ends it, there is nothing new.
    pub(crate) async fn fetch(&self, request: CopyRequest, dir: PathBuf, stop: &Shutdown) {
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = false;
            for (node, source) in &self.0 {
                let (node, partition) = (node.0, request.partition.0);
                match hot_tier::fetch(source, request, dir.clone(), stop).await {
                    Ok(bytes) => return tracing::info!(partition, node, bytes, "a checkpoint came from another node"),
                    Err(error) if error.code == ErrorCode::ResourceExhausted => is_busy = true,
                    Err(error) if error.code == ErrorCode::NotFound => {}
                    Err(error) => tracing::warn!(partition, node, %error, "no checkpoint came from another node"),
                }
                if stop.is_triggered() {
                    return;
                }
            }
            if !is_busy {
                return;
            }
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(BUSY_WAIT) => {}
            }
        }
    }
}
