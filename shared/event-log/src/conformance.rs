//! The suite that every log passes. `conformance!(name, open)` makes a module of tests, one per case; `open` is an
//! expression that gives `(Arc<dyn EventLog>, guard)`: a new, empty log of at least two partitions whose files are
//! small (a few hundred KiB, so that releases have an effect), and what must live as long as it. `conformance!(ignored
//! "why", name, open)` makes tests that only run where they are asked for.
//!
//! Cases speak of the contract alone. Each panics with what is wrong.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use codec::{BlockHeader, BlockKind};
use types::{AppenderId, Generation, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Append, AppendError, Appended, EventLog, LogLedger, ReadError, Record};

/// Long enough for anything that is bound to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the tests of the suite for one log.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $open:expr) => {
        $crate::conformance!(@all $name, [], $open);
    };
    (ignored $why:literal, $name:ident, $open:expr) => {
        $crate::conformance!(@all $name, [#[ignore = $why]], $open);
    };
    (@all $name:ident, $attributes:tt, $open:expr) => {
        $crate::conformance!(@cases $name, $attributes, $open,
            reads_what_was_appended, offsets_are_dense_and_times_monotone, concurrent_appenders_keep_their_order,
            readers_wake_at_an_append, waiting_ends_in_time, a_time_is_found, bounds_are_checked,
            released_records_become_a_gap, rows_are_counted, a_burst_is_refused_or_kept, closing_ends_it);
    };
    (@cases $name:ident, $attributes:tt, $open:expr, $($case:ident),+) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need what its module has, or not")]
            use super::*;

            $crate::conformance!(@identity $attributes, $open);
            $($crate::conformance!(@case $case, $attributes, $open);)+
        }
    };
    (@identity [$(#[$attribute:meta])*], $open:expr) => {
        #[doc = "Goal: no two logs have one identity, and each keeps its own."]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn identities_differ() {
            let ((one, _guard), (other, _other_guard)) = ($open, $open);
            $crate::conformance::identities_differ(one, other).await;
        }
    };
    (@case $case:ident, [$(#[$attribute:meta])*], $open:expr) => {
        #[doc = concat!("Goal: the case `", stringify!($case), "` of the suite.")]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $case() {
            let (log, _guard) = $open;
            $crate::conformance::$case(log).await;
        }
    };
}

/// A block of `rows` rows for tests, with a body of `body_bytes` bytes drawn from `seed`.
#[must_use]
pub fn block(partition: u32, table: u64, rows: u32, seed: u64, body_bytes: usize) -> Append {
    let body: Vec<u8> = (0..body_bytes as u64)
        .map(|at| (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(at * at) >> 7) as u8)
        .collect();
    let header = BlockHeader {
        kind: BlockKind::Events,
        key: TableKey { tenant: TenantId::DEFAULT, table: TableId(table), generation: Generation(1) },
        schema_version: SchemaVersion(1),
        partition: PartitionId(partition),
        rows,
        body_len: u32::try_from(body_bytes).expect("bodies of tests are small"),
        body_checksum: xxh3_64(&body),
        appender: AppenderId(0),
        appender_rows: 0,
        time_min: Timestamp(0),
        time_max: Timestamp(i64::from(rows)),
        batch: None,
        times_given: false,
    };
    Append { header, body: Bytes::from(body) }
}

/// Reads all of a partition from `from` to its end.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn read_all(log: &dyn EventLog, partition: u32, from: Offset) -> Vec<Record> {
    let partition = PartitionId(partition);
    let end = log.bounds(partition).end;
    let mut reader = log.reader(partition, from).expect("a reader within the bounds");
    let mut records = Vec::new();
    while reader.position() < end {
        let count = reader.poll(64 << 10, PATIENCE, &mut records).expect("records before the end are read");
        assert!(count > 0, "there are records before the end");
    }
    records
}

/// No two logs have one identity, and each keeps its own.
pub async fn identities_differ(one: Arc<dyn EventLog>, other: Arc<dyn EventLog>) {
    let (own, others) = (one.identity(), other.identity());
    assert_ne!(own, others);
    one.append(vec![block(0, 1, 1, 1, 10)]).await.expect("the log takes blocks");
    assert_eq!((one.identity(), other.identity()), (own, others));
}

