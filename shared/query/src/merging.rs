//! Merging the results of a partition's tasks, one by one in canonical order.
//!
//! Results that have the same dictionaries merge by code, in arrays where keys are few. Where dictionaries change, what was
//! merged so far becomes strings, as it does before a result that comes with strings. A scan can hand over each result as soon
//! as those before it are in, so that it never holds more of them than it has threads.

use std::sync::Arc;

use types::{ApiError, PartitionId};

use crate::{
    ast::TOP_MAX,
    cancel::Cancel,
    cells::Cell,
    groups::{Groups, Merger},
    laid_out::LaidOut,
    leading::Leading,
    partial::{Found, Partial, ScanStats, StringMerger, TaskGroups, TaskPartial, name_keys},
    plan::{Plan, Value},
    state::{Level, State},
    top::Cut,
    values::Values,
};

/// The merge of one partition under way.
pub struct PartitionMerge {
    partition: PartitionId,
    stats: ScanStats,
    /// The place of the last result: its table and its number among that one's tasks.
    last: Option<(usize, usize)>,
    /// Rows of the partition in the plan's range.
    rows: u64,
    alike: Option<Alike>,
    strings: Option<StringMerger>,
}

/// Results of one table whose codes have one meaning, merged.
struct Alike {
    /// The first of them, which has the dictionaries.
    first: TaskPartial,
    meaning: Vec<Option<u64>>,
    numbers: Vec<usize>,
    merged: Merged,
}

/// Groups whose keys have one meaning, merged.
enum Merged {
    /// As long as all results are laid out.
    LaidOut(LaidOut),
    Listed(Merger),
}

impl Merged {
    fn new(plan: &Plan, numbers: &[usize], groups: TaskGroups) -> Result<Self, ApiError> {
        Ok(match groups {
            TaskGroups::LaidOut(groups) => Self::LaidOut(groups),
            TaskGroups::Listed(groups) => {
                let mut merger = Merger::new(plan, numbers);
                merger.absorb(&groups, &[])?;
                Self::Listed(merger)
            }
        })
    }

    fn absorb(&mut self, plan: &Plan, numbers: &[usize], groups: &TaskGroups) -> Result<(), ApiError> {
        match (&mut *self, groups) {
            (Self::LaidOut(into), TaskGroups::LaidOut(from)) => into.absorb(from),
            (Self::LaidOut(into), TaskGroups::Listed(from)) => {
                // A task of few rows has few of the keys: one such is no reason to list all.
                if !into.absorb_listed(from) {
                    let mut merger = Merger::new(plan, numbers);
                    merger.absorb(&into.groups(plan), &[])?;
                    merger.absorb(from, &[])?;
                    *self = Self::Listed(merger);
                }
            }
            (Self::Listed(into), TaskGroups::LaidOut(from)) => into.absorb(&from.groups(plan), &[])?,
            (Self::Listed(into), TaskGroups::Listed(from)) => into.absorb(from, &[])?,
        }
        Ok(())
    }

    /// The groups; only those that lead where these are `all` groups of the partition and more than are wanted, with the
    /// greatest count of the others.
    fn into_groups(self, plan: &Plan, all: bool) -> Result<(Groups, Option<u64>), ApiError> {
        let leading = plan.leading.filter(|_| all);
        match self {
            Self::LaidOut(groups) if groups.len() > plan.groups_max => {
                Err(crate::groups::too_many_groups(plan.groups_max))
            }
            Self::LaidOut(groups) => Ok(match leading {
                Some(leading) => groups.into_leading(plan, leading),
                None => (groups.groups(plan), None),
            }),
            Self::Listed(merger) => Ok(cut(merger.into_groups(), leading)),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::LaidOut(groups) => groups.bytes(),
            Self::Listed(merger) => merger.groups().bytes(),
        }
    }
}

/// The groups that lead, and the greatest count of the others, if there are others.
fn cut(groups: Groups, leading: Option<Leading>) -> (Groups, Option<u64>) {
    match leading.map(|leading| leading.choose(&groups.rows, &groups.states)) {
        Some((kept, Some(floor))) => (groups.pick(&kept), Some(floor)),
        _ => (groups, None),
    }
}

