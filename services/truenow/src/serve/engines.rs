//! The engines that configuration names, as the services see them: the event log, the metadata, and the shared results.

use std::{path::PathBuf, sync::Arc};

use cache::{RedisResults, RedisSettings, ResultCache};
use config::{Config, MetadataLocation, ServiceName};
use event_log::{Compression, EmbeddedConfig, EmbeddedLog, EventLog, KafkaConfig, KafkaLog};
use metadata::{MetadataError, MetadataStore, PostgresStore, SqliteStore};
use metrics::{describe_counter, describe_gauge};

use super::compose::ComposeError;

/// What a process keeps its events, its metadata and its results in.
pub(crate) struct Engines {
    /// The log.
    pub(crate) log: Arc<dyn EventLog>,
    /// The metadata, where this process has a control plane, a rebalancer or a gateway.
    pub(crate) store: Option<Arc<dyn MetadataStore>>,
    /// Where query APIs share results, if they do; it need not be reachable.
    pub(crate) results: Option<Arc<dyn ResultCache>>,
}

impl Engines {
    /// Opens what `config` names, in a data directory that is there.
    ///
    /// # Errors
    /// One does not open, or is on the disk of this process alone while it belongs to a cluster.
    pub(crate) async fn open(config: &Config) -> Result<Self, ComposeError> {
        require_shared(config)?;
        let keeps = |service: &ServiceName| {
            [ServiceName::ControlPlane, ServiceName::Rebalancer, ServiceName::Gateway].contains(service)
        };
        let store = match config.services.iter().any(keeps) {
            true => Some(metadata(config).await?),
            false => None,
        };
        Ok(Self { log: open_log(config).await?, store, results: shared_results(config)? })
    }
}

/// Refuses a cluster over engines that lie on the disk of one process.
fn require_shared(config: &Config) -> Result<(), ComposeError> {
    if config.cluster.is_none() {
        return Ok(());
    }
    let not_shared = |engine, setting| Err(ComposeError::NotShared { engine, setting });
    match (&config.kafka, &config.metadata) {
        (None, _) => not_shared("the embedded event log", "event_log.kafka.brokers"),
        (_, MetadataLocation::File(_)) => not_shared("SQLite", "metadata.url"),
        (Some(_), MetadataLocation::Postgres(_)) => Ok(()),
    }
}

async fn metadata(config: &Config) -> Result<Arc<dyn MetadataStore>, MetadataError> {
    describe_gauge!("truenow_breaker_state", "Whether an engine is asked: 0 yes, 1 as a probe, 2 no.");
    describe_counter!("truenow_breaker_refused_total", "Calls of an engine that were not made because it is away.");
    Ok(match &config.metadata {
        MetadataLocation::File(path) => Arc::new(SqliteStore::open(path).await?),
        MetadataLocation::Postgres(url) => Arc::new(PostgresStore::open(url.expose()).await?),
    })
}

fn shared_results(config: &Config) -> Result<Option<Arc<dyn ResultCache>>, cache::AddressError> {
    let Some(url) = &config.cache_url else { return Ok(None) };
    Ok(Some(Arc::new(RedisResults::new(url.expose(), RedisSettings::default())?)))
}

/// Where the embedded log lies.
pub(crate) fn log_dir(config: &Config) -> PathBuf {
    config.data_dir.join("log")
}

async fn open_log(config: &Config) -> Result<Arc<dyn EventLog>, ComposeError> {
    if let Some(kafka) = &config.kafka {
        let settings = kafka_log(config, kafka);
        let opened = tokio::task::spawn_blocking(move || KafkaLog::open(&settings)).await;
        return Ok(Arc::new(opened.expect("opening a log does not panic")?));
    }
    let settings = EmbeddedConfig {
        segment_bytes: config.event_log.segment_bytes,
        queue_bytes_max: config.event_log.queue_bytes,
        linger: config.event_log.linger,
        tail_bytes_max: config.event_log.tail_cache_bytes,
        retention_bytes_min: config.event_log.retention_bytes_min,
        ..EmbeddedConfig::new(log_dir(config), config.partitions)
    };
    let opened = tokio::task::spawn_blocking(|| EmbeddedLog::open_on_disk(settings)).await;
    Ok(Arc::new(opened.expect("opening a log does not panic")?))
}

fn kafka_log(config: &Config, kafka: &config::KafkaConfig) -> KafkaConfig {
    KafkaConfig {
        replication: kafka.replication,
        min_insync: kafka.min_insync,
        compression: match kafka.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        },
        linger: kafka.linger,
        batch_bytes_max: kafka.batch_bytes_max,
        delivery_timeout: kafka.delivery_timeout,
        queue_bytes_max: config.event_log.queue_bytes,
        tail_bytes_max: config.event_log.tail_cache_bytes,
        delete_released: kafka.delete_released,
        keep_interval: kafka.keep_interval,
        ..KafkaConfig::new(&kafka.brokers, &kafka.topic, config.partitions)
    }
}
