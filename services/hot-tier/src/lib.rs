//! Rings of column segments and partial query execution.
//!
//! The node holds partitions. Each has one writer, which the stream ingester beside it drives on a thread of its own, and
//! any number of readers. Scans run on the node's own threads ([`pool`]), never on a network thread; they take a snapshot
//! and never make a writer wait.

mod checkpoint;
mod checksum;
mod copies;
mod each;
mod events;
mod explain;
mod fetch;
mod kept;
mod node;
mod partitions;
mod pool;
mod recovery;
mod scan;
mod work;
mod writer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use checkpoint::thread::{CheckpointThread, Schedule};
pub use checkpoint::{
    restore::{OpenIds, Opened, OpenedIds, Storage, open as open_partition},
    round::{NotWritten, Rounds},
    seam::Captured,
};
use config::{HotTierConfig, ServiceAddresses};
use copies::Copies;
use engine::{Limits, MemoryBudget, RestoreError};
pub use fetch::{Fetched, fetch};
pub use id_store::{Arriving, newest_offset, remove_all};
use id_store::{CheckpointError, OpenError};
use kept::KeptResults;
use metrics::{describe_gauge, gauge};
pub use node::Node;
pub use partitions::Partitions;
use pool::ScanPool;
use proto::{
    checkpoints::CheckpointsService,
    hot_tier::{HotTier as _, HotTierService, PartitionWriter},
};
use service::{Calls, Health, Host, Parts, Routes, Running, StartError};
use tokio::time::MissedTickBehavior;
use types::{LogGap, Offset, PartitionId};
pub use writer::NodeWriter;

/// The service's name.
pub const SERVICE: &str = "hot-tier";

/// The name of a lasting failure to write runs of ids.
const UNWRITTEN_RUNS: &str = "id-runs";
/// The name of records of the log that are missing.
const LOG_GAPS: &str = "log-gaps";

/// An epoch of a dictionary may take this share of the memory budget, between a least and a most, bytes: strings leave
/// memory by epochs only, and one dimension of many values must not hold all of it.
const EPOCH_SHARE: u64 = 64;
const EPOCH_BYTES_LEAST: u64 = 1 << 20;
const EPOCH_BYTES_MOST: u64 = 256 << 20;

/// How often metrics follow the partitions.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Why the service does not start, or the node does not open.
#[derive(Debug, thiserror::Error)]
pub enum HotTierError {
    /// Its ports.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gives no more threads.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The directories of its partitions.
    #[error("prepare the directories of checkpoints")]
    Storage(#[source] std::io::Error),
    /// Its checkpoints.
    #[error("open checkpoints")]
    Checkpoints(#[from] CheckpointError),
    /// The runs of ids.
    #[error("open the store of event ids")]
    Ids(#[from] OpenError),
    /// No checkpoint of a partition is good, and one may be for another start: the disk did not give it, or it was made by
    /// another version or with other sizes.
    #[error("the checkpoints of partition {partition} cannot be read now; none was removed")]
    Unread {
        /// The partition.
        partition: PartitionId,
        /// Why it was not read.
        source: RestoreError,
    },
    /// No checkpoint of a partition is good, and the log does not have all that they were made of.
    #[error(
        "no checkpoint of partition {partition} is good, and the log begins at offset {start}; put checkpoints/ and ids/ \
         back from a backup of the whole directory, or move them away to go on without these events"
    )]
    NoGoodCheckpoint {
        /// The partition.
        partition: PartitionId,
        /// What the log has begins here.
        start: Offset,
    },
    /// A checkpoint is of another log: the directories were put together from several, or the log was made anew.
    #[error(
        "{} of partition {partition} lies beside another log than it was made of; put the log, checkpoints/ and ids/ of one \
         backup back, or move checkpoints/ and ids/ away to go on with what this log has", .dir.display()
    )]
    OtherLog {
        /// The partition.
        partition: PartitionId,
        /// The directory of its checkpoints.
        dir: PathBuf,
        /// The checkpoint, and both logs.
        source: CheckpointError,
    },
    /// The log was cut behind what a checkpoint was made of.
    #[error(
        "the checkpoint of partition {partition} goes on at offset {next_offset}, and the log ends at offset {end}"
    )]
    AheadOfLog {
        /// The partition.
        partition: PartitionId,
        /// What the checkpoint needs next.
        next_offset: Offset,
        /// What the log gives next.
        end: Offset,
    },
    /// The service was stopped while it read its checkpoints; they are as they were.
    #[error("stopped while checkpoints were read")]
    Stopped,
}

