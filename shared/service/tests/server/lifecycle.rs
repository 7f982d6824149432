//! Starting, health, and the order of a shutdown.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use service::{Drained, HealthStatus};
use tokio::net::TcpStream;

use crate::{Gate, HUNG, Start, fetch, json, status};

/// Goal: health follows the service, and only a serving one answers 200.
#[tokio::test]
async fn health_follows_the_service() {
    let running = Start::named("health").start().await;
    let address = running.http_address();
    running.health().set_progress(0.25);
    let starting = fetch(address, "/health", "").await;
    assert_eq!((status(&starting), &json(&starting)["progress"]), (503, &serde_json::json!(0.25)));
    assert_eq!(status(&fetch(address, "/live", "").await), 200);

    running.health().set_serving();
    let healthy = fetch(address, "/health", "").await;
    let expected = serde_json::json!({"status":"healthy","service":"health","uptime":0,"version":"1.2.3"});
    let mut page = json(&healthy);
    page["uptime"] = 0.into();
    assert_eq!((status(&healthy), page), (200, expected));

    running.health().degrade("lag", "12 s behind");
    let degraded = fetch(address, "/health", "").await;
    assert_eq!((status(&degraded), &json(&degraded)["reasons"]), (200, &serde_json::json!(["12 s behind"])));
    let _ = running.shutdown().await;
}

/// Goal: a shutdown closes the port at once, finishes the request under way, then runs the registered steps in order.
#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way() {
    let gate = Gate::default();
    let running = Start { gate: gate.clone(), ..Start::named("drain") }.start().await;
    let (address, health) = (running.http_address(), running.health().clone());
    let steps = Arc::new(Mutex::new(Vec::new()));
    let step = |name: &'static str| {
        let steps = steps.clone();
        async move { steps.lock().unwrap().push(name) }
    };
    let running = running.on_stopped(step("writers")).on_stopped(step("log"));

    let request = tokio::spawn(async move { fetch(address, "/wait", "").await });
    gate.entered.notified().await;
    let shutdown = tokio::spawn(running.shutdown());
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(HUNG, closed).await.expect("the port closes while the request is under way");
    assert_eq!(health.status(), HealthStatus::Draining);
    assert!(steps.lock().unwrap().is_empty());

    gate.open.notify_one();
    let answer = request.await.unwrap();
    assert!(status(&answer) == 200 && answer.ends_with("waited"), "{answer}");
    assert_eq!(shutdown.await.unwrap(), Drained { connections_cut: 0 });
    assert_eq!(*steps.lock().unwrap(), ["writers", "log"]);
}

/// Goal: a request that does not finish is cut after the drain timeout, and said to be.
#[tokio::test]
async fn a_shutdown_is_bounded() {
    let gate = Gate::default();
    let mut start = Start { gate: gate.clone(), ..Start::named("cut") };
    start.limits.drain_timeout = Duration::from_millis(50);
    let running = start.start().await;
    let address = running.http_address();
    let request = tokio::spawn(async move { fetch(address, "/wait", "").await });
    gate.entered.notified().await;
    assert_eq!(running.shutdown().await, Drained { connections_cut: 1 });
    assert_eq!(request.await.unwrap(), "");
}
