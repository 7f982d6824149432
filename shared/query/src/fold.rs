//! A task of a rollup: its buckets instead of rows.
//!
//! 1. What a rollup has of a range lies in parts: of rows that have left, and of each segment's first rows. Of the rows that
//!    no part has yet, one is made here. Where one part ends and the next begins is nobody's business, so states are merged as
//!    the rollup keeps them, and become those of the plan at the end.
//! 2. Parts name no codes, and so does the result: it comes with its strings.

use std::ops::Range;

use engine::{CHUNK_ROWS, ColumnIndex, MetricCell, RollupPart};
use sketch::QuantileSketch;
use types::{ApiError, Rollup};

use crate::{
    cancel::Cancel,
    cells::Cell,
    cover::Taken,
    distinct::Distinct,
    groups::{Groups, Merger},
    partial::{Found, ScanStats, TaskPartial},
    plan::{GroupColumn, Plan, Test},
    predicate::DimensionTest,
    quantiles::Quantiles,
    source::PlannedSource,
    state::State,
    task::Task,
    top::Top,
    values::Interner,
};

/// Rows of which a part is made at once, at most: some milliseconds of work.
const ROWS_MAX: usize = 64 * CHUNK_ROWS;
/// Parts between two looks at the memory.
const BYTES_PARTS: u64 = 32;
/// Sketches that are loaded while one is merged: each is a few KiB that lie alone.
const SKETCHES_AHEAD: usize = 2;
/// The number of the one string of the pseudo-column.
const TABLE_NUMBER: u32 = 1;

/// Runs a task that takes buckets of a rollup.
///
/// # Errors
/// As [`crate::run`].
pub(crate) fn run(plan: &Plan, task: &Task, taken: &Taken, cancel: &Cancel<'_>) -> Result<TaskPartial, ApiError> {
    let snapshot = task.source.snapshot();
    let rollup = &snapshot.rollups()[taken.rollup];
    let mut fold = Fold::new(plan, &task.source, rollup.rollup(), taken.buckets.clone(), cancel);
    for part in rollup.history(taken.buckets.clone()) {
        fold.add(part)?;
    }
    let mut stats = task.stats;
    let times = taken.times.start()..taken.times.end();
    for segment in snapshot.segments() {
        let zone = segment.zone();
        if !taken.times.meets_closed(zone.min, zone.max) {
            continue;
        }
        let (parts, mut known) = rollup.of_segment(segment);
        for part in parts {
            fold.add(part)?;
        }
        while known < segment.rows() {
            let rows = known..segment.rows().min(known + ROWS_MAX);
            known = rows.end;
            stats.rows_scanned += rows.len() as u64;
            if let Some(part) = rollup.of_rows(snapshot, segment, rows, &times) {
                fold.add(&part)?;
            }
        }
    }
    stats.rollup_buckets = fold.buckets();
    Ok(fold.finish(task, stats))
}

/// Where a number of a group's key comes from.
enum KeyColumn {
    Table,
    /// A column of the rollup's `group_by`.
    Column(usize),
}

/// What is kept of a cell.
enum CellFold {
    /// Rows where a column of the key is there, or has one value.
    Rows { column: usize, value: Option<String>, counts: Vec<u64> },
    /// In the list of metrics.
    Metric(usize),
    /// Strings of a column of the key.
    Keys { column: usize, distinct: Distinct },
    /// A column of the rollup's `distinct`.
    Distinct { at: usize, distinct: Distinct },
    /// Counts of a column of the key.
    CountedKeys { column: usize, top: Top },
    /// A column of the rollup's `top`.
    Summaries { at: usize, top: Top },
    /// A column of the rollup's `percentiles`.
    Sketches { at: usize, sketches: Vec<QuantileSketch> },
}

/// The groups of a task under way.
struct Fold<'a> {
    plan: &'a Plan,
    cancel: &'a Cancel<'a>,
    buckets: Range<i64>,
    /// Buckets of the rollup in one of the plan, if it has any.
    ratio: Option<i64>,
    filters: Vec<(usize, &'a DimensionTest)>,
    keys: Vec<KeyColumn>,
    interners: Vec<Interner>,
    groups: Merger,
    metrics: Vec<(Option<ColumnIndex>, Vec<MetricCell>)>,
    cells: Vec<CellFold>,
    /// The buckets of the rollup that had rows, each in each part.
    met: Vec<i64>,
    parts: u64,
}

