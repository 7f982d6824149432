//! Partitions as the disk has them.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use engine::{
    Horizon, IdRuns, Limits, MemoryBudget, Reader, RestoreError, RunFault, RunId, SealedRows, Writer,
    partition_with_runs, restore,
};
use id_store::{CheckpointError, CheckpointStore, DiskFiles, Generation, IdStore, Kept, OpenError, Reading, RunKeeper};
use metrics::counter;
use types::{LogIdentity, Offset, PartitionId};

use super::{horizon::Meeting, round::Rounds, seam::Seam};
use crate::{HotTierError, NodeWriter};

/// Where a node keeps what its partitions need beside the log.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The directory of checkpoints and runs of ids, in directories of theirs; made where it is not there.
    pub dir: PathBuf,
    /// Which log it is that its partitions are made of.
    pub identity: LogIdentity,
    /// What the log has of each partition that is to be opened.
    pub log: BTreeMap<PartitionId, Range<Offset>>,
}

/// A partition that is ready for the log.
pub struct Opened {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) store: CheckpointStore,
    pub(crate) keeper: RunKeeper,
}

impl Opened {
    /// The partition without further checkpoints.
    pub(crate) fn into_parts(self) -> (NodeWriter, Reader) {
        (NodeWriter::new(self.writer), self.reader)
    }

    /// The partition, of which checkpoints can be written.
    #[must_use]
    pub fn with_checkpoints(self) -> (NodeWriter, Reader, Rounds) {
        let Self { writer, reader, store, keeper } = self;
        let (seam, captures) = Seam::new(store.needed_from());
        let seam = Arc::new(seam);
        let writer = NodeWriter::new(writer).with_checkpoints(Arc::clone(&seam));
        (writer, reader, Rounds::new((seam, captures), store, keeper))
    }
}

/// Opens a partition's place for ids with the runs of checkpoints that are named; the others go.
pub type OpenIds<'a> = dyn FnMut(Kept<'_>) -> OpenedIds + 'a;

/// What [`OpenIds`] gives.
pub type OpenedIds = Result<(Box<dyn IdRuns>, RunKeeper), OpenError>;

/// Bytes to read and read so far, of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    // Relaxed: a figure for people.
    all: AtomicU64,
    pub(crate) reading: Arc<Reading>,
}

impl Progress {
    /// From 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let all = self.all.load(Relaxed).max(1);
        (self.reading.bytes() as f64 / all as f64).min(1.0)
    }
}

/// Opens all partitions, so many at a time; where memory became smaller, the oldest rows of all are left out.
///
/// # Errors
/// A directory cannot be read or made, what is there of a partition may not be gone on without, or it was stopped.
pub(crate) fn open_all(
    storage: &Storage,
    limits: Limits,
    budget: &Arc<MemoryBudget>,
    threads: usize,
    progress: &Progress,
) -> Result<Vec<Opened>, HotTierError> {
    let mut stores = Vec::new();
    for &partition in storage.log.keys() {
        let dir = storage.dir.join("checkpoints").join(partition.to_string());
        let files = DiskFiles::open(&dir).map_err(HotTierError::Storage)?;
        let store = CheckpointStore::open(Arc::new(files), partition, storage.identity);
        let store = store.map_err(|error| unopened(partition, dir, error))?;
        let newest = store.generations().last().and_then(|newest| store.loader(newest.number));
        progress.all.fetch_add(newest.map_or(0, |loader| loader.bytes()), Relaxed);
        stores.push(store);
    }
    let meeting = Meeting::new(stores.len(), threads, budget);
    let open_one = |store: CheckpointStore| {
        let mut seat = meeting.join();
        let dir = storage.dir.join("ids").join(store.partition().to_string());
        let log = &storage.log[&store.partition()];
        let mut horizon = |sealed: &[SealedRows]| seat.speak(sealed);
        open(store, &mut on_disk(&dir), log, limits, budget, &progress.reading, &mut horizon)
    };
    let open_one = &open_one;
    thread::scope(|scope| {
        let opening: Vec<_> = stores.into_iter().map(|store| scope.spawn(move || open_one(store))).collect();
        opening.into_iter().map(|thread| thread.join().expect("opening a partition does not panic")).collect()
    })
}

fn unopened(partition: PartitionId, dir: PathBuf, error: CheckpointError) -> HotTierError {
    match error {
        source @ CheckpointError::OtherLog { .. } => HotTierError::OtherLog { partition, dir, source },
        error => error.into(),
    }
}

/// Ids in a directory of the local disk.
fn on_disk(dir: &Path) -> impl FnMut(Kept<'_>) -> OpenedIds {
    move |kept: Kept<'_>| {
        let ids = IdStore::open_on_disk(dir, kept)?;
        let keeper = ids.keeper();
        Ok((Box::new(ids) as Box<dyn IdRuns>, keeper))
    }
}