impl std::fmt::Debug for PartitionMerge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionMerge")
            .field("partition", &self.partition)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl PartitionMerge {
    /// A partition of which no result came yet, and which has no rows if none comes.
    #[must_use]
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, stats: ScanStats::default(), last: None, rows: 0, alike: None, strings: None }
    }

    /// Merges the next result, in the order in which [`crate::tasks`] gave the tasks.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where there are more groups, or more memory is needed, than the plan allows.
    ///
    /// # Panics
    /// The result is of another partition, or out of order.
    pub fn absorb(&mut self, plan: &Plan, task: TaskPartial) -> Result<(), ApiError> {
        assert_eq!(task.partition(), self.partition, "a task's result is merged into its partition's");
        let place = (task.source.table(), task.sequence);
        assert!(self.last.is_none_or(|last| last < place), "float sums depend on the order of results");
        let table = self.last.map(|(table, _)| table);
        self.last = Some(place);
        self.rows = task.partition_rows;
        self.stats.add(task.stats);
        let none = Found::Codes(Arc::new(TaskGroups::Listed(Groups::new(plan, Level::Codes))));
        let (found, task) = (task.found, TaskPartial { found: none, ..task });
        match found {
            Found::Strings(groups, values) => self.absorb_strings(plan, &groups, &values)?,
            Found::Codes(groups) => self.absorb_codes(plan, groups, task, table)?,
        }
        plan.allow_bytes(self.bytes())
    }

    /// Merges groups that come with strings.
    fn absorb_strings(&mut self, plan: &Plan, groups: &Groups, values: &[Values]) -> Result<(), ApiError> {
        let alike = self.alike.take();
        self.flush(plan, alike)?;
        let numbers: Vec<usize> = values.iter().map(Values::numbers).collect();
        let strings = self.strings.get_or_insert_with(|| StringMerger::new(plan));
        strings.absorb(groups, &numbers, |column, number| {
            values[column].get(number).expect("a result has the strings of its keys")
        })
    }

    /// Merges groups of `task`, whose numbers are codes; `table`: that of the result before.
    fn absorb_codes(
        &mut self,
        plan: &Plan,
        groups: Arc<TaskGroups>,
        task: TaskPartial,
        table: Option<usize>,
    ) -> Result<(), ApiError> {
        let meaning = task.meaning();
        if let Some(alike) = &mut self.alike
            && table == Some(task.source.table())
            && alike.meaning == meaning
        {
            return alike.merged.absorb(plan, &alike.numbers, &groups);
        }
        let alike = self.alike.take();
        self.flush(plan, alike)?;
        // Dictionaries were looked at after the snapshot was taken, so no later result has further codes.
        let numbers: Vec<usize> = (0..plan.groups.len()).map(|column| task.numbers(plan, column)).collect();
        let merged = Merged::new(plan, &numbers, Arc::unwrap_or_clone(groups))?;
        self.alike = Some(Alike { first: task, meaning, numbers, merged });
        Ok(())
    }

    /// Memory that it takes, apart from the snapshot's.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let alike = self.alike.as_ref().map_or(0, |alike| alike.merged.bytes());
        alike + self.strings.as_ref().map_or(0, StringMerger::bytes)
    }

    /// The result of the partition.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where there are more groups than the plan allows.
    pub fn finish(mut self, plan: &Plan) -> Result<Partial, ApiError> {
        let alike = self.alike.take();
        let (values, mut groups, floor) = match (alike, self.strings.take()) {
            // All of the partition, and each key once: nothing is to be looked for.
            (Some(alike), None) => {
                let (first, numbers, mut groups, floor) = alike.into_groups(plan, true)?;
                let values = name_keys(&mut groups, &numbers, |column, number| first.key_string(plan, column, number));
                (values, groups, floor)
            }
            (alike, strings) => {
                self.strings = strings;
                self.flush(plan, alike)?;
                let (values, groups) = self.strings.unwrap_or_else(|| StringMerger::new(plan)).into_parts();
                let (groups, floor) = cut(cut_counts(plan, groups), plan.leading);
                (values, groups, floor)
            }
        };
        for state in &mut groups.states {
            if let State::Quantiles(quantiles) = state {
                quantiles.of_partition(self.rows);
            }
        }
        Ok(Partial { partition: self.partition, values, groups, floor, stats: self.stats })
    }

    /// Makes strings of what was merged by code, which is not all of the partition.
    fn flush(&mut self, plan: &Plan, alike: Option<Alike>) -> Result<(), ApiError> {
        let Some(alike) = alike else { return Ok(()) };
        let (first, numbers, groups, _) = alike.into_groups(plan, false)?;
        let strings = self.strings.get_or_insert_with(|| StringMerger::new(plan));
        strings.absorb(&groups, &numbers, |column, number| first.key_string(plan, column, number))
    }
}

impl Alike {
    /// The groups, with the numbers that each column of their keys can have, and a result that has the strings of these;
    /// `whole`: that is all of the partition. And the greatest count of the groups that were left out, if any were.
    fn into_groups(self, plan: &Plan, whole: bool) -> Result<(TaskPartial, Vec<usize>, Groups, Option<u64>), ApiError> {
        let Self { first, numbers, merged, .. } = self;
        let (mut groups, floor) = merged.into_groups(plan, whole)?;
        let count = groups.len();
        let cells = groups.states.into_iter().zip(&plan.cells).enumerate();
        let states = cells.map(|(at, (state, cell))| {
            let cut = whole.then(|| cut_of(plan, at, cell, count));
            state.with_strings(first.cell_dictionary(at), cut)
        });
        groups.states = states.collect();
        Ok((first, numbers, groups, floor))
    }
}

/// Cuts the counts of strings that were merged by string.
fn cut_counts(plan: &Plan, mut groups: Groups) -> Groups {
    let count = groups.len();
    for (at, (state, cell)) in groups.states.iter_mut().zip(&plan.cells).enumerate() {
        if let State::Top(top) = state {
            top.cut(cut_of(plan, at, cell, count));
        }
    }
    groups
}

/// How the counts of a cell are cut in a partition that has so many groups.
fn cut_of(plan: &Plan, at: usize, cell: &Cell, groups: usize) -> Cut {
    let asked = plan.outputs.iter().filter_map(|output| match output.value {
        Value::Top { cell, k } if cell == at => Some(k),
        _ => None,
    });
    Cut::new(groups, asked.max().unwrap_or(TOP_MAX as usize), plan.partitions().len(), cell.disjoint())
}

/// Merges the results of all tasks of one partition, given in any order. No task at all is a partition without rows.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`; `RESOURCE_EXHAUSTED` where there are more groups, or more memory is needed, than the
/// plan allows.
///
/// # Panics
/// A result is of another partition.
pub fn merge(
    plan: &Plan,
    partition: PartitionId,
    mut tasks: Vec<TaskPartial>,
    cancel: &Cancel<'_>,
) -> Result<Partial, ApiError> {
    tasks.sort_by_key(|task| (task.source.table(), task.sequence));
    let mut merging = PartitionMerge::new(partition);
    for task in tasks {
        cancel.check()?;
        merging.absorb(plan, task)?;
    }
    merging.finish(plan)
}
