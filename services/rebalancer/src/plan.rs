//! From what the hot tier holds to a plan of moves.

use std::collections::{BTreeMap, BTreeSet};

use placement::{Budget, Node, PartitionLoad, PlacementMap, Plan, plan_moves};
use proto::hot_tier::PartitionStatus;
use types::NodeId;

/// Moves of one plan, at most: moves are small and many, so that each can be stopped.
pub const MOVES_MAX: usize = 16;
/// Bytes of one plan, at most.
pub const MOVE_BYTES_MAX: u64 = 16 << 30;

/// What one node carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeLoad {
    pub(crate) node: NodeId,
    pub(crate) partitions: usize,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// The load of each node that the placement map names. Replicas hold the same rows, so each counts what its partition has.
pub(crate) fn node_loads(map: &PlacementMap, status: &[PartitionStatus]) -> Vec<NodeLoad> {
    let mut loads: BTreeMap<NodeId, NodeLoad> = BTreeMap::new();
    for (partition, holders) in &map.replicas {
        let found = status.iter().find(|status| status.partition == *partition);
        for &node in holders {
            let load = loads.entry(node).or_insert(NodeLoad { node, partitions: 0, rows: 0, bytes: 0 });
            load.partitions += 1;
            load.rows += found.map_or(0, |status| status.rows);
            load.bytes += found.map_or(0, |status| status.bytes);
        }
    }
    loads.into_values().collect()
}

/// The plan for what the hot tier holds now.
pub(crate) fn plan(map: &PlacementMap, status: &[PartitionStatus]) -> Plan {
    let loads: Vec<PartitionLoad> = map
        .replicas
        .iter()
        .flat_map(|(&partition, holders)| {
            let bytes = status.iter().find(|status| status.partition == partition).map_or(0, |status| status.bytes);
            holders.iter().map(move |&node| PartitionLoad { partition, node, bytes })
        })
        .collect();
    let ids: BTreeSet<NodeId> = map.replicas.values().flatten().copied().collect();
    let nodes: Vec<Node> = ids.into_iter().map(|id| Node { id, zone: None }).collect();
    plan_moves(&loads, &nodes, Budget { moves_max: MOVES_MAX, bytes_max: MOVE_BYTES_MAX })
}
