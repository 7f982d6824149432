//! What every metadata store must do. `conformance!` runs all cases on one back end.

pub(crate) mod coordination;
pub(crate) mod races;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use metadata::{Changes, MetadataError, MetadataStore, StoredTable, Tenant};
use placement::{Handover, MoveReason, Phase, PlacementMap};
use types::{
    ColumnDef, ColumnKind, Generation, Interval, NodeId, PartitionId, Rollup, Schema, SchemaVersion, Table, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};

pub(crate) type Store = Arc<dyn MetadataStore>;

pub(crate) const TENANT: TenantId = TenantId(u64::MAX);

pub(crate) fn name(table: &str) -> TableName {
    TableName::new("größe", table)
}

pub(crate) fn column(name: &str, kind: ColumnKind) -> ColumnDef {
    ColumnDef { name: name.into(), kind }
}

/// A table with something other than the default everywhere.
pub(crate) async fn new_table(store: &Store, table: &str) -> Table {
    let reservation = store.reserve_table(TENANT, &name(table)).await.unwrap();
    Table {
        key: TableKey { tenant: TENANT, table: reservation.table, generation: reservation.generation },
        name: name(table),
        partitions: vec![PartitionId(1), PartitionId(3)],
        partition_by: Some("user id".into()),
        partition_seed: (1 << 53) - 1,
        identity_seed: u64::MAX - 1,
        schema: Schema::from_parts(SchemaVersion(1), vec![column("user id", ColumnKind::Dimension)]),
        settings: TableSettings {
            hot_window_us: Some(5),
            max_age_us: Some(i64::MAX),
            max_future_us: 7,
            dedup_window_us: 8,
            lateness_us: 9,
            rollups: vec![Rollup {
                interval: Interval::from_micros(10).unwrap(),
                group_by: vec!["user id".into()],
                distinct: vec!["b".into()],
                percentiles: vec!["c".into()],
                top: vec!["d".into()],
                keep_us: Some(11),
            }],
            json_schema: Some(r#"{"title":"größe"}"#.into()),
        },
    }
}

pub(crate) fn stored(table: &Table, announced: u32, ended: bool) -> StoredTable {
    StoredTable { table: table.clone(), announced: SchemaVersion(announced), ended }
}

/// A placement map, with a move and a node that is being emptied.
pub(crate) fn map(version: u64) -> PlacementMap {
    let (from, to, phase, reason) = (NodeId(u64::MAX), NodeId(5), Phase::Copying, MoveReason::Drain);
    PlacementMap {
        version,
        replicas: BTreeMap::from([(PartitionId(3), vec![NodeId(2), NodeId(u64::MAX)])]),
        moves: BTreeMap::from([(PartitionId(3), Handover { from, to, phase, bytes: version, reason })]),
        draining: BTreeSet::from([NodeId(u64::MAX)]),
    }
}

pub(crate) fn grown(table: &Table, columns: &[ColumnDef]) -> Table {
    Table { schema: table.schema.with_columns(columns).unwrap().unwrap(), ..table.clone() }
}

/// Goal: everything said of a table comes back, by name, by key and in the list, for its own tenant alone.
pub(crate) async fn tables_round_trip(store: Store) {
    let table = new_table(&store, "a").await;
    store.create_table(&table).await.unwrap();
    let expected = stored(&table, 0, false);
    assert_eq!(store.table(TENANT, &name("a")).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.table_by_key(table.key).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.tables(Some(TENANT)).await.unwrap(), std::slice::from_ref(&expected));
    assert_eq!(store.tables(None).await.unwrap(), [expected]);
    assert_eq!(store.table(TenantId(1), &name("a")).await.unwrap(), None);
    assert_eq!(store.table_by_key(TableKey { tenant: TenantId(1), ..table.key }).await.unwrap(), None);
    assert_eq!(store.tables(Some(TenantId(1))).await.unwrap(), []);
    assert_eq!(store.table(TENANT, &name("A")).await.unwrap(), None, "names are never folded");
}

/// Goal: a name keeps its id and rises in generation; no id is given twice; a living table is not created again.
pub(crate) async fn ids_are_never_reused(store: Store) {
    let first = new_table(&store, "a").await;
    assert_eq!(first.key.generation, Generation(1));
    assert_eq!(new_table(&store, "a").await.key, first.key, "reserving twice gives the same");
    store.create_table(&first).await.unwrap();
    assert!(matches!(store.create_table(&new_table(&store, "a").await).await, Err(MetadataError::AlreadyExists)));
    store.end_table(first.key).await.unwrap();
    assert!(matches!(store.end_table(first.key).await, Err(MetadataError::NotFound)));
    assert_eq!(store.table(TENANT, &name("a")).await.unwrap(), None);
    assert_eq!(store.tables(None).await.unwrap(), []);
    assert!(matches!(store.create_table(&first).await, Err(MetadataError::Conflict)), "a life never comes back");
    let second = new_table(&store, "a").await;
    assert_eq!((second.key.table, second.key.generation), (first.key.table, Generation(2)));
    store.create_table(&second).await.unwrap();
    let other = new_table(&store, "b").await;
    assert_ne!(other.key.table, first.key.table);
    let of_another = store.reserve_table(TenantId(1), &name("a")).await.unwrap();
    assert!(of_another.table != first.key.table && of_another.generation == Generation(1), "another tenant's name");
    assert!(store.table_by_key(first.key).await.unwrap().unwrap().ended);
}

/// Goal: of two writers that read the same version one wins, the other is told, and nothing of its change is left.
pub(crate) async fn writers_compare_and_swap(store: Store) {
    let table = new_table(&store, "a").await;
    store.create_table(&table).await.unwrap();
    let one = grown(&table, &[column("x", ColumnKind::Metric)]);
    let two = grown(&table, &[column("y", ColumnKind::Dimension)]);
    let (a, b) = tokio::join!(
        store.update_table(&one, table.schema.version()),
        store.update_table(&two, table.schema.version())
    );
    let winner = match (a, b) {
        (Ok(()), Err(MetadataError::Conflict)) => one,
        (Err(MetadataError::Conflict), Ok(())) => two,
        other => panic!("one writer must win: {other:?}"),
    };
    assert_eq!(store.table_by_key(table.key).await.unwrap(), Some(stored(&winner, 0, false)));
    let mut third = grown(&winner, &[column("z", ColumnKind::Metric)]);
    third.settings = TableSettings::default();
    store.update_table(&third, winner.schema.version()).await.unwrap();
    assert_eq!(store.table_by_key(table.key).await.unwrap(), Some(stored(&third, 0, false)));
    let same = store.update_table(&third, third.schema.version()).await;
    assert!(matches!(same, Err(MetadataError::Conflict)), "a version rises: {same:?}");
    store.end_table(table.key).await.unwrap();
    let late = grown(&third, &[column("w", ColumnKind::Metric)]);
    assert!(matches!(store.update_table(&late, third.schema.version()).await, Err(MetadataError::NotFound)));
}

/// Goal: the store knows exactly which changes are not known to be in the log, and an older note never undoes a newer.
pub(crate) async fn announcements_are_remembered(store: Store) {
    let (a, b) = (new_table(&store, "a").await, new_table(&store, "b").await);
    store.create_table(&a).await.unwrap();
    store.create_table(&b).await.unwrap();
    assert_eq!(store.unannounced().await.unwrap(), [stored(&a, 0, false), stored(&b, 0, false)]);
    store.mark_announced(a.key, SchemaVersion(1)).await.unwrap();
    assert!(store.table_by_key(a.key).await.unwrap().unwrap().is_announced());
    assert_eq!(store.unannounced().await.unwrap(), [stored(&b, 0, false)]);
    let grown = grown(&a, &[column("x", ColumnKind::Metric)]);
    store.update_table(&grown, SchemaVersion(1)).await.unwrap();
    assert_eq!(store.unannounced().await.unwrap(), [stored(&grown, 1, false), stored(&b, 0, false)]);
    store.mark_announced(a.key, SchemaVersion(2)).await.unwrap();
    store.mark_announced(a.key, SchemaVersion(1)).await.unwrap();
    store.mark_end_announced(a.key).await.unwrap();
    assert_eq!(store.table(TENANT, &name("a")).await.unwrap(), Some(stored(&grown, 2, false)), "it has not ended");
    assert_eq!(store.unannounced().await.unwrap(), [stored(&b, 0, false)]);
    store.end_table(b.key).await.unwrap();
    assert_eq!(store.unannounced().await.unwrap(), [stored(&b, 0, true)]);
    store.mark_end_announced(b.key).await.unwrap();
    assert_eq!(store.unannounced().await.unwrap(), []);
}

/// Goal: tenants, the placement map and secrets keep what they were given first or at a higher version.
pub(crate) async fn the_cluster_is_kept(store: Store) {
    let tenant = Tenant { id: TENANT, name: "first".into(), created_at: Timestamp(-5) };
    store.ensure_tenant(&tenant).await.unwrap();
    store.ensure_tenant(&Tenant { name: "second".into(), ..tenant.clone() }).await.unwrap();
    assert_eq!(store.tenants().await.unwrap(), [tenant]);

    assert_eq!(store.placement().await.unwrap(), PlacementMap::default());
    store.store_placement(&map(1), 0, None).await.unwrap();
    assert!(matches!(store.store_placement(&map(2), 0, None).await, Err(MetadataError::Conflict)));
    assert!(matches!(store.store_placement(&map(1), 1, None).await, Err(MetadataError::Conflict)), "a version rises");
    store.store_placement(&map(2), 1, None).await.unwrap();
    assert_eq!(store.placement().await.unwrap(), map(2));

    assert_eq!(store.secret("token", [1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.secret("token", [2; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.secret("hash", [3; 32]).await.unwrap(), [3; 32]);
}

/// Goal: many writers at once lose nothing: each adds its column by compare and swap until it is in.
pub(crate) async fn writers_at_once_lose_nothing(store: Store) {
    const WRITERS: usize = 8;
    let table = new_table(&store, "a").await;
    store.create_table(&table).await.unwrap();
    let writers = (0..WRITERS).map(|n| {
        let (store, key) = (Arc::clone(&store), table.key);
        tokio::spawn(async move {
            loop {
                let now = store.table_by_key(key).await.unwrap().unwrap().table;
                let next = grown(&now, &[column(&format!("m{n}"), ColumnKind::Metric)]);
                match store.update_table(&next, now.schema.version()).await {
                    Ok(()) => return,
                    Err(MetadataError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let end = store.table_by_key(table.key).await.unwrap().unwrap().table.schema;
    assert_eq!(end.version(), SchemaVersion(1 + WRITERS as u32));
    assert_eq!(end.names(ColumnKind::Metric).count(), WRITERS);
}

/// Goal: who follows the changes by their version sees each newest state once, also ends, and nothing where nothing changed; a
/// version of another time gives everything that lives.
pub(crate) async fn changes_are_followed(store: Store) {
    let start = store.changes(0).await.unwrap();
    assert!(start.version > 0 && start.tables.is_empty());
    let (a, b) = (new_table(&store, "a").await, new_table(&store, "b").await);
    store.create_table(&a).await.unwrap();
    store.create_table(&b).await.unwrap();
    let created = store.changes(start.version).await.unwrap();
    assert_eq!(created.tables, [stored(&a, 0, false), stored(&b, 0, false)]);
    assert_eq!(store.changes(created.version).await.unwrap(), Changes { tables: Vec::new(), ..created });

    store.mark_announced(b.key, SchemaVersion(1)).await.unwrap();
    let wider = grown(&a, &[column("x", ColumnKind::Metric)]);
    store.update_table(&wider, SchemaVersion(1)).await.unwrap();
    let changed = store.changes(created.version).await.unwrap();
    assert_eq!(changed.tables, [stored(&b, 1, false), stored(&wider, 0, false)], "in the order of their last changes");
    store.end_table(b.key).await.unwrap();
    let ended = store.changes(changed.version).await.unwrap();
    assert_eq!(ended.tables, [stored(&b, 1, true)]);
    store.mark_end_announced(b.key).await.unwrap();
    store.store_placement(&map(1), 0, None).await.unwrap();
    let last = store.changes(ended.version).await.unwrap();
    assert!(last.version > ended.version && last.tables == [stored(&b, 1, true)]);
    for anew in [0, last.version + 1] {
        assert_eq!(store.changes(anew).await.unwrap().tables, [stored(&wider, 0, false)], "{anew}");
    }
}

/// Runs all cases on a back end: `$open` is an async function that gives a fresh store and what must outlive it, `$again` one
/// that opens the same store once more, as another process would.
macro_rules! conformance {
    ($backend:ident, $open:path, $again:path $(, #[$attribute:meta])?) => {
        mod $backend {
            conformance!(@alone [$($attribute)?] $open, crate::conformance: tables_round_trip, ids_are_never_reused,
                writers_compare_and_swap, announcements_are_remembered, the_cluster_is_kept, writers_at_once_lose_nothing,
                changes_are_followed);
            conformance!(@alone [$($attribute)?] $open, crate::conformance::coordination: leases_are_fenced,
                leases_run_out, nodes_come_and_go, a_registration_is_one_life, placement_is_guarded, shares_follow_what_is_wanted);
            conformance!(@together [$($attribute)?] $open, $again, crate::conformance::races: tables_are_made_once,
                columns_are_never_lost, followers_miss_nothing, one_takes_a_lease, one_map_follows_another,
                shares_never_exceed_the_whole);
        }
    };
    (@alone $attributes:tt $open:path, $cases:path: $($case:ident),+) => {
        $(conformance!(@test $attributes $case, {
            use $cases as cases;
            let (store, _keep) = $open().await;
            cases::$case(store).await;
        });)+
    };
    (@together $attributes:tt $open:path, $again:path, $cases:path: $($case:ident),+) => {
        $(conformance!(@test $attributes $case, {
            use $cases as cases;
            let (store, keep) = $open().await;
            let second = $again(&keep).await;
            cases::$case(store, second).await;
        });)+
    };
    (@test [$($attribute:meta)?] $case:ident, $body:block) => {
        #[tokio::test]
        $(#[$attribute])?
        async fn $case() $body
    };
}
