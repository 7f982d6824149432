//! Questions for few strings of a column of wide codes, whose full chunks have filters.

mod world;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use engine::{CHUNK_ROWS, Limits};
use query::{Cancel, Plan, ScanStats, Source};
use serde_json::{Value, json};
use world::{Row, Shape, World, check};

/// More strings than a code of two bytes has, each once.
const EARLY: usize = 70_000;
/// Then as many rows in runs of one string each, so that a chunk has few of them. They end within a chunk, and a segment ends before.
const ROWS: usize = 2 * EARLY;
const RUN_ROWS: usize = 1_500;
/// All of them are in one slot.
const TIMES: i64 = ROWS as i64 / 100;

fn row(n: usize) -> Row {
    let user = if n < EARLY { format!("e{n}") } else { format!("l{}", (n - EARLY) / RUN_ROWS) };
    let dimensions = BTreeMap::from([("region", format!("r{}", n % 7)), ("user", user)]);
    let value = (!n.is_multiple_of(11)).then_some(("value", (n % 1_000) as f64 - 500.0));
    Row { table: 0, time: n as i64 / 100, dimensions, metrics: value.into_iter().collect() }
}

fn world() -> World {
    let mut world =
        World::new(1, Shape { rows: 0, limits: Limits::default(), span_us: TIMES, in_order: true, users: 1 });
    let rows: Vec<Row> = (0..ROWS).map(row).collect();
    rows.chunks(3_001).for_each(|block| world.apply(0, 0, block));
    world.rows = rows;
    world
}

fn source(world: &World, plan: &Plan) -> Source {
    let reader = &world.readers[0];
    let snapshot = reader.snapshot(plan.tables()[0].key).unwrap();
    Source { table: 0, partition: reader.partition(), snapshot }
}

/// What was looked at; it is what explain says.
fn stats(world: &World, plan: &Plan) -> ScanStats {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let explained = query::explain(plan, vec![source(world, plan)], &cancel).unwrap().pop().unwrap();
    let tasks = query::tasks(plan, vec![source(world, plan)]);
    let results = tasks.iter().map(|task| query::run(plan, task, &cancel).unwrap()).collect();
    let stats = query::merge(plan, world.readers[0].partition(), results, &cancel).unwrap().stats();
    assert_eq!((explained.cost.rows, explained.kept.segments), (stats.rows_scanned, stats.segments_scanned));
    stats
}

/// Times of the events found, which say which rows they are by the hundred, and users.
fn events(world: &World, plan: &Plan) -> Vec<(i64, String)> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let found = query::select_events(plan, source(world, plan), None, ROWS, &cancel).unwrap();
    let (events, _) = query::first_events(&[found], ROWS, usize::MAX, &cancel).unwrap();
    let user =
        |dimensions: Vec<(Arc<str>, String)>| dimensions.into_iter().find(|(name, _)| &**name == "user").unwrap().1;
    events.into_iter().map(|event| (event.place.time.0, user(event.dimensions))).collect()
}

fn users(kind: char, numbers: impl IntoIterator<Item = usize>) -> Value {
    numbers.into_iter().map(|n| format!("{kind}{n}")).collect()
}

/// Goal: however few or many strings are asked for, wherever they stand, by answers in groups and without and by raw events,
/// the rows are those of the model.
#[test]
fn what_is_passed_over_has_no_row() {
    let world = world();
    let asked = [
        users('l', [0]),
        users('l', [3, 24]),
        users('l', (0..40).step_by(8)),
        users('l', 5..37),
        users('l', 5..38),
        users('e', [5]),
        users('e', [EARLY - 1]),
        users('x', [1]),
        json!({"ne": "l7"}),
    ];
    for user in asked {
        let question = |groups: &[&str], aggregates: Value| {
            json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": TIMES + 1, "limit": 1_000_000,
                "filters": {"user": user}, "group_by": groups, "aggregates": aggregates})
        };
        let count = json!({"fn": "count", "as": "n"});
        let sum = json!({"fn": "sum", "metric": "value", "as": "s"});
        check(&world, &question(&[], json!([count, sum]))).unwrap();
        check(&world, &question(&["region"], json!([sum]))).unwrap();
        if user["ne"].is_null() {
            check(&world, &question(&["region", "user"], json!([sum]))).unwrap();
            let plain = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": TIMES + 1,
                "filters": {"user": user}});
            let of_user = |row: &&Row| user.as_array().unwrap().iter().any(|user| *user == row.dimensions["user"]);
            let found = world.rows.iter().filter(of_user).map(|row| (row.time, row.dimensions["user"].clone()));
            assert_eq!(events(&world, &world.plan(&plain.to_string()).unwrap()), found.collect::<Vec<_>>(), "{user}");
        }
    }
}

/// Goal: chunks of wide codes without the strings asked for are not looked at, nor segments of such chunks alone; and explain
/// says so beforehand.
#[test]
fn chunks_without_the_strings_are_passed_over() {
    let world = world();
    let stats = |user: Value| {
        let question = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": TIMES + 1,
            "filters": {"user": user}, "aggregate": "count"});
        stats(&world, &world.plan(&question.to_string()).unwrap())
    };
    let (all, many) = (stats(json!({"ne": "l0"})), stats(users('l', 0..33)));
    assert_eq!((all.rows_scanned, many.rows_scanned), (ROWS as u64, ROWS as u64), "so many are not looked for");
    // A run lies in two chunks, and a filter is wrong about few others.
    let one = stats(users('l', [3]));
    let left_out = (EARLY / CHUNK_ROWS - 6) * CHUNK_ROWS;
    assert!(one.rows_scanned <= (ROWS - left_out) as u64, "{} of {ROWS}", one.rows_scanned);
    let last = stats(users('l', [(ROWS - 1 - EARLY) / RUN_ROWS]));
    assert!(last.segments_skipped > one.segments_skipped, "{last:?} {one:?}");
}
