//! What was kept gives the bytes that scanning gives.

mod world;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    sync::atomic::AtomicBool,
};

use query::{Answer, Cancel, KeptTask, Plan, Task, TaskKey};
use types::{ApiError, Interval, PartitionId, Rollup, TableSettings};
use world::{Random, Row, Shape, World, conclude, random_row, tiny};

const QUERIES: [&str; 11] = [
    r#""aggregates":[{"fn":"count"},{"fn":"sum","metric":"value"},{"fn":"stddev","metric":"value"}]"#,
    r#""aggregates":[{"fn":"sum","metric":"value"},{"fn":"min","metric":"latency"}],"group_by":["region"]"#,
    r#""aggregates":[{"fn":"sum","metric":"value"}],"group_by":["user","table","flag"],"limit":5"#,
    r#""aggregates":[{"fn":"avg","metric":"value"}],"interval_us":100,"filters":{"region":{"ne":"r3"}}"#,
    r#""aggregates":[{"fn":"avg","metric":"value"}],"group_by":["late","region"],"filters":{"value":{"gt":-1e6}}"#,
    r#""aggregates":[{"fn":"p50","metric":"value","method":"tdigest"},{"fn":"p99","metric":"value"}],"group_by":["region"]"#,
    r#""aggregates":[{"fn":"p90","metric":"value","method":"exact"},{"fn":"p50","metric":"latency","method":"sketch"}]"#,
    r#""aggregates":[{"fn":"distinct","dimension":"user"},{"fn":"top","dimension":"user","k":7}],"group_by":["table"]"#,
    r#""aggregates":[{"fn":"frequency","dimension":"user","value":"u7"},{"fn":"count","dimension":"flag"}],"group_by":["user"]"#,
    r#""aggregates":[{"fn":"variance","metric":"value"},{"fn":"min","metric":"latency"}],"group_by":["region","late"]"#,
    r#""aggregates":[{"fn":"count"},{"fn":"avg","metric":"value"}],"group_by":["user","flag"],"limit":2,"order_by":[{"column":"count","desc":true}]"#,
];

/// What was kept, and how often it served.
#[derive(Default)]
struct Kept {
    tasks: RefCell<HashMap<TaskKey, KeptTask>>,
    hits: Cell<usize>,
}

impl Kept {
    fn answer(&self, world: &World, json: &str) -> Result<Answer, ApiError> {
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        conclude(&world.plan(json)?, |plan| {
            let form = plan.task_form();
            let result = |task: &Task| {
                let Some(form) = &form else { return query::run(plan, task, &cancel) };
                let key = task.key(plan, form);
                if let Some(kept) = self.tasks.borrow().get(&key) {
                    self.hits.set(self.hits.get() + 1);
                    return Ok(task.reuse(plan, kept));
                }
                let result = query::run(plan, task, &cancel)?;
                self.tasks.borrow_mut().insert(key, result.keep().expect("no table has a rollup"));
                Ok(result)
            };
            world.tasks(plan).iter().map(result).collect()
        })
    }
}

