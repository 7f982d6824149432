//! `truenow.v1.Query`: one answer, whole and in parts.

mod support;

use proto::v1::{QueryRequest, query_client::QueryClient, query_part::Part};
use serde_json::{Value, json};
use support::{Event, PARTITIONS, World};

/// With their long names, several parts.
const ROWS: u64 = 900;
const PART_BYTES_MAX: usize = 64 << 10;

/// Goal: the parts of an answer, put together, are the answer that comes whole; no part is longer than promised; a
/// refused question has the same status either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_the_answer() {
    let mut world = World::start(1 << 30).await;
    for partition in 0..PARTITIONS {
        let mine = (0..ROWS).filter(|number| number % u64::from(PARTITIONS) == u64::from(partition));
        let events: Vec<Event> = mine.map(|number| Event { time: number as i64 * 1_000_000, number }).collect();
        world.ingest(partition, &events).await;
    }
    let mut client = QueryClient::connect(format!("http://{}", world.grpc_address())).await.unwrap();
    let functions = ["sum", "min", "max", "avg"];
    let named = |function| json!({"fn": function, "metric": "number", "as": format!("{function}_{}", "x".repeat(50))});
    let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": ROWS * 1_000_000,
        "interval_us": 1_000_000, "group_by": ["region"], "aggregates": functions.map(named)});
    for (query, rows_wanted, parts_min) in
        [(query.clone(), ROWS, 3), (with(&query, "start_time", (ROWS - 1) * 1_000_000), 1, 1)]
    {
        let request = QueryRequest { query: query.to_string() };
        let whole: Value =
            serde_json::from_str(&client.query(request.clone()).await.unwrap().into_inner().answer).unwrap();
        let mut stream = client.query_stream(request).await.unwrap().into_inner();
        let (mut rows, mut parts, mut tail) = (Vec::new(), 0, None);
        while let Some(part) = stream.message().await.unwrap() {
            assert!(tail.is_none(), "a part after the tail");
            match part.part.unwrap() {
                Part::Rows(part) => {
                    assert!(part.rows.len() <= PART_BYTES_MAX);
                    rows.extend(serde_json::from_str::<Vec<Value>>(&part.rows).unwrap());
                    parts += 1;
                }
                Part::Tail(part) => tail = Some(part),
            }
        }
        let tail = tail.unwrap();
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert!(rows.len() as u64 == rows_wanted && parts >= parts_min, "{} rows in {parts} parts", rows.len());
        assert_eq!((&Value::from(rows), &json(&tail.columns)), (&whole["rows"], &whole["columns"]));
        let (receipt, stats) = (json(&tail.receipt), json(&tail.stats));
        assert_eq!((&receipt["offsets"], &receipt["complete"]), (&whole["receipt"]["offsets"], &json!(true)));
        assert_eq!(stats["rows_scanned"], whole["stats"]["rows_scanned"]);
        assert!(whole.as_object().unwrap().len() == 4 && stats.as_object().unwrap().len() == 7);
    }
    let request = QueryRequest { query: with(&query, "table", "nowhere").to_string() };
    let (one, other) =
        (client.query(request.clone()).await.unwrap_err(), client.query_stream(request).await.err().unwrap());
    assert_eq!((one.code(), one.message()), (tonic::Code::NotFound, other.message()));
    assert_eq!(other.code(), one.code());
}

fn with(query: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut query = query.clone();
    query[field] = value.into();
    query
}
