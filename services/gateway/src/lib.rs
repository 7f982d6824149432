//! Admission, validation, one decode into columns, durable append, ack.
//!
//! 1. Every form of request (JSON, NDJSON, protocol buffers, columns) takes the same way in: admit, sort into blocks per
//!    table and partition, let tables grow, keep what was rejected, append once, reply when all is durable.
//! 2. Limits come before work: of rate, of bytes in flight, of the log's queue. Nothing here queues without a bound.
//! 3. A request's bytes are read once, straight into columns; blocks that clients made for one partition go to the log
//!    as the same bytes.
//! 4. What can take a millisecond runs on the decode threads; the network's threads only carry bytes.
//! 5. Where the log is one for all partitions, calls of one event share blocks, appends and tokens with others that come at the same
//!    time; nobody else can tell.
//! 6. A reply that says `accepted` means durable; one that names a time-out or `UNAVAILABLE` means unknown.

mod acked;
mod admission;
mod apart;
mod clock;
mod columns;
mod counted;
pub mod dead_letters;
mod direct;
mod grpc;
mod http;
mod identity;
mod in_flight;
mod ingest;
mod judge;
mod one_message;
mod pool;
mod rows;
mod schemas;
mod shares;
mod sort;
mod tables;
mod together;
mod wire;

use std::{
    io,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread,
    time::Duration,
};

use ::admission::{
    Limiter, LimiterConfig, Monotonic, Pace, Rate, RateError,
    overload::{LagLimits, Limits},
};
use ::config::{Config, GatewayConfig, ServiceName};
use codec::TokenKey;
use event_log::EventLog;
use proto::{catalog::Catalog, dead_letters::DeadLettersService, hot_tier::NodeMemory, progress::ApplyLag};
use service::{Calls, Health, Host, Parts, Routes, Running};

pub use clock::{Clock, SystemClock};
pub use shares::SharedLimits;

use crate::{
    acked::Acked,
    admission::Admission,
    dead_letters::{Counts, DeadLetters},
    direct::DirectRows,
    grpc::IngestService,
    http::Http,
    in_flight::{InFlight, ROOM_FOR},
    ingest::{Ingest, RequestLimits},
    pool::Pool,
    schemas::Schemas,
    shares::Shares,
    together::Together,
};

/// How often one of the limiter's shards forgets idle tenants, and health follows the load.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often the pace of acks is looked at.
const PACE_INTERVAL: Duration = Duration::from_millis(250);
/// Under this name the health tells of overload.
const OVERLOAD: &str = "overload";

