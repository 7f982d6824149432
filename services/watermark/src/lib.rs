//! Progress per partition, low watermarks, freshness: measured from the log's side, so that a reader that stands still shows as a
//! lag that grows.

mod http;
mod monitor;
mod progress;
mod table;
mod upkeep;

use std::{net::SocketAddr, sync::Arc};

use event_log::EventLog;
use proto::{catalog::Catalog, hot_tier::HotTier};
use service::{Health, Host, Parts, Routes, Running, StartError};
use types::Timestamp;

pub use monitor::LAG_AGE_US_MAX;
pub use progress::{EventTimes, IDLE_AFTER_US, Lag};
pub use table::Watermarks;

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
    /// The time.
    pub clock: Clock,
}

/// Serves progress until it is shut down.
///
/// # Errors
/// A port cannot be opened.
pub async fn start(host: &Host, config: &Config, deps: Deps) -> Result<Running, StartError> {
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let (log, hot_tier, clock) = (deps.log, deps.hot_tier, deps.clock);
    let progress = Watermarks::new(Arc::clone(&log), Arc::clone(&hot_tier), Arc::clone(&clock));
    let parts = Parts {
        health: health.clone(),
        http: config.http,
        grpc: config.grpc,
        router: http::routes(http::Shared { catalog: deps.catalog, progress: Arc::new(progress) }),
        grpc_routes: Routes::default(),
        grpc_names: Vec::new(),
        descriptors: Vec::new(),
    };
    let running = host.start(parts).await?;
    let mut monitor = monitor::Monitor::new(log, hot_tier);
    // The first look comes before the first "healthy".
    upkeep::one_round(&mut monitor, &clock, &health).await;
    health.set_serving();
    Ok(running.on_stopped(upkeep::spawn(monitor, clock, health).stop()))
}
