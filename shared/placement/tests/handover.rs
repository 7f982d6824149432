//! Moves under losses, aborts and leaders that come and go, against a model of who has all of what.

use std::collections::{BTreeMap, BTreeSet};

use placement::{Handover, Move, MoveReason, Node, Outcome, Pace, Phase, PlacementMap, Refused, Seen, repair};
use proptest::prelude::*;
use types::{NodeId, PartitionId};

const PARTITIONS: u32 = 3;
const NODES: u64 = 5;
const REPLICAS: usize = 2;
const PACE: Pace = Pace { copies_max: 2, copies_per_node_max: 1 };

#[derive(Debug, Clone)]
enum Op {
    Move {
        partition: u32,
        from: usize,
        to: u64,
    },
    Abort {
        partition: u32,
    },
    /// A node has read all of a partition that it holds.
    CatchUp {
        partition: u32,
        node: u64,
    },
    /// The leader looks; some moves are called failed, or over, by chance.
    Round {
        failed: BTreeSet<u32>,
        over: BTreeSet<u32>,
    },
    Lose {
        node: u64,
    },
    Return {
        node: u64,
    },
    Drain {
        node: u64,
        drains: bool,
    },
    /// A leader reads the map, and stands still.
    Read,
    /// It goes on with what it read.
    Late,
}

fn op() -> impl Strategy<Value = Op> {
    let (partition, node) = (0..PARTITIONS, 1..=NODES);
    let some = || prop::collection::btree_set(0..PARTITIONS, 0..3);
    prop_oneof![
        4 => (partition.clone(), 0..REPLICAS, node.clone()).prop_map(|(partition, from, to)| Op::Move { partition, from, to }),
        1 => partition.clone().prop_map(|partition| Op::Abort { partition }),
        6 => (partition, node.clone()).prop_map(|(partition, node)| Op::CatchUp { partition, node }),
        6 => (prop::collection::btree_set(0..PARTITIONS, 0..2), some()).prop_map(|(failed, over)| Op::Round { failed, over }),
        2 => node.clone().prop_map(|node| Op::Lose { node }),
        2 => node.clone().prop_map(|node| Op::Return { node }),
        1 => (node, any::<bool>()).prop_map(|(node, drains)| Op::Drain { node, drains }),
        1 => Just(Op::Read),
        1 => Just(Op::Late),
    ]
}

struct World {
    map: PlacementMap,
    living: BTreeSet<NodeId>,
    /// Who has all of a partition.
    full: BTreeSet<(PartitionId, NodeId)>,
    read: Option<PlacementMap>,
}

impl World {
    fn new() -> Self {
        let replicas: BTreeMap<PartitionId, Vec<NodeId>> = (0..PARTITIONS)
            .map(|partition| {
                (PartitionId(partition), [1, 2].map(|n| NodeId(1 + (u64::from(partition) + n) % NODES)).to_vec())
            })
            .collect();
        let full = replicas.iter().flat_map(|(&of, nodes)| nodes.iter().map(move |&node| (of, node))).collect();
        let map = PlacementMap { version: 1, replicas, ..PlacementMap::default() };
        Self { map, living: (1..=NODES).map(NodeId).collect(), full, read: None }
    }

    fn numbers(partitions: &BTreeSet<u32>) -> BTreeSet<PartitionId> {
        partitions.iter().copied().map(PartitionId).collect()
    }