/// Goal: while rows come, late ones too, segments are sealed, new columns appear and old rows leave, an answer from kept
/// results of tasks is the one of a scan, to the byte; all kinds of functions, groups and ranges; and what is kept serves.
#[test]
fn kept_results_change_no_byte() {
    let mut served = 0;
    for seed in 0..12 {
        let mut random = Random(seed);
        let shape = Shape { rows: 3_000, limits: tiny(), span_us: 3_000, in_order: seed % 3 != 0, users: 100 };
        let mut world = World::new(seed, Shape { rows: 300, span_us: 300, ..shape });
        if seed % 2 == 0 {
            // So few that percentiles keep their values in one state of the rows and not in another.
            world.limits.values = query::ValueLimits { auto_rows_max: 200, values_max: 150, leading_max: 3 };
        }
        let kept = Kept::default();
        let mut at = 300;
        for _ in 0..40 {
            if random.chance(60) {
                let end = (at + 1 + random.below(150)).min(shape.rows);
                let rows: Vec<_> = (at..end).map(|at| random_row(&mut random, &shape, at)).collect();
                world.ingest(&mut random, &rows);
                at = end;
            }
            if random.chance(8) {
                world.keep_only(Some(random.below(2_000) as i64 + 200));
            }
            let (start, end) = random.pick(&[(0, 10_000), (150, 2_900), (400, 900), (777, 778), (1_000, 3_500)]);
            let query = random.pick(&QUERIES);
            let tables = r#"{"namespace":"shop","table":"events"},{"namespace":"shop","table":"more"}"#;
            let json = format!(r#"{{"tables":[{tables}],"start_time":{start},"end_time":{end},{query}}}"#);
            let (expected, answer) = (world.answer(&json).unwrap(), kept.answer(&world, &json).unwrap());
            assert_eq!((&answer.rows, &answer.columns), (&expected.rows, &expected.columns), "seed {seed}: {json}");
            assert_eq!(answer.truncated, expected.truncated);
            assert!(answer.stats.rows_scanned <= expected.stats.rows_scanned);
        }
        served += kept.hits.get();
    }
    assert!(served > 1_000, "{served}");
}

/// Goal: groups that were kept laid out by their keys serve when dictionaries have grown since, by a few strings or by so many
/// that they are laid out no more, with the bytes of a scan.
#[test]
fn dictionaries_grow_under_kept_results() {
    let shape = Shape { rows: 0, limits: engine::Limits::default(), span_us: 1, in_order: true, users: 1 };
    let (mut world, mut random) = (World::new(1, shape), Random(5));
    let row = |at: usize, time: i64, users: usize| Row {
        table: 0,
        time: time + at as i64,
        dimensions: [("region", format!("r{}", at % 3)), ("user", format!("u{}", at / 3 % users))].into(),
        metrics: [("value", at as f64 * 1.1)].into(),
    };
    let json = r#"{"namespace":"shop","table":"events","start_time":0,"end_time":2000,"group_by":["region","user"],
        "aggregates":[{"fn":"sum","metric":"value"},{"fn":"stddev","metric":"value"},{"fn":"max","metric":"value"}]}"#;
    world.ingest(&mut random, &(0..2_000).map(|at| row(at, 0, 8)).collect::<Vec<_>>());
    let kept = Kept::default();
    let expected = world.answer(json).unwrap();
    for users in [8, 9, 10, 500] {
        // Into other segments of the same dictionaries.
        world.ingest(&mut random, &(0..2_000).map(|at| row(at, 1 << 32, users)).collect::<Vec<_>>());
        kept.hits.set(0);
        let answer = kept.answer(&world, json).unwrap();
        assert_eq!((&answer.rows, &world.answer(json).unwrap().rows), (&expected.rows, &expected.rows), "{users}");
        assert!(users == 8 || kept.hits.get() > 0, "{users}");
    }
}

