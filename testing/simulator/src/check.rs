//! Holds what a partition shows against what the oracle says that it must be.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Reader, SegmentView, TableSnapshot};
use event_log::EventLog;
use types::{ColumnKind, Offset, PartitionId, TableKey};

use crate::{
    failure::{Wrong, ensure},
    oracle::{Expected, PartitionFold},
    rollups,
};

/// A row as a reader sees it: its event's name and key, and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    n: u64,
    key: Option<String>,
    time: i64,
}

/// Rows by record and number in the block.
pub(crate) type Rows = BTreeMap<(Offset, u32), Seen>;

/// All rows of a snapshot.
///
/// # Errors
/// A row is there twice.
pub(crate) fn rows_of(snapshot: &TableSnapshot) -> Result<Rows, Wrong> {
    let mut rows = Rows::new();
    let n = snapshot.column("n", ColumnKind::Metric);
    let key = snapshot.column("key", ColumnKind::Dimension);
    for segment in snapshot.segments() {
        let numbers = n.and_then(|column| segment.metric(column));
        for row in 0..segment.rows() {
            let seen = Seen {
                n: numbers.map_or(u64::MAX, |numbers| numbers.get(row) as u64),
                key: key.and_then(|column| string_of(segment, column, row)),
                time: segment.times().get(row),
            };
            let origin = segment.origin(row);
            ensure!(rows.insert(origin, seen).is_none(), "row {origin:?} is there twice");
        }
    }
    Ok(rows)
}

fn string_of(segment: &SegmentView, column: engine::ColumnIndex, row: usize) -> Option<String> {
    let code = segment.codes(column)?.get(row);
    segment.dictionary(column)?.get(code).map(str::to_owned)
}

/// What a partition shows once it has applied the records before `end` is what they come to. Rows may be missing only
/// where the horizon says so.
pub(crate) fn check_partition(reader: &Reader, fold: &PartitionFold, end: Offset) -> Result<(), Wrong> {
    let partition = reader.partition();
    let expected = fold.tables_at(end);
    let known: BTreeSet<TableKey> = reader.tables().into_iter().collect();
    ensure!(known.iter().eq(expected.keys()), "partition {partition} at {end} has tables {known:?}");
    let passed_over = reader.status().passed_over;
    ensure!(passed_over == fold.passed_over_at(end), "partition {partition} passed over {passed_over} records");
    for (key, expected) in &expected {
        check_table(reader, *key, expected, end)
            .map_err(|Wrong(what)| Wrong(format!("partition {partition} at {end}, table {}: {what}", key.table.0)))?;
    }
    Ok(())
}

fn check_table(reader: &Reader, key: TableKey, expected: &Expected<'_>, end: Offset) -> Result<(), Wrong> {
    let snapshot = reader.snapshot(key).expect("it is listed");
    ensure!(snapshot.next_offset() == end, "the snapshot is at {}", snapshot.next_offset());
    let seen = rows_of(&snapshot)?;
    for (origin, row) in &seen {
        let counted = expected.rows.get(origin);
        ensure!(counted.is_some(), "row {origin:?} is counted twice, or made up: {row:?}");
        let event = &counted.expect("just looked at").event;
        let right =
            (event.n, event.key_value(), counted.map(|row| row.time)) == (row.n, row.key.clone(), Some(row.time));
        ensure!(right, "row {origin:?} is {row:?}, not {event:?}");
    }
    let horizon = snapshot.evicted_before().map_or(i64::MIN, |horizon| horizon.0);
    for (origin, row) in expected.rows.iter().filter(|(origin, _)| !seen.contains_key(origin)) {
        ensure!(row.time < horizon, "row {origin:?} is missing: {:?}", row.event);
    }
    let status = reader.table_status(key).expect("it is listed");
    let (live, counted) = (seen.len() as u64, expected.rows.len() as u64);
    ensure!(status.live == live, "{} rows live, {live} there", status.live);
    let gone = counted - live;
    ensure!(status.evicted == gone, "{} rows evicted, {gone} gone", status.evicted);
    let counts = (status.duplicate, status.conflict, status.late);
    let right = (expected.duplicate, expected.conflict, expected.late);
    ensure!(counts == right, "(duplicate, conflict, late) is {counts:?}, must be {right:?}");
    let times = (status.event_time_max.map(|time| time.0), status.last_events_at.map(|time| time.0));
    let right = (expected.newest, expected.last_events_at);
    ensure!(times == right, "(newest event time, last events at) is {times:?}, must be {right:?}");
    rollups::check(&snapshot, expected)
}

/// A partition that has nothing of the records before `start` shows nothing of them, and of the others what was sent. It may
/// count again what it does not know.
pub(crate) fn check_rows_from(reader: &Reader, fold: &PartitionFold, start: Offset) -> Result<(), Wrong> {
    let expected = fold.tables_at(Offset(fold.records.len() as u64));
    for key in reader.tables() {
        let rows = reader.snapshot(key).map(|snapshot| rows_of(&snapshot)).transpose()?.unwrap_or_default();
        for (origin, row) in rows {
            ensure!(origin.0 >= start, "row {origin:?} was in the log before {start}");
            let counted = expected.get(&key).and_then(|table| table.rows.get(&origin));
            let right = counted.is_none_or(|counted| counted.event.n == row.n && counted.time == row.time);
            ensure!(right, "row {origin:?} is {row:?}, not {counted:?}");
        }
    }
    Ok(())
}

/// The ledger of every table that lives, to the row: what the log counted as acked is what the partition has, has had or left
/// out, and what waits.
pub(crate) fn check_ledger(
    log: &dyn EventLog,
    reader: &Reader,
    fold: &PartitionFold,
    partition: PartitionId,
) -> Result<(), Wrong> {
    for key in reader.tables().into_iter().filter(|key| !fold.has_ended(*key)) {
        let status = reader.table_status(key).expect("it is listed");
        let ledger = log.ledger(partition, key, status.next_offset);
        let ledger = ledger.map_err(|error| Wrong(format!("ledger of partition {partition}: {error}")))?;
        let (acked, waiting) = (fold.rows_from(key, Offset::ZERO), fold.rows_from(key, status.next_offset));
        ensure!(ledger.acked_rows == acked, "{} rows acked, {acked} in the log", ledger.acked_rows);
        ensure!(ledger.in_flight_rows == waiting, "{} rows in flight, {waiting} wait", ledger.in_flight_rows);
        let accounted = status.live + status.evicted + status.duplicate + ledger.in_flight_rows;
        ensure!(accounted == ledger.acked_rows, "the ledger is out: {ledger:?}, {status:?}");
    }
    Ok(())
}
