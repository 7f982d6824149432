//! Tables, schemas, membership and the versioned placement map.
//!
//! [`ControlPlane`] is the catalog, which other services of the process call directly; [`start`] puts its HTTP interface and its
//! upkeep around it. The two are apart because the hot tier, whose load the interface shows, starts after the catalog.

mod announce;
mod catalog;
mod creation_rate;
mod errors;
mod http;
mod members;
mod rules;
mod upkeep;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proto::{catalog::CatalogService, hot_tier::HotTier};
use service::{Calls, Health, Host, Parts, Routes, Running, StartError};

pub use catalog::{CatalogSettings, ControlPlane};
pub use members::Nodes;

/// The service's name.
pub const SERVICE: &str = "control-plane";

/// Where and within which limits to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to serve HTTP; port 0: any.
    pub http: SocketAddr,
    /// Where to serve gRPC; port 0: any.
    pub grpc: SocketAddr,
    /// How long a request's body may take.
    pub body_timeout: Duration,
}

impl From<&config::Config> for Config {
    fn from(config: &config::Config) -> Self {
        let addresses = config.addresses(config::ServiceName::ControlPlane);
        Self { http: addresses.http, grpc: addresses.grpc, body_timeout: config.http.body_timeout }
    }
}

/// What the service works with.
pub struct Deps {
    /// The catalog.
    pub control_plane: ControlPlane,
    /// The hot tier, for its health and load.
    pub hot_tier: Arc<dyn HotTier>,
}

/// Serves the control plane until it is shut down.
///
/// # Errors
/// A port cannot be opened.
pub async fn start(host: &Host, config: &Config, deps: Deps) -> Result<Running, StartError> {
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let shared =
        http::Shared { plane: deps.control_plane.clone(), hot_tier: deps.hot_tier, body_timeout: config.body_timeout };
    let parts = Parts {
        health: health.clone(),
        http: config.http,
        grpc: config.grpc,
        router: http::routes(shared)
            .merge(service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION"))),
        grpc_routes: Routes::new(CatalogService::server(Arc::new(deps.control_plane.clone()), health.ends())),
        grpc_names: Vec::new(),
        grpc_calls: Calls::Spawned,
        direct: None,
        descriptors: Vec::new(),
    };
    let running = host.start(parts).await?;
    let upkeep = upkeep::spawn(deps.control_plane, health.clone());
    health.set_serving();
    Ok(running.on_stopped(upkeep.stop()))
}
