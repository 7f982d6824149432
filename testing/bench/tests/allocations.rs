//! How often a batch of columns asks for memory on its way from its bytes to the rows that readers see: as the gateway checks
//! it, the log writes and gives it, and the partition judges its ids and appends it. The network is left out, and what is done
//! beside the writer.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future as _,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use codec::{Body, BodyBuilder, BodyView, EventRef, sole_partition};
use engine::{HeapRuns, Limits, MemoryBudget, Writer, partition_with_runs};
use event_log::{
    Append, DiskFiles, Driver, EmbeddedConfig, EmbeddedLog, EventLog as _, LogReader, Record, Step, SystemClock,
};
use types::{
    Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId, Timestamp,
};

/// Of this many rows and of [`LARGE_ROWS`]: what grows with rows is seen by the difference.
const ROWS: u64 = 1_000;
const LARGE_ROWS: u64 = 4_000;
/// Rows before anything is counted: the ids of a run have left memory by then, and filters know those that come.
const ROWS_BEFORE: u64 = 1_200_000;
const ROWS_COUNTED: u64 = 200_000;
/// What a batch asks for at most, on average, whatever its rows: its views and what the log and its reader hand over; all else
/// is there from the batch before, or for thousands of batches. (20 with 1,000 rows, 38 with 4,000, which fill segments and
/// tables of ids sooner.)
const ALLOCATIONS_PER_BATCH_MAX: f64 = 60.0;
const KEY: TableKey = TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) };

/// The system's allocator, which counts by thread how often it is asked for memory.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Without a value only while the thread ends, when nobody looks at it any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: passed on to the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: passed on to the caller.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The stages, all driven by this thread.
struct Way {
    table: Table,
    log: EmbeddedLog,
    driver: Driver,
    reader: Box<dyn LogReader>,
    records: Vec<Record>,
    writer: Writer,
    rows: u64,
    _dir: tempfile::TempDir,
}

impl Way {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the log");
        let config = EmbeddedConfig::new(dir.path(), 1);
        let opened = EmbeddedLog::open_driven(config, Arc::new(DiskFiles), Arc::new(SystemClock));
        let (log, driver) = opened.expect("a new log");
        let reader = log.reader(PartitionId(0), Offset::ZERO).expect("its first offset");
        let budget = Arc::new(MemoryBudget::new(4 << 30));
        let runs = Box::<HeapRuns>::default();
        let (writer, _) = partition_with_runs(PartitionId(0), Offset::ZERO, Limits::default(), budget, runs);
        let table = Table {
            key: KEY,
            name: TableName::new("n", "t"),
            partitions: vec![PartitionId(0)],
            partition_by: Some("user".to_owned()),
            partition_seed: 1,
            identity_seed: 42,
            schema: Schema::default(),
            settings: TableSettings::default(),
        };
        Self { table, log, driver, reader, records: Vec::new(), writer, rows: 0, _dir: dir }
    }

    /// A batch of events with ids that never came before.
    fn batch(&mut self, rows: u64) -> Bytes {
        let mut builder = BodyBuilder::default();
        for row in 0..rows {
            let n = self.rows + row;
            let (region, user) = (format!("region-{}", n % 8), format!("user-{}", n * 7 % 5_000));
            let id = (u128::from(n) + 1).to_le_bytes();
            let event = EventRef {
                namespace: "n",
                table: "t",
                event_time: Some(1_700_000_000_000_000 + n as i64 * 10),
                event_id: Some(&id),
                dimensions: &[("region", &region), ("user", &user)],
                metrics: &[("revenue", n as f64)],
            };
            builder.push(&event, Timestamp(0), row as u32).expect("a small batch");
        }
        self.rows += rows;
        builder.finish(false).expect("it has rows").bytes
    }

    /// Brings a batch from its bytes to the rows that readers see.
    fn take(&mut self, bytes: &Bytes) {
        let view = BodyView::parse(bytes).expect("a good body");
        let partition = sole_partition(&self.table, &view, None, 0).expect("there is one alone");
        let (min, max) = view.times().min_max();
        let rows = view.rows() as u32;
        let (time_min, time_max) = (Timestamp(min), Timestamp(max));
        let body = Body { bytes: bytes.clone(), rows, time_min, time_max, times_given: false };
        let header = body.header(KEY, SchemaVersion(1), partition, None);
        let mut appended = pin!(self.log.append(vec![Append { header, body: body.bytes }]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(appended.as_mut().poll(&mut context).is_pending(), "nothing is durable yet");
        assert_eq!(self.driver.step(), Step::Worked);
        assert!(matches!(appended.poll(&mut context), Poll::Ready(Ok(_))), "the disk has room");
        let taken = self.reader.poll(4 << 20, Duration::ZERO, &mut self.records);
        assert_eq!(taken.expect("the tail has it"), 1);
        for Record { offset, append_time, header, body } in self.records.drain(..) {
            let view = BodyView::parse_trusted(&body).expect("what was checked");
            let applied = self.writer.apply(offset, append_time, &header, &view).expect("the next record");
            assert_eq!(applied.stored, u64::from(rows));
        }
        self.writer.housekeep();
        self.log.release_before(partition, self.writer.next_offset());
    }

    /// How often a batch of so many rows asks for memory, on average.
    fn allocations(&mut self, rows: u64) -> f64 {
        let batches = ROWS_COUNTED / rows;
        let mut asked = 0;
        for _ in 0..batches {
            let bytes = self.batch(rows);
            let before = ASKED.get();
            self.take(&bytes);
            asked += ASKED.get() - before;
        }
        asked as f64 / batches as f64
    }
}

/// Goal: in the steady state a batch of columns with ids asks for memory a few times, and an event never.
#[test]
fn batches_ask_for_little_memory() {
    let mut way = Way::new();
    while way.rows < ROWS_BEFORE {
        let bytes = way.batch(LARGE_ROWS);
        way.take(&bytes);
    }
    let (small, large) = (way.allocations(ROWS), way.allocations(LARGE_ROWS));
    assert!(small <= ALLOCATIONS_PER_BATCH_MAX, "{small} a batch of {ROWS} rows");
    assert!(large <= ALLOCATIONS_PER_BATCH_MAX, "{large} a batch of {LARGE_ROWS} rows");
}
