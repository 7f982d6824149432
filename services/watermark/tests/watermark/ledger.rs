//! The ledger over HTTP, and the alarm.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use codec::{TableToken, Token, TokenKey};
use serde_json::json;
use service::HealthStatus;
use types::{Offset, PartitionId, SchemaVersion, TenantId};

use crate::world::{ROWS, Rows, World, get, until};

/// A world in which something was appended and applied.
fn world(table: &'static str) -> Arc<World> {
    let world = World::new(table);
    world.ends.lock().unwrap().extend([(0, 10), (1, 4)]);
    world.applied.lock().unwrap().insert(0, 7);
    world
}

/// Goal: the ledger has exactly the contract's fields, each from the place that counts it, over all partitions, also one
/// that has not seen the table; any one of them corrupted turns `balanced` false.
#[tokio::test]
async fn the_ledger_is_counted_and_can_fail() {
    let world = world("counted");
    let (running, _) = world.start().await;
    let path = "/v1/ledger/shop/counted";
    let (status, ledger) = get(running.http_address(), path).await;
    let expected = json!({
        "acked":32,"live":1,"evicted":2,"duplicate":4,"erased":8,"in_flight":17,"balanced":true,
        "late":3,"conflict":2,"dead_lettered":5,
    });
    assert_eq!((status, ledger), (200, expected));

    for bad in [
        Rows { acked: 32, ..ROWS },
        Rows { in_flight: 15, ..ROWS },
        Rows { live: 0, ..ROWS },
        Rows { evicted: 3, ..ROWS },
        Rows { duplicate: 5, ..ROWS },
        Rows { erased: 7, ..ROWS },
    ] {
        *world.rows.lock().unwrap() = bad;
        let (status, ledger) = get(running.http_address(), path).await;
        assert_eq!((status, &ledger["balanced"]), (200, &json!(false)), "{bad:?}");
    }

    assert_eq!(get(running.http_address(), "/v1/ledger/shop/other").await.0, 404);
    let (status, unknown) = get(running.http_address(), "/v1/ledger/shop/counted?before=x").await;
    assert_eq!(status, 400, "{unknown}");
    world.ends.lock().unwrap().insert(1, 2_000_000);
    assert_eq!(get(running.http_address(), path).await.0, 503, "too much waits to be counted");
    world.is_away.store(true, SeqCst);
    assert_eq!(get(running.http_address(), path).await.0, 503);
    let _drained = running.shutdown().await;
}

/// Goal: a token is waited for, and one that was not given here is refused by name.
#[tokio::test]
async fn the_ledger_waits_for_a_token() {
    let world = world("awaited");
    let (running, _) = world.start().await;
    let key = world.key();
    let mut token = Token::new(TenantId::DEFAULT);
    token.cover(&TableToken {
        table: key.table,
        generation: key.generation,
        schema_version: SchemaVersion(1),
        offsets: vec![(PartitionId(0), Offset(9))],
    });
    let ask = |key| format!("/v1/ledger/shop/awaited?after={}", token.encode(&TokenKey::new(key)));
    let waiting = tokio::spawn({
        let (address, path) = (running.http_address(), ask([7; 32]));
        async move { get(address, &path).await }
    });
    // However the two run, the answer comes only once the offset is applied.
    tokio::task::yield_now().await;
    world.applied.lock().unwrap().insert(0, 9);
    assert_eq!(waiting.await.unwrap().0, 200);

    let (status, forged) = get(running.http_address(), &ask([8; 32])).await;
    assert_eq!((status, &forged["error"]["field"]), (400, &json!("after")));
    let _drained = running.shutdown().await;
}

/// Goal: one look that finds an imbalance shows in gauge and counter, two in a row make the service degraded by the
/// table's name, and balance ends that.
#[tokio::test(start_paused = true)]
async fn an_imbalance_raises_the_alarm() {
    // Of any tenant: nobody has to ask for it.
    let world = World::of_tenant(TenantId(7), "alarmed");
    world.ends.lock().unwrap().extend([(0, 10), (1, 4)]);
    world.applied.lock().unwrap().insert(0, 7);
    let (running, metrics) = world.start().await;
    let labels = "{tenant=\"7\",namespace=\"shop\",table=\"alarmed\"}";
    let balanced = |value| format!("truenow_ledger_balanced{labels} {value}\n");
    until(|| metrics.render().contains(&balanced(1)).then_some(())).await;
    assert!(!metrics.render().contains(&format!("truenow_ledger_imbalance_total{labels}")));

    world.rows.lock().unwrap().live += 1;
    until(|| metrics.render().contains(&balanced(0)).then_some(())).await;
    assert_eq!(running.health().status(), HealthStatus::Healthy, "one look is no alarm");
    assert!(metrics.render().contains(&format!("truenow_ledger_imbalance_total{labels} 1")));
    let reasons = until(|| match running.health().status() {
        HealthStatus::Degraded { reasons } => Some(reasons),
        _ => None,
    })
    .await;
    assert!(reasons[0].contains("the ledger of shop.alarmed of tenant 7 does not balance"), "{reasons:?}");

    world.rows.lock().unwrap().live -= 1;
    until(|| (running.health().status() == HealthStatus::Healthy).then_some(())).await;
    assert!(metrics.render().contains(&balanced(1)));
    let _drained = running.shutdown().await;
}

/// Goal: the alarm of a table ends with its tenant, which is not listed any more.
#[tokio::test(start_paused = true)]
async fn an_alarm_ends_with_its_tenant() {
    let world = World::of_tenant(TenantId(8), "vanishing");
    world.ends.lock().unwrap().extend([(0, 10), (1, 4)]);
    world.applied.lock().unwrap().insert(0, 7);
    world.rows.lock().unwrap().live += 1;
    let (running, metrics) = world.start().await;
    until(|| matches!(running.health().status(), HealthStatus::Degraded { .. }).then_some(())).await;

    world.is_gone.store(true, SeqCst);
    until(|| (running.health().status() == HealthStatus::Healthy).then_some(())).await;
    let labels = "{tenant=\"8\",namespace=\"shop\",table=\"vanishing\"}";
    assert!(metrics.render().contains(&format!("truenow_ledger_balanced{labels} 1\n")), "its gauge says no more");
    let _drained = running.shutdown().await;
}
