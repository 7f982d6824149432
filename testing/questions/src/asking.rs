//! Random questions about tables of random rows.

use serde_json::{Map, Value, json};

use crate::{Random, Row, model};

/// The metrics that questions ask about; of the last one the tables know, and no row has it.
pub const METRICS: [&str; 3] = ["value", "latency", "unseen"];

/// Their dimensions. `late` is of the second table alone.
#[must_use]
pub fn dimensions(several: bool) -> Vec<&'static str> {
    let mut names = vec!["region", "user", "flag"];
    names.extend(several.then_some("late"));
    names
}

/// A column, and a condition on it that some of `rows` are likely to meet.
pub fn random_filter(random: &mut Random, rows: &[Row], several: bool) -> (&'static str, Value) {
    if random.chance(70) {
        let column = random.pick(&dimensions(several));
        let row = random.pick(rows);
        let value = row.dimensions.get(column).cloned().unwrap_or_else(|| "nobody".to_owned());
        let first: String = value.chars().take(2).collect();
        let some: Vec<Value> = (0..1 + random.below(7))
            .map(|_| random.pick(rows).dimensions.get(column).map_or(json!(true), |value| json!(value)))
            .collect();
        let condition = match random.below(12) {
            0 => json!(value),
            1 => json!({"exists": false}),
            2 => json!({"exists": true}),
            3 => json!({"ne": value}),
            4 => json!(some),
            5 => json!({"prefix": first}),
            6 => json!({"not_in": some}),
            7 => json!({"gte": value}),
            8 => json!({"gt": "r2", "lt": value}),
            9 => json!({"lte": value, "not_in": some, "exists": true}),
            10 => random.pick(&[json!(42), json!(true), json!([42, false]), json!({"in": []}), json!({"not_in": []})]),
            _ => json!({"in": some, "ne": value, "prefix": first}),
        };
        return (column, condition);
    }
    let column = random.pick(&METRICS);
    let value = random.pick(rows).metrics.get(column).copied().unwrap_or(3.0);
    let condition = match random.below(9) {
        0 => json!(value),
        1 => json!({"gt": value}),
        2 => json!({"gte": value, "lt": value + 10.0}),
        3 => json!({"lte": value, "ne": 0.0}),
        4 => json!({"exists": true}),
        5 => json!({"exists": false}),
        6 => json!([value, 7, 11.5]),
        7 => json!({"not_in": [value, 7]}),
        _ => json!({"lt": value}),
    };
    (column, condition)
}

/// Which tables a question may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The first.
    First,
    /// Either, or both.
    Any,
}

/// A question, over times from 0 to `span_us` or all times.
pub fn random_query(random: &mut Random, rows: &[Row], span_us: i64, tables: Tables) -> Value {
    let several = tables == Tables::Any && random.chance(30);
    let mut query = Map::new();
    if several {
        let (a, b) = (json!({"namespace": "shop", "table": "events"}), json!({"namespace": "shop", "table": "more"}));
        query.insert("tables".into(), if random.chance(50) { json!([a, b]) } else { json!([b, a]) });
    } else {
        let names = if tables == Tables::Any { &["events", "events", "more"][..] } else { &["events"] };
        query.insert("namespace".into(), json!("shop"));
        query.insert("table".into(), json!(random.pick(names)));
    }
    let late = query.get("table") == Some(&json!("more"));
    let (a, b) = (random.below(span_us as usize) as i64, random.below(span_us as usize) as i64);
    let (start, end) = if random.chance(40) { (i64::MIN, i64::MAX) } else { (a.min(b), a.max(b) + 1) };
    query.insert("start_time".into(), json!(start));
    query.insert("end_time".into(), json!(end));
    let filters: Map<String, Value> = (0..random.pick(&[0, 0, 1, 1, 2, 3]))
        .map(|_| random_filter(random, rows, several || late))
        .map(|(column, condition)| (column.to_owned(), condition))
        .collect();
    query.insert("filters".into(), json!(filters));
    let mut groups: Vec<&str> = dimensions(several || late);
    groups.extend(several.then_some("table"));
    random.shuffle(&mut groups);
    groups.truncate(random.pick(&[0, 0, 1, 1, 2, 3]));
    query.insert("group_by".into(), json!(groups));
    if random.chance(40) {
        query.insert("interval_us".into(), json!(random.pick(&[1, 7, 100, 1_000, 1_000_000])));
    }
    let menu = random_aggregates(random, rows, several || late);
    let mut keys: Vec<String> = groups.iter().map(|&name| name.to_owned()).collect();
    // Floats of the model may differ in the last bit, so the order is asked by what is exact.
    let exact = |aggregate: &&Value| {
        ["count", "min", "max", "distinct", "frequency"].contains(&aggregate["fn"].as_str().unwrap())
    };
    keys.extend(menu.iter().filter(exact).map(model::name_of));
    if !keys.is_empty() && random.chance(40) {
        let order: Vec<Value> = (0..1 + random.below(2).min(keys.len() - 1))
            .map(|_| json!({"column": keys.swap_remove(random.below(keys.len())), "desc": random.chance(50)}))
            .collect();
        query.insert("order_by".into(), json!(order));
    }
    query.insert("aggregates".into(), json!(menu));
    query.insert("limit".into(), json!(random.pick(&[1_000_000, 1_000_000, 1, 3, 10])));
    Value::Object(query)
}

/// One to five of all that can be asked of a table, `late` or not.
fn random_aggregates(random: &mut Random, rows: &[Row], late: bool) -> Vec<Value> {
    let mut menu = vec![json!({"fn": "count"})];
    for name in ["sum", "avg", "min", "max", "count", "variance", "stddev"] {
        menu.extend(METRICS.iter().map(|metric| json!({"fn": name, "metric": metric})));
    }
    for name in dimensions(late) {
        menu.extend(["count", "distinct"].map(|of| json!({"fn": of, "dimension": name})));
        let value = random.pick(rows).dimensions.get(name).cloned().unwrap_or_else(|| "nobody".to_owned());
        menu.push(json!({"fn": "frequency", "dimension": name, "value": value}));
        menu.push(json!({"fn": "top", "dimension": name, "k": random.pick(&[1, 2, 5, 1_000])}));
    }
    for metric in METRICS {
        let q = random.pick(&[0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 1.0]);
        menu.extend(["auto", "exact", "sketch", "tdigest"].map(|method| {
            json!({"fn": "percentile", "metric": metric, "q": q, "method": method, "as": format!("{method}_{metric}")})
        }));
    }
    random.shuffle(&mut menu);
    menu.truncate(1 + random.below(5));
    menu
}
