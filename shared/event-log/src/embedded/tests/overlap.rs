//! A group is written while the one before it is synced, and depends on it.

use std::{
    any::Any,
    io::{self, IoSlice},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use tokio::task::JoinHandle;
use types::{Offset, PartitionId};

use super::{
    super::{
        Recovery,
        frame::stored_bytes,
        queue::{Queue, Request, Work},
        segment::records_at,
    },
    DIR, SEGMENT_BYTES, config, open, ticking_clock,
};
use crate::{
    Append, AppendError, Appended, EmbeddedLog, EventLog,
    conformance::{block, read_all},
    faults::MemoryFiles,
    files::{FileSystem, LogFile, OpenMode},
};

/// Bytes of a body that is written early, and of one that waits.
const LARGE: usize = 2_000;
const SMALL: usize = 100;

/// Where syncs of files wait to be let through.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    /// Syncs that are let through a shut gate.
    let_through: usize,
    /// Whether the next sync that passes fails; only that.
    fails: bool,
    /// Syncs that wait, or have waited.
    arrived: usize,
    /// Writes that were done.
    writes: usize,
}

impl Gate {
    fn set(&self, shut: bool, fails: bool) {
        let mut state = self.state.lock().unwrap();
        (state.shut, state.fails) = (shut, fails);
        self.changed.notify_all();
    }

    fn let_one_through(&self) {
        self.state.lock().unwrap().let_through += 1;
        self.changed.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.arrived += usize::from(state.shut);
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.shut && state.let_through == 0).unwrap();
        state.let_through = state.let_through.saturating_sub(1);
        if std::mem::take(&mut state.fails) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }

    /// Waits for what is to come about; panics where it does not.
    fn until(&self, what: impl Fn(&GateState) -> bool) -> MutexGuard<'_, GateState> {
        let state = self.state.lock().unwrap();
        let (mut state, timeout) =
            self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| !what(state)).unwrap();
        if timeout.timed_out() {
            // Who waits at the gate would keep the test from ending.
            state.shut = false;
            self.changed.notify_all();
            drop(state);
            panic!("it never came about");
        }
        state
    }
}

/// A file system whose syncs wait at a gate.
struct Gated(MemoryFiles, Arc<Gate>);
struct GatedFile(Arc<dyn LogFile>, Arc<Gate>);

impl FileSystem for Gated {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(GatedFile(self.0.open(path, mode)?, self.1.clone())))
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

impl LogFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(into, position)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let written = self.0.write_at(parts, position);
        self.1.state.lock().unwrap().writes += 1;
        self.1.changed.notify_all();
        written
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass()?;
        self.0.sync_data()
    }
}

/// A log at a gate; it has a file, and one record of partition 0 in it.
async fn begun(files: &MemoryFiles) -> (Arc<EmbeddedLog>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let gated = Arc::new(Gated(files.clone(), gate.clone()));
    let log = Arc::new(EmbeddedLog::open(config(Path::new(DIR)), gated, Arc::new(ticking_clock())).unwrap());
    log.append(vec![block(0, 0, 1, 0, SMALL)]).await.unwrap();
    gate.state.lock().unwrap().writes = 0;
    gate.set(true, false);
    (log, gate)
}

type Call = JoinHandle<Result<Vec<Appended>, AppendError>>;

fn call(log: &Arc<EmbeddedLog>, append: Append) -> Call {
    let log = log.clone();
    tokio::spawn(async move { log.append(vec![append]).await })
}

/// Appends a first block, waits until its sync has begun, then a second, and waits until that is written.
fn two_under_way(log: &Arc<EmbeddedLog>, gate: &Gate) -> [Call; 2] {
    let first = call(log, block(0, 0, 2, 1, LARGE));
    drop(gate.until(|state| state.arrived == 1));
    let second = call(log, block(0, 0, 4, 2, LARGE));
    drop(gate.until(|state| state.writes == 2));
    [first, second]
}

/// Of every record of partition 0, the rows up to it.
fn rows(log: &EmbeddedLog) -> Vec<u64> {
    read_all(log, 0, Offset::ZERO).iter().map(|record| record.header.appender_rows).collect()
}