/// Bodies of many sizes come back as they went in, header included, with the appender's fields filled.
pub async fn reads_what_was_appended(log: Arc<dyn EventLog>) {
    let sizes = [0, 1, 7, 8, 9, 100, 8_191, 8_192, 8_193, 65_536, 300_000];
    let blocks: Vec<_> = (0..).zip(sizes).map(|(n, size)| block(0, 1, n, u64::from(n), size)).collect();
    let appended = log.append(blocks.clone()).await.expect("the log takes blocks");
    for at in &appended {
        let one = read_all(&*log, 0, at.offset);
        assert_eq!(one.len() as u64, log.bounds(PartitionId(0)).end.0 - at.offset.0);
    }
    let records = read_all(&*log, 0, Offset::ZERO);
    let mut rows = 0;
    for ((record, sent), at) in records.iter().zip(&blocks).zip(&appended) {
        rows += u64::from(sent.header.rows);
        let BlockHeader { appender, .. } = record.header;
        assert_eq!(record.header, BlockHeader { appender, appender_rows: rows, ..sent.header });
        assert_eq!(record.body, sent.body);
        assert_eq!((record.offset, record.append_time), (at.offset, at.append_time));
    }
    assert_eq!(records.len(), blocks.len());
}

/// Offsets of each partition count from 0, times never fall, and `append_time_of` knows them.
pub async fn offsets_are_dense_and_times_monotone(log: Arc<dyn EventLog>) {
    let mut next = BTreeMap::<PartitionId, Offset>::new();
    let mut last = BTreeMap::<PartitionId, Timestamp>::new();
    for round in 0..50 {
        let blocks = (0..4).map(|n| block((round + n) % 2, 1, 1, u64::from(n), 1_000)).collect();
        for at in log.append(blocks).await.expect("the log takes blocks") {
            let expected = next.entry(at.partition).or_default();
            assert_eq!(at.offset, *expected);
            *expected = at.offset.next();
            let before = last.insert(at.partition, at.append_time);
            assert!(before <= Some(at.append_time), "times fell");
            assert_eq!(log.append_time_of(at.partition, at.offset), Some(at.append_time));
        }
        for (partition, end) in &next {
            assert_eq!(log.append_time_of(*partition, *end), None);
        }
    }
}

/// Many callers at once: every ack is at its place, each caller's blocks in its order, row counts add up.
pub async fn concurrent_appenders_keep_their_order(log: Arc<dyn EventLog>) {
    let caller = |caller: u64| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut acks = Vec::new();
            for round in 0..25 {
                let seed = caller * 1_000 + round;
                let blocks: Vec<_> =
                    (0..2).map(|n| block((round as u32 + n) % 2, caller % 3, 3, seed, 2_000)).collect();
                let at = append_patiently(&*log, blocks.clone()).await;
                acks.extend(at.into_iter().zip(blocks));
            }
            acks
        })
    };
    let callers: Vec<_> = (0..8).map(caller).collect();
    let mut by_place = BTreeMap::new();
    for caller in callers {
        let acks = caller.await.expect("a caller ends well");
        for partition in [PartitionId(0), PartitionId(1)] {
            let offsets: Vec<_> = acks.iter().map(|(at, _)| at).filter(|at| at.partition == partition).collect();
            assert!(offsets.is_sorted_by(|a, b| a.offset < b.offset), "a caller's blocks changed order");
        }
        by_place.extend(acks.into_iter().map(|(at, sent)| ((at.partition, at.offset), sent)));
    }
    assert_eq!(by_place.len(), 8 * 25 * 2);
    let mut rows = BTreeMap::<(PartitionId, TableKey), u64>::new();
    for partition in [PartitionId(0), PartitionId(1)] {
        let records = read_all(&*log, partition.0, Offset::ZERO);
        assert_eq!(records.len(), 8 * 25);
        for record in records {
            assert_eq!(by_place[&(partition, record.offset)].body, record.body);
            let count = rows.entry((partition, record.header.key)).or_default();
            *count += u64::from(record.header.rows);
            assert_eq!(record.header.appender_rows, *count);
        }
    }
}

/// A reader at the end sleeps until something is appended to its partition.
pub async fn readers_wake_at_an_append(log: Arc<dyn EventLog>) {
    let mut reader = log.reader(PartitionId(1), Offset::ZERO).expect("a reader of an empty partition");
    let waiting = tokio::task::spawn_blocking(move || {
        let mut records = Vec::new();
        (reader.poll(1, PATIENCE, &mut records), records, reader.position())
    });
    log.append(vec![block(0, 1, 1, 1, 10)]).await.expect("the log takes blocks");
    log.append(vec![block(1, 1, 1, 2, 10)]).await.expect("the log takes blocks");
    let (count, records, position) = waiting.await.expect("the reader ends well");
    assert_eq!((count.expect("a record came"), records.len(), position), (1, 1, Offset(1)));
    assert_eq!(records[0].body, block(1, 1, 1, 2, 10).body);
}

