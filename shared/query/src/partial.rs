//! Results on their way: of one task, with the codes of its dictionaries, and of one partition, with strings of its own.

use std::{fmt, sync::Arc};

use types::{ApiError, PartitionId};

use crate::{
    cancel::Cancel,
    groups::{Groups, Merger},
    laid_out::LaidOut,
    leading::Named,
    plan::{GroupColumn, Plan},
    source::PlannedSource,
    values::{Interner, Values},
};

/// What a scan looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Rows of the chunks that were looked at.
    pub rows_scanned: u64,
    /// Segments of which rows were looked at.
    pub segments_scanned: u64,
    /// Segments that need not be looked at, be it that rollups answer for their rows.
    pub segments_skipped: u64,
    /// Segments whose part was known from an earlier query.
    pub segments_cached: u64,
    /// Buckets of rollups that were taken instead of rows, in each partition and table.
    pub rollup_buckets: u64,
}

impl ScanStats {
    pub(crate) fn add(&mut self, other: Self) {
        self.rows_scanned += other.rows_scanned;
        self.segments_scanned += other.segments_scanned;
        self.segments_skipped += other.segments_skipped;
        self.segments_cached += other.segments_cached;
        self.rollup_buckets += other.rollup_buckets;
    }
}

/// What a task found.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Groups whose numbers are codes, shared with whoever keeps them for another query.
    Codes(Arc<TaskGroups>),
    /// Groups of a rollup, with their own strings per group column.
    Strings(Groups, Vec<Values>),
}

impl Found {
    /// Memory that it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Codes(groups) => groups.bytes(),
            Self::Strings(groups, values) => groups.bytes() + values.iter().map(Values::bytes).sum::<usize>(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Codes(groups) => groups.len(),
            Self::Strings(groups, _) => groups.len(),
        }
    }
}

/// The groups of a task of rows.
#[derive(Debug, Clone)]
pub(crate) enum TaskGroups {
    Listed(Groups),
    LaidOut(LaidOut),
}

impl TaskGroups {
    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Listed(groups) => groups.bytes(),
            Self::LaidOut(groups) => groups.bytes(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Listed(groups) => groups.len(),
            Self::LaidOut(groups) => groups.len(),
        }
    }
}

/// The result of one task, with the codes of its dictionaries, or with strings of its own where it is of a rollup. It holds
/// the memory of its snapshot until it is merged.
pub struct TaskPartial {
    pub(crate) source: Arc<PlannedSource>,
    pub(crate) sequence: usize,
    /// Per group column: a segment that has the dictionary of the codes; `None` where the column is absent everywhere.
    pub(crate) dictionaries: Vec<Option<usize>>,
    /// Per cell: the same, where its state holds codes.
    pub(crate) cell_dictionaries: Vec<Option<usize>>,
    /// Rows of the whole partition in the plan's range.
    pub(crate) partition_rows: u64,
    pub(crate) found: Found,
    pub(crate) stats: ScanStats,
}

impl fmt::Debug for TaskPartial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPartial")
            .field("partition", &self.source.partition())
            .field("table", &self.source.table())
            .field("sequence", &self.sequence)
            .field("groups", &self.found.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl TaskPartial {
    /// Which partition it is part of.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.source.partition()
    }

    /// Memory that it takes, apart from its snapshot's.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.found.bytes()
    }

    /// What the codes mean: two results of one table whose answers are equal can be merged by code.
    pub(crate) fn meaning(&self) -> Vec<Option<u64>> {
        let groups = (0..self.dictionaries.len()).map(|column| self.dictionary(column));
        let cells = (0..self.cell_dictionaries.len()).map(|cell| self.cell_dictionary(cell));
        groups.chain(cells).map(|view| view.map(|view| view.epoch())).collect()
    }

    pub(crate) fn dictionary(&self, column: usize) -> Option<engine::DictionaryView<'_>> {
        self.source.group_dictionary(column, self.dictionaries[column]?)
    }

    pub(crate) fn cell_dictionary(&self, cell: usize) -> Option<engine::DictionaryView<'_>> {
        self.source.cell_dictionary(cell, self.cell_dictionaries[cell]?)
    }

    /// What a number in a column of a key means, which is not 0.
    pub(crate) fn key_string(&self, plan: &Plan, column: usize, number: u32) -> &str {
        match &plan.groups[column] {
            GroupColumn::Table => self.source.table_name(),
            GroupColumn::Dimension(_) => self
                .dictionary(column)
                .and_then(|view| view.get(number))
                .expect("the dictionary of a column has every code that its rows have"),
        }
    }

    /// Codes that a column may have, "absent" included.
    pub(crate) fn numbers(&self, plan: &Plan, column: usize) -> usize {
        if plan.groups[column] == GroupColumn::Table {
            return 2;
        }
        self.dictionary(column).map_or(1, |view| view.len() as usize + 1)
    }
}

/// The result of one partition: groups keyed by strings, for all tables of the plan.
#[derive(Debug, Clone)]
pub struct Partial {
    pub(crate) partition: PartitionId,
    /// Per group column of the plan.
    pub(crate) values: Vec<Values>,
    pub(crate) groups: Groups,
    /// Where groups were left out: so often at most each of them stood there; see [`crate::leading`].
    pub(crate) floor: Option<u64>,
    pub(crate) stats: ScanStats,
}

impl Partial {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.groups.bytes() + self.values.iter().map(Values::bytes).sum::<usize>()
    }

    /// What the scan looked at.
    #[must_use]
    pub fn stats(&self) -> ScanStats {
        self.stats
    }
}

