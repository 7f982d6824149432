//! Bugs to be found: parts of the system wrapped so that they break a promise. A simulator that does not fail with them
//! proves nothing without them. The product has no part in it: the wrappers stand at its own seams.

use std::{
    any::Any,
    future::Future,
    io::{self, IoSlice},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use clap::ValueEnum;
use codec::BlockHeader;
use engine::{FrozenIds, IdRuns, PinnedRun, RunFault, RunId, RunSet, SetUsage};
use event_log::{
    Append, AppendError, Appended, Bounds, Durability, EmbeddedLog, EventLog, FileSystem, Load, LogFile, LogLedger,
    LogReader, OpenMode, ReadError,
};
use proto::hot_tier::{NotApplied, PartitionWriter};
use types::{GapReason, LogIdentity, Offset, PartitionId, TableKey, Timestamp};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// The log acks what it has queued.
    AckBeforeDurable,
    /// A partition claims a record's offset before it has applied the record.
    OffsetBeforeRows,
    /// What a filter suspects is a duplicate, unconfirmed.
    FilterTrusted,
    /// Syncs of the log's files are left out.
    FsyncSkipped,
    /// The log is let go of up to the newest checkpoint, and not up to the one before.
    ReleasedToNewest,
    /// Checkpoints are not synced: neither their packs nor their manifests.
    CheckpointUnsynced,
    /// Checkpoints do not name the runs of ids.
    CheckpointWithoutRuns,
}

/// The file system that the log is given.
pub(crate) fn file_system(plant: Option<Plant>, files: Arc<dyn FileSystem>) -> Arc<dyn FileSystem> {
    if plant == Some(Plant::FsyncSkipped) { Arc::new(Unsynced(files)) } else { files }
}

/// The file system that checkpoints are given.
pub(crate) fn checkpoint_files(plant: Option<Plant>, files: Arc<dyn FileSystem>) -> Arc<dyn FileSystem> {
    if plant == Some(Plant::CheckpointUnsynced) { Arc::new(Unsynced(files)) } else { files }
}

/// The log that clients and workers are given.
pub(crate) fn event_log(plant: Option<Plant>, log: EmbeddedLog) -> Arc<dyn EventLog> {
    let log = Arc::new(log);
    if plant == Some(Plant::AckBeforeDurable) {
        return Arc::new(EagerLog { log, unfinished: Mutex::default() });
    }
    log
}

/// The writer that a worker drives; `newest` is where the newest checkpoint goes on.
pub(crate) fn partition_writer(
    plant: Option<Plant>,
    writer: Box<dyn PartitionWriter>,
    newest: &Arc<AtomicU64>,
) -> Box<dyn PartitionWriter> {
    match plant {
        Some(Plant::OffsetBeforeRows) => Box::new(OffsetFirst { writer, held: None }),
        Some(Plant::ReleasedToNewest) => Box::new(NewestOnly { writer, newest: Arc::clone(newest) }),
        _ => writer,
    }
}

/// How often runs of ids were asked, and how many of the suspects were innocent.
#[derive(Debug, Default)]
pub(crate) struct RunCounts {
    pub(crate) added: AtomicU64,
    pub(crate) convicted: AtomicU64,
    pub(crate) innocent: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// Runs of ids that are counted; with [`Plant::FilterTrusted`] they convict suspects that are in none of them, with
/// [`Plant::CheckpointWithoutRuns`] a capture gets none.
pub(crate) struct Runs {
    runs: Box<dyn IdRuns>,
    counts: Arc<RunCounts>,
    plant: Option<Plant>,
}

impl Runs {
    pub(crate) fn new(runs: Box<dyn IdRuns>, counts: Arc<RunCounts>, plant: Option<Plant>) -> Self {
        Self { runs, counts, plant }
    }
}

impl IdRuns for Runs {
    fn new_set(&mut self) -> RunSet {
        self.runs.new_set()
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        self.counts.added.fetch_add(1, Relaxed);
        self.runs.add(set, ids);
    }

