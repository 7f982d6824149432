//! Gateways that have their rate limits together.

mod support;

use std::{sync::Arc, time::Duration};

use gateway::SharedLimits;
use metadata::{Coordination, SqliteStore};
use serde_json::json;

use self::support::{Gateway, catalog::MemoryCatalog, log::MemoryLog};

const RATE: u64 = 2_000;
const BATCH: u64 = 10;

async fn gateway(name: &str, store: &Arc<SqliteStore>) -> Gateway {
    let limits = SharedLimits { store: Arc::clone(store) as Arc<dyn Coordination>, gateway: name.to_owned() };
    let rate = RATE.to_string();
    let settings = [("gateway.tenant_rate_limit", rate.as_str()), ("gateway.burst_ms", "500")];
    let (catalog, log) = (Arc::new(MemoryCatalog::new(4)), Arc::new(MemoryLog::new(4)));
    Gateway::sharing(tempfile::tempdir().unwrap(), catalog, log, &settings, Some(limits)).await
}

/// Events that a gateway takes of one batch.
async fn post(gateway: &Gateway) -> u64 {
    let events: Vec<_> = (0..BATCH).map(|n| json!({"namespace": "a", "table": "t", "metrics": {"n": n}})).collect();
    let reply = gateway.post(json!({"events": events}).to_string()).await;
    match reply.status {
        200 => BATCH,
        429 => {
            assert_eq!(reply.json["error"]["field"], json!("tenant_rate_limit"), "{}", reply.json);
            0
        }
        other => panic!("{other}: {}", reply.json),
    }
}

/// Goal: two gateways, one of which gets most of a load far above the limit, take no more together than the rate and one burst
/// bring, and nearly that; a tenant's first request waits for its share instead of being refused.
#[tokio::test]
async fn two_gateways_keep_one_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("metadata.db")).await.unwrap());
    let (first, second) = (gateway("first", &store).await, gateway("second", &store).await);
    assert_eq!(post(&first).await, BATCH, "the first request waits for its share");

    let (mut taken, mut by_second) = (BATCH, 0);
    // The clock of the limits moves as the test says, and renewals by real time: about as fast.
    const STEP: Duration = Duration::from_millis(10);
    const STEPS: u32 = 600;
    for step in 0..STEPS {
        for _ in 0..12 {
            taken += post(&first).await;
        }
        if step % 2 == 0 {
            by_second += post(&second).await;
        }
        first.clock.advance(STEP);
        second.clock.advance(STEP);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (all, brought) = (taken + by_second, RATE * u64::from(STEPS) / 100);
    let burst = RATE / 2;
    assert!(all <= brought + burst + 2 * BATCH, "{all} taken, {brought} brought");
    assert!(all >= brought * 7 / 10, "{all} taken of {brought}");
    assert!(by_second > 0);

    let _ = first.running.shutdown().await;
    let _ = second.running.shutdown().await;
}
