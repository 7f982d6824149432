//! A plan: all that a scan and the end of a query need, as plain data that names columns and never refers to a table.

use std::sync::Arc;

use types::{ApiError, Interval, PartitionId, TableKey, TableName, TimeRange};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    ast::ValueLimits,
    cells::Cell,
    groups::too_many_bytes,
    leading::{LeadBy, Leading},
    predicate::{DimensionCondition, DimensionTest, MetricTest},
    selection::Round,
};

/// Version of the canonical form: a change of what a plan means must change its fingerprint.
const CANONICAL_VERSION: u8 = 4;

/// What to compute over which tables. Equal plans over equal data have equal answers, to the byte.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(crate) tables: Vec<PlannedTable>,
    pub(crate) range: TimeRange,
    pub(crate) interval: Option<Interval>,
    pub(crate) filters: Vec<ColumnFilter>,
    pub(crate) groups: Vec<GroupColumn>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) order: Vec<OrderKey>,
    pub(crate) limit: usize,
    pub(crate) groups_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) values: ValueLimits,
    /// Which groups partitions hand on; `None`: all.
    pub(crate) leading: Option<Leading>,
    /// Where it looks once more for the percentiles of another plan.
    pub(crate) round: Option<Arc<Round>>,
}

/// A table of a plan. Its place in the list is its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTable {
    /// Which life of which table.
    pub key: TableKey,
    /// Its name, as the pseudo-column `table` shows it.
    pub name: TableName,
    /// The log partitions that it uses, ascending.
    pub partitions: Vec<PartitionId>,
}

/// All conditions on one column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnFilter {
    pub(crate) column: String,
    pub(crate) test: Test,
}

/// Conditions of a column's kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    Dimension(DimensionTest),
    Metric(MetricTest),
}

/// A column to group by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupColumn {
    /// The pseudo-column: the table's full name.
    Table,
    Dimension(String),
}

impl GroupColumn {
    /// Its name in a row.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Table => "table",
            Self::Dimension(name) => name,
        }
    }
}

/// An aggregate's output: its name, and how it comes from the cells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) value: Value,
}

/// How an output comes from the cell of that index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// Rows of the group; no cell.
    Rows,
    /// Rows where the cell's column is present.
    Present(usize),
    Sum(usize),
    Avg(usize),
    Min(usize),
    Max(usize),
    Variance(usize),
    Stddev(usize),
    Percentile {
        cell: usize,
        q: f64,
    },
    Distinct(usize),
    Top {
        cell: usize,
        k: usize,
    },
}

impl Value {
    /// The index of its cell.
    pub(crate) fn cell(self) -> Option<usize> {
        match self {
            Self::Rows => None,
            Self::Present(cell)
            | Self::Sum(cell)
            | Self::Avg(cell)
            | Self::Min(cell)
            | Self::Max(cell)
            | Self::Variance(cell)
            | Self::Stddev(cell)
            | Self::Percentile { cell, .. }
            | Self::Distinct(cell)
            | Self::Top { cell, .. } => Some(cell),
        }
    }
}

/// A key of the order asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderKey {
    pub(crate) column: RowColumn,
    pub(crate) descending: bool,
}

/// A column of an answer's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowColumn {
    Time,
    Group(usize),
    Output(usize),
}

impl Plan {
    /// Its tables; a source names one by its index.
    #[must_use]
    pub fn tables(&self) -> &[PlannedTable] {
        &self.tables
    }

    /// The event times that it asks about.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// The partitions that its tables use, ascending, each once.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionId> {
        let mut all: Vec<_> = self.tables.iter().flat_map(|table| table.partitions.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether intermediate results may take so many bytes on a node.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where they may not.
    pub fn allow_bytes(&self, bytes: usize) -> Result<(), ApiError> {
        if bytes > self.bytes_max { Err(too_many_bytes(self.bytes_max)) } else { Ok(()) }
    }

    /// Equal for equal plans, on any machine: xxh3-128 of the canonical form.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        xxh3_128(&self.canonical())
    }

    /// Whether it looks once more for the percentiles of another plan, and names their groups.
    #[must_use]
    pub fn is_further_round(&self) -> bool {
        self.round.is_some()
    }

    /// Whether rows come in groups; without, there is exactly one row.
    #[must_use]
    pub fn grouped(&self) -> bool {
        self.interval.is_some() || !self.groups.is_empty()
    }

    /// Whether a scan has to count the rows of groups: for an output, to know which groups lead, or to know how many values are
    /// present.
    pub(crate) fn counts_rows(&self) -> bool {
        self.asks_for_rows() || self.cells.iter().any(|cell| matches!(cell, Cell::Sum(_)))
    }

    /// The cell of a metric's sum that can tell which groups have rows, where nobody asks how many.
    pub(crate) fn rows_marked_by(&self) -> Option<usize> {
        let sum = || self.cells.iter().position(|cell| matches!(cell, Cell::Sum(_)));
        if self.asks_for_rows() { None } else { sum() }
    }

    fn asks_for_rows(&self) -> bool {
        let asks = |output: &Output| {
            matches!(output.value, Value::Rows | Value::Present(_) | Value::Avg(_) | Value::Top { .. })
        };
        self.leading.is_some() || self.outputs.iter().any(asks)
    }

    /// What the results of its tasks depend on, whatever the range, the table and the end of the query; `None` for a plan whose
    /// tasks are worth no second use: a further round of a selection.
    #[must_use]
    pub fn task_form(&self) -> Option<Arc<[u8]>> {
        if self.round.is_some() {
            return None;
        }
        let mut out = Canonical(vec![CANONICAL_VERSION]);
        self.write_cells(&mut out);
        // Beyond these a task is an error.
        out.number(self.groups_max as u64);
        out.number(self.bytes_max as u64);
        Some(out.0.into())
    }

