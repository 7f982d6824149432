//! Progress of partitions and the lag of readers.

use std::{sync::atomic::Ordering::SeqCst, thread};

use serde_json::{Value, json};
use service::HealthStatus;
use watermark::LAG_AGE_US_MAX;

use crate::world::{NOW, World, get, until};

/// Goal: per partition what the log holds and what is applied, also where a partition has not seen the table yet; lag and
/// freshness are those of the first record that waits, whose time is looked up on no thread that serves.
#[tokio::test]
async fn progress_is_measured_from_the_log() {
    let world = World::new("events");
    let (running, _) = world.start().await;
    let path = "/v1/watermarks/shop/events";
    let (status, empty) = get(running.http_address(), path).await;
    assert_eq!((status, &empty["watermark_us"], &empty["freshness_us"]), (200, &Value::Null, &json!(0)));

    world.ends.lock().unwrap().extend([(0, 10), (1, 4)]);
    world.applied.lock().unwrap().insert(0, 7);
    world.now.store(NOW + 100, SeqCst);
    let (_, progress) = get(running.http_address(), path).await;
    let expected = json!({
        "namespace":"shop","table":"events","generation":3,"watermark_us":77,"freshness_us":100,
        "partitions":[
            {"partition":0,"log_end":10,"applied":7,"lag_records":3,"event_time_max_us":77,"freshness_us":93,"replicas":[1]},
            {"partition":1,"log_end":4,"applied":0,"lag_records":4,"event_time_max_us":null,"freshness_us":100,"replicas":[1]},
        ],
    });
    assert_eq!(progress, expected);
    let asked_on = world.times_asked_on.lock().unwrap().clone();
    assert!(!asked_on.is_empty() && !asked_on.contains(&thread::current().id()), "the runtime has this thread alone");

    assert_eq!(get(running.http_address(), "/v1/watermarks/shop/other").await.0, 404);
    world.is_away.store(true, SeqCst);
    assert_eq!(get(running.http_address(), path).await.0, 503);
    assert_eq!(running.shutdown().await.connections_cut, 0);
}

/// Goal: a reader that is dead shows as lag that grows, in the gauges and as degraded health, and is forgotten once it is back.
#[tokio::test(start_paused = true)]
async fn a_dead_reader_shows() {
    let world = World::new("events");
    world.ends.lock().unwrap().extend([(0, 5), (1, 0)]);
    world.applied.lock().unwrap().extend([(0, 5), (1, 0)]);
    let (running, metrics) = world.start().await;
    assert_eq!(running.health().status(), HealthStatus::Healthy);

    // The reader dies; the log goes on.
    world.is_away.store(true, SeqCst);
    world.ends.lock().unwrap().insert(0, 50);
    world.now.store(NOW + 5 + LAG_AGE_US_MAX + 1, SeqCst);
    let reasons = until(|| match running.health().status() {
        HealthStatus::Degraded { reasons } if reasons[0].contains("45 records") => Some(reasons),
        _ => None,
    })
    .await;
    assert!(reasons[0].contains("the hot tier does not answer"), "{reasons:?}");
    assert!(reasons[0].contains("partition 0 is 10 s behind its log, 45 records wait"), "{reasons:?}");
    let page = metrics.render();
    assert!(page.contains("truenow_partition_lag_records{partition=\"0\"} 45"), "{page}");
    assert!(page.contains("truenow_freshness_seconds{partition=\"0\"} 10.0"), "{page}");

    world.is_away.store(false, SeqCst);
    world.applied.lock().unwrap().insert(0, 50);
    until(|| (running.health().status() == HealthStatus::Healthy).then_some(())).await;
    assert!(metrics.render().contains("truenow_partition_lag_records{partition=\"0\"} 0"));
    let _drained = running.shutdown().await;
}
