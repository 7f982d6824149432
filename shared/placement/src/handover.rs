//! A live move, step by step: what a node holds goes to another one while both answer.
//!
//! A move is part of the placement map, so it is as durable as the map, and whoever makes the map goes on with it.
//! 1. *Waiting*: it is planned, and nothing happens yet.
//! 2. *Copying*: `to` holds the partition as well: it takes a checkpoint from another holder and follows the log. Nobody asks it,
//!    for it is no replica. Up to here a move can be given up, and nothing has changed.
//! 3. *Leaving*: `to` was seen to hold what `from` holds, and has taken its place among the replicas. `from` holds the partition
//!    on, for those who go by an older map.
//! 4. Then the move is over, and `from` lets go.
//!
//! A partition never loses a replica that has all to one that may not: `to` becomes a replica where it was seen to have all, or
//! where `from` is lost, beside which it stands then until somebody who lives has all ([`repair`](crate::repair)); and while `from`
//! still has all, it takes its place back if `to` is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use types::{NodeId, PartitionId};

use crate::{Move, MoveReason, PlacementMap};

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It begins when there is room for it.
    Waiting,
    /// Its target reads what its source has, and is asked by nobody.
    Copying,
    /// Its target is a replica, and its source still holds the partition.
    Leaving,
}

impl Phase {
    /// Its name in what is stored and sent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Copying => "copying",
            Self::Leaving => "leaving",
        }
    }

    /// The phase of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Waiting, Self::Copying, Self::Leaving].into_iter().find(|phase| phase.name() == name)
    }
}

/// A replica on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// Where it is.
    pub from: NodeId,
    /// Where it is to be.
    pub to: NodeId,
    /// How far it is.
    pub phase: Phase,
    /// Bytes to copy, as they were planned.
    pub bytes: u64,
    /// Why.
    pub reason: MoveReason,
}

/// Why a move is not made, or not given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The map has no such partition.
    NoPartition,
    /// Another move of the partition is under way.
    UnderWay,
    /// The source is no replica of it.
    NotThere,
    /// The target holds it already.
    HeldAlready,
    /// The target is being emptied.
    Draining,
    /// There is no move of the partition.
    NoMove,
    /// Its target is a replica by now: to go back is another move.
    Switched,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPartition => "there is no such partition",
            Self::UnderWay => "the partition is being moved",
            Self::NotThere => "the source holds no replica of the partition",
            Self::HeldAlready => "the target holds the partition already",
            Self::Draining => "the target is being emptied",
            Self::NoMove => "no move of the partition is under way",
            Self::Switched => "the target has taken over; to go back is another move",
        })
    }
}

/// What was seen of the moves of one map.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Targets that hold what their sources hold.
    pub verified: BTreeSet<PartitionId>,
    /// Moves that take too long, or whose target holds something else.
    pub failed: BTreeSet<PartitionId>,
    /// Moves of which nobody goes by the older map any more.
    pub over: BTreeSet<PartitionId>,
}

/// How many moves may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Copied at a time, of all nodes.
    pub copies_max: usize,
    /// Copied at a time from or to one node.
    pub copies_per_node_max: usize,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target took over; its source lets go later.
    Switched,
    /// The source has let go.
    Done,
    /// It was given up: it took too long, or the target held something else.
    Failed,
    /// The target was lost; where it had taken over already, the source is back in its place.
    TargetLost,
    /// The source was lost; where the target had begun to copy, it is a replica now.
    SourceLost,
}

impl Outcome {
    /// Its name in metrics and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switched => "switched",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TargetLost => "target_lost",
            Self::SourceLost => "source_lost",
        }
    }
}

/// A move that took a step which somebody may want to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Of which partition.
    pub partition: PartitionId,
    /// The move as it was before.
    pub step: Handover,
    /// What became of it.
    pub outcome: Outcome,
}

impl PlacementMap {
    /// Whether a node holds a partition: as a replica, or as the source or target of a move.
    #[must_use]
    pub fn holds(&self, node: NodeId, partition: PartitionId) -> bool {
        self.is_replica(node, partition)
            || self.moves.get(&partition).is_some_and(|step| match step.phase {
                Phase::Waiting => false,
                Phase::Copying => step.to == node,
                Phase::Leaving => step.from == node,
            })
    }

    /// Whether a node answers for a partition.
    #[must_use]
    pub fn is_replica(&self, node: NodeId, partition: PartitionId) -> bool {
        self.replicas.get(&partition).is_some_and(|nodes| nodes.contains(&node))
    }

