//! Partitions as the disk has them.

use std::{
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use engine::{
    IdRuns, Limits, MemoryBudget, Reader, RestoreError, RunFault, RunId, Writer, partition_with_runs, restore,
};
use id_store::{CheckpointError, CheckpointStore, DiskFiles, Generation, IdStore, Kept, OpenError, Reading, RunKeeper};
use metrics::counter;
use types::{Offset, PartitionId};

use super::{round::Rounds, seam::Seam};
use crate::{HotTierError, NodeWriter};

/// Where a node keeps what its partitions need beside the log.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The directory of checkpoints and runs of ids, in directories of theirs; made where it is not there.
    pub dir: PathBuf,
    /// What the log has of each partition, numbered from 0.
    pub log: Vec<Range<Offset>>,
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

/// Opens all partitions, on so many threads.
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
    for partition in (0..storage.log.len() as u32).map(PartitionId) {
        let dir = storage.dir.join("checkpoints").join(partition.to_string());
        let files = DiskFiles::open(&dir).map_err(HotTierError::Storage)?;
        let store = CheckpointStore::open(Arc::new(files), partition)?;
        let newest = store.generations().last().and_then(|newest| store.loader(newest.number));
        progress.all.fetch_add(newest.map_or(0, |loader| loader.bytes()), Relaxed);
        stores.push(store);
    }
    let (waiting, opened) = (Mutex::new(stores), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                // The guard is gone before the store is used.
                let next = || waiting.lock().expect("nobody panics in here").pop();
                while let Some(store) = next() {
                    let dir = storage.dir.join("ids").join(store.partition().to_string());
                    let log = &storage.log[store.partition().0 as usize];
                    let partition = open(store, &mut on_disk(&dir), log, limits, budget, &progress.reading);
                    opened.lock().expect("nobody panics in here").push(partition);
                }
            });
        }
    });
    let opened = opened.into_inner().expect("nobody panicked in there");
    let mut opened = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    opened.sort_by_key(|opened| opened.writer.partition());
    Ok(opened)
}

/// Ids in a directory of the local disk.
fn on_disk(dir: &Path) -> impl FnMut(Kept<'_>) -> OpenedIds {
    move |kept: Kept<'_>| {
        let ids = IdStore::open_on_disk(dir, kept)?;
        let keeper = ids.keeper();
        Ok((Box::new(ids) as Box<dyn IdRuns>, keeper))
    }
}

