//! What a scan would look at and about what that costs, without looking at any row that the scan would not look at.
//!
//! The decisions are those of the scan itself, segment by segment: [`crate::tasks`] takes rollups where they answer and
//! passes over what the range spares, [`crate::run`] over what a filter spares.
//!
//! The times are estimates: constants per row, per code and per group of a rollup, set by what whole queries took of one core of a
//! machine of two with AVX-512 (`rivals` in `testing/bench`, which shows both side by side). They stay within a factor
//! of two of these. What a filter leaves over is not guessed (the other columns count as if all rows passed), and planning,
//! the further scans of an exact selection, merging of partitions, writing of the answer and waiting are left out. So the
//! times say which of two questions is dearer, not what a clock will show.

use engine::{CHUNK_ROWS, ColumnIndex, RollupPart, SegmentView};
use types::{ApiError, PartitionId, Rollup, TimeRange, Timestamp};

use crate::{
    cancel::Cancel,
    cells::{Cell, QuantileMethod},
    cover::Taken,
    cuts::mean_rows,
    distinct::EXACT_MAX,
    plan::{Output, Plan},
    segment_filter::{Passing, passing},
    source::{PlannedSource, Source},
    task::{has_rows_in, planned},
};

/// Segments listed one by one for each source.
const LISTED_MAX: usize = 1_000;
/// Nanoseconds per row: comparing its time (8 bytes at the 15 GB/s that one core reads), a filter, a column of the key, the time
/// bucket, counting the rows of groups, and a cell of one number.
const TIME_NS: f64 = 0.5;
const FILTER_NS: f64 = 0.15;
const KEY_NS: f64 = 0.1;
const BUCKET_NS: f64 = 0.1;
const COUNT_NS: f64 = 0.25;
const CELL_NS: f64 = 0.25;
/// Likewise of a cell that keeps more than a number: values by bins, codes by counts.
const QUANTILE_NS: f64 = 0.8;
const CODES_NS: f64 = 1.8;
/// What counting, and each cell of one number, take more where groups are so many that their numbers are not all at hand.
const SCATTERED_NS: f64 = 0.8;
/// Groups up to which they are.
const AT_HAND_MAX: u64 = 1 << 14;
/// Nanoseconds per number of a task's state: it is cleared, read and merged.
const STATE_NS: f64 = 4.0;
/// Nanoseconds to merge a group of a rollup, one of its cells, and one that keeps a sketch.
const MERGED_NS: f64 = 30.0;
const MERGED_CELL_NS: f64 = 5.0;
const MERGED_SKETCH_NS: f64 = 1_500.0;

/// What a scan does with a table of the plan in one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceExplanation {
    /// The table's index in the plan.
    pub table: usize,
    /// The partition.
    pub partition: PartitionId,
    /// Rows before this may have left memory; `None` where none has.
    pub evicted_before: Option<Timestamp>,
    /// The time before which rows that are needed may have left; `None`: rows and rollups together have all of them.
    pub lacks_before: Option<Timestamp>,
    /// Rollups that answer for some buckets, the coarsest first.
    pub rollups: Vec<RollupExplanation>,
    /// The times that are left to rows, ascending.
    pub rows: Vec<TimeRange>,
    /// Segments that are looked at.
    pub kept: SegmentCount,
    /// Segments that need not be looked at, by reason, most rows first.
    pub skipped: Vec<(Skip, SegmentCount)>,
    /// The first segments in canonical order; at most 1,000 are listed.
    pub segments: Vec<SegmentExplanation>,
    /// What looking at the kept ones costs.
    pub cost: ScanCost,
}

/// What a rollup answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupExplanation {
    /// As it was declared.
    pub rollup: Rollup,
    /// The times of the buckets that it takes.
    pub times: TimeRange,
    /// Groups of these buckets that are merged, each in each part in which it stands.
    pub groups: u64,
    /// Rows that no part has yet and are looked at.
    pub rows: u64,
    /// Rows that came when the rows of their bucket had left, in all buckets ever: each has revised a closed bucket.
    pub revised: u64,
}

/// Some segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentCount {
    /// How many.
    pub segments: u64,
    /// Their rows.
    pub rows: u64,
}

/// One segment.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentExplanation {
    /// Its rows.
    pub rows: u64,
    /// Its least event time, or an earlier one.
    pub time_min: Timestamp,
    /// Its greatest event time, or a later one.
    pub time_max: Timestamp,
    /// Whether it gets no more rows.
    pub sealed: bool,
    /// Why it is skipped; `None`: it is kept.
    pub skipped: Option<Skip>,
}

/// Why a segment need not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// None of its rows lies in the range.
    TimeRange,
    /// None of its rows can pass the filter on this column.
    Filter(String),
    /// A rollup answers for those of its rows that lie in the range.
    Rollup,
}

