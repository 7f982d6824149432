//! Progress per partition, low watermarks, freshness: measured from the log's side, so that a reader that stands still shows as a
//! lag that grows. And the ledger: whether every event that was acked is in one place.

mod after;
mod audit;
mod http;
mod ledger;
mod ledgers;
mod monitor;
mod progress;
mod table;
mod upkeep;

use std::{net::SocketAddr, sync::Arc};

use codec::TokenKey;
use event_log::EventLog;
use proto::{
    catalog::{Catalog, Tenants},
    dead_letters::DeadLetterCounts,
    hot_tier::HotTier,
};
use service::{Calls, Health, Host, Parts, Routes, Running, StartError};
use types::Timestamp;

pub use monitor::LAG_AGE_US_MAX;
pub use progress::{EventTimes, IDLE_AFTER_US, Lag};
pub use table::Watermarks;

use crate::{audit::Audit, ledgers::Ledgers};

/// The service's name.
pub const SERVICE: &str = "watermark";

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
        let addresses = config.addresses(config::ServiceName::Watermark);
        Self { http: addresses.http, grpc: addresses.grpc }
    }
}

/// What the service works with.
pub struct Deps {
    /// Tables by name, and which nodes hold their partitions.
    pub catalog: Arc<dyn Catalog>,
    /// What is durable.
    pub log: Arc<dyn EventLog>,
    /// What is applied.
    pub hot_tier: Arc<dyn HotTier>,
    /// What was refused.
    pub dead_letters: Arc<dyn DeadLetterCounts>,
    /// The key that authenticates tokens; the same in every gateway and query API.
    pub token_key: TokenKey,
    /// The tenants: the ledgers of all of them are checked without being asked for.
    pub tenants: Arc<dyn Tenants>,
    /// The time.
    pub clock: Clock,
}

/// Serves progress until it is shut down.
///
/// # Errors
/// A port cannot be opened.
pub async fn start(host: &Host, config: &Config, deps: Deps) -> Result<Running, StartError> {
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let Deps { catalog, log, hot_tier, dead_letters, token_key, tenants, clock } = deps;
    let progress = Arc::new(Watermarks::new(Arc::clone(&log), Arc::clone(&hot_tier), Arc::clone(&clock)));
    let ledgers = Ledgers { log: Arc::clone(&log), hot_tier: Arc::clone(&hot_tier) };
    let audit = Audit::new(Arc::clone(&catalog), ledgers.clone(), tenants);
    let parts = Parts {
        health: health.clone(),
        http: config.http,
        grpc: config.grpc,
        router: http::routes(http::Shared { catalog, progress, ledgers, dead_letters, token_key })
            .merge(service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION"))),
        grpc_routes: Routes::default(),
        grpc_names: Vec::new(),
        grpc_calls: Calls::Spawned,
        direct: None,
        descriptors: Vec::new(),
    };
    let running = host.start(parts).await?;
    let mut monitor = monitor::Monitor::new(log, hot_tier);
    // The first look comes before the first "healthy".
    upkeep::one_round(&mut monitor, &clock, &health).await;
    health.set_serving();
    let watching = upkeep::watch_lag(monitor, clock, health.clone());
    let auditing = upkeep::watch_ledgers(audit, health);
    Ok(running.on_stopped(async move {
        watching.stop().await;
        auditing.stop().await;
    }))
}
