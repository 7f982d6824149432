//! The composition of a process of a cluster: some of the services, with direct calls to what is in the process and network
//! clients to what is not.
//!
//! Start: catalog (the control plane here, or followed elsewhere) → control plane → hot tier and stream ingester, which open what
//! the map gives them → watermark → query API → rebalancer → gateway; then the process registers. Stop: it says that it leaves,
//! then as any other.

use std::sync::Arc;

use codec::ClusterKey;
use config::{ClusterConfig, Config, ServiceName};
use control_plane::{ControlPlane, Nodes};
use gateway::SharedLimits;
use placement::PlacementMap;
use proto::{
    catalog::{Catalog, CatalogClient, CatalogFeed as _, Tenants},
    dead_letters::ClusterDeadLetters,
    members::{Member, Membership},
    node_state::NodeStates,
    wire::Connector,
};
use rebalancer::{Placer, Spread};
use service::{Metrics, Running, Shutdown};
use tokio::sync::watch;
use types::NodeId;

use super::{
    assigned::Assigned,
    compose::{ComposeError, Composed, Opening, Shared, host, open_plane, start_node},
    engines::Engines,
    nodes::{self, AllNodes, NodeMap},
    reporter::{Number, Reporter},
    sources::Sources,
};

/// Between these a process draws its number that is no node of the hot tier: above those that people give, and such that every
/// JSON reader keeps its bits.
const DRAWN_MIN: u64 = 1 << 32;
const DRAWN_MAX: u64 = 1 << 53;

/// The control plane as this process has it.
struct Plane {
    catalog: Arc<dyn Catalog>,
    tenants: Arc<dyn Tenants>,
    membership: Arc<dyn Membership>,
    placement: watch::Receiver<Arc<PlacementMap>>,
    /// Where it is in this process.
    here: Option<ControlPlane>,
}

impl Plane {
    async fn open(
        config: &Config,
        cluster: &ClusterConfig,
        engines: &Engines,
        connector: Connector,
    ) -> Result<Self, ComposeError> {
        if config.services.contains(&ServiceName::ControlPlane) {
            let store = engines.store.clone().expect("opened where there is a control plane");
            let plane = Arc::new(open_plane(config, store, &engines.log, Nodes::Registered).await?);
            let (placement, here) = (plane.watch_placement(), Some(ControlPlane::clone(&plane)));
            return Ok(Self { catalog: plane.clone(), tenants: plane.clone(), membership: plane, placement, here });
        }
        let client = CatalogClient::connect(cluster.control_planes.clone(), connector);
        let client = Arc::new(client.map_err(ComposeError::ControlPlane)?);
        tracing::info!(addresses = ?cluster.control_planes, "waits for the control plane");
        client.followed().await;
        let placement = client.watch_placement();
        Ok(Self { catalog: client.clone(), tenants: client.clone(), membership: client, placement, here: None })
    }
}

