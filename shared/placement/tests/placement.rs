//! Placement and moves against their bounds, over random clusters.

use std::collections::{BTreeMap, BTreeSet};

use placement::{Budget, MoveReason, Node, PartitionLoad, PlacementMap, PlanReason, place, plan_moves, repair};
use proptest::prelude::*;
use types::{NodeId, PartitionId};

const NO_LIMIT: Budget = Budget { moves_max: usize::MAX, bytes_max: u64::MAX };

fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<Node> {
    ids.into_iter().map(|id| Node { id: NodeId(id), zone: None }).collect()
}

fn loads(map: &PlacementMap) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for node in map.replicas.values().flatten() {
        *loads.entry(*node).or_default() += 1;
    }
    loads
}

fn pairs(map: &PlacementMap) -> BTreeSet<(PartitionId, NodeId)> {
    map.replicas.iter().flat_map(|(&partition, holders)| holders.iter().map(move |&node| (partition, node))).collect()
}

fn check_bounds(map: &PlacementMap, partitions: u32, replicas: usize, nodes: usize) {
    let replicas = replicas.min(nodes);
    assert_eq!(map.replicas.len(), partitions as usize);
    for holders in map.replicas.values() {
        assert_eq!(holders.len(), replicas);
        assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), replicas, "replicas on one node");
    }
    let bound = (partitions as usize * replicas).div_ceil(nodes.max(1));
    assert!(loads(map).values().all(|&load| load <= bound), "a node beyond its share of {bound}: {:?}", loads(map));
}