/// Gives the keys of groups numbers of lists of strings instead of codes, of which each column has `numbers[column]` at most
/// and `string` says what they mean. Returns the lists.
pub(crate) fn name_keys<'a>(
    groups: &mut Groups,
    numbers: &[usize],
    string: impl Fn(usize, u32) -> &'a str,
) -> Vec<Values> {
    let columns = groups.keys.iter_mut().zip(numbers).enumerate();
    let named = columns.map(|(column, (keys, &numbers))| {
        let mut interner = Interner::default();
        let map = interner.absorb(numbers, keys.iter().copied(), |number| string(column, number));
        keys.iter_mut().for_each(|number| *number = map[*number as usize]);
        interner.into_values()
    });
    named.collect()
}

/// Merges groups whose numbers have different meanings, by their strings.
pub(crate) struct StringMerger {
    interners: Vec<Interner>,
    merger: Merger,
}

impl StringMerger {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            interners: plan.groups.iter().map(|_| Interner::default()).collect(),
            // How many strings there will be is not known yet.
            merger: Merger::unbounded(plan),
        }
    }

    /// Merges `groups`, in which a column has `numbers[column]` numbers at most and `string` says what they mean.
    pub(crate) fn absorb<'a>(
        &mut self,
        groups: &Groups,
        numbers: &[usize],
        string: impl Fn(usize, u32) -> &'a str,
    ) -> Result<(), ApiError> {
        let mut maps = Vec::with_capacity(numbers.len());
        for (column, interner) in self.interners.iter_mut().enumerate() {
            let used = groups.keys[column].iter().copied();
            maps.push(interner.absorb(numbers[column], used, |number| string(column, number)));
        }
        self.merger.absorb(groups, &maps)
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.merger.groups().bytes() + self.interners.iter().map(Interner::bytes).sum::<usize>()
    }

    pub(crate) fn into_parts(self) -> (Vec<Values>, Groups) {
        (self.interners.into_iter().map(Interner::into_values).collect(), self.merger.into_groups())
    }
}

/// The numbers of a partition's strings among those of all, by column.
fn intern(interners: &mut [Interner], Partial { values, groups, .. }: &Partial) -> Vec<Vec<u32>> {
    let of_column = |(column, interner): (usize, &mut Interner)| {
        let (used, values) = (groups.keys[column].iter().copied(), &values[column]);
        interner.absorb(values.numbers(), used, |number| values.get(number).expect("a partial has its strings"))
    };
    interners.iter_mut().enumerate().map(of_column).collect()
}

/// The merge of partitions that come one by one, in their order. It comes to what a merge of all at once does; keys of several
/// columns are looked up by hash, since how many strings there will be is not known yet.
pub struct PartialsMerge {
    interners: Vec<Interner>,
    merger: Merger,
    named: Named,
    stats: ScanStats,
    last: Option<PartitionId>,
}

impl fmt::Debug for PartialsMerge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialsMerge").field("last", &self.last).finish_non_exhaustive()
    }
}

impl PartialsMerge {
    /// Nothing yet of the results of this plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            interners: plan.groups.iter().map(|_| Interner::default()).collect(),
            merger: if plan.groups.is_empty() { Merger::of_strings(plan, &[], 1) } else { Merger::unbounded(plan) },
            named: Named::default(),
            stats: ScanStats::default(),
            last: None,
        }
    }

    /// Whether nothing was merged yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Merges the next partition, which is behind those before.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`; `RESOURCE_EXHAUSTED` where there are more groups, or more memory is needed, than
    /// the plan allows.
    ///
    /// # Panics
    /// The partition is not behind those before: sums would depend on who came first.
    pub fn absorb(&mut self, plan: &Plan, partial: &Partial, cancel: &Cancel<'_>) -> Result<(), ApiError> {
        cancel.check()?;
        assert!(self.last < Some(partial.partition), "partitions are merged in their order");
        self.last = Some(partial.partition);
        self.stats.add(partial.stats);
        let maps = intern(&mut self.interners, partial);
        self.merger.absorb(&partial.groups, &maps)?;
        self.named.add(partial.floor, self.merger.last_map(), self.merger.groups().len());
        let strings: usize = self.interners.iter().map(Interner::bytes).sum();
        plan.allow_bytes(self.merger.groups().bytes() + strings)
    }

    pub(crate) fn into_parts(self) -> (Vec<Values>, Groups, Named, ScanStats) {
        let values = self.interners.into_iter().map(Interner::into_values).collect();
        (values, self.merger.into_groups(), self.named, self.stats)
    }
}

/// Merges the groups of all partitions, in the order given: the strings of their keys, the groups, and how much of them is
/// known.
pub(crate) fn merge_partitions(
    plan: &Plan,
    partials: &[Partial],
    cancel: &Cancel<'_>,
) -> Result<(Vec<Values>, Groups, Named), ApiError> {
    let mut interners: Vec<Interner> = plan.groups.iter().map(|_| Interner::default()).collect();
    let mut maps = Vec::with_capacity(partials.len());
    for partial in partials {
        cancel.check()?;
        maps.push(intern(&mut interners, partial));
    }
    // All strings are known before the first group is looked for, so that keys may be places.
    let numbers: Vec<usize> = interners.iter().map(|interner| interner.values().numbers()).collect();
    let strings: usize = interners.iter().map(Interner::bytes).sum();
    let groups: usize = partials.iter().map(|partial| partial.groups.len()).sum();
    let (mut merger, mut named) = (Merger::of_strings(plan, &numbers, groups), Named::default());
    for (partial, maps) in partials.iter().zip(&maps) {
        cancel.check()?;
        merger.absorb(&partial.groups, maps)?;
        named.add(partial.floor, merger.last_map(), merger.groups().len());
        plan.allow_bytes(merger.groups().bytes() + strings)?;
    }
    Ok((interners.into_iter().map(Interner::into_values).collect(), merger.into_groups(), named))
}
