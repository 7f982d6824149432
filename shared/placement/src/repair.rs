//! The map after nodes are lost: what they held goes to nodes that live, and nothing else moves.

use std::collections::BTreeMap;

use types::{NodeId, PartitionId};

use crate::{
    PlacementMap,
    assign::{Node, Zone, score},
};

/// Takes from each partition the nodes that are not among `keeping`, and gives it nodes of `takers` until it has `replicas`, as far
/// as there are so many. Of the takers the one whose zone has the fewest replicas of the partition takes it, then the one that
/// holds the fewest partitions. What a node of `keeping` holds stays there, however uneven that is: a node that joins fills gaps and
/// no more, for to even out is to move, which is planned. Changes nothing where nobody can take anything.
/// The version is that of `previous`, one higher if anything changed.
#[must_use]
pub fn repair(
    previous: &PlacementMap,
    partitions: u32,
    replicas: usize,
    keeping: &[Node],
    takers: &[Node],
) -> PlacementMap {
    if takers.is_empty() {
        return previous.clone();
    }
    let zones: BTreeMap<NodeId, Zone<'_>> =
        keeping.iter().chain(takers).map(|node| (node.id, Zone::of(node))).collect();
    let kept = |partition| {
        let holders = previous.replicas.get(&partition).into_iter().flatten().copied();
        let kept = holders.filter(|holder| keeping.iter().any(|node| node.id == *holder));
        (partition, kept.collect())
    };
    let mut held: BTreeMap<PartitionId, Vec<NodeId>> = (0..partitions).map(PartitionId).map(kept).collect();
    let mut load: BTreeMap<NodeId, usize> = takers.iter().map(|node| (node.id, 0)).collect();
    for holder in held.values().flatten() {
        load.entry(*holder).and_modify(|load| *load += 1);
    }
    for (&partition, holders) in &mut held {
        while holders.len() < replicas {
            let in_zone = |node: &NodeId| holders.iter().filter(|holder| zones[holder] == zones[node]).count();
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
