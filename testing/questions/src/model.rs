//! Queries as anybody would answer them from a list of rows: no index, no code, no order of additions to keep.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Map, Value};

use crate::Row;

/// A group's key: the start of its bucket, then the group columns.
pub type Key = (i64, Vec<Option<String>>);

fn value_of(row: &Row, column: &str) -> Value {
    match (row.dimensions.get(column), row.metrics.get(column)) {
        (Some(text), _) => Value::from(text.as_str()),
        (_, Some(number)) => Value::from(*number),
        _ => Value::Null,
    }
}

/// Compares a row's value with one of a filter: text by bytes, a scalar taken as its text; numbers as numbers.
fn compare(value: &Value, with: &Value) -> Option<Ordering> {
    match value {
        Value::String(text) => {
            let with = with.as_str().map_or_else(|| with.to_string(), str::to_owned);
            Some(text.as_bytes().cmp(with.as_bytes()))
        }
        _ => value.as_f64()?.partial_cmp(&with.as_f64()?),
    }
}

fn passes(value: &Value, condition: &Value) -> bool {
    let any_of = |values: &[Value]| values.iter().any(|with| compare(value, with) == Some(Ordering::Equal));
    match condition {
        Value::Array(values) => any_of(values),
        Value::Object(operators) => operators.iter().all(|(name, operand)| {
            let order = || compare(value, operand);
            match name.as_str() {
                "exists" => operand.as_bool() == Some(!value.is_null()),
                "ne" => order() != Some(Ordering::Equal),
                "not_in" => !any_of(operand.as_array().unwrap()),
                "eq" => order() == Some(Ordering::Equal),
                "in" => any_of(operand.as_array().unwrap()),
                "gt" => order() == Some(Ordering::Greater),
                "gte" => order().is_some_and(Ordering::is_ge),
                "lt" => order() == Some(Ordering::Less),
                "lte" => order().is_some_and(Ordering::is_le),
                "prefix" => value.as_str().is_some_and(|text| text.starts_with(operand.as_str().unwrap())),
                other => panic!("no operator {other}"),
            }
        }),
        scalar => compare(value, scalar) == Some(Ordering::Equal),
    }
}

fn tables(query: &Value) -> Vec<String> {
    let name = |table: &Value| format!("{}.{}", table["namespace"].as_str().unwrap(), table["table"].as_str().unwrap());
    query["tables"].as_array().map_or_else(|| vec![name(query)], |list| list.iter().map(name).collect())
}

fn table_name(row: &Row) -> &'static str {
    if row.table == 0 { "shop.events" } else { "shop.more" }
}

/// The names of the group columns.
#[must_use]
pub fn group_columns(query: &Value) -> Vec<String> {
    let list = query["group_by"].as_array();
    list.map_or(Vec::new(), |list| list.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
}

/// The rows of each group, in the canonical order of groups.
#[must_use]
pub fn groups<'a>(rows: &'a [Row], query: &Value) -> BTreeMap<Key, Vec<&'a Row>> {
    let tables = tables(query);
    let (start, end) = (query["start_time"].as_i64().unwrap(), query["end_time"].as_i64().unwrap());
    let none = Map::new();
    let filters = query["filters"].as_object().unwrap_or(&none);
    let (interval, columns) = (query["interval_us"].as_i64(), group_columns(query));
    let mut groups: BTreeMap<Key, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let inside = start <= row.time && row.time < end && tables.iter().any(|table| table == table_name(row));
        if inside && filters.iter().all(|(column, condition)| passes(&value_of(row, column), condition)) {
            let bucket = interval.map_or(0, |interval| row.time.div_euclid(interval) * interval);
            let key = columns.iter().map(|column| match column.as_str() {
                "table" => Some(table_name(row).to_owned()),
                name => row.dimensions.get(name).cloned(),
            });
            groups.entry((bucket, key.collect())).or_default().push(row);
        }
    }
    if interval.is_none() && columns.is_empty() {
        groups.entry((0, Vec::new())).or_default();
    }
    groups
}

/// Whether a cell of an answer is right for the rows of its group, by what its column says of itself.
#[must_use]
pub fn holds(got: &Value, aggregate: &Value, rows: &[&Row], described: &Value) -> bool {
    let fn_name = aggregate["fn"].as_str().unwrap();
    let column = aggregate["metric"].as_str().or(aggregate["dimension"].as_str());
    let Some(column) = column else { return got.as_u64() == Some(rows.len() as u64) };
    let exact = described["exact"] == true;
    match fn_name {
        "count" => {
            let present = rows.iter().filter(|row| !value_of(row, column).is_null()).count();
            exact && got.as_u64() == Some(present as u64)
        }
        "frequency" => {
            let value = aggregate["value"].as_str().unwrap();
            let found = rows.iter().filter(|row| row.dimensions.get(column).is_some_and(|is| is == value)).count();
            exact && got.as_u64() == Some(found as u64)
        }
        "distinct" => holds_distinct(got, rows, column, described),
        "top" => holds_top(got, rows, column, aggregate["k"].as_u64().unwrap() as usize, described),
        "percentile" => holds_percentile(got, aggregate, rows, column, described),
        _ => exact && holds_number(got, fn_name, rows, column),
    }
}

