//! Placement of partitions and planning of moves, as functions from state to plan.

use std::collections::BTreeMap;

use types::{NodeId, PartitionId};

/// Which nodes hold which partitions, at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacementMap {
    /// Rises by one with each change.
    pub version: u64,
    /// For each partition the nodes that hold it, the primary first.
    pub replicas: BTreeMap<PartitionId, Vec<NodeId>>,
}