/// A reader at the end gives up when its time is over.
pub async fn waiting_ends_in_time(log: Arc<dyn EventLog>) {
    let mut reader = log.reader(PartitionId(0), Offset::ZERO).expect("a reader of an empty partition");
    let mut records = Vec::new();
    assert_eq!(reader.poll(1, Duration::ZERO, &mut records).expect("nothing is no error"), 0);
    assert_eq!(reader.poll(1, Duration::from_millis(1), &mut records).expect("nothing is no error"), 0);
    assert!(records.is_empty());
}

/// `offset_at` is the first offset that is not before a time.
pub async fn a_time_is_found(log: Arc<dyn EventLog>) {
    let partition = PartitionId(0);
    assert_eq!(log.offset_at(partition, Timestamp::MIN), Offset::ZERO);
    for n in 0..40 {
        log.append(vec![block(0, 1, 1, n, 20_000)]).await.expect("the log takes blocks");
    }
    let times: Vec<_> = read_all(&*log, 0, Offset::ZERO).iter().map(|record| record.append_time).collect();
    let probes = times.iter().flat_map(|time| [time.saturating_add(-1), *time, time.saturating_add(1)]);
    for probe in probes.chain([Timestamp::MIN, Timestamp::MAX]) {
        let expected = times.partition_point(|time| *time < probe);
        assert_eq!(log.offset_at(partition, probe), Offset(expected as u64));
    }
}

/// What lies outside the bounds is refused by name.
pub async fn bounds_are_checked(log: Arc<dyn EventLog>) {
    let partition = PartitionId(0);
    assert_eq!(log.bounds(partition).last_append_time, Timestamp::MIN);
    let at = log.append(vec![block(0, 1, 1, 1, 10)]).await.expect("the log takes blocks")[0];
    let bounds = log.bounds(partition);
    assert_eq!((bounds.start, bounds.end, bounds.last_append_time), (Offset::ZERO, Offset(1), at.append_time));
    assert!(log.reader(partition, Offset(1)).is_ok(), "the end is a place to wait at");
    let beyond = log.reader(partition, Offset(2)).map(drop);
    assert!(matches!(beyond, Err(ReadError::NoSuchOffset { .. })), "{beyond:?}");
    let nowhere = log.reader(PartitionId(log.partitions()), Offset::ZERO).map(drop);
    assert!(matches!(nowhere, Err(ReadError::NoSuchOffset { .. })), "{nowhere:?}");
}

/// Released records may go, never others; who still wants them hears of a gap, also in the middle of reading.
pub async fn released_records_become_a_gap(log: Arc<dyn EventLog>) {
    let partition = PartitionId(0);
    let mut late = log.reader(partition, Offset::ZERO).expect("a reader");
    let mut released = Offset::ZERO;
    for n in 0..200 {
        let at = log.append(vec![block(0, 1, 1, n, 20_000)]).await.expect("the log takes blocks")[0];
        released = Offset(at.offset.0.saturating_sub(5));
        log.release_before(partition, released);
        let start = log.bounds(partition).start;
        assert!(start <= released, "{start} was not released yet, only {released}");
    }
    let start = start_after_release(&*log, partition).await;
    let gone = log.reader(partition, Offset::ZERO).map(drop);
    assert!(matches!(gone, Err(ReadError::Gap { start: at, .. }) if at >= start), "{gone:?}");
    let gone = late.poll(1, PATIENCE, &mut Vec::new());
    assert!(matches!(gone, Err(ReadError::Gap { .. })), "{gone:?}");
    assert_eq!(log.append_time_of(partition, Offset::ZERO), None);
    assert_eq!(log.offset_at(partition, Timestamp::MIN), log.bounds(partition).start);
    let records = read_all(&*log, 0, released);
    assert!(records.iter().zip(released.0..).all(|(record, offset)| record.offset == Offset(offset)));
}

