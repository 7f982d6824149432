//! The settings of the clients, each with its reason where it is not what librdkafka does by itself, and their log.

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::config::KafkaConfig;

/// Bytes of a record at most. A broker takes requests of up to 100 MiB by default (`socket.request.max.bytes`).
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;
/// What a topic is told of the size of a batch: a record and what surrounds it.
pub(crate) const BATCH_BYTES_CEILING: usize = RECORD_BYTES_MAX + (1 << 20);
/// Bytes that a consumer holds ahead of who polls it, in KiB.
const AHEAD_KIB: usize = 16 << 10;

/// What all clients have in common.
fn client(config: &KafkaConfig) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "truenow")
        // A connection through a firewall that forgets it would hang until the next request times out.
        .set("socket.keepalive.enable", "true")
        // A broker that is back is used within a second, not within ten.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // A request that a hung broker keeps is tried elsewhere, long before an append's time is up.
        .set("socket.timeout.ms", (config.delivery_timeout.as_millis() / 2).clamp(1_000, 60_000).to_string())
        .set("message.max.bytes", BATCH_BYTES_CEILING.to_string());
    settings
}

/// For administration.
pub(crate) fn admin(config: &KafkaConfig) -> ClientConfig {
    client(config)
}

/// For appending: nothing acked is lost, nothing is written twice or out of order by a retry.
pub(crate) fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut settings = client(config);
    let millis = |time: std::time::Duration| (time.as_micros() as f64 / 1_000.0).to_string();
    settings
        // Off by default. The broker drops what a retry repeats, and refuses what would come out of order.
        .set("enable.idempotence", "true")
        // An ack means all in-sync replicas; how many those are at least is the topic's `min.insync.replicas`.
        .set("acks", "all")
        // The most that idempotence allows; order is kept all the same.
        .set("max.in.flight.requests.per.connection", "5")
        // 5 minutes by default: an answer of "unknown" has to come while its caller still waits.
        .set("message.timeout.ms", config.delivery_timeout.as_millis().max(1).to_string())
        .set("queue.buffering.max.ms", millis(config.linger))
        .set("batch.size", config.batch_bytes_max.to_string())
        .set("compression.type", config.compression.name())
        // The log's own queue has its bound; what passed it must not be refused here for its number or size.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2147483647");
    settings
}

/// For reading partitions that are named, from offsets that are named.
pub(crate) fn consumer(config: &KafkaConfig) -> ClientConfig {
    let mut settings = client(config);
    settings
        // Partitions are assigned, and offsets lie with the data: no group is ever joined, nothing is ever committed. The
        // client wants a name for one all the same.
        .set("group.id", "truenow")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // By default an offset that is gone is taken for "the end", and all between is skipped in silence.
        .set("auto.offset.reset", "error")
        // Off by default.
        .set("check.crcs", "true")
        // A topic that is not there is an error, never a new topic with the defaults of the brokers.
        .set("allow.auto.create.topics", "false")
        // Memory ahead of who polls; and when that is used up, fetching goes on at once when there is room, not a second later.
        .set("queued.max.messages.kbytes", AHEAD_KIB.to_string())
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.message.max.bytes", (4 << 20).to_string())
        .set("receive.message.max.bytes", (2 * BATCH_BYTES_CEILING).to_string())
        .set("fetch.error.backoff.ms", "100");
    settings
}

/// Hands what librdkafka says to the log of the program. It repeats itself while a broker is away, so little of it is an error
/// there: who waits for a broker says so himself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Quiet {}

/// What an error of a consumer means for who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It passes, and the client goes on by itself.
    Passing,
    /// A batch is damaged; the client goes on behind it.
    Damage,
    /// The offset wanted is not there; the client stops.
    NotThere,
}

impl Trouble {
    pub(crate) fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::BadMessage | Code::InvalidMessage) => Self::Damage,
            Some(Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::LogTruncation) => Self::NotThere,
            _ => Self::Passing,
        }
    }
}
