//! One life of the process: the log, its driver, a worker per partition, and the appends under way.

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use engine::{MemoryBudget, Reader, RunId, TableSnapshot, horizon_alone};
use event_log::{AppendError, Appended, Bounds, Driver, EmbeddedConfig, EmbeddedLog, EventLog, FileSystem, OpenError};
use hot_tier::{HotTierError, OpenedIds, Rounds, open_partition};
use id_store::{CheckpointStore, IdStore, Kept, Work};
use service::{Health, Shutdown};
use stream_ingester::{
    PartitionProgress,
    worker::{Means, Step, Worker},
};
use tokio::sync::watch;
use types::{LogIdentity, Offset, PartitionId};

use crate::{
    check::{Rows, rows_of},
    clients::Ticket,
    disk::{Directory, Disk, VirtualClock},
    events::{Block, BlockName},
    failure::{Wrong, ensure},
    plant::{self, Plant, RunCounts, Runs},
    profile::Profile,
    random::Random,
};

const LOG_DIR: &str = "/log";
/// The log's own key, which it would draw otherwise.
const FRAME_KEY: u64 = 3;
/// Which log it is, the same in every run of a seed.
const LOG_IDENTITY: LogIdentity = LogIdentity(4);
/// Numbers of runs that a life may use: none comes again.
const RUNS_OF_A_LIFE: u64 = 1 << 32;

/// Who waits for an append.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    Client(Ticket),
    Catalog(usize),
    /// The ingester, which moves the time of a partition.
    Ingester,
}

/// An append under way.
struct Appending {
    future: Pin<Box<dyn Future<Output = Result<Vec<Appended>, AppendError>> + Send>>,
    names: Vec<BlockName>,
    asker: Asker,
}

/// An append that is over.
pub(crate) struct Settled {
    pub(crate) names: Vec<BlockName>,
    pub(crate) asker: Asker,
    pub(crate) outcome: Result<Vec<Appended>, AppendError>,
}

/// A partition with its worker.
pub(crate) struct Partition {
    worker: Worker,
    pub(crate) reader: Reader,
    recovered: watch::Receiver<bool>,
    /// Where the log ended when the life began.
    recover_to: Offset,
    /// When the worker wants to try again.
    not_before: i64,
    /// A snapshot of before, and what it showed then.
    held: Option<(TableSnapshot, Rows)>,
    /// Where the life began.
    pub(crate) began_at: Offset,
    rounds: Rounds,
    /// A capture was asked for.
    asked: bool,
    /// Where the newest checkpoint goes on.
    newest: Arc<AtomicU64>,
}

/// The directory of a partition's checkpoints.
pub(crate) fn checkpoints_dir(partition: PartitionId) -> PathBuf {
    PathBuf::from(format!("/checkpoints/{partition}"))
}

/// The directory of a partition's runs of ids.
pub(crate) fn ids_dir(partition: PartitionId) -> PathBuf {
    PathBuf::from(format!("/ids/{partition}"))
}

/// A life.
pub(crate) struct Life {
    pub(crate) log: Arc<dyn EventLog>,
    driver: Driver,
    pub(crate) partitions: Vec<Partition>,
    appending: Vec<Appending>,
    run_counts: Arc<RunCounts>,
}

/// Why a life did not begin.
pub(crate) enum NotStarted {
    /// The disk failed or ended.
    Disk(String),
    /// Of a partition no checkpoint is good, and the log begins at this offset.
    NoGoodCheckpoint(PartitionId, Offset),
    /// What must not be.
    Wrong(Wrong),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

impl From<HotTierError> for NotStarted {
    fn from(error: HotTierError) -> Self {
        match error {
            HotTierError::NoGoodCheckpoint { partition, start } => Self::NoGoodCheckpoint(partition, start),
            HotTierError::AheadOfLog { .. } => Self::Wrong(Wrong(error.to_string())),
            other => Self::Disk(format!("{other:?}")),
        }
    }
}

impl From<id_store::CheckpointError> for NotStarted {
    fn from(error: id_store::CheckpointError) -> Self {
        Self::Disk(format!("{error:?}"))
    }
}

impl From<OpenError> for NotStarted {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { source, .. } => Self::Disk(source.to_string()),
            other => Self::Wrong(Wrong(format!("the log does not open: {other}"))),
        }
    }
}