/// Rows are counted per table and partition, those that wait from any offset on; counts outlive released records, and
/// who asks for what is not there is refused.
pub async fn rows_are_counted(log: Arc<dyn EventLog>) {
    let key = |table| block(0, table, 0, 0, 0).header.key;
    let partition = PartitionId(0);
    let nothing = LogLedger { acked_rows: 0, in_flight_rows: 0, end: Offset::ZERO };
    assert_eq!(log.ledger(partition, key(1), Offset::ZERO).expect("an empty partition is counted"), nothing);
    let mut rows = Vec::new();
    for n in 0..60 {
        let own = block(0, 1 + n % 2, 1 + n as u32 % 7, n, 20_000);
        rows.push((own.header.key, u64::from(own.header.rows)));
        log.append(vec![own, block(1, 1, 1_000, n, 100)]).await.expect("the log takes blocks");
    }
    let sum = |table, from: Offset| -> u64 {
        rows[from.0 as usize..].iter().filter(|(of, _)| *of == key(table)).map(|(_, rows)| rows).sum()
    };
    let expected = |table, from| LogLedger {
        acked_rows: sum(table, Offset::ZERO),
        in_flight_rows: sum(table, from),
        end: Offset(60),
    };
    for from in (0..=60).map(Offset) {
        for table in [1, 2] {
            assert_eq!(log.ledger(partition, key(table), from).expect("within the bounds"), expected(table, from));
        }
    }
    assert_eq!(log.ledger(partition, key(3), Offset::ZERO).expect("a table of no record").acked_rows, 0);
    let beyond = log.ledger(partition, key(1), Offset(61));
    assert!(matches!(beyond, Err(ReadError::NoSuchOffset { .. })), "{beyond:?}");
    let nowhere = log.ledger(PartitionId(log.partitions()), key(1), Offset::ZERO);
    assert!(matches!(nowhere, Err(ReadError::NoSuchOffset { .. })), "{nowhere:?}");

    log.release_before(partition, Offset(50));
    log.release_before(PartitionId(1), Offset(50));
    for n in 0..20 {
        log.append(vec![block(1, 2, 1, n, 20_000)]).await.expect("the log takes blocks");
    }
    start_after_release(&*log, partition).await;
    let gone = log.ledger(partition, key(1), Offset::ZERO);
    assert!(matches!(gone, Err(ReadError::Gap { .. })), "{gone:?}");
    assert_eq!(log.ledger(partition, key(1), Offset(55)).expect("still there"), expected(1, Offset(55)));
}

/// Of a burst beyond the queue's bound each append is acked and there, or refused and not there.
pub async fn a_burst_is_refused_or_kept(log: Arc<dyn EventLog>) {
    let calls: Vec<_> = (0..256_u64)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![block(0, 1, 1, n, 100_000)]).await.map(|at| (at[0], n)) })
        })
        .collect();
    let mut kept = BTreeMap::new();
    for call in calls {
        match call.await.expect("a caller ends well") {
            Ok((at, n)) => assert_eq!(kept.insert(at.offset, n), None),
            Err(AppendError::Overloaded { retry_after }) => assert!(retry_after > Duration::ZERO),
            Err(other) => panic!("neither kept nor refused: {other}"),
        }
    }
    assert_eq!(log.load().queued_bytes, 0);
    let records = read_all(&*log, 0, Offset::ZERO);
    assert_eq!(records.len(), kept.len());
    for record in records {
        assert_eq!(record.body, block(0, 1, 1, kept[&record.offset], 100_000).body);
    }
}

/// Closing refuses what comes after, keeps what was before, and wakes who waits.
pub async fn closing_ends_it(log: Arc<dyn EventLog>) {
    log.append(vec![block(0, 1, 1, 1, 10)]).await.expect("the log takes blocks");
    let mut reader = log.reader(PartitionId(0), Offset(1)).expect("a reader at the end");
    let waiting = tokio::task::spawn_blocking(move || reader.poll(1, PATIENCE, &mut Vec::new()));
    log.close().await;
    let woken = waiting.await.expect("the reader ends well");
    assert!(matches!(woken, Err(ReadError::Closed)), "{woken:?}");
    let refused = log.append(vec![block(0, 1, 1, 1, 10)]).await;
    assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
    assert_eq!(read_all(&*log, 0, Offset::ZERO).len(), 1);
    log.close().await;
}

/// The start of a partition of which something was released, once it has moved.
async fn start_after_release(log: &dyn EventLog, partition: PartitionId) -> Offset {
    let until = Instant::now() + PATIENCE;
    loop {
        let start = log.bounds(partition).start;
        if start > Offset::ZERO {
            return start;
        }
        assert!(Instant::now() < until, "nothing was dropped of what was released");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn append_patiently(log: &dyn EventLog, blocks: Vec<Append>) -> Vec<Appended> {
    loop {
        match log.append(blocks.clone()).await {
            Ok(appended) => return appended,
            Err(AppendError::Overloaded { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("the log takes blocks: {other}"),
        }
    }
}
