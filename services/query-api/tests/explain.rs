//! `POST /v1/explain` and `GET /v1/metrics` over HTTP, beside the query that they are about.

mod support;

use serde_json::{Value, json};
use support::{Event, PARTITIONS, World};

async fn filled() -> World {
    let mut world = World::start(1 << 30).await;
    for block in 0..60_u64 {
        let events: Vec<Event> =
            (0..50).map(|n| block * 50 + n).map(|number| Event { time: number as i64 * 1_000_000, number }).collect();
        world.ingest(block as u32 % PARTITIONS, &events).await;
    }
    world
}

fn sum(values: &Value, of: impl Fn(&Value) -> u64) -> u64 {
    values.as_array().unwrap().iter().map(of).sum()
}

/// Goal: the plan says of a query what its answer then counts, and how each of its outputs is computed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_is_as_explained() {
    let world = filled().await;
    let query = json!({"namespace": "shop", "table": "events", "start_time": 500_000_000, "end_time": 700_000_000_i64,
        "filters": {"region": "r1"}, "aggregates": [{"fn": "count"}, {"fn": "p99", "metric": "number"},
        {"fn": "distinct", "dimension": "region"}]});
    let (status, plan) = world.post("/v1/explain", query.to_string()).await;
    assert_eq!(status, 200, "{plan}");
    let (status, answer) = world.post("/v1/query", query.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let tables = |partition: &Value, of: &dyn Fn(&Value) -> u64| sum(&partition["tables"], of);
    let count = |pointer: &'static str| {
        sum(&plan["partitions"], |partition| {
            tables(partition, &|table| table.pointer(pointer).unwrap().as_u64().unwrap())
        })
    };
    let stats = &answer["stats"];
    assert_eq!(count("/kept/segments"), stats["segments"].as_u64().unwrap());
    assert_eq!(count("/rows_to_scan"), stats["rows_scanned"].as_u64().unwrap());
    assert_eq!(plan["cost"]["rows"], stats["rows_scanned"]);
    assert!(plan["cost"]["ms"].as_f64().unwrap() > 0.0 && plan["cost"]["bytes"].as_u64().unwrap() > 0);
    let methods: Vec<_> = plan["columns"].as_array().unwrap().iter().map(|column| column["method"].clone()).collect();
    assert_eq!(methods, ["exact", "auto", "hyperloglog"]);
    assert_eq!((&plan["rollup"], &plan["missing"]), (&Value::Null, &json!([])));
    let (status, reply) = world.post("/v1/explain", "{}").await;
    assert_eq!((status, &reply["error"]["field"]), (400, &json!("namespace")), "{reply}");
}

/// Goal: a range that only some segments meet says why the others are skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_segments_have_a_reason() {
    let world = filled().await;
    let skipped = async |range: (i64, i64), filters: Value| {
        let query = json!({"namespace": "shop", "table": "events", "start_time": range.0, "end_time": range.1,
            "filters": filters});
        let (status, plan) = world.post("/v1/explain", query.to_string()).await;
        assert_eq!(status, 200, "{plan}");
        plan["partitions"][0]["tables"][0].clone()
    };
    let far = skipped((-10, -5), json!({})).await;
    assert_eq!((&far["kept"]["segments"], &far["skipped"][0]["why"]), (&json!(0), &json!("time_range")));
    let none = skipped((0, i64::MAX), json!({"region": "nowhere"})).await;
    let reason = (&none["skipped"][0]["why"], &none["skipped"][0]["column"], &none["segments"][0]["kept"]);
    assert_eq!(reason, (&json!("filter"), &json!("region"), &json!(false)));
}

/// Goal: the plan names the gaps of the log that the receipt of the answer then names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_are_foreseen() {
    let mut world = filled().await;
    world.lose_next(1);
    let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1, "allow_partial": true});
    let (status, plan) = world.post("/v1/explain", query.to_string()).await;
    assert_eq!(
        (status, &plan["missing"][0]["why"], &plan["missing"][0]["partition"]),
        (200, &json!("log_gap"), &json!(1))
    );
    let (_, answer) = world.post("/v1/query", query.to_string()).await;
    assert_eq!(plan["missing"], answer["receipt"]["missing"]);
}

/// Goal: the short form in a query string has the rows of the query that it stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_form_is_a_query() {
    let world = filled().await;
    let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 900_000_000,
        "group_by": ["region"], "aggregate": "sum", "metric": "number", "interval_us": 60_000_000});
    let (_, expected) = world.post("/v1/query", query.to_string()).await;
    let path = "/v1/metrics?namespace=shop&table=events&start=0&end=900000000&group_by=region&metric=number";
    let (status, got) = world.get(&format!("{path}&interval=60000000&tenant=1")).await;
    assert_eq!(status, 200, "{got}");
    assert!(expected["rows"].as_array().is_some_and(|rows| rows.len() > 30));
    assert_eq!((&got["rows"], &got["columns"]), (&expected["rows"], &expected["columns"]));
    let (status, reply) = world.get(&format!("{path}&tenant=2")).await;
    assert_eq!((status, &reply["error"]["field"]), (404, &json!("tenant")));
}