/// An estimate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScanCost {
    /// Rows of the chunks that are looked at.
    pub rows: u64,
    /// Bytes of the columns that are read of them.
    pub bytes: u64,
    /// Nanoseconds of one core.
    pub nanoseconds: f64,
}

impl ScanCost {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.nanoseconds += other.nanoseconds;
    }
}

impl SegmentCount {
    fn add(&mut self, segment: &SegmentView) {
        self.segments += 1;
        self.rows += segment.rows() as u64;
    }
}

/// How an output of a plan is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMethod {
    /// The output.
    pub name: String,
    /// `exact`; `sketch` or `tdigest`, with a bound or without; `auto` and `hyperloglog`, which are exact up to `exact_max`;
    /// `counts`, of every value in a partition, of which each group's most frequent (65,536, fewer where there are many
    /// groups, at least 4,096; 1,000 in a table that is partitioned by the dimension) go on to be added up: exact where none of
    /// those left behind could change the answer, else too small by at most 1/4096 of the rows. The answer says which it was.
    pub method: &'static str,
    /// What `auto` and `hyperloglog` take up to which they are exact: rows in the range, distinct values of a group.
    pub exact_max: Option<u64>,
}

/// How the outputs of a plan are computed, in their order.
#[must_use]
pub fn methods(plan: &Plan) -> Vec<OutputMethod> {
    plan.outputs.iter().map(|output| method(plan, output)).collect()
}

fn method(plan: &Plan, output: &Output) -> OutputMethod {
    let (method, exact_max) = match output.value.cell().map(|cell| &plan.cells[cell]) {
        Some(Cell::Quantiles { method: QuantileMethod::Auto { rows_max }, .. }) => ("auto", Some(*rows_max)),
        Some(Cell::Quantiles { method: QuantileMethod::Sketch, .. }) => ("sketch", None),
        Some(Cell::Digest(_)) => ("tdigest", None),
        Some(Cell::Distinct(_)) => ("hyperloglog", Some(EXACT_MAX as u64)),
        Some(Cell::Top { .. }) => ("counts", None),
        _ => ("exact", None),
    };
    OutputMethod { name: output.name.clone(), method, exact_max }
}

/// Explains the scan of all sources of one partition.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`.
pub fn explain(plan: &Plan, mut sources: Vec<Source>, cancel: &Cancel<'_>) -> Result<Vec<SourceExplanation>, ApiError> {
    sources.sort_by_key(|source| (source.partition, source.table));
    planned(plan, sources).iter().map(|(source, _)| explain_source(plan, source, cancel)).collect()
}

fn explain_source(plan: &Plan, source: &PlannedSource, cancel: &Cancel<'_>) -> Result<SourceExplanation, ApiError> {
    let (cover, evicted_before) = (source.cover(), source.snapshot().evicted_before());
    let mut explanation = SourceExplanation {
        table: source.table(),
        partition: source.partition(),
        evicted_before,
        lacks_before: cover.lacks_before(plan, evicted_before),
        rollups: cover.rollups.iter().map(|taken| explain_rollup(source, taken)).collect(),
        rows: cover.rows.clone(),
        kept: SegmentCount::default(),
        skipped: Vec::new(),
        segments: Vec::new(),
        cost: ScanCost::default(),
    };
    for rollup in &explanation.rollups {
        let cells = plan.cells.iter().map(|cell| match cell {
            Cell::Distinct(_) | Cell::Top { .. } | Cell::Quantiles { .. } => MERGED_SKETCH_NS,
            _ => MERGED_CELL_NS,
        });
        let nanoseconds = MERGED_NS + cells.sum::<f64>();
        let cost = ScanCost { nanoseconds: rollup.groups as f64 * nanoseconds, ..ScanCost::default() };
        explanation.cost.add(cost);
        explanation.cost.rows += rollup.rows;
    }
    for (at, segment) in source.segments().iter().enumerate() {
        cancel.check()?;
        let skipped = skip(plan, source, segment);
        match &skipped {
            None => {
                explanation.kept.add(segment);
                explanation.cost.add(cost(plan, source, at));
            }
            Some(skip) => explanation.skipped_for(skip).add(segment),
        }
        if explanation.segments.len() < LISTED_MAX {
            let zone = segment.zone();
            explanation.segments.push(SegmentExplanation {
                rows: segment.rows() as u64,
                time_min: zone.min,
                time_max: zone.max,
                sealed: segment.sealed(),
                skipped,
            });
        }
    }
    explanation.skipped.sort_by_key(|(_, count)| std::cmp::Reverse(count.rows));
    Ok(explanation)
}

impl SourceExplanation {
    fn skipped_for(&mut self, skip: &Skip) -> &mut SegmentCount {
        let at = self.skipped.iter().position(|(known, _)| known == skip).unwrap_or_else(|| {
            self.skipped.push((skip.clone(), SegmentCount::default()));
            self.skipped.len() - 1
        });
        &mut self.skipped[at].1
    }
}