    /// What the leader makes of a map, by what it sees now.
    fn next(&self, map: &PlacementMap, failed: &BTreeSet<u32>, over: &BTreeSet<u32>) -> PlacementMap {
        let alike = |(partition, step): (&PartitionId, &Handover)| {
            let both = [step.from, step.to].iter().all(|node| self.full.contains(&(*partition, *node)));
            (both && step.phase == Phase::Copying).then_some(*partition)
        };
        let verified = map.moves.iter().filter_map(alike).collect();
        let seen = Seen { verified, failed: Self::numbers(failed), over: Self::numbers(over) };
        let (next, ended) = map.advanced(&self.living, &seen, PACE);
        assert_eq!(next.version, map.version + u64::from(next != *map), "{ended:?}");
        let nodes: Vec<Node> = self.living.iter().map(|&id| Node { id, zone: None }).collect();
        let takers: Vec<Node> = nodes.iter().filter(|node| !map.draining.contains(&node.id)).cloned().collect();
        let replicas = next.replicas.iter().flat_map(|(&of, nodes)| nodes.iter().map(move |&node| (of, node)));
        let unproven = replicas.filter(|replica| !self.full.contains(replica)).collect();
        repair(&next, PARTITIONS, REPLICAS, &nodes, &takers, &unproven)
    }

    /// Stores a map made from one of version `from`, as metadata does it.
    fn store(&mut self, next: PlacementMap, from: u64) {
        if next.version == from || self.map.version != from {
            return;
        }
        assert!(next.version > from);
        self.map = next;
        // Who does not hold a partition any more lets go of it.
        let map = &self.map;
        self.full.retain(|(partition, node)| map.holds(*node, *partition));
    }

    /// The partitions of which a replica has all, or a node that holds it in any way.
    fn whole(&self, is_held: impl Fn(PartitionId, NodeId) -> bool) -> BTreeSet<PartitionId> {
        self.full
            .iter()
            .filter(|(partition, node)| is_held(*partition, *node))
            .map(|(partition, _)| *partition)
            .collect()
    }

