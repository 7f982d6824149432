//! Every schedule of a writer and a reader, within loom's bound on preemptions. `scripts/check-loom.sh` runs these, and
//! shows that each fails when one of its orderings is weakened.

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use loom::thread;
use types::{
    ColumnKind, Generation, Interval, Offset, PartitionId, Rollup, Schema, SchemaVersion, Table, TableId, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};

use crate::{
    Limits, MemoryBudget, Reader, Writer,
    dictionary::{DictionaryView, DictionaryWriter},
    partition,
    sync::Arc,
};

const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
/// Switch points that a model may have.
const BRANCHES_MAX: usize = 20_000;
/// A model with fewer schedules has lost its threads.
const SCHEDULES_MIN: usize = 20;
const MEMORY_BYTES: u64 = 1 << 30;

fn limits() -> Limits {
    Limits { segment_rows_first: 2, segment_rows_max: 2, open_slots_max: 2, slot_width_us: 10, ..Limits::default() }
}

/// Runs a model over all schedules with at most so many preemptions.
fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = BRANCHES_MAX;
    // Counted outside of loom's view.
    let schedules = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&schedules);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    let schedules = schedules.load(std::sync::atomic::Ordering::Relaxed);
    println!("{schedules} schedules");
    assert!(schedules > SCHEDULES_MIN, "only {schedules} schedules: the model explores nothing");
}

fn block(rows: &[(i64, &str)]) -> (BlockHeader, Vec<u8>) {
    let mut builder = BodyBuilder::default();
    for &(time, value) in rows {
        let dimensions = [("d", value)];
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(time),
            event_id: None,
            dimensions: &dimensions,
            metrics: &[],
        };
        builder.push(&event, Timestamp(0), 0).expect("a small block");
    }
    let body = builder.finish(false).expect("not empty");
    (body.header(KEY, SchemaVersion(1), PartitionId(0), None), body.bytes.to_vec())
}

fn apply(writer: &mut Writer, (header, body): &(BlockHeader, Vec<u8>)) {
    let view = BodyView::parse_trusted(body).expect("a good body");
    writer.apply(writer.next_offset(), Timestamp(1_000), header, &view).expect("a good block");
}

fn empty_partition() -> (Writer, Reader) {
    partition(PartitionId(0), Offset::ZERO, limits(), Arc::new(MemoryBudget::new(MEMORY_BYTES)))
}

/// Times and values of all rows, in canonical order.
fn read(reader: &Reader) -> (Offset, Option<Timestamp>, Vec<(i64, String)>) {
    let snapshot = reader.snapshot(KEY).expect("the table is there");
    let mut rows = Vec::new();
    for segment in snapshot.segments() {
        let column = snapshot.column("d", ColumnKind::Dimension).expect("rows have it");
        let (codes, dictionary) = (segment.codes(column).expect("it has"), segment.dictionary(column).expect("it has"));
        for (row, time) in segment.times().iter().enumerate() {
            rows.push((time, dictionary.get(codes.get(row)).expect("rows have it").to_owned()));
            assert!(segment.origin(row).0 < snapshot.next_offset());
            assert!(segment.chunk_zone(0).min.0 <= time && time <= segment.chunk_zone(0).max.0);
        }
    }
    (snapshot.next_offset(), snapshot.evicted_before(), rows)
}

/// Goal: strings below the observed count are there, whole, and found; through a new chunk and a new lookup.
#[test]
fn loom_strings_are_published_before_their_count() {
    model(3, || {
        let mut writer = DictionaryWriter::new(0, &Arc::new(MemoryBudget::new(MEMORY_BYTES)));
        writer.intern(1, |_| "a", &mut Vec::new());
        let shared = Arc::clone(writer.shared());
        let reader = thread::spawn(move || {
            // SAFETY: the count was observed.
            let view = unsafe { DictionaryView::new(&shared, shared.observe()) };
            let known = ["a", "bc", "def"];
            assert!(view.iter().all(|(code, value)| known[code as usize - 1] == value));
            assert!((0..view.len()).all(|at| view.find(known[at as usize]) == Some(at + 1)));
            assert_eq!(view.find("nothing"), None);
        });
        writer.intern(2, |k| ["bc", "def"][k], &mut Vec::new());
        reader.join().expect("the reader saw whole strings");
    });
}

/// Goal: rows of a segment are visible with all their columns, strings, zones and runs, or not at all.
#[test]
fn loom_rows_are_published_whole() {
    let blocks = [block(&[(1, "x")]), block(&[(2, "y")])];
    model(2, move || {
        let (mut writer, reader) = empty_partition();
        apply(&mut writer, &blocks[0]);
        let reader = thread::spawn(move || {
            let (next, _, rows) = read(&reader);
            assert_eq!(rows, [(1, "x".to_owned()), (2, "y".to_owned())][..next.0 as usize]);
        });
        apply(&mut writer, &blocks[1]);
        reader.join().expect("the reader saw whole rows");
    });
}

