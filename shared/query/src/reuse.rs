//! Results that are used again: of tasks by what they depend on, of partitions by the version of what a plan meets there.
//!
//! 1. Rows of a segment never change, they only become more: (segment, rows) names a content for ever, sealed or not. So the
//!    result of a task is a function of its [`TaskKey`], and a kept one is the same state that running it would give.
//! 2. A kept result holds codes. They mean what the dictionaries of its segments say, and the task at hand has the same
//!    segments: it brings the dictionaries, so that a kept result pins no rows.
//! 3. A range takes part only where it cuts a row off: a task that lies in it as a whole has one result for all such ranges.

use std::sync::Arc;

use engine::{SegmentId, SegmentView};
use types::{LogGap, TableKey, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    cells::Cell,
    laid_out::LaidOut,
    partial::{Found, ScanStats, TaskGroups, TaskPartial},
    plan::Plan,
    task::{Task, has_rows_in},
};

/// All that the result of a task depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    /// Which life of which table of which tenant.
    table: TableKey,
    /// The plan's part in it, without the range.
    form: Arc<[u8]>,
    /// The range's part in it: the first and last event time that it lets through, where it lets not all through.
    times: Option<(Timestamp, Timestamp)>,
    segments: Box<[(SegmentId, usize)]>,
    /// Whether all codes of its group columns are one byte, which decides about lanes of sums.
    narrow: bool,
    /// Per cell: whether values are kept, which the rows of the whole partition decide.
    keeps: Box<[bool]>,
}

impl TaskKey {
    /// Memory that it takes, with the plan's part, although the keys of one query share that: whichever of them is left last
    /// holds it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.form.len() + size_of_val(&*self.segments) + size_of_val(&*self.keeps)
    }
}

/// The result of a task, without the rows and dictionaries that it came from.
#[derive(Debug, Clone)]
pub struct KeptTask {
    groups: Arc<TaskGroups>,
    segments_scanned: u64,
}

impl KeptTask {
    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.groups.bytes()
    }
}

impl TaskPartial {
    /// The result, to be used again by a task of the same key; `None` for one of a rollup, which hangs on more than its key.
    #[must_use]
    pub fn keep(&self) -> Option<KeptTask> {
        let Found::Codes(groups) = &self.found else { return None };
        // A copy has no room to spare: lists that grew as the task ran may have as much of it as they are long, which no count
        // of bytes would see. It is made at the second sight of a task alone.
        let groups = Arc::new(TaskGroups::clone(groups));
        Some(KeptTask { groups, segments_scanned: self.stats.segments_scanned })
    }
}

impl Task {
    /// What its result depends on, where `form` is the plan's [`Plan::task_form`].
    #[must_use]
    pub fn key(&self, plan: &Plan, form: &Arc<[u8]>) -> TaskKey {
        let segments = self.segments.iter().map(|&at| &self.source.segments()[at]);
        let zones = segments.clone().map(|segment| segment.zone());
        let times =
            zones.map(|zone| (zone.min, zone.max)).reduce(|(min, max), zone| (min.min(zone.0), max.max(zone.1)));
        let (start, last) = (self.range.start(), Timestamp(self.range.end().0 - 1));
        let times = times.filter(|&(min, max)| !self.range.covers_closed(min, max));
        let keeps = plan.cells.iter().map(|cell| match cell {
            Cell::Quantiles { method, .. } => self.partition_rows <= method.rows_max(),
            _ => false,
        });
        TaskKey {
            table: plan.tables[self.source.table()].key,
            form: Arc::clone(form),
            times: times.map(|(min, max)| (min.max(start), max.min(last))),
            segments: segments.map(|segment| (segment.id(), segment.rows())).collect(),
            narrow: self.narrow,
            keeps: keeps.collect(),
        }
    }

