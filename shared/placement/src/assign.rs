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
    let mut placing = Placing::new(partitions, replicas, nodes);
    placing.keep(previous);
    for partition in (0..partitions).map(PartitionId) {
        while placing.of(partition).len() < placing.replicas {
            placing.add(partition);
        }
    }
    let replicas = placing.into_replicas();
    let changed = replicas != previous.replicas;
    PlacementMap { version: previous.version + u64::from(changed), replicas, ..previous.clone() }
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

/// The place of a node among all, which stand in the order of their ids.
type At = u32;

/// Placing under way. Nodes and zones are known by their places, so that a step costs no look-up by name: a cluster has thousands
/// of nodes and a hundred thousand partitions.
struct Placing {
    nodes: Vec<NodeId>,
    /// By node.
    zone_of: Vec<u32>,
    load: Vec<usize>,
    /// By zone: its nodes.
    zone_sizes: Vec<usize>,
    replicas: usize,
    bound: usize,
    /// By partition: the nodes that hold it, the primary first.
    held: Vec<Vec<At>>,
}

impl Placing {
    fn new(partitions: u32, replicas: usize, nodes: &[Node]) -> Self {
        let by_id: BTreeMap<NodeId, Zone<'_>> = nodes.iter().map(|node| (node.id, Zone::of(node))).collect();
        let zones: BTreeSet<&Zone<'_>> = by_id.values().collect();
        let numbers: BTreeMap<&Zone<'_>, u32> = zones.into_iter().zip(0..).collect();
        let zone_of: Vec<u32> = by_id.values().map(|zone| numbers[zone]).collect();
        let mut zone_sizes = vec![0; numbers.len()];
        zone_of.iter().for_each(|&zone| zone_sizes[zone as usize] += 1);
        let replicas = replicas.min(by_id.len());
        Self {
            bound: (partitions as usize * replicas).div_ceil(by_id.len().max(1)),
            load: vec![0; by_id.len()],
            nodes: by_id.keys().copied().collect(),
            zone_of,
            zone_sizes,
            replicas,
            held: vec![Vec::new(); partitions as usize],
        }
    }

    fn into_replicas(self) -> BTreeMap<PartitionId, Vec<NodeId>> {
        let named = |holders: &Vec<At>| holders.iter().map(|&at| self.nodes[at as usize]).collect();
        (0..).map(PartitionId).zip(self.held.iter().map(named)).collect()
    }

    /// The nodes that hold a partition.
    fn of(&self, partition: PartitionId) -> &[At] {
        &self.held[partition.0 as usize]
    }

    /// Keeps of `previous` what may stay: in each partition's order, the highest scores of each node first.
    fn keep(&mut self, previous: &PlacementMap) {
        let partitions = self.held.len() as u32;
        let here = || previous.replicas.range(..PartitionId(partitions));
        let mut of_nodes: Vec<Vec<PartitionId>> = vec![Vec::new(); self.nodes.len()];
        for (&partition, holders) in here() {
            for at in holders.iter().filter_map(|node| self.nodes.binary_search(node).ok()) {
                // A node that stands there twice holds it once.
                if of_nodes[at].last() != Some(&partition) {
                    of_nodes[at].push(partition);
                }
            }
        }
        // Where zones constrain the choice they may break the bound; taking away would then not lead to rest. Evening out is the
        // work of `plan_moves` there.
        let bound = if self.zones_leave_choice() { self.bound } else { usize::MAX };
        let mut kept: Vec<Vec<At>> = vec![Vec::new(); self.held.len()];
        for (at, mut of_node) in (0..).zip(of_nodes) {
            if of_node.len() > bound {
                let node = self.nodes[at as usize];
                of_node.sort_unstable_by_key(|&partition| std::cmp::Reverse(score(partition, node)));
                of_node.truncate(bound);
            }
            of_node.into_iter().for_each(|partition| kept[partition.0 as usize].push(at));
        }
        for (&partition, holders) in here() {
            for node in holders {
                let Ok(at) = self.nodes.binary_search(node) else { continue };
                let (at, held) = (at as At, self.of(partition));
                let fresh = !held.contains(&at) && held.len() < self.replicas;
                if fresh
                    && kept[partition.0 as usize].contains(&at)
                    && self.zone_use(partition, at) == self.zone_use_min(partition)
                {
                    self.put(partition, at);
                }
            }
        }
    }

