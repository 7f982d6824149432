//! From what the hot tier holds to a plan of moves.

use std::collections::{BTreeMap, BTreeSet};

use placement::{Budget, Move, MoveReason, Node, PartitionLoad, PartitionWork, PlacementMap, Plan, plan_moves, weigh};
use proto::hot_tier::PartitionStatus;
use types::{NodeId, PartitionId};

use crate::meter::Replica;

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
    pub(crate) events_per_second: u64,
    pub(crate) query_us_per_second: u64,
}

impl NodeLoad {
    pub(crate) fn none(node: NodeId) -> Self {
        Self { node, partitions: 0, rows: 0, bytes: 0, events_per_second: 0, query_us_per_second: 0 }
    }
}

/// The work of replicas, as far as it is known.
pub(crate) type Works = BTreeMap<Replica, PartitionWork>;

/// The load of each node that the placement map names. Replicas hold the same rows, so each counts what its partition has.
pub(crate) fn node_loads(map: &PlacementMap, status: &[PartitionStatus], works: &Works) -> Vec<NodeLoad> {
    let mut loads: BTreeMap<NodeId, NodeLoad> = BTreeMap::new();
    for (partition, holders) in &map.replicas {
        let found = status.iter().find(|status| status.partition == *partition);
        for &node in holders {
            let load = loads.entry(node).or_insert(NodeLoad::none(node));
            let work = works.get(&(*partition, node)).copied().unwrap_or_default();
            load.events_per_second += work.events_per_second;
            load.query_us_per_second += work.query_us_per_second;
            load.partitions += 1;
            load.rows += found.map_or(0, |status| status.rows);
            load.bytes += found.map_or(0, |status| status.bytes);
        }
    }
    loads.into_values().collect()
}

/// The replicas, and where each will lie once all moves that are under way are over.
fn replicas(map: &PlacementMap) -> impl Iterator<Item = (Replica, NodeId)> {
    let lies = |partition: PartitionId, node: NodeId| match map.moves.get(&partition) {
        Some(step) if step.from == node => step.to,
        _ => node,
    };
    map.replicas.iter().flat_map(move |(&partition, holders)| {
        holders.iter().map(move |&node| ((partition, node), lies(partition, node)))
    })
}

/// The plan for what the hot tier holds now; `living`: the nodes that live, or `None`: all that the map names. What lies on nodes that
/// do not live is not moved: there is nobody to copy it from, and to replace them is no plan's part.
pub(crate) fn plan(map: &PlacementMap, living: Option<&[Node]>, status: &[PartitionStatus], works: &Works) -> Plan {
    let bytes_of =
        |partition| status.iter().find(|status| status.partition == partition).map_or(0, |found| found.bytes);
    let placed: Vec<(Replica, NodeId)> = replicas(map).collect();
    // Bytes of all replicas are those that one said: between two looks they would differ.
    let work = |replica: &Replica| PartitionWork {
        bytes: bytes_of(replica.0),
        ..works.get(replica).copied().unwrap_or_default()
    };
    let work: Vec<PartitionWork> = placed.iter().map(|(replica, _)| work(replica)).collect();
    let load = |(&((partition, _), node), weight): (&(Replica, NodeId), u64)| PartitionLoad {
        partition,
        node,
        bytes: bytes_of(partition),
        weight,
    };
    let named = || {
        let ids: BTreeSet<NodeId> = map.replicas.values().flatten().copied().collect();
        ids.into_iter().map(|id| Node { id, zone: None }).collect()
    };
    let living = living.map_or_else(named, <[Node]>::to_vec);
    let mut loads: Vec<PartitionLoad> = placed.iter().zip(weigh(&work)).map(load).collect();
    loads.retain(|load| living.iter().any(|node| node.id == load.node));
    let takers = takers(map, &living);
    let mut plan = plan_moves(&loads, &takers, Budget { moves_max: MOVES_MAX, bytes_max: MOVE_BYTES_MAX });
    // A partition moves one step at a time.
    plan.moves.retain(|step| !map.moves.contains_key(&step.partition));
    plan.moves.iter_mut().for_each(|step| name_drain(map, step));
    plan
}

/// The nodes that take partitions.
pub(crate) fn takers(map: &PlacementMap, living: &[Node]) -> Vec<Node> {
    living.iter().filter(|node| !map.draining.contains(&node.id)).cloned().collect()
}

/// A node that is being emptied is there still, though it takes nothing.
fn name_drain(map: &PlacementMap, step: &mut Move) {
    if step.reason == MoveReason::NodeGone && map.draining.contains(&step.from) {
        step.reason = MoveReason::Drain;
    }
}

/// The map with moves of what lies on nodes that are being emptied, to those that take partitions: to the ones that hold the
/// fewest, by zones first. A few at a time; the version rises by one more than that of `map` if there are any. `kept`: the nodes that
/// are not lost; off the others nothing can be moved.
pub(crate) fn off_draining(map: PlacementMap, kept: &BTreeSet<NodeId>, takers: &[Node]) -> PlacementMap {
    let under_way = map.moves.values().filter(|step| step.reason == MoveReason::Drain).count();
    let placed: Vec<(Replica, NodeId)> = replicas(&map).filter(|(_, node)| kept.contains(node)).collect();
    if placed.iter().all(|(_, node)| !map.draining.contains(node)) || under_way >= MOVES_MAX {
        return map;
    }
    let load = |&((partition, _), node): &(Replica, NodeId)| PartitionLoad { partition, node, bytes: 0, weight: 1 };
    let loads: Vec<PartitionLoad> = placed.iter().map(load).collect();
    let budget = Budget { moves_max: MOVES_MAX - under_way, bytes_max: u64::MAX };
    let off = plan_moves(&loads, takers, budget).moves.into_iter().filter(|step| map.draining.contains(&step.from));
    let mut next = map.clone();
    for step in off {
        if let Ok(with) = next.with_move(&Move { reason: MoveReason::Drain, ..step }) {
            next = PlacementMap { version: map.version + 1, ..with };
        }
    }
    next
}