    fn apply(&mut self, op: Op) {
        let (map, version) = (self.map.clone(), self.map.version);
        match op {
            Op::Move { partition, from, to } => {
                let Some(&from) = map.replicas[&PartitionId(partition)].get(from) else { return };
                let step = Move {
                    partition: PartitionId(partition),
                    from,
                    to: NodeId(to),
                    bytes: 1,
                    reason: MoveReason::Request,
                };
                if let Ok(next) = map.with_move(&step) {
                    self.store(next, version);
                }
            }
            Op::Abort { partition } => {
                if let Ok(next) = map.without_move(PartitionId(partition)) {
                    self.store(next, version);
                }
            }
            Op::CatchUp { partition, node } => {
                let (partition, node) = (PartitionId(partition), NodeId(node));
                // It has to come from somewhere: the log has it all as long as one that has all lives.
                if self.living.contains(&node) && map.holds(node, partition) {
                    self.full.insert((partition, node));
                }
            }
            Op::Round { failed, over } => self.store(self.next(&map, &failed, &over), version),
            Op::Lose { node } => {
                if self.living.len() > 1 {
                    self.living.remove(&NodeId(node));
                    self.full.retain(|(_, holder)| holder.0 != node);
                    self.store(self.next(&map, &BTreeSet::new(), &BTreeSet::new()), version);
                }
            }
            Op::Return { node } => {
                self.living.insert(NodeId(node));
            }
            Op::Drain { node, drains } => self.store(map.with_draining(NodeId(node), drains), version),
            Op::Read => self.read = Some(map),
            Op::Late => {
                if let Some(read) = self.read.take() {
                    let next = self.next(&read, &BTreeSet::new(), &(0..PARTITIONS).collect());
                    self.store(next, read.version);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Goal: whatever is moved, lost, aborted and read too late, a partition of which a node that lives holds all has a replica
    /// that has all; no node stands twice in a partition; who is lost stays in the map only while nobody else has all; and left alone, all
    /// moves end.
    #[test]
    fn no_step_loses_the_last_whole_replica(history in prop::collection::vec(op(), 0..60)) {
        let mut world = World::new();
        for op in history {
            let lost = if let Op::Lose { node } = op { Some(NodeId(node)) } else { None };
            let before = world.map.clone();
            let of_replicas = |world: &World, map: &PlacementMap| {
                world.whole(|partition, node| map.replicas[&partition].contains(&node) && Some(node) != lost)
            };
            // A loss may take the replica while the source of its move still has all.
            let whole = match lost {
                Some(lost) if world.living.len() > 1 => world.whole(|partition, node| {
                    let is_copy = before.moves.get(&partition).is_some_and(|step| step.phase == Phase::Copying && step.to == node);
                    node != lost && !is_copy
                }),
                _ => of_replicas(&world, &before),
            };
            world.apply(op.clone());
            let after = of_replicas(&world, &world.map);
            prop_assert!(after.is_superset(&whole), "{op:?}: {before:?} to {:?}", world.map);
            for (partition, nodes) in &world.map.replicas {
                let distinct: BTreeSet<_> = nodes.iter().collect();
                prop_assert_eq!(distinct.len(), nodes.len(), "{:?}", partition);
            }
        }
        world.apply(Op::Round { failed: BTreeSet::new(), over: BTreeSet::new() });
        for (partition, nodes) in &world.map.replicas {
            let is_lost = |node: &NodeId| !world.living.contains(node);
            let has_all = |node: &NodeId| world.full.contains(&(*partition, *node));
            let can_change = !world.living.is_subset(&world.map.draining);
            prop_assert!(!can_change || !nodes.iter().any(is_lost) || !nodes.iter().any(has_all), "{:?}", world.map);
        }
        world.living = (1..=NODES).map(NodeId).collect();
        for _ in 0..3 * PARTITIONS + 1 {
            for (partition, node) in (0..PARTITIONS).flat_map(|partition| (1..=NODES).map(move |node| (partition, node))) {
                world.apply(Op::CatchUp { partition, node });
            }
            world.apply(Op::Round { failed: BTreeSet::new(), over: (0..PARTITIONS).collect() });
        }
        prop_assert!(world.map.moves.is_empty(), "{:?}", world.map);
    }
}

/// Goal: a move goes through its phases and ends where it was to; until the switch it can be given up without a trace, then no
/// more; what cannot be moved is refused by name.
#[test]
fn a_move_takes_its_steps() {
    let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
    let partition = PartitionId(0);
    let start = PlacementMap { version: 4, replicas: [(partition, vec![one, two])].into(), ..PlacementMap::default() };
    let step = |from, to| Move { partition, from, to, bytes: 9, reason: MoveReason::Drain };
    let moving = start.with_move(&step(one, three)).unwrap();
    assert_eq!(moving.with_move(&step(one, three)), Err(Refused::UnderWay));
    assert_eq!(start.with_move(&step(three, one)), Err(Refused::NotThere));
    assert_eq!(start.with_move(&step(one, two)), Err(Refused::HeldAlready));
    assert_eq!(start.with_draining(three, true).with_move(&step(one, three)), Err(Refused::Draining));
    assert_eq!(start.without_move(partition), Err(Refused::NoMove));
    assert_eq!(moving.without_move(partition).unwrap(), PlacementMap { version: 6, ..start.clone() });

    let living = BTreeSet::from([one, two, three]);
    let all = BTreeSet::from([partition]);
    let (copying, _) = moving.advanced(&living, &Seen::default(), PACE);
    let held = |map: &PlacementMap| [one, two, three].map(|node| map.holds(node, partition));
    assert_eq!((copying.moves[&partition].phase, held(&copying)), (Phase::Copying, [true; 3]));
    assert_eq!(copying.replicas, start.replicas);
    let seen = Seen { verified: all.clone(), ..Seen::default() };
    let (leaving, ended) = copying.advanced(&living, &seen, PACE);
    assert_eq!((leaving.replicas[&partition].clone(), held(&leaving)), (vec![three, two], [true; 3]));
    assert_eq!((ended[0].outcome, leaving.without_move(partition)), (Outcome::Switched, Err(Refused::Switched)));
    let (over, ended) = leaving.advanced(&living, &Seen { over: all, ..Seen::default() }, PACE);
    assert_eq!((ended[0].outcome, held(&over), over.version), (Outcome::Done, [false, true, true], 8));
    assert_eq!(over.advanced(&living, &seen, PACE), (over.clone(), Vec::new()));
}
