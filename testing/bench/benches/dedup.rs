//! What it costs to know events again: a partition with its runs of ids on disk, fed with blocks of 1,000 rows.
//!
//! `cargo bench -p bench --bench dedup -- 20` measures over 20 million ids within a window of 10 minutes, after as many to
//! fill it (2 million where nothing is said). Each line is what applying a block costs per event, in processor time of the
//! writer's thread, which others on the machine move less than the clock; the first line's are events without ids. Time is
//! simulated, so that the ids fill the window's slices evenly. A capture for a checkpoint is taken every 1,000 blocks.
#![allow(clippy::print_stdout, reason = "its report")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use engine::{
    Capture, FrozenIds, IdRuns, Limits, MemoryBudget, PinnedRun, Reader, RunFault, RunId, RunSet, SetUsage, Writer,
    partition_with_runs,
};
use id_store::{IdStore, Kept};
use types::{
    Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId, Timestamp,
};

const ROWS: u64 = 1_000;
const BLOCKS_PER_CAPTURE: u64 = 1_000;
const BLOCKS: u64 = 200;
/// Distinct values of the five dimensions.
const VALUES: [(&str, u64); 5] =
    [("region", 8), ("type", 9), ("product", 1_000), ("user", 1_000_000), ("campaign", 100)];
const BUDGET_BYTES: u64 = 1 << 30;
const WINDOW_US: i64 = 600_000_000;
const MILLIONS_DEFAULT: u64 = 2;
const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
const ID_BYTES: usize = 16;

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

/// A cheap mix of an index into something without order.
fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

fn id(n: u64) -> [u8; ID_BYTES] {
    ((u128::from(scatter(n)) << 64) | u128::from(n)).to_le_bytes()
}

/// A block, and where its ids stand in its body.
struct Template {
    header: BlockHeader,
    body: Vec<u8>,
    ids_at: Option<usize>,
}

impl Template {
    fn new(number: u64, with_ids: bool) -> Self {
        let mut builder = BodyBuilder::default();
        for row in 0..ROWS {
            let n = number * ROWS + row;
            let value =
                |(at, (name, count)): (usize, &(&str, u64))| format!("{name}-{}", scatter(n * 5 + at as u64) % count);
            let values: Vec<String> = VALUES.iter().enumerate().map(value).collect();
            let dimensions: Vec<_> =
                VALUES.iter().zip(&values).map(|((name, _), value)| (*name, value.as_str())).collect();
            let id = id(n);
            let event = EventRef {
                namespace: "n",
                table: "t",
                event_time: Some(1_700_000_000_000_000 + n as i64 * 10),
                event_id: with_ids.then_some(id.as_slice()),
                dimensions: &dimensions,
                metrics: &[("revenue", n as f64), ("latency_ms", (n % 977) as f64), ("bytes", (n % 65_537) as f64)],
            };
            builder.push(&event, Timestamp(0), row as u32).expect("a small block");
        }
        let body = builder.finish(false).expect("not empty");
        let header = body.header(KEY, SchemaVersion(1), PartitionId(0), None);
        let ids_at = body.bytes.windows(ID_BYTES).position(|bytes| bytes == id(number * ROWS));
        Self { header, body: body.bytes.to_vec(), ids_at: ids_at.filter(|_| with_ids) }
    }

    /// Gives the rows other ids.
    fn set_ids(&mut self, id_of_row: impl Fn(u64) -> u64) {
        let Some(at) = self.ids_at else { return };
        for (row, bytes) in (0..ROWS).zip(self.body[at..].chunks_exact_mut(ID_BYTES)) {
            bytes.copy_from_slice(&id(id_of_row(row)));
        }
    }
}

/// What the runs were asked.
#[derive(Default)]
struct Asked {
    runs: AtomicU64,
    suspects: AtomicU64,
    found: AtomicU64,
}

struct Counting {
    inner: IdStore,
    asked: Arc<Asked>,
}

impl IdRuns for Counting {
    fn new_set(&mut self) -> RunSet {
        self.inner.new_set()
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        self.asked.runs.fetch_add(1, Relaxed);
        self.inner.add(set, ids);
    }

    fn seal(&mut self, set: RunSet) {
        self.inner.seal(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        self.asked.suspects.fetch_add(suspects.len() as u64, Relaxed);
        self.inner.confirm(set, suspects, found)?;
        self.asked.found.fetch_add(found.iter().flatten().count() as u64, Relaxed);
        Ok(())
    }

    fn drop_set(&mut self, set: RunSet) {
        self.inner.drop_set(set);
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.inner.usage(set)
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        self.inner.pin(set)
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        self.inner.restore_set(runs)
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.inner.scan(set, each)
    }
}

struct Bench {
    writer: Writer,
    reader: Reader,
    templates: Vec<Template>,
    asked: Arc<Asked>,
    /// Append time of a row, for the ids of a measurement to fill one window.
    us_per_row: f64,
    rows: u64,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(with_ids: bool, ids: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory for runs");
        let asked = Arc::<Asked>::default();
        let inner = IdStore::open_on_disk(dir.path(), Kept::Named(&[])).expect("an empty directory");
        let runs = Box::new(Counting { inner, asked: Arc::clone(&asked) });
        let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
        let (writer, reader) = partition_with_runs(PartitionId(0), Offset::ZERO, Limits::default(), budget, runs);
        let templates = (0..BLOCKS).map(|number| Template::new(number, with_ids)).collect();
        let us_per_row = WINDOW_US as f64 / ids as f64;
        let mut bench = Self { writer, reader, templates, asked, us_per_row, rows: 0, _dir: dir };
        bench.configure(None);
        bench
    }

