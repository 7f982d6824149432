//! From a query and its tables to a plan: columns found, kinds checked, names settled.

use std::sync::Arc;

use types::{ApiError, ColumnKind, Table};

use crate::{
    ast::{Aggregate, Filter, Function, Method, Over, Query, ValueLimits},
    cells::{Cell, QuantileMethod},
    json::shown,
    leading::Leading,
    plan::{ColumnFilter, GroupColumn, OrderKey, Output, Plan, PlannedTable, RowColumn, Test, Value},
    predicate::{DimensionTest, MetricTest},
};

/// The name of the column of bucket starts.
pub(crate) const TIME: &str = "time";
const TABLE: &str = "table";
/// Names listed in an error, at most.
const NAMES_LISTED_MAX: usize = 64;

/// Resolves a query against its tables, which stand in the order of `query.tables`.
///
/// # Errors
/// `INVALID_ARGUMENT` with the column or output at fault as its field: unknown, of the wrong kind, named twice.
pub fn plan(query: &Query, tables: &[Arc<Table>]) -> Result<Plan, ApiError> {
    let columns = Columns { tables };
    let mut filters =
        query.filters.iter().map(|filter| column_filter(&columns, filter)).collect::<Result<Vec<_>, _>>()?;
    // All must hold, so their order means nothing: equal plans are equal bytes.
    filters.sort_by(|a, b| a.column.cmp(&b.column));
    let groups = query
        .group_by
        .iter()
        .map(|name| {
            if query.several && name == TABLE {
                return Ok(GroupColumn::Table);
            }
            columns.expect(name, ColumnKind::Dimension, "group_by")?;
            Ok(GroupColumn::Dimension(name.clone()))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let mut cells = Vec::new();
    let mut outputs = Vec::with_capacity(query.aggregates.len());
    for aggregate in &query.aggregates {
        outputs.push(Output {
            name: aggregate.name.clone(),
            value: lower(&columns, aggregate, query.values, &mut cells)?,
        });
    }
    let names = row_columns(query, &groups, &outputs)?;
    let order = query.order_by.iter().map(|key| {
        let known = names.iter().find(|(name, _)| *name == key.column);
        let Some(&(_, column)) = known else {
            let listed = list(names.iter().map(|(name, _)| *name));
            let message = format!("order_by: unknown column {}; the rows have {listed}", shown(&key.column));
            return Err(ApiError::invalid(&key.column, message));
        };
        if let RowColumn::Output(at) = column
            && let Value::Top { .. } = outputs[at].value
        {
            let message = format!("order_by: {} is a list, by which rows have no order", shown(&key.column));
            return Err(ApiError::invalid(&key.column, message));
        }
        Ok(OrderKey { column, descending: key.descending })
    });
    let order = order.collect::<Result<Vec<_>, _>>()?;
    let leading = Leading::of(&cells, &outputs, &order, query.limit, query.values.leading_max);
    Ok(Plan {
        leading: leading.filter(|_| !groups.is_empty()),
        tables: tables
            .iter()
            .map(|table| PlannedTable {
                key: table.key,
                name: table.name.clone(),
                partitions: table.partitions.clone(),
            })
            .collect(),
        range: query.range,
        interval: query.interval,
        filters,
        groups,
        cells,
        outputs,
        order,
        limit: query.limit,
        groups_max: query.groups_max,
        bytes_max: query.bytes_max,
        values: query.values,
        round: None,
    })
}

/// The columns of all tables of a query.
struct Columns<'a> {
    tables: &'a [Arc<Table>],
}

impl Columns<'_> {
    /// The kind of a column, which is one in all tables that have it.
    fn kind(&self, name: &str) -> Result<ColumnKind, ApiError> {
        let mut found = None;
        for kind in self.tables.iter().filter_map(|table| table.schema.kind_of(name)) {
            if found.is_some_and(|known| known != kind) {
                let message = format!("{} is a dimension in one of the tables and a metric in another", shown(name));
                return Err(ApiError::invalid(name, message));
            }
            found = Some(kind);
        }
        found.ok_or_else(|| {
            let mut names: Vec<&str> = Vec::new();
            for column in self.tables.iter().flat_map(|table| table.schema.columns()) {
                if !names.contains(&column.name.as_str()) {
                    names.push(&column.name);
                }
            }
            let listed = if names.is_empty() { "none yet".to_owned() } else { list(names.into_iter()) };
            ApiError::invalid(name, format!("unknown column {}; the columns are: {listed}", shown(name)))
        })
    }

    /// Whether no value of the dimension stands in more than one partition.
    fn is_partitioned_by(&self, name: &str) -> bool {
        matches!(self.tables, [table] if table.partition_by.as_deref() == Some(name))
    }

    /// Checks that a column is of the kind that `what` needs.
    fn expect(&self, name: &str, kind: ColumnKind, what: &str) -> Result<(), ApiError> {
        match self.kind(name)? {
            is if is == kind => Ok(()),
            is => Err(ApiError::invalid(name, format!("{what} needs a {kind}, {} is a {is}", shown(name)))),
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let mut text = names[..names.len().min(NAMES_LISTED_MAX)].join(", ");
    if names.len() > NAMES_LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_LISTED_MAX));
    }
    text
}

