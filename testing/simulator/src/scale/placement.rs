//! Placement in a large cluster: how even it is, how long it takes, and what is copied when nodes come and go.

use std::{collections::BTreeMap, time::Instant};

use placement::{Node, PlacementMap, place};
use types::NodeId;

/// A cluster.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    /// Nodes of the hot tier.
    pub nodes: u64,
    /// Zones that they stand in, in turn.
    pub zones: u64,
    /// Partitions of the log.
    pub partitions: u32,
    /// Replicas of each.
    pub replicas: usize,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is placed for the first time.
    First,
    /// A node is lost.
    NodeLost,
    /// A zone is lost.
    ZoneLost,
    /// A node joins.
    NodeJoins,
}

/// What came of a change.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Planning, ms of wall time.
    pub planning_ms: f64,
    /// Replicas that were lost with their nodes.
    pub replicas_lost: usize,
    /// Replicas that have to be made where they were not.
    pub replicas_moved: usize,
    /// Partitions of which no replica was left.
    pub partitions_away: usize,
    /// The most replicas of one node, as a multiple of the mean.
    pub peak: f64,
}

impl Cluster {
    fn nodes(&self) -> impl Iterator<Item = Node> {
        let zones = self.zones;
        (1..=self.nodes).map(move |id| node(id, zones))
    }

    /// The first placement of the cluster, from which all else goes on.
    #[must_use]
    pub fn placed(&self) -> PlacementMap {
        place(&PlacementMap::default(), self.partitions, self.replicas, &self.nodes().collect::<Vec<_>>())
    }

    /// Plans anew after a change of the cluster as `before` has it.
    #[must_use]
    pub fn change(&self, before: &PlacementMap, change: Change) -> Outcome {
        let gone = |node: &Node| match change {
            Change::NodeLost => node.id == NodeId(1),
            Change::ZoneLost => node.id.0.is_multiple_of(self.zones),
            Change::First | Change::NodeJoins => false,
        };
        let mut nodes: Vec<Node> = self.nodes().filter(|node| !gone(node)).collect();
        nodes.extend((change == Change::NodeJoins).then(|| node(self.nodes + 1, self.zones)));
        let empty = PlacementMap::default();
        let before = if change == Change::First { &empty } else { before };
        let began = Instant::now();
        let after = place(before, self.partitions, self.replicas, &nodes);
        let planning_ms = began.elapsed().as_secs_f64() * 1e3;
        let there: BTreeMap<NodeId, ()> = nodes.iter().map(|node| (node.id, ())).collect();
        let left = |holders: &Vec<NodeId>| holders.iter().filter(|node| there.contains_key(node)).count();
        let had = |partition, node: &NodeId| before.replicas.get(partition).is_some_and(|held| held.contains(node));
        Outcome {
            planning_ms,
            replicas_lost: before.replicas.values().map(|holders| holders.len() - left(holders)).sum(),
            replicas_moved: after
                .replicas
                .iter()
                .map(|(partition, holders)| holders.iter().filter(|node| !had(partition, node)).count())
                .sum(),
            partitions_away: before.replicas.values().filter(|holders| left(holders) == 0).count(),
            peak: peak(&after, nodes.len()),
        }
    }
}

fn node(id: u64, zones: u64) -> Node {
    Node { id: NodeId(id), zone: Some(format!("zone {}", id % zones)) }
}

fn peak(map: &PlacementMap, nodes: usize) -> f64 {
    let mut loads: BTreeMap<NodeId, usize> = BTreeMap::new();
    map.replicas.values().flatten().for_each(|node| *loads.entry(*node).or_default() += 1);
    let all: usize = loads.values().sum();
    loads.values().max().map_or(0.0, |most| (most * nodes) as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the loss of a node or a zone leaves a replica of every partition and copies what was lost and hardly more; a node
    /// that joins takes no more than its share; no node has far more than the others.
    #[test]
    fn a_loss_copies_what_was_lost() {
        let cluster = Cluster { nodes: 60, zones: 3, partitions: 3_000, replicas: 2 };
        let before = cluster.placed();
        for change in [Change::NodeLost, Change::ZoneLost, Change::NodeJoins] {
            let outcome = cluster.change(&before, change);
            let share = 3_000 * 2 / 60;
            let lost = match change {
                Change::NodeLost => share..=share + 1,
                Change::ZoneLost => 20 * share..=20 * share,
                Change::First | Change::NodeJoins => 0..=0,
            };
            assert!(lost.contains(&outcome.replicas_lost), "{change:?} {outcome:?}");
            assert!(outcome.replicas_moved <= outcome.replicas_lost + share, "{change:?} {outcome:?}");
            assert!(outcome.partitions_away == 0 && outcome.peak < 1.1, "{change:?} {outcome:?}");
        }
    }
}
