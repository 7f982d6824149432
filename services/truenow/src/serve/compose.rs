//! The composition: every service gets the others as trait objects, and is started and stopped in order.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use codec::TokenKey;
use config::{Config, ServiceName};
use control_plane::{CatalogSettings, ControlPlane, Nodes};
use event_log::{Compression, EmbeddedConfig, EmbeddedLog, EventLog, KafkaConfig, KafkaLog, KafkaOpenError, OpenError};
use gateway::dead_letters::{Counts, DeadLetters};
use hot_tier::{HotTierError, Storage};
use metadata::{MetadataError, MetadataStore, SECRET_BYTES};
use proto::{
    catalog::{Catalog, Tenants},
    hot_tier::{HotTier, NodeMemory},
    progress::{ApplyLag, Progress},
};
use service::{Authenticator, Host, HttpLimits, Metrics, Running, StartError, Unread};
use stream_ingester::IngesterError;
use tokio::{sync::oneshot, task::JoinHandle};
use types::{NodeId, PartitionId, Timestamp};
use watermark::Watermarks;

use super::{engines, log_size};

/// This node, on a single machine.
const NODE: NodeId = NodeId(1);

/// Why the services do not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    #[error("make the data directory {0}")]
    DataDir(String, #[source] std::io::Error),
    #[error("open the metadata")]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Cache(#[from] cache::AddressError),
    #[error("open the event log")]
    Log(#[from] OpenError),
    #[error("open the event log on kafka")]
    Kafka(#[from] KafkaOpenError),
    #[error("draw a secret")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    HotTier(#[from] HotTierError),
    #[error(transparent)]
    Ingester(#[from] IngesterError),
    #[error(transparent)]
    Gateway(#[from] gateway::StartError),
    #[error(
        "services {missing} are not in the list: in one process all of {needed} run together; leave `services` out"
    )]
    Incomplete { missing: String, needed: String },
}

/// The running services, in the order of their start.
pub(crate) struct Composed {
    log: Arc<dyn EventLog>,
    /// Of a log in files.
    log_size: Option<JoinHandle<()>>,
    /// Ends when the partitions are open, or cannot be opened.
    opening: JoinHandle<Result<(), HotTierError>>,
    /// Those that may stop while the log is open, first to last started.
    before_log: Vec<Running>,
    /// Those that read the log until they are stopped.
    after_log: Vec<Running>,
}

impl Composed {
    /// Starts all services of `config`. Partitions are opened beside them; see [`Composed::failed`].
    ///
    /// # Errors
    /// The first that does not start.
    pub(crate) async fn start(config: &Config, metrics: Metrics) -> Result<Self, ComposeError> {
        require_all(config)?;
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).map_err(|error| ComposeError::DataDir(dir.display().to_string(), error))?;
        let host = host(config, metrics);
        let store = engines::metadata(config).await?;
        let log = open_log(config).await?;
        let token_key = token_key(store.as_ref()).await?;
        let plane = ControlPlane::open(Arc::clone(&store), Arc::clone(&log), catalog_settings(config), now()).await?;
        let catalog: Arc<dyn Catalog> = Arc::new(plane.clone());

        let bounds = (0..log.partitions()).map(|partition| log.bounds(PartitionId(partition)));
        let bounds = bounds.map(|bounds| bounds.start..bounds.end).collect();
        let storage = Storage { dir: dir.clone(), identity: log.identity(), log: bounds };
        let limits = hot_tier::limits(config.hot_tier.memory_bytes, getrandom::u64()?);
        let addresses = config.addresses(ServiceName::HotTier);
        let hot = hot_tier::start(&host, addresses, config.hot_tier, limits, storage).await?;
        let memory: Arc<dyn NodeMemory> = Arc::new(hot.node.clone());
        let node: Arc<dyn HotTier> = Arc::new(hot.node);
        let (opened, writers) = oneshot::channel();
        let partitions = (0..log.partitions()).map(PartitionId).collect();
        let deps = stream_ingester::Deps {
            catalog: Arc::clone(&catalog),
            log: Arc::clone(&log),
            partitions,
            writers,
            memory: Arc::clone(&memory),
        };
        let addresses = config.addresses(ServiceName::StreamIngester);
        let ingester = stream_ingester::start(&host, addresses, config.stream_ingester, deps).await?;
        let opening = tokio::spawn(async move {
            let writers = hot.writers.await.expect("opening partitions does not panic")?;
            // The ingester is there unless everything ends.
            let _ = opened.send(writers);
            Ok(())
        });
        let after_log = vec![hot.running, ingester.running];

        let mut before_log = Vec::new();
        let shared = Shared { host: &host, config, catalog: &catalog, log: &log, node: &node };
        let letters = gateway::open_dead_letters(config)?;
        let counts = Arc::new(Counts(Arc::clone(&letters)));
        before_log.push(shared.watermark(token_key.clone(), counts, Arc::new(plane.clone())).await?);
        before_log.push(shared.query_api(token_key.clone()).await?);
        before_log.push(shared.rebalancer().await?);
        let deps = control_plane::Deps { control_plane: plane, hot_tier: Arc::clone(&node) };
        before_log.push(control_plane::start(&host, &config.into(), deps).await?);
        before_log.push(shared.gateway(token_key, letters, ingester.lag, memory).await?);
        for running in after_log.iter().chain(&before_log) {
            tracing::info!(service = running.service(), http = %running.http_address(), "started");
        }
        let log_size = config.kafka.is_none().then(|| tokio::spawn(log_size::report(log_dir(config))));
        Ok(Self { log, log_size, opening, before_log, after_log })
    }

    /// Waits until the partitions cannot be opened: nothing of them can ever be asked then. Where they can, it never returns.
    pub(crate) async fn failed(&mut self) -> ComposeError {
        match (&mut self.opening).await.expect("opening partitions does not panic") {
            Ok(()) => std::future::pending().await,
            Err(error) => error.into(),
        }
    }

    /// Stops everything in the reverse order of the start.
    pub(crate) async fn shutdown(self) {
        if let Some(log_size) = self.log_size {
            log_size.abort();
        }
        stop(self.before_log).await;
        self.log.close().await;
        stop(self.after_log).await;
    }
}

async fn stop(services: Vec<Running>) {
    for running in services.into_iter().rev() {
        let _ = running.shutdown().await;
    }
}

/// What the services that only read or append share.
struct Shared<'a> {
    host: &'a Host,
    config: &'a Config,
    catalog: &'a Arc<dyn Catalog>,
    log: &'a Arc<dyn EventLog>,
    node: &'a Arc<dyn HotTier>,
}

