//! A database that is away, one that cannot be reached and one that does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use metadata::{Coordination as _, MetadataError, MetadataStore as _, PostgresStore};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

use crate::{
    Scratch, again,
    conformance::coordination::{LONG, taken},
};

/// As many failures in a row open the breaker.
const FAILURES: usize = 5;
/// Patience with a call that should end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to the server that can be cut, or swallow what the server says.
struct Way {
    port: u16,
    swallows: Arc<AtomicBool>,
    passing: JoinHandle<()>,
}

impl Way {
    async fn to(server: (String, u16)) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, swallows) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let swallowing = Arc::clone(&swallows);
        let passing = tokio::spawn(async move {
            // Dropped with this task, which ends all that passes.
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (from_server, to_server) = TcpStream::connect((&*server.0, server.1)).await.unwrap().into_split();
                let (from_client, to_client) = client.into_split();
                open.spawn(pass(from_client, to_server, Arc::default()));
                open.spawn(pass(from_server, to_client, Arc::clone(&swallowing)));
            }
        });
        Self { port, swallows, passing }
    }

    async fn cut(self) {
        self.passing.abort();
        let ended = self.passing.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallows: Arc<AtomicBool>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if !swallows.load(SeqCst) && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

async fn over(scratch: &Scratch) -> (Way, Arc<PostgresStore>) {
    let way = Way::to((scratch.server.get_host().to_owned(), scratch.server.get_port())).await;
    let url = scratch.url().replace(&format!(":{}/", scratch.server.get_port()), &format!(":{}/", way.port));
    let store = PostgresStore::open(&url).await.unwrap();
    (way, Arc::new(store))
}

async fn is_away(store: &PostgresStore) -> bool {
    matches!(store.tables(None).await, Err(MetadataError::Away { .. }))
}

/// So many calls that wait for a lock at the same time.
async fn waiting_calls(
    scratch: &Scratch,
    store: &Arc<PostgresStore>,
) -> (JoinSet<Result<(), MetadataError>>, Vec<i32>) {
    let mut calls = JoinSet::new();
    for _ in 0..FAILURES {
        let store = Arc::clone(store);
        calls.spawn(async move { store.tenants().await.map(drop) });
    }
    (calls, scratch.waiting(FAILURES).await)
}

/// Goal: calls of a database that ends every connection and takes no new ones fail within their time, then at once and by name,
/// while what keeps leases alive still tries, and its success lets calls through again; a metric says so, nothing shows the password.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn a_database_that_is_away_is_not_asked() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (metrics, shown) = (recorder.handle(), metrics::set_default_local_recorder(&recorder));
    let breaker_is = |state: u8| {
        let text = metrics.render();
        assert!(text.contains(&format!("truenow_breaker_state{{to=\"postgresql\"}} {state}\n")), "{text}");
    };
    let scratch = Scratch::new().await;
    let store = scratch.open().await.unwrap();
    breaker_is(0);
    let lease = taken(&again(&scratch).await, "a", LONG).await;
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
    breaker_is(2);
    let refused = store.tables(None).await;
    assert!(matches!(refused, Err(MetadataError::Away { retry_after }) if !retry_after.is_zero()), "{refused:?}");
    assert!(matches!(store.renew_lease(&lease, LONG).await, Err(MetadataError::Database(_))));
    assert!(is_away(&store).await, "who tries in vain lets nobody through");
    scratch.on_server(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", scratch.name)).await;
    store.renew_lease(&lease, LONG).await.expect("it is tried although the breaker is open");
    breaker_is(0);
    assert_eq!(store.tables(None).await.unwrap(), [], "and tells that the database is back");
    breaker_is(0);
    drop(shown);
}

/// Goal: a way that is cut opens the breaker.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn a_way_that_is_cut_opens_the_breaker() {
    let scratch = Scratch::new().await;
    let (way, store) = over(&scratch).await;
    assert_eq!(store.tables(None).await.unwrap(), []);
    way.cut().await;
    for _ in 0..FAILURES {
        let failed = store.tables(None).await;
        assert!(matches!(failed, Err(MetadataError::Database(_))), "{failed:?}");
    }
    assert!(is_away(&store).await);
}

/// Goal: calls whose answers never come end by themselves, and open the breaker.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn answers_that_never_come_open_the_breaker() {
    let scratch = Scratch::new().await;
    let (way, store) = over(&scratch).await;
    let mut connection = scratch.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").execute(&mut connection).await.unwrap();
    let (calls, _) = waiting_calls(&scratch, &store).await;
    way.swallows.store(true, SeqCst);
    let ended = tokio::time::timeout(PATIENCE, calls.join_all()).await.expect("calls end");
    assert!(ended.iter().all(|ended| matches!(ended, Err(MetadataError::TimedOut(_)))), "{ended:?}");
    assert!(is_away(&store).await);
}

/// Goal: calls that somebody at the database ends are failures of the way; an error of a statement says that the database works,
/// however often it comes.
#[tokio::test]
#[ignore = "needs a PostgreSQL, scripts/test_engines.sh starts one"]
async fn only_what_hinders_opens_the_breaker() {
    let scratch = Scratch::new().await;
    let store = Arc::new(scratch.open().await.unwrap());
    scratch.on_database("DROP TABLE secrets").await;
    for _ in 0..2 * FAILURES {
        let failed = store.secret("token", [0; 32]).await;
        assert!(matches!(failed, Err(MetadataError::Database(sqlx::Error::Database(_)))), "{failed:?}");
    }
    assert!(!is_away(&store).await);

    let mut connection = scratch.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").execute(&mut connection).await.unwrap();
    let (calls, serving) = waiting_calls(&scratch, &store).await;
    for pid in serving {
        sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut connection).await.unwrap();
    }
    let ended = calls.join_all().await;
    assert!(ended.iter().all(|ended| matches!(ended, Err(MetadataError::Database(_)))), "{ended:?}");
    assert!(is_away(&store).await);
}