/// Groups of a part that pass the filters, and the group here that each belongs to.
struct Chosen<'a> {
    part: &'a RollupPart,
    from: Vec<usize>,
    into: Vec<u32>,
}

impl<'a> Fold<'a> {
    fn new(
        plan: &'a Plan,
        source: &PlannedSource,
        rollup: &Rollup,
        buckets: Range<i64>,
        cancel: &'a Cancel<'a>,
    ) -> Self {
        let column = |name: &str| place(&rollup.group_by, name).expect("the rollup was chosen as it groups by it");
        let filters = plan.filters.iter().map(|filter| match &filter.test {
            Test::Dimension(test) => (column(&filter.column), test),
            Test::Metric(_) => unreachable!("no rollup is chosen for a condition on a metric"),
        });
        let keys = plan.groups.iter().map(|group| match group {
            GroupColumn::Table => KeyColumn::Table,
            GroupColumn::Dimension(name) => KeyColumn::Column(column(name)),
        });
        let mut interners: Vec<Interner> = plan.groups.iter().map(|_| Interner::default()).collect();
        for (interner, group) in interners.iter_mut().zip(&plan.groups) {
            if *group == GroupColumn::Table {
                interner.absorb(2, [TABLE_NUMBER].into_iter(), |_| source.table_name());
            }
        }
        let mut metrics = Vec::new();
        let cells =
            plan.cells.iter().enumerate().map(|(at, cell)| cell_fold(cell, source.cell(at), rollup, &mut metrics));
        Self {
            cells: cells.collect(),
            plan,
            cancel,
            buckets,
            ratio: plan.interval.map(|interval| interval.micros() / rollup.interval.micros()),
            filters: filters.collect(),
            keys: keys.collect(),
            interners,
            groups: Merger::unbounded(plan),
            metrics,
            met: Vec::new(),
            parts: 0,
        }
    }

    /// Takes a part's groups.
    fn add(&mut self, part: &RollupPart) -> Result<(), ApiError> {
        self.cancel.check()?;
        let taken = part.groups_in(&self.buckets);
        if taken.is_empty() {
            return Ok(());
        }
        self.met.extend(part.buckets()[taken.clone()].chunk_by(|a, b| a == b).map(|same| same[0]));
        let from = self.passing(part, taken);
        let into = self.places(part, &from)?;
        let chosen = Chosen { part, from, into };
        let groups = self.groups.groups().len();
        for (column, cells) in &mut self.metrics {
            cells.resize(groups, MetricCell::default());
            let Some(of_part) = column.and_then(|column| part.metric(column)) else { continue };
            chosen.each(|at, group| cells[group as usize].merge(&of_part[at]));
        }
        self.cells.iter_mut().for_each(|cell| cell.add(&chosen, groups));
        self.parts += 1;
        if self.parts.is_multiple_of(BYTES_PARTS) { self.plan.allow_bytes(self.bytes()) } else { Ok(()) }
    }

    /// The groups of a part among `taken` that pass the filters.
    fn passing(&self, part: &RollupPart, taken: Range<usize>) -> Vec<usize> {
        let mut passing: Vec<usize> = taken.collect();
        for &(column, test) in &self.filters {
            // A string is tested once.
            let mut known: Vec<Option<bool>> = vec![None; part.strings(column) + 1];
            passing.retain(|&at| {
                let number = part.key(column)[at];
                *known[number as usize].get_or_insert_with(|| test.accepts(part.string(column, number)))
            });
        }
        passing
    }

    /// The groups here that groups of a part belong to; their rows are counted there.
    fn places(&mut self, part: &RollupPart, from: &[usize]) -> Result<Vec<u32>, ApiError> {
        let pick = |column: &[u32]| from.iter().map(|&at| column[at]).collect::<Vec<_>>();
        let mut maps = Vec::with_capacity(self.keys.len());
        let mut keys = Vec::with_capacity(self.keys.len());
        for (key, interner) in self.keys.iter().zip(&mut self.interners) {
            let (numbers, map) = match *key {
                KeyColumn::Table => (vec![TABLE_NUMBER; from.len()], vec![0, TABLE_NUMBER]),
                KeyColumn::Column(column) => {
                    let numbers = pick(part.key(column));
                    let used = numbers.iter().copied().filter(|&number| number != 0);
                    let map = interner.absorb(part.strings(column) + 1, used, |number| string(part, column, number));
                    (numbers, map)
                }
            };
            keys.push(numbers);
            maps.push(map);
        }
        let bucket = |&at: &usize| self.ratio.map_or(0, |ratio| part.buckets()[at].div_euclid(ratio));
        let groups = Groups {
            buckets: from.iter().map(bucket).collect(),
            keys,
            rows: from.iter().map(|&at| part.rows()[at]).collect(),
            states: Vec::new(),
        };
        Ok(self.groups.absorb_keys(&groups, &maps)?.to_vec())
    }

