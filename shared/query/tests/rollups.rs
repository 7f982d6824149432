//! Answers by rollups: those of the rows, wherever the rows are.

mod world;

use std::sync::{Mutex, atomic::AtomicBool};

use proptest::{prop_assert_eq, test_runner::TestCaseError};
use query::{Answer, Cancel, Plan, Source, TaskPartial, ValueLimits};
use questions::{Tables, question_of_rollup, random_rollup};
use types::{Interval, Rollup, TableSettings, TimeRange};
use world::{Random, Row, Shape, World, check, conclude, random_row, tiny};

const SPAN_US: i64 = 3_000;
/// The answer with tasks in random order on some threads.
fn answer_on_threads(world: &World, plan: &Plan, random: &mut Random, threads: usize) -> Answer {
    let left = AtomicBool::new(false);
    let seed = random.next();
    let scan = |plan: &Plan| {
        let mut tasks = world.tasks(plan);
        Random(seed).shuffle(&mut tasks);
        let (queue, results) = (Mutex::new(tasks), Mutex::new(Vec::<TaskPartial>::new()));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(task) = { queue.lock().unwrap().pop() } {
                        let result = query::run(plan, &task, &Cancel::new(&left, &|| false)).unwrap();
                        results.lock().unwrap().push(result);
                    }
                });
            }
        });
        Ok(results.into_inner().unwrap())
    };
    conclude(plan, scan).unwrap()
}

/// Whether rows of the range have left somewhere.
fn evicted(world: &World, plan: &Plan) -> bool {
    let snapshots =
        world.readers.iter().flat_map(|reader| plan.tables().iter().map(|table| reader.snapshot(table.key)));
    snapshots.flatten().any(|table| table.evicted_before().is_some_and(|before| before > plan.range().start()))
}

/// How often what was met.
#[derive(Debug, Default)]
struct Met {
    by_rollup: usize,
    with_edges: usize,
    without_rows: usize,
    incomplete: usize,
}

fn grow(world: &mut World, random: &mut Random, shape: &Shape, all: &mut Vec<Row>, rows: usize) {
    let more: Vec<Row> = (all.len()..all.len() + rows).map(|at| random_row(random, shape, at)).collect();
    world.ingest(random, &more);
    all.extend(more);
    world.rows.clone_from(all);
}

fn ask(
    world: &mut World,
    random: &mut Random,
    rollups: &[Rollup],
    met: &mut Met,
    questions: usize,
) -> Result<(), TestCaseError> {
    for _ in 0..questions {
        let query = question_of_rollup(random, &world.rows, SPAN_US, Tables::Any, rollups);
        let plan = world.plan(&query.to_string()).unwrap();
        if world.lacks_before(&plan).is_some_and(|before| before > plan.range().start()) {
            met.incomplete += 1;
            continue;
        }
        check(world, &query)?;
        let answer = world.answer(&query.to_string()).unwrap();
        if answer.stats.rollup_buckets > 0 {
            met.by_rollup += 1;
            met.with_edges += usize::from(answer.stats.segments_scanned > 0);
            met.without_rows += usize::from(evicted(world, &plan));
        }
        for threads in [1, 3, 8] {
            let again = answer_on_threads(world, &plan, random, threads);
            prop_assert_eq!((&again.rows, &again.columns), (&answer.rows, &answer.columns));
        }
        // More rows in parts, the same answer.
        let before = world.tasks(&plan).len();
        world.housekeep();
        if world.tasks(&plan).len() == before && world.lacks_before(&plan).is_none() {
            let again = world.answer(&query.to_string()).unwrap();
            prop_assert_eq!((&again.rows, &again.columns), (&answer.rows, &answer.columns), "{}", query);
        }
    }
    Ok(())
}