    fn configure(&mut self, hot_window_us: Option<i64>) {
        let settings = TableSettings { hot_window_us, dedup_window_us: WINDOW_US, ..TableSettings::default() };
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
        self.writer.configure(self.writer.next_offset(), self.now(), &table).expect("in order");
    }

    fn now(&self) -> Timestamp {
        Timestamp((self.rows as f64 * self.us_per_row) as i64)
    }

    /// Applies `blocks` blocks; `id_of(n)` is the id of the row that is the nth of all. Prints and returns ns per event.
    fn run(&mut self, what: &str, blocks: u64, id_of: impl Fn(u64) -> u64) -> f64 {
        let asked = [&self.asked.runs, &self.asked.suspects, &self.asked.found].map(|count| count.load(Relaxed));
        let mut times = Vec::with_capacity(blocks as usize);
        let mut longest_capture = Duration::ZERO;
        // As a checkpoint that is being written, it lives until the next.
        let mut captured: Option<Capture> = None;
        for number in 0..blocks {
            let (now, rows) = (self.now(), self.rows);
            let template = &mut self.templates[(number % BLOCKS) as usize];
            template.set_ids(|row| id_of(rows + row));
            let started = thread_time();
            let view = BodyView::parse_trusted(&template.body).expect("a good body");
            self.writer.apply(self.writer.next_offset(), now, &template.header, &view).expect("a good block");
            times.push(thread_time() - started);
            self.rows += ROWS;
            if number % BLOCKS_PER_CAPTURE == BLOCKS_PER_CAPTURE / 2 {
                drop(captured.take());
                let started = thread_time();
                captured = Some(self.writer.capture());
                longest_capture = longest_capture.max(thread_time() - started);
            }
            if number % 100 == 0 {
                self.writer.housekeep();
            }
        }
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>().as_nanos() as f64 / (blocks * ROWS) as f64;
        let median = times[times.len() / 2].as_nanos() as f64 / ROWS as f64;
        let after = [&self.asked.runs, &self.asked.suspects, &self.asked.found].map(|count| count.load(Relaxed));
        let [runs, suspects, found] = [0, 1, 2].map(|at| after[at] - asked[at]);
        let longest = times[times.len() - 1];
        println!(
            "{what:<44} {mean:>7.1} ns an event (median block {median:.1}, longest block {longest:.1?}, \
             longest capture {longest_capture:.1?}); {runs} runs written, {suspects} looks into runs, {found} found"
        );
        mean
    }
}

fn main() {
    let millions = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(MILLIONS_DEFAULT);
    let (ids, blocks) = (millions * 1_000_000, millions * 1_000);
    println!("{millions} million ids in a window of 10 minutes");
    let mut without = Bench::new(false, ids);
    without.run("without ids, first", blocks, |n| n);
    let base = without.run("without ids", blocks, |n| n);
    drop(without);
    let mut bench = Bench::new(true, ids);
    bench.run("unique ids, filling the window", blocks, |n| n);
    let unique = bench.run("unique ids", blocks, |n| n);
    println!("{:<44} {:>7.1} ns an event", "  more than without ids", unique - base);
    let some = (blocks / 10).max(BLOCKS);
    // One row in five repeats the row 100,000 before it, or one from the far end of the window.
    bench.run("20 % duplicates, near", some, |n| if n % 5 == 0 { n - 100_000 } else { n });
    let far = ids / 10 * 8;
    bench.run("20 % duplicates, far", some, |n| if n % 5 == 0 { n - far + 1 } else { n });
    let (start, near) = (bench.rows, 500_000);
    bench.run("all duplicates, near", some, |n| start - near + (n - start) % (near / 2) / 5 * 5 + 1);
    let start = bench.rows;
    bench.run("all duplicates, far", some, |n| start - far + (n - start) % 200_000 / 5 * 5 + 1);
    drop(bench);
    memory_per_id(ids, blocks);
}

/// What remains when rows are gone, in a table with few values.
fn memory_per_id(ids: u64, blocks: u64) {
    let mut bench = Bench::new(true, ids);
    bench.run("unique ids, filling the window", blocks * 2, |n| n);
    let with_rows = bench.reader.status().bytes;
    bench.configure(Some(1));
    bench.writer.housekeep();
    let left = bench.reader.status().bytes;
    println!(
        "{:.2} bytes of memory an id (with the newest run and dictionaries; {with_rows} bytes with rows, {left} without)",
        left as f64 / ids as f64
    );
}
