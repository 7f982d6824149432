//! The suite on SQLite, and what is SQLite's alone: files that outlive the process.

#[macro_use]
mod conformance;

use std::sync::Arc;

use metadata::{MetadataError, MetadataStore as _, SqliteStore};
use tempfile::TempDir;

use conformance::{Store, TENANT, name, new_table};

async fn open() -> (Store, TempDir) {
    let directory = TempDir::new().expect("a temporary directory");
    let store = SqliteStore::open(&directory.path().join("metadata.db")).await.expect("a fresh store opens");
    (Arc::new(store), directory)
}

async fn again(directory: &TempDir) -> Store {
    Arc::new(SqliteStore::open(&directory.path().join("metadata.db")).await.expect("the store opens again"))
}

conformance!(sqlite, super::open, super::again);

/// Goal: what was stored is there after the store was closed, also after it was dropped without closing.
#[tokio::test]
async fn a_store_outlives_its_process() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("metadata.db");
    for (life, table) in ["a", "b", "c"].into_iter().enumerate() {
        let store: Store = Arc::new(SqliteStore::open(&file).await.unwrap());
        assert_eq!(store.tables(None).await.unwrap().len(), life);
        let created = new_table(&store, table).await;
        store.create_table(&created).await.unwrap();
        assert_eq!(store.secret("token", [life as u8; 32]).await.unwrap(), [0; 32]);
        if life == 0 {
            store.close().await;
        }
    }
    let store = SqliteStore::open(&file).await.unwrap();
    assert!(store.table(TENANT, &name("b")).await.unwrap().is_some());
}

/// Goal: a file that a newer program wrote is refused untouched, and one that is no database is refused.
#[tokio::test]
async fn foreign_files_are_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("metadata.db");
    SqliteStore::open(&file).await.unwrap().close().await;
    let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&file)).await.unwrap();
    sqlx::query("INSERT INTO format (version) VALUES (99)").execute(&pool).await.unwrap();
    pool.close().await;
    assert!(matches!(SqliteStore::open(&file).await, Err(MetadataError::Newer { found: 99, .. })));

    let other = directory.path().join("notes.txt");
    std::fs::write(&other, "this is no database, and long enough to be seen as none".repeat(20)).unwrap();
    assert!(matches!(SqliteStore::open(&other).await, Err(MetadataError::Database(_))));
}

/// Goal: commits are synchronous, since an announcement in the log follows them.
#[tokio::test]
async fn commits_are_synced() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("metadata.db");
    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(store.durability().await.unwrap(), ("wal".into(), 2));
}