impl Shared<'_> {
    async fn watermark(
        &self,
        token_key: TokenKey,
        letters: Arc<Counts>,
        tenants: Arc<dyn Tenants>,
    ) -> Result<Running, StartError> {
        let deps = watermark::Deps {
            catalog: Arc::clone(self.catalog),
            log: Arc::clone(self.log),
            hot_tier: Arc::clone(self.node),
            dead_letters: letters,
            token_key,
            tenants,
            clock: clock(),
        };
        watermark::start(self.host, &self.config.into(), deps).await
    }

    async fn query_api(&self, token_key: TokenKey) -> Result<Running, ComposeError> {
        let progress: Arc<dyn Progress> =
            Arc::new(Watermarks::new(Arc::clone(self.log), Arc::clone(self.node), clock()));
        let deps = query_api::Deps {
            catalog: Arc::clone(self.catalog),
            progress,
            nodes: query_api::Nodes::fixed([(NODE, Arc::clone(self.node))]),
            log: Arc::clone(self.log),
            token_key,
            shared_results: engines::shared_results(self.config)?,
        };
        Ok(query_api::start(self.host, self.config.addresses(ServiceName::QueryApi), self.config.query_api, deps)
            .await?)
    }

    async fn gateway(
        &self,
        token_key: TokenKey,
        letters: Arc<DeadLetters>,
        lag: Arc<dyn ApplyLag>,
        memory: Arc<dyn NodeMemory>,
    ) -> Result<Running, ComposeError> {
        let deps = gateway::Deps {
            catalog: Arc::clone(self.catalog),
            log: Arc::clone(self.log),
            token_key,
            limiter_key: getrandom::u64()?,
            shared_limits: None,
            letters,
            lag,
            memory,
            clock: Arc::new(gateway::SystemClock::default()),
        };
        Ok(gateway::start(self.config, self.host, deps).await?)
    }

    async fn rebalancer(&self) -> Result<Running, StartError> {
        let deps =
            rebalancer::Deps { catalog: Arc::clone(self.catalog), hot_tier: Arc::clone(self.node), clock: clock() };
        rebalancer::start(self.host, &self.config.into(), deps).await
    }
}

/// The key of tokens, drawn once and kept in metadata: tokens stay good over restarts.
async fn token_key(store: &dyn MetadataStore) -> Result<TokenKey, ComposeError> {
    let mut fresh = [0; SECRET_BYTES];
    getrandom::fill(&mut fresh)?;
    Ok(TokenKey::new(store.secret("token", fresh).await?))
}

/// Processes of their own for single services come with a log and metadata that several processes can share.
fn require_all(config: &Config) -> Result<(), ComposeError> {
    let names = |services: &[&ServiceName]| services.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    let missing: Vec<_> = ServiceName::ALL.iter().filter(|name| !config.services.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = ServiceName::ALL.iter().collect();
    Err(ComposeError::Incomplete { missing: names(&missing), needed: names(&all) })
}

fn host(config: &Config, metrics: Metrics) -> Host {
    let limits = HttpLimits {
        connections_max: config.http.connections_max,
        header_timeout: config.http.header_timeout,
        body_timeout: config.http.body_timeout,
        write_timeout: config.http.write_timeout,
        drain_timeout: config.http.drain_timeout,
        unread: Unread::default(),
    };
    let authenticator = Authenticator::from_key(config.api_key.as_ref().map(config::Secret::expose));
    Host { limits, authenticator, metrics }
}

fn log_dir(config: &Config) -> PathBuf {
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

fn catalog_settings(config: &Config) -> CatalogSettings {
    let address: SocketAddr = config.addresses(ServiceName::HotTier).grpc;
    CatalogSettings {
        nodes: Nodes::Alone { node: NODE, address: address.to_string() },
        auto_create_tables: config.auto_create_tables,
        tables_max: config.control_plane.tables_max,
        auto_create_per_minute: config.control_plane.auto_create_per_minute,
    }
}

fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    Arc::new(now)
}