fn column_filter(columns: &Columns<'_>, filter: &Filter) -> Result<ColumnFilter, ApiError> {
    let test = match columns.kind(&filter.column)? {
        ColumnKind::Dimension => Test::Dimension(DimensionTest::new(filter)?),
        ColumnKind::Metric => Test::Metric(MetricTest::new(filter)?),
    };
    Ok(ColumnFilter { column: filter.column.clone(), test })
}

/// All columns of a row in their order, by name.
fn row_columns<'a>(
    query: &Query,
    groups: &'a [GroupColumn],
    outputs: &'a [Output],
) -> Result<Vec<(&'a str, RowColumn)>, ApiError> {
    let time = query.interval.map(|_| (TIME, RowColumn::Time));
    let groups = groups.iter().enumerate().map(|(at, group)| (group.name(), RowColumn::Group(at)));
    let outputs = outputs.iter().enumerate().map(|(at, output)| (output.name.as_str(), RowColumn::Output(at)));
    let names: Vec<_> = time.into_iter().chain(groups).chain(outputs).collect();
    for (at, (name, _)) in names.iter().enumerate() {
        if names[..at].iter().any(|(known, _)| known == name) {
            let message = format!("two outputs are named {}; give one another name with as", shown(name));
            return Err(ApiError::invalid(*name, message));
        }
    }
    Ok(names)
}

/// Finds or adds the cells that an aggregate comes from: aggregates of one column share them.
fn lower(
    columns: &Columns<'_>,
    aggregate: &Aggregate,
    values: ValueLimits,
    cells: &mut Vec<Cell>,
) -> Result<Value, ApiError> {
    let column = match &aggregate.over {
        Over::Rows => return Ok(Value::Rows),
        Over::Metric(name) => {
            columns.expect(name, ColumnKind::Metric, &aggregate.name)?;
            name
        }
        Over::Dimension(name) => {
            columns.expect(name, ColumnKind::Dimension, &aggregate.name)?;
            name
        }
    };
    let mut cell = |cell: Cell| {
        cells.iter().position(|known| *known == cell).unwrap_or_else(|| {
            cells.push(cell);
            cells.len() - 1
        })
    };
    let column = column.clone();
    Ok(match (&aggregate.function, &aggregate.over) {
        (Function::Count, Over::Dimension(_)) => Value::Present(cell(Cell::PresentDimension(column))),
        (Function::Count, _) => Value::Present(cell(Cell::PresentMetric(column))),
        (Function::Sum, _) => Value::Sum(cell(Cell::Sum(column))),
        (Function::Avg, _) => Value::Avg(cell(Cell::Sum(column))),
        (Function::Min, _) => Value::Min(cell(Cell::Min(column))),
        (Function::Max, _) => Value::Max(cell(Cell::Max(column))),
        (Function::Variance, _) => Value::Variance(cell(Cell::Moments(column))),
        (Function::Stddev, _) => Value::Stddev(cell(Cell::Moments(column))),
        (&Function::Percentile { q, method }, _) => {
            let source = match method {
                Method::Auto => {
                    Cell::Quantiles { column, method: QuantileMethod::Auto { rows_max: values.auto_rows_max } }
                }
                Method::Exact => {
                    Cell::Quantiles { column, method: QuantileMethod::Exact { rows_max: values.values_max } }
                }
                Method::Sketch => Cell::Quantiles { column, method: QuantileMethod::Sketch },
                Method::TDigest => Cell::Digest(column),
            };
            Value::Percentile { cell: cell(source), q }
        }
        (Function::Distinct, _) => Value::Distinct(cell(Cell::Distinct(column))),
        (&Function::Top { k }, _) => {
            let disjoint = columns.is_partitioned_by(&column);
            Value::Top { cell: cell(Cell::Top { column, disjoint }), k: k as usize }
        }
        (Function::Frequency { value }, _) => Value::Present(cell(Cell::Frequency { column, value: value.clone() })),
    })
}
