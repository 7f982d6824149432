//! Cells whose state is more than a number or two per group: sets, counts, values and digests by group, as a task fills them.

use std::ops::Range;

use kernels::{Groups, Rows, Values};

use crate::{
    accumulator::CellColumn,
    cells::Cell,
    digests::Digests,
    pair_counts::PairCounts,
    pair_sets::PairSets,
    quantiles::{QuantileScan, Quantiles},
    state::State,
};

/// What decides how a task lays such a cell out. None of it changes a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// How many groups there are, where that is known.
    pub(crate) groups: Option<usize>,
    /// Rows of the task.
    pub(crate) rows: usize,
    /// Rows of the whole partition in the plan's range.
    pub(crate) partition_rows: u64,
    /// Codes of the cell's dimension, "absent" included.
    pub(crate) codes: usize,
}

/// Such a cell under way.
#[derive(Debug)]
pub(crate) enum Keyed {
    Sets(PairSets),
    Counts(PairCounts),
    Quantiles(QuantileScan),
    Digests(Digests),
}

impl Keyed {
    /// `None` for a cell that is of another kind.
    pub(crate) fn new(cell: &Cell, sizes: Sizes) -> Option<Self> {
        let Sizes { groups, rows, partition_rows, codes } = sizes;
        match cell {
            Cell::Distinct(_) => Some(Self::Sets(PairSets::of_codes(groups, codes, rows))),
            Cell::Top { .. } => Some(Self::Counts(PairCounts::of_codes(groups, codes, rows))),
            Cell::Quantiles { method, .. } => {
                Some(Self::Quantiles(QuantileScan::new(*method, groups, rows, partition_rows)))
            }
            Cell::Digest(_) => Some(Self::Digests(Digests::default())),
            _ => None,
        }
    }

    /// Takes rows of a chunk, which is `range` of its segment; `of` are their groups.
    pub(crate) fn add(&mut self, column: CellColumn<'_>, range: Range<usize>, rows: Rows<'_>, of: Groups<'_>) {
        match (self, column) {
            (_, CellColumn::Absent) => {}
            (Self::Sets(sets), CellColumn::Codes(codes)) => sets.add_codes(of, rows, codes, range),
            (Self::Counts(counts), CellColumn::Codes(codes)) => counts.add_codes(of, rows, codes, range),
            (Self::Quantiles(scan), CellColumn::Values(Values::Doubles(values))) => scan.add(of, rows, values),
            (Self::Digests(digests), CellColumn::Values(Values::Doubles(values))) => digests.add(of, rows, values),
            _ => unreachable!("a cell's column is of its kind"),
        }
    }

    /// The state of each group `g` as that of group `map[g]`; one that maps to `u32::MAX` has none.
    pub(crate) fn gather(self, map: &[u32]) -> State {
        let same = map.iter().enumerate().all(|(group, &at)| at as usize == group);
        match self {
            Self::Sets(sets) if same => State::Sets(sets),
            Self::Counts(counts) if same => State::Counts(counts),
            Self::Quantiles(scan) if same => State::Quantiles(scan.into_quantiles()),
            Self::Digests(digests) if same => State::Digests(digests),
            Self::Sets(sets) => State::Sets(sets.moved(map)),
            Self::Counts(counts) => {
                let mut into = PairCounts::default();
                into.absorb(&counts, map);
                State::Counts(into)
            }
            Self::Quantiles(scan) => {
                let mut into = Quantiles::new(scan.quantiles().method());
                into.absorb(scan.quantiles(), map);
                State::Quantiles(into)
            }
            Self::Digests(digests) => {
                let mut into = Digests::default();
                into.absorb(&digests, map);
                State::Digests(into)
            }
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sets(sets) => sets.bytes(),
            Self::Counts(counts) => counts.bytes(),
            Self::Quantiles(scan) => scan.quantiles().bytes(),
            Self::Digests(digests) => digests.bytes(),
        }
    }
}