    fn seal(&mut self, set: RunSet) {
        self.runs.seal(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        let confirmed = self.runs.confirm(set, suspects, found);
        let convicted = found.iter().flatten().count() as u64;
        self.counts.convicted.fetch_add(convicted, Relaxed);
        match &confirmed {
            Ok(()) => self.counts.innocent.fetch_add(found.len() as u64 - convicted, Relaxed),
            Err(_) => self.counts.failed.fetch_add(1, Relaxed),
        };
        if self.plant == Some(Plant::FilterTrusted) {
            found.iter_mut().filter(|found| found.is_none()).for_each(|found| *found = Some(0));
        }
        confirmed
    }

    fn drop_set(&mut self, set: RunSet) {
        self.runs.drop_set(set);
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.runs.usage(set)
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        if self.plant == Some(Plant::CheckpointWithoutRuns) { Vec::new() } else { self.runs.pin(set) }
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        self.runs.restore_set(runs)
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.runs.scan(set, each)
    }
}

struct Unsynced(Arc<dyn FileSystem>);

impl FileSystem for Unsynced {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.0.lock(path)
    }
}

struct UnsyncedFile(Arc<dyn LogFile>);

impl LogFile for UnsyncedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(into, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.0.write_at(parts, position)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

type Appending = Pin<Box<dyn Future<Output = Result<Vec<Appended>, AppendError>> + Send>>;

/// Acks what is queued, at the places that it will have if all goes well.
struct EagerLog {
    log: Arc<EmbeddedLog>,
    unfinished: Mutex<Vec<(Appending, Vec<PartitionId>)>>,
}

impl EagerLog {
    fn unfinished(&self) -> MutexGuard<'_, Vec<(Appending, Vec<PartitionId>)>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventLog for EagerLog {
    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn durability(&self) -> Durability {
        self.log.durability()
    }

    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let partitions: Vec<PartitionId> = blocks.iter().map(|block| block.header.partition).collect();
        let log = Arc::clone(&self.log);
        let mut appending: Appending = Box::pin(async move { log.append(blocks).await });
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(refused) = appending.as_mut().poll(&mut context) {
            return refused;
        }
        let mut unfinished = self.unfinished();
        unfinished.retain_mut(|(appending, _)| appending.as_mut().poll(&mut context).is_pending());
        let mut places = Vec::new();
        for partition in &partitions {
            let ahead = unfinished.iter().flat_map(|(_, ahead)| ahead).filter(|ahead| *ahead == partition).count();
            let beside = places.iter().filter(|place: &&Appended| place.partition == *partition).count();
            let offset = Offset(self.log.bounds(*partition).end.0 + (ahead + beside) as u64);
            places.push(Appended { partition: *partition, offset, append_time: Timestamp(0) });
        }
        unfinished.push((appending, partitions));
        Ok(places)
    }

    fn reader(&self, partition: PartitionId, from: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        self.log.reader(partition, from)
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        self.log.bounds(partition)
    }

    fn append_time_of(&self, partition: PartitionId, offset: Offset) -> Option<Timestamp> {
        self.log.append_time_of(partition, offset)
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Offset {
        self.log.offset_at(partition, time)
    }

    fn ledger(&self, partition: PartitionId, key: TableKey, applied: Offset) -> Result<LogLedger, ReadError> {
        self.log.ledger(partition, key, applied)
    }

    fn load(&self) -> Load {
        self.log.load()
    }

    fn appended_bytes(&self, partition: PartitionId) -> u64 {
        self.log.appended_bytes(partition)
    }

    fn release_before(&self, partition: PartitionId, offset: Offset) {
        self.log.release_before(partition, offset);
    }

    async fn close(&self) {
        self.log.close().await;
    }
}

/// Applies a record only when the next one comes, and claims it before.
struct OffsetFirst {
    writer: Box<dyn PartitionWriter>,
    held: Option<(Offset, Timestamp, BlockHeader, Vec<u8>)>,
}

impl PartitionWriter for OffsetFirst {
    fn partition(&self) -> PartitionId {
        self.writer.partition()
    }

    fn next_offset(&self) -> Offset {
        self.held.as_ref().map_or_else(|| self.writer.next_offset(), |(held, ..)| held.next())
    }

    fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), NotApplied> {
        if let Some((offset, append_time, header, body)) = &self.held {
            self.writer.apply(*offset, *append_time, header, body)?;
        }
        self.held = Some((offset, append_time, *header, body.to_vec()));
        Ok(())
    }

    fn pass_over(&mut self, end: Offset, reason: GapReason, header: Option<&BlockHeader>) -> Result<(), NotApplied> {
        self.writer.pass_over(end, reason, header)
    }

    fn housekeep(&mut self) {
        self.writer.housekeep();
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.writer.due_at()
    }

    fn needed_from(&self) -> Offset {
        self.writer.needed_from()
    }

    fn recovered(&mut self) {
        self.writer.recovered();
    }
}

/// Needs no more of the log than the newest checkpoint does.
struct NewestOnly {
    writer: Box<dyn PartitionWriter>,
    newest: Arc<AtomicU64>,
}

impl PartitionWriter for NewestOnly {
    fn partition(&self) -> PartitionId {
        self.writer.partition()
    }

    fn next_offset(&self) -> Offset {
        self.writer.next_offset()
    }

    fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), NotApplied> {
        self.writer.apply(offset, append_time, header, body)
    }

    fn pass_over(&mut self, end: Offset, reason: GapReason, header: Option<&BlockHeader>) -> Result<(), NotApplied> {
        self.writer.pass_over(end, reason, header)
    }

    fn housekeep(&mut self) {
        self.writer.housekeep();
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.writer.due_at()
    }

    fn needed_from(&self) -> Offset {
        // Relaxed: everything happens on one thread.
        Offset(self.newest.load(Relaxed))
    }

    fn recovered(&mut self) {
        self.writer.recovered();
    }
}