    /// Groups and cells, and which rows go into them: what makes the result of a task, apart from the range.
    fn write_cells(&self, out: &mut Canonical) {
        out.number(self.interval.map_or(0, Interval::micros).cast_unsigned());
        out.list(&self.filters, |out, filter| {
            out.text(&filter.column);
            out.test(&filter.test);
        });
        out.list(&self.groups, |out, group| {
            out.tag(matches!(group, GroupColumn::Table).into());
            out.text(group.name());
        });
        out.list(&self.cells, |out, cell| {
            let (tag, column, value) = cell.canonical();
            out.tag(tag);
            out.text(column);
            out.text(value);
        });
        out.tag(self.asks_for_rows().into());
    }

    /// The plan as bytes that no other plan has: every string and list goes with its length.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Canonical(vec![CANONICAL_VERSION]);
        out.list(&self.tables, |out, table| {
            out.number(table.key.tenant.0);
            out.number(table.key.table.0);
            out.number(u64::from(table.key.generation.0));
            out.text(&table.name.namespace);
            out.text(&table.name.table);
            out.list(&table.partitions, |out, partition| out.number(u64::from(partition.0)));
        });
        out.number(self.range.start().0.cast_unsigned());
        out.number(self.range.end().0.cast_unsigned());
        self.write_cells(&mut out);
        out.list(&self.outputs, |out, output| {
            out.text(&output.name);
            out.value(output.value);
        });
        out.list(&self.order, |out, key| {
            match key.column {
                RowColumn::Time => out.indexed(0, 0),
                RowColumn::Group(at) => out.indexed(1, at),
                RowColumn::Output(at) => out.indexed(2, at),
            }
            out.tag(key.descending.into());
        });
        out.number(self.limit as u64);
        out.tag(self.leading.map_or(0, |leading| 1 + u8::from(leading.by != LeadBy::Rows)));
        out.number(self.leading.map_or(0, |leading| leading.kept as u64));
        out.number(self.groups_max as u64);
        out.number(self.bytes_max as u64);
        out.number(self.values.auto_rows_max);
        out.number(self.values.values_max);
        out.tag(self.round.is_some().into());
        if let Some(round) = &self.round {
            out.round(round);
        }
        out.0
    }
}

/// Writes the canonical form. Each method's bytes tell where they end.
struct Canonical(Vec<u8>);

impl Canonical {
    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            each(self, item);
        }
    }

    fn indexed(&mut self, tag: u8, at: usize) {
        self.tag(tag);
        self.number(at as u64);
    }

    fn floats(&mut self, values: &[f64]) {
        self.list(values, |out, value| out.number(value.to_bits()));
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Rows => self.indexed(0, 0),
            Value::Present(cell) => self.indexed(1, cell),
            Value::Sum(cell) => self.indexed(2, cell),
            Value::Avg(cell) => self.indexed(3, cell),
            Value::Min(cell) => self.indexed(4, cell),
            Value::Max(cell) => self.indexed(5, cell),
            Value::Variance(cell) => self.indexed(6, cell),
            Value::Stddev(cell) => self.indexed(7, cell),
            Value::Percentile { cell, q } => {
                self.indexed(8, cell);
                self.number(q.to_bits());
            }
            Value::Distinct(cell) => self.indexed(9, cell),
            Value::Top { cell, k } => {
                self.indexed(10, cell);
                self.number(k as u64);
            }
        }
    }

    fn test(&mut self, test: &Test) {
        match test {
            Test::Dimension(test) => {
                self.tag(0);
                self.list(test.conditions(), Self::condition);
            }
            Test::Metric(test) => {
                self.tag(1);
                self.floats(&[test.least, test.greatest]);
                self.tag(test.any_of.is_some().into());
                self.floats(test.any_of.as_deref().unwrap_or(&[]));
                self.floats(&test.none_of);
                self.tag(test.present.into());
                self.tag(test.absent.into());
            }
        }
    }

    fn condition(&mut self, condition: &DimensionCondition) {
        match condition {
            DimensionCondition::In(values) => {
                self.tag(0);
                self.list(values, |out, value| out.text(value));
            }
            DimensionCondition::NotIn(values) => {
                self.tag(1);
                self.list(values, |out, value| out.text(value));
            }
            DimensionCondition::Gt(bound) => self.bound(2, bound),
            DimensionCondition::Gte(bound) => self.bound(3, bound),
            DimensionCondition::Lt(bound) => self.bound(4, bound),
            DimensionCondition::Lte(bound) => self.bound(5, bound),
            DimensionCondition::Prefix(prefix) => self.bound(6, prefix),
            DimensionCondition::Exists(wanted) => {
                self.tag(7);
                self.tag((*wanted).into());
            }
        }
    }

    fn round(&mut self, round: &Round) {
        self.list(&round.values, |out, values| {
            let all: Vec<_> = (1..values.numbers() as u32).filter_map(|number| values.get(number)).collect();
            out.list(&all, |out, value| out.text(value));
        });
        self.list(&round.buckets, |out, bucket| out.number(bucket.cast_unsigned()));
        self.list(&round.keys, |out, column| out.list(column, |out, number| out.number(u64::from(*number))));
        self.list(&round.ranges, |out, ranges| {
            out.list(ranges, |out, (group, range)| {
                out.number(u64::from(*group));
                out.number(range.low);
                out.number(range.high);
            });
        });
        self.tag(round.brings.into());
    }

    fn bound(&mut self, tag: u8, text: &str) {
        self.tag(tag);
        self.text(text);
    }
}
