//! Several control planes on the same metadata, and metadata that is away.

use std::sync::Arc;

use crate::support::{Bench, settings};
use proto::catalog::{Catalog as _, NewTable, TablePatch, Tenants as _};
use types::{ColumnDef, ColumnKind, ErrorCode, SchemaVersion, TableName, TenantId};

const TENANT: TenantId = TenantId::DEFAULT;

fn name(table: &str) -> TableName {
    TableName::new("shop", table)
}

/// Goal: what one control plane creates, changes and deletes, the others show after they looked; what a life had is never shown
/// again.
#[tokio::test]
async fn changes_of_others_are_taken_in() {
    let bench = Bench::new(settings()).await;
    let other = bench.beside(settings()).await;
    let made = bench.plane.create(TENANT, NewTable::auto(name("events"))).await.unwrap();
    assert_eq!(other.cached(TENANT, &name("events")), None);
    other.follow().await.unwrap();
    assert_eq!(other.cached(TENANT, &name("events")), Some(made.clone()));
    let column = ColumnDef { name: "a".into(), kind: ColumnKind::Metric };
    let wider = bench.plane.ensure_columns(made.key, &[column]).await.unwrap();
    other.follow().await.unwrap();
    assert_eq!(other.cached(TENANT, &name("events")), Some(wider));
    bench.plane.delete(TENANT, &name("events")).await.unwrap();
    other.follow().await.unwrap();
    assert_eq!(other.cached(TENANT, &name("events")), None);
    let second = other.create(TENANT, NewTable::auto(name("events"))).await.unwrap();
    bench.plane.follow().await.unwrap();
    assert_eq!(bench.plane.cached(TENANT, &name("events")), Some(second));
}

/// Goal: a change that another process could not announce before it ended is announced by who is left, and is shown only then.
#[tokio::test]
async fn what_others_left_half_done_is_done() {
    let bench = Bench::new(settings()).await;
    let other = bench.beside(settings()).await;
    bench.log.set_away(true);
    let refused = other.create(TENANT, NewTable::auto(name("events"))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    drop(other);
    bench.log.set_away(false);
    bench.plane.follow().await.unwrap();
    assert_eq!(bench.plane.cached(TENANT, &name("events")), None, "no partition knows of it");
    bench.plane.expect_repair();
    assert!(bench.plane.repair().await);
    assert!(bench.store.unannounced().await.unwrap().is_empty());
    let shown = bench.plane.cached(TENANT, &name("events")).expect("it is announced");
    assert_eq!(shown.schema.version(), SchemaVersion(1));
}

/// Goal: while metadata is away what is known is served from memory, events of known tables and columns need nothing else, and
/// what would change something is refused as unavailable.
#[tokio::test]
async fn known_tables_outlive_metadata() {
    let bench = Bench::new(settings()).await;
    let column = ColumnDef { name: "a".into(), kind: ColumnKind::Metric };
    let table = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    let table = bench.plane.ensure_columns(table.key, std::slice::from_ref(&column)).await.unwrap();
    let placement = bench.plane.placement();
    bench.store.close().await;

    let plane = &bench.plane;
    assert_eq!(plane.cached(TENANT, &name("events")), Some(Arc::clone(&table)));
    assert_eq!(plane.table(TENANT, &name("events")).await, Ok(Arc::clone(&table)));
    assert_eq!(plane.tables(TENANT).await, Ok(vec![Arc::clone(&table)]));
    assert_eq!(plane.tables(TenantId(9)).await, Ok(Vec::new()));
    assert_eq!(plane.tenants().await, Ok(vec![TENANT]));
    assert_eq!(plane.ensure_table(TENANT, &name("events")).await, Ok(Arc::clone(&table)));
    assert_eq!(plane.ensure_columns(table.key, &[column]).await, Ok(Arc::clone(&table)));
    assert_eq!(plane.placement(), placement);

    let refused = [
        plane.table(TENANT, &name("other")).await.map(drop),
        plane.ensure_table(TENANT, &name("other")).await.map(drop),
        plane.ensure_columns(table.key, &[ColumnDef { name: "b".into(), kind: ColumnKind::Metric }]).await.map(drop),
        plane.create(TENANT, NewTable::auto(name("other"))).await.map(drop),
        plane.patch(TENANT, &name("events"), TablePatch::default()).await.map(drop),
        plane.delete(TENANT, &name("events")).await,
        plane.follow().await,
        plane.stay_alive().await,
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::Unavailable), "{at}");
    }
    assert_eq!(plane.cached(TENANT, &name("events")), Some(table), "nothing was changed");
}