    /// The partitions that a node holds.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> BTreeSet<PartitionId> {
        self.replicas.keys().copied().filter(|&partition| self.holds(node, partition)).collect()
    }

    /// The map with one more move, of a higher version.
    ///
    /// # Errors
    /// Why that move cannot be made.
    pub fn with_move(&self, step: &Move) -> Result<Self, Refused> {
        let replicas = self.replicas.get(&step.partition).ok_or(Refused::NoPartition)?;
        let refused = [
            (self.moves.contains_key(&step.partition), Refused::UnderWay),
            (!replicas.contains(&step.from), Refused::NotThere),
            (replicas.contains(&step.to), Refused::HeldAlready),
            (self.draining.contains(&step.to), Refused::Draining),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(is_so, _)| *is_so) {
            return Err(why);
        }
        let Move { partition, from, to, bytes, reason } = *step;
        let mut next = self.clone();
        next.version += 1;
        next.moves.insert(partition, Handover { from, to, phase: Phase::Waiting, bytes, reason });
        Ok(next)
    }

    /// The map without the move of a partition, of a higher version.
    ///
    /// # Errors
    /// There is none, or it cannot be given up any more.
    pub fn without_move(&self, partition: PartitionId) -> Result<Self, Refused> {
        match self.moves.get(&partition).map(|step| step.phase) {
            None => Err(Refused::NoMove),
            Some(Phase::Leaving) => Err(Refused::Switched),
            Some(Phase::Waiting | Phase::Copying) => {
                let mut next = self.clone();
                next.version += 1;
                next.moves.remove(&partition);
                Ok(next)
            }
        }
    }

    /// The map in which a node is being emptied, or is not any more; the same version where that is so already.
    #[must_use]
    pub fn with_draining(&self, node: NodeId, drains: bool) -> Self {
        let mut next = self.clone();
        let changed = if drains { next.draining.insert(node) } else { next.draining.remove(&node) };
        next.version += u64::from(changed);
        next
    }

    /// The next steps of all moves, and what became of those that took one; the same version where there is none. `keeping`: the
    /// nodes that are not lost.
    #[must_use]
    pub fn advanced(&self, keeping: &BTreeSet<NodeId>, seen: &Seen, pace: Pace) -> (Self, Vec<Ended>) {
        let (mut next, mut ended) = (self.clone(), Vec::new());
        for (&partition, &step) in &self.moves {
            let lives = (keeping.contains(&step.from), keeping.contains(&step.to));
            let outcome = match (step.phase, lives) {
                (_, (_, false)) => Some(Outcome::TargetLost),
                (_, (false, true)) => Some(Outcome::SourceLost),
                (Phase::Waiting | Phase::Copying, _) if seen.failed.contains(&partition) => Some(Outcome::Failed),
                (Phase::Copying, _) if seen.verified.contains(&partition) => Some(Outcome::Switched),
                (Phase::Leaving, _) if seen.over.contains(&partition) => Some(Outcome::Done),
                _ => None,
            };
            if let Some(outcome) = outcome {
                next.end(partition, step, outcome, lives.0);
                ended.push(Ended { partition, step, outcome });
            }
        }
        let begun = next.begin(pace);
        next.version += u64::from(begun || !ended.is_empty());
        (next, ended)
    }

    /// Makes of a move what became of it.
    fn end(&mut self, partition: PartitionId, step: Handover, outcome: Outcome, source_lives: bool) {
        match (outcome, step.phase) {
            // A target that became a replica in another way meanwhile takes nobody's place.
            (Outcome::Switched, _) if !self.is_replica(step.to, partition) => {
                self.replace(partition, step.from, step.to);
                self.moves.insert(partition, Handover { phase: Phase::Leaving, ..step });
                return;
            }
            (Outcome::TargetLost, Phase::Leaving) if source_lives => self.replace(partition, step.to, step.from),
            (Outcome::SourceLost, Phase::Copying) => self.put_beside(partition, step.from, step.to),
            _ => {}
        }
        self.moves.remove(&partition);
    }

    /// Puts a node in the place of another; one that is there already takes no second place.
    fn replace(&mut self, partition: PartitionId, node: NodeId, by: NodeId) {
        let replicas = self.replicas.entry(partition).or_default();
        if replicas.contains(&by) {
            return;
        }
        if let Some(place) = replicas.iter_mut().find(|holder| **holder == node) {
            *place = by;
        }
    }

    /// Puts a node beside another, which it replaces once that has left the map: who is lost leaves it when another was seen to
    /// have all.
    fn put_beside(&mut self, partition: PartitionId, node: NodeId, by: NodeId) {
        let replicas = self.replicas.entry(partition).or_default();
        if replicas.contains(&by) {
            return;
        }
        if let Some(place) = replicas.iter().position(|holder| *holder == node) {
            replicas.insert(place + 1, by);
        }
    }

    /// Begins with moves that wait, as far as the pace allows; whether there was one.
    fn begin(&mut self, pace: Pace) -> bool {
        let (mut copies, mut of_nodes) = (0, BTreeMap::<NodeId, usize>::new());
        let copying = self.moves.values().filter(|step| step.phase == Phase::Copying);
        for step in copying {
            copies += 1;
            [step.from, step.to].into_iter().for_each(|node| *of_nodes.entry(node).or_default() += 1);
        }
        let before = copies;
        for step in self.moves.values_mut().filter(|step| step.phase == Phase::Waiting) {
            let ends = [step.from, step.to];
            let has_room = |node: &NodeId| of_nodes.get(node).is_none_or(|of_node| *of_node < pace.copies_per_node_max);
            if copies < pace.copies_max && ends.iter().all(has_room) {
                step.phase = Phase::Copying;
                copies += 1;
                ends.into_iter().for_each(|node| *of_nodes.entry(node).or_default() += 1);
            }
        }
        copies > before
    }
}
