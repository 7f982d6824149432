//! One plan over one state of the partitions has one answer, to the byte.

mod world;

use std::{
    sync::{Mutex, atomic::AtomicBool},
    thread,
};

use engine::Limits;
use proptest::prelude::*;
use query::{Cancel, Finishing, Plan, Task, TaskPartial, ValueLimits};
use types::{ErrorCode, TableSettings, Timestamp};
use world::{Random, Shape, World, conclude, random_row, tiny};

const QUERIES: [&str; 8] = [
    r#""aggregates":[{"fn":"sum","metric":"value"},{"fn":"avg","metric":"value"},{"fn":"stddev","metric":"value"}]"#,
    r#""aggregates":[{"fn":"sum","metric":"value"},{"fn":"variance","metric":"value"}],"group_by":["region"]"#,
    r#""aggregates":[{"fn":"sum","metric":"value"},{"fn":"avg","metric":"latency"}],"group_by":["user","table","flag"]"#,
    r#""aggregates":[{"fn":"sum","metric":"value"},{"fn":"min","metric":"value"}],"interval_us":100,"filters":{"region":{"ne":"r3"}}"#,
    r#""aggregates":[{"fn":"avg","metric":"value"}],"interval_us":500,"group_by":["region","late"],"filters":{"value":{"gt":-1e6}}"#,
    r#""aggregates":[{"fn":"p50","metric":"value","method":"tdigest"},{"fn":"p99","metric":"value","method":"tdigest"}]"#,
    r#""aggregates":[{"fn":"p90","metric":"value","method":"tdigest"},{"fn":"p50","metric":"value"}],"group_by":["region"]"#,
    r#""aggregates":[{"fn":"distinct","dimension":"user"},{"fn":"top","dimension":"user","k":7},{"fn":"p99","metric":"latency","method":"sketch"}],"group_by":["table","flag"]"#,
];

fn world() -> World {
    let shape = Shape { rows: 6_000, limits: tiny(), span_us: 3_000, in_order: false, users: 200 };
    World::new(11, shape)
}

