//! The suite on PostgreSQL, and what is PostgreSQL's alone: several processes that start at once, and a database that is away.
//!
//! `POSTGRES_TEST_URL` is the URL of a server on which databases can be made; `scripts/test_engines.sh` starts one. Each test
//! has a database of its own.

#[macro_use]
mod conformance;

use std::{str::FromStr as _, sync::Arc};

use metadata::{Coordination as _, MetadataError, MetadataStore as _, PostgresStore};
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
        let mut connection = self.server.clone().database(&self.name).connect().await.expect("the server answers");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("the server does it");
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

/// Goal: calls of a database that ends every connection and takes no new ones fail within their time, then at once and by name,
/// while what keeps leases alive still tries, and its success lets calls through again; nothing shows the password.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn a_database_that_is_away_is_not_asked() {
    let scratch = Scratch::new().await;
    let store = scratch.open().await.unwrap();
    let lease = conformance::coordination::taken(&again(&scratch).await, "a", conformance::coordination::LONG).await;
    scratch.on_server(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", scratch.name)).await;
    scratch
        .on_server(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", scratch.name))
        .await;
    for _ in 0..5 {
        match store.tables(None).await {
            Err(MetadataError::Away { .. }) => panic!("five failures open the breaker, not fewer"),
            Err(error) => assert!(!format!("{error:?}").contains("truenow:"), "{error:?}"),
            Ok(_) => panic!("nobody can connect"),
        }
    }
    let refused = store.tables(None).await;
    assert!(matches!(refused, Err(MetadataError::Away { retry_after }) if !retry_after.is_zero()), "{refused:?}");
    assert!(matches!(
        store.renew_lease(&lease, conformance::coordination::LONG).await,
        Err(MetadataError::Database(_))
    ));
    scratch.on_server(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", scratch.name)).await;
    store.renew_lease(&lease, conformance::coordination::LONG).await.expect("it is tried although the breaker is open");
    assert_eq!(store.tables(None).await.unwrap(), [], "and tells that the database is back");
}

/// Goal: an address that cannot be read is refused without showing it.
#[tokio::test]
async fn an_address_is_not_shown() {
    let refused = PostgresStore::open("postgres://user:hunter2@[nowhere").await.unwrap_err();
    assert!(matches!(refused, MetadataError::Address));
    assert!(!format!("{refused:?} {refused}").contains("hunter2"));
}