proptest! {
    /// Goal: every partition has its replicas on different nodes, no node has more than its even share, and asking again
    /// gives the same, also from the result and with the nodes in another order.
    #[test]
    fn placement_is_bounded_and_stable(partitions in 0_u32..80, replicas in 1_usize..4, count in 1_u64..12) {
        let mut cluster = nodes(1..=count);
        let map = place(&PlacementMap::default(), partitions, replicas, &cluster);
        check_bounds(&map, partitions, replicas, cluster.len());
        prop_assert_eq!(&place(&map, partitions, replicas, &cluster), &map);
        cluster.reverse();
        prop_assert_eq!(place(&PlacementMap::default(), partitions, replicas, &cluster), map);
    }

    /// Goal: after nodes are lost or join, what those that keep theirs held stays, every partition has its replicas on different
    /// nodes as far as there are nodes, and asking again changes nothing. Who is lost stays in the map as long as nobody that is known
    /// to hold all has the partition; once one has, those that took it meanwhile and do not hold all make way.
    #[test]
    fn repair_moves_only_what_was_lost(
        partitions in 1_u32..60,
        replicas in 1_usize..4,
        before in 1_u64..9,
        lost in prop::collection::btree_set(1_u64..9, 0..8),
        joined in 0_u64..3,
        left in 0_u64..2,
        recovering in prop::collection::btree_set((0_u32..60, 1_u64..9), 0..60),
    ) {
        let none = BTreeSet::new();
        let previous = place(&PlacementMap::default(), partitions, replicas, &nodes(1..=before));
        let takers = nodes((1..=before).filter(|id| !lost.contains(id)).chain(20..20 + joined));
        // One of those that are lost may have left in order: it keeps what it has and takes nothing.
        let keeping = nodes(takers.iter().map(|node| node.id.0).chain(lost.iter().copied().take(left as usize)));
        let mut unproven: BTreeSet<_> = recovering.into_iter().map(|(p, node)| (PartitionId(p), NodeId(node))).collect();
        let map = repair(&previous, partitions, replicas, &keeping, &takers, &unproven);
        if takers.is_empty() {
            prop_assert_eq!(map, previous);
            return Ok(());
        }
        let is_kept = |id: &NodeId| keeping.iter().any(|node| node.id == *id);
        for (&partition, holders) in &map.replicas {
            let (kept, gone): (Vec<NodeId>, Vec<NodeId>) = previous.replicas[&partition].iter().partition(|id| is_kept(id));
            let proven = kept.iter().any(|id| !unproven.contains(&(partition, *id)));
            let stays = if proven { kept.clone() } else { previous.replicas[&partition].clone() };
            prop_assert_eq!(&holders[..stays.len()], &stays);
            let possible = takers.iter().map(|node| node.id).chain(kept).collect::<BTreeSet<_>>().len();
            let beside = if proven { 0 } else { gone.len() };
            prop_assert_eq!(holders.len(), replicas.min(possible) + beside);
            prop_assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), holders.len(), "replicas on one node");
            if !proven {
                unproven.extend(holders.iter().filter(|id| !stays.contains(id)).map(|id| (partition, *id)));
            }
        }
        prop_assert_eq!(map.replicas.len(), partitions as usize);
        prop_assert_eq!(map.version, previous.version + u64::from(map.replicas != previous.replicas));
        prop_assert_eq!(&repair(&map, partitions, replicas, &keeping, &takers, &unproven), &map);

        // Those that took over hold all by now; or the lost ones are back, and hold all.
        let proven = repair(&map, partitions, replicas, &keeping, &takers, &none);
        prop_assert!(proven.replicas.values().flatten().all(is_kept));
        unproven.retain(|(_, node)| !lost.contains(&node.0));
        let back = nodes((1..=before).chain(20..20 + joined));
        let back = repair(&map, partitions, replicas, &back, &back, &unproven);
        for (partition, holders) in &back.replicas {
            let proven = |id: &&NodeId| !unproven.contains(&(*partition, **id));
            let had = map.replicas[partition].iter().filter(proven);
            prop_assert!(had.clone().all(|id| holders.contains(id)));
            let possible = replicas.min((before + joined) as usize);
            prop_assert!(had.clone().next().is_none() || holders.len() == possible.max(had.count()));
        }
    }

    /// Goal: when a node leaves, what it held finds a place within the bounds and what others held hardly moves: one step
    /// more per replica where the nodes with room had it already.
    #[test]
    fn a_node_that_leaves_moves_its_own(partitions in 1_u32..80, replicas in 1_usize..3, count in 4_u64..12, gone in 1_u64..4) {
        let before = place(&PlacementMap::default(), partitions, replicas, &nodes(1..=count));
        let rest = nodes((1..=count).filter(|&id| id != gone));
        let after = place(&before, partitions, replicas, &rest);
        check_bounds(&after, partitions, replicas, rest.len());
        let lost = loads(&before).get(&NodeId(gone)).copied().unwrap_or(0);
        let moved = pairs(&after).difference(&pairs(&before)).count();
        prop_assert!(moved >= lost && moved <= 2 * lost, "{moved} moved for {lost} lost");
        if replicas == 1 {
            prop_assert_eq!(moved, lost, "without replicas there is always room");
        }
        prop_assert_eq!(after.version, before.version + u64::from(lost > 0));
    }

    /// Goal: when a node joins, no more moves than what lies beyond the new, smaller share (twice where it had to make way).
    #[test]
    fn a_node_that_joins_takes_the_excess(partitions in 1_u32..80, replicas in 1_usize..3, count in 3_u64..12) {
        let before = place(&PlacementMap::default(), partitions, replicas, &nodes(1..=count));
        let after = place(&before, partitions, replicas, &nodes(1..=count + 1));
        check_bounds(&after, partitions, replicas, count as usize + 1);
        let share = (partitions as usize * replicas).div_ceil(count as usize + 1);
        let excess: usize = loads(&before).values().map(|load| load.saturating_sub(share)).sum();
        let moved = pairs(&after).difference(&pairs(&before)).count();
        prop_assert!(moved >= excess && moved <= 2 * excess, "{moved} moved for an excess of {excess}");
    }

    /// Goal: with at least as many zones as replicas, no two replicas of a partition share one, also after a node has left.
    #[test]
    fn zones_hold_one_replica_each(partitions in 1_u32..60, zones in 2_u64..5, per_zone in 1_u64..4, gone in 0_u64..4) {
        let zoned = |id: u64| Node { id: NodeId(id), zone: Some(format!("z{}", id % zones)) };
        let all: Vec<Node> = (0..zones * (per_zone + 1)).map(zoned).collect();
        let rest: Vec<Node> = all.iter().filter(|node| node.id != NodeId(gone)).cloned().collect();
        let zone_of: BTreeMap<_, _> = all.iter().map(|node| (node.id, node.zone.clone())).collect();
        let before = place(&PlacementMap::default(), partitions, 2, &all);
        for map in [&before, &place(&before, partitions, 2, &rest)] {
            for holders in map.replicas.values() {
                prop_assert_eq!(holders.len(), 2);
                prop_assert_ne!(&zone_of[&holders[0]], &zone_of[&holders[1]]);
            }
        }
    }

    /// Goal: a plan without limits ends even or where no single move helps; it never raises the peak, never puts two replicas
    /// on one node, and does not depend on the order of its input.
    #[test]
    fn plans_even_out(bytes in prop::collection::vec((1_u64..6, 0_u64..1_000), 0..40), count in 1_u64..6) {
        let cluster = nodes(1..=count);
        let ids: Vec<NodeId> = cluster.iter().map(|node| node.id).collect();
        let mut input: Vec<PartitionLoad> = bytes.iter().enumerate()
            .map(|(n, &(node, bytes))| PartitionLoad { partition: PartitionId(n as u32), node: NodeId(node), bytes, weight: bytes }).collect();
        let plan = plan_moves(&input, &cluster, NO_LIMIT);
        let mut at: BTreeMap<PartitionId, (NodeId, u64)> =
            input.iter().map(|load| (load.partition, (load.node, load.bytes))).collect();
        let total = |at: &BTreeMap<PartitionId, (NodeId, u64)>| {
            let mut totals: BTreeMap<NodeId, u64> = ids.iter().map(|&id| (id, 0)).collect();
            at.values().for_each(|(node, bytes)| *totals.entry(*node).or_default() += bytes);
            totals
        };
        for step in &plan.moves {
            let peak_before = total(&at)[&step.from];
            prop_assert_eq!(at[&step.partition], (step.from, step.bytes));
            at.insert(step.partition, (step.to, step.bytes));
            if step.reason == MoveReason::EvenOut {
                prop_assert!(total(&at)[&step.from].max(total(&at)[&step.to]) < peak_before);
            }
        }
        prop_assert!(at.values().all(|(node, _)| ids.contains(node)), "something is left on a node that has gone");
        input.reverse();
        prop_assert_eq!(plan_moves(&input, &cluster, NO_LIMIT), plan);
    }

    /// Goal: a plan keeps its budget, and says so when it would have gone on.
    #[test]
    fn plans_keep_their_budget(bytes in prop::collection::vec(0_u64..1_000, 1..30), moves_max in 0_usize..5, bytes_max in 0_u64..3_000) {
        let input: Vec<PartitionLoad> = bytes.iter().enumerate()
            .map(|(n, &bytes)| PartitionLoad { partition: PartitionId(n as u32), node: NodeId(1), bytes, weight: bytes }).collect();
        let cluster = nodes(1..=3);
        let whole = plan_moves(&input, &cluster, NO_LIMIT);
        let plan = plan_moves(&input, &cluster, Budget { moves_max, bytes_max });
        prop_assert!(plan.moves.len() <= moves_max && plan.bytes() <= bytes_max);
        prop_assert_eq!(&plan.moves[..], &whole.moves[..plan.moves.len()]);
        prop_assert_eq!(plan.reason == PlanReason::BudgetSpent, plan.moves.len() < whole.moves.len());
    }
}