    /// The result of this task, from one that was kept under the same key.
    #[must_use]
    pub fn reuse(&self, plan: &Plan, kept: &KeptTask) -> TaskPartial {
        let groups = match &*kept.groups {
            TaskGroups::LaidOut(groups) => self.lay_out_anew(plan, groups).map(Arc::new),
            TaskGroups::Listed(_) => None,
        };
        // The other edge of the range counts those that both have.
        let counted = (self.segments.len() - self.again.len()) as u64;
        let cached = kept.segments_scanned.min(counted);
        TaskPartial {
            source: self.source.clone(),
            sequence: self.sequence,
            dictionaries: self.dictionaries.clone(),
            cell_dictionaries: self.cell_dictionaries.clone(),
            partition_rows: self.partition_rows,
            found: Found::Codes(groups.unwrap_or_else(|| Arc::clone(&kept.groups))),
            stats: ScanStats {
                rows_scanned: 0,
                segments_scanned: 0,
                segments_skipped: self.stats.segments_skipped + counted - cached,
                segments_cached: cached,
                rollup_buckets: 0,
            },
        }
    }

    /// Groups laid out as they are by this task, whose dictionaries may have been looked at later, or earlier, than those of the
    /// one whose result was kept; `None` where they are.
    fn lay_out_anew(&self, plan: &Plan, groups: &LaidOut) -> Option<TaskGroups> {
        let codes = |column: usize| {
            let segment = self.dictionaries[column].expect("the same segments have the same columns");
            self.source.group_codes(column, segment).expect("the segment was taken for its dictionary")
        };
        let columns: Vec<_> = groups.columns().iter().map(|&(column, _)| (column, codes(column))).collect();
        if columns == groups.columns() {
            return None;
        }
        let spread = groups.spread(plan, columns);
        Some(spread.map_or_else(|| TaskGroups::Listed(groups.groups(plan)), TaskGroups::LaidOut))
    }
}

/// The version of what a plan meets in a partition: equal versions of one plan are equal rows in the same order, and the same
/// rows missing. `tasks` are all of the partition's; `lacks_before` and `gaps` say what it lacks. `seed` is one of the process
/// whose segments and rollups these are: their names begin anew with each. Whatever else results come to depend on goes in here.
#[must_use]
pub fn version(plan: &Plan, tasks: &[Task], lacks_before: &[Option<Timestamp>], gaps: &[LogGap], seed: u64) -> u128 {
    let mut hash = Xxh3::with_seed(seed);
    let mut number = |number: u64| hash.update(&number.to_le_bytes());
    // A table without rows in the range may be known to the partition or not.
    let tasks = tasks.iter().filter(|task| task.taken.is_some() || !task.segments.is_empty());
    number(tasks.clone().count() as u64);
    for task in tasks {
        // Where tasks end decides in which order floats are added up.
        [task.source.table() as u64, task.narrow.into(), task.segments.len() as u64].into_iter().for_each(&mut number);
        [task.range.start(), task.range.end()].into_iter().for_each(|time| number(time.0.cast_unsigned()));
        let segments = task.source.segments();
        let mut content = |segment: &SegmentView| {
            number(segment.id().0);
            number(segment.rows() as u64);
        };
        task.segments.iter().for_each(|&at| content(&segments[at]));
        if let Some(taken) = &task.taken {
            // Its buckets are made of what it keeps and of resident rows.
            segments.iter().filter(|segment| has_rows_in(segment, taken.times)).for_each(&mut content);
            let version = task.source.snapshot().rollups()[taken.rollup].version();
            let version = version.expect("a rollup is taken where its past is known");
            [version.rollup, version.revision].into_iter().for_each(&mut number);
        }
    }
    // What left before the range is none of the plan's.
    let horizons = lacks_before.iter().map(|horizon| horizon.filter(|&before| before > plan.range.start()));
    for horizon in horizons {
        number(horizon.is_some().into());
        number(horizon.map_or(0, |before| before.0.cast_unsigned()));
    }
    for gap in gaps.iter().filter(|gap| gap.may_reach(&plan.range)) {
        [gap.first.0, gap.end.0].into_iter().for_each(&mut number);
    }
    hash.digest128()
}
