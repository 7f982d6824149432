//! Small moves from busy nodes to idle ones, within a budget.

use std::{collections::BTreeMap, fmt};

use types::{NodeId, PartitionId};

use crate::assign::{Node, Zone};

/// Loads within this of the mean count as even: moving for less costs more than it gains.
pub const BALANCE_TOLERANCE_PERCENT: u64 = 10;

/// What one partition costs the node that holds its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLoad {
    /// The partition.
    pub partition: PartitionId,
    /// Where the replica is.
    pub node: NodeId,
    /// Accounted bytes: what a move copies.
    pub bytes: u64,
    /// What is evened out: the share of the work that it makes; see [`weigh`](crate::weigh).
    pub weight: u64,
}

/// How much one plan may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Moves at most.
    pub moves_max: usize,
    /// Bytes copied at most.
    pub bytes_max: u64,
}

/// Why a replica moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveReason {
    /// Its node is not among those that may hold partitions.
    NodeGone,
    /// Its node carries more than its share.
    EvenOut,
    /// Its node is being emptied.
    Drain,
    /// Somebody asked for this one.
    Request,
}

impl MoveReason {
    /// Its name in what is stored and sent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeGone => "node_gone",
            Self::EvenOut => "even_out",
            Self::Drain => "drain",
            Self::Request => "request",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::NodeGone, Self::EvenOut, Self::Drain, Self::Request].into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for MoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeGone => "its node has left",
            Self::EvenOut => "its node carries more than its share",
            Self::Drain => "its node is being emptied",
            Self::Request => "it was asked for",
        })
    }
}

/// One replica on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Where its replica is.
    pub from: NodeId,
    /// Where it is to be.
    pub to: NodeId,
    /// Bytes to copy.
    pub bytes: u64,
    /// Why.
    pub reason: MoveReason,
}

/// Why a plan is as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanReason {
    /// There is no node to move anything to.
    NoNode,
    /// One node holds all there is.
    SingleNode,
    /// Every node is within the tolerance of the mean, or no single move brings it nearer.
    Balanced,
    /// These moves even the loads out.
    Moves,
    /// More would be moved, but the budget ends here.
    BudgetSpent,
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode => f.write_str("no node is there to hold partitions"),
            Self::SingleNode => f.write_str("there is one node, so there is nowhere to move to"),
            Self::Balanced => {
                write!(f, "no move would bring a node nearer than {BALANCE_TOLERANCE_PERCENT} % to the mean")
            }
            Self::Moves => f.write_str("these moves even out the load"),
            Self::BudgetSpent => f.write_str("more is to be moved, but the budget of one plan ends here"),
        }
    }
}

/// Moves, and why there are not more or fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The moves, in the order in which they are to be made.
    pub moves: Vec<Move>,
    /// Why.
    pub reason: PlanReason,
}

impl Plan {
    /// Bytes that all moves copy.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|step| step.bytes).fold(0, u64::saturating_add)
    }
}

/// Plans moves: first off nodes that are not in `nodes`, then from the busiest node to the idlest while that brings both nearer
/// to the mean. No move puts two replicas on one node, or more into one zone than lay together before. Pure: the same input gives
/// the same plan, whatever the order of `loads` and `nodes`.
#[must_use]
pub fn plan_moves(loads: &[PartitionLoad], nodes: &[Node], budget: Budget) -> Plan {
    let mut state = State::new(loads, nodes);
    if state.totals.is_empty() {
        return Plan { moves: Vec::new(), reason: PlanReason::NoNode };
    }
    let mut moves: Vec<Move> = Vec::new();
    let mut bytes_left = budget.bytes_max;
    // A replica moves once at most: from a node that left to the idlest, or from the busiest to the idlest.
    while let Some(step) = state.next_move(&moves) {
        if moves.len() == budget.moves_max || step.bytes > bytes_left {
            return Plan { moves, reason: PlanReason::BudgetSpent };
        }
        bytes_left -= step.bytes;
        state.apply(&step);
        moves.push(step);
    }
    let reason = match (moves.is_empty(), state.totals.len()) {
        (false, _) => PlanReason::Moves,
        (true, 1) => PlanReason::SingleNode,
        (true, _) => PlanReason::Balanced,
    };
    Plan { moves, reason }
}

struct State<'a> {
    zones: BTreeMap<NodeId, Zone<'a>>,
    /// Replicas by where they are.
    replicas: BTreeMap<(PartitionId, NodeId), Carried>,
    /// The weight of each node that may hold partitions.
    totals: BTreeMap<NodeId, u64>,
}

