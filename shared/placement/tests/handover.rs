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
    /// A node falls silent; what it has lies on its disk.
    Lose {
        node: u64,
    },
    /// A node is lost with its disk.
    Wreck {
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
        1 => node.clone().prop_map(|node| Op::Wreck { node }),
        3 => node.clone().prop_map(|node| Op::Return { node }),
        1 => (node, any::<bool>()).prop_map(|(node, drains)| Op::Drain { node, drains }),
        1 => Just(Op::Read),
        1 => Just(Op::Late),
    ]
}

struct World {
    map: PlacementMap,
    living: BTreeSet<NodeId>,
    /// Who has all of a partition, be it on the disk of a node that is lost.
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
        let nodes: Vec<Node> = self.living.iter().map(|&id| Node { id, zone: None }).collect();
        let takers: Vec<Node> = nodes.iter().filter(|node| !map.draining.contains(&node.id)).cloned().collect();
        if takers.is_empty() {
            return map.clone();
        }
        let alike = |(partition, step): (&PartitionId, &Handover)| {
            let both = [step.from, step.to].iter().all(|node| self.shows_all(*partition, *node));
            (both && step.phase == Phase::Copying).then_some(*partition)
        };
        let verified = map.moves.iter().filter_map(alike).collect();
        let seen = Seen { verified, failed: Self::numbers(failed), over: Self::numbers(over) };
        let (next, ended) = map.advanced(&self.living, &seen, PACE);
        assert_eq!(next.version, map.version + u64::from(next != *map), "{ended:?}");
        let replicas = next.replicas.iter().flat_map(|(&of, nodes)| nodes.iter().map(move |&node| (of, node)));
        // Of the lost nothing is seen.
        let lacks = |&(of, node): &(PartitionId, NodeId)| self.living.contains(&node) && !self.shows_all(of, node);
        let unproven = replicas.filter(lacks).collect();
        repair(&next, PARTITIONS, REPLICAS, &nodes, &takers, &unproven)
    }

    /// Stores a map made from one of version `from`, as metadata does it.
    fn store(&mut self, next: PlacementMap, from: u64) {
        if next.version == from || self.map.version != from {
            return;
        }
        assert!(next.version > from);
        self.map = next;
        self.let_go();
    }

    /// Who lives and does not hold a partition any more lets go of it.
    fn let_go(&mut self) {
        let Self { map, living, full, .. } = self;
        full.retain(|(partition, node)| !living.contains(node) || map.holds(*node, *partition));
    }

    /// Whether a node lives and has all of a partition.
    fn shows_all(&self, partition: PartitionId, node: NodeId) -> bool {
        self.living.contains(&node) && self.full.contains(&(partition, node))
    }

    /// The partitions of which a node that is meant has all.
    fn whole(&self, is_meant: impl Fn(PartitionId, NodeId) -> bool) -> BTreeSet<PartitionId> {
        let meant = self.full.iter().filter(|(partition, node)| is_meant(*partition, *node));
        meant.map(|(partition, _)| *partition).collect()
    }

    /// Whether a node can get all of a partition: the log let go of its begin, so from one that lives and has it, or, where
    /// nobody has it any more, what is left is all.
    fn can_catch_up(&self, partition: PartitionId) -> bool {
        let mut having = self.full.iter().filter(|(of, node)| *of == partition && self.map.holds(*node, partition));
        let is_left = having.clone().next().is_some();
        !is_left || having.any(|(_, node)| self.living.contains(node))
    }

    /// A round in which nothing fails and nothing is over.
    fn look(&mut self) {
        self.store(self.next(&self.map, &BTreeSet::new(), &BTreeSet::new()), self.map.version);
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
                if self.living.contains(&node) && map.holds(node, partition) && self.can_catch_up(partition) {
                    self.full.insert((partition, node));
                }
            }
            Op::Round { failed, over } => self.store(self.next(&map, &failed, &over), version),
            Op::Lose { node } => {
                self.living.remove(&NodeId(node));
                self.look();
            }
            Op::Wreck { node } => {
                self.living.remove(&NodeId(node));
                self.full.retain(|(_, holder)| holder.0 != node);
                self.look();
            }
            Op::Return { node } => {
                self.living.insert(NodeId(node));
                self.let_go();
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

    /// Goal: whatever is moved, lost, aborted and read too late: a partition that a replica shows all of goes on to have one, unless
    /// that is lost; who has all of a partition, be it on the disk of a node that is lost, never leaves the map while nobody else has;
    /// no node stands twice in a partition; and left alone, all moves end.
    #[test]
    fn no_step_loses_the_last_whole_replica(history in prop::collection::vec(op(), 0..60)) {
        let mut world = World::new();
        for op in history {
            let (lost, wrecked) = match op {
                Op::Lose { node } => (Some(NodeId(node)), None),
                Op::Wreck { node } => (Some(NodeId(node)), Some(NodeId(node))),
                _ => (None, None),
            };
            let before = world.map.clone();
            let is_copy = |partition, node| {
                before.moves.get(&partition).is_some_and(|step| step.phase == Phase::Copying && step.to == node)
            };
            // A loss may take the replica while the source of its move still shows all.
            let shown = world.whole(|partition, node| {
                let answers = before.is_replica(node, partition);
                let stays = Some(node) != lost && before.holds(node, partition) && !is_copy(partition, node);
                world.living.contains(&node) && if lost.is_some() { stays } else { answers }
            });
            // What is only copied is given up with its move.
            let kept = world.whole(|partition, node| {
                before.holds(node, partition) && Some(node) != wrecked && !is_copy(partition, node)
            });
            world.apply(op.clone());
            let answers = |partition, node| world.living.contains(&node) && world.map.is_replica(node, partition);
            let can_change = !world.living.is_subset(&world.map.draining);
            prop_assert!(!can_change || world.whole(answers).is_superset(&shown), "{op:?}: {before:?} to {:?}", world.map);
            let left = world.whole(|partition, node| world.map.holds(node, partition));
            prop_assert!(left.is_superset(&kept), "{op:?}: {before:?} to {:?}", world.map);
            for (partition, nodes) in &world.map.replicas {
                let distinct: BTreeSet<_> = nodes.iter().collect();
                prop_assert_eq!(distinct.len(), nodes.len(), "{:?}", partition);
            }
            for (&partition, step) in &world.map.moves {
                // A source may be a replica again, in the place of another that was lost.
                let has_a_place = if step.phase == Phase::Leaving { step.to } else { step.from };
                prop_assert!(world.map.is_replica(has_a_place, partition), "{:?}", world.map);
            }
        }
        world.apply(Op::Round { failed: BTreeSet::new(), over: BTreeSet::new() });
        check_repaired(&world)?;
        (1..=NODES).for_each(|node| world.apply(Op::Return { node }));
        world.map.draining.clear();
        for _ in 0..3 * PARTITIONS + 1 {
            for (partition, node) in (0..PARTITIONS).flat_map(|partition| (1..=NODES).map(move |node| (partition, node))) {
                world.apply(Op::CatchUp { partition, node });
            }
            world.apply(Op::Round { failed: BTreeSet::new(), over: (0..PARTITIONS).collect() });
        }
        prop_assert!(world.map.moves.is_empty(), "{:?}", world.map);
        check_repaired(&world)?;
    }
}