/// Goal: on one node the plan is empty and says why; without any it says that; an even cluster has nothing to move.
#[test]
fn empty_plans_say_why() {
    let at = |partition, node, bytes| PartitionLoad {
        partition: PartitionId(partition),
        node: NodeId(node),
        bytes,
        weight: bytes,
    };
    let one = plan_moves(&[at(0, 1, 500), at(1, 1, 0)], &nodes([1]), NO_LIMIT);
    assert_eq!((one.moves.len(), one.reason), (0, PlanReason::SingleNode));
    assert_eq!(one.reason.to_string(), "there is one node, so there is nowhere to move to");
    assert_eq!(plan_moves(&[at(0, 1, 500)], &[], NO_LIMIT).reason, PlanReason::NoNode);
    let even = plan_moves(&[at(0, 1, 500), at(1, 2, 460)], &nodes([1, 2]), NO_LIMIT);
    assert_eq!((even.moves.len(), even.reason), (0, PlanReason::Balanced));
}

/// Goal: a replica goes to another zone than its sibling's, though the idlest node stands in that one.
#[test]
fn plans_respect_zones() {
    let node = |id, zone: &str| Node { id: NodeId(id), zone: Some(zone.into()) };
    let at = |partition, node, bytes| PartitionLoad {
        partition: PartitionId(partition),
        node: NodeId(node),
        bytes,
        weight: bytes,
    };
    let cluster = [node(1, "a"), node(2, "b"), node(3, "b"), node(4, "a")];
    let loads = [at(0, 1, 500), at(0, 2, 500), at(1, 1, 500), at(1, 2, 500), at(2, 4, 100)];
    let plan = plan_moves(&loads, &cluster, NO_LIMIT);
    let first = plan.moves[0];
    assert_eq!((first.from, first.to), (NodeId(1), NodeId(4)), "the idler node 3 stands in the zone of the sibling");
    let gone = plan_moves(&loads[..2], &cluster[1..], NO_LIMIT);
    assert_eq!((gone.moves[0].to, gone.moves[0].reason), (NodeId(4), MoveReason::NodeGone));
}

/// Goal: what a lost node held is spread evenly over those that live, in the zone that the other replica is not in; a node that
/// joins takes nothing from others.
#[test]
fn what_was_lost_is_spread() {
    let before = place(&PlacementMap::default(), 60, 2, &nodes(1..=4));
    let rest = nodes(1..=3);
    let after = repair(&before, 60, 2, &rest, &rest, &BTreeSet::new());
    let loads = loads(&after);
    assert_eq!((loads.len(), loads.values().sum::<usize>()), (3, 120));
    assert!(loads.values().max().unwrap() - loads.values().min().unwrap() <= 1, "{loads:?}");
    let more = nodes(1..=5);
    assert_eq!(repair(&after, 60, 2, &more, &more, &BTreeSet::new()), after);

    let zoned: Vec<Node> = [(1, "a"), (2, "a"), (3, "b"), (4, "b")]
        .map(|(id, zone)| Node { id: NodeId(id), zone: Some(zone.into()) })
        .into();
    let before = place(&PlacementMap::default(), 60, 2, &zoned);
    let after = repair(&before, 60, 2, &zoned[1..], &zoned[1..], &BTreeSet::new());
    let in_a = |holders: &[NodeId]| holders.iter().filter(|holder| holder.0 <= 2).count();
    assert!(after.replicas.values().all(|holders| in_a(holders) == 1), "one replica in each zone");
}