impl Life {
    /// Opens what the disk holds, as the life of that number.
    pub(crate) fn begin(
        profile: &Profile,
        disk: &Disk,
        clock: &VirtualClock,
        plant: Option<Plant>,
        run_counts: &Arc<RunCounts>,
        number: u64,
    ) -> Result<Self, NotStarted> {
        let files: Arc<dyn FileSystem> = Arc::new(disk.files());
        let config = EmbeddedConfig {
            segment_bytes: profile.segment_bytes,
            queue_bytes_max: profile.queue_bytes_max,
            group_bytes_max: profile.group_bytes_max,
            tail_bytes_max: profile.tail_bytes_max,
            index_bytes_max: profile.tail_bytes_max,
            frame_key: Some(FRAME_KEY),
            identity: Some(LOG_IDENTITY),
            ..EmbeddedConfig::new(LOG_DIR, profile.partitions)
        };
        let log_files = plant::file_system(plant, Arc::clone(&files));
        let (log, driver) = EmbeddedLog::open_driven(config, log_files, Arc::new(clock.clone()))?;
        let log = plant::event_log(plant, log);
        let budget = Arc::new(MemoryBudget::new(profile.memory_bytes));
        let mut life =
            Self { log, driver, partitions: Vec::new(), appending: Vec::new(), run_counts: Arc::clone(run_counts) };
        for partition in (0..profile.partitions).map(PartitionId) {
            let first_run = RunId(number * RUNS_OF_A_LIFE);
            life.begin_partition(partition, profile, &budget, &files, first_run, plant)?;
        }
        Ok(life)
    }

    fn begin_partition(
        &mut self,
        partition: PartitionId,
        profile: &Profile,
        budget: &Arc<MemoryBudget>,
        files: &Arc<dyn FileSystem>,
        first_run: RunId,
        plant: Option<Plant>,
    ) -> Result<(), NotStarted> {
        let runs_dir = Arc::new(Directory::open(Arc::clone(files), &ids_dir(partition))?);
        let checkpoint_files = plant::checkpoint_files(plant, Arc::clone(files));
        let checkpoints = Directory::open(checkpoint_files, &checkpoints_dir(partition))?;
        let store = CheckpointStore::open(Arc::new(checkpoints), partition, self.log.identity())?;
        let run_counts = &self.run_counts;
        let mut open_ids = |kept: Kept<'_>| -> OpenedIds {
            let ids = IdStore::open(Arc::clone(&runs_dir) as _, kept, first_run, Work::Within)?;
            let keeper = ids.keeper();
            Ok((Box::new(Runs::new(Box::new(ids), Arc::clone(run_counts), plant)), keeper))
        };
        let Bounds { start, end: recover_to, .. } = self.log.bounds(partition);
        let (log, limits) = (start..recover_to, profile.limits());
        let opened =
            open_partition(store, &mut open_ids, &log, limits, budget, &Arc::default(), &mut horizon_alone(budget))?;
        let (writer, reader, rounds) = opened.with_checkpoints();
        let newest = rounds.generations().last().map_or(0, |newest| newest.next_offset.0);
        let newest = Arc::new(AtomicU64::new(newest));
        let recovered = writer.recovered();
        let means = Means {
            log: Arc::clone(&self.log),
            progress: Arc::new(PartitionProgress::of(self.log.as_ref(), partition)),
            health: Health::starting("simulator", env!("CARGO_PKG_VERSION")),
            stop: Shutdown::new(),
        };
        let writer = plant::partition_writer(plant, Box::new(writer), &newest);
        let worker = Worker::new(means, writer, profile.batch_records);
        let began_at = worker.next_offset();
        let (not_before, held, asked) = (i64::MIN, None, false);
        self.partitions.push(Partition {
            worker,
            reader,
            recovered,
            recover_to,
            not_before,
            held,
            began_at,
            rounds,
            asked,
            newest,
        });
        Ok(())
    }

    /// Hands blocks to the log; [`Life::settle`] queues them.
    pub(crate) fn append(&mut self, blocks: Vec<Block>, asker: Asker) {
        let names = blocks.iter().map(|block| BlockName::of(&block.append.header)).collect();
        let log = Arc::clone(&self.log);
        let appends = blocks.into_iter().map(|block| block.append).collect();
        self.appending.push(Appending { future: Box::pin(async move { log.append(appends).await }), names, asker });
    }

    /// Queues what was appended, and takes what the log has to say of what was queued before.
    pub(crate) fn settle(&mut self) -> Vec<Settled> {
        let mut context = Context::from_waker(Waker::noop());
        let mut settled = Vec::new();
        for mut appending in std::mem::take(&mut self.appending) {
            match appending.future.as_mut().poll(&mut context) {
                Poll::Pending => self.appending.push(appending),
                Poll::Ready(outcome) => {
                    settled.push(Settled { names: appending.names, asker: appending.asker, outcome });
                }
            }
        }
        settled
    }

    /// Lets the log do what waits to be done first.
    pub(crate) fn drive(&mut self) -> event_log::Step {
        self.driver.step()
    }

    /// Closes the log in order: what is queued becomes durable, or fails.
    pub(crate) fn close(&mut self) {
        let log = Arc::clone(&self.log);
        let mut closing = Box::pin(async move { log.close().await });
        let mut context = Context::from_waker(Waker::noop());
        while closing.as_mut().poll(&mut context).is_pending() {
            self.driver.step();
        }
    }
}