/// Goal: a large group is written while the one before it is synced; neither is acked or to be read before its own sync, the
/// second has its sync after the first, and what each is given follows what was before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_written_while_another_is_synced() {
    let files = MemoryFiles::new(1);
    let (log, gate) = begun(&files).await;
    let [first, second] = two_under_way(&log, &gate);
    assert_eq!((gate.until(|_| true).arrived, log.bounds(PartitionId(0)).end), (1, Offset(1)));
    assert!(!first.is_finished() && !second.is_finished());
    gate.set(false, false);
    for (call, offset) in [(first, 1), (second, 2)] {
        assert_eq!(call.await.unwrap().unwrap()[0].offset, Offset(offset));
    }
    assert_eq!(rows(&log), [1, 3, 7]);
    assert_eq!(log.load().queued_bytes, 0);
    drop(log);
    assert_eq!(rows(&open(&files).unwrap()), [1, 3, 7]);
}

/// Goal: during a sync what is small stays in the queue, until the sync is done or enough has come; each group counts until
/// it is done itself.
#[test]
fn small_groups_wait_for_a_sync() {
    let queue = Queue::new(1 << 20, 5_000);
    let push = |len| {
        let (ack, _) = tokio::sync::oneshot::channel();
        queue.push(Request { blocks: vec![block(0, 0, 1, 1, len)], ack }).unwrap();
    };
    let taken = || match queue.try_take(1 << 20) {
        Some(Work::Group(requests)) => requests.len(),
        other => panic!("{other:?}"),
    };
    push(LARGE);
    assert_eq!(taken(), 1);
    let syncing = queue.syncing();
    push(LARGE);
    push(LARGE);
    assert!(queue.try_take(1 << 20).is_none());
    push(LARGE);
    assert_eq!(taken(), 3);
    push(SMALL);
    assert!(queue.try_take(1 << 20).is_none());
    drop(syncing);
    assert_eq!(taken(), 1);
    let [large, small] = [LARGE, SMALL].map(|len| stored_bytes(len as u32));
    assert_eq!(queue.load().queued_bytes, 4 * large + small);
    queue.done(large);
    assert_eq!(queue.load().queued_bytes, 3 * large + small);
}

/// Goal: where a sync fails, what was written behind it meanwhile fails too, for the file has a hole before it. Neither
/// leaves a trace: the next group has their offsets and their row counts, in this life and after the power failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_meanwhile_fails_with_a_sync() {
    for seed in 0..10 {
        let mut files = MemoryFiles::new(seed);
        let (log, gate) = begun(&files).await;
        let calls = two_under_way(&log, &gate);
        gate.set(false, true);
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(AppendError::Unavailable(_))));
        }
        gate.set(false, false);
        let next = log.append(vec![block(0, 0, 8, 3, LARGE)]).await.unwrap();
        assert_eq!(next[0].offset, Offset(1));
        let seen = |log: &EmbeddedLog| -> Vec<_> {
            let records = read_all(log, 0, Offset::ZERO);
            records.into_iter().map(|record| (record.header.appender_rows, record.body)).collect()
        };
        let shown = seen(&log);
        assert_eq!(shown.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(), [1, 9]);
        assert_eq!(log.load().queued_bytes, 0);
        files.cut_power();
        drop(log);
        assert_eq!(seen(&open(&files).unwrap()), shown);
    }
}

/// Goal: a group that needs a new file waits for the sync of the one before it, and where that fails goes on from what is
/// durable, and not from what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_begins_where_what_is_durable_ends() {
    for fails in [false, true] {
        let mut files = MemoryFiles::new(1);
        let (log, gate) = begun(&files).await;
        let first = call(&log, block(0, 0, 2, 1, LARGE));
        drop(gate.until(|state| state.arrived == 1));
        let second = call(&log, block(0, 0, 4, 2, SEGMENT_BYTES as usize));
        gate.set(false, fails);
        assert_eq!(first.await.unwrap().is_err(), fails);
        let expected = if fails { vec![1, 5] } else { vec![1, 3, 7] };
        assert_eq!(second.await.unwrap().unwrap()[0].offset, Offset(expected.len() as u64 - 1));
        files.cut_power();
        drop(log);
        assert_eq!(rows(&open(&files).unwrap()), expected);
    }
}

