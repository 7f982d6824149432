//! Answers held against what is true.

use std::collections::HashMap;

use serde_json::Value;

use crate::oracle::Expected;

/// Whether an answer has the expected rows; what is wrong with it otherwise.
///
/// # Errors
/// A row is missing, too many, or has another number.
pub(crate) fn compare(answer: &Value, expected: &[Expected]) -> Result<(), String> {
    if answer["receipt"]["complete"] != Value::Bool(true) {
        return Err(format!("the answer is not complete: {}", answer["receipt"]));
    }
    let found: HashMap<String, Vec<f64>> = rows(answer).into_iter().collect();
    if found.len() != expected.len() {
        return Err(format!("{} rows instead of {}", found.len(), expected.len()));
    }
    for row in expected {
        let numbers = found.get(&row.key).ok_or_else(|| format!("no row {:?}", row.key))?;
        let near = |(&found, &(want, off)): (&f64, &(f64, f64))| (found - want).abs() <= off * want.abs();
        if numbers.len() != row.numbers.len() || !numbers.iter().zip(&row.numbers).all(near) {
            return Err(format!("{:?}: {numbers:?} instead of {:?}", row.key, row.numbers));
        }
    }
    Ok(())
}

/// The rows of an answer: the texts and the time of each as its key, and its numbers. A list of the most frequent values is
/// a row per value.
fn rows(answer: &Value) -> Vec<(String, Vec<f64>)> {
    let mut rows = Vec::new();
    for row in answer["rows"].as_array().into_iter().flatten() {
        let (mut key, mut numbers) = (Vec::new(), Vec::new());
        for (name, value) in row.as_object().into_iter().flatten() {
            match value {
                Value::String(text) => key.push((place(name), text.clone())),
                Value::Number(number) if name == "time" => key.push((0, number.to_string())),
                Value::Number(number) => numbers.push((place(name), number.as_f64().unwrap_or(f64::NAN))),
                Value::Array(list) => {
                    let entry = |entry: &Value| {
                        let value = entry["value"].as_str().unwrap_or_default().to_owned();
                        (value, vec![entry["count"].as_f64().unwrap_or(f64::NAN)])
                    };
                    rows.extend(list.iter().map(entry));
                }
                _ => numbers.push((usize::MAX, f64::NAN)),
            }
        }
        if !key.is_empty() || !numbers.is_empty() {
            key.sort_unstable();
            numbers.sort_by_key(|(place, _)| *place);
            let key: Vec<_> = key.into_iter().map(|(_, text)| text).collect();
            rows.push((key.join("|"), numbers.into_iter().map(|(_, number)| number).collect()));
        }
    }
    rows
}

/// Where a column stands in an expected row: JSON objects are in no order.
fn place(name: &str) -> usize {
    const ORDER: [&str; 9] =
        ["region", "event_type", "product", "count", "sum_revenue", "p50", "p95", "p99", "distinct_user_id"];
    ORDER.iter().position(|known| name == *known || name.starts_with(&format!("{known}_"))).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Goal: an answer that lacks a row, has one too many or another number is found out.
    #[test]
    fn wrong_answers_are_found_out() {
        let answer = json!({"receipt": {"complete": true}, "rows": [
            {"sum_revenue": 3.0, "region": "a", "count": 2}, {"region": "b", "count": 1, "sum_revenue": 0.5}]});
        let row =
            |key: &str, count: f64, sum: f64| Expected { key: key.into(), numbers: vec![(count, 0.0), (sum, 1e-9)] };
        let good = [row("a", 2.0, 3.0), row("b", 1.0, 0.5)];
        assert_eq!(compare(&answer, &good), Ok(()));
        assert!(compare(&answer, &good[..1]).is_err());
        assert!(compare(&answer, &[row("a", 2.0, 3.0), row("c", 1.0, 0.5)]).is_err());
        assert!(compare(&answer, &[row("a", 3.0, 3.0), row("b", 1.0, 0.5)]).is_err());
        assert!(compare(&answer, &[row("a", 2.0, 3.0), row("b", 1.0, 0.500_001)]).is_err());
        let list = json!({"receipt": {"complete": true}, "rows": [{"top_user": [{"value": "x", "count": 7}]}]});
        assert_eq!(compare(&list, &[Expected::count(&["x"], 7)]), Ok(()));
        assert!(compare(&list, &[Expected::count(&["x"], 8)]).is_err());
        assert!(compare(&json!({"rows": []}), &[]).is_err(), "not complete");
    }
}