/// A partition from its newest checkpoint that is good, or without any, over what the log has of it; `reading` follows it, and
/// `horizon` says for which rows there is room.
///
/// # Errors
/// The place for ids does not open. The newest checkpoint is ahead of the log; or none is good, and one may be good for
/// another start, or the log does not have all that they were made of; or it was stopped. Then nothing that a checkpoint
/// names has changed.
pub fn open(
    mut store: CheckpointStore,
    open_ids: &mut OpenIds<'_>,
    log: &Range<Offset>,
    limits: Limits,
    budget: &Arc<MemoryBudget>,
    reading: &Arc<Reading>,
    horizon: &mut Horizon<'_>,
) -> Result<Opened, HotTierError> {
    if reading.is_stopped() {
        return Err(HotTierError::Stopped);
    }
    let (partition, started) = (store.partition(), Instant::now());
    let (mut generations, mut unread) = (store.generations(), None);
    if let Some(newest) = generations.last().filter(|newest| newest.next_offset > log.end) {
        return Err(HotTierError::AheadOfLog { partition, next_offset: newest.next_offset, end: log.end });
    }
    // One that the log let go of stayed as its file could not be removed: nothing leads on from it.
    generations.retain(|generation| generation.next_offset >= log.start);
    // Also of those that are no good now: they may be at the next start, if the one before them is not.
    let named = runs_of(&generations);
    let kept = if store.all_read() { Kept::Named(&named) } else { Kept::All };
    while let Some(newest) = generations.last() {
        let (mut ids, keeper) = open_ids(kept)?;
        generations.iter().for_each(|generation| retain(&keeper, generation));
        let mut loader = store.loader(newest.number).expect("a generation of the store").watched_by(reading);
        match restore(partition, &mut loader, limits, budget, ids.as_mut(), horizon) {
            Ok(restored) => {
                store.resume(newest.number, restored.names());
                let stays = |old: &Generation| store.generations().iter().any(|stays| stays.number == old.number);
                generations.iter().filter(|old| !stays(old)).for_each(|old| keeper.release(old.number));
                let (writer, reader) = restored.into_partition(ids);
                let (generation, next_offset) = (newest.number, newest.next_offset.0);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(partition = partition.0, generation, next_offset, seconds, "restored from a checkpoint");
                return Ok(Opened { writer, reader, store, keeper });
            }
            Err(_) if reading.is_stopped() => return Err(HotTierError::Stopped),
            Err(error) => {
                counter!("truenow_checkpoint_failures_total").increment(1);
                tracing::error!(
                    partition = partition.0,
                    generation = newest.number,
                    error = &error as &dyn std::error::Error,
                    "a checkpoint is no good; trying the one before"
                );
                unread = unread.or_else(|| may_be_good(&error).then_some(error));
            }
        }
        generations.pop();
    }
    if let Some(source) = unread {
        return Err(HotTierError::Unread { partition, source });
    }
    store.start_over()?;
    if store.was_used() && log.start > Offset::ZERO {
        return Err(HotTierError::NoGoodCheckpoint { partition, start: log.start });
    }
    let (ids, keeper) = open_ids(Kept::Named(&[]))?;
    let (writer, reader) = partition_with_runs(partition, Offset::ZERO, limits, Arc::clone(budget), ids);
    Ok(Opened { writer, reader, store, keeper })
}

/// Whether a checkpoint may be good for another start, other than one that is lost.
fn may_be_good(error: &RestoreError) -> bool {
    match error {
        RestoreError::Limits | RestoreError::Version => true,
        RestoreError::Ids(RunFault::Io(kind)) => !matches!(kind, ErrorKind::NotFound | ErrorKind::UnexpectedEof),
        RestoreError::Source(source) => source.downcast_ref().is_some_and(CheckpointError::may_be_good),
        RestoreError::Ids(RunFault::Damaged(_) | RunFault::Unknown(_)) | RestoreError::Malformed(_) => false,
    }
}

fn runs_of(generations: &[Generation]) -> Vec<RunId> {
    let mut runs: Vec<_> = generations.iter().flat_map(|generation| generation.runs.iter().copied()).collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// Keeps the runs of a generation that is there. One whose runs are lost is no good, which shows if it is asked for.
fn retain(keeper: &RunKeeper, generation: &Generation) {
    if let Err(fault) = keeper.retain(generation.number, generation.runs.clone()) {
        tracing::error!(generation = generation.number, %fault, "a checkpoint has lost ids");
    }
}

#[cfg(test)]
pub(crate) mod tests;
