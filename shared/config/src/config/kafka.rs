//! The settings of an event log on Kafka.

use std::time::Duration;

use super::{millis, number, out_of_range};
use crate::{Compression, ConfigError, settings::RawConfig};

const SECTION: &str = "event_log.kafka";

/// An event log on the brokers of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Addresses to ask first, `host:port` with commas between.
    pub brokers: String,
    /// The topic of the records.
    pub topic: String,
    /// Copies of each partition of a new topic.
    pub replication: u16,
    /// Copies that a record must have before it is acked.
    pub min_insync: u16,
    /// How records are compressed.
    pub compression: Compression,
    /// How long a batch waits for company.
    pub linger: Duration,
    /// Bytes of a batch of a partition, at most.
    pub batch_bytes_max: u32,
    /// How long an append is tried before its outcome is called unknown.
    pub delivery_timeout: Duration,
    /// Whether records are deleted that nobody needs any more.
    pub delete_released: bool,
    /// How often that is done, and what was counted is stored.
    pub keep_interval: Duration,
}

/// `None` where no brokers are named: the log is the embedded one. `shared`: nodes of a cluster read it.
pub(super) fn kafka(raw: &RawConfig, shared: bool) -> Result<Option<KafkaConfig>, ConfigError> {
    let raw = &raw.kafka;
    let Some(brokers) = raw.brokers.clone().filter(|brokers| !brokers.trim().is_empty()) else {
        return Ok(None);
    };
    let replication = raw.replication.unwrap_or(1);
    if replication == 0 {
        return Err(out_of_range(SECTION, "replication", replication, "must be at least 1"));
    }
    // Of three copies two, so that one may be away: the least that loses nothing acked with any one broker.
    let min_insync = raw.min_insync.unwrap_or(if replication >= 3 { 2 } else { 1 });
    if !(1..=replication).contains(&min_insync) {
        let expected = format!("must be from 1 to the {replication} of {SECTION}.replication");
        return Err(out_of_range(SECTION, "min_insync", min_insync, expected));
    }
    let topic = raw.topic.clone().unwrap_or_else(|| "truenow".to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 200 || !topic.chars().all(legal) {
        return Err(out_of_range(SECTION, "topic", topic, "must be 1 to 200 of a-z, A-Z, 0-9, '.', '_' and '-'"));
    }
    // What one node needs no more, another may have to read.
    if shared && raw.delete_released == Some(true) {
        let expected = "must be false in a cluster, where the retention of the topic has to do";
        return Err(out_of_range(SECTION, "delete_released", true, expected));
    }
    let batch = number(SECTION, "batch_bytes_max", raw.batch_bytes_max.map(u64::from), 1 << 20, 1 << 10..=64 << 20)?;
    Ok(Some(KafkaConfig {
        brokers,
        topic,
        replication,
        min_insync,
        compression: raw.compression.unwrap_or(Compression::Lz4),
        linger: Duration::from_micros(number(SECTION, "linger_us", raw.linger_us, 1_000, 0..=1_000_000)?),
        batch_bytes_max: u32::try_from(batch).expect("at most 64 MiB"),
        delivery_timeout: millis(SECTION, "delivery_timeout_ms", raw.delivery_timeout_ms, 10_000, 1_000..=300_000)?,
        delete_released: raw.delete_released.unwrap_or(!shared),
        keep_interval: millis(SECTION, "keep_interval_ms", raw.keep_interval_ms, 10_000, 10..=3_600_000)?,
    }))
}