/// What a replica costs its node, and a move of it.
#[derive(Clone, Copy)]
struct Carried {
    bytes: u64,
    weight: u64,
}

impl<'a> State<'a> {
    fn new(loads: &[PartitionLoad], nodes: &'a [Node]) -> Self {
        let mut totals: BTreeMap<NodeId, u64> = nodes.iter().map(|node| (node.id, 0)).collect();
        let mut replicas = BTreeMap::new();
        for load in loads {
            replicas.insert((load.partition, load.node), Carried { bytes: load.bytes, weight: load.weight });
        }
        for (&(_, node), carried) in &replicas {
            if let Some(total) = totals.get_mut(&node) {
                *total = total.saturating_add(carried.weight);
            }
        }
        Self { zones: nodes.iter().map(|node| (node.id, Zone::of(node))).collect(), replicas, totals }
    }

    fn next_move(&self, made: &[Move]) -> Option<Move> {
        self.move_off_gone().or_else(|| self.move_to_even_out(made))
    }

    fn move_off_gone(&self) -> Option<Move> {
        self.replicas.iter().filter(|((_, node), _)| !self.totals.contains_key(node)).find_map(
            |(&(partition, from), &Carried { bytes, .. })| {
                let to = self.idlest_for(partition, from)?;
                Some(Move { partition, from, to, bytes, reason: MoveReason::NodeGone })
            },
        )
    }

    /// The move that leaves the lower peak of the two nodes; of equals the smaller partition number.
    fn move_to_even_out(&self, made: &[Move]) -> Option<Move> {
        let (&from, &peak) = self.totals.iter().max_by_key(|&(&node, &weight)| (weight, std::cmp::Reverse(node)))?;
        if !self.beyond_tolerance(peak) {
            return None;
        }
        self.replicas
            .iter()
            .filter(|((partition, node), carried)| {
                *node == from && carried.weight > 0 && made.iter().all(|step| step.partition != *partition)
            })
            .filter_map(|(&(partition, _), &Carried { bytes, weight })| {
                let to = self.idlest_for(partition, from)?;
                let peak_after = (peak - weight).max(self.totals[&to].saturating_add(weight));
                (peak_after < peak)
                    .then_some((peak_after, Move { partition, from, to, bytes, reason: MoveReason::EvenOut }))
            })
            .min_by_key(|(peak_after, step)| (*peak_after, step.partition))
            .map(|(_, step)| step)
    }

    fn beyond_tolerance(&self, peak: u64) -> bool {
        let sum: u128 = self.totals.values().map(|&weight| u128::from(weight)).sum();
        let mean_times_100 = sum * 100 / self.totals.len() as u128;
        u128::from(peak) * 100 > mean_times_100 + mean_times_100 * u128::from(BALANCE_TOLERANCE_PERCENT) / 100
    }

    /// The idlest node that may take the replica of a partition from `from`.
    fn idlest_for(&self, partition: PartitionId, from: NodeId) -> Option<NodeId> {
        let free = || self.totals.iter().filter(|&(&node, _)| !self.replicas.contains_key(&(partition, node)));
        // Off a node that has gone, the best that there is; else no worse than it is.
        let zone_use_max = match self.zones.contains_key(&from) {
            true => self.zone_use(partition, from, from),
            false => free().map(|(&node, _)| self.zone_use(partition, node, from)).min()?,
        };
        free()
            .filter(|&(&node, _)| self.zone_use(partition, node, from) <= zone_use_max)
            .min_by_key(|&(&node, &weight)| (weight, node))
            .map(|(&node, _)| node)
    }

    /// How many replicas of the partition, the one on `but` apart, lie in the zone of `node`.
    fn zone_use(&self, partition: PartitionId, node: NodeId, but: NodeId) -> usize {
        let here = self.zones.get(&node);
        self.replicas
            .range((partition, NodeId(0))..=(partition, NodeId(u64::MAX)))
            .filter(|((_, holder), _)| *holder != but && here.is_some() && self.zones.get(holder) == here)
            .count()
    }

    fn apply(&mut self, step: &Move) {
        let carried = self.replicas.remove(&(step.partition, step.from)).expect("a move is of a replica that is there");
        self.replicas.insert((step.partition, step.to), carried);
        if let Some(total) = self.totals.get_mut(&step.from) {
            *total = total.saturating_sub(carried.weight);
        }
        if let Some(total) = self.totals.get_mut(&step.to) {
            *total = total.saturating_add(carried.weight);
        }
    }
}
