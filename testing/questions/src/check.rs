//! Whether an answer is the model's.

use std::cmp::Ordering;

use serde_json::Value;

use crate::{Row, model};

/// Goes on where something holds; else says what is wrong.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// The parts of an answer that the model knows.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The list of rows.
    pub rows: &'a [Value],
    /// The descriptions of the aggregates.
    pub columns: &'a [Value],
    /// Whether there are more rows than the limit.
    pub truncated: bool,
}

/// Holds an answer to a question of [`crate::random_query`]'s kind against all rows that there are. Floats may differ as they
/// may between plans; what is not exact, by the bound that its column names.
///
/// # Errors
/// What is wrong with it.
pub fn check(rows: &[Row], query: &Value, answer: Answered<'_>) -> Result<(), String> {
    let expected = model::groups(rows, query);
    let limit = query["limit"].as_u64().unwrap() as usize;
    let (got, want) = (answer.rows.len(), expected.len().min(limit));
    ensure!(got == want, "{got} rows, not {want}, for {query}");
    ensure!(answer.truncated == (expected.len() > limit), "truncated is {} for {query}", answer.truncated);
    let columns = model::group_columns(query);
    let timed = query["interval_us"].is_i64();
    let mut numbered = Vec::new();
    for row in answer.rows {
        let key: Vec<Option<String>> = columns.iter().map(|name| row[name].as_str().map(str::to_owned)).collect();
        let key = (if timed { row["time"].as_i64().unwrap() } else { 0 }, key);
        ensure!(row["time"].is_null() != timed, "the time of {row} for {query}");
        let Some(group) = expected.get(&key) else { return Err(format!("no group {key:?} for {query}")) };
        numbered.push((row, expected.range(..&key).count()));
        for aggregate in query["aggregates"].as_array().unwrap() {
            let name = model::name_of(aggregate);
            let (got, described) = (row.get(&name), answer.columns.iter().find(|column| column["name"] == name));
            let (Some(got), Some(described)) = (got, described) else { return Err(format!("{name} is missing")) };
            let holds = model::holds(got, aggregate, group, described);
            ensure!(holds, "{name} is {got} in {key:?} for {query}, by {described}");
        }
    }
    ensure!(numbered.is_sorted_by(|&a, &b| order(query, a, b).is_lt()), "the order of rows for {query}");
    Ok(())
}

/// Orders two rows of an answer by what the query asked, then by the place of their groups in canonical order.
fn order(query: &Value, (a, a_at): (&Value, usize), (b, b_at): (&Value, usize)) -> Ordering {
    let keys = query["order_by"].as_array().map_or(&[][..], Vec::as_slice);
    for key in keys {
        let column = key["column"].as_str().unwrap();
        let order = match (&a[column], &b[column]) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Less,
            (_, Value::Null) => Ordering::Greater,
            (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (a, b) => a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()),
        };
        let order = if key["desc"] == true { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    a_at.cmp(&b_at)
}