/// The writers of partitions.
pub type Writers = Vec<Box<dyn PartitionWriter>>;

/// A started node.
pub struct Started {
    /// The service.
    pub running: Running,
    /// The node, for the query API and the watermark service. Until it is open, it refuses what its partitions are needed for.
    pub node: Node,
    /// Its partitions, of which it has none yet.
    pub partitions: Partitions,
}

/// Starts the service over a log of so many `partitions`, of which it has none before [`Partitions::open`]. Ready when the first
/// are open; of the reading of their checkpoints health tells the progress. [`Running::shutdown`] ends the reading. `limits` are
/// [`limits()`] but in tests.
///
/// # Errors
/// A port or a thread cannot be had.
pub async fn start(
    host: &Host,
    addresses: ServiceAddresses,
    config: HotTierConfig,
    limits: Limits,
    partitions: u32,
) -> Result<Started, HotTierError> {
    describe();
    let health = Health::starting(SERVICE, env!("CARGO_PKG_VERSION"));
    let budget = Arc::new(MemoryBudget::new(config.memory_bytes - config.cache_bytes));
    let pool = ScanPool::start(config.scan_threads as usize).map_err(HotTierError::Thread)?;
    let kept = KeptResults::new(config.cache_bytes);
    let node = Node::new(partitions, Arc::clone(&budget), pool, kept, limits.hash_seed);
    let copies = Copies::new(config.checkpoint_bytes_per_second);
    let running = host
        .start(Parts {
            health: health.clone(),
            http: addresses.http,
            grpc: addresses.grpc,
            router: service::openapi(include_str!("../openapi.json"), env!("CARGO_PKG_VERSION")),
            grpc_routes: Routes::new(HotTierService::server(Arc::new(node.clone())))
                .add_service(CheckpointsService::server(copies.clone())),
            grpc_names: vec!["truenow.internal.v1.HotTier".into(), "truenow.internal.v1.Checkpoints".into()],
            // What is not for clients is told to none of them.
            grpc_calls: Calls::Spawned,
            direct: None,
            descriptors: Vec::new(),
        })
        .await?;
    let start = |schedule| CheckpointThread::start(schedule, Arc::clone(&budget), health.clone());
    let checkpoints = Schedule::of(&config).map(start).transpose().map_err(HotTierError::Thread)?;
    let changes = checkpoints.as_ref().map(CheckpointThread::changes);
    let on_disk = (changes, copies);
    let partitions = Partitions::new(node.clone(), config, limits, (Arc::clone(&budget), on_disk), health.clone());
    let reading = partitions.reading();
    let reporting = tokio::spawn(report(node.clone(), budget, health));
    let running = running.on_stopped(async move {
        reading.end().await;
        reporting.abort();
        // Joining blocks, and the thread ends within one write.
        let stopped = tokio::task::spawn_blocking(move || checkpoints.map(CheckpointThread::stop));
        stopped.await.expect("joining a thread does not panic");
    });
    Ok(Started { running, node, partitions })
}

/// The sizes by which the node lays out rows. The memory of a node decides where segments end as dictionaries do, and by
/// that the order in which floats are added up; never what rows say. Replicas that are to agree on the last bit of a sum
/// have the same memory. `hash_seed` is random: whoever knows it can choose strings that collide.
#[must_use]
pub fn limits(memory_bytes: u64, hash_seed: u64) -> Limits {
    let dictionary_bytes_max = (memory_bytes / EPOCH_SHARE).clamp(EPOCH_BYTES_LEAST, EPOCH_BYTES_MOST);
    Limits { dictionary_bytes_max, hash_seed, ..Limits::default() }
}

