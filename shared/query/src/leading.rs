//! The groups that lead: where an answer wants the first few groups by a count, partitions hand on those that lead there.
//!
//! 1. A partition counts every group and hands on the most frequent ones, with the count of the next one, its *floor*: a
//!    group that it does not name stood there at most that often (as in the threshold algorithm of Fagin, Lotem and Naor
//!    2001).
//! 2. A group is complete if every partition that left any out named it. The first groups by what is known are the first
//!    ones if all of them are complete and no other group can reach the last of them.
//! 3. Where that cannot be shown the plan is run once more, at the same offsets, and nothing is left out. So an answer is the
//!    same either way.

use std::cmp::Reverse;

use crate::{
    cells::Cell,
    groups::Groups,
    plan::{OrderKey, Output, RowColumn, Value},
    state::State,
};

/// How groups lead, and how many of them a partition hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leading {
    pub(crate) by: LeadBy,
    pub(crate) kept: usize,
}

/// By what groups lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadBy {
    Rows,
    /// The count of the cell of that index.
    Cell(usize),
}

impl LeadBy {
    /// The index of the cell that counts.
    pub(crate) fn cell(self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Cell(cell) => Some(cell),
        }
    }
}

impl Leading {
    /// How the groups of a plan with this order and limit lead, of which partitions may hand on `kept`; `None` where more of
    /// them are wanted.
    pub(crate) fn of(
        cells: &[Cell],
        outputs: &[Output],
        order: &[OrderKey],
        limit: usize,
        kept: usize,
    ) -> Option<Self> {
        let OrderKey { column: RowColumn::Output(first), descending: true } = *order.first()? else { return None };
        // A selection would look for all values of all groups.
        if limit == 0 || limit > kept || !cells.iter().all(Cell::is_plain) {
            return None;
        }
        let by = match outputs[first].value {
            Value::Rows => LeadBy::Rows,
            Value::Present(cell) => LeadBy::Cell(cell),
            _ => return None,
        };
        Some(Self { by, kept })
    }

    /// The counts of groups with these rows and states.
    fn counts<'a>(self, rows: &'a [u64], states: &'a [State]) -> &'a [u64] {
        match self.by {
            LeadBy::Rows => rows,
            LeadBy::Cell(cell) => match &states[cell] {
                State::Count(counts) | State::Sum { counts, .. } => counts,
                _ => unreachable!("the planner chose a cell that counts"),
            },
        }
    }

    /// Which groups a partition hands on, ascending, and the greatest count of the others, if there are others. A place
    /// without rows is no group.
    pub(crate) fn choose(self, rows: &[u64], states: &[State]) -> (Vec<u32>, Option<u64>) {
        let counts = self.counts(rows, states);
        // One more than stays, so that its count is known.
        let least = least_of(counts, self.kept.saturating_add(1));
        let groups = (0..).zip(rows).zip(counts).filter(|((_, rows), count)| **rows > 0 && **count >= least);
        let mut chosen: Vec<u32> = groups.map(|((group, _), _)| group).collect();
        if chosen.len() <= self.kept {
            return (chosen, None);
        }
        let rank = |&group: &u32| (Reverse(counts[group as usize]), group);
        let (_, _, rest) = chosen.select_nth_unstable_by_key(self.kept - 1, rank);
        let floor = rest.iter().map(|&group| counts[group as usize]).max();
        chosen.truncate(self.kept);
        chosen.sort_unstable();
        (chosen, floor)
    }

    /// Whether the first `limit` groups of those that were named are surely the first of all, with all that they have.
    pub(crate) fn is_settled(self, groups: &Groups, named: &Named, limit: usize) -> bool {
        if named.cuts == 0 {
            return true;
        }
        let counts = self.counts(&groups.rows, &groups.states);
        if counts.len() <= limit {
            return false;
        }
        let mut ranked = counts.to_vec();
        let (_, &mut last, _) = ranked.select_nth_unstable_by_key(limit - 1, |&count| Reverse(count));
        let settled =
            |(&count, by): (&u64, &NamedBy)| by.cuts == named.cuts || count + (named.floors - by.floors) < last;
        named.floors < last && counts.iter().zip(&named.groups).all(settled)
    }
}

/// A count that at least `ranks` of them reach, as high as a look at the greatest of each block tells; 0 where it tells nothing.
fn least_of(counts: &[u64], ranks: usize) -> u64 {
    let mut maxima = vec![0; counts.len().div_ceil(kernels::BLOCK_COUNTS)];
    if maxima.len() < ranks {
        return 0;
    }
    kernels::block_maxima(counts, &mut maxima);
    *maxima.select_nth_unstable_by_key(ranks - 1, |&count| Reverse(count)).1
}

/// How much of the groups is known.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Partitions that left groups out, and their floors, added up.
    cuts: u32,
    floors: u64,
    groups: Vec<NamedBy>,
}

/// The same of those among them that named a group. Where it is less, the group may have anything there that counts as often
/// as the floors say at most: rows too that do not count.
#[derive(Debug, Clone, Copy, Default)]
struct NamedBy {
    cuts: u32,
    floors: u64,
}

impl Named {
    /// A partition, with a floor if it left groups out, named the groups `map`; there are `groups` so far.
    pub(crate) fn add(&mut self, floor: Option<u64>, map: &[u32], groups: usize) {
        self.groups.resize(groups, NamedBy::default());
        let Some(floor) = floor else { return };
        self.cuts += 1;
        self.floors += floor;
        for &group in map {
            let by = &mut self.groups[group as usize];
            by.cuts += 1;
            by.floors += floor;
        }
    }
}
