//! The composition: every service gets the others as trait objects, and is started and stopped in order.
//!
//! One process with all services calls them directly; how a process of a cluster does is in [`super::member`].

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cache::ResultCache;
use codec::{ClusterKey, TokenKey};
use config::{Config, Secret, ServiceName};
use control_plane::{CatalogSettings, ControlPlane, Nodes};
use event_log::{EventLog, KafkaOpenError, OpenError};
use gateway::{
    SharedLimits,
    dead_letters::{Counts, DeadLetters},
};
use hot_tier::{HotTierError, Storage};
use metadata::{MetadataError, MetadataStore, SECRET_BYTES};
use proto::{
    catalog::{Catalog, Tenants},
    dead_letters::DeadLetterCounts,
    hot_tier::{HotTier, NodeMemory},
    progress::{ApplyLag, Progress},
};
use rebalancer::Placer;
use service::{Authenticator, Host, HttpLimits, Metrics, Running, Shutdown, StartError, Unread};
use stream_ingester::IngesterError;
use tokio::task::JoinHandle;
use types::{ApiError, NodeId, PartitionId, Timestamp};
use watermark::Watermarks;

use super::{
    engines::{Engines, log_dir},
    log_size,
    reporter::Reporter,
};

/// This node, on a single machine.
const NODE: NodeId = NodeId(1);

/// Why the services do not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
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
    #[error("reach the control plane")]
    ControlPlane(#[source] ApiError),
    #[error("this process has no place any more in its cluster")]
    Replaced(#[source] ApiError),
    #[error(
        "the processes of a cluster share their engines, and {engine} is on the disk of one: set {setting}, or leave \
         `services` and `cluster.control_plane` out"
    )]
    NotShared { engine: &'static str, setting: &'static str },
}

/// The running services, in the order of their start.
pub(crate) struct Composed {
    pub(super) log: Arc<dyn EventLog>,
    /// Of a process of a cluster.
    pub(super) reporter: Option<Reporter>,
    /// Of a log in files.
    pub(super) log_size: Option<JoinHandle<()>>,
    /// What opens partitions; `None`: there are none here.
    pub(super) opening: Option<Opening>,
    /// Those that may stop while the log is open, first to last started.
    pub(super) before_log: Vec<Running>,
    /// Those that read the log until they are stopped.
    pub(super) after_log: Vec<Running>,
}

/// A task that opens partitions. It ends where there is no more to open, where one cannot be opened, or when it is told to.
pub(super) struct Opening {
    pub(super) task: JoinHandle<Result<(), ComposeError>>,
    pub(super) stop: Shutdown,
}

impl Composed {
    /// Starts the services of `config`. Partitions are opened beside them; see [`Composed::failed`].
    ///
    /// # Errors
    /// The first that does not start.
    pub(crate) async fn start(config: &Config, metrics: Metrics, engines: Engines) -> Result<Self, ComposeError> {
        let composed = match &config.cluster {
            None => Self::start_alone(config, metrics, engines).await?,
            Some(cluster) => Self::start_member(config, cluster, metrics, engines).await?,
        };
        for running in composed.after_log.iter().chain(&composed.before_log) {
            tracing::info!(service = running.service(), http = %running.http_address(), "started");
        }
        Ok(composed)
    }

    /// All services in one process.
    async fn start_alone(config: &Config, metrics: Metrics, engines: Engines) -> Result<Self, ComposeError> {
        let Engines { log, store, results } = engines;
        let store = store.expect("all services are here");
        let host = host(config, metrics, None);
        let token_key = token_key(store.as_ref()).await?;
        let address: SocketAddr = config.addresses(ServiceName::HotTier).grpc;
        let nodes = Nodes::Alone { node: NODE, address: address.to_string() };
        let plane = open_plane(config, store, &log, nodes).await?;
        let catalog: Arc<dyn Catalog> = Arc::new(plane.clone());

        let partitions: Vec<_> = (0..log.partitions()).map(PartitionId).collect();
        let beside = start_node(&host, config, &catalog, &log, Some(partitions.clone())).await?;
        let opening = beside.open(storage(config, log.as_ref(), &partitions));
        let memory: Arc<dyn NodeMemory> = Arc::new(beside.node.clone());
        let node: Arc<dyn HotTier> = Arc::new(beside.node);

        let letters = gateway::open_dead_letters(config)?;
        let shared = Shared {
            host: &host,
            config,
            catalog,
            tenants: Arc::new(plane.clone()),
            log: Arc::clone(&log),
            hot_tier: Arc::clone(&node),
            nodes: query_api::Nodes::fixed([(NODE, node)]),
            dead_letters: Arc::new(Counts(Arc::clone(&letters))),
            results,
            token_key,
        };
        let before_log = vec![
            shared.watermark().await?,
            shared.query_api().await?,
            shared.rebalancer(None).await?,
            shared.control_plane(plane).await?,
            shared.gateway(None, letters, beside.lag, memory).await?,
        ];
        let log_size = config.kafka.is_none().then(|| tokio::spawn(log_size::report(log_dir(config))));
        Ok(Self { log, reporter: None, log_size, opening: Some(opening), before_log, after_log: beside.running })
    }

