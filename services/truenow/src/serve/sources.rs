//! Whom a node asks for the checkpoint of a partition that it is to hold, and how long.

use std::{path::Path, sync::Arc, time::Duration};

use event_log::EventLog;
use hot_tier::Fetched;
use placement::PlacementMap;
use proto::{
    checkpoints::{CheckpointsClient, CopyRequest},
    members::{HOT_TIER, Members},
    wire::Connector,
};
use service::Shutdown;
use tokio::{sync::watch, time::timeout};
use types::{ErrorCode, NodeId, Offset, PartitionId};

use super::nodes::NodeMap;

/// How often a checkpoint is asked for that only saves time, where those who have one are busy.
const ROUNDS_MAX: usize = 60;
/// How long to wait before all are asked again.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long a node may take to say what it holds.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a checkpoint of another node is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To read all of the log would take longer.
    Faster,
    /// The log let go of what comes after what lies here, and so did this node: without a copy it would lack that for ever.
    Gap,
    /// What lies here cannot be opened.
    Unopened,
}

/// What one node had.
enum Found {
    /// It came; the log goes on from there.
    Copy(Offset),
    /// As many as may be are copied now.
    Busy,
    /// It may have one later: it cannot be reached, or holds the partition and has not written one.
    Later,
    /// It has none, and holds nothing that one could be made of.
    Nothing,
}

/// The other nodes of the cluster. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) here: NodeId,
    pub(crate) placement: watch::Receiver<Arc<PlacementMap>>,
    pub(crate) members: watch::Receiver<Members>,
    pub(crate) nodes: watch::Receiver<Arc<NodeMap>>,
    pub(crate) connector: Connector,
}

impl Sources {
    /// Whether the map names another node that holds a partition.
    pub(crate) fn any(&self, partition: PartitionId) -> bool {
        !self.holders(partition).is_empty()
    }

    /// The other nodes that hold a partition by the newest map, the source of its move first.
    fn holders(&self, partition: PartitionId) -> Vec<NodeId> {
        let map = self.placement.borrow();
        let source = map.moves.get(&partition).filter(|step| step.to == self.here).map(|step| step.from);
        let replicas = map.replicas.get(&partition).into_iter().flatten().copied();
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in source.into_iter().chain(replicas).filter(|node| *node != self.here) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Fetches the newest checkpoint of the first that has one from which the log goes on, to below `dir`; gives whether one came.
    /// For one that only saves time nobody is waited for who is not busy with others. For one without which something would be
    /// missing all are asked for as long as one of them may have it later; for what cannot be opened, as long as the map names
    /// another holder.
    pub(crate) async fn fetch(
        &self,
        partition: PartitionId,
        need: Need,
        log: &dyn EventLog,
        dir: &Path,
        stop: &Shutdown,
    ) -> bool {
        for round in 0_usize.. {
            let (holders, mut waits) = (self.holders(partition), need == Need::Unopened);
            for &node in &holders {
                // One from which the log does not go on is of no use.
                let has = log.bounds(partition).start.0.checked_sub(1).map(Offset);
                let request = CopyRequest { partition, log: log.identity(), has };
                match self.ask(node, request, dir, stop).await {
                    Found::Copy(next_offset) if next_offset >= log.bounds(partition).start => return true,
                    Found::Copy(_) | Found::Busy => waits = true,
                    Found::Later => waits |= need != Need::Faster,
                    Found::Nothing => {}
                }
                if stop.is_triggered() {
                    return false;
                }
            }
            if !waits || holders.is_empty() || (need == Need::Faster && round >= ROUNDS_MAX) {
                return false;
            }
            tokio::select! {
                () = stop.wait() => return false,
                () = tokio::time::sleep(BETWEEN) => {}
            }
        }
        false
    }

    /// Asks one node.
    async fn ask(&self, node: NodeId, request: CopyRequest, dir: &Path, stop: &Shutdown) -> Found {
        let partition = request.partition;
        let Some(source) = self.reach(node) else { return Found::Later };
        match hot_tier::fetch(&source, request, dir.to_owned(), stop).await {
            Ok(Fetched { next_offset, bytes }) => {
                let next = next_offset.0;
                tracing::info!(
                    partition = partition.0,
                    node = node.0,
                    bytes,
                    next,
                    "a checkpoint came from another node"
                );
                Found::Copy(next_offset)
            }
            Err(error) if error.code == ErrorCode::ResourceExhausted => Found::Busy,
            Err(error) if error.code == ErrorCode::NotFound => self.may_write(node, partition).await,
            Err(error) => {
                tracing::warn!(partition = partition.0, node = node.0, %error, "no checkpoint came from another node");
                Found::Later
            }
        }
    }

    /// Whether a node that has no checkpoint of a partition holds it, so that it will write one.
    async fn may_write(&self, node: NodeId, partition: PartitionId) -> Found {
        let reached = self.nodes.borrow().get(&node).cloned();
        let Some(reached) = reached else { return Found::Later };
        match timeout(STATUS_TIMEOUT, reached.status()).await {
            Ok(Ok(held)) if held.iter().all(|status| status.partition != partition) => Found::Nothing,
            _ => Found::Later,
        }
    }

    fn reach(&self, node: NodeId) -> Option<CheckpointsClient> {
        let members = self.members.borrow();
        let connection = self.connector.to(members.get(&node)?.address(HOT_TIER)?).ok()?;
        Some(CheckpointsClient::new(connection))
    }
}
