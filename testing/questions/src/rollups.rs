//! Rollups, and questions that they may answer.

use serde_json::{Value, json};
use types::{Interval, Rollup};

use crate::{Random, Row, Tables, random_filter, random_query};

const DIMENSIONS: [&str; 4] = ["region", "user", "flag", "late"];

fn some(random: &mut Random, names: &[&str], percent: usize) -> Vec<String> {
    names.iter().filter(|_| random.chance(percent)).map(|&name| name.to_owned()).collect()
}

/// A rollup of some of the columns, kept for so long.
pub fn random_rollup(random: &mut Random, keep_us: Option<i64>) -> Rollup {
    Rollup {
        interval: Interval::from_micros(random.pick(&[10, 50, 100, 250, 1_000])).unwrap(),
        group_by: some(random, &DIMENSIONS, 60),
        distinct: some(random, &DIMENSIONS, 50),
        percentiles: some(random, &["value", "latency"], 60),
        top: some(random, &DIMENSIONS, 50),
        keep_us,
    }
}

/// A question that one of the rollups may answer: about its columns, mostly by its buckets.
pub fn question_of_rollup(
    random: &mut Random,
    rows: &[Row],
    span_us: i64,
    tables: Tables,
    rollups: &[Rollup],
) -> Value {
    let rollup = random.pick(rollups);
    let mut query = random_query(random, rows, span_us, tables);
    let columns: Vec<String> = rollup.group_by.iter().filter(|name| *name != "late").cloned().collect();
    let fields = query.as_object_mut().unwrap();
    fields.remove("order_by");
    let mut groups = columns.clone();
    random.shuffle(&mut groups);
    groups.truncate(random.below(3));
    fields.insert("group_by".into(), json!(groups));
    fields.remove("interval_us");
    if random.chance(50) {
        let interval = rollup.interval.micros() * random.pick(&[1, 1, 2, 5]);
        fields.insert("interval_us".into(), json!(interval));
    }
    let filters: serde_json::Map<String, Value> = (0..3)
        .map(|_| random_filter(random, rows, false))
        .filter(|(column, _)| columns.iter().any(|known| known == column))
        .map(|(column, condition)| (column.to_owned(), condition))
        .collect();
    fields.insert("filters".into(), json!(filters));
    if random.chance(60) {
        let align = |time: &Value| json!(time.as_i64().unwrap().clamp(-5_000, 5_000).div_euclid(1_000) * 1_000);
        fields["start_time"] = align(&fields["start_time"]);
        fields["end_time"] = json!(align(&fields["end_time"]).as_i64().unwrap() + 1_000);
    }
    // What only rows can answer keeps every rollup away: mostly it is not asked.
    if random.chance(90) {
        let only_rows = |aggregate: &Value| ["tdigest", "exact"].iter().any(|method| aggregate["method"] == *method);
        let all = fields["aggregates"].as_array().unwrap();
        let mut rest: Vec<_> = all.iter().filter(|aggregate| !only_rows(aggregate)).cloned().collect();
        rest.truncate(1 + random.below(2));
        fields.insert("aggregates".into(), if rest.is_empty() { json!([{"fn": "count"}]) } else { json!(rest) });
    }
    query
}
