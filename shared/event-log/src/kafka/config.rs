//! What a log on Kafka is told, and why it may not open.

use std::time::Duration;

use rdkafka::error::KafkaError;

/// How blocks travel and lie on the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// Fast, for little CPU.
    Lz4,
    /// Smaller, for more CPU.
    Zstd,
}

impl Compression {
    /// The name that Kafka has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How a log on Kafka is kept. [`KafkaConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// Addresses to ask first, `host:port`, with commas between.
    pub brokers: String,
    /// The topic of the records. Beside it lies `<topic>.stands`, which says what was counted of them.
    pub topic: String,
    /// Partitions of a new topic, 1 to [`types::limits::PARTITIONS_MAX`]; one that exists keeps its own number.
    pub partitions: u32,
    /// Copies of each partition of a new topic.
    pub replication: u16,
    /// Copies that a record must have before it is acked, 1 to `replication`.
    pub min_insync: u16,
    /// How records are compressed.
    pub compression: Compression,
    /// How long a batch of a partition waits for company.
    pub linger: Duration,
    /// Bytes of a batch of a partition at most, unless one record is larger.
    pub batch_bytes_max: u32,
    /// How long an append is tried before its outcome is called unknown.
    pub delivery_timeout: Duration,
    /// Bytes queued and not yet acked past which `append` refuses.
    pub queue_bytes_max: u64,
    /// Bytes of the newest records that are kept in memory for readers.
    pub tail_bytes_max: u64,
    /// Whether released records are deleted from the topic. Where several processes read the same partitions, none knows what
    /// the others need, and the topic's own retention has to do.
    pub delete_released: bool,
    /// How often what was released is deleted, and what was counted is stored.
    pub keep_interval: Duration,
}

impl KafkaConfig {
    /// A log of `partitions` partitions on the brokers at some addresses, by the defaults.
    #[must_use]
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>, partitions: u32) -> Self {
        Self {
            brokers: brokers.into(),
            topic: topic.into(),
            partitions,
            replication: 1,
            min_insync: 1,
            compression: Compression::Lz4,
            linger: Duration::from_millis(1),
            batch_bytes_max: 1 << 20,
            delivery_timeout: Duration::from_secs(10),
            queue_bytes_max: 256 << 20,
            tail_bytes_max: 64 << 20,
            delete_released: true,
            keep_interval: Duration::from_secs(10),
        }
    }

    /// The topic of what was counted.
    pub(crate) fn stands_topic(&self) -> String {
        format!("{}.stands", self.topic)
    }
}

/// Why a log on Kafka could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KafkaOpenError {
    /// The configuration cannot be.
    #[error("{field} is {value}, must be {must}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it should be.
        must: String,
    },
    /// The brokers did not do what was asked in time, or refused it.
    #[error("{doing}")]
    Broker {
        /// What was tried.
        doing: String,
        /// The failure.
        source: KafkaError,
    },
    /// The topic is there, but with settings that lose records or their order.
    #[error("topic {topic} has {setting} = {found}, it must be {must}: {mend}")]
    Topic {
        /// The topic.
        topic: String,
        /// Its setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        must: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// The topic does not hold what was read of it before: it was made anew, or its brokers lost records.
    #[error(
        "partition {partition} of topic {topic} is not the one that was read before ({what}): records were lost, or the topic \
         was made anew; if that is meant, delete the topic {topic}.stands too"
    )]
    Another {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What differs.
        what: String,
    },
    /// What was stored of what was counted cannot be read.
    #[error("topic {topic} is damaged: {what}")]
    Damaged {
        /// The topic.
        topic: String,
        /// What is wrong.
        what: String,
    },
    /// No random number could be drawn.
    #[error("draw an identity")]
    Random(#[from] getrandom::Error),
    /// A thread could not be started.
    #[error("start a thread")]
    Thread(#[from] std::io::Error),
}

impl KafkaOpenError {
    /// For `map_err`: a failure of the brokers.
    pub(crate) fn at(doing: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        move |source| Self::Broker { doing: doing.into(), source }
    }
}