    /// Whether every zone is one node, so that zones constrain nothing.
    fn zones_leave_choice(&self) -> bool {
        self.zone_sizes.len() == self.nodes.len()
    }

    /// How many replicas of the partition lie in a zone.
    fn in_zone(&self, partition: PartitionId, zone: u32) -> usize {
        self.of(partition).iter().filter(|&&holder| self.zone_of[holder as usize] == zone).count()
    }

    /// How many replicas of the partition lie in the node's zone.
    fn zone_use(&self, partition: PartitionId, at: At) -> usize {
        self.in_zone(partition, self.zone_of[at as usize])
    }

    /// The least use of a zone that still has a node without the partition.
    fn zone_use_min(&self, partition: PartitionId) -> usize {
        let used: BTreeSet<u32> = self.of(partition).iter().map(|&holder| self.zone_of[holder as usize]).collect();
        if used.len() < self.zone_sizes.len() {
            return 0;
        }
        let uses = used.into_iter().map(|zone| (self.in_zone(partition, zone), self.zone_sizes[zone as usize]));
        uses.filter(|(held, nodes)| held < nodes).map(|(held, _)| held).min().unwrap_or(0)
    }

    /// Adds one replica of a partition that has fewer than there are nodes.
    fn add(&mut self, partition: PartitionId) {
        let (zone_use, held) = (self.zone_use_min(partition), self.of(partition));
        let free = (0..self.nodes.len() as At).filter(|at| !held.contains(at));
        let candidates: Vec<At> = free.filter(|&at| self.zone_use(partition, at) == zone_use).collect();
        let wanted = |at: At| score(partition, self.nodes[at as usize]);
        let best = |nodes: &mut dyn Iterator<Item = At>| nodes.max_by_key(|&at| (wanted(at), at));
        if let Some(at) = best(&mut candidates.iter().copied().filter(|&at| self.has_room(at))) {
            return self.put(partition, at);
        }
        let least_loaded = |&at: &At| (self.load[at as usize], std::cmp::Reverse(wanted(at)), at);
        let at = match self.zones_leave_choice() {
            true => best(&mut candidates.into_iter()),
            false => candidates.into_iter().min_by_key(least_loaded),
        };
        let at = at.expect("a partition has fewer replicas than there are nodes");
        if self.zones_leave_choice() {
            self.make_way(at);
        }
        self.put(partition, at);
    }

    fn has_room(&self, at: At) -> bool {
        self.load[at as usize] < self.bound
    }

    /// Moves one replica from `full` to a node with room.
    fn make_way(&mut self, full: At) {
        let roomy: Vec<At> = (0..self.nodes.len() as At).filter(|&at| self.has_room(at)).collect();
        let of_full = (0..).zip(&self.held).filter(|(_, holders)| holders.contains(&full));
        let (partition, to) = of_full
            .flat_map(|(partition, holders)| {
                let others = roomy.iter().filter(|at| !holders.contains(at));
                others.map(move |&at| (PartitionId(partition), at))
            })
            .max_by_key(|&(partition, at)| (score(partition, self.nodes[at as usize]), partition, at))
            .expect("a node at its bound holds a partition that a node below it lacks");
        let holders = &mut self.held[partition.0 as usize];
        let place =
            holders.iter().position(|&holder| holder == full).expect("the node was just found among its holders");
        holders[place] = to;
        self.load[full as usize] -= 1;
        self.load[to as usize] += 1;
    }

    fn put(&mut self, partition: PartitionId, at: At) {
        self.held[partition.0 as usize].push(at);
        self.load[at as usize] += 1;
    }
}

/// How much a partition wants to lie on a node.
pub(crate) fn score(partition: PartitionId, node: NodeId) -> u64 {
    xxh3_64_with_seed(&partition.0.to_le_bytes(), node.0)
}
