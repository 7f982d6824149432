//! Reads log partitions and drives the hot tier's partitions.
//!
//! One thread per partition ([`worker`]); the partition's writer is the only authority on what has been applied, so there
//! is nothing to commit and nothing to disagree about. The service is healthy once everything that was durable at its
//! start has been applied; until then health says how far it is.

mod lag;
mod progress;
pub mod ticks;
pub mod worker;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use config::{ServiceAddresses, StreamIngesterConfig};
use event_log::EventLog;
use lag::LagGauge;
use metrics::{counter, describe_counter, describe_gauge, gauge};
pub use progress::PartitionProgress;
use progress::recovery;
use proto::{hot_tier::PartitionWriter, progress::ApplyLag};
use service::{Health, Host, Parts, Routes, Running, Shutdown, StartError};
use tokio::time::MissedTickBehavior;
use worker::{Means, Stopped, Worker};

/// The service's name.
pub const SERVICE: &str = "stream-ingester";

/// How often health and metrics follow the partitions' threads.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// What the service needs of others.
pub struct Deps {
    /// The log to read.
    pub log: Arc<dyn EventLog>,
    /// One writer per partition that this node holds.
    pub writers: Vec<Box<dyn PartitionWriter>>,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngesterError {
    /// Its ports.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gives no more threads.
    #[error("start a partition's thread")]
    Thread(#[source] std::io::Error),
}

/// The started service.
pub struct Started {
    /// The service.
    pub running: Running,
    /// How far it is behind the log, for the gateway.
    pub lag: Arc<dyn ApplyLag>,
}

/// Starts the service. [`Running::shutdown`] ends the partitions' threads between two batches, however much of the log is
/// still to be read: all of it is durable, and read again at the next start.
///
/// # Errors
/// A port or a thread cannot be had.
pub async fn start(
    host: &Host,
    addresses: ServiceAddresses,
    config: StreamIngesterConfig,
    deps: Deps,
) -> Result<Started, IngesterError> {
    describe();
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let running = host
        .start(Parts {
            health: health.clone(),
            http: addresses.http,
            grpc: addresses.grpc,
            router: service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION")),
            grpc_routes: Routes::default(),
            grpc_names: Vec::new(),
            descriptors: Vec::new(),
        })
        .await?;
    let (mut threads, mut partitions) = (Vec::new(), Vec::new());
    let stop = Shutdown::new();
    for writer in deps.writers {
        let progress = Arc::new(PartitionProgress::new(writer.partition()));
        partitions.push(Arc::clone(&progress));
        let means = Means {
            log: Arc::clone(&deps.log),
            progress: Arc::clone(&progress),
            health: health.clone(),
            stop: stop.clone(),
        };
        let worker = Worker::new(means, writer, config.batch_size);
        threads.push(spawn(worker, progress, health.clone()).map_err(IngesterError::Thread)?);
    }
    let lag = Arc::new(LagGauge::default());
    let following = tokio::spawn(lag::follow(Arc::clone(&lag), Arc::clone(&deps.log), partitions.clone()));
    let ticking = tokio::spawn(ticks::keep(deps.log, partitions.clone(), lag::now));
    let reporting = tokio::spawn(report(health, partitions));
    let running = running.on_stopped(async move {
        following.abort();
        ticking.abort();
        reporting.abort();
        stop.trigger();
        // Joining blocks, and the threads end within one poll or batch.
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
        joined.expect("joining threads does not panic");
    });
    Ok(Started { running, lag })
}

fn spawn(worker: Worker, progress: Arc<PartitionProgress>, health: Health) -> std::io::Result<JoinHandle<()>> {
    let partition = worker.partition().0;
    thread::Builder::new().name(format!("partition-{partition}")).spawn(move || {
        // What panics beside the applying of a record (eviction, the log's reader) is to show as well.
        let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
        let why = match ended {
            Ok(Stopped::Closed) => return tracing::debug!(partition, "partition closed"),
            Ok(stopped) => stopped.to_string(),
            Err(_) => "its thread panicked".to_owned(),
        };
        progress.stopped();
        health.degrade_part("partition-stopped", partition, format!("partition {partition} stopped: {why}"));
        tracing::error!(partition, error = %why, "partition stopped; its answers grow stale until a restart");
    })
}

/// Keeps health and metrics up to date.
async fn report(health: Health, partitions: Vec<Arc<PartitionProgress>>) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recovered = false;
    loop {
        ticks.tick().await;
        let now: Vec<_> = partitions.iter().map(|p| p.snapshot()).collect();
        for p in &now {
            let partition = p.partition.to_string();
            counter!("truenow_ingester_rows_applied_total", "partition" => partition.clone()).absolute(p.rows);
            counter!("truenow_ingester_records_refused_total", "partition" => partition.clone()).absolute(p.refused);
            gauge!("truenow_ingester_next_offset", "partition" => partition.clone()).set(p.next_offset.0 as f64);
            gauge!("truenow_ingester_partition_up", "partition" => partition).set(if p.stopped { 0.0 } else { 1.0 });
        }
        if !recovered {
            recovered = now.iter().all(|p| p.recovered || p.stopped);
            if recovered { health.set_serving() } else { health.set_progress(recovery(&now)) }
        }
    }
}

fn describe() {
    describe_counter!("truenow_ingester_rows_applied_total", "Events applied to a partition since the start.");
    describe_counter!("truenow_ingester_records_refused_total", "Log records that a partition could not apply.");
    describe_counter!("truenow_ingester_ticks_total", "Records appended to move the time of idle partitions.");
    describe_gauge!("truenow_ingester_next_offset", "The offset that a partition applies next.");
    describe_gauge!("truenow_ingester_partition_up", "1 while a partition's thread runs, 0 after it stopped.");
}
