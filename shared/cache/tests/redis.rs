//! The suite on Redis. `REDIS_TEST_URL` is the URL of a server that tests may empty; `scripts/test_engines.sh` starts one.

use std::time::Duration;

use cache::{CacheKey, RedisResults, RedisSettings, ResultCache as _};
use types::TenantId;

/// No test waits so long; a slow machine must not look like a Redis that is away.
const PATIENT: RedisSettings = RedisSettings { timeout: Duration::from_secs(20), value_bytes_max: 1 << 20 };

fn url() -> String {
    std::env::var("REDIS_TEST_URL").expect("REDIS_TEST_URL is the URL of a Redis server")
}

/// An empty cache: each test has a database of its own among those that a server has.
async fn open(database: usize) -> RedisResults {
    let (server, _) =
        url().rsplit_once('/').map(|(server, database)| (server.to_owned(), database.to_owned())).expect("a URL");
    let url = format!("{server}/{database}");
    let client = redis::Client::open(&*url).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("the server answers");
    redis::cmd("FLUSHDB").exec_async(&mut connection).await.expect("the server does it");
    RedisResults::new(&url, PATIENT).expect("a URL")
}

cache::conformance!(shared, open, #[ignore = "needs a Redis, scripts/test_engines.sh starts one"]);

/// Goal: a value that is too large is not kept and takes the one before with it; bytes of others under a key are none.
#[tokio::test]
#[ignore = "needs a Redis, scripts/test_engines.sh starts one"]
async fn values_are_bounded_and_checked() {
    let cache = open(15).await;
    let key = CacheKey::new(TenantId(1), b"q");
    cache.put(&key, "small".into(), Duration::from_secs(60)).await;
    assert_eq!(cache.get(&key).await, Some("small".into()));
    let client = redis::Client::open(&*format!("{}/15", url().rsplit_once('/').unwrap().0)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert_eq!(names.len(), 1);
    let ttl_ms: i64 = redis::cmd("PTTL").arg(&names[0]).query_async(&mut connection).await.unwrap();
    assert!((1..=60_000).contains(&ttl_ms), "{ttl_ms}");
    redis::cmd("APPEND").arg(&names[0]).arg("x").exec_async(&mut connection).await.unwrap();
    assert_eq!(cache.get(&key).await, None, "it is damaged");

    cache.put(&key, "small".into(), Duration::from_secs(60)).await;
    cache.put(&key, vec![0; 1 << 20].into(), Duration::from_secs(60)).await;
    assert_eq!(cache.get(&key).await, None, "it is too large");
}
