//! Starts from checkpoints that are good, damaged, of other sizes or of another log.

use std::io;

use codec::{BodyBuilder, BodyView, EventRef};
use engine::horizon_alone;
use id_store::{CheckpointFiles, Lent, NewRunFile, RunFile, RunFiles};
use types::{
    Generation, Interval, Rollup, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId,
    Timestamp,
};

use super::*;

pub(crate) const LOG: LogIdentity = LogIdentity(5);
pub(crate) const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };

fn limits() -> Limits {
    Limits { recent_ids_max: 100, ..Limits::default() }
}

/// Over a log that has these offsets of both partitions.
fn open_over(dir: &Path, log: Range<u64>, limits: Limits) -> Result<Vec<Opened>, HotTierError> {
    open_beside(dir, LOG, log, limits)
}

fn open_beside(
    dir: &Path,
    identity: LogIdentity,
    log: Range<u64>,
    limits: Limits,
) -> Result<Vec<Opened>, HotTierError> {
    let log = Offset(log.start)..Offset(log.end);
    let log = [0, 1].map(|partition| (PartitionId(partition), log.clone())).into();
    let storage = Storage { dir: dir.to_owned(), identity, log };
    let progress = Progress::default();
    let opened = open_all(&storage, limits, &Arc::new(MemoryBudget::new(u64::MAX)), 2, &progress);
    assert!((0.0..=1.0).contains(&progress.share()));
    opened
}

pub(crate) fn open_both(dir: &Path) -> Vec<Opened> {
    open_over(dir, 0..1_000, limits()).expect("a good disk")
}

/// Applies the next record: 50 rows, of which the first was in the record before.
pub(crate) fn apply(opened: &mut Opened) {
    apply_every(1, opened);
}

/// As [`apply`], with so much time between two rows.
fn apply_every(step_us: i64, opened: &mut Opened) {
    let offset = opened.writer.next_offset();
    let mut builder = BodyBuilder::default();
    for n in offset.0 * 49..offset.0 * 49 + 50 {
        let (namespace, table, id) = ("n", "t", n.to_le_bytes());
        let (event_time, event_id) = (Some(n as i64 * step_us), Some(id.as_slice()));
        let event = EventRef { namespace, table, event_time, event_id, dimensions: &[], metrics: &[] };
        builder.push(&event, Timestamp(0), 0).unwrap();
    }
    let body = builder.finish(false).unwrap();
    let header = body.header(KEY, SchemaVersion(1), opened.writer.partition(), None);
    let view = BodyView::parse(&body.bytes).unwrap();
    opened.writer.apply(offset, Timestamp(0), &header, &view).unwrap();
}

pub(crate) fn checkpoint(opened: &mut Opened) {
    let state = Lent::new(opened.writer.capture());
    opened.keeper.retain(opened.store.next_generation(), state.runs().to_vec()).unwrap();
    opened.keeper.sync(state.runs()).unwrap();
    let written = opened.store.write(&state, &mut |_| true).unwrap();
    if let Some(dropped) = written.dropped {
        opened.keeper.release(dropped);
    }
}

fn damage(dir: &Path, which: &str) {
    let names = std::fs::read_dir(dir.join("checkpoints/1")).unwrap().map(|entry| entry.unwrap().path());
    let mut manifests: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")).collect();
    manifests.sort();
    let path = if which == "newest" { manifests.pop() } else { manifests.into_iter().next() }.expect("there are some");
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

/// Goal: checkpoints beside another log than they were made of end the start, though their offsets would do: it says
/// where they lie and of which logs, and changes nothing, so that they are good beside their own.
#[test]
fn checkpoints_beside_another_log_are_refused() {
    let dir = checkpointed();
    let before = files(dir.path());
    let outcome = open_beside(dir.path(), LogIdentity(6), 0..1_000, limits()).err().expect("of another log");
    let HotTierError::OtherLog { source, .. } = &outcome else { panic!("{outcome}") };
    let both = [LOG, LogIdentity(6)].map(|log| source.to_string().contains(&log.to_string()));
    assert!(outcome.to_string().contains(dir.path().to_str().unwrap()) && both == [true; 2], "{outcome}: {source}");
    assert!(files(dir.path()) == before, "files changed");
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
        let store = CheckpointStore::open(Arc::new(disk), PartitionId(1), LOG).unwrap();
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let log = Offset(4)..Offset(8);
        let mut all = horizon_alone(&budget);
        let outcome = open(store, &mut { stop_then_open }, &log, limits(), &budget, &reading, &mut all);
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
        let store = CheckpointStore::open(Arc::new(away), PartitionId(1), LOG).unwrap();
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (ids_dir, log) = (dir.path().join("ids/1"), Offset(4)..Offset(8));
        let mut all = horizon_alone(&budget);
        let outcome = open(store, &mut on_disk(&ids_dir), &log, limits(), &budget, &Arc::default(), &mut all);
        let error = outcome.err().expect("nothing can be read");
        assert!(!matches!(error, HotTierError::NoGoodCheckpoint { .. }), "{suffix}: {error}");
        assert!(files(dir.path()) == before, "{suffix}: files changed");
    }
    let opened = open_both(dir.path());
    assert!(opened.iter().all(|opened| opened.writer.next_offset() == Offset(8)));
}

