//! Partitions to nodes: rendezvous hashing with bounded loads, starting from what is placed already.
//!
//! A node's share is bounded by `ceil(partitions × replicas / nodes)`. What is placed stays while its node lives, its zone is
//! allowed and its node is within its bound; the rest goes to the nodes with room in the order of their scores for the partition.
//! Where all nodes with room hold the partition already, one replica of another partition makes way: a node at its bound
//! holds at least one partition that a node below it lacks, so one such step always suffices.

use std::collections::{BTreeMap, BTreeSet};

use types::{NodeId, PartitionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::PlacementMap;

/// A node that may hold partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node.
    pub id: NodeId,
    /// Where it stands; nodes of one zone may fail together. All nodes without one are each a zone of their own.
    pub zone: Option<String>,
}

/// Places `partitions` partitions with `replicas` replicas each (at most one per node) on `nodes`, moving as little of
/// `previous` as the bounds allow. The version is that of `previous`, one higher if anything changed.
#[must_use]
pub fn place(previous: &PlacementMap, partitions: u32, replicas: usize, nodes: &[Node]) -> PlacementMap {
    let replicas = replicas.min(nodes.len());
    let mut placing = Placing::new(partitions, replicas, nodes);
    placing.keep(previous);
    for partition in (0..partitions).map(PartitionId) {
        while placing.held[&partition].len() < replicas {
            placing.add(partition);
        }
    }
    let changed = placing.held != previous.replicas;
    PlacementMap { version: previous.version + u64::from(changed), replicas: placing.held }
}

/// What identifies a zone: its name, or the node where it has none.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
pub(crate) enum Zone<'a> {
    Named(&'a str),
    Alone(NodeId),
}

impl<'a> Zone<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        node.zone.as_deref().map_or(Self::Alone(node.id), Self::Named)
    }
}

struct Placing<'a> {
    zones: BTreeMap<NodeId, Zone<'a>>,
    zone_count: usize,
    replicas: usize,
    bound: usize,
    load: BTreeMap<NodeId, usize>,
    held: BTreeMap<PartitionId, Vec<NodeId>>,
}

impl<'a> Placing<'a> {
    fn new(partitions: u32, replicas: usize, nodes: &'a [Node]) -> Self {
        let zones: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, Zone::of(node))).collect();
        let zone_count = zones.values().collect::<BTreeSet<_>>().len();
        Self {
            bound: (partitions as usize * replicas).div_ceil(zones.len().max(1)),
            load: zones.keys().map(|&node| (node, 0)).collect(),
            held: (0..partitions).map(|partition| (PartitionId(partition), Vec::new())).collect(),
            zones,
            zone_count,
            replicas,
        }
    }

    /// Keeps of `previous` what may stay: in each partition's order, the highest scores of each node first.
    fn keep(&mut self, previous: &PlacementMap) {
        let mut kept: BTreeSet<(PartitionId, NodeId)> = BTreeSet::new();
        for &node in self.zones.keys() {
            let mut of_node: Vec<PartitionId> = self
                .held
                .keys()
                .copied()
                .filter(|partition| previous.replicas.get(partition).is_some_and(|holders| holders.contains(&node)))
                .collect();
            of_node.sort_unstable_by_key(|&partition| std::cmp::Reverse(score(partition, node)));
            // Where zones constrain the choice they may break the bound; taking away would then not lead to rest. Evening out is
            // the work of `plan_moves` there.
            let bound = if self.zones_leave_choice() { self.bound } else { of_node.len() };
            kept.extend(of_node.into_iter().take(bound).map(|partition| (partition, node)));
        }
        for partition in self.held.keys().copied().collect::<Vec<_>>() {
            for &node in previous.replicas.get(&partition).into_iter().flatten() {
                let fresh = !self.held[&partition].contains(&node) && self.held[&partition].len() < self.replicas;
                if fresh
                    && kept.contains(&(partition, node))
                    && self.zone_use(partition, node) == self.zone_use_min(partition)
                {
                    self.put(partition, node);
                }
            }
        }
    }

    /// Whether every zone is one node, so that zones constrain nothing.
    fn zones_leave_choice(&self) -> bool {
        self.zone_count == self.zones.len()
    }

    /// How many replicas of the partition lie in the node's zone.
    fn zone_use(&self, partition: PartitionId, node: NodeId) -> usize {
        self.held[&partition].iter().filter(|&&holder| self.zones[&holder] == self.zones[&node]).count()
    }

    /// The least use of a zone that still has a node without the partition.
    fn zone_use_min(&self, partition: PartitionId) -> usize {
        self.free_nodes(partition).map(|node| self.zone_use(partition, node)).min().unwrap_or(0)
    }

    fn free_nodes(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        self.zones.keys().copied().filter(move |node| !self.held[&partition].contains(node))
    }

    /// Adds one replica of a partition that has fewer than there are nodes.
    fn add(&mut self, partition: PartitionId) {
        let zone_use = self.zone_use_min(partition);
        let candidates: Vec<NodeId> =
            self.free_nodes(partition).filter(|&node| self.zone_use(partition, node) == zone_use).collect();
        let best = |nodes: &mut dyn Iterator<Item = NodeId>| nodes.max_by_key(|&node| (score(partition, node), node));
        if let Some(node) = best(&mut candidates.iter().copied().filter(|node| self.load[node] < self.bound)) {
            return self.put(partition, node);
        }
        if self.zones_leave_choice() {
            let node =
                best(&mut candidates.iter().copied()).expect("a partition has fewer replicas than there are nodes");
            self.make_way(node);
            return self.put(partition, node);
        }
        let node = candidates
            .into_iter()
            .min_by_key(|&node| (self.load[&node], std::cmp::Reverse(score(partition, node)), node))
            .expect("a partition has fewer replicas than there are nodes");
        self.put(partition, node);
    }

    /// Moves one replica from `full` to a node with room.
    fn make_way(&mut self, full: NodeId) {
        let roomy: Vec<NodeId> = self.zones.keys().copied().filter(|node| self.load[node] < self.bound).collect();
        let (partition, to) = self
            .held
            .iter()
            .filter(|(_, holders)| holders.contains(&full))
            .flat_map(|(&partition, holders)| {
                roomy.iter().filter(|node| !holders.contains(node)).map(move |&node| (partition, node))
            })
            .max_by_key(|&(partition, node)| (score(partition, node), partition, node))
            .expect("a node at its bound holds a partition that a node below it lacks");
        let holders = self.held.get_mut(&partition).expect("the partition was just found");
        let place =
            holders.iter().position(|&holder| holder == full).expect("the node was just found among its holders");
        holders[place] = to;
        *self.load.get_mut(&full).expect("every node has a load") -= 1;
        *self.load.get_mut(&to).expect("every node has a load") += 1;
    }

    fn put(&mut self, partition: PartitionId, node: NodeId) {
        self.held.get_mut(&partition).expect("every partition has an entry").push(node);
        *self.load.get_mut(&node).expect("every node has a load") += 1;
    }
}

/// How much a partition wants to lie on a node.
fn score(partition: PartitionId, node: NodeId) -> u64 {
    xxh3_64_with_seed(&partition.0.to_le_bytes(), node.0)
}
