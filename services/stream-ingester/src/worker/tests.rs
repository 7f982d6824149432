//! Stops in the middle of work, on a log and a writer that give the signal themselves.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use codec::{BlockHeader, BlockKind, BodyBuilder, ControlRecord, EventRef};
use event_log::{Append, AppendError, Appended, Bounds, Durability, Load, LogLedger};
use types::{Generation, LogIdentity, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

use super::*;

const PARTITION: PartitionId = PartitionId(0);
/// Records that one poll gives.
const POLLED: u64 = 6;
/// What the log holds; its end is behind all that a test should read.
const RECORDS: u64 = 10 * POLLED;

/// A log of equal records. With `broken` each poll fails, and the first gives the signal.
#[derive(Clone, Default)]
struct FakeLog {
    polls: Arc<AtomicU64>,
    broken: Option<Shutdown>,
    start: u64,
    /// Offsets of damaged records, each with its header where that is intact.
    damaged: BTreeMap<u64, Option<BlockHeader>>,
}

struct FakeReader {
    log: FakeLog,
    next: u64,
}

fn record(offset: u64) -> Record {
    let event = EventRef {
        namespace: "n",
        table: "t",
        event_time: Some(1),
        event_id: None,
        dimensions: &[("d", "x")],
        metrics: &[],
    };
    let mut builder = BodyBuilder::default();
    builder.push(&event, Timestamp(0), 0).unwrap();
    let body = builder.finish(false).unwrap();
    let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
    let header = body.header(key, SchemaVersion(1), PARTITION, None);
    Record { offset: Offset(offset), append_time: Timestamp(0), header, body: Bytes::from(body.bytes.to_vec()) }
}

impl LogReader for FakeReader {
    fn position(&self) -> Offset {
        Offset(self.next)
    }

    fn poll(&mut self, _: usize, _: Duration, into: &mut Vec<Record>) -> Result<usize, ReadError> {
        let polls = self.log.polls.fetch_add(1, Ordering::Relaxed);
        if let Some(stop) = &self.log.broken {
            stop.trigger();
            return Err(if polls == 0 { ReadError::Io(io::Error::other("no disk")) } else { ReadError::Closed });
        }
        if self.next == RECORDS {
            return Err(ReadError::Closed);
        }
        let damaged = self.log.damaged.range(self.next..).next();
        let whole = damaged.map_or(RECORDS, |(offset, _)| *offset).min(self.next + POLLED) - self.next;
        if let Some((offset, header)) = damaged.filter(|_| whole == 0) {
            let header = header.map(Box::new);
            return Err(ReadError::Corrupt { partition: PARTITION, offset: Offset(*offset), header });
        }
        into.extend((self.next..self.next + whole).map(record));
        self.next += whole;
        Ok(whole as usize)
    }
}

#[async_trait]
impl EventLog for FakeLog {
    fn identity(&self) -> LogIdentity {
        LogIdentity(1)
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    async fn append(&self, _: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        Err(AppendError::Closed)
    }

    fn reader(&self, partition: PartitionId, from: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        if from.0 < self.start {
            return Err(ReadError::Gap { partition, wanted: from, start: Offset(self.start) });
        }
        if from.0 > RECORDS {
            return Err(ReadError::NoSuchOffset { partition, wanted: from });
        }
        Ok(Box::new(FakeReader { log: self.clone(), next: from.0 }))
    }

    fn bounds(&self, _: PartitionId) -> Bounds {
        Bounds { start: Offset::ZERO, end: Offset(RECORDS), last_append_time: Timestamp(0) }
    }

    fn append_time_of(&self, _: PartitionId, _: Offset) -> Option<Timestamp> {
        None
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Offset {
        Offset::ZERO
    }

    fn ledger(&self, partition: PartitionId, _: TableKey, wanted: Offset) -> Result<LogLedger, ReadError> {
        Err(ReadError::NoSuchOffset { partition, wanted })
    }

    fn appended_bytes(&self, _: PartitionId) -> u64 {
        0
    }

    fn load(&self) -> Load {
        Load { queued_bytes: 0, queued_bytes_max: 1 }
    }

    fn release_before(&self, _: PartitionId, _: Offset) {}

    async fn close(&self) {}
}

/// What a writer went on without: first and last offset, reason, whether the header was known.
type Passed = (u64, u64, GapReason, bool);

/// Counts what it applies or passes over, and gives the signal with the first; refuses the first record so many times.
struct FakeWriter {
    applied: Arc<AtomicU64>,
    refusals: u64,
    stop: Shutdown,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl PartitionWriter for FakeWriter {
    fn partition(&self) -> PartitionId {
        PARTITION
    }

    fn next_offset(&self) -> Offset {
        Offset(self.applied.load(Ordering::Relaxed))
    }

    fn apply(&mut self, offset: Offset, _: Timestamp, _: &BlockHeader, _: &[u8]) -> Result<(), NotApplied> {
        assert_eq!(offset, self.next_offset());
        self.stop.trigger();
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(NotApplied::TryAgain(types::ApiError::unavailable("away")));
        }
        self.applied.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn pass_over(&mut self, end: Offset, reason: GapReason, header: Option<&BlockHeader>) -> Result<(), NotApplied> {
        if header.is_some_and(ControlRecord::changes_table) {
            return Err(NotApplied::Stop(ApiError::internal("a change of a table")));
        }
        let first = self.applied.swap(end.0, Ordering::Relaxed);
        self.passed.lock().unwrap().push((first, end.0, reason, header.is_some()));
        Ok(())
    }

    fn housekeep(&mut self) {}

    fn due_at(&self) -> Option<Timestamp> {
        None
    }

    fn needed_from(&self) -> Offset {
        Offset::ZERO
    }

    fn recovered(&mut self) {}
}

/// A worker with batches of two, on a writer that refuses its first record so many times and then signals `applying`; and
/// the count of what is applied.
fn worker(log: FakeLog, refusals: u64, applying: Shutdown, stop: Shutdown) -> (Worker, Arc<AtomicU64>) {
    let applied = Arc::new(AtomicU64::new(0));
    let writer = FakeWriter { applied: Arc::clone(&applied), refusals, stop: applying, passed: Arc::default() };
    let means = Means {
        progress: Arc::new(PartitionProgress::of(&log, PARTITION)),
        log: Arc::new(log),
        health: Health::starting("test", "0"),
        stop,
    };
    (Worker::new(means, Box::new(writer), 2), applied)
}

/// Runs a worker; how it ended, what it applied, how often it asked the log.
fn run(refusals: u64, broken: bool) -> (Stopped, u64, u64) {
    let (stop, polls) = (Shutdown::new(), Arc::new(AtomicU64::new(0)));
    let log = FakeLog { polls: Arc::clone(&polls), broken: broken.then(|| stop.clone()), ..FakeLog::default() };
    let (worker, applied) = worker(log, refusals, stop.clone(), stop);
    (worker.run(), applied.load(Ordering::Relaxed), polls.load(Ordering::Relaxed))
}

/// Goal: a stop in the middle of a rebuild waits for the batch under way, and for no more of the log.
#[test]
fn a_stop_does_not_wait_for_the_rest_of_the_log() {
    let (stopped, applied, polls) = run(0, false);
    assert!(matches!(stopped, Stopped::Closed), "{stopped}");
    assert_eq!((applied, polls), (2, 1));
}

/// Goal: a log that cannot be read does not hold up a stop.
#[test]
fn a_stop_ends_the_wait_for_the_disk() {
    let (stopped, applied, polls) = run(0, true);
    assert!(matches!(stopped, Stopped::Closed), "{stopped}");
    assert_eq!((applied, polls), (0, 1));
}

/// Goal: a record that cannot be applied now does not hold up a stop.
#[test]
fn a_stop_ends_the_wait_for_a_record() {
    let (stopped, applied, _) = run(1, false);
    assert!(matches!(stopped, Stopped::Closed), "{stopped}");
    assert_eq!(applied, 0);
}

/// Goal: steps apply the log in order, a batch each; a record that has to wait is tried again, each time later, before
/// anything behind it, and what was applied before it in the batch is not applied again.
#[test]
fn steps_apply_in_order_and_say_how_long_to_wait() {
    let log = FakeLog::default();
    let (mut worker, applied) = worker(log, 2, Shutdown::new(), Shutdown::new());
    let mut waits = Vec::new();
    let stopped = loop {
        let before = applied.load(Ordering::Relaxed);
        match worker.step(Duration::ZERO) {
            Step::Worked => assert_eq!(applied.load(Ordering::Relaxed), before + 2),
            Step::Away(retry) => waits.push((before, retry)),
            Step::Idle => panic!("the log has no end but its close"),
            Step::Stopped(stopped) => break stopped,
        }
    };
    assert!(matches!(stopped, Stopped::Closed), "{stopped}");
    assert_eq!(waits, [(0, RETRY_MIN), (0, RETRY_MIN * 2)]);
    assert_eq!((applied.load(Ordering::Relaxed), worker.next_offset()), (RECORDS, Offset(RECORDS)));
}

/// Steps a worker over a log to its end; what it passed over, what it counted, and how it ended.
fn run_over(log: FakeLog) -> (Vec<Passed>, u64, Stopped) {
    let passed = Arc::<Mutex<Vec<Passed>>>::default();
    let progress = Arc::new(PartitionProgress::of(&log, PARTITION));
    let writer =
        FakeWriter { applied: Arc::default(), refusals: 0, stop: Shutdown::new(), passed: Arc::clone(&passed) };
    let means = Means {
        log: Arc::new(log),
        progress: Arc::clone(&progress),
        health: Health::starting("test", "0"),
        stop: Shutdown::new(),
    };
    let mut worker = Worker::new(means, Box::new(writer), 4);
    let stopped = loop {
        if let Step::Stopped(stopped) = worker.step(Duration::ZERO) {
            break stopped;
        }
    };
    let found = passed.lock().unwrap().clone();
    (found, progress.snapshot().refused, stopped)
}

/// Goal: what the log lost or holds damaged becomes gaps, with the header where there is one, and the partition applies all
/// the rest behind it.
#[test]
fn what_cannot_be_read_is_passed_over_and_told() {
    let header = record(0).header;
    let log = FakeLog { start: 3, damaged: [(7, None), (8, Some(header)), (20, None)].into(), ..FakeLog::default() };
    let (passed, counted, stopped) = run_over(log);
    let damaged = GapReason::Damaged;
    let expected =
        [(0, 3, GapReason::Gone, false), (7, 8, damaged, false), (8, 9, damaged, true), (20, 21, damaged, false)];
    assert_eq!((passed.as_slice(), counted), (&expected[..], 4));
    assert!(matches!(stopped, Stopped::Closed), "{stopped}");
}

/// Goal: a change of a table that cannot be read ends the partition there: what follows hangs on it.
#[test]
fn a_lost_change_of_a_table_stops_the_partition() {
    let control = BlockHeader { kind: BlockKind::Control, ..record(0).header };
    let (passed, _, stopped) = run_over(FakeLog { damaged: [(2, Some(control))].into(), ..FakeLog::default() });
    assert_eq!(passed, []);
    assert!(matches!(stopped, Stopped::Unreadable(_)), "{stopped}");
}

/// Goal: a partition whose state is ahead of its log stops without ever having recovered: nothing that is appended at the
/// offsets between would be applied.
#[test]
fn a_state_ahead_of_the_log_is_never_recovered() {
    let log = FakeLog::default();
    let progress = Arc::new(PartitionProgress::of(&log, PARTITION));
    let applied = Arc::new(AtomicU64::new(RECORDS + 1));
    let writer = FakeWriter { applied, refusals: 0, stop: Shutdown::new(), passed: Arc::default() };
    let means = Means {
        log: Arc::new(log),
        progress: Arc::clone(&progress),
        health: Health::starting("test", "0"),
        stop: Shutdown::new(),
    };
    let stopped = Worker::new(means, Box::new(writer), 2).run();
    assert!(matches!(stopped, Stopped::Read(ReadError::NoSuchOffset { .. })), "{stopped}");
    assert!(!progress.snapshot().recovered);
}
