//! Millions of distinct ids through a partition with its runs on disk: none is dropped, and all that come again are found.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use engine::{
    FrozenIds, IdRuns, Limits, MemoryBudget, PinnedRun, RunFault, RunId, RunSet, SetUsage, partition_with_runs,
};
use id_store::{IdStore, Kept};
use types::{
    Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId, Timestamp,
};

const ROWS: u64 = 1_000;
const ID_BYTES: usize = 16;
const WINDOW_US: i64 = 600_000_000;
const BUDGET_BYTES: u64 = 2 << 30;
const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };

/// Without order, different for different `n`, and never zeroes alone.
fn id(n: u64) -> [u8; ID_BYTES] {
    let n = n + 1;
    let mixed = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (u128::from(mixed ^ mixed >> 29) << 64 | u128::from(n)).to_le_bytes()
}

/// A block of events without columns, and where its ids stand.
fn template() -> (BlockHeader, Vec<u8>, usize) {
    let mut builder = BodyBuilder::default();
    for n in 0..ROWS {
        let (id, dimensions, metrics) = (id(n), &[], &[]);
        let (namespace, table, event_time) = ("n", "t", Some(0));
        let event = EventRef { namespace, table, event_time, event_id: Some(&id), dimensions, metrics };
        builder.push(&event, Timestamp(0), n as u32).expect("a small block");
    }
    let body = builder.finish(false).expect("not empty");
    let header = body.header(KEY, SchemaVersion(1), PartitionId(0), None);
    let at = body.bytes.windows(ID_BYTES).position(|bytes| bytes == id(0)).expect("the first id");
    (header, body.bytes.to_vec(), at)
}

/// The store, which counts what it is asked.
struct Counted {
    store: IdStore,
    asked: Arc<AtomicU64>,
}

impl IdRuns for Counted {
    fn new_set(&mut self) -> RunSet {
        self.store.new_set()
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        self.store.add(set, ids);
    }

    fn seal(&mut self, set: RunSet) {
        self.store.seal(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        self.asked.fetch_add(suspects.len() as u64, Relaxed);
        self.store.confirm(set, suspects, found)
    }

    fn drop_set(&mut self, set: RunSet) {
        self.store.drop_set(set);
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.store.usage(set)
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        self.store.pin(set)
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        self.store.restore_set(runs)
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.store.scan(set, each)
    }
}

/// Sends `ids` distinct ids in one window of append time, then `repeated` of them again: those sent last, and those sent
/// first.
#[expect(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
fn send(ids: u64, repeated: u64) {
    let dir = tempfile::tempdir().expect("a directory for runs");
    let asked = Arc::<AtomicU64>::default();
    let store = IdStore::open_on_disk(dir.path(), Kept::Named(&[])).expect("an empty directory");
    let runs = Box::new(Counted { store, asked: Arc::clone(&asked) });
    let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
    let limits = Limits::default();
    let (mut writer, reader) = partition_with_runs(PartitionId(0), Offset::ZERO, limits, Arc::clone(&budget), runs);
    let settings = TableSettings { dedup_window_us: WINDOW_US, hot_window_us: Some(1), ..TableSettings::default() };
    let table = Table {
        key: KEY,
        name: TableName::new("n", "t"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 42,
        schema: Schema::default(),
        settings,
    };
    writer.configure(Offset::ZERO, Timestamp(0), &table).expect("in order");
    let (header, mut body, at) = template();
    let mut apply = |now: Timestamp, first: u64| {
        for (n, bytes) in (first..first + ROWS).zip(body[at..].chunks_exact_mut(ID_BYTES)) {
            bytes.copy_from_slice(&id(n));
        }
        let view = BodyView::parse_trusted(&body).expect("a good body");
        let applied = writer.apply(writer.next_offset(), now, &header, &view).expect("a good block");
        writer.housekeep();
        applied.duplicate
    };
    // An id of append time 0 is promised to be known until the end of the window.
    let now = |n: u64| Timestamp((n as f64 / ids as f64 * WINDOW_US as f64) as i64);
    for first in (0..ids).step_by(ROWS as usize) {
        assert_eq!(apply(now(first), first), 0, "a distinct id was dropped");
    }
    let suspected = asked.load(Relaxed);
    let remembered = budget.identities();
    let starts = (0..repeated / 2).step_by(ROWS as usize);
    for start in starts {
        assert_eq!(apply(now(ids), start), ROWS, "from the far end of the window");
        assert_eq!(apply(now(ids), ids - ROWS - start), ROWS, "from nearby");
    }
    let status = reader.table_status(KEY).expect("it was configured");
    assert_eq!((status.live + status.evicted, status.duplicate, status.conflict), (ids, repeated, 0));
    let (each, per_million) = (remembered as f64 / ids as f64, suspected as f64 * 1e6 / ids as f64);
    println!("{ids} ids: {each:.2} bytes of memory an id, {per_million:.1} looks into runs a million unique ids");
    assert!(per_million <= 500.0, "at most 0.05 % suspected");
}

/// Goal: of five million distinct ids none is dropped, and all that are sent again are found, near and far.
#[test]
fn five_million_ids() {
    send(5_000_000, 50_000);
}

/// Goal: the same with a hundred million, a million of which are sent again.
#[test]
#[ignore = "minutes and gigabytes; ./test.sh --full runs it"]
fn a_hundred_million_ids() {
    send(100_000_000, 1_000_000);
}
