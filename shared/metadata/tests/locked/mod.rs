//! What calls do while another holds what they need: each case holds a lock of the database beside the store, so that the call
//! stands still where it would race.

use std::{sync::Arc, time::Duration};

use metadata::{Claim, MetadataError, MetadataStore as _};

use crate::{
    Scratch, Store, again,
    conformance::{coordination::LONG, map, new_table, stored},
};

/// Goal: nobody takes a lease while a change of the map that it guards is under way, although it has run out: the change is not made
/// in the name of one who was taken over.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn a_lease_is_not_taken_amid_what_it_guards() {
    let scratch = Scratch::new().await;
    let (first, second) = (again(&scratch).await, again(&scratch).await);
    let Claim::Taken(lease) = first.take_lease("placing", "a", Duration::ZERO).await.unwrap() else {
        panic!("it was free")
    };
    let mut connection = scratch.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE placement IN ACCESS EXCLUSIVE MODE").execute(&mut connection).await.unwrap();
    let storing = tokio::spawn(async move { first.store_placement(&map(1), 0, Some(&lease)).await });
    scratch.waiting(1).await;
    let taking = tokio::spawn(async move {
        let claim = second.take_lease("placing", "b", LONG).await.unwrap();
        (claim, second.placement().await.unwrap())
    });
    while scratch.waiting(1).await.len() < 2 {
        assert!(!taking.is_finished(), "it has to wait");
    }
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    storing.await.unwrap().unwrap();
    let (claim, seen) = taking.await.unwrap();
    assert!(matches!(claim, Claim::Taken(_)), "{claim:?}");
    assert_eq!(seen, map(1), "who takes over sees all that was done before");
}

/// Goal: a table is read as it was at one moment, its columns of the version that it says.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn a_table_is_read_at_one_moment() {
    let scratch = Scratch::new().await;
    let store: Store = again(&scratch).await;
    let table = new_table(&store, "a").await;
    store.create_table(&table).await.unwrap();
    let mut connection = scratch.connect().await;
    let held = "BEGIN; LOCK TABLE columns IN ACCESS EXCLUSIVE MODE; UPDATE tables SET schema_version = 2; \
                INSERT INTO columns (table_id, generation, position, name, kind, since_version) \
                SELECT table_id, generation, 1, 'later', 1, 2 FROM tables";
    sqlx::raw_sql(held).execute(&mut connection).await.unwrap();
    let (reader, key) = (Arc::clone(&store), table.key);
    let reading = tokio::spawn(async move { reader.table_by_key(key).await.unwrap().unwrap() });
    scratch.waiting(1).await;
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    assert_eq!(reading.await.unwrap(), stored(&table, 0, false));
}

/// Goal: a call that waits for a lock is ended by the database, so that the lock's next holder is not one who left long ago.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn the_database_ends_what_waits_for_a_lock() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await.unwrap();
    let mut connection = scratch.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").execute(&mut connection).await.unwrap();
    match store.tenants().await {
        // Of a lock that could not be had.
        Err(MetadataError::Database(sqlx::Error::Database(error))) => assert_eq!(error.code().unwrap(), "55P03"),
        other => panic!("{other:?}"),
    }
}
