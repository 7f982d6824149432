//! Random questions, and whether an answer is the model's.

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::{Map, Value, json};

use super::{Random, World, model};

pub(crate) const METRICS: [&str; 3] = ["value", "latency", "unseen"];

pub(crate) fn dimensions(several: bool) -> Vec<&'static str> {
    let mut names = vec!["region", "user", "flag"];
    names.extend(several.then_some("late"));
    names
}

pub(crate) fn random_filter(random: &mut Random, world: &World, several: bool) -> (&'static str, Value) {
    if random.chance(70) {
        let column = random.pick(&dimensions(several));
        let row = random.pick(&world.rows);
        let value = row.dimensions.get(column).cloned().unwrap_or_else(|| "nobody".to_owned());
        let first: String = value.chars().take(2).collect();
        let some: Vec<Value> = (0..1 + random.below(7))
            .map(|_| random.pick(&world.rows).dimensions.get(column).map_or(json!(true), |value| json!(value)))
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
    let value = random.pick(&world.rows).metrics.get(column).copied().unwrap_or(3.0);
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

pub(crate) fn random_query(random: &mut Random, world: &World, span_us: i64) -> Value {
    let several = random.chance(30);
    let mut query = Map::new();
    if several {
        let (a, b) = (json!({"namespace": "shop", "table": "events"}), json!({"namespace": "shop", "table": "more"}));
        query.insert("tables".into(), if random.chance(50) { json!([a, b]) } else { json!([b, a]) });
    } else {
        query.insert("namespace".into(), json!("shop"));
        query.insert("table".into(), json!(random.pick(&["events", "events", "more"])));
    }
    let late = query.get("table") == Some(&json!("more"));
    let (a, b) = (random.below(span_us as usize) as i64, random.below(span_us as usize) as i64);
    let (start, end) = if random.chance(40) { (i64::MIN, i64::MAX) } else { (a.min(b), a.max(b) + 1) };
    query.insert("start_time".into(), json!(start));
    query.insert("end_time".into(), json!(end));
    let filters: Map<String, Value> = (0..random.pick(&[0, 0, 1, 1, 2, 3]))
        .map(|_| random_filter(random, world, several || late))
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
    let mut menu = vec![json!({"fn": "count"})];
    for name in ["sum", "avg", "min", "max", "count", "variance", "stddev"] {
        menu.extend(METRICS.iter().map(|metric| json!({"fn": name, "metric": metric})));
    }
    for name in dimensions(several || late) {
        menu.extend(["count", "distinct"].map(|of| json!({"fn": of, "dimension": name})));
        let value = random.pick(&world.rows).dimensions.get(name).cloned().unwrap_or_else(|| "nobody".to_owned());
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

/// Orders two rows of an answer by what the query asked, then by the place of their groups in canonical order.
fn order(query: &Value, (a, a_at): (&Value, usize), (b, b_at): (&Value, usize)) -> std::cmp::Ordering {
    let keys = query["order_by"].as_array().map_or(&[][..], Vec::as_slice);
    for key in keys {
        let column = key["column"].as_str().unwrap();
        let order = match (&a[column], &b[column]) {
            (Value::Null, Value::Null) => std::cmp::Ordering::Equal,
            (Value::Null, _) => std::cmp::Ordering::Less,
            (_, Value::Null) => std::cmp::Ordering::Greater,
            (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (a, b) => a.as_f64().unwrap().total_cmp(&b.as_f64().unwrap()),
        };
        let order = if key["desc"] == json!(true) { order.reverse() } else { order };
        if order.is_ne() {
            return order;
        }
    }
    a_at.cmp(&b_at)
}

pub(crate) fn check(world: &World, query: &Value) -> Result<(), TestCaseError> {
    let answer =
        world.answer(&query.to_string()).map_err(|error| TestCaseError::fail(format!("{error} for {query}")))?;
    let rows: Vec<Value> = serde_json::from_str(&answer.rows).expect("rows are JSON");
    prop_assert_eq!(rows.len(), answer.row_count);
    let expected = model::groups(&world.rows, query);
    let described: Vec<Value> = serde_json::from_str(&answer.columns).expect("columns are JSON");
    let limit = query["limit"].as_u64().unwrap() as usize;
    prop_assert_eq!(rows.len(), expected.len().min(limit), "groups of {}", query);
    prop_assert_eq!(answer.truncated, expected.len() > limit);
    let columns = model::group_columns(query);
    let timed = query["interval_us"].is_i64();
    let mut places = Vec::new();
    for row in &rows {
        let key: Vec<Option<String>> = columns.iter().map(|name| row[name].as_str().map(str::to_owned)).collect();
        let key = (if timed { row["time"].as_i64().unwrap() } else { 0 }, key);
        prop_assert_eq!(row["time"].is_null(), !timed);
        let group = expected.get(&key);
        prop_assert!(group.is_some(), "no group {:?} for {}", key, query);
        places.push(expected.range(..&key).count());
        for aggregate in query["aggregates"].as_array().unwrap() {
            let name = model::name_of(aggregate);
            let group = group.expect("checked above");
            prop_assert!(row.get(&name).is_some(), "{} is missing", name);
            prop_assert!(
                model::holds(&row[&name], aggregate, group, described.iter().find(|c| c["name"] == name).unwrap()),
                "{} is {} in {:?} of {} by {}",
                name,
                row[&name],
                key,
                query,
                answer.columns
            );
        }
    }
    let numbered: Vec<_> = rows.iter().zip(places.iter().copied()).collect();
    prop_assert!(numbered.is_sorted_by(|&a, &b| order(query, a, b).is_lt()), "order of {}", query);
    if limit == 1 && rows.len() == 1 && expected.len() > 1 {
        // The limit keeps the first row, not just any.
        let all = Value::Object(
            query
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| *key != "limit")
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        );
        let all: Vec<Value> = serde_json::from_str(&world.answer(&all.to_string()).unwrap().rows).unwrap();
        prop_assert_eq!(&all[0], &rows[0]);
    }
    Ok(())
}
