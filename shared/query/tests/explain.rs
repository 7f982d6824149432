//! What explain says against what the scan does.

mod world;

use std::sync::atomic::AtomicBool;

use engine::Limits;
use proptest::prelude::*;
use query::{Cancel, ScanCost, Skip, Source};
use types::{Interval, Rollup, TableSettings};
use world::{Random, Shape, World, tiny};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Goal: for any question, explain keeps and skips the segments that the scan keeps and skips, and counts the rows that
    /// the scan looks at; what it lists adds up to what it counts.
    #[test]
    fn the_scan_does_what_explain_says(seed: u64, in_order: bool) {
        let mut world = World::new(seed, Shape { rows: 900, limits: tiny(), span_us: 3_000, in_order, users: 30 });
        let mut random = Random(seed);
        if random.chance(60) {
            let interval = Interval::from_micros(random.pick(&[10, 100, 400])).unwrap();
            let group_by = vec!["region".to_owned(), "user".to_owned()];
            let (distinct, percentiles, top) = (Vec::new(), Vec::new(), Vec::new());
            let rollups = vec![Rollup { interval, group_by, distinct, percentiles, top, keep_us: None }];
            world.configure(&TableSettings { rollups, ..TableSettings::default() });
            if random.chance(70) {
                world.housekeep();
            }
        }
        let start = random.below(2_000) as i64;
        let end = start + 1 + random.below(1_500) as i64;
        let filters = random.pick(&[
            "{}",
            r#"{"region":["r1","none"]}"#,
            r#"{"value":{"gte":900000000},"user":{"exists":true}}"#,
            r#"{"flag":"none","latency":{"lt":20}}"#,
            r#"{"unseen":1}"#,
        ]);
        let groups = random.pick(&["[]", r#"["region","user"]"#]);
        let plan = world.plan(&format!(
            r#"{{"namespace":"shop","table":"events","start_time":{start},"end_time":{end},"filters":{filters},
                "group_by":{groups},"aggregate":"sum","metric":"value"}}"#
        )).unwrap();
        let left = AtomicBool::new(false);
        let cancel = Cancel::new(&left, &|| false);
        for reader in &world.readers {
            let partition = reader.partition();
            // A small world may have no event for a partition, which then knows nothing of the table.
            let Some(snapshot) = reader.snapshot(plan.tables()[0].key) else { continue };
            let source = || Source { table: 0, partition, snapshot: snapshot.clone() };
            let explained = query::explain(&plan, vec![source()], &cancel).unwrap().pop().unwrap();
            let tasks = query::tasks(&plan, vec![source()]);
            let results = tasks.iter().map(|task| query::run(&plan, task, &cancel)).collect::<Result<_, _>>().unwrap();
            let stats = query::merge(&plan, partition, results, &cancel).unwrap().stats();
            prop_assert_eq!(explained.kept.segments, stats.segments_scanned);
            let skipped: u64 = explained.skipped.iter().map(|(_, count)| count.segments).sum();
            prop_assert_eq!(skipped, stats.segments_skipped);
            prop_assert_eq!(explained.cost.rows, stats.rows_scanned);
            let merged = explained.rollups.iter().any(|taken| taken.groups > 0);
            prop_assert_eq!(explained.cost == ScanCost::default(), stats.rows_scanned == 0 && !merged);
            prop_assert!(stats.rollup_buckets == 0 || !explained.rollups.is_empty());
            for (why, count) in &explained.skipped {
                let listed = explained.segments.iter().filter(|segment| segment.skipped.as_ref() == Some(why));
                prop_assert_eq!(listed.clone().count() as u64, count.segments);
                prop_assert_eq!(listed.map(|segment| segment.rows).sum::<u64>(), count.rows);
                match why {
                    Skip::TimeRange => {}
                    Skip::Filter(_) => prop_assert!(filters != "{}", "no filter spares a segment where there is none"),
                    Skip::Rollup => prop_assert!(!explained.rollups.is_empty()),
                }
            }
        }
    }
}

/// Goal: explain orders questions as what they took orders them: CPU time of a server over 20 million rows, by `rivals`
/// (docs/decisions/0018-fast-scans.md), here in milliseconds beside each.
#[test]
fn costs_are_ordered_as_measured() {
    let limits = Limits { slot_width_us: 40_000, ..Limits::default() };
    let world = World::new(7, Shape { rows: 40_000, limits, span_us: 100_000, in_order: true, users: 70_000 });
    let sum = r#""aggregate":"sum","metric":"value""#;
    let measured = [
        (3.82, r#""filters":{"user":"u12345"}"#.to_owned()),
        (11.3, format!(r#"{sum},"group_by":["region"]"#)),
        (18.3, format!(r#"{sum},"group_by":["region"],"filters":{{"region":"r1","flag":"42"}}"#)),
        (23.4, r#""aggregate":"p50","metric":"latency","method":"sketch","group_by":["region"]"#.to_owned()),
        (43.4, r#""aggregate":"distinct","dimension":"user","group_by":["region"]"#.to_owned()),
        (62.7, format!(r#"{sum},"group_by":["region","flag","user"]"#)),
    ];
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let nanoseconds = |rest: &str| {
        let plan = world
            .plan(&format!(r#"{{"namespace":"shop","table":"events","start_time":0,"end_time":1000000,{rest}}}"#))
            .unwrap();
        let sources = world.readers.iter().map(|reader| {
            let snapshot = reader.snapshot(plan.tables()[0].key).unwrap();
            Source { table: 0, partition: reader.partition(), snapshot }
        });
        let explained = query::explain(&plan, sources.collect(), &cancel).unwrap();
        explained.iter().map(|source| source.cost.nanoseconds).sum::<f64>()
    };
    let costs: Vec<_> = measured.iter().map(|(ms, rest)| (*ms, nanoseconds(rest))).collect();
    assert!(costs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{costs:?}");
}
