//! The form of a plan.

use std::sync::Arc;

use types::{Generation, Interval, PartitionId, TableId, TableKey, TableName, TenantId, TimeRange, Timestamp};

use super::{
    Reader, WireError, Writer,
    plan_parts::{read_filter, read_round, write_filter, write_round},
    read_version,
};
use crate::{
    ast::{AGGREGATES_MAX, FILTERS_MAX, GROUP_COLUMNS_MAX, ORDER_COLUMNS_MAX, TABLES_MAX, TOP_MAX, ValueLimits},
    cells::{Cell, QuantileMethod},
    leading::{LeadBy, Leading},
    plan::{GroupColumn, OrderKey, Output, Plan, PlannedTable, RowColumn, Value},
};

/// The version of the form. A reader knows all versions up to its own.
const VERSION: u8 = 1;

impl Plan {
    /// The plan for a node in another process.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Each field by name, so that a new one cannot be forgotten here.
        let Self {
            tables,
            range,
            interval,
            filters,
            groups,
            cells,
            outputs,
            order,
            limit,
            groups_max,
            bytes_max,
            values,
            leading,
            round,
        } = self;
        let ValueLimits { auto_rows_max, values_max, leading_max } = *values;
        let mut out = Writer::default();
        out.tag(VERSION);
        out.list(tables, write_table);
        out.signed(range.start().0);
        out.signed(range.end().0);
        out.option(*interval, |out, interval| out.signed(interval.micros()));
        out.list(filters, write_filter);
        out.list(groups, |out, group| {
            out.tag(matches!(group, GroupColumn::Table).into());
            out.text(group.name());
        });
        out.list(cells, write_cell);
        out.list(outputs, |out, Output { name, value }| {
            out.text(name);
            write_value(out, *value);
        });
        out.list(order, write_order);
        for size in [*limit, *groups_max, *bytes_max, leading_max] {
            out.number(size as u64);
        }
        out.number(auto_rows_max);
        out.number(values_max);
        out.option(*leading, |out, Leading { by, kept }| {
            out.number(kept as u64);
            out.option(by.cell(), |out, cell| out.number(cell as u64));
        });
        out.option(round.as_deref(), write_round);
        out.into_bytes()
    }

    /// The plan that [`Plan::to_bytes`] wrote.
    ///
    /// # Errors
    /// No plan is written like this, or a later version wrote it and used what this one does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new(bytes);
        read_version(&mut from, VERSION)?;
        let tables = from.list(TABLES_MAX, read_table)?;
        let (start, end) = (Timestamp(from.signed()?), Timestamp(from.signed()?));
        let range = TimeRange::new(start, end).ok_or(WireError::Invalid("a range is empty"))?;
        let interval = from.option(|from| {
            Interval::from_micros(from.signed()?).ok_or(WireError::Invalid("an interval is not positive"))
        })?;
        let filters = from.list(FILTERS_MAX, read_filter)?;
        let groups = from.list(GROUP_COLUMNS_MAX, read_group)?;
        let cells = from.list(AGGREGATES_MAX, read_cell)?;
        let outputs = from.list(AGGREGATES_MAX, |from| {
            Ok(Output { name: from.text()?.to_owned(), value: read_value(from, &cells)? })
        })?;
        let key = |from: &mut Reader<'_>| read_order(from, interval.is_some(), groups.len(), outputs.len());
        let order = from.list(ORDER_COLUMNS_MAX, key)?;
        let limit = from.size()?;
        // A merge gives groups numbers of 32 bits, of which the greatest means something else.
        let groups_max = from.number_upto(u64::from(u32::MAX) - 1)? as usize;
        let (bytes_max, leading_max) = (from.size()?, from.size()?);
        let values = ValueLimits { auto_rows_max: from.number()?, values_max: from.number()?, leading_max };
        let leading = from.option(|from| read_leading(from, &cells))?;
        let round = from.option(|from| read_round(from, groups.len(), cells.len()))?.map(Arc::new);
        if round.is_some() && !cells.iter().all(|cell| matches!(cell, Cell::Quantiles { .. })) {
            return Err(WireError::Invalid("a round looks for percentiles alone"));
        }
        from.finish()?;
        Ok(Self {
            tables,
            range,
            interval,
            filters,
            groups,
            cells,
            outputs,
            order,
            limit,
            groups_max,
            bytes_max,
            values,
            leading,
            round,
        })
    }
}

fn write_table(out: &mut Writer, table: &PlannedTable) {
    let PlannedTable { key: TableKey { tenant, table, generation }, name, partitions } = table;
    out.number(tenant.0);
    out.number(table.0);
    out.number(generation.0.into());
    out.text(&name.namespace);
    out.text(&name.table);
    out.list(partitions, |out, partition| out.number(partition.0.into()));
}

fn read_table(from: &mut Reader<'_>) -> Result<PlannedTable, WireError> {
    let key = TableKey {
        tenant: TenantId(from.number()?),
        table: TableId(from.number()?),
        generation: Generation(from.u32()?),
    };
    let name = TableName::new(from.text()?, from.text()?);
    Ok(PlannedTable { key, name, partitions: from.list(usize::MAX, |from| Ok(PartitionId(from.u32()?)))? })
}

fn read_group(from: &mut Reader<'_>) -> Result<GroupColumn, WireError> {
    let (is_table, name) = (from.flag()?, from.text()?);
    Ok(if is_table { GroupColumn::Table } else { GroupColumn::Dimension(name.to_owned()) })
}

