//! Reads log partitions and drives the hot tier's partitions.
//!
//! One thread per partition ([`worker`]); the partition's writer is the only authority on what has been applied, so there
//! is nothing to commit and nothing to disagree about. The service is healthy once everything that was durable at its
//! start has been applied; until then health says how far it is. The threads wait for their writers while the node reads its
//! checkpoints.

mod lag;
mod log_service;
mod progress;
pub mod ticks;
pub mod worker;

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use config::{ServiceAddresses, StreamIngesterConfig};
use event_log::EventLog;
use lag::LagGauge;
use log_service::LogService;
use metrics::{counter, describe_counter, describe_gauge, gauge};
pub use progress::PartitionProgress;
use progress::recovery;
use proto::{
    catalog::Catalog,
    hot_tier::{NodeMemory, PartitionWriter},
    node_state::NodeStateService,
    progress::ApplyLag,
    v1::log_server::LogServer,
};
use service::{Health, Host, Parts, Routes, Running, Shutdown, StartError};
use tokio::{sync::oneshot, time::MissedTickBehavior};
use types::PartitionId;
use worker::{Means, Stopped, Worker};

/// The service's name.
pub const SERVICE: &str = "stream-ingester";

/// How often health and metrics follow the partitions' threads.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// What the service needs of others.
pub struct Deps {
    /// Tables, for whoever reads one from the log.
    pub catalog: Arc<dyn Catalog>,
    /// The log to read.
    pub log: Arc<dyn EventLog>,
    /// The partitions that this node holds.
    pub partitions: Vec<PartitionId>,
    /// A writer of each, as soon as the node is open. If none ever come, nothing is applied.
    pub writers: oneshot::Receiver<Vec<Box<dyn PartitionWriter>>>,
    /// The memory of the node beside it, for gateways elsewhere.
    pub memory: Arc<dyn NodeMemory>,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum IngesterError {
    /// Its ports.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gives no more threads.
    #[error("start a partition's thread")]
    Thread(#[source] io::Error),
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
    let lag = Arc::new(LagGauge::default());
    let log_service = LogServer::new(LogService::new(deps.catalog, Arc::clone(&deps.log)));
    let node_state = NodeStateService::server(Arc::clone(&lag) as _, deps.memory, health.ends());
    let running = host
        .start(Parts {
            health: health.clone(),
            http: addresses.http,
            grpc: addresses.grpc,
            router: service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION")),
            grpc_routes: Routes::new(log_service).add_service(node_state),
            grpc_names: vec!["truenow.v1.Log".to_owned()],
            descriptors: vec![proto::v1::FILE_DESCRIPTOR_SET],
        })
        .await?;
    let stop = Shutdown::new();
    let progress = |partition: &PartitionId| Arc::new(PartitionProgress::of(deps.log.as_ref(), *partition));
    let partitions: Vec<_> = deps.partitions.iter().map(progress).collect();
    let (mut threads, mut waiting) = (Vec::new(), BTreeMap::new());
    for progress in &partitions {
        let means = Means {
            log: Arc::clone(&deps.log),
            progress: Arc::clone(progress),
            health: health.clone(),
            stop: stop.clone(),
        };
        let (writer, given) = mpsc::channel();
        waiting.insert(progress.partition(), writer);
        threads.push(spawn(means, given, config.batch_size).map_err(IngesterError::Thread)?);
    }
    let giving = tokio::spawn(give(deps.writers, waiting));
    let following = tokio::spawn(lag::follow(Arc::clone(&lag), Arc::clone(&deps.log), partitions.clone()));
    let ticking = tokio::spawn(ticks::keep(deps.log, partitions.clone(), lag::now));
    let reporting = tokio::spawn(report(health, partitions));
    let running = running.on_stopped(async move {
        [following, ticking, reporting, giving].iter().for_each(tokio::task::JoinHandle::abort);
        stop.trigger();
        // Joining blocks, and the threads end within one poll or batch.
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
        joined.expect("joining threads does not panic");
    });
    Ok(Started { running, lag })
}

/// Gives each partition's thread its writer.
async fn give(
    writers: oneshot::Receiver<Vec<Box<dyn PartitionWriter>>>,
    mut waiting: BTreeMap<PartitionId, mpsc::Sender<Box<dyn PartitionWriter>>>,
) {
    for writer in writers.await.into_iter().flatten() {
        if let Some(thread) = waiting.remove(&writer.partition()) {
            // Only the end of the service ends a thread that waits.
            let _ = thread.send(writer);
        }
    }
}

/// Starts the thread of a partition, which waits for its writer.
fn spawn(
    means: Means,
    writer: mpsc::Receiver<Box<dyn PartitionWriter>>,
    batch_records: usize,
) -> io::Result<JoinHandle<()>> {
    let (progress, health) = (Arc::clone(&means.progress), means.health.clone());
    let partition = progress.partition().0;
    thread::Builder::new().name(format!("partition-{partition}")).spawn(move || {
        let Ok(writer) = writer.recv() else { return tracing::debug!(partition, "no writer came") };
        // What panics beside the applying of a record (eviction, the log's reader) is to show as well.
        let ended = catch_unwind(AssertUnwindSafe(|| Worker::new(means, writer, batch_records).run()));
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
