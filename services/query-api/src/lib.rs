//! JSON queries: plan, fan out, merge, receipt.
//!
//! The service is stateless: what it knows of tables comes from the control plane, rows from the hot tier's nodes,
//! freshness from the watermark service. A question is answered in full or refused by name, unless it says that a part
//! will do.

mod answer;
mod arrivals;
mod behind;
mod compute;
mod conclude;
mod event_ids;
mod events;
mod explain;
mod fanout;
mod fleet;
mod flights;
mod grpc;
mod held;
mod http;
mod load;
mod nodes;
mod params;
mod parts;
mod places;
mod receipt;
mod replicas;
mod results;
mod short_form;
mod text;

use std::sync::Arc;

use answer::Answers;
use cache::{LayeredResults, LocalResults, ResultCache};
use codec::TokenKey;
use config::{QueryApiConfig, ServiceAddresses};
use event_log::EventLog;
use fleet::Fleet;
use flights::Flights;
pub use nodes::Nodes;
use proto::{catalog::Catalog, progress::Progress};
use query::QueryLimits;
use results::Results;
use service::{Calls, Health, Host, Parts, Running, StartError};

/// The service's name.
pub const SERVICE: &str = "query-api";

/// What the service needs of others.
pub struct Deps {
    /// Tables and placement.
    pub catalog: Arc<dyn Catalog>,
    /// Watermarks and freshness.
    pub progress: Arc<dyn Progress>,
    /// The hot tier.
    pub nodes: Nodes,
    /// The log, which has the ids of raw events.
    pub log: Arc<dyn EventLog>,
    /// The key that authenticates tokens; the same in every gateway and query API.
    pub token_key: TokenKey,
    /// Results that several query APIs share, beside those that this one keeps for itself.
    pub shared_results: Option<Arc<dyn ResultCache>>,
}

/// Starts the service.
///
/// # Errors
/// A port cannot be had.
pub async fn start(
    host: &Host,
    addresses: ServiceAddresses,
    config: QueryApiConfig,
    deps: Deps,
) -> Result<Running, StartError> {
    cache::describe();
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let log = Arc::clone(&deps.log);
    let answers = Arc::new(Answers {
        catalog: deps.catalog,
        progress: deps.progress,
        fleet: Fleet::new(deps.nodes, Box::new(move |partition| log.bounds(partition).end)),
        log: deps.log,
        token_key: deps.token_key,
        limits: limits(&config),
        places: places::Places::new(),
        unsent: held::Unsent::new(),
        results: Results::new(results(config.cache_bytes, deps.shared_results), config.cache_ttl),
        flights: Flights::new(),
    });
    let grpc_routes = grpc::routes(Arc::clone(&answers));
    let running = host
        .start(Parts {
            health: health.clone(),
            http: addresses.http,
            grpc: addresses.grpc,
            router: http::routes(answers, host.limits.body_timeout)
                .merge(service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION"))),
            grpc_routes,
            grpc_names: vec!["truenow.v1.Query".into()],
            grpc_calls: Calls::Spawned,
            direct: None,
            descriptors: vec![proto::v1::FILE_DESCRIPTOR_SET],
        })
        .await?;
    health.set_serving();
    Ok(running)
}

/// Results of this process, before those that are shared.
fn results(bytes_max: u64, shared: Option<Arc<dyn ResultCache>>) -> Arc<dyn ResultCache> {
    let own = Arc::new(LocalResults::new(bytes_max));
    match shared {
        Some(shared) => Arc::new(LayeredResults::new(own, shared)),
        None => own,
    }
}

fn limits(config: &QueryApiConfig) -> QueryLimits {
    QueryLimits {
        rows_default: config.limit_default,
        rows_max: config.limit_max,
        groups_max: config.groups_max,
        timeout_default: config.timeout_default,
        timeout_max: config.timeout_max,
        ..QueryLimits::default()
    }
}
