//! Questions of the shapes that dashboards ask, over rows like theirs: nothing is absent, prices are decimals, most segments are
//! sealed and of several chunks. Other columns, filters, ranges and aggregates each time, held against a plain list of rows.

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use world::{Random, Row, Shape, World, check};

const SPAN_US: i64 = 100_000;
const ROWS: usize = 30_000;
const USERS: usize = 20_000;
const FLAGS: [&str; 9] = ["view", "click", "cart", "buy", "refund", "search", "login", "logout", "share"];

/// What the metrics of a world are.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// Of `value`: its decimal places, and how many different values there are.
    places: i32,
    values: usize,
    /// One row of so many lacks its `latency`; 0: none does.
    holes: usize,
    /// Whether `latency` is no decimal number.
    doubles: bool,
}

fn row(random: &mut Random, numbers: Numbers, at: usize) -> Row {
    let jitter = random.below(300) as i64;
    let time = (at as i64 * SPAN_US / ROWS as i64 + jitter).min(SPAN_US);
    // Low numbers are frequent.
    let skewed = |random: &mut Random, below: usize| {
        let most = 1 + random.below(below);
        random.below(most)
    };
    let dimensions = BTreeMap::from([
        ("region", format!("r{}", skewed(random, 8))),
        ("flag", FLAGS[skewed(random, 9)].to_owned()),
        ("user", format!("u{}", skewed(random, USERS))),
    ]);
    let value = (random.below(numbers.values) as f64 - 40.0) / 10_f64.powi(numbers.places);
    let mut metrics = BTreeMap::from([("value", value)]);
    if numbers.holes == 0 || random.below(numbers.holes) > 0 {
        let latency = random.below(60_000) as f64 / if numbers.doubles { 7.0 } else { 1.0 };
        metrics.insert("latency", latency);
    }
    Row { table: 0, time, dimensions, metrics }
}

/// A world of such rows: in each partition mostly a sealed segment of two chunks, and one that is open.
fn world(seed: u64, numbers: Numbers) -> World {
    let limits = engine::Limits { slot_width_us: 2 * SPAN_US, segment_rows_max: 1 << 13, ..engine::Limits::default() };
    let shape = Shape { rows: 0, limits, span_us: SPAN_US, in_order: true, users: USERS };
    let mut world = World::new(seed, shape);
    let mut random = Random(seed);
    let rows: Vec<Row> = (0..ROWS).map(|at| row(&mut random, numbers, at)).collect();
    world.ingest(&mut random, &rows);
    world.rows = rows;
    world
}

/// A filter that many rows pass, or few.
fn filter(random: &mut Random, rows: &[Row]) -> (&'static str, Value) {
    let one = random.pick(rows).clone();
    let metric = random.pick(&["value", "latency"]);
    let bound = one.metrics.get(metric).copied().unwrap_or(30_000.0);
    match random.below(9) {
        0 => ("region", json!(one.dimensions["region"])),
        1 => ("region", json!({"ne": one.dimensions["region"]})),
        2 => ("flag", json!(one.dimensions["flag"])),
        3 => ("flag", json!(["view", "buy", "nothing"])),
        4 => ("user", json!(one.dimensions["user"])),
        5 => ("user", json!({"prefix": "u1"})),
        6 => (metric, json!({"gte": bound})),
        7 => (metric, json!({"lt": bound})),
        _ => (metric, json!({"gt": bound, "lte": bound * 1.1 + 1.0})),
    }
}

/// A question about all of the time, or about a part that cuts chunks.
fn question(random: &mut Random, rows: &[Row]) -> Value {
    let (a, b) = (random.below(SPAN_US as usize) as i64, random.below(SPAN_US as usize) as i64);
    let (start, end) =
        random.pick(&[(0, SPAN_US + 1), (0, SPAN_US + 1), (a.min(b), a.max(b) + 1), (SPAN_US - 3_000, SPAN_US)]);
    let mut groups = vec!["region", "flag", "user"];
    random.shuffle(&mut groups);
    groups.truncate(random.pick(&[0, 1, 1, 1, 2, 3]));
    let filters: Map<String, Value> = (0..random.pick(&[0, 0, 1, 1, 2]))
        .map(|_| filter(random, rows))
        .map(|(column, condition)| (column.to_owned(), condition))
        .collect();
    let mut menu = vec![json!({"fn": "count"})];
    for name in ["sum", "avg", "min", "max", "count", "stddev"] {
        menu.extend(["value", "latency"].map(|metric| json!({"fn": name, "metric": metric})));
    }
    let percentile =
        |(name, metric)| json!({"fn": "percentile", "metric": metric, "q": 0.9, "method": "sketch", "as": name});
    menu.extend([("p90_value", "value"), ("p90_latency", "latency")].map(percentile));
    menu.extend([json!({"fn": "distinct", "dimension": "user"}), json!({"fn": "top", "dimension": "flag", "k": 3})]);
    random.shuffle(&mut menu);
    menu.truncate(1 + random.below(4));
    // A limit that is never reached: which rows lead is another test's matter.
    let mut query = json!({
        "namespace": "shop", "table": "events", "start_time": start, "end_time": end, "filters": filters,
        "group_by": groups, "aggregates": menu, "limit": 1_000_000,
    });
    if random.chance(25) {
        query["interval_us"] = random.pick(&[json!(700), json!(10_000), json!(33_333)]);
    }
    query
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 8, ..ProptestConfig::default() })]

    /// Goal: questions of the usual shapes have the model's answers where metrics lie as doubles or as digits of one, two or four
    /// bytes, with absent values or without, in sealed segments as in open ones, whatever filters leave of a chunk.
    #[test]
    fn usual_questions_have_the_models_answers(
        seed: u64,
        places in 0..4_i32,
        values in prop::sample::select(vec![200_usize, 50_000, 3_000_000]),
        holes in prop::sample::select(vec![0_usize, 0, 5_000, 3]),
        doubles: bool,
    ) {
        let world = world(seed, Numbers { places, values, holes, doubles });
        let sealed = world.sealed_segments();
        prop_assert!(sealed.0 >= 1 && sealed.1 >= 1, "{} sealed, {} open", sealed.0, sealed.1);
        let mut random = Random(seed ^ 1);
        for _ in 0..12 {
            check(&world, &question(&mut random, &world.rows))?;
        }
    }
}