/// A table whose rollup counts all its rows, and outlives them or not.
fn counted(keep_us: Option<i64>) -> Table {
    let interval = Interval::from_micros(86_400_000_000).unwrap();
    let (group_by, distinct, percentiles, top) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rollups = vec![Rollup { interval, group_by, distinct, percentiles, top, keep_us }];
    Table {
        key: KEY,
        name: TableName::new("n", "t"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings { rollups, ..TableSettings::default() },
    }
}

/// Rows of the segments that are full, and between two rows of each partition: all cover the same time.
const SEGMENT_ROWS: usize = 64;
const STEPS: [i64; 4] = [1, 2, 5, 20];

/// Opens partitions of [`STEPS`] with so much memory.
fn open_small(dir: &Path, limit: u64) -> (Vec<Opened>, Arc<MemoryBudget>) {
    let limits =
        Limits { segment_rows_first: SEGMENT_ROWS, segment_rows_max: SEGMENT_ROWS, open_slots_max: 1, ..limits() };
    let log = (0..STEPS.len() as u32).map(|partition| (PartitionId(partition), Offset(0)..Offset(1_000))).collect();
    let storage = Storage { dir: dir.to_owned(), identity: LOG, log };
    let budget = Arc::new(MemoryBudget::new(limit));
    let opened = open_all(&storage, limits, &budget, 2, &Progress::default()).expect("a good disk");
    (opened, budget)
}

/// Fills partitions of uneven sizes with rows of the same time, writes checkpoints, and says how much memory these take.
fn fill_unevenly(dir: &Path, rollup: Option<Option<i64>>) -> u64 {
    let (mut opened, _) = open_small(dir, u64::MAX);
    for (opened, step) in opened.iter_mut().zip(STEPS) {
        rollup.iter().for_each(|keep_us| opened.writer.configure(Offset(0), Timestamp(0), &counted(*keep_us)).unwrap());
        (0..400 / step).for_each(|_| apply_every(step, opened));
        checkpoint(opened);
    }
    drop(opened);
    let (_opened, budget) = open_small(dir, u64::MAX);
    budget.used()
}

/// Goal: on a node whose memory became smaller the oldest rows of all partitions stay out, however uneven these are, and not
/// all of some: what is left of each begins at about the same time, and is about what there is room for. Rows that stay out
/// count as evicted, and a rollup that outlives rows has them.
#[test]
fn less_memory_costs_all_partitions_their_oldest() {
    for rollup in [None, Some(None), Some(Some(i64::MAX / 4))] {
        let dir = tempfile::tempdir().unwrap();
        let used = fill_unevenly(dir.path(), rollup);
        let (opened, budget) = open_small(dir.path(), used * 3 / 4);
        let (used, limit) = (budget.used(), budget.limit());
        assert!((limit * 7 / 8..=limit).contains(&used), "{used} of {limit} with {rollup:?}");
        let mut horizons = Vec::new();
        for (opened, step) in opened.iter().zip(STEPS) {
            let (status, snapshot) = (opened.reader.table_status(KEY).unwrap(), opened.reader.snapshot(KEY).unwrap());
            let all = 400 / step as u64 * 49 + 1;
            assert_eq!((snapshot.rows() as u64, status.live + status.evicted), (status.live, all));
            assert!(status.live >= all / 4, "{} of {all}", status.live);
            horizons.extend(snapshot.evicted_before());
            if let Some(Some(_)) = rollup {
                let kept = snapshot.rollups()[0].history(i64::MIN..i64::MAX).flat_map(|part| part.rows()).sum::<u64>();
                assert_eq!(kept, status.evicted);
            }
        }
        assert!(!horizons.is_empty());
        let spread = horizons.iter().max().unwrap().0 - horizons.iter().min().unwrap().0;
        assert!(spread <= SEGMENT_ROWS as i64 * STEPS[3], "no further apart than rows of a segment: {horizons:?}");
    }
}

/// Goal: where not even the newest sealed rows have room, none comes back; what is open does, nothing is lost to the counts,
/// and the node goes on.
#[test]
fn memory_for_no_sealed_rows_is_enough_to_open() {
    let dir = tempfile::tempdir().unwrap();
    fill_unevenly(dir.path(), Some(Some(i64::MAX / 4)));
    let (mut opened, _) = open_small(dir.path(), 1);
    for (opened, step) in opened.iter_mut().zip(STEPS) {
        let all = |records: i64| records as u64 * 49 + 1;
        let status = opened.reader.table_status(KEY).unwrap();
        assert_eq!(status.live + status.evicted, all(400 / step));
        assert!(status.live <= SEGMENT_ROWS as u64 && opened.reader.snapshot(KEY).unwrap().segments().len() <= 1);
        apply_every(step, opened);
        let status = opened.reader.table_status(KEY).unwrap();
        assert_eq!(status.live + status.evicted, all(400 / step + 1));
    }
}
