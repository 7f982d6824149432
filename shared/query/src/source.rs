//! What a plan is run over: a table's snapshot in one partition, with the plan's columns found in it.

use std::sync::OnceLock;

use engine::{ColumnIndex, DictionaryView, SegmentView, TableSnapshot};
use types::{ColumnKind, PartitionId};

use crate::{
    code_filter::CodeFilter,
    cover::Cover,
    plan::{ColumnFilter, GroupColumn, Plan, Test},
    predicate::DimensionTest,
};

/// A table of the plan in one partition.
#[derive(Debug, Clone)]
pub struct Source {
    /// The table's index in the plan.
    pub table: usize,
    /// The partition.
    pub partition: PartitionId,
    /// The table's rows there. All sources of one partition are to be of one offset for an answer to be of one.
    pub snapshot: TableSnapshot,
}

/// A source with the plan's columns found. Shared by its tasks.
#[derive(Debug)]
pub(crate) struct PlannedSource {
    source: Source,
    cover: Cover,
    table_name: String,
    filters: Vec<PlannedFilter>,
    groups: Vec<Option<ColumnIndex>>,
    /// Per group column, how many strings each of its dictionaries has, by epoch: looked at once, so that all tasks lay keys
    /// out alike.
    group_strings: Vec<Vec<(u64, u32)>>,
    cells: Vec<Option<ColumnIndex>>,
}

/// Where a filter's column is, and what its test means in each of its dictionaries.
#[derive(Debug)]
struct PlannedFilter {
    column: Option<ColumnIndex>,
    /// By epoch. The first task that needs one makes it.
    codes: Vec<(u64, OnceLock<CodeFilter>)>,
}

impl PlannedSource {
    pub(crate) fn new(plan: &Plan, source: Source, cover: Cover) -> Self {
        let snapshot = &source.snapshot;
        let dimension = |name: &str| snapshot.column(name, ColumnKind::Dimension);
        let groups = plan.groups.iter().map(|group| match group {
            GroupColumn::Table => None,
            GroupColumn::Dimension(name) => dimension(name),
        });
        let groups: Vec<Option<ColumnIndex>> = groups.collect();
        let strings = |column: &Option<ColumnIndex>| {
            let mut strings: Vec<(u64, u32)> = Vec::new();
            for view in snapshot.segments().iter().filter_map(|segment| segment.dictionary((*column)?)) {
                if !strings.iter().any(|&(epoch, _)| epoch == view.epoch()) {
                    strings.push((view.epoch(), view.len()));
                }
            }
            strings
        };
        let cells = plan.cells.iter().map(|cell| {
            let (name, kind) = cell.column();
            snapshot.column(name, kind)
        });
        Self {
            cover,
            filters: plan.filters.iter().map(|filter| PlannedFilter::new(filter, snapshot)).collect(),
            group_strings: groups.iter().map(strings).collect(),
            groups,
            cells: cells.collect(),
            table_name: plan.tables[source.table].name.to_string(),
            source,
        }
    }

    pub(crate) fn table(&self) -> usize {
        self.source.table
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.source.partition
    }

    pub(crate) fn snapshot(&self) -> &TableSnapshot {
        &self.source.snapshot
    }

    /// What answers the plan.
    pub(crate) fn cover(&self) -> &Cover {
        &self.cover
    }

    /// What the pseudo-column `table` shows.
    pub(crate) fn table_name(&self) -> &str {
        &self.table_name
    }

    pub(crate) fn segments(&self) -> &[SegmentView] {
        self.source.snapshot.segments()
    }

    /// Where a group column is; `None` for the pseudo-column and for one that no event had.
    pub(crate) fn group(&self, column: usize) -> Option<ColumnIndex> {
        self.groups[column]
    }

    /// Where a cell's column is.
    pub(crate) fn cell(&self, cell: usize) -> Option<ColumnIndex> {
        self.cells[cell]
    }

    /// Where a filter's column is.
    pub(crate) fn filter(&self, filter: usize) -> Option<ColumnIndex> {
        self.filters[filter].column
    }

    /// The dictionary that a group column has in a segment.
    pub(crate) fn group_dictionary(&self, column: usize, segment: usize) -> Option<DictionaryView<'_>> {
        self.segments()[segment].dictionary(self.groups[column]?)
    }

    /// How many codes a group column can have in a segment, "absent" included; `None` where it is absent.
    pub(crate) fn group_codes(&self, column: usize, segment: usize) -> Option<u32> {
        let epoch = self.group_dictionary(column, segment)?.epoch();
        let known = self.group_strings[column].iter().find(|(of, _)| *of == epoch);
        // Whichever observation of a dictionary this is, it covers all codes of the snapshot's rows.
        Some(known.expect("the epochs of all segments were listed").1 + 1)
    }

    /// The dictionary that a cell's dimension has in a segment.
    pub(crate) fn cell_dictionary(&self, cell: usize, segment: usize) -> Option<DictionaryView<'_>> {
        self.segments()[segment].dictionary(self.cells[cell]?)
    }

    /// The test of a dimension's filter in terms of a dictionary, which is that of one of the source's segments.
    pub(crate) fn codes(&self, filter: usize, test: &DimensionTest, dictionary: DictionaryView<'_>) -> &CodeFilter {
        let known = self.filters[filter].codes.iter().find(|(epoch, _)| *epoch == dictionary.epoch());
        let (_, codes) = known.expect("the epochs of all segments were listed");
        // Whichever observation of the dictionary makes it, it covers all codes of the snapshot's rows.
        codes.get_or_init(|| CodeFilter::new(test, dictionary))
    }
}

impl PlannedFilter {
    fn new(filter: &ColumnFilter, snapshot: &TableSnapshot) -> Self {
        if let Test::Metric(_) = filter.test {
            let column = snapshot.column(&filter.column, ColumnKind::Metric);
            return Self { column, codes: Vec::new() };
        }
        let column = snapshot.column(&filter.column, ColumnKind::Dimension);
        let mut codes: Vec<(u64, OnceLock<CodeFilter>)> = Vec::new();
        for segment in snapshot.segments() {
            if let Some(dictionary) = column.and_then(|column| segment.dictionary(column))
                && !codes.iter().any(|(epoch, _)| *epoch == dictionary.epoch())
            {
                codes.push((dictionary.epoch(), OnceLock::new()));
            }
        }
        Self { column, codes }
    }
}
