//! The map after nodes are lost: what they held goes to nodes that live, and nothing else moves.

use std::collections::{BTreeMap, BTreeSet};

use types::{NodeId, PartitionId};

use crate::{
    PlacementMap,
    assign::{Node, Zone, score},
};

/// Takes from each partition the nodes that are not among `keeping`, and gives it nodes of `takers` until it has `replicas`, as far
/// as there are so many. Of the takers the one whose zone has the fewest replicas of the partition takes it, then the one that
/// holds the fewest partitions. What a node of `keeping` holds stays there, however uneven that is: a node that joins fills gaps and
/// no more, for to even out is to move, which is planned. Changes nothing where nobody can take anything.
///
/// Of `unproven` replicas it is not known that they hold all: they begin, or the log had no more what they needed. Where nobody else
/// is left of a partition, its lost nodes stay in the map beside those that took it, for what they have on their disks may be
/// all that there is. They leave it when one that lives is proven, be it one of them that came back; then those that took it and are
/// still unproven go, too, as far as there are more than `replicas`.
///
/// The version is that of `previous`, one higher if anything changed.
#[must_use]
pub fn repair(
    previous: &PlacementMap,
    partitions: u32,
    replicas: usize,
    keeping: &[Node],
    takers: &[Node],
    unproven: &BTreeSet<(PartitionId, NodeId)>,
) -> PlacementMap {
    if takers.is_empty() {
        return previous.clone();
    }
    let zones: BTreeMap<NodeId, Zone<'_>> =
        keeping.iter().chain(takers).map(|node| (node.id, Zone::of(node))).collect();
    let is_kept = |holder: &NodeId| keeping.iter().any(|node| node.id == *holder);
    let kept = |partition| {
        let mut holders = previous.replicas.get(&partition).cloned().unwrap_or_default();
        if holders.iter().any(|holder| is_kept(holder) && !unproven.contains(&(partition, *holder))) {
            holders.retain(is_kept);
            // What moves keeps its source, until its move is over.
            while holders.len() > replicas
                && !previous.moves.contains_key(&partition)
                && let Some(last) = holders.iter().rposition(|holder| unproven.contains(&(partition, *holder)))
            {
                holders.remove(last);
            }
        }
        (partition, holders)
    };
    let mut held: BTreeMap<PartitionId, Vec<NodeId>> = (0..partitions).map(PartitionId).map(kept).collect();
    let mut load: BTreeMap<NodeId, usize> = takers.iter().map(|node| (node.id, 0)).collect();
    for holder in held.values().flatten().filter(|holder| is_kept(holder)) {
        load.entry(*holder).and_modify(|load| *load += 1);
    }
    for (&partition, holders) in &mut held {
        while holders.iter().filter(|holder| zones.contains_key(holder)).count() < replicas {
            let in_zone =
                |node: &NodeId| holders.iter().filter(|holder| zones.get(holder) == Some(&zones[node])).count();
            let free = load.keys().filter(|node| !holders.contains(node));
            let best = free
                .min_by_key(|node| (in_zone(node), load[*node], std::cmp::Reverse(score(partition, **node)), **node));
            let Some(&taker) = best else { break };
            holders.push(taker);
            *load.get_mut(&taker).expect("every taker has a load") += 1;
        }
    }
    let changed = held != previous.replicas;
    PlacementMap { version: previous.version + u64::from(changed), replicas: held, ..previous.clone() }
}