impl Composed {
    /// Starts a process of a cluster.
    pub(super) async fn start_member(
        config: &Config,
        cluster: &ClusterConfig,
        metrics: Metrics,
        engines: Engines,
    ) -> Result<Self, ComposeError> {
        let key = ClusterKey::new(cluster.key.expose());
        let (host, connector) = (host(config, metrics, Some(key.clone())), Connector::new(Some(key.clone())));
        let plane = Plane::open(config, cluster, &engines, connector.clone()).await?;
        let members = plane.membership.members();
        let nodes = nodes::follow(members.clone(), connector.clone());
        let hot_tiers = nodes.clone();
        let shared = Shared {
            host: &host,
            config,
            catalog: Arc::clone(&plane.catalog),
            tenants: Arc::clone(&plane.tenants),
            log: Arc::clone(&engines.log),
            hot_tier: Arc::new(AllNodes::new(nodes.clone(), plane.placement.clone())),
            nodes: query_api::Nodes::watched(nodes),
            dead_letters: Arc::new(ClusterDeadLetters::new(members.clone(), connector.clone())),
            results: engines.results.clone(),
            token_key: key.token_key(),
        };
        let mut before_log = Vec::new();
        if let Some(here) = plane.here {
            before_log.push(shared.control_plane(here).await?);
        }
        let (opening, after_log) = match cluster.node {
            Some(node) => {
                let sources = Sources {
                    here: node,
                    placement: plane.placement.clone(),
                    members: members.clone(),
                    nodes: hot_tiers.clone(),
                    connector: connector.clone(),
                };
                start_assigned(&shared, node, plane.placement.clone(), sources).await?
            }
            None => (None, Vec::new()),
        };
        let runs = |service: ServiceName| config.services.contains(&service);
        if runs(ServiceName::Watermark) {
            before_log.push(shared.watermark().await?);
        }
        if runs(ServiceName::QueryApi) {
            before_log.push(shared.query_api().await?);
        }
        if runs(ServiceName::Rebalancer) {
            before_log.push(shared.rebalancer(Some(placer(cluster, &engines, hot_tiers)?)).await?);
        }
        if runs(ServiceName::Gateway) {
            let letters = gateway::open_dead_letters(config)?;
            let states = Arc::new(NodeStates::follow(members, plane.placement, connector));
            let limits = shared_limits(config, cluster, &engines)?;
            before_log.push(shared.gateway(Some(limits), letters, states.clone(), states).await?);
        }
        let member = member(cluster, after_log.iter().chain(&before_log))?;
        let number = if cluster.node.is_some() { Number::Given } else { Number::Drawn };
        let reporter = Some(Reporter::start(plane.membership, member, number, getrandom::u64()?));
        Ok(Self { log: engines.log, reporter, log_size: None, opening, before_log, after_log })
    }
}

/// What this process says of itself, with what runs in it.
fn member<'a>(cluster: &ClusterConfig, running: impl Iterator<Item = &'a Running>) -> Result<Member, ComposeError> {
    let address = |running: &Running| {
        let address = format!("{}:{}", cluster.advertise, running.grpc_address().port());
        (running.service().to_owned(), address)
    };
    let node = match cluster.node {
        Some(node) => node,
        None => NodeId(DRAWN_MIN + getrandom::u64()? % (DRAWN_MAX - DRAWN_MIN)),
    };
    Ok(Member { node, zone: cluster.zone.clone(), services: running.map(address).collect() })
}

/// Where this gateway agrees with the others on shares of the rate limits: under its address, which it has again after a restart
/// unless the system chooses its port.
fn shared_limits(config: &Config, cluster: &ClusterConfig, engines: &Engines) -> Result<SharedLimits, ComposeError> {
    let store = engines.store.clone().expect("opened where there is a gateway");
    let gateway = match config.addresses(ServiceName::Gateway).grpc.port() {
        0 => format!("{}-{:016x}", cluster.advertise, getrandom::u64()?),
        port => format!("{}:{port}", cluster.advertise),
    };
    Ok(SharedLimits { store, gateway })
}

fn placer(
    cluster: &ClusterConfig,
    engines: &Engines,
    nodes: watch::Receiver<Arc<NodeMap>>,
) -> Result<Placer, ComposeError> {
    let store = engines.store.clone().expect("opened where there is a rebalancer");
    let ClusterConfig { replicas, nodes_first, .. } = *cluster;
    let spread = Spread { partitions: engines.log.partitions(), replicas, nodes_first };
    let holder = format!("{}-{:016x}", cluster.advertise, getrandom::u64()?);
    Ok(Placer::new(store, nodes, spread, cluster.handover_grace, holder))
}

/// Starts the hot tier and the stream ingester with the partitions that the map gives this node.
async fn start_assigned(
    shared: &Shared<'_>,
    node: NodeId,
    placement: watch::Receiver<Arc<PlacementMap>>,
    sources: Sources,
) -> Result<(Option<Opening>, Vec<Running>), ComposeError> {
    let beside = start_node(shared.host, shared.config, &shared.catalog, &shared.log, None).await?;
    let assigned = Assigned {
        node,
        config: shared.config.clone(),
        log: Arc::clone(&shared.log),
        hot_tier: beside.hot_tier,
        ingester: beside.ingester,
        sources,
    };
    let stop = Shutdown::new();
    let task = tokio::spawn(assigned.follow(placement, stop.clone()));
    Ok((Some(Opening { task, stop }), beside.running))
}