/// Goal: the power fails while two groups are under way, whatever part of either survives: a start does not take the hole
/// that the first leaves for damage of what was synced, though the second may be whole behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_before_a_group_that_was_never_synced_is_no_damage() {
    let mut whole = 0;
    for seed in 0..40 {
        let mut files = MemoryFiles::new(seed);
        let (log, gate) = begun(&files).await;
        let calls = two_under_way(&log, &gate);
        files.cut_power();
        gate.set(false, false);
        for call in calls {
            assert!(call.await.unwrap().is_err());
        }
        drop(log);
        let log = open(&files).unwrap();
        assert_eq!(log.recovery().damaged_records, 0);
        let found = rows(&log);
        assert_eq!(found, [1, 3, 7][..found.len()]);
        whole += usize::from(found.len() == 3);
    }
    assert!(whole < 40, "nothing was ever lost");
}

/// Goal: though a sync is always in progress, each group says that those up to the last but one were durable: damage of one of these is
/// damage of one record after a crash, and not the end of all that was acked since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_shows_though_syncs_never_pause() {
    let mut files = MemoryFiles::new(1);
    let (log, gate) = begun(&files).await;
    let mut calls = Vec::from(two_under_way(&log, &gate));
    for group in 3..8 {
        gate.let_one_through();
        drop(gate.until(|state| state.arrived == group - 1));
        calls.push(call(&log, block(0, 0, 1, group as u64, LARGE)));
        drop(gate.until(|state| state.writes == group));
    }
    gate.set(false, false);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    files.kill();
    drop(log);
    let path = Path::new(DIR).join("00000000000000000001.log");
    // In the body of the third group, of seven.
    let at = records_at(3) + stored_bytes(SMALL as u32) + 2 * stored_bytes(LARGE as u32) + 1_000;
    files.damage(&path, |bytes| bytes[at as usize] ^= 1);
    let log = open(&files).unwrap();
    let Recovery { damaged_records, cut_bytes, .. } = log.recovery();
    assert_eq!((damaged_records, cut_bytes), (1, 0));
    assert_eq!(log.bounds(PartitionId(0)).end, Offset(8));
}

/// Goal: a group that cannot be written does no harm to the one before it, whose sync is in progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_harms_nothing_before_it() {
    use crate::faults::{Call as Operation, Outcome, no_faults};
    let files = MemoryFiles::new(1);
    let (log, gate) = begun(&files).await;
    let first = call(&log, block(0, 0, 2, 1, LARGE));
    drop(gate.until(|state| state.arrived == 1));
    files.set_plan(Box::new(|operation, _| match operation {
        Operation::Write => Outcome::Fail(io::ErrorKind::StorageFull),
        _ => Outcome::Done,
    }));
    let second = call(&log, block(0, 0, 4, 2, LARGE));
    drop(gate.until(|state| state.writes == 2));
    files.set_plan(no_faults());
    gate.set(false, false);
    assert_eq!(first.await.unwrap().unwrap()[0].offset, Offset(1));
    assert!(second.await.unwrap().is_err());
    assert_eq!(log.append(vec![block(0, 0, 8, 3, LARGE)]).await.unwrap()[0].offset, Offset(2));
    drop(log);
    assert_eq!(read_all(&open(&files).unwrap(), 0, Offset::ZERO).len(), 3);
}

/// Goal: a log that is closed while one group is synced and another waits for its turn makes both durable first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_both() {
    let files = MemoryFiles::new(1);
    let (log, gate) = begun(&files).await;
    let calls = two_under_way(&log, &gate);
    let closing = {
        let log = log.clone();
        tokio::spawn(async move { log.close().await })
    };
    gate.set(false, false);
    closing.await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(read_all(&open(&files).unwrap(), 0, Offset::ZERO).len(), 3);
}