    /// How many buckets of the rollup were met.
    fn buckets(&mut self) -> u64 {
        self.met.sort_unstable();
        self.met.dedup();
        self.met.len() as u64
    }

    /// Memory that it takes.
    fn bytes(&self) -> usize {
        let interners: usize = self.interners.iter().map(Interner::bytes).sum();
        let metrics: usize = self.metrics.iter().map(|(_, cells)| size_of_val(&**cells)).sum();
        let cells: usize = self.cells.iter().map(CellFold::bytes).sum();
        interners + metrics + cells + self.groups.groups().bytes() + size_of_val(&*self.met)
    }

    fn finish(self, task: &Task, stats: ScanStats) -> TaskPartial {
        let mut groups = self.groups.into_groups();
        let count = groups.len();
        let cells = self.cells.into_iter().zip(&self.plan.cells);
        groups.states = cells.map(|(fold, cell)| fold.into_state(cell, &self.metrics, count)).collect();
        TaskPartial {
            source: task.source.clone(),
            sequence: task.sequence,
            dictionaries: task.dictionaries.clone(),
            cell_dictionaries: task.cell_dictionaries.clone(),
            partition_rows: task.partition_rows,
            found: Found::Strings(groups, self.interners.into_iter().map(Interner::into_values).collect()),
            stats,
        }
    }
}

impl Chosen<'_> {
    fn each(&self, mut take: impl FnMut(usize, u32)) {
        self.from.iter().zip(&self.into).for_each(|(&at, &group)| take(at, group));
    }

    /// The groups here with the numbers of their strings in a column of the key, without those that have none.
    fn keyed(&self, column: usize) -> impl Iterator<Item = (u32, u32, u64)> + Clone {
        let (numbers, rows) = (self.part.key(column), self.part.rows());
        let all = self.from.iter().zip(&self.into).map(|(&at, &group)| (group, numbers[at], rows[at]));
        all.filter(|&(_, number, _)| number != 0)
    }
}

fn cell_fold(
    cell: &Cell,
    found: Option<ColumnIndex>,
    rollup: &Rollup,
    metrics: &mut Vec<(Option<ColumnIndex>, Vec<MetricCell>)>,
) -> CellFold {
    let (name, _) = cell.column();
    let key = place(&rollup.group_by, name);
    let chosen = "the rollup was chosen as it has it";
    match (cell, key) {
        (Cell::Frequency { value, .. }, column) => {
            CellFold::Rows { column: column.expect(chosen), value: Some(value.clone()), counts: Vec::new() }
        }
        (Cell::PresentDimension(_), column) => {
            CellFold::Rows { column: column.expect(chosen), value: None, counts: Vec::new() }
        }
        (Cell::Distinct(_), Some(column)) => CellFold::Keys { column, distinct: Distinct::default() },
        (Cell::Distinct(_), None) => {
            CellFold::Distinct { at: place(&rollup.distinct, name).expect(chosen), distinct: Distinct::default() }
        }
        (Cell::Top { .. }, Some(column)) => CellFold::CountedKeys { column, top: Top::default() },
        (Cell::Top { .. }, None) => {
            CellFold::Summaries { at: place(&rollup.top, name).expect(chosen), top: Top::default() }
        }
        (Cell::Quantiles { .. }, _) => {
            CellFold::Sketches { at: place(&rollup.percentiles, name).expect(chosen), sketches: Vec::new() }
        }
        (Cell::Digest(_), _) => unreachable!("no rollup is chosen for a t-digest"),
        (Cell::PresentMetric(_) | Cell::Sum(_) | Cell::Min(_) | Cell::Max(_) | Cell::Moments(_), _) => {
            let at = metrics.iter().position(|(column, _)| *column == found).unwrap_or_else(|| {
                metrics.push((found, Vec::new()));
                metrics.len() - 1
            });
            CellFold::Metric(at)
        }
    }
}

