//! Reads log partitions and drives the hot tier's partitions.
//!
//! One thread per partition ([`worker`]); the partition's writer is the only authority on what has been applied, so there
//! is nothing to commit and nothing to disagree about. The service is healthy once everything that was durable at its
//! start has been applied; until then health says how far it is. The threads wait for their writers while the node reads its
//! checkpoints. Which partitions there are changes while it runs ([`Partitions`]).

mod lag;
mod log_service;
mod partitions;
mod progress;
pub mod ticks;
pub mod worker;

use std::{io, sync::Arc, time::Duration};

use config::{ServiceAddresses, StreamIngesterConfig};
use event_log::EventLog;
use lag::LagGauge;
use log_service::LogService;
use metrics::{counter, describe_counter, describe_gauge, gauge};
pub use partitions::Partitions;
pub use progress::PartitionProgress;
use progress::{Snapshot, recovery};
use proto::{
    catalog::Catalog, hot_tier::NodeMemory, node_state::NodeStateService, progress::ApplyLag, v1::log_server::LogServer,
};
use service::{Calls, Health, Host, Parts, Routes, Running, StartError};
use tokio::time::MissedTickBehavior;
use types::PartitionId;

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
    /// The partitions that this node holds at its start; `None`: [`Partitions::begin`] will say, and until then it is starting.
    pub partitions: Option<Vec<PartitionId>>,
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
    /// Its partitions, which wait for their writers.
    pub partitions: Partitions,
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
            grpc_calls: Calls::Spawned,
            direct: None,
            descriptors: vec![proto::v1::FILE_DESCRIPTOR_SET],
        })
        .await?;
    let partitions = Partitions::new(Arc::clone(&deps.log), health.clone(), config.batch_size);
    if let Some(known) = deps.partitions {
        partitions.begin(&known).map_err(IngesterError::Thread)?;
    }
    let following = tokio::spawn(lag::follow(Arc::clone(&lag), Arc::clone(&deps.log), partitions.clone()));
    let ticking = tokio::spawn(ticks::keep(deps.log, partitions.clone(), lag::now));
    let reporting = tokio::spawn(report(health, partitions.clone()));
    let running = running.on_stopped({
        let partitions = partitions.clone();
        async move {
            [following, ticking, reporting].iter().for_each(tokio::task::JoinHandle::abort);
            partitions.end_all().await;
        }
    });
    Ok(Started { running, lag, partitions })
}

/// Keeps health and metrics up to date.
async fn report(health: Health, partitions: Partitions) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recovered = false;
    loop {
        ticks.tick().await;
        let now: Vec<_> = partitions.progress().iter().map(|p| p.snapshot()).collect();
        for p in &now {
            let partition = p.partition.to_string();
            counter!("truenow_ingester_rows_applied_total", "partition" => partition.clone()).absolute(p.rows);
            counter!("truenow_ingester_records_refused_total", "partition" => partition.clone()).absolute(p.refused);
            gauge!("truenow_ingester_next_offset", "partition" => partition.clone()).set(p.next_offset.0 as f64);
            gauge!("truenow_ingester_partition_up", "partition" => partition).set(if p.stopped { 0.0 } else { 1.0 });
        }
        if !recovered {
            recovered = tell(&health, partitions.are_known().then_some(&now[..]));
        }
    }
}

/// Tells how far recovery is, and whether it is over. `None`: it is not known yet what there is to recover, which is not nothing.
fn tell(health: &Health, partitions: Option<&[Snapshot]>) -> bool {
    let recovered = partitions.is_some_and(|known| known.iter().all(|p| p.recovered || p.stopped));
    if recovered {
        health.set_serving();
    } else {
        health.set_progress(partitions.map_or(0.0, recovery));
    }
    recovered
}

fn describe() {
    describe_counter!("truenow_ingester_rows_applied_total", "Events applied to a partition since the start.");
    describe_counter!("truenow_ingester_records_refused_total", "Log records that a partition could not apply.");
    describe_counter!("truenow_ingester_ticks_total", "Records appended to move the time of idle partitions.");
    describe_gauge!("truenow_ingester_next_offset", "The offset that a partition applies next.");
    describe_gauge!("truenow_ingester_partition_up", "1 while a partition's thread runs, 0 after it stopped.");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a node that waits to hear which partitions it has is starting; one that hears that it has none is not.
    #[test]
    fn unknown_is_not_nothing() {
        let health = Health::starting("test", "0");
        assert!(!tell(&health, None));
        assert_eq!(health.status().name(), "starting");
        assert!(tell(&health, Some(&[])));
        assert_eq!(health.status().name(), "healthy");
    }
}
