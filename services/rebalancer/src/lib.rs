//! Load per node and plans of small moves; in a cluster also who places partitions on nodes that live and moves them ([`Placer`]).
//! On one node the plan is empty and says why.

mod commands;
mod http;
mod meter;
mod placer;
mod plan;
mod watching;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use proto::{catalog::Catalog, hot_tier::HotTier};
use service::{Calls, Health, Host, Parts, Routes, Running, Shutdown, StartError};
use types::Timestamp;

pub use commands::Commands;
pub use placer::{Placer, Spread};
pub use plan::{MOVE_BYTES_MAX, MOVES_MAX};
pub use watching::HotTiers;

/// The service's name.
pub const SERVICE: &str = "rebalancer";

/// Gives the time: the system's, or a test's.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve HTTP; port 0: any.
    pub http: SocketAddr,
    /// Where to serve gRPC; port 0: any.
    pub grpc: SocketAddr,
}

impl From<&config::Config> for Config {
    fn from(config: &config::Config) -> Self {
        let addresses = config.addresses(config::ServiceName::Rebalancer);
        Self { http: addresses.http, grpc: addresses.grpc }
    }
}

/// What the service works with.
pub struct Deps {
    /// The placement map.
    pub catalog: Arc<dyn Catalog>,
    /// What the partitions hold.
    pub hot_tier: Arc<dyn HotTier>,
    /// The time.
    pub clock: Clock,
    /// Places partitions, where there are several nodes.
    pub placer: Option<Placer>,
}

/// Serves plans, and places partitions, until it is shut down.
///
/// # Errors
/// A port cannot be opened.
pub async fn start(host: &Host, config: &Config, deps: Deps) -> Result<Running, StartError> {
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let shared = http::Shared {
        catalog: deps.catalog,
        hot_tier: deps.hot_tier,
        clock: deps.clock,
        commands: deps.placer.as_ref().map(Placer::commands),
        runs: Arc::new(Mutex::new(VecDeque::new())),
    };
    let parts = Parts {
        health: health.clone(),
        http: config.http,
        grpc: config.grpc,
        router: http::routes(shared)
            .merge(service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION"))),
        grpc_routes: Routes::default(),
        grpc_names: Vec::new(),
        grpc_calls: Calls::Spawned,
        direct: None,
        descriptors: Vec::new(),
    };
    let running = host.start(parts).await?;
    health.set_serving();
    let Some(placer) = deps.placer else { return Ok(running) };
    let stop = Shutdown::new();
    let placing = tokio::spawn(placer.run(health, stop.clone()));
    Ok(running.on_stopped(async move {
        stop.trigger();
        if let Err(error) = placing.await {
            tracing::error!(%error, "the placing of partitions ended early");
        }
    }))
}