fn ask(query: &str) -> String {
    let tables = r#"{"namespace":"shop","table":"events"},{"namespace":"shop","table":"more"}"#;
    format!(r#"{{"tables":[{tables}],"start_time":150,"end_time":2900,{query}}}"#)
}

/// Runs tasks in their order here on several threads and hands the results over in the order in which they end.
fn run_on_threads(plan: &Plan, tasks: Vec<Task>, threads: usize) -> Vec<TaskPartial> {
    let (queue, results) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let left = AtomicBool::new(false);
                while let Some(task) = { queue.lock().unwrap().pop() } {
                    let result = query::run(plan, &task, &Cancel::new(&left, &|| false)).unwrap();
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// Goal: the order in which tasks run and end, and the number of threads, change no byte of an answer, float sums included.
#[test]
fn threads_change_no_byte() {
    let world = world();
    let mut random = Random(5);
    for query in QUERIES {
        let json = ask(query);
        let expected = world.answer(&json).unwrap();
        let plan = world.plan(&json).unwrap();
        assert!(world.tasks(&plan).len() >= 6, "there is something to order");
        for threads in [1, 2, 8] {
            for _ in 0..4 {
                let seed = random.next();
                let answer = conclude(&plan, |plan| {
                    let mut tasks = world.tasks(plan);
                    Random(seed).shuffle(&mut tasks);
                    Ok(run_on_threads(plan, tasks, threads))
                });
                assert_eq!(answer.unwrap(), expected, "{query}");
            }
        }
    }
}

/// Goal: partials that come from different nodes give the answer that one node gives.
#[test]
fn placement_changes_no_byte() {
    let world = world();
    for query in QUERIES {
        let json = ask(query);
        let (plan, expected) = (world.plan(&json).unwrap(), world.answer(&json).unwrap());
        let left = AtomicBool::new(false);
        let mut partials: Vec<_> = world
            .readers
            .iter()
            .map(|reader| {
                let tasks = world.tasks(&plan).into_iter().filter(|task| task.partition() == reader.partition());
                let results = tasks.map(|task| query::run(&plan, &task, &Cancel::new(&left, &|| false)).unwrap());
                query::merge(&plan, reader.partition(), results.collect(), &Cancel::new(&left, &|| false)).unwrap()
            })
            .collect();
        partials.reverse();
        let cancel = Cancel::new(&left, &|| false);
        let finishing = Finishing::new(&plan, partials, &cancel).unwrap();
        assert_eq!(finishing.answer(&plan, &cancel).unwrap(), expected, "{query}");
    }
}

/// Goal: replicas of one log, of which one lets rows leave whenever it can and the other one never does, have one answer over
/// what both have, to the byte: where a row lies, and so the order of float sums, does not go by what has left.
#[test]
fn what_has_left_changes_no_byte() {
    let mut compared = 0;
    for seed in 0..12 {
        let shape = Shape { rows: 3_000, limits: tiny(), span_us: 3_000, in_order: true, users: 200 };
        let mut replicas = [seed, seed].map(|seed| World::new(seed, Shape { rows: 0, ..shape }));
        let settings = TableSettings { hot_window_us: Some(700), ..TableSettings::default() };
        replicas.iter_mut().for_each(|world| world.configure(&settings));
        let mut random = Random(seed);
        // Some come late, to slots that one of them has let go of.
        let shape_at = |at| Shape { in_order: at % 7 > 0, ..shape };
        let rows: Vec<_> = (0..shape.rows).map(|at| random_row(&mut random, &shape_at(at), at)).collect();
        for (at, rows) in rows.chunks(3).enumerate() {
            for world in &mut replicas {
                world.append_time = Timestamp(3_000 + at as i64);
                world.ingest(&mut Random(seed + at as u64), rows);
            }
            replicas[0].housekeep();
        }
        let [evicts, keeps] = &replicas;
        let (left, all) = (rows_of(evicts), rows_of(keeps));
        assert!((1..all).contains(&left), "{left} of {all}: rows have left one of them");
        for query in QUERIES {
            let tables = r#"{"namespace":"shop","table":"events"},{"namespace":"shop","table":"more"}"#;
            let json = |from: i64| format!(r#"{{"tables":[{tables}],"start_time":{from},"end_time":3001,{query}}}"#);
            let plan = evicts.plan(&json(0)).unwrap();
            let from = evicts.lacks_before(&plan).expect("rows have left").0;
            let [one, other] = [evicts, keeps].map(|world| world.answer(&json(from)).unwrap());
            assert_eq!((one.rows, one.columns), (other.rows, other.columns), "{seed}: {query}");
            compared += one.row_count;
        }
    }
    assert!(compared > 100, "{compared}");
}

fn rows_of(world: &World) -> usize {
    let tables = world.tables.iter().map(|table| table.key);
    tables.flat_map(|key| world.readers.iter().filter_map(move |reader| reader.snapshot(key))).map(|s| s.rows()).sum()
}

/// Goal: work stops by name when the client has left and when the time is up.
#[test]
fn cancelled_work_stops() {
    let world = world();
    let plan = world.plan(&ask(QUERIES[2])).unwrap();
    let task = &world.tasks(&plan)[0];
    let (left, here) = (AtomicBool::new(true), AtomicBool::new(false));
    let error = query::run(&plan, task, &Cancel::new(&left, &|| false)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
    let error = query::run(&plan, task, &Cancel::new(&here, &|| true)).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::DeadlineExceeded, Some("timeout_ms")));
}

/// Goal: too many groups are an error, in a task as well as in a merge, and never a cut.
#[test]
fn too_many_groups_are_an_error() {
    let world = world();
    let json = ask(QUERIES[2]);
    for groups_max in [1, 20, 400] {
        let limits = query::QueryLimits { groups_max, ..query::QueryLimits::default() };
        let query = query::parse(json.as_bytes(), &limits).unwrap();
        let plan = query::plan(&query, &world.tables).unwrap();
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        let scan = |plan: &Plan| world.tasks(plan).iter().map(|task| query::run(plan, task, &cancel)).collect();
        let error = conclude(&plan, scan).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::TooLarge, Some("group_by")), "{groups_max}");
    }
}

/// Goal: the end of a query takes no more memory than the plan allows, whether for targets of percentiles, for values, for
/// lists or for the text of rows, and says so; what fits is answered.
#[test]
fn the_end_is_bounded_by_memory() {
    let mut world = world();
    world.limits.values = query::ValueLimits { values_max: 16, ..query::ValueLimits::default() };
    let many = |item: &dyn Fn(usize) -> String| {
        let items: Vec<_> = (0..60).map(item).collect();
        ask(&format!(r#""group_by":["user","table"],"aggregates":[{}]"#, items.join(",")))
    };
    let exact = |n| format!(r#"{{"fn":"percentile","metric":"value","q":0.{n:02},"method":"exact","as":"p{n}"}}"#);
    let top = |n| format!(r#"{{"fn":"top","dimension":"region","k":{},"as":"t{n}"}}"#, n + 1);
    let plain = |n| format!(r#"{{"fn":"sum","metric":"value","as":"{}{n}"}}"#, "s".repeat(60));
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    for json in [many(&exact), many(&top), many(&plain)] {
        let answer = |world: &World| {
            let plan = world.plan(&json).unwrap();
            let tasks = world.tasks(&plan);
            let partials = world.readers.iter().map(|reader| {
                let tasks = tasks.iter().filter(|task| task.partition() == reader.partition());
                let results = tasks.map(|task| query::run(&plan, task, &cancel)).collect::<Result<_, _>>()?;
                query::merge(&plan, reader.partition(), results, &cancel)
            });
            // All of this fits: it is the end alone that needs more.
            let partials: Vec<_> = partials.collect::<Result<_, _>>().unwrap();
            Finishing::new(&plan, partials, &cancel).and_then(|mut end| {
                if end.next_round(&plan, &cancel)?.is_some() {
                    Ok(0)
                } else {
                    Ok(end.answer(&plan, &cancel)?.row_count)
                }
            })
        };
        world.limits.bytes_max = 512 << 20;
        answer(&world).unwrap();
        world.limits.bytes_max = 700 << 10;
        let error = answer(&world).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::TooLarge, Some("aggregates")), "{json}");
    }
}

/// Goal: a client that leaves during the end of its query ends the writing of its rows.
#[test]
fn the_end_is_cancelled() {
    let world = world();
    let plan = world.plan(&ask(r#""interval_us":1,"group_by":["user"],"aggregates":[{"fn":"count"}]"#)).unwrap();
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let results: Vec<_> = world.tasks(&plan).iter().map(|task| query::run(&plan, task, &cancel).unwrap()).collect();
    let mut by_partition: std::collections::BTreeMap<_, Vec<_>> = std::collections::BTreeMap::new();
    results.into_iter().for_each(|result| by_partition.entry(result.partition()).or_default().push(result));
    let partials = by_partition.into_iter().map(|(at, results)| query::merge(&plan, at, results, &cancel).unwrap());
    let end = Finishing::new(&plan, partials.collect(), &cancel).unwrap();
    // One look for the output, one before the order; those after are of the rows.
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let expired = || looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 2;
    let error = end.answer(&plan, &Cancel::new(&left, &expired)).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
}

/// Goal: an answer that wants the groups that lead by a count is the same to the byte whether partitions hand on all groups or
/// the first few alone; both cases occur, those that settle who leads and those that have to ask again.
#[test]
fn leading_groups_change_no_byte() {
    let mut world = world();
    let (mut settled, mut again) = (0, 0);
    for (order, group_by) in [("count", r#"["user"]"#), ("c", r#"["user","flag"]"#), ("count", r#"["region","table"]"#)]
    {
        for (kept, limit) in [(1, 1), (3, 2), (3, 3), (40, 1), (40, 10), (200, 5)] {
            let aggregates = r#"{"fn":"count"},{"fn":"count","metric":"value","as":"c"},{"fn":"avg","metric":"value"},{"fn":"frequency","dimension":"user","value":"u1","as":"f"}"#;
            let json = ask(&format!(
                r#""group_by":{group_by},"aggregates":[{aggregates}],"limit":{limit},"order_by":[{{"column":"{order}","desc":true}}]"#
            ));
            world.limits.values.leading_max = 0;
            let all = world.answer(&json).unwrap();
            world.limits.values.leading_max = kept;
            let plan = world.plan(&json).unwrap();
            let rounds = Mutex::new(0);
            let answer = conclude(&plan, |plan| {
                *rounds.lock().unwrap() += 1;
                Ok(run_on_threads(plan, world.tasks(plan), 2))
            });
            let answer = answer.unwrap();
            assert_eq!(
                (&answer.rows, &answer.columns, answer.truncated),
                (&all.rows, &all.columns, all.truncated),
                "{json}"
            );
            if *rounds.lock().unwrap() == 1 { settled += 1 } else { again += 1 }
        }
    }
    assert!(settled > 3 && again > 3, "{settled} settled, {again} asked again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// Goal: whether a percentile by `auto` is exact goes by the rows in the range, to the row, however they lie in segments.
    #[test]
    fn auto_goes_by_the_rows_in_the_range(seed: u64, in_order: bool, start in 0_i64..3_000, length in 1_i64..3_000) {
        for limits in [tiny(), Limits { segment_rows_max: 512, slot_width_us: 5_000, ..tiny() }] {
            let shape = Shape { rows: 1_000, limits, span_us: 3_000, in_order, users: 30 };
            let mut world = World::new(seed, shape);
            let range = start..start + length;
            let rows = world.rows.iter().filter(|row| row.table == 0 && range.contains(&row.time)).count() as u64;
            prop_assume!(rows > 0);
            for (auto_rows_max, exact) in [(rows, true), (rows - 1, false)] {
                world.limits.values = ValueLimits { auto_rows_max, ..ValueLimits::default() };
                let answer = world.answer(&format!(
                    r#"{{"namespace":"shop","table":"events","start_time":{},"end_time":{},"aggregate":"p50","metric":"latency"}}"#,
                    range.start, range.end
                ));
                let columns = answer.unwrap().columns;
                prop_assert_eq!(columns.contains(r#""exact":true"#), exact, "{} rows: {}", rows, columns);
            }
        }
    }
}