/// Keeps metrics and health up to date.
async fn report(node: Node, budget: Arc<MemoryBudget>, health: Health) {
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        gauge!("truenow_hot_tier_memory_bytes").set(budget.used() as f64);
        gauge!("truenow_hot_tier_memory_limit_bytes").set(budget.limit() as f64);
        gauge!("truenow_hot_tier_rollup_history_bytes").set(budget.history() as f64);
        let unwritten = node.unwritten_runs();
        gauge!("truenow_hot_tier_unwritten_id_runs").set(unwritten as f64);
        if unwritten > 0 {
            let reason = format!("{unwritten} runs of event ids cannot be written to disk and are kept in memory");
            health.degrade(UNWRITTEN_RUNS, reason);
        } else {
            health.recover(UNWRITTEN_RUNS);
        }
        match gaps(&node.gaps()) {
            Some(reason) => health.degrade(LOG_GAPS, reason),
            None => health.recover(LOG_GAPS),
        }
        for status in node.status().await.unwrap_or_default() {
            let partition = status.partition.to_string();
            gauge!("truenow_hot_tier_rows", "partition" => partition.clone()).set(status.rows as f64);
            gauge!("truenow_hot_tier_bytes", "partition" => partition).set(status.bytes as f64);
        }
    }
}

/// What is missing of the log, counted and for people; `None`: nothing.
fn gaps(gaps: &[(PartitionId, Arc<Vec<LogGap>>)]) -> Option<String> {
    for (partition, gaps) in gaps {
        gauge!("truenow_hot_tier_missing_records", "partition" => partition.to_string()).set(records(gaps) as f64);
    }
    let count: usize = gaps.iter().map(|(_, gaps)| gaps.len()).sum();
    let (partition, LogGap { first, reason, .. }) =
        gaps.iter().find_map(|(partition, gaps)| Some((partition, gaps.first()?)))?;
    let reason = reason.name();
    Some(format!(
        "{count} gaps in the log, the first at partition {partition} offset {first} ({reason}); answers that may lack these \
         records are refused or say so"
    ))
}

/// How many records gaps, which ascend, reach over. Those of two tables may overlap.
fn records(gaps: &[LogGap]) -> u64 {
    let (mut records, mut seen) = (0, 0);
    for gap in gaps {
        records += gap.end.0.saturating_sub(gap.first.0.max(seen));
        seen = seen.max(gap.end.0);
    }
    records
}

fn describe() {
    cache::describe();
    checkpoint::describe();
    describe_gauge!(
        "truenow_hot_tier_memory_bytes",
        "Accounted bytes of rows, dictionaries, rollups, ids and retired segments."
    );
    describe_gauge!("truenow_hot_tier_memory_limit_bytes", "The memory budget, less the cache.");
    describe_gauge!("truenow_hot_tier_rollup_history_bytes", "What rollups keep of rows that have left, bytes.");
    describe_gauge!("truenow_hot_tier_unwritten_id_runs", "Runs of event ids that the disk did not take.");
    describe_gauge!("truenow_hot_tier_missing_records", "Records of the log that a partition had to go on without.");
    describe_gauge!("truenow_hot_tier_rows", "Rows resident in a partition.");
    describe_gauge!("truenow_hot_tier_bytes", "Accounted bytes of a partition.");
}

#[cfg(test)]
mod tests {
    use types::{GapReason, Offset};

    use super::*;

    /// Goal: a record that two gaps reach over is one record that is missing.
    #[test]
    fn a_missing_record_is_counted_once() {
        let gap = |first, end| {
            let (first, end, reason) = (Offset(first), Offset(end), GapReason::Damaged);
            LogGap { first, end, table: None, times: None, reason }
        };
        assert_eq!(records(&[gap(1, 20), gap(3, 5), gap(10, 22), gap(30, 31)]), 22);
        assert_eq!(records(&[]), 0);
    }

    /// Goal: strings are found by the seed that the process drew, and not by one that everybody knows.
    #[test]
    fn the_seed_is_that_of_the_process() {
        assert_eq!(limits(1 << 30, 0x5EED).hash_seed, 0x5EED);
    }

    /// Goal: an epoch is a small share of a small node's memory, and no larger on a large one than it was made for.
    #[test]
    fn epochs_are_a_share_of_memory() {
        let epoch = |memory_bytes| limits(memory_bytes, 0).dictionary_bytes_max;
        assert_eq!([1 << 20, 1 << 30, 1 << 40].map(epoch), [1 << 20, 16 << 20, 256 << 20]);
    }
}