/// A partition from its newest checkpoint that is good, or without any, over what the log has of it; `reading` follows it.
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
        match restore(partition, &mut loader, limits, budget, ids.as_mut()) {
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
mod tests {
    use std::io;

    use codec::{BodyBuilder, BodyView, EventRef};
    use engine::Capture;
    use id_store::{CheckpointFiles, NewRunFile, RunFile, RunFiles};
    use types::{Generation, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

    use super::*;

    const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };

    fn limits() -> Limits {
        Limits { recent_ids_max: 100, ..Limits::default() }
    }

    /// Over a log that has these offsets of both partitions.
    fn open_over(dir: &Path, log: Range<u64>, limits: Limits) -> Result<Vec<Opened>, HotTierError> {
        let log = vec![Offset(log.start)..Offset(log.end); 2];
        let storage = Storage { dir: dir.to_owned(), log };
        let progress = Progress::default();
        let opened = open_all(&storage, limits, &Arc::new(MemoryBudget::new(u64::MAX)), 2, &progress);
        assert!((0.0..=1.0).contains(&progress.share()));
        opened
    }

    fn open_both(dir: &Path) -> Vec<Opened> {
        open_over(dir, 0..1_000, limits()).expect("a good disk")
    }

    /// Applies the next record: 50 rows, of which the first was in the record before.
    fn apply(opened: &mut Opened) {
        let offset = opened.writer.next_offset();
        let mut builder = BodyBuilder::default();
        for n in offset.0 * 49..offset.0 * 49 + 50 {
            let (namespace, table, id) = ("n", "t", n.to_le_bytes());
            let (event_time, event_id) = (Some(n as i64), Some(id.as_slice()));
            let event = EventRef { namespace, table, event_time, event_id, dimensions: &[], metrics: &[] };
            builder.push(&event, Timestamp(0), 0).unwrap();
        }
        let body = builder.finish(false).unwrap();
        let header = body.header(KEY, SchemaVersion(1), opened.writer.partition(), None);
        let view = BodyView::parse(&body.bytes).unwrap();
        opened.writer.apply(offset, Timestamp(0), &header, &view).unwrap();
    }

    fn checkpoint(opened: &mut Opened) {
        let capture: Capture = opened.writer.capture();
        let runs: Vec<_> = capture.runs().collect();
        opened.keeper.retain(opened.store.next_generation(), runs.clone()).unwrap();
        opened.keeper.sync(&runs).unwrap();
        let written = opened.store.write(&capture, &mut |_| true).unwrap();
        if let Some(dropped) = written.dropped {
            opened.keeper.release(dropped);
        }
    }

    fn damage(dir: &Path, which: &str) {
        let names = std::fs::read_dir(dir.join("checkpoints/1")).unwrap().map(|entry| entry.unwrap().path());
        let mut manifests: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")).collect();
        manifests.sort();
        let path =
            if which == "newest" { manifests.pop() } else { manifests.into_iter().next() }.expect("there are some");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    /// Goal: a node goes on from the newest checkpoint that is good with all it knew, also of ids that are on disk alone; of
    /// two bad ones it takes nothing.
    #[test]
    fn the_newest_good_checkpoint_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open_both(dir.path());
        assert!(opened.iter().all(|opened| opened.writer.next_offset() == Offset::ZERO));
        for _ in 0..3 {
            opened.iter_mut().for_each(|opened| (0..4).for_each(|_| apply(opened)));
            opened.iter_mut().for_each(checkpoint);
        }
        for (which, from) in [("none", [12, 12]), ("newest", [12, 8]), ("oldest", [12, 0])] {
            drop(opened);
            if which != "none" {
                damage(dir.path(), which);
            }
            opened = open_both(dir.path());
            let offsets: Vec<_> = opened.iter().map(|opened| opened.writer.next_offset().0).collect();
            assert_eq!(offsets, from, "{which} is damaged");
            for opened in &mut opened {
                while opened.writer.next_offset() < Offset(14) {
                    apply(opened);
                }
                let status = opened.reader.table_status(KEY).unwrap();
                assert_eq!((status.live, status.duplicate), (14 * 49 + 1, 13), "{which} is damaged");
            }
        }
    }

    /// All files below a directory, with their bytes.
    fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                all.extend(files(&entry.path()));
            } else {
                all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
            }
        }
        all.sort();
        all
    }

    /// A directory with two checkpoints of each partition, the newest of which goes on at offset 8.
    fn checkpointed() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open_both(dir.path());
        for _ in 0..2 {
            opened.iter_mut().for_each(|opened| (0..4).for_each(|_| apply(opened)));
            opened.iter_mut().for_each(checkpoint);
        }
        dir
    }

    /// Goal: where all checkpoints are damaged and the log has let go of what they were made of, the start fails by name and
    /// nothing is removed; what was damaged in their packs for a while is used as soon as it is good again.
    #[test]
    fn the_only_copies_are_never_removed() {
        for what in ["checkpoint", "pack"] {
            let dir = checkpointed();
            let good = files(dir.path());
            for (path, bytes) in good.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == what)) {
                let mut bytes = bytes.clone();
                bytes.iter_mut().for_each(|byte| *byte ^= 1);
                std::fs::write(path, bytes).unwrap();
            }
            let damaged = files(dir.path());
            assert!(damaged != good, "{what}");
            let outcome = open_over(dir.path(), 4..1_000, limits());
            let refused = matches!(outcome, Err(HotTierError::NoGoodCheckpoint { start: Offset(4), .. }));
            assert!(refused, "{what}: {:?}", outcome.err());
            assert!(files(dir.path()) == damaged, "{what}: files changed");
            good.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
            let opened = open_over(dir.path(), 4..1_000, limits()).unwrap();
            assert!(opened.iter().all(|opened| opened.writer.next_offset() == Offset(8)), "{what}");
        }
    }

    /// Goal: checkpoints that are good, and not for this start (other sizes), are neither gone on without nor removed,
    /// whatever the log has.
    #[test]
    fn checkpoints_of_other_limits_stay() {
        let dir = checkpointed();
        let before = files(dir.path());
        let others = Limits { open_slots_max: limits().open_slots_max + 1, ..limits() };
        let outcome = open_over(dir.path(), 0..1_000, others);
        let refused = matches!(outcome, Err(HotTierError::Unread { source: RestoreError::Limits, .. }));
        assert!(refused, "{:?}", outcome.err());
        assert!(files(dir.path()) == before);
    }

    /// Goal: a checkpoint that is ahead of the log is refused with both offsets; one that is as far is good.
    #[test]
    fn a_checkpoint_ahead_of_the_log_is_refused() {
        let dir = checkpointed();
        let outcome = open_over(dir.path(), 0..7, limits()).err().expect("ahead");
        assert!(outcome.to_string().contains("offset 8") && outcome.to_string().contains("offset 7"), "{outcome}");
        assert!(open_over(dir.path(), 4..8, limits()).is_ok());
    }

    /// Goal: a stop ends the reading, between partitions and between the parts of one, as an error of its own; nothing is
    /// counted as no good or removed, and the next start has it all.
    #[test]
    fn a_stop_ends_the_reading() {
        let dir = checkpointed();
        let before = files(dir.path());
        for between_parts in [false, true] {
            let reading = Arc::<Reading>::default();
            let stop_then_open = |kept: Kept<'_>| {
                reading.stop();
                on_disk(&dir.path().join("ids/1"))(kept)
            };
            if !between_parts {
                reading.stop();
            }
            let disk = DiskFiles::open(&dir.path().join("checkpoints/1")).unwrap();
            let store = CheckpointStore::open(Arc::new(disk), PartitionId(1)).unwrap();
            let budget = Arc::new(MemoryBudget::new(u64::MAX));
            let log = Offset(4)..Offset(8);
            let outcome = open(store, &mut { stop_then_open }, &log, limits(), &budget, &reading);
            let stopped = matches!(outcome, Err(HotTierError::Stopped));
            assert!(stopped, "between parts: {between_parts}: {:?}", outcome.err());
            assert_eq!(reading.bytes(), 0);
            assert!(files(dir.path()) == before, "files changed");
        }
        let opened = open_both(dir.path());
        assert!(opened.iter().all(|opened| opened.writer.next_offset() == Offset(8)));
    }

    /// Files of which some cannot be opened for now.
    struct Away(DiskFiles, &'static str);

    impl RunFiles for Away {
        fn list(&self) -> io::Result<Vec<String>> {
            self.0.list()
        }

        fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
            self.0.create(name)
        }

        fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
            if name.ends_with(self.1) { Err(ErrorKind::Other.into()) } else { self.0.open(name) }
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn sync_names(&self) -> io::Result<()> {
            self.0.sync_names()
        }
    }

    impl CheckpointFiles for Away {
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn room(&self) -> io::Result<u64> {
            self.0.room()
        }
    }

    /// Goal: a disk that gives nothing for now does not cost the checkpoints, which the log alone may not make good: the
    /// start fails, and the next one has them with their ids.
    #[test]
    fn what_cannot_be_read_is_not_given_up() {
        let dir = checkpointed();
        for suffix in [".checkpoint", ".pack"] {
            let before = files(dir.path());
            let away = Away(DiskFiles::open(&dir.path().join("checkpoints/1")).unwrap(), suffix);
            let store = CheckpointStore::open(Arc::new(away), PartitionId(1)).unwrap();
            let budget = Arc::new(MemoryBudget::new(u64::MAX));
            let (ids_dir, log) = (dir.path().join("ids/1"), Offset(4)..Offset(8));
            let outcome = open(store, &mut on_disk(&ids_dir), &log, limits(), &budget, &Arc::default());
            let error = outcome.err().expect("nothing can be read");
            assert!(!matches!(error, HotTierError::NoGoodCheckpoint { .. }), "{suffix}: {error}");
            assert!(files(dir.path()) == before, "{suffix}: files changed");
        }
        let opened = open_both(dir.path());
        assert!(opened.iter().all(|opened| opened.writer.next_offset() == Offset(8)));
    }
}