fn skip(plan: &Plan, source: &PlannedSource, segment: &SegmentView) -> Option<Skip> {
    if !source.cover().rows.iter().any(|rows| has_rows_in(segment, *rows)) {
        return Some(if has_rows_in(segment, plan.range) { Skip::Rollup } else { Skip::TimeRange });
    }
    let spares = |at: &usize| matches!(passing(plan, source, segment, *at), Passing::None);
    let filter = (0..plan.filters.len()).find(spares)?;
    Some(Skip::Filter(plan.filters[filter].column.clone()))
}

fn explain_rollup(source: &PlannedSource, taken: &Taken) -> RollupExplanation {
    let rollup = &source.snapshot().rollups()[taken.rollup];
    let merged = |part: &RollupPart| part.groups_in(&taken.buckets).len() as u64;
    let mut groups = rollup.history(taken.buckets.clone()).map(|part| merged(part)).sum();
    let mut rows = 0;
    for segment in source.segments() {
        let zone = segment.zone();
        if taken.times.meets_closed(zone.min, zone.max) {
            let (parts, known) = rollup.of_segment(segment);
            groups += parts.iter().map(|part| merged(part)).sum::<u64>();
            rows += (segment.rows() - known) as u64;
        }
    }
    RollupExplanation { rollup: rollup.rollup().clone(), times: taken.times, groups, rows, revised: rollup.revised() }
}

/// How many groups a segment's codes allow, and how many numbers a state of all of them has.
fn sizes(plan: &Plan, source: &PlannedSource, segment: usize) -> (u64, u64) {
    let keys = (0..plan.groups.len()).map(|column| source.group_codes(column, segment).unwrap_or(1));
    let groups = keys.fold(1_u64, |all, codes| all.saturating_mul(codes.into()));
    let counted = plan.cells.iter().enumerate().filter(|(_, cell)| matches!(cell, Cell::Top { .. }));
    let codes = counted.map(|(at, _)| source.cell_dictionary(at, segment).map_or(1, |dictionary| dictionary.len()));
    (groups, groups.saturating_mul(codes.max().unwrap_or(1).into()))
}

fn cost(plan: &Plan, source: &PlannedSource, at: usize) -> ScanCost {
    let segment = &source.segments()[at];
    let (groups, state) = sizes(plan, source, at);
    let scattered = if groups > AT_HAND_MAX { SCATTERED_NS } else { 0.0 };
    let (mut bytes, mut nanoseconds) = (0, 0.0);
    let mut filters = Vec::with_capacity(plan.filters.len());
    for at in 0..plan.filters.len() {
        if let Passing::Some(filter) = passing(plan, source, segment, at) {
            filters.push(filter);
            bytes += source.filter(at).map_or(0, |column| width(segment, column));
            nanoseconds += FILTER_NS;
        }
    }
    for at in 0..plan.groups.len() {
        bytes += source.group(at).map_or(0, |column| width(segment, column));
        nanoseconds += KEY_NS;
    }
    if plan.interval.is_some() {
        bytes += segment.times().item_bytes() as u64;
        nanoseconds += BUCKET_NS;
    }
    if plan.grouped() {
        nanoseconds += COUNT_NS + scattered;
    }
    for at in 0..plan.cells.len() {
        bytes += source.cell(at).map_or(0, |column| width(segment, column));
        nanoseconds += match &plan.cells[at] {
            Cell::Distinct(_) | Cell::Top { .. } => CODES_NS,
            Cell::Quantiles { .. } | Cell::Digest(_) => QUANTILE_NS,
            _ => CELL_NS + scattered,
        };
    }
    // A state of more numbers than its task has rows is a list of those that it needs.
    nanoseconds += STATE_NS * (state as f64 / mean_rows(state) as f64).min(1.0);
    let mut cost = ScanCost::default();
    for range in source.cover().rows.iter().filter(|range| has_rows_in(segment, **range)) {
        for chunk in 0..segment.chunks() {
            let zone = segment.chunk_zone(chunk);
            if !range.meets_closed(zone.min, zone.max) || filters.iter().any(|filter| filter.spares(chunk)) {
                continue;
            }
            let rows = CHUNK_ROWS.min(segment.rows() - chunk * CHUNK_ROWS) as u64;
            let cut = !range.covers_closed(zone.min, zone.max);
            let (time_bytes, time_ns) = if cut { (segment.times().item_bytes() as u64, TIME_NS) } else { (0, 0.0) };
            cost.add(ScanCost {
                rows,
                bytes: rows * (bytes + time_bytes),
                nanoseconds: rows as f64 * (nanoseconds + time_ns),
            });
        }
    }
    cost
}

/// Bytes of one row in a column.
fn width(segment: &SegmentView, column: ColumnIndex) -> u64 {
    let of_codes = segment.codes(column).map(|codes| codes.item_bytes());
    let bytes = of_codes.or_else(|| segment.metric(column).map(|values| values.item_bytes()));
    bytes.unwrap_or(0) as u64
}