/// Goal: another plan, another range that cuts rows off, or one more row is another key; the order and the limit of an answer
/// are no part of it, and neither is a range that holds all of a task.
#[test]
fn keys_tell_apart() {
    let shape = Shape { rows: 500, limits: tiny(), span_us: 1_000, in_order: true, users: 10 };
    let mut world = World::new(7, shape);
    let keys = |world: &World, range: &str, rest: &str| {
        let plan: Plan = world.plan(&format!(r#"{{"namespace":"shop","table":"events",{range},{rest}}}"#)).unwrap();
        let form = plan.task_form().unwrap();
        let tasks = world.tasks(&plan);
        let of_first = tasks.iter().filter(|task| task.partition() == PartitionId(0));
        of_first.map(|task| task.key(&plan, &form)).collect::<Vec<_>>()
    };
    let (all, by_region) = (r#""start_time":0,"end_time":2000"#, r#""group_by":["region"]"#);
    let base = keys(&world, all, by_region);
    for (range, rest) in [
        (r#""start_time":0,"end_time":2001"#, by_region),
        (all, r#""group_by":["region"],"limit":3"#),
        (all, r#""group_by":["region"],"order_by":[{"column":"count"}]"#),
    ] {
        assert_eq!(keys(&world, range, rest), base);
    }
    for (range, rest) in [
        (all, r#""group_by":["user"]"#),
        (all, r#""group_by":["region"],"interval_us":10"#),
        (all, r#""group_by":["region"],"aggregates":[{"fn":"sum","metric":"value"}]"#),
        (all, r#""group_by":["region"],"filters":{"user":"u1"}"#),
        (r#""start_time":500,"end_time":501"#, by_region),
    ] {
        assert!(keys(&world, range, rest).iter().all(|key| !base.contains(key)), "{range} {rest}");
    }
    let mut random = Random(3);
    let row = loop {
        let row = random_row(&mut random, &shape, 499);
        if row.table == 0 {
            break row;
        }
    };
    // Into each partition, wherever chance sends it.
    (0..20).for_each(|_| world.ingest(&mut random, std::slice::from_ref(&row)));
    assert_ne!(keys(&world, all, by_region), base);
}

/// Goal: a range that slides a little meets its tasks again, but for those of the segments that its ends cut.
#[test]
fn ranges_that_slide_meet_their_tasks_again() {
    let world = World::new(7, Shape { rows: 2_000, limits: tiny(), span_us: 3_000, in_order: true, users: 10 });
    let keys = |start: i64| {
        let json = format!(
            r#"{{"namespace":"shop","table":"events","start_time":{start},"end_time":{},"group_by":["region"]}}"#,
            start + 2_000
        );
        let plan = world.plan(&json).unwrap();
        let form = plan.task_form().unwrap();
        world.tasks(&plan).iter().map(|task| task.key(&plan, &form)).collect::<HashSet<TaskKey>>()
    };
    // Now and then a segment begins to be cut, and the task that had it is another one.
    let before = keys(510);
    let met = (511..560).filter(|&slid| before.intersection(&keys(slid)).count() >= world::PARTITIONS as usize);
    let met = met.count();
    assert!(met > 35, "{met} of 49");
}

/// Goal: the version of what a plan meets is another one after another row, for another state of the horizon where that is in
/// the range, and in another process; it stays where rows come outside of the range or leave before it.
#[test]
fn versions_tell_apart() {
    let shape = Shape { rows: 500, limits: tiny(), span_us: 1_000, in_order: true, users: 10 };
    let mut world = World::new(7, shape);
    let of = |world: &World, before: Option<i64>, seed| {
        let plan =
            world.plan(r#"{"namespace":"shop","table":"events","start_time":200,"end_time":800,"group_by":["user"]}"#);
        let plan = plan.unwrap();
        let tasks: Vec<Task> =
            world.tasks(&plan).into_iter().filter(|task| task.partition() == PartitionId(0)).collect();
        query::version(&plan, &tasks, &[before.map(types::Timestamp)], &[], seed)
    };
    let base = of(&world, None, 1);
    assert_eq!((of(&world, None, 1), of(&world, Some(200), 1)), (base, base));
    let others = [of(&world, None, 2), of(&world, Some(201), 1), of(&world, Some(202), 1)];
    assert!(others.iter().enumerate().all(|(at, other)| *other != base && !others[..at].contains(other)));
    let (mut random, mut row) = (Random(3), random_row(&mut Random(9), &shape, 250));
    (row.table, row.time) = (0, 5_000);
    // Into each partition, wherever chance sends it.
    (0..20).for_each(|_| world.ingest(&mut random, std::slice::from_ref(&row)));
    assert_eq!(of(&world, None, 1), base);
    row.time = 500;
    (0..20).for_each(|_| world.ingest(&mut random, std::slice::from_ref(&row)));
    assert_ne!(of(&world, None, 1), base);
}

/// Goal: the version of what a rollup answers is another one after a late event, although all rows of the range have left, that
/// event too, and there is no segment to tell of it.
#[test]
fn versions_tell_of_late_events_in_rollups() {
    let shape = Shape { rows: 0, limits: tiny(), span_us: 1, in_order: true, users: 1 };
    let (mut world, mut random) = (World::new(3, shape), Random(3));
    let row = |time: i64| Row {
        table: 0,
        time,
        dimensions: [("region", "r1".to_owned())].into(),
        metrics: [("value", 1.0)].into(),
    };
    let rollup = Rollup {
        interval: Interval::from_micros(100).unwrap(),
        group_by: vec!["region".to_owned()],
        distinct: Vec::new(),
        percentiles: Vec::new(),
        top: Vec::new(),
        keep_us: Some(1 << 50),
    };
    let keeping = |window| TableSettings {
        hot_window_us: Some(window),
        rollups: vec![rollup.clone()],
        ..TableSettings::default()
    };
    world.configure(&keeping(1 << 50));
    world.ingest(&mut random, &(0..2_000).map(|at| row(at * 10)).collect::<Vec<_>>());
    world.configure(&keeping(1_000));
    (0..100).for_each(|_| world.housekeep());
    let plan = world.plan(r#"{"namespace":"shop","table":"events","start_time":200,"end_time":800}"#).unwrap();
    for reader in &world.readers {
        let table = reader.snapshot(plan.tables()[0].key).unwrap();
        assert!(
            table.evicted_before().is_some_and(|before| before > plan.range().end()),
            "{:?}",
            table.evicted_before()
        );
    }
    assert_eq!(world.lacks_before(&plan), None, "the rollup has what has left");
    let versions = |world: &World| {
        let of_partition = |partition| {
            let tasks: Vec<Task> =
                world.tasks(&plan).into_iter().filter(|task| task.partition() == PartitionId(partition)).collect();
            query::version(&plan, &tasks, &[None], &[], 1)
        };
        (0..world::PARTITIONS).map(of_partition).collect::<Vec<_>>()
    };
    let before = versions(&world);
    assert_eq!(versions(&world), before);
    // Into each partition, wherever chance sends it; then into newer slots, so that the one of the late event is sealed and leaves.
    (0..20).for_each(|_| world.ingest(&mut random, &[row(500)]));
    for at in 0..40 {
        world.ingest(&mut random, &(0..8).map(|slot| row(20_000 + at + slot * 200)).collect::<Vec<_>>());
    }
    (0..100).for_each(|_| world.housekeep());
    for reader in &world.readers {
        let table = reader.snapshot(plan.tables()[0].key).unwrap();
        let zones = table.segments().iter().map(engine::SegmentView::zone);
        assert!(zones.clone().all(|zone| zone.min >= plan.range().end()), "{:?}", zones.collect::<Vec<_>>());
    }
    assert!(versions(&world).iter().zip(&before).all(|(late, before)| late != before));
}