/// After a round: there are as many replicas as there can be; who is lost, and who lacks something beyond that number, is in the map
/// only while nobody who lives has all.
fn check_repaired(world: &World) -> Result<(), TestCaseError> {
    let takers = world.living.difference(&world.map.draining).count();
    for (partition, nodes) in world.map.replicas.iter().filter(|_| takers > 0) {
        let living = nodes.iter().filter(|node| world.living.contains(node)).count();
        prop_assert!(living >= REPLICAS.min(takers), "{:?}", world.map);
        if nodes.iter().any(|node| world.shows_all(*partition, *node)) {
            let having = nodes.iter().filter(|node| world.shows_all(*partition, **node)).count();
            prop_assert_eq!(living, nodes.len(), "{:?}", world.map);
            let enough = world.map.moves.contains_key(partition) || living <= REPLICAS.max(having);
            prop_assert!(enough, "{:?}", world.map);
        }
    }
    Ok(())
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

/// Goal: a move ends with the loss of one of its nodes, in each phase: who has all stays in the map, the target of a copy that
/// lost its source is a replica beside it, and a source that still has all is back in the place of a target that is lost.
#[test]
fn losses_end_moves() {
    let (from, to, other) = (NodeId(1), NodeId(2), NodeId(3));
    let partition = PartitionId(0);
    let replicas = |phase| if phase == Phase::Leaving { vec![to, other] } else { vec![from, other] };
    let moving = |phase, replicas: Vec<NodeId>| PlacementMap {
        version: 7,
        replicas: [(partition, replicas)].into(),
        moves: [(partition, Handover { from, to, phase, bytes: 0, reason: MoveReason::Request })].into(),
        draining: BTreeSet::new(),
    };
    let losses = [
        (Phase::Waiting, vec![to, other], vec![from, other], Outcome::SourceLost),
        (Phase::Waiting, vec![from, other], vec![from, other], Outcome::TargetLost),
        (Phase::Copying, vec![to, other], vec![from, to, other], Outcome::SourceLost),
        (Phase::Copying, vec![from, other], vec![from, other], Outcome::TargetLost),
        (Phase::Copying, vec![other], vec![from, other], Outcome::TargetLost),
        (Phase::Leaving, vec![to, other], vec![to, other], Outcome::SourceLost),
        (Phase::Leaving, vec![from, other], vec![from, other], Outcome::TargetLost),
        (Phase::Leaving, vec![other], vec![to, other], Outcome::TargetLost),
    ];
    for (phase, living, after, outcome) in losses {
        let (map, ended) =
            moving(phase, replicas(phase)).advanced(&living.iter().copied().collect(), &Seen::default(), PACE);
        assert_eq!((&map.replicas[&partition], map.moves.len()), (&after, 0), "{phase:?} {living:?}");
        assert_eq!((map.version, ended[0].outcome), (8, outcome), "{phase:?} {living:?}");
    }

    let (living, all) = ([from, to, other].into(), BTreeSet::from([partition]));
    let leaving = moving(Phase::Leaving, replicas(Phase::Leaving));
    let failed = Seen { failed: all.clone(), ..Seen::default() };
    assert_eq!(leaving.advanced(&living, &failed, PACE), (leaving.clone(), Vec::new()), "it is too late to fail");
    let taken = moving(Phase::Copying, vec![from, to]);
    let (over, _) = taken.advanced(&living, &Seen { verified: all, ..Seen::default() }, PACE);
    assert_eq!(
        (&over.replicas, over.moves.len()),
        (&taken.replicas, 0),
        "the target took the place of one that was lost"
    );
}

/// Goal: a replica that moves is not taken from its node while there are more than are wanted, though it is not known to hold all.
#[test]
fn what_moves_keeps_its_source() {
    let partition = PartitionId(0);
    let nodes: Vec<Node> = (1..=4).map(|id| Node { id: NodeId(id), zone: None }).collect();
    let replicas = [(partition, [1, 2, 3].map(NodeId).to_vec())].into();
    let map = PlacementMap { version: 7, replicas, ..PlacementMap::default() };
    let unproven = BTreeSet::from([(partition, NodeId(3))]);
    let repaired = repair(&map, 1, 2, &nodes, &nodes, &unproven);
    assert_eq!((repaired.version, &*repaired.replicas[&partition]), (8, &[1, 2].map(NodeId)[..]));
    let step = Move { partition, from: NodeId(3), to: NodeId(4), bytes: 0, reason: MoveReason::Request };
    let moving = map.with_move(&step).unwrap();
    assert_eq!(repair(&moving, 1, 2, &nodes, &nodes, &unproven), moving);
}
