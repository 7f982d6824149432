//! An answer as a table, with its receipt as the last line.

use serde_json::Value;

use crate::table_text::{self, thousands};

/// The rows as a table and the receipt under it.
pub(crate) fn as_table(query: &Value, answer: &Value) -> String {
    let rows = answer["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let head = head(query, answer, rows);
    let body: Vec<Vec<String>> =
        rows.iter().map(|row| head.iter().map(|name| cell(name, &row[name])).collect()).collect();
    let mut text = if head.is_empty() { String::new() } else { table_text::render(&head, &body) };
    text.push_str(&receipt(answer, rows.len()));
    text
}

/// Columns in reading order: time, what was grouped by, the functions, and whatever else the rows hold.
fn head(query: &Value, answer: &Value, rows: &[Value]) -> Vec<String> {
    let mut head: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !head.iter().any(|known| known == name) {
            head.push(name.to_owned());
        }
    };
    if query.get("interval_us").is_some_and(|interval| !interval.is_null()) {
        add("time");
    }
    let names = |list: &Value, key: Option<&str>| -> Vec<String> {
        let items = list.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(|item| key.map_or(item, |key| &item[key]).as_str().map(str::to_owned)).collect()
    };
    names(&query["group_by"], None).iter().for_each(|name| add(name));
    names(&answer["columns"], Some("name")).iter().for_each(|name| add(name));
    rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys()).for_each(|name| add(name));
    head
}

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        Value::Number(number) if name == "time" => number.as_i64().map_or_else(|| number.to_string(), time),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(integer), _) => thousands(integer),
            (None, Some(float)) => trimmed(float),
            (None, None) => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// At most six decimals, without trailing zeros: a table is for reading, `--json` has every digit.
fn trimmed(number: f64) -> String {
    if number != 0.0 && (number.abs() < 1e-4 || number.abs() >= 1e15) {
        return format!("{number:e}");
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_out_of_range| micros.to_string(), |time| time.to_string())
}

/// The receipt in one line: whether all is there, as of when, how exact and how fast.
fn receipt(answer: &Value, rows: usize) -> String {
    let (receipt, stats) = (&answer["receipt"], &answer["stats"]);
    let mut parts = vec![format!("{} {}", thousands(rows as u64), if rows == 1 { "row" } else { "rows" })];
    parts.push(match receipt["complete"].as_bool() {
        Some(true) => "complete".to_owned(),
        _ => format!("NOT COMPLETE, missing {}", receipt["missing"]),
    });
    if receipt["truncated"].as_bool() == Some(true) {
        parts.push("cut by limit".to_owned());
    }
    parts.push(exactness(&answer["columns"]));
    if let Some(freshness) = receipt["freshness_us"].as_i64() {
        parts.push(format!("fresh to {}", millis(freshness)));
    }
    if let Some(watermark) = receipt["watermark_us"].as_i64() {
        parts.push(format!("watermark {}", time(watermark)));
    }
    if let Some(offsets) = receipt["offsets"].as_object() {
        let offsets: Vec<String> = offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        parts.push(format!("covers offsets {}", offsets.join(" ")));
    }
    if let (Some(elapsed), Some(scanned)) = (stats["elapsed_us"].as_i64(), stats["rows_scanned"].as_u64()) {
        parts.push(format!("{} for {} rows scanned", millis(elapsed), thousands(scanned)));
    }
    format!("receipt: {}\n", parts.join(", "))
}

fn exactness(columns: &Value) -> String {
    let columns = columns.as_array().map_or(&[][..], Vec::as_slice);
    let inexact: Vec<String> = columns
        .iter()
        .filter(|column| column["exact"].as_bool() == Some(false))
        .map(|column| format!("{} ({})", column["name"].as_str().unwrap_or("?"), column["bound"]))
        .collect();
    if inexact.is_empty() { "exact".to_owned() } else { format!("approximate: {}", inexact.join(", ")) }
}

fn millis(micros: i64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Goal: columns come in reading order, times are readable, and the receipt says what the answer says of itself.
    #[test]
    fn answers_read_as_tables() {
        let query = json!({"interval_us": 60_000_000, "group_by": ["product"]});
        let answer = json!({
            "rows": [{"time": 1_754_772_360_000_000_i64, "product": null, "count": 1234, "income": 37.50}],
            "columns": [{"name": "count", "exact": true}, {"name": "income", "exact": true}],
            "receipt": {"complete": true, "missing": [], "truncated": true, "watermark_us": 0, "freshness_us": 1800,
                        "offsets": {"0": 184}},
            "stats": {"elapsed_us": 640, "rows_scanned": 180_221},
        });
        let text = as_table(&query, &answer);
        assert!(text.contains("| time                 | product | count | income |"), "{text}");
        assert!(text.contains("| 2025-08-09T20:46:00Z |    null | 1,234 |   37.5 |"), "{text}");
        let receipt = "receipt: 1 row, complete, cut by limit, exact, fresh to 1.800 ms, watermark 1970-01-01T00:00:00Z, \
                       covers offsets 0:184, 0.640 ms for 180,221 rows scanned\n";
        assert!(text.ends_with(receipt), "{text}");
    }

    /// Goal: what is missing or approximate is said as loudly as the figures.
    #[test]
    fn doubts_are_shown() {
        let answer = json!({
            "rows": [], "columns": [{"name": "p99", "exact": false, "bound": {"kind": "none"}}],
            "receipt": {"complete": false, "missing": [{"partition": 3, "why": "unreachable"}]},
        });
        let text = as_table(&json!({}), &answer);
        assert!(text.contains(r#"NOT COMPLETE, missing [{"partition":3,"why":"unreachable"}]"#), "{text}");
        assert!(text.contains(r#"approximate: p99 ({"kind":"none"})"#), "{text}");
    }
}
