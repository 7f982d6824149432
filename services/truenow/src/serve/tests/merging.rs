//! Answers of many groups over several nodes, whose partial results come in parts and are merged while others are on their way.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value, json};

use super::{BETWEEN, Composed, TRIES, World};

const NODE: &str = "hot-tier,stream-ingester";
/// Names so long that the groups of each partition take several parts of a stream together.
const GROUPS: u32 = 6_000;
const EVENTS: u32 = 24_000;
const BATCH: u32 = 1_000;

fn user(id: u32) -> String {
    format!("a user whose name is long enough to fill what a node sends at a time, number {:05}", id * 7_919 % GROUPS)
}

fn event(id: u32) -> Value {
    json!({"namespace": "shop", "table": "users", "event_time": id, "event_id": format!("e{id}"),
        "dimensions": {"user": user(id)}, "metrics": {"spent": f64::from(id) / 8.0}})
}

/// Sends events until they are taken; gives the token.
async fn send(world: &World, gateway: &Composed, body: &Value) -> String {
    for _ in 0..TRIES {
        let (status, reply) = world.ask(gateway, "gateway", Method::POST, "/v1/events", body).await;
        if status == 200 {
            return reply["token"].as_str().unwrap().to_owned();
        }
        assert!(status == 429 || status == 503, "{status} {reply}");
        tokio::time::sleep(BETWEEN).await;
    }
    panic!("events are not taken");
}

/// The rows of a complete answer, as soon as one comes.
async fn rows(world: &World, query_api: &Composed, after: &[String]) -> Value {
    let query = json!({"namespace": "shop", "table": "users", "start_time": 0, "end_time": EVENTS, "group_by": ["user"],
        "aggregates": [{"fn": "count"}, {"fn": "sum", "metric": "spent", "as": "sum"}, {"fn": "stddev", "metric": "spent", "as": "spread"}],
        "order_by": [{"column": "user"}], "limit": GROUPS, "after": after, "timeout_ms": 20_000});
    let mut last = Value::Null;
    for _ in 0..TRIES {
        let (status, answer) = world.ask(query_api, "query-api", Method::POST, "/v1/query", &query).await;
        if status == 200 && answer["receipt"]["complete"] == json!(true) {
            return answer["rows"].clone();
        }
        last = answer;
        tokio::time::sleep(BETWEEN).await;
    }
    panic!("answers stay incomplete: {last}");
}

/// Goal: an answer of more than one message from each of three nodes, merged as they come, is that of a model, and the same to the last
/// bit when one node has everything; a cluster that lost all other holders of partitions goes on with the one node that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_groups_of_several_nodes_are_one_answer() {
    let world = World::new().await;
    let settings = [("cluster.nodes_first", "3".to_owned()), ("cluster.replicas", "1".to_owned())];
    let plane = world.start(&world.config("control-plane,watermark,rebalancer", &settings)).await;
    let node = async |id| world.member(&plane, NODE, &[("cluster.node_id", id)]).await;
    let (first, second, third) = tokio::join!(node("1"), node("2"), node("3"));
    let gateway = world.member(&plane, "gateway", &[]).await;
    let query_api = world.member(&plane, "query-api", &[]).await;

    let mut tokens = Vec::new();
    for begin in (0..EVENTS).step_by(BATCH as usize) {
        let events: Vec<_> = (begin..begin + BATCH).map(event).collect();
        tokens.push(send(&world, &gateway, &json!({"events": events})).await);
    }
    let of_three = rows(&world, &query_api, &tokens[tokens.len() - 8..]).await;
    let mut model = BTreeMap::<String, (u32, f64)>::new();
    for id in 0..EVENTS {
        let (count, sum) = model.entry(user(id)).or_default();
        *count += 1;
        *sum += f64::from(id) / 8.0;
    }
    let found = of_three.as_array().unwrap();
    assert_eq!(found.len(), model.len());
    for (row, (user, (count, sum))) in found.iter().zip(&model) {
        assert_eq!((&row["user"], &row["count"], row["sum"].as_f64()), (&json!(user), &json!(count), Some(*sum)));
    }

    second.vanish().await;
    third.vanish().await;
    world.until_placed(&plane, "[1]").await;
    assert_eq!(rows(&world, &query_api, &tokens[tokens.len() - 8..]).await, of_three);
    for member in [gateway, query_api, first, plane] {
        member.shutdown().await;
    }
}