/// What a try to make a checkpoint came to.
#[derive(Debug)]
pub(crate) enum Checkpointed {
    Asked,
    /// The writer did not come by.
    NotGiven,
    /// It is durable.
    Written(Offset),
    /// It may be there, or not.
    Failed,
}

/// What a step of a partition came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stepped {
    Worked,
    /// Nothing is there to apply.
    Idle,
    /// It waits for something that is away.
    Waits,
}

impl Partition {
    /// The offset that the partition claims to have reached.
    pub(crate) fn next_offset(&self) -> Offset {
        self.worker.next_offset()
    }

    /// Lets the worker do its next step.
    pub(crate) fn step(&mut self, now: i64) -> Result<Stepped, Wrong> {
        if now < self.not_before {
            return Ok(Stepped::Waits);
        }
        let before = self.next_offset();
        let stepped = match self.worker.step(Duration::ZERO) {
            Step::Worked => Stepped::Worked,
            Step::Idle => Stepped::Idle,
            Step::Away(retry) => {
                self.not_before = now + i64::try_from(retry.as_micros()).unwrap_or(i64::MAX);
                Stepped::Waits
            }
            Step::Stopped(stopped) => {
                return Err(Wrong(format!("partition {} stopped: {stopped}", self.reader.partition())));
            }
        };
        ensure!(before <= self.next_offset(), "a partition went back");
        let answers = *self.recovered.borrow();
        ensure!(!answers || self.recover_to <= self.next_offset(), "a partition answers before it has recovered");
        Ok(stepped)
    }

    /// Asks for a capture, or writes the one that was asked for before.
    pub(crate) fn checkpoint(&mut self, stop_one_in: u64, random: &mut Random) -> Checkpointed {
        if !std::mem::replace(&mut self.asked, false) {
            self.rounds.ask();
            self.asked = true;
            return Checkpointed::Asked;
        }
        let Some(captured) = self.rounds.take() else { return Checkpointed::NotGiven };
        match self.rounds.write(&captured, &mut |_| !random.once_in(stop_one_in)) {
            Ok(_) => {
                let next_offset = captured.state.next_offset();
                self.newest.store(next_offset.0, Relaxed);
                Checkpointed::Written(next_offset)
            }
            Err(_) => Checkpointed::Failed,
        }
    }

    /// The newest checkpoint that is gone on from or written in this life, by its number.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.rounds.generations().last().map(|newest| newest.number)
    }

    /// Looks at the snapshot that was held last, which is as it was, and holds another.
    pub(crate) fn hold_snapshot(&mut self, which: usize) -> Result<(), Wrong> {
        if let Some((snapshot, rows)) = &self.held {
            ensure!(rows_of(snapshot)? == *rows, "a snapshot changed");
        }
        let tables = self.reader.tables();
        self.held = match tables.get(which % tables.len().max(1)).and_then(|key| self.reader.snapshot(*key)) {
            Some(snapshot) => Some((snapshot.clone(), rows_of(&snapshot)?)),
            None => None,
        };
        Ok(())
    }
}