fn holds_distinct(got: &Value, rows: &[&Row], column: &str, described: &Value) -> bool {
    let distinct: BTreeSet<_> = rows.iter().filter_map(|row| row.dimensions.get(column)).collect();
    let (got, want) = (got.as_u64().unwrap(), distinct.len() as u64);
    if want <= 1_000 || described["exact"] == true {
        return got == want;
    }
    let off = described["bound"]["value"].as_f64().unwrap() * want as f64;
    described["bound"]["kind"] == "relative" && (got as f64 - want as f64).abs() <= off
}

fn holds_top(got: &Value, rows: &[&Row], column: &str, k: usize, described: &Value) -> bool {
    let mut counts = BTreeMap::<&str, u64>::new();
    for value in rows.iter().filter_map(|row| row.dimensions.get(column)) {
        *counts.entry(value).or_default() += 1;
    }
    let mut want: Vec<_> = counts.iter().map(|(&value, &count)| (value, count)).collect();
    want.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.as_bytes().cmp(b.0.as_bytes())));
    want.truncate(k);
    let got: Vec<_> =
        got.as_array().unwrap().iter().map(|v| (v["value"].as_str().unwrap(), v["count"].as_u64().unwrap())).collect();
    if described["exact"] == true {
        return got == want;
    }
    let off = (described["bound"]["value"].as_f64().unwrap() * rows.len() as f64) as u64 + 1;
    let least = want.last().map_or(0, |&(_, count)| count);
    described["bound"]["kind"] == "absolute"
        && got.len() == want.len()
        && got.is_sorted_by(|a, b| a.1 > b.1 || a.1 == b.1 && a.0 < b.0)
        && got.iter().all(|(value, count)| counts[value].abs_diff(*count) <= off && counts[value] + off >= least)
}

fn holds_percentile(got: &Value, aggregate: &Value, rows: &[&Row], column: &str, described: &Value) -> bool {
    let mut values: Vec<f64> = rows.iter().filter_map(|row| row.metrics.get(column).copied()).collect();
    if values.is_empty() {
        return got.is_null();
    }
    values.sort_by(f64::total_cmp);
    let (got, q, n) = (got.as_f64().unwrap(), aggregate["q"].as_f64().unwrap(), values.len());
    // In thousandths, in which the test's quantiles are whole.
    let rank = ((q * 1_000.0).round() as usize * n).div_ceil(1_000).saturating_sub(1);
    match aggregate["method"].as_str().unwrap() {
        "tdigest" => {
            let share = |count: usize| count as f64 / n as f64;
            let (below, upto) = (values.partition_point(|v| *v < got), values.partition_point(|v| *v <= got));
            let slack = 0.01 + 2.0 / n as f64;
            described["exact"] == false
                && described["bound"]["kind"] == "none"
                && (values[0]..=values[n - 1]).contains(&got)
                && (share(below) - slack..=share(upto) + slack).contains(&q)
        }
        method if described["exact"] == true => method != "sketch" && got == values[rank],
        method => {
            let off = described["bound"]["value"].as_f64().unwrap() * values[rank].abs();
            method != "exact" && described["bound"]["kind"] == "relative" && (got - values[rank]).abs() <= off
        }
    }
}

fn holds_number(got: &Value, fn_name: &str, rows: &[&Row], column: &str) -> bool {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.metrics.get(column).copied()).collect();
    if values.is_empty() {
        return got.is_null();
    }
    let Some(got) = got.as_f64() else { return false };
    let count = values.len() as f64;
    let absolute: f64 = values.iter().map(|value| value.abs()).sum();
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    let mean_square = values.iter().map(|value| value * value).sum::<f64>() / count;
    match fn_name {
        "sum" => (got - values.iter().sum::<f64>()).abs() <= 1e-12 * absolute,
        "avg" => (got - mean).abs() <= 1e-12 * absolute / count,
        "min" => got == values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => got == values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "variance" => got >= 0.0 && (got - variance).abs() <= 1e-9 * mean_square,
        "stddev" => got >= 0.0 && (got * got - variance).abs() <= 1e-9 * mean_square,
        other => panic!("no function {other}"),
    }
}

/// The contract's default name of an aggregate.
#[must_use]
pub fn name_of(aggregate: &Value) -> String {
    let column = aggregate["metric"].as_str().or(aggregate["dimension"].as_str());
    let fn_name = aggregate["fn"].as_str().unwrap();
    if let Some(name) = aggregate["as"].as_str() {
        return name.to_owned();
    }
    column.map_or(fn_name.to_owned(), |column| format!("{fn_name}_{column}"))
}
