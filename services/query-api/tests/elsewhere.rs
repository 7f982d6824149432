//! A node of the hot tier in another process: the query API says what it says of one in its own.

mod support;

use std::time::Duration;

use codec::ClusterKey;
use serde_json::{Value, json};
use support::{Event, PARTITIONS, Setup, World, cluster_key};
use types::ErrorCode;

const MEMORY: u64 = 1 << 30;
/// Longer than any test takes.
const TTL: Duration = Duration::from_secs(3_600);
const EVENTS: u64 = 60_000;

/// What two servers must agree on: all but when they were asked and what it took.
fn told((status, mut answer): (u16, Value)) -> (u16, Value) {
    if let Some(receipt) = answer["receipt"].as_object_mut() {
        assert!(receipt.remove("as_of_us").is_some() && receipt.remove("freshness_us").is_some());
    }
    if let Some(stats) = answer["stats"].as_object_mut() {
        assert!(stats.remove("elapsed_us").is_some());
    }
    (status, answer)
}

fn query(rest: &Value) -> Value {
    let mut query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1_000_000});
    query.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    query
}

/// Questions of each kind of state; some of so many groups that their results take several parts, some in further rounds, some
/// that are refused by the node.
fn questions() -> Vec<Value> {
    let exact = |q: f64| json!({"fn": "percentile", "metric": "number", "q": q, "method": "exact", "as": "p"});
    [
        json!({"aggregates": [{"fn": "count"}]}),
        json!({"aggregates": [{"fn": "avg", "metric": "number"}, {"fn": "stddev", "metric": "number"}, exact(0.37)]}),
        json!({"group_by": ["region"], "aggregates": [{"fn": "sum", "metric": "number"}, {"fn": "p99", "metric": "number"}]}),
        json!({"interval_us": 40, "group_by": ["region"], "aggregates": [{"fn": "variance", "metric": "number"}, {"fn": "min", "metric": "number"}, {"fn": "max", "metric": "number"}, {"fn": "distinct", "dimension": "region"}]}),
        json!({"interval_us": 40, "aggregates": [{"fn": "top", "dimension": "region", "k": 2}, {"fn": "p50", "metric": "number", "method": "tdigest"}]}),
        json!({"interval_us": 1, "aggregates": [{"fn": "count"}]}),
        json!({"filters": {"region": ["r0", "r2"], "number": {"gte": 10.5}}, "aggregates": [{"fn": "frequency", "dimension": "region", "value": "r2"}]}),
        json!({"group_by": ["region"], "order_by": [{"column": "count", "desc": true}], "limit": 1, "aggregates": [{"fn": "count"}]}),
        json!({"group_by": ["nothing"], "aggregates": [{"fn": "count"}]}),
    ]
    .iter()
    .map(query)
    .collect()
}

/// Goal: the port of a node answers processes of its cluster alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_the_clusters() {
    let world = World::start(MEMORY).await;
    let of_cluster = world.node_by(Some(cluster_key())).status().await.unwrap();
    assert_eq!(of_cluster.len(), PARTITIONS as usize);
    let other = ClusterKey::new("the key of another cluster, as long as a key has to be");
    for key in [None, Some(other)] {
        let refused = world.node_by(key).status().await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated, "{refused:?}");
    }
}

/// Goal: whatever is asked, errors, plans and raw events among it, is answered alike to the byte, where results are kept and
/// where they are not, before and after rows are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_alike() {
    for ttl in [Duration::ZERO, TTL] {
        let setup = || Setup { cache_ttl: ttl, ..Setup::of_events(MEMORY) };
        let mut here = World::start_with(setup()).await;
        let mut there = World::start_with(Setup { elsewhere: true, ..setup() }).await;
        for partition in 0..PARTITIONS {
            let events: Vec<Event> = (0..EVENTS / u64::from(PARTITIONS))
                .map(|n| Event { time: (n * 13 % 700) as i64, number: n * 3 + u64::from(partition) })
                .collect();
            for some in events.chunks(5_000) {
                here.ingest(partition, some).await;
                there.ingest(partition, some).await;
            }
        }
        for lost in [false, true] {
            if lost {
                here.lose_next(1);
                there.lose_next(1);
            }
            let mut answered = 0;
            for mut question in questions() {
                question["allow_partial"] = json!(lost);
                for _ in 0..2 {
                    let (one, other) = (
                        here.post("/v1/query", question.to_string()).await,
                        there.post("/v1/query", question.to_string()).await,
                    );
                    answered += usize::from(one.0 == 200);
                    assert_eq!(told(other), told(one), "{question}");
                }
                let (one, other) = (
                    here.post("/v1/explain", question.to_string()).await,
                    there.post("/v1/explain", question.to_string()).await,
                );
                assert_eq!(other, one, "{question}");
            }
            assert!(answered >= 14, "{answered}");
            let mut path =
                "/v1/events?namespace=shop&table=events&start_time=0&end_time=9&limit=300&allow_partial=true"
                    .to_owned();
            loop {
                let (one, other) = (here.get(&path).await, there.get(&path).await);
                assert_eq!(told(other), told(one.clone()));
                let Some(cursor) = one.1["cursor"].as_str() else { break };
                path = format!("{}&cursor={cursor}", path.split("&cursor").next().unwrap());
            }
        }
    }
}
