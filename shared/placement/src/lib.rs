//! Placement of partitions and planning of moves, as functions from state to plan.
//!
//! 1. Everything here is a pure function: the same input gives the same answer, on any machine and in any version.
//! 2. What is placed stays where it is unless a rule makes it move: a node that joins or leaves moves the fewest replicas.
//! 3. No node holds more than its even share (rounded up) of the replicas where zones leave the choice.
//! 4. Replicas of one partition lie on different nodes, and in different zones where there are enough of them.

mod assign;
mod handover;
mod load;
mod moves;
mod repair;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use types::{NodeId, PartitionId};

pub use assign::{Node, place};
pub use handover::{Ended, Handover, Outcome, Pace, Phase, Refused, Seen};
pub use load::{PartitionWork, weigh};
pub use moves::{BALANCE_TOLERANCE_PERCENT, Budget, Move, MoveReason, PartitionLoad, Plan, PlanReason, plan_moves};
pub use repair::repair;
pub use tables::partitions_of_table;

/// Which nodes hold which partitions, at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacementMap {
    /// Rises by one with each change.
    pub version: u64,
    /// For each partition the nodes that hold it, the primary first.
    pub replicas: BTreeMap<PartitionId, Vec<NodeId>>,
    /// Replicas on their way from one node to another; see [`Handover`].
    pub moves: BTreeMap<PartitionId, Handover>,
    /// Nodes that are to hold nothing: they take no partition, and theirs move away.
    pub draining: BTreeSet<NodeId>,
}
