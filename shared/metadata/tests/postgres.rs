//! The suite on PostgreSQL, and what is PostgreSQL's alone: several processes that start at once, and a database that is away.
//!
//! `POSTGRES_TEST_URL` is the URL of a server on which databases can be made; `scripts/test_engines.sh` starts one. Each test
//! has a database of its own.

mod away;
#[macro_use]
mod conformance;
mod locked;

use std::{str::FromStr as _, sync::Arc, time::Duration};

use metadata::{MetadataError, PostgresStore};
use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};

use conformance::{Store, new_table};

/// A database that goes when the test is over.
struct Scratch {
    server: PgConnectOptions,
    name: String,
}

impl Scratch {
    async fn new() -> Self {
        let url = std::env::var("POSTGRES_TEST_URL").expect("POSTGRES_TEST_URL is the URL of a PostgreSQL server");
        let server = PgConnectOptions::from_str(&url).expect("a URL");
        let name = format!("truenow_test_{:016x}", getrandom::u64().expect("random numbers"));
        let scratch = Self { server, name };
        scratch.on_server(format!("CREATE DATABASE {}", scratch.name)).await;
        scratch
    }

    fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }

    async fn on_server(&self, sql: String) {
        let mut connection: PgConnection = self.server.connect().await.expect("the server answers");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("the server does it");
    }

    async fn on_database(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.expect("the server does it");
    }

    /// A connection beside those of stores.
    async fn connect(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.expect("the server answers")
    }

    /// Waits until so many calls of stores wait for a lock; gives the processes that serve them.
    async fn waiting(&self, count: usize) -> Vec<i32> {
        let mut connection = self.connect().await;
        loop {
            let pids = sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'truenow' AND wait_event_type = 'Lock'",
            );
            let pids: Vec<i32> = pids.fetch_all(&mut connection).await.expect("the server tells");
            if pids.len() >= count {
                return pids;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn open(&self) -> Result<PostgresStore, MetadataError> {
        PostgresStore::open(&self.url()).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let mut connection = server.connect().await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await
            })
        });
        if let Err(error) = dropped.join().expect("dropping a database does not panic") {
            eprintln!("the database {} stays: {error}", self.name);
        }
    }
}

async fn open() -> (Store, Scratch) {
    let scratch = Scratch::new().await;
    let store = scratch.open().await.expect("a fresh store opens");
    (Arc::new(store), scratch)
}

async fn again(scratch: &Scratch) -> Store {
    Arc::new(scratch.open().await.expect("the store opens again"))
}

conformance!(postgres, super::open, super::again, #[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]);

/// Goal: processes that start at once on an empty database migrate it once, and a format of the future is refused untouched.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn processes_migrate_once() {
    let scratch = Scratch::new().await;
    let (a, b, c, d) = tokio::join!(scratch.open(), scratch.open(), scratch.open(), scratch.open());
    let stores: Vec<Store> = [a, b, c, d].map(|store| Arc::new(store.unwrap()) as Store).into();
    let table = new_table(&stores[0], "a").await;
    stores[1].create_table(&table).await.unwrap();
    assert_eq!(stores[3].tables(None).await.unwrap().len(), 1);
    scratch.on_database("INSERT INTO format (version) VALUES (99)").await;
    assert!(matches!(scratch.open().await, Err(MetadataError::Newer { found: 99, .. })));
}

/// Goal: an address that cannot be read is refused without showing it.
#[tokio::test]
async fn an_address_is_not_shown() {
    let refused = PostgresStore::open("postgres://user:hunter2@[nowhere").await.unwrap_err();
    assert!(matches!(refused, MetadataError::Address));
    assert!(!format!("{refused:?} {refused}").contains("hunter2"));
}