/// Goal: a snapshot over two segments, one of them new, holds exactly the records before its offset.
#[test]
fn loom_snapshots_are_cut_at_an_offset() {
    let blocks = [block(&[(1, "x")]), block(&[(2, "x"), (11, "x")])];
    model(2, move || {
        let (mut writer, reader) = empty_partition();
        apply(&mut writer, &blocks[0]);
        let reader = thread::spawn(move || {
            let (next, _, rows) = read(&reader);
            let times: Vec<i64> = rows.iter().map(|(time, _)| *time).collect();
            assert_eq!(times, [1, 2, 11][..if next == Offset(1) { 1 } else { 3 }]);
        });
        apply(&mut writer, &blocks[1]);
        reader.join().expect("the reader saw whole records");
    });
}

/// Goal: a snapshot's offset covers rows in segments that the list had all along: nothing but the offset says so.
#[test]
fn loom_offsets_cover_their_rows() {
    let blocks = [block(&[(1, "x"), (11, "x")]), block(&[(2, "x"), (12, "x")])];
    model(2, move || {
        let (mut writer, reader) = empty_partition();
        apply(&mut writer, &blocks[0]);
        let reader = thread::spawn(move || {
            let (next, _, rows) = read(&reader);
            assert_eq!(rows.len() as u64, 2 * next.0);
        });
        apply(&mut writer, &blocks[1]);
        reader.join().expect("the reader saw whole records");
    });
}

fn with_hot_window(hot_window_us: i64) -> Table {
    with_rollups(hot_window_us, Vec::new())
}

fn with_rollups(hot_window_us: i64, rollups: Vec<Rollup>) -> Table {
    Table {
        key: KEY,
        name: TableName::new("n", "t"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings { hot_window_us: Some(hot_window_us), rollups, ..TableSettings::default() },
    }
}

/// Goal: rows leave together with the horizon that says so, and a reader's rows stay whole while the memory of what left
/// is used for new rows.
#[test]
fn loom_evicted_memory_waits_for_its_readers() {
    let blocks = [block(&[(1, "x")]), block(&[(101, "x")]), block(&[(111, "x")])];
    model(2, move || {
        let (mut writer, reader) = empty_partition();
        writer.configure(Offset(0), Timestamp(0), &with_hot_window(20)).expect("in order");
        apply(&mut writer, &blocks[0]);
        let reader = thread::spawn(move || {
            let (next, evicted_before, rows) = read(&reader);
            let old = rows.iter().any(|(time, _)| *time == 1);
            assert!(old || evicted_before >= Some(Timestamp(2)), "rows left unannounced");
            assert_eq!(rows.len() as u64 + u64::from(!old), next.0 - 1);
        });
        apply(&mut writer, &blocks[1]);
        writer.housekeep();
        apply(&mut writer, &blocks[2]);
        reader.join().expect("the reader saw whole rows");
    });
}

/// Goal: a rollup that outlives rows has each row of the records before a snapshot's offset once, in a segment or in its
/// history, and none of later ones: while a row leaves, and while one comes whose slot has left.
#[test]
fn loom_rollups_have_each_row_once() {
    let blocks = [block(&[(1, "x")]), block(&[(101, "x")]), block(&[(2, "x")])];
    let rollup = Rollup {
        interval: Interval::from_micros(10).expect("not 0"),
        group_by: Vec::new(),
        distinct: Vec::new(),
        percentiles: Vec::new(),
        top: Vec::new(),
        keep_us: Some(1_000_000),
    };
    model(2, move || {
        let (mut writer, reader) = empty_partition();
        writer.configure(Offset(0), Timestamp(0), &with_rollups(20, vec![rollup.clone()])).expect("in order");
        apply(&mut writer, &blocks[0]);
        apply(&mut writer, &blocks[1]);
        let reader = thread::spawn(move || {
            let snapshot = reader.snapshot(KEY).expect("the table is there");
            let rollup = &snapshot.rollups()[0];
            assert!(rollup.covered_from().is_some(), "its past at that offset is there");
            let kept: u64 = rollup.history(i64::MIN..i64::MAX).flat_map(|part| part.rows()).sum();
            assert_eq!(snapshot.rows() as u64 + kept, snapshot.next_offset().0 - 1);
        });
        writer.housekeep();
        apply(&mut writer, &blocks[2]);
        reader.join().expect("the reader saw each row once");
    });
}
