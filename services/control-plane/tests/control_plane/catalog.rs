//! The catalog between metadata and the log: what is shown, what is announced, what a crash in between leaves.

use std::{sync::Arc, time::Duration};

use crate::support::{Bench, LOG_PARTITIONS, settings};
use codec::ControlRecord;
use control_plane::CatalogSettings;
use proto::catalog::{Catalog as _, NewTable, TablePatch};
use types::{ColumnDef, ColumnKind, ErrorCode, Generation, NodeId, PartitionId, SchemaVersion, TableName, TenantId};

const TENANT: TenantId = TenantId::DEFAULT;

fn name(table: &str) -> TableName {
    TableName::new("shop", table)
}

fn metric(name: &str) -> ColumnDef {
    ColumnDef { name: name.into(), kind: ColumnKind::Metric }
}

/// Goal: a created table is announced once in each of its partitions and in no other, then shown, with a seed that JSON keeps.
#[tokio::test]
async fn creation_reaches_its_partitions() {
    let bench = Bench::new(settings()).await;
    let new = NewTable { partitions: Some(3), ..NewTable::auto(name("events")) };
    let table = bench.plane.create(TENANT, new).await.unwrap();
    assert_eq!(table.partitions.len(), 3);
    assert!(table.partition_seed < 1 << 53);
    for partition in (0..LOG_PARTITIONS).map(PartitionId) {
        let expected = match table.partitions.contains(&partition) {
            true => vec![ControlRecord::TableConfigured(Arc::clone(&table))],
            false => Vec::new(),
        };
        assert_eq!(bench.log.records_of(partition), expected);
    }
    assert_eq!(bench.plane.cached(TENANT, &name("events")), Some(Arc::clone(&table)));
    assert_eq!(bench.plane.cached(TenantId(2), &name("events")), None);
    assert_eq!(bench.plane.tables(TENANT).await.unwrap(), [table]);
    assert_eq!(bench.plane.tables(TenantId(2)).await.unwrap(), []);
    assert!(bench.store.unannounced().await.unwrap().is_empty());
}

/// Goal: a stampede of first events makes one table and one record per partition, and a stampede for columns one version.
#[tokio::test]
async fn stampedes_cost_one_change() {
    let bench = Bench::new(settings()).await;
    let tables = (0..50).map(|_| {
        let plane = bench.plane.clone();
        tokio::spawn(async move { plane.ensure_table(TENANT, &name("events")).await.unwrap() })
    });
    let mut keys = Vec::new();
    for table in tables.collect::<Vec<_>>() {
        keys.push(table.await.unwrap().key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1);
    assert_eq!(bench.log.len(), LOG_PARTITIONS as usize);
    let columns = (0..50).map(|_| {
        let (plane, key) = (bench.plane.clone(), keys[0]);
        tokio::spawn(async move { plane.ensure_columns(key, &[metric("a"), metric("b")]).await.unwrap() })
    });
    for table in columns.collect::<Vec<_>>() {
        assert_eq!(table.await.unwrap().schema.version(), SchemaVersion(2));
    }
    assert_eq!(bench.log.len(), 2 * LOG_PARTITIONS as usize);
}

/// Goal: columns that conflict are refused by name and change nothing.
#[tokio::test]
async fn conflicting_columns_are_refused() {
    let bench = Bench::new(settings()).await;
    let table = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    bench.plane.ensure_columns(table.key, &[metric("a")]).await.unwrap();
    let error = bench
        .plane
        .ensure_columns(table.key, &[metric("b"), ColumnDef { name: "a".into(), kind: ColumnKind::Dimension }])
        .await
        .unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some("a")));
    let now = bench.plane.table(TENANT, &name("events")).await.unwrap();
    assert_eq!(now.schema.names(ColumnKind::Metric).collect::<Vec<_>>(), ["a"]);
}

/// Goal: while the log is away nothing that it does not hold is shown; after it is back the repair announces it, also after a
/// crash, and the table is then there.
#[tokio::test]
async fn a_crash_between_metadata_and_log_is_repaired() {
    for crashes in [false, true] {
        let mut bench = Bench::new(settings()).await;
        bench.log.set_away(true);
        let error = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(bench.plane.cached(TENANT, &name("events")), None);
        assert_eq!(bench.plane.tables(TENANT).await.unwrap(), []);
        assert_eq!(bench.plane.table(TENANT, &name("events")).await.unwrap_err().code, ErrorCode::Unavailable);
        assert!(!bench.plane.repair().await);
        bench.log.set_away(false);
        if crashes {
            bench = bench.restarted().await;
        } else {
            assert!(bench.plane.repair().await);
        }
        let table = bench.plane.cached(TENANT, &name("events")).expect("the repair shows it");
        assert_eq!(bench.log.len(), LOG_PARTITIONS as usize);
        assert_eq!(bench.plane.ensure_table(TENANT, &name("events")).await.unwrap(), table);
    }
}

/// Goal: columns that the log did not take stay hidden, and come with the next one who asks for them.
#[tokio::test]
async fn columns_wait_for_the_log() {
    let bench = Bench::new(settings()).await;
    let table = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    bench.log.set_away(true);
    assert!(bench.plane.ensure_columns(table.key, &[metric("a")]).await.is_err());
    assert_eq!(bench.plane.cached(TENANT, &name("events")), Some(table.clone()));
    assert_eq!(bench.plane.tables(TENANT).await.unwrap(), std::slice::from_ref(&table));
    bench.log.set_away(false);
    let grown = bench.plane.ensure_columns(table.key, &[metric("a")]).await.unwrap();
    assert_eq!(grown.schema.version(), SchemaVersion(2));
    assert_eq!(bench.plane.cached(TENANT, &name("events")), Some(grown));
    assert!(bench.store.unannounced().await.unwrap().is_empty());
}

