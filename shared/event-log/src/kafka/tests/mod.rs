//! On a real broker, which `scripts/test_kafka.sh` starts: `EVENT_LOG_TEST_BROKERS` has its address, and those tests are ignored
//! otherwise. What a broker does not do when it is told to is done by librdkafka's mock of one ([`away`]).

mod away;
mod behind;
mod holes;
mod ledger;
mod trust;

use rdkafka::admin::{AdminClient, AdminOptions};

use super::{client::Quiet, *};
use crate::conformance::{block, read_all};

/// The brokers to test on.
fn brokers() -> String {
    let brokers = std::env::var("EVENT_LOG_TEST_BROKERS");
    brokers.expect("EVENT_LOG_TEST_BROKERS is the address of a broker: see scripts/test_kafka.sh")
}

/// A topic of its own, small and lively.
fn config() -> KafkaConfig {
    let topic = format!("test-{:016x}", getrandom::u64().unwrap());
    let keep_interval = Duration::from_millis(50);
    let (queue_bytes_max, tail_bytes_max) = (2 << 20, 256 << 10);
    KafkaConfig { keep_interval, queue_bytes_max, tail_bytes_max, ..KafkaConfig::new(brokers(), topic, 3) }
}

async fn try_open(config: &KafkaConfig) -> Result<KafkaLog, KafkaOpenError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || KafkaLog::open(&config)).await.unwrap()
}

async fn open(config: &KafkaConfig) -> KafkaLog {
    try_open(config).await.unwrap()
}

/// Closes a log and waits for its threads.
async fn end(log: KafkaLog) {
    log.close().await;
    tokio::task::spawn_blocking(move || drop(log)).await.unwrap();
}

/// One who administers the broker behind the log's back.
fn admin(config: &KafkaConfig) -> (AdminClient<Quiet>, AdminOptions) {
    (client::admin(config).create_with_context(Quiet).unwrap(), topic::Admin::options())
}

crate::conformance!(ignored "needs a broker: scripts/test_kafka.sh", suite, {
    let log: Arc<dyn EventLog> = Arc::new(open(&config()).await);
    (log, ())
});