/// What the gateway works with.
pub struct Deps {
    /// Tables.
    pub catalog: Arc<dyn Catalog>,
    /// Where several gateways agree on their shares of the rate limits; without it the limits are this one's alone.
    pub shared_limits: Option<SharedLimits>,
    /// Where blocks go.
    pub log: Arc<dyn EventLog>,
    /// The key of tokens, which the query API shares.
    pub token_key: TokenKey,
    /// Random, drawn anew by each process: spreads tenants over the limiter's shards.
    pub limiter_key: u64,
    /// Where refused events are kept; see [`open_dead_letters`]. The gateway closes it at its shutdown.
    pub letters: Arc<DeadLetters>,
    /// How far behind the application of the log is.
    pub lag: Arc<dyn ApplyLag>,
    /// The memory that events end up in.
    pub memory: Arc<dyn NodeMemory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port or reflection.
    #[error(transparent)]
    Service(#[from] service::StartError),
    /// The store of dead letters.
    #[error("open the dead letters below {path}")]
    DeadLetters {
        /// Where they should lie.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("start the decode threads")]
    Threads(#[source] io::Error),
    /// A limit that is none.
    #[error("gateway.rate_limit: {0}")]
    Rate(RateError),
}

/// Opens the dead letters of the data directory. Reads them: blocks on the disk.
///
/// # Errors
/// Their directory cannot be used, or the system gives no thread.
pub fn open_dead_letters(config: &Config) -> Result<Arc<DeadLetters>, StartError> {
    let root = config.data_dir.join("dead-letters");
    let opened = DeadLetters::open(&root, letter_limits(&config.gateway));
    opened.map(Arc::new).map_err(|source| StartError::DeadLetters { path: root.display().to_string(), source })
}

/// Starts the gateway on its two ports. It takes events from here on; at its shutdown it finishes what is under way.
///
/// # Errors
/// A port is taken, or the system gives no thread.
pub async fn start(config: &Config, host: &Host, deps: Deps) -> Result<Running, StartError> {
    let letters = deps.letters;
    let limits = limiter_config(&config.gateway).map_err(StartError::Rate)?;
    let limiter = if deps.shared_limits.is_some() { Limiter::shared } else { Limiter::new }(limits, deps.limiter_key);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let ingest = Arc::new(Ingest {
        catalog: deps.catalog,
        log: deps.log,
        letters: Arc::clone(&letters),
        admission: Admission {
            limiter,
            lag: deps.lag,
            lag_limits: lag_limits(&config.gateway),
            memory: deps.memory,
            refusals: AtomicU64::new(deps.limiter_key),
            queued: metrics::gauge!("truenow_log_queue_bytes"),
        },
        shares: deps.shared_limits.as_ref().map(|_| Shares::default()),
        acked: Acked::new(deps.token_key),
        schemas: Schemas::new(cores),
        counted: counted::Counted::new(),
        pool: Pool::start(cores, Arc::clone(&deps.clock), deps.limiter_key).map_err(StartError::Threads)?,
        clock: deps.clock,
        limits: RequestLimits {
            bytes_max: config.gateway.request_bytes_max,
            events_max: config.gateway.request_events_max,
        },
        any: AtomicU64::new(0),
        spare_builders: Mutex::new(Vec::new()),
        together: Together::default(),
    });
    let in_flight = InFlight::new(config.gateway.inflight_bytes_max, deps.limiter_key);
    let body_timeout = config.http.body_timeout;
    let addresses = config.addresses(ServiceName::Gateway);
    let health = Health::starting("gateway", env!("CARGO_PKG_VERSION"));
    let service = IngestService::new(Arc::clone(&ingest), Arc::clone(&in_flight), body_timeout);
    let direct =
        DirectRows { ingest: Arc::clone(&ingest), in_flight: Arc::clone(&in_flight), message_timeout: body_timeout };
    let counts = Arc::new(Counts(Arc::clone(&letters)));
    let parts = Parts {
        health: health.clone(),
        http: addresses.http,
        grpc: addresses.grpc,
        router: http::router(Http { ingest: Arc::clone(&ingest), in_flight: Arc::clone(&in_flight), body_timeout })
            .merge(service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION"))),
        grpc_routes: Routes::new(service).add_service(DeadLettersService::server(counts)),
        grpc_names: vec!["truenow.v1.Ingest".to_owned()],
        grpc_calls: Calls::OnConnection,
        direct: Some(Arc::new(direct)),
        descriptors: vec![proto::v1::FILE_DESCRIPTOR_SET],
    };
    let running = host.start(parts).await?;
    let pacer = tokio::spawn(follow_pace(in_flight, Arc::clone(&ingest.clock)));
    let sharer = deps.shared_limits.map(|shared| tokio::spawn(share(Arc::clone(&ingest), shared, health.clone())));
    let joiner = tokio::spawn(together::join_calls(Arc::clone(&ingest)));
    let sweeper = tokio::spawn(sweep(ingest, health.clone()));
    health.set_serving();
    Ok(running.on_stopped(async move {
        if let Some(sharer) = sharer {
            sharer.abort();
        }
        sweeper.abort();
        pacer.abort();
        joiner.abort();
        // Blocks on the disk for what is queued; nothing else is left to do in this process by now.
        if tokio::task::spawn_blocking(move || letters.close()).await.is_err() {
            tracing::error!("closing the dead letters failed");
        }
    }))
}

async fn sweep(ingest: Arc<Ingest>, health: Health) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let _ = ingest.admission.limiter.sweep(Monotonic::from_elapsed(ingest.clock.monotonic()));
        match ingest.admission.warning() {
            Some(warning) => health.degrade(OVERLOAD, warning),
            None => health.recover(OVERLOAD),
        }
    }
}

/// Keeps this gateway's shares of the limits.
async fn share(ingest: Arc<Ingest>, limits: SharedLimits, health: Health) {
    if let Some(shares) = &ingest.shares {
        shares.follow(limits, &ingest.admission.limiter, &*ingest.clock, health).await;
    }
}

/// Makes room for what is acked in time.
async fn follow_pace(in_flight: Arc<InFlight>, clock: Arc<dyn Clock>) {
    let mut ticks = tokio::time::interval(PACE_INTERVAL);
    let mut pace = Pace::default();
    loop {
        ticks.tick().await;
        pace.look(in_flight.acked_bytes(), Monotonic::from_elapsed(clock.monotonic()));
        in_flight.set_room(pace.within(ROOM_FOR));
    }
}

fn limiter_config(config: &GatewayConfig) -> Result<LimiterConfig, RateError> {
    let rate = |per_second: u64| {
        let burst = u128::from(per_second) * config.burst.as_millis() / 1_000;
        Rate::new(per_second, u64::try_from(burst).unwrap_or(u64::MAX).clamp(1, ::admission::BURST_MAX))
    };
    Ok(LimiterConfig { global: rate(config.rate_limit)?, tenant: rate(config.tenant_rate_limit)? })
}

fn lag_limits(config: &GatewayConfig) -> LagLimits {
    let lag = config.lag;
    LagLimits {
        bytes: Limits { degraded: lag.degraded_bytes, refused: lag.refused_bytes },
        age: Limits { degraded: lag.degraded, refused: lag.refused },
    }
}

/// A table may take a sixteenth of what all tables may, in files of an eighth of that: few senders cannot drive out the
/// letters of all others.
fn letter_limits(config: &GatewayConfig) -> dead_letters::Limits {
    let store_bytes_max = config.dead_letter_bytes_max;
    let table_bytes_max = store_bytes_max / 16;
    dead_letters::Limits { file_bytes: table_bytes_max / 8, table_bytes_max, store_bytes_max }
}