impl CellFold {
    /// Takes what a part has of some groups; there are so many groups now.
    fn add(&mut self, chosen: &Chosen<'_>, groups: usize) {
        let part = chosen.part;
        match self {
            Self::Metric(_) => {}
            Self::Rows { column, value, counts } => {
                counts.resize(groups, 0);
                for (group, number, rows) in chosen.keyed(*column) {
                    if value.as_deref().is_none_or(|value| string(part, *column, number) == value) {
                        counts[group as usize] += rows;
                    }
                }
            }
            Self::Keys { column, distinct } => {
                let pairs = chosen.keyed(*column).map(|(group, number, _)| (group, number));
                distinct.add_strings(pairs, part.strings(*column) + 1, |number| string(part, *column, number));
            }
            Self::Distinct { at, distinct } => {
                let cells = part.distinct(*at);
                chosen.each(|at, group| distinct.add_cell(group, &cells[at]));
            }
            Self::CountedKeys { column, top } => {
                let counts = chosen.keyed(*column);
                top.add_counts(counts, part.strings(*column) + 1, |number| string(part, *column, number));
            }
            Self::Summaries { at, top } => {
                let summaries = part.tops(*at);
                chosen.each(|at, group| top.add_summary(group, &summaries[at]));
            }
            Self::Sketches { at, sketches } => {
                sketches.resize(groups, QuantileSketch::default());
                let of_part = part.quantiles(*at);
                for (n, (&at, &group)) in chosen.from.iter().zip(&chosen.into).enumerate() {
                    if let Some(&later) = chosen.from.get(n + SKETCHES_AHEAD) {
                        of_part[later].prefetch();
                    }
                    sketches[group as usize].merge(&of_part[at]);
                }
            }
        }
    }

    /// Memory that it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Metric(_) => 0,
            Self::Rows { counts, .. } => size_of_val(&**counts),
            Self::Keys { distinct, .. } | Self::Distinct { distinct, .. } => distinct.bytes(),
            Self::CountedKeys { top, .. } | Self::Summaries { top, .. } => top.bytes(),
            Self::Sketches { sketches, .. } => sketches.iter().map(QuantileSketch::bytes).sum(),
        }
    }

    /// The plan's state of the cell, of so many groups.
    fn into_state(self, cell: &Cell, metrics: &[(Option<ColumnIndex>, Vec<MetricCell>)], groups: usize) -> State {
        let mut state = match self {
            Self::Rows { counts, .. } => State::Count(counts),
            Self::Metric(at) => metric_state(cell, &metrics[at].1),
            Self::Keys { distinct, .. } | Self::Distinct { distinct, .. } => State::Distinct(distinct),
            Self::CountedKeys { top, .. } | Self::Summaries { top, .. } => State::Top(top),
            Self::Sketches { sketches, .. } => {
                let Cell::Quantiles { method, .. } = cell else { unreachable!("it has sketches for percentiles") };
                let mut quantiles = Quantiles::new(*method);
                (0..).zip(&sketches).for_each(|(group, sketch)| quantiles.add_sketch(group, sketch));
                State::Quantiles(quantiles)
            }
        };
        state.grow(groups);
        state
    }
}

fn metric_state(cell: &Cell, cells: &[MetricCell]) -> State {
    let counts = || cells.iter().map(MetricCell::count).collect();
    match cell {
        Cell::Sum(_) => State::Sum { sums: cells.iter().map(MetricCell::sum).collect(), counts: counts() },
        Cell::Min(_) => State::Min(cells.iter().map(MetricCell::min).collect()),
        Cell::Max(_) => State::Max(cells.iter().map(MetricCell::max).collect()),
        Cell::Moments(_) => {
            // Over no value: 0, as in any other state of nothing.
            let mean = |cell: &MetricCell| if cell.count() == 0 { 0.0 } else { cell.sum() / cell.count() as f64 };
            State::Moments {
                counts: counts(),
                means: cells.iter().map(mean).collect(),
                deviations: cells.iter().map(MetricCell::deviation).collect(),
            }
        }
        _ => State::Count(counts()),
    }
}

fn place(columns: &[String], name: &str) -> Option<usize> {
    columns.iter().position(|column| column == name)
}

/// A string of a column of the key, whose number is not 0.
fn string(part: &RollupPart, column: usize, number: u32) -> &str {
    part.string(column, number).expect("a part has the strings of its keys")
}