/// Goal: whatever rollups are declared, at first or later, an answer is the model's over all rows that ever came, late ones
/// too, wherever it is complete: by rollups, by rows and by both, while slots, segments and dictionaries change every few
/// rows and rows leave. It is the same to the byte for 1 to 8 threads, and however many rows the parts of rollups have.
#[test]
fn rollups_have_the_models_answers() {
    let mut met = Met::default();
    for seed in 0..40 {
        let mut random = Random(seed);
        let shape = Shape { rows: 900, limits: tiny(), span_us: SPAN_US, in_order: seed % 3 != 0, users: 60 };
        let mut world = World::new(seed, Shape { rows: 1, ..shape });
        world.limits.values = ValueLimits { auto_rows_max: random.pick(&[0, 100, 1 << 17]), ..ValueLimits::default() };
        let keep_us = random.pick(&[None, Some(1 << 50), Some(1 << 50)]);
        let rollups: Vec<_> = (0..1 + random.below(3)).map(|_| random_rollup(&mut random, keep_us)).collect();
        let mut all = world.rows.clone();
        let mut settings = TableSettings::default();
        let declared = random.below(3);
        for step in 0..5 {
            if step == declared {
                settings.rollups.clone_from(&rollups);
                world.configure(&settings);
            }
            if seed % 2 == 1 && step > 0 {
                settings.hot_window_us = Some(300 + random.below(2_000) as i64);
                world.configure(&settings);
            }
            grow(&mut world, &mut random, &shape, &mut all, 180);
            if random.chance(70) {
                world.housekeep();
            }
            ask(&mut world, &mut random, &rollups, &mut met, 6).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    assert!(met.by_rollup > 300 && met.with_edges > 60 && met.without_rows > 60 && met.incomplete > 20, "{met:?}");
}

fn rollup(interval_us: i64, group_by: &[&str], distinct: &[&str], percentiles: &[&str], top: &[&str]) -> Rollup {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Rollup {
        interval: Interval::from_micros(interval_us).unwrap(),
        group_by: owned(group_by),
        distinct: owned(distinct),
        percentiles: owned(percentiles),
        top: owned(top),
        keep_us: None,
    }
}

fn with_rollups(shape: Shape, rollups: &[Rollup]) -> World {
    let mut world = World::new(5, shape);
    world.configure(&TableSettings { rollups: rollups.to_vec(), ..TableSettings::default() });
    // Parts of some rows, with others waiting.
    world.housekeep();
    world.ingest(&mut Random(6), &world.rows.clone()[..shape.rows / 10]);
    world
}

const EVENTS: &str = r#""namespace":"shop","table":"events""#;

/// Goal: distinct values are the same number, exact or not, whether strings are counted, their hashes, or some in a rollup
/// and some in rows.
#[test]
fn distinct_values_are_counted_alike() {
    let shape = Shape { rows: 9_000, limits: tiny(), span_us: SPAN_US, in_order: true, users: 4_000 };
    let plain = with_rollups(shape, &[]);
    let by_hash = with_rollups(shape, &[rollup(100, &["region"], &["user"], &[], &[])]);
    let by_key = with_rollups(shape, &[rollup(100, &["user", "region"], &[], &[], &[])]);
    for (start, end) in [(0, 3_000), (0, 500), (137, 2_950), (90, 210)] {
        for group_by in ["[]", r#"["region"]"#] {
            let json = format!(
                r#"{{{EVENTS},"start_time":{start},"end_time":{end},"group_by":{group_by},
                    "aggregate":"distinct","dimension":"user"}}"#
            );
            let expected = plain.answer(&json).unwrap();
            for world in [&by_hash, &by_key] {
                let answer = world.answer(&json).unwrap();
                assert_eq!((&answer.rows, &answer.columns), (&expected.rows, &expected.columns), "{json}");
                assert!(answer.stats.rollup_buckets > 0);
            }
        }
    }
}

/// Goal: which rollup answers: the coarsest that has all that is asked, finer ones at its edges, rows beyond; and none where
/// rows answer better.
#[test]
fn the_coarsest_rollup_that_fits_is_taken() {
    let shape = Shape { rows: 3_000, limits: tiny(), span_us: SPAN_US, in_order: true, users: 50 };
    let rollups = [
        rollup(100, &["region"], &[], &["value"], &["user"]),
        rollup(1_000, &["region", "flag"], &[], &[], &[]),
        rollup(1_000, &["region"], &[], &[], &[]),
    ];
    let world = with_rollups(shape, &rollups);
    // By partition: the interval and the times of each rollup, and the times that are left to rows.
    let taken = |rest: &str| {
        let plan = world.plan(&format!("{{{EVENTS},{rest}}}")).unwrap();
        let key = plan.tables()[0].key;
        let left = AtomicBool::new(false);
        let explained = world.readers.iter().flat_map(|reader| {
            let source = Source { table: 0, partition: reader.partition(), snapshot: reader.snapshot(key).unwrap() };
            query::explain(&plan, vec![source], &Cancel::new(&left, &|| false)).unwrap()
        });
        let times = |range: &TimeRange| (range.start().0, range.end().0);
        let explained = explained.map(|source| {
            let rollups = source.rollups.iter();
            let rollups =
                rollups.map(|taken| (taken.rollup.interval.micros(), taken.rollup.group_by.len(), times(&taken.times)));
            (rollups.collect::<Vec<_>>(), source.rows.iter().map(times).collect::<Vec<_>>())
        });
        let mut explained: Vec<_> = explained.collect();
        explained.dedup();
        assert_eq!(explained.len(), 1, "one choice in all partitions");
        explained.remove(0)
    };
    let range = r#""start_time":0,"end_time":3000"#;
    let rows = vec![(0, 3_000)];
    assert_eq!(taken(range), (vec![(1_000, 1, (0, 3_000))], vec![]));
    assert_eq!(taken(&format!(r#"{range},"group_by":["flag"]"#)), (vec![(1_000, 2, (0, 3_000))], vec![]));
    assert_eq!(taken(&format!(r#"{range},"interval_us":500"#)), (vec![(100, 1, (0, 3_000))], vec![]));
    let ragged = r#""start_time":950,"end_time":2333,"filters":{"region":{"ne":"r1"}}"#;
    let middle = vec![(1_000, 1, (1_000, 2_000)), (100, 1, (2_000, 2_300))];
    assert_eq!(taken(ragged), (middle, vec![(950, 1_000), (2_300, 2_333)]));
    let sketch = r#""aggregate":"p50","metric":"value","method":"sketch""#;
    assert_eq!(taken(&format!("{range},{sketch}")).0, [(100, 1, (0, 3_000))]);
    for only_rows in [
        r#""group_by":["user"]"#,
        r#""filters":{"value":{"gt":1}}"#,
        r#""interval_us":150"#,
        r#""aggregate":"distinct","dimension":"user""#,
        r#""aggregate":"p50","metric":"latency","method":"sketch""#,
        r#""aggregate":"p50","metric":"value","method":"tdigest""#,
        r#""aggregate":"p50","metric":"value","method":"exact""#,
        // Of so few rows all values are kept, and of resident rows all strings are counted.
        r#""aggregate":"p50","metric":"value""#,
        r#""aggregate":"top","dimension":"user","k":3"#,
    ] {
        assert_eq!(taken(&format!("{range},{only_rows}")), (vec![], rows.clone()), "{only_rows}");
    }
}