    /// Waits until this process cannot go on: a partition cannot be opened, and nothing of it could ever be asked, or another
    /// process has taken its place. Where all goes well, it never returns.
    pub(crate) async fn failed(&mut self) -> ComposeError {
        let opening = async {
            let Some(opening) = &mut self.opening else { return std::future::pending().await };
            match (&mut opening.task).await.expect("opening partitions does not panic") {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let replaced = async {
            match &mut self.reporter {
                Some(reporter) => ComposeError::Replaced(reporter.replaced().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = opening => error,
            error = replaced => error,
        }
    }

    /// Stops everything in the reverse order of the start.
    pub(crate) async fn shutdown(self) {
        if let Some(reporter) = self.reporter {
            reporter.leave().await;
        }
        if let Some(opening) = &self.opening {
            opening.stop.trigger();
        }
        if let Some(log_size) = self.log_size {
            log_size.abort();
        }
        stop(self.before_log).await;
        self.log.close().await;
        stop(self.after_log).await;
    }
}

pub(super) async fn stop(services: Vec<Running>) {
    for running in services.into_iter().rev() {
        let _ = running.shutdown().await;
    }
}

/// What services get of each other.
pub(super) struct Shared<'a> {
    pub(super) host: &'a Host,
    pub(super) config: &'a Config,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) tenants: Arc<dyn Tenants>,
    pub(super) log: Arc<dyn EventLog>,
    /// What all nodes together say of their partitions.
    pub(super) hot_tier: Arc<dyn HotTier>,
    /// The nodes, each for itself.
    pub(super) nodes: query_api::Nodes,
    pub(super) dead_letters: Arc<dyn DeadLetterCounts>,
    /// Where query APIs share results.
    pub(super) results: Option<Arc<dyn ResultCache>>,
    pub(super) token_key: TokenKey,
}

impl Shared<'_> {
    pub(super) async fn watermark(&self) -> Result<Running, StartError> {
        let deps = watermark::Deps {
            catalog: Arc::clone(&self.catalog),
            log: Arc::clone(&self.log),
            hot_tier: Arc::clone(&self.hot_tier),
            dead_letters: Arc::clone(&self.dead_letters),
            token_key: self.token_key.clone(),
            tenants: Arc::clone(&self.tenants),
            clock: clock(),
        };
        watermark::start(self.host, &self.config.into(), deps).await
    }

    pub(super) async fn query_api(&self) -> Result<Running, StartError> {
        let progress: Arc<dyn Progress> =
            Arc::new(Watermarks::new(Arc::clone(&self.log), Arc::clone(&self.hot_tier), clock()));
        let deps = query_api::Deps {
            catalog: Arc::clone(&self.catalog),
            progress,
            nodes: self.nodes.clone(),
            log: Arc::clone(&self.log),
            token_key: self.token_key.clone(),
            shared_results: self.results.clone(),
        };
        query_api::start(self.host, self.config.addresses(ServiceName::QueryApi), self.config.query_api, deps).await
    }

    /// `shared_limits`: of a cluster.
    pub(super) async fn gateway(
        &self,
        shared_limits: Option<SharedLimits>,
        letters: Arc<DeadLetters>,
        lag: Arc<dyn ApplyLag>,
        memory: Arc<dyn NodeMemory>,
    ) -> Result<Running, ComposeError> {
        let deps = gateway::Deps {
            catalog: Arc::clone(&self.catalog),
            log: Arc::clone(&self.log),
            token_key: self.token_key.clone(),
            limiter_key: getrandom::u64()?,
            shared_limits,
            letters,
            lag,
            memory,
            clock: Arc::new(gateway::SystemClock::default()),
        };
        Ok(gateway::start(self.config, self.host, deps).await?)
    }

    /// `placer`: of a cluster.
    pub(super) async fn rebalancer(&self, placer: Option<Placer>) -> Result<Running, StartError> {
        let (catalog, hot_tier) = (Arc::clone(&self.catalog), Arc::clone(&self.hot_tier));
        let deps = rebalancer::Deps { catalog, hot_tier, clock: clock(), placer };
        rebalancer::start(self.host, &self.config.into(), deps).await
    }

    pub(super) async fn control_plane(&self, control_plane: ControlPlane) -> Result<Running, StartError> {
        let deps = control_plane::Deps { control_plane, hot_tier: Arc::clone(&self.hot_tier) };
        control_plane::start(self.host, &self.config.into(), deps).await
    }
}

/// The catalog over the metadata and the log.
pub(super) async fn open_plane(
    config: &Config,
    store: Arc<dyn MetadataStore>,
    log: &Arc<dyn EventLog>,
    nodes: Nodes,
) -> Result<ControlPlane, MetadataError> {
    let settings = CatalogSettings {
        nodes,
        auto_create_tables: config.auto_create_tables,
        tables_max: config.control_plane.tables_max,
        auto_create_per_minute: config.control_plane.auto_create_per_minute,
    };
    ControlPlane::open(store, Arc::clone(log), settings, now()).await
}

/// A node of the hot tier and the stream ingester beside it.
pub(super) struct Beside {
    pub(super) node: hot_tier::Node,
    pub(super) lag: Arc<dyn ApplyLag>,
    pub(super) hot_tier: hot_tier::Partitions,
    pub(super) ingester: stream_ingester::Partitions,
    /// Both, in the order of their start.
    pub(super) running: Vec<Running>,
}

impl Beside {
    /// Opens partitions that the ingester has begun with, beside all else.
    fn open(&self, storage: Storage) -> Opening {
        let (hot_tier, ingester) = (self.hot_tier.clone(), self.ingester.clone());
        let task = tokio::spawn(async move {
            ingester.give(hot_tier.open(storage).await?);
            Ok(())
        });
        Opening { task, stop: Shutdown::new() }
    }
}

/// What the hot tier needs to open these partitions.
pub(super) fn storage(config: &Config, log: &dyn EventLog, partitions: &[PartitionId]) -> Storage {
    let bounds = |&partition: &PartitionId| {
        let bounds = log.bounds(partition);
        (partition, bounds.start..bounds.end)
    };
    let log_bounds: BTreeMap<_, _> = partitions.iter().map(bounds).collect();
    Storage { dir: config.data_dir.clone(), identity: log.identity(), log: log_bounds }
}

/// Starts the hot tier, which has no partitions yet, and its stream ingester, whose `partitions` wait to be opened.
pub(super) async fn start_node(
    host: &Host,
    config: &Config,
    catalog: &Arc<dyn Catalog>,
    log: &Arc<dyn EventLog>,
    partitions: Option<Vec<PartitionId>>,
) -> Result<Beside, ComposeError> {
    let limits = hot_tier::limits(config.hot_tier.memory_bytes, getrandom::u64()?);
    let addresses = config.addresses(ServiceName::HotTier);
    let hot = hot_tier::start(host, addresses, config.hot_tier, limits, log.partitions()).await?;
    let (catalog, log, memory) = (Arc::clone(catalog), Arc::clone(log), Arc::new(hot.node.clone()));
    let deps = stream_ingester::Deps { catalog, log, partitions, memory };
    let addresses = config.addresses(ServiceName::StreamIngester);
    let ingester = stream_ingester::start(host, addresses, config.stream_ingester, deps).await?;
    Ok(Beside {
        node: hot.node,
        lag: ingester.lag,
        hot_tier: hot.partitions,
        ingester: ingester.partitions,
        running: vec![hot.running, ingester.running],
    })
}

/// The key of tokens, drawn once and kept in metadata: tokens stay good over restarts.
async fn token_key(store: &dyn MetadataStore) -> Result<TokenKey, ComposeError> {
    let mut fresh = [0; SECRET_BYTES];
    getrandom::fill(&mut fresh)?;
    Ok(TokenKey::new(store.secret("token", fresh).await?))
}

/// What the services of this process share; `cluster`: the key of the cluster that it belongs to.
pub(super) fn host(config: &Config, metrics: Metrics, cluster: Option<ClusterKey>) -> Host {
    let limits = HttpLimits {
        connections_max: config.http.connections_max,
        header_timeout: config.http.header_timeout,
        body_timeout: config.http.body_timeout,
        write_timeout: config.http.write_timeout,
        drain_timeout: config.http.drain_timeout,
        unread: Unread::default(),
    };
    let clients = config.api_key.as_ref().map(Secret::expose);
    let authenticator = match cluster {
        None => Authenticator::from_key(clients),
        Some(key) => Authenticator::of_cluster(key, clients),
    };
    Host { limits, authenticator, metrics }
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn clock() -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    Arc::new(now)
}
