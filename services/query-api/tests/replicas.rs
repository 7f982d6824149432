//! Replicas of one log: they say the same, and where they do not, it is found.

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::{Event, PARTITIONS, Setup, World};

/// Events of a partition, later with each block and over more than a minute, so that they lie in slots of their own.
fn events(block: u64) -> Vec<Event> {
    (0..4_000).map(|n| Event { time: ((block * 4_000 + n) * 20_000) as i64, number: block * 4_000 + n }).collect()
}

/// A replica with much memory and in another process, and one with little, whose query API sees both.
async fn replicas() -> [World; 2] {
    let large = World::start_with(Setup { elsewhere: true, ..Setup::of_events(1 << 30) }).await;
    let replica = Some(Arc::clone(&large.node));
    let small = World::start_with(Setup { replica, ..Setup::of_events(8 << 20) }).await;
    [large, small]
}

async fn compare(world: &World, partition: u32) -> Value {
    let (status, compared) = world.get(&format!("/v1/replicas/shop/events/{partition}")).await;
    assert_eq!(status, 200, "{compared}");
    compared
}

/// Goal: a replica with little memory, from which rows have left, and one in another process agree on what both still have, in each
/// partition, also where one is further than the other; events of which one replica was told something else are found, with what
/// each has, and the other partitions still agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn divergence_is_found() {
    let [mut large, mut small] = replicas().await;
    let mut block = 0;
    while block < 4 || compare(&small, 0).await["from_us"].is_null() {
        for partition in 0..PARTITIONS {
            large.ingest(partition, &events(block)).await;
            small.ingest(partition, &events(block)).await;
        }
        block += 1;
        assert!(block < 200, "rows leave the small one some time");
    }
    large.ingest(2, &events(block)).await;
    for partition in 0..PARTITIONS {
        let compared = compare(&small, partition).await;
        assert_eq!((&compared["agree"], &compared["offset"]), (&json!(true), &json!(block)), "{compared}");
        let (one, other) = (&compared["replicas"][0], &compared["replicas"][1]);
        assert!(one["rows"].as_u64().unwrap() > 0 && one["checksum"] == other["checksum"], "{compared}");
    }
    small.ingest(2, &events(block)).await;

    let mut other = events(block);
    // Another id, too, which no other event has.
    other[7].number += 1 << 40;
    large.ingest(1, &events(block)).await;
    small.ingest(1, &other).await;
    for partition in 0..PARTITIONS {
        let compared = compare(&small, partition).await;
        assert_eq!(compared["agree"], json!(partition != 1), "{compared}");
        let (one, other) = (&compared["replicas"][0], &compared["replicas"][1]);
        assert_eq!((&one["node"], &other["node"], &one["rows"]), (&json!(1), &json!(2), &other["rows"]));
        assert_eq!(one["checksum"] == other["checksum"], partition != 1);
    }
}

/// Goal: one replica alone has nothing to be compared with, one that is away is named, and a partition that the table does not
/// have is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_is_told() {
    let alone = World::start(1 << 30).await;
    let compared = compare(&alone, 0).await;
    assert_eq!((&compared["agree"], &compared["replicas"], &compared["away"]), (&Value::Null, &json!([]), &json!([])));
    let (status, refused) = alone.get("/v1/replicas/shop/events/7").await;
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("NOT_FOUND")), "{refused}");
    let (status, refused) = alone.get("/v1/replicas/shop/events/x").await;
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("partition")), "{refused}");

    let away = Setup { replica: Some(support::nobody().await), ..Setup::of_events(1 << 30) };
    let compared = compare(&World::start_with(away).await, 0).await;
    assert_eq!((&compared["agree"], &compared["away"]), (&Value::Null, &json!([2])), "{compared}");
}
