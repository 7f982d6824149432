//! What answers a plan in a table's part of a partition: rollups where they can, rows elsewhere.
//!
//! 1. A rollup *fits* a plan where it has all that the plan asks: its buckets divide those of the plan, the plan groups and
//!    filters by columns that it groups by, and it has a state of every cell. Then it takes the whole buckets of the range;
//!    ragged edges are left to finer rollups that fit, and what is left then to rows.
//! 2. Of several the coarsest goes first, of equally coarse ones the one with the fewest columns, of these the first
//!    declared. A rollup is taken wherever it fits, so the choice depends on the plan, on what is declared and covered, and
//!    for `auto` percentiles on the number of rows: never on load.
//! 3. Where rows give an exact answer and a rollup would not, it is taken for buckets whose rows may have left, and for no
//!    others: the most frequent strings of a column that it does not group by, and percentiles of so few rows that the method
//!    keeps all values. What only rows can answer (exact percentiles, t-digests, conditions on metrics) no rollup fits.

use std::{cmp::Reverse, ops::Range};

use engine::{RollupSnapshot, TableSnapshot};
use types::{Interval, Rollup, TimeRange, Timestamp};

use crate::{
    cells::{Cell, QuantileMethod},
    plan::{ColumnFilter, GroupColumn, Plan, Test},
};

/// Rollups and rows that together hold each row of a range once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cover {
    /// The coarsest first.
    pub(crate) rollups: Vec<Taken>,
    /// Ascending. One piece at each end of the range at most, where each interval of the table's rollups divides the next
    /// longer one, as the control plane has it.
    pub(crate) rows: Vec<TimeRange>,
}

/// Buckets that a rollup answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The rollup's place among those of the table.
    pub(crate) rollup: usize,
    /// The numbers of the buckets; not empty.
    pub(crate) buckets: Range<i64>,
    /// The times of these.
    pub(crate) times: TimeRange,
}

/// For which buckets a rollup may answer a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// For none.
    Nowhere,
    /// For those whose rows may have left: rows answer better.
    WithoutRows,
    /// For all: rows answer no better.
    Everywhere,
}

impl Cover {
    /// The cover of a plan's range in a table, in a partition of which so many resident rows may lie in the range.
    pub(crate) fn new(plan: &Plan, table: &TableSnapshot, partition_rows: u64) -> Self {
        let rollups = table.rollups().iter().enumerate().filter_map(|(at, rollup)| {
            let fit = fit(plan, rollup.rollup(), partition_rows);
            (fit > Fit::Nowhere).then_some((at, rollup, fit))
        });
        let mut rollups: Vec<_> = rollups.collect();
        let order = |rollup: &RollupSnapshot| (Reverse(rollup.rollup().interval), rollup.rollup().group_by.len());
        rollups.sort_by_key(|(_, rollup, _)| order(rollup));
        let mut cover = Self::of_rows(plan);
        for (at, rollup, fit) in rollups {
            let until = match fit {
                Fit::Everywhere => Some(Timestamp::MAX),
                _ => table.evicted_before(),
            };
            if let (Some(from), Some(until)) = (rollup.covered_from(), until) {
                cover.take(at, rollup.rollup().interval, from, until);
            }
        }
        cover
    }

    /// Rows alone.
    pub(crate) fn of_rows(plan: &Plan) -> Self {
        Self { rollups: Vec::new(), rows: vec![plan.range] }
    }

    /// Lets a rollup take the whole buckets of what is left to rows, from the one that begins at `from` or later, to the one
    /// that ends at `until` or later.
    fn take(&mut self, rollup: usize, interval: Interval, from: Timestamp, until: Timestamp) {
        let mut left = Vec::new();
        for range in std::mem::take(&mut self.rows) {
            let first = interval.first_bucket_from(range.start().max(from));
            let end = interval.bucket_of(range.end()).min(interval.first_bucket_from(until));
            if first >= end {
                left.push(range);
                continue;
            }
            // Both lie in the range, so neither product is beyond time.
            let (start, end_time) = (Timestamp(first * interval.micros()), Timestamp(end * interval.micros()));
            let times = TimeRange::new(start, end_time).expect("there is a bucket");
            self.rollups.push(Taken { rollup, buckets: first..end, times });
            left.extend(TimeRange::new(range.start(), start));
            left.extend(TimeRange::new(end_time, range.end()));
        }
        self.rows = left;
    }

    /// The time before which rows that the cover needs may have left, of a table whose rows before `evicted_before` may have
    /// left; `None`: all are there.
    pub(crate) fn lacks_before(&self, plan: &Plan, evicted_before: Option<Timestamp>) -> Option<Timestamp> {
        let evicted = evicted_before?;
        let lacking = self.rows.iter().filter(|rows| rows.start() < evicted);
        // Behind a piece that ends within the range a rollup goes on. Behind one that ends with it nothing does: from where
        // rows begin all is there.
        lacking.map(|rows| if rows.end() < plan.range.end() { evicted.min(rows.end()) } else { evicted }).max()
    }
}

fn fit(plan: &Plan, rollup: &Rollup, partition_rows: u64) -> Fit {
    let groups = |name: &str| rollup.group_by.iter().any(|column| column == name);
    let filters = plan.filters.iter().all(|ColumnFilter { column, test }| match test {
        Test::Dimension(_) => groups(column),
        Test::Metric(_) => false,
    });
    let columns = plan.groups.iter().all(|group| match group {
        GroupColumn::Table => true,
        GroupColumn::Dimension(name) => groups(name),
    });
    let buckets = plan.interval.is_none_or(|interval| interval.micros() % rollup.interval.micros() == 0);
    if !filters || !columns || !buckets || plan.round.is_some() {
        return Fit::Nowhere;
    }
    let cells = plan.cells.iter().map(|cell| cell_fit(cell, rollup, partition_rows));
    cells.min().unwrap_or(Fit::Everywhere)
}

fn cell_fit(cell: &Cell, rollup: &Rollup, partition_rows: u64) -> Fit {
    let among = |columns: &[String], name: &str| columns.iter().any(|column| column == name);
    let where_so = |fits: bool, fit: Fit| if fits { fit } else { Fit::Nowhere };
    match cell {
        Cell::PresentMetric(_) | Cell::Sum(_) | Cell::Min(_) | Cell::Max(_) | Cell::Moments(_) => Fit::Everywhere,
        Cell::PresentDimension(column) | Cell::Frequency { column, .. } => {
            where_so(among(&rollup.group_by, column), Fit::Everywhere)
        }
        Cell::Distinct(column) => {
            where_so(among(&rollup.group_by, column) || among(&rollup.distinct, column), Fit::Everywhere)
        }
        Cell::Top { column, .. } if among(&rollup.group_by, column) => Fit::Everywhere,
        Cell::Top { column, .. } => where_so(among(&rollup.top, column), Fit::WithoutRows),
        Cell::Quantiles { column, method } => {
            let fit = match method {
                QuantileMethod::Exact { .. } => Fit::Nowhere,
                QuantileMethod::Sketch => Fit::Everywhere,
                QuantileMethod::Auto { rows_max } if partition_rows > *rows_max => Fit::Everywhere,
                QuantileMethod::Auto { .. } => Fit::WithoutRows,
            };
            where_so(among(&rollup.percentiles, column), fit)
        }
        Cell::Digest(_) => Fit::Nowhere,
    }
}
