//! Answers by rollups over HTTP, when rows have left and before.

mod support;

use serde_json::{Value, json};
use support::{Event, PARTITIONS, World};
use types::{Interval, Rollup, TableSettings};

const SECOND: i64 = 1_000_000;
const EVENTS: u64 = 3_000;

/// A second between two events; of a table that keeps its last 100 seconds, and a rollup of all.
async fn filled() -> World {
    let mut world = World::start(1 << 30).await;
    let rollup = Rollup {
        interval: Interval::from_micros(10 * SECOND).unwrap(),
        group_by: vec!["region".to_owned()],
        distinct: Vec::new(),
        percentiles: Vec::new(),
        top: Vec::new(),
        keep_us: Some(1 << 52),
    };
    let settings =
        TableSettings { hot_window_us: Some(100 * SECOND), rollups: vec![rollup], ..TableSettings::default() };
    world.configure(settings).await;
    for block in 0..EVENTS / 50 {
        let event = |number: u64| Event { time: number as i64 * SECOND, number };
        let events: Vec<Event> = (block * 50..(block + 1) * 50).map(event).collect();
        world.ingest(block as u32 % PARTITIONS, &events).await;
    }
    world
}

fn query(start_time: i64, end_time: i64, rest: &Value) -> String {
    let mut query = json!({"namespace": "shop", "table": "events", "start_time": start_time, "end_time": end_time});
    query.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    query.to_string()
}

/// Goal: whole buckets are answered in full when their rows have left; what begins within one, or asks more than the rollup
/// has, is refused with the earliest covered time, or comes with what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_buckets_outlive_their_rows() {
    let world = filled().await;
    let sums = json!({"aggregates": [{"fn": "count"}, {"fn": "sum", "metric": "number"}], "group_by": ["region"]});
    let (status, answer) = world.post("/v1/query", query(0, 2_005 * SECOND, &sums)).await;
    assert_eq!((status, answer["receipt"]["complete"].as_bool()), (400, None), "the last bucket is cut: {answer}");
    let (status, answer) = world.post("/v1/query", query(0, 2_000 * SECOND, &sums)).await;
    assert_eq!((status, &answer["receipt"]["missing"]), (200, &json!([])), "{answer}");
    for (region, row) in answer["rows"].as_array().unwrap().iter().enumerate() {
        let of_region: Vec<u64> = (0..2_000).filter(|number| number % 3 == region as u64).collect();
        let expected = json!({"region": format!("r{region}"), "count": of_region.len(),
            "sum_number": of_region.iter().sum::<u64>() as f64});
        assert_eq!(row, &expected);
    }
    // A bucket for each partition that has rows of it.
    assert_eq!(answer["stats"]["rollup_buckets"], json!(200));
    assert_eq!(answer["stats"]["segments"], json!(0));

    let (status, refused) = world.post("/v1/query", query(5 * SECOND, 2_000 * SECOND, &sums)).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("OUT_OF_RANGE")), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("earliest covered time is 10000000"), "{refused}");
    let (status, refused) =
        world.post("/v1/query", query(0, 2_000 * SECOND, &json!({"aggregate": "p50", "metric": "number"}))).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("OUT_OF_RANGE")), "{refused}");
    let partial = query(5 * SECOND, 2_000 * SECOND, &json!({"allow_partial": true}));
    let (status, answer) = world.post("/v1/query", partial).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["receipt"]["missing"], json!([{"before_us": 10 * SECOND, "why": "evicted"}]));
    assert_eq!(answer["rows"], json!([{"count": 1_990}]));
}

/// Goal: explain names the rollup, what it takes and what is left to rows, as the answer then counts it; a late event is seen
/// to revise its bucket, and counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_the_rollup() {
    let mut world = filled().await;
    let question = query(0, 2_995 * SECOND, &json!({"filters": {"region": "r1"}}));
    let explained = async |world: &World| {
        let (status, plan) = world.post("/v1/explain", question.clone()).await;
        assert_eq!(status, 200, "{plan}");
        plan
    };
    let plan = explained(&world).await;
    assert_eq!(plan["rollup"], json!({"interval_us": 10 * SECOND, "group_by": ["region"]}));
    assert_eq!(plan["missing"], json!([]));
    let of_first = |plan: &Value| plan["partitions"][0]["tables"][0].clone();
    let table = of_first(&plan);
    let taken = &table["rollups"][0];
    assert_eq!((&taken["start_time"], &taken["end_time"]), (&json!(0), &json!(2_990 * SECOND)));
    assert_eq!(table["rows"], json!([{"start_time": 2_990 * SECOND, "end_time": 2_995 * SECOND}]));
    assert_eq!(taken["revised"], json!(0));
    let (_, answer) = world.post("/v1/query", question.clone()).await;
    assert_eq!((&answer["rows"], &plan["cost"]["rows"]), (&json!([{"count": 998}]), &answer["stats"]["rows_scanned"]));

    world.ingest(0, &[Event { time: 7 * SECOND, number: 3_001 }]).await;
    assert_eq!(of_first(&explained(&world).await)["rollups"][0]["revised"], json!(1));
    let (_, answer) = world.post("/v1/query", question).await;
    assert_eq!((&answer["rows"], &answer["receipt"]["complete"]), (&json!([{"count": 999}]), &json!(true)));
}