/// Goal: a name keeps its id, a new life has a new generation, seed and the defaults, and the end of the old life stands
/// before it in every partition, even if the log refused the end at first.
#[tokio::test]
async fn lives_follow_each_other_in_the_log() {
    let bench = Bench::new(settings()).await;
    let first = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    bench.log.set_away(true);
    assert_eq!(bench.plane.delete(TENANT, &name("events")).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(bench.plane.cached(TENANT, &name("events")), None);
    bench.log.set_away(false);
    let second = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    assert_eq!((second.key.table, second.key.generation), (first.key.table, Generation(2)));
    assert_ne!(second.partition_seed, first.partition_seed);
    for &partition in &first.partitions {
        let expected = [
            ControlRecord::TableConfigured(Arc::clone(&first)),
            ControlRecord::TableDropped(first.key),
            ControlRecord::TableConfigured(Arc::clone(&second)),
        ];
        assert_eq!(bench.log.records_of(partition), expected);
    }
    let error = bench.plane.ensure_columns(first.key, &[metric("a")]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound, "the first life has ended");
}

/// Goal: a deletion that the log refused is done by trying it again, and then there is nothing to delete.
#[tokio::test]
async fn a_deletion_is_tried_again() {
    let bench = Bench::new(settings()).await;
    bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    bench.log.set_away(true);
    bench.plane.delete(TENANT, &name("events")).await.unwrap_err();
    bench.log.set_away(false);
    bench.plane.delete(TENANT, &name("events")).await.unwrap();
    assert_eq!(bench.plane.delete(TENANT, &name("events")).await.unwrap_err().code, ErrorCode::NotFound);
    assert!(bench.store.unannounced().await.unwrap().is_empty());
}

/// Goal: a patch is announced and survives a restart; one that changes nothing costs nothing.
#[tokio::test]
async fn patches_are_announced() {
    let bench = Bench::new(settings()).await;
    let table = bench.plane.ensure_table(TENANT, &name("events")).await.unwrap();
    let patch = TablePatch { hot_window_us: Some(Some(5)), add_columns: vec![metric("a")], ..TablePatch::default() };
    let changed = bench.plane.patch(TENANT, &name("events"), patch.clone()).await.unwrap();
    assert_eq!((changed.schema.version(), changed.settings.hot_window_us), (SchemaVersion(2), Some(5)));
    assert_eq!(bench.plane.patch(TENANT, &name("events"), patch).await.unwrap(), changed);
    let records = bench.log.records_of(table.partitions[0]);
    assert_eq!(records.last(), Some(&ControlRecord::TableConfigured(Arc::clone(&changed))));
    assert_eq!(records.len(), 2);
    let bench = bench.restarted().await;
    assert_eq!(bench.plane.cached(TENANT, &name("events")), Some(changed));
    assert_eq!(bench.log.len(), 2 * LOG_PARTITIONS as usize, "a restart announces nothing that is in the log");
}

/// Goal: events create tables only where they may: by setting, rate and number; creation by hand has no rate.
#[tokio::test]
async fn events_create_within_limits() {
    let never = Bench::new(CatalogSettings { auto_create_tables: false, ..settings() }).await;
    assert_eq!(never.plane.ensure_table(TENANT, &name("a")).await.unwrap_err().code, ErrorCode::NotFound);

    let slow = Bench::new(CatalogSettings { auto_create_per_minute: 2, ..settings() }).await;
    slow.plane.ensure_table(TENANT, &name("a")).await.unwrap();
    slow.plane.ensure_table(TENANT, &name("b")).await.unwrap();
    let error = slow.plane.ensure_table(TENANT, &name("c")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ResourceExhausted);
    assert!(error.retry_after.unwrap() <= Duration::from_secs(30));
    slow.plane.ensure_table(TenantId(2), &name("c")).await.unwrap();
    slow.plane.create(TENANT, NewTable::auto(name("d"))).await.unwrap();

    let few = Bench::new(CatalogSettings { tables_max: 1, ..settings() }).await;
    few.plane.create(TENANT, NewTable::auto(name("a"))).await.unwrap();
    let error = few.plane.create(TENANT, NewTable::auto(name("b"))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ResourceExhausted);
    few.plane.delete(TENANT, &name("a")).await.unwrap();
    few.plane.create(TENANT, NewTable::auto(name("b"))).await.unwrap();
    let error = few.plane.ensure_table(TenantId(2), &TableName::new("", "x")).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some("namespace")));
}

/// Goal: on one node the placement map gives it every partition, at a version that a restart does not raise.
#[tokio::test]
async fn placement_is_kept() {
    let bench = Bench::new(settings()).await;
    let map = bench.plane.placement();
    assert_eq!(map.version, 1);
    assert_eq!(map.replicas.len(), LOG_PARTITIONS as usize);
    assert!(map.replicas.values().all(|nodes| *nodes == [NodeId(1)]));
    let bench = bench.restarted().await;
    assert_eq!(bench.plane.placement(), map);
}