/// Tags as in the canonical form.
fn write_cell(out: &mut Writer, cell: &Cell) {
    let (tag, column, value) = cell.canonical();
    out.tag(tag);
    out.text(column);
    match cell {
        Cell::Frequency { .. } => out.text(value),
        Cell::Quantiles { method, .. } => out.number(method.rows_max()),
        _ => {}
    }
}

fn read_cell(from: &mut Reader<'_>) -> Result<Cell, WireError> {
    let tag = from.tag()?;
    let column = from.text()?.to_owned();
    Ok(match tag {
        0 => Cell::PresentDimension(column),
        1 => Cell::PresentMetric(column),
        2 => Cell::Sum(column),
        3 => Cell::Min(column),
        4 => Cell::Max(column),
        5 => Cell::Moments(column),
        6 => Cell::Frequency { column, value: from.text()?.to_owned() },
        7 => Cell::Distinct(column),
        8 | 9 => Cell::Top { column, disjoint: tag == 9 },
        10 => Cell::Quantiles { column, method: QuantileMethod::Auto { rows_max: from.number()? } },
        11 => Cell::Quantiles { column, method: QuantileMethod::Exact { rows_max: from.number()? } },
        12 if from.number()? == 0 => Cell::Quantiles { column, method: QuantileMethod::Sketch },
        12 => return Err(WireError::Invalid("a sketch keeps no values")),
        13 => Cell::Digest(column),
        other => return Err(WireError::Unknown { what: "an aggregate of kind", number: other.into() }),
    })
}

fn write_value(out: &mut Writer, value: Value) {
    let tag = match value {
        Value::Rows => return out.tag(0),
        Value::Present(_) => 1,
        Value::Sum(_) => 2,
        Value::Avg(_) => 3,
        Value::Min(_) => 4,
        Value::Max(_) => 5,
        Value::Variance(_) => 6,
        Value::Stddev(_) => 7,
        Value::Percentile { .. } => 8,
        Value::Distinct(_) => 9,
        Value::Top { .. } => 10,
    };
    out.tag(tag);
    out.number(value.cell().map_or(0, |cell| cell as u64));
    match value {
        Value::Percentile { q, .. } => out.float(q),
        Value::Top { k, .. } => out.number(k as u64),
        _ => {}
    }
}

/// An output of one of these cells, which has to be of the kind that it comes from.
fn read_value(from: &mut Reader<'_>, cells: &[Cell]) -> Result<Value, WireError> {
    let tag = from.tag()?;
    if tag == 0 {
        return Ok(Value::Rows);
    }
    let cell = from.place(cells.len())?;
    let value = match tag {
        1 => Value::Present(cell),
        2 => Value::Sum(cell),
        3 => Value::Avg(cell),
        4 => Value::Min(cell),
        5 => Value::Max(cell),
        6 => Value::Variance(cell),
        7 => Value::Stddev(cell),
        8 => Value::Percentile { cell, q: from.float()? },
        9 => Value::Distinct(cell),
        10 => Value::Top { cell, k: from.size()? },
        other => return Err(WireError::Unknown { what: "an output of kind", number: other.into() }),
    };
    let fits = match (value, &cells[cell]) {
        (Value::Present(_), cell) => cell.counts(),
        (Value::Percentile { q, .. }, Cell::Quantiles { .. } | Cell::Digest(_)) => (0.0..=1.0).contains(&q),
        (Value::Sum(_) | Value::Avg(_), Cell::Sum(_))
        | (Value::Min(_), Cell::Min(_))
        | (Value::Max(_), Cell::Max(_))
        | (Value::Variance(_) | Value::Stddev(_), Cell::Moments(_))
        | (Value::Distinct(_), Cell::Distinct(_)) => true,
        (Value::Top { k, .. }, Cell::Top { .. }) => (1..=TOP_MAX as usize).contains(&k),
        _ => false,
    };
    if fits { Ok(value) } else { Err(WireError::Invalid("an output does not come from its cell")) }
}

fn write_order(out: &mut Writer, key: &OrderKey) {
    let OrderKey { column, descending } = *key;
    let (tag, at) = match column {
        RowColumn::Time => (0, 0),
        RowColumn::Group(at) => (1, at),
        RowColumn::Output(at) => (2, at),
    };
    out.tag(tag);
    out.number(at as u64);
    out.flag(descending);
}

fn read_order(from: &mut Reader<'_>, timed: bool, groups: usize, outputs: usize) -> Result<OrderKey, WireError> {
    let column = match from.tag()? {
        0 if timed && from.number()? == 0 => RowColumn::Time,
        1 => RowColumn::Group(from.place(groups)?),
        2 => RowColumn::Output(from.place(outputs)?),
        0 => return Err(WireError::Invalid("rows have no such column to be ordered by")),
        other => return Err(WireError::Unknown { what: "a column of kind", number: other.into() }),
    };
    Ok(OrderKey { column, descending: from.flag()? })
}

fn read_leading(from: &mut Reader<'_>, cells: &[Cell]) -> Result<Leading, WireError> {
    let kept = from.size()?;
    let by = match from.option(|from| from.place(cells.len()))? {
        None => LeadBy::Rows,
        Some(cell) => LeadBy::Cell(cell),
    };
    let counts = by.cell().is_none_or(|cell| cells[cell].counts());
    if kept > 0 && counts && cells.iter().all(Cell::is_plain) {
        Ok(Leading { by, kept })
    } else {
        Err(WireError::Invalid("groups do not lead by such a count"))
    }
}
