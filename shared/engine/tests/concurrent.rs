//! A writer and readers at once, on real threads.
#![cfg(not(loom))]

mod plain_rollup;
mod rows;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use engine::{Limits, MemoryBudget, Reader, partition};
use rows::{PARTITION, Row, apply, table_key};
use types::{ColumnKind, Interval, Offset, Rollup, Schema, Table, TableKey, TableName, TableSettings, Timestamp};

const ROWS_PER_BLOCK: usize = 7;
const BLOCKS: u64 = 6_000;

/// Row `index` of block `offset`: its value says which it is, its time spreads over several slots.
fn row(offset: u64, index: usize) -> Row {
    let number = offset * ROWS_PER_BLOCK as u64 + index as u64;
    Row {
        time: (offset / 4 + (index as u64 % 3) * 15) as i64,
        dimensions: [("number".to_owned(), format!("n{}", number % 5_000))].into(),
        metrics: [("value".to_owned(), number as f64)].into(),
    }
}

/// Reads snapshots until `done`; each must be whole. Returns how many there were.
fn read(reader: &Reader, key: TableKey, done: &AtomicBool, all_resident: bool) -> usize {
    let (mut snapshots, mut newest) = (0, Offset::ZERO);
    while !done.load(Ordering::Relaxed) {
        let Some(snapshot) = reader.snapshot(key) else { continue };
        assert!(snapshot.next_offset() >= newest, "offsets do not go back");
        newest = snapshot.next_offset();
        if all_resident {
            assert_eq!(snapshot.rows() as u64, newest.0 * ROWS_PER_BLOCK as u64, "exactly the rows before the offset");
        }
        let value = snapshot.column("value", ColumnKind::Metric);
        let number = snapshot.column("number", ColumnKind::Dimension);
        for segment in snapshot.segments() {
            let (value, number) = (value.expect("it has rows"), number.expect("it has rows"));
            let (values, codes) = (segment.metric(value).unwrap(), segment.codes(number).unwrap());
            let dictionary = segment.dictionary(number).unwrap();
            for at in (0..segment.rows()).step_by(11) {
                let (offset, index) = segment.origin(at);
                let expected = row(offset.0, index as usize);
                assert!(offset < newest);
                assert_eq!((segment.times().get(at), values.get(at)), (expected.time, expected.metrics["value"]));
                assert_eq!(dictionary.get(codes.get(at)), Some(expected.dimensions["number"].as_str()));
            }
        }
        snapshots += 1;
    }
    snapshots
}

fn run(limits: Limits, budget: u64, all_resident: bool) {
    let budget = Arc::new(MemoryBudget::new(budget));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, limits, budget);
    let (key, done) = (table_key(0, 1), AtomicBool::new(false));
    let snapshots = thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read(&reader, key, &done, all_resident))).collect();
        for offset in 0..BLOCKS {
            let rows: Vec<Row> = (0..ROWS_PER_BLOCK).map(|index| row(offset, index)).collect();
            apply(&mut writer, offset as i64, key, &rows);
            if offset % 64 == 0 {
                writer.housekeep();
            }
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("every snapshot was whole")).sum::<usize>()
    });
    assert!(snapshots > 0, "the readers read something");
    let status = reader.table_status(key).expect("the table is there");
    assert_eq!(status.live + status.evicted, BLOCKS * ROWS_PER_BLOCK as u64);
    assert_eq!(status.evicted == 0, all_resident);
}

fn small() -> Limits {
    Limits {
        segment_rows_first: 4,
        segment_rows_max: 256,
        open_slots_max: 4,
        slot_width_us: 10,
        dictionary_entries_max: 3_000,
        ..Limits::default()
    }
}

/// Goal: while a writer appends, rolls and seals, every snapshot holds exactly the rows before its offset.
#[test]
fn snapshots_are_exact_while_writing() {
    run(small(), u64::MAX, true);
}

/// Goal: while a writer evicts and uses memory again, no reader sees a row that is not one of those written.
#[test]
fn snapshots_are_whole_while_evicting() {
    run(small(), 1_500_000, false);
}

/// Goal: while a writer folds, evicts and revises, a rollup that keeps all has each row of each snapshot once: in a segment
/// or in what it keeps of those that have left.
#[test]
fn rollups_have_each_row_once_while_evicting() {
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, small(), budget);
    let (key, done) = (table_key(0, 1), AtomicBool::new(false));
    let rollup = Rollup {
        interval: Interval::from_micros(100).unwrap(),
        group_by: Vec::new(),
        distinct: Vec::new(),
        percentiles: Vec::new(),
        top: Vec::new(),
        keep_us: Some(i64::MAX / 4),
    };
    let table = Table {
        key,
        name: TableName::new("n", "t"),
        partitions: vec![PARTITION],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings { hot_window_us: Some(60), rollups: vec![rollup], ..TableSettings::default() },
    };
    writer.configure(Offset::ZERO, Timestamp(0), &table).unwrap();
    let read = || {
        let (mut snapshots, mut revised) = (0_u64, 0);
        while !done.load(Ordering::Relaxed) {
            let snapshot = reader.snapshot(key).expect("it was declared");
            let rollup = &snapshot.rollups()[0];
            assert_eq!(rollup.covered_from(), Some(Timestamp::MIN));
            let cells = plain_rollup::actual(&snapshot, rollup);
            let rows = (snapshot.next_offset().0 - 1) * ROWS_PER_BLOCK as u64;
            assert_eq!(cells.values().map(|cell| cell.rows).sum::<u64>(), rows, "each row once");
            // Values are the numbers of the rows, behind those of the first block.
            let first = ROWS_PER_BLOCK as u64;
            let sum =
                cells.values().filter_map(|cell| cell.metrics.get("value")).map(engine::MetricCell::sum).sum::<f64>();
            assert_eq!(sum as u64, (first..first + rows).sum::<u64>());
            revised = rollup.revised();
            snapshots += 1;
        }
        (snapshots, revised)
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(read)).collect();
        for offset in 1..=BLOCKS {
            let late = |index: usize| if index == 3 { 500 } else { 0 };
            let rows = (0..ROWS_PER_BLOCK)
                .map(|index| Row { time: row(offset, index).time - late(index), ..row(offset, index) });
            apply(&mut writer, offset as i64, key, &rows.collect::<Vec<_>>());
            if offset % 16 == 0 {
                writer.housekeep();
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let (snapshots, revised) = reader.join().expect("every snapshot was whole");
            assert!(snapshots > 0 && revised > 0, "{snapshots} snapshots, the last with {revised} revisions");
        }
    });
}
