//! What was acked survives; what was not is there whole or not at all.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use types::{Offset, PartitionId, TableKey};

use super::{DIR, SEGMENT_BYTES, open};
use crate::{
    Append, AppendError, EmbeddedLog, EventLog, LogLedger, ReadError,
    conformance::{block, read_all},
    faults::{Call, MemoryFiles, Outcome, seeded_faults},
};

/// What the callers know: of each offset the seed of its body, once acked.
type Acked = BTreeMap<(PartitionId, Offset), u64>;

/// Body sizes on both sides of what is copied, so that a file of tests holds a few dozens.
fn sized_block(seed: u64) -> Append {
    let size = [10, 500, 3_000, 9_000, 20_000][seed as usize % 5];
    block((seed % 3) as u32, seed % 2, 2, seed, size)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Appends blocks of seeds from `seeds`, several calls at a time; returns how many calls were acked.
fn append_some(log: &Arc<EmbeddedLog>, seeds: std::ops::Range<u64>, acked: &mut Acked) -> usize {
    run(async {
        let calls: Vec<_> = seeds
            .map(|seed| {
                let log = log.clone();
                async move { (seed, log.append(vec![sized_block(seed), sized_block(seed + 1)]).await) }
            })
            .collect();
        let mut done = 0;
        for (seed, result) in futures_of(calls).await {
            match result {
                Ok(at) => {
                    done += 1;
                    for (at, seed) in at.iter().zip([seed, seed + 1]) {
                        let before = acked.insert((at.partition, at.offset), seed);
                        assert_eq!(before, None, "an offset was given twice");
                    }
                }
                Err(AppendError::Unavailable(_)) => {}
                Err(other) => panic!("a failing disk is no {other}"),
            }
        }
        done
    })
}

/// Runs futures at the same time, in the order of their first poll.
async fn futures_of<T: Send + 'static>(calls: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = calls.into_iter().map(|call| local.spawn_local(call)).collect();
    local
        .run_until(async {
            let mut results = Vec::new();
            for task in tasks {
                results.push(task.await.unwrap());
            }
            results
        })
        .await
}

/// Every acked record is there with its bytes, offsets are dense, and what else is there is whole (reading verifies).
fn check(log: &EmbeddedLog, acked: &Acked, start: &BTreeMap<PartitionId, Offset>) {
    let mut found = 0;
    for partition in (0..3).map(PartitionId) {
        let from = log.bounds(partition).start;
        assert!(from <= start.get(&partition).copied().unwrap_or_default(), "more is gone than was released");
        let records = read_all(log, partition.0, from);
        let mut last = None;
        for (record, offset) in records.iter().zip(from.0..) {
            assert_eq!(record.offset, Offset(offset));
            assert!(last.is_none_or(|last| last <= record.append_time));
            last = Some(record.append_time);
            if let Some(seed) = acked.get(&(partition, record.offset)) {
                assert_eq!(record.body, sized_block(*seed).body);
                found += 1;
            }
        }
        found += acked.range((partition, Offset::ZERO)..(partition, from)).count();
    }
    assert_eq!(found, acked.len(), "acked records are missing");
}

/// What was ever to be read: of each record its table and its rows.
type Seen = BTreeMap<(PartitionId, Offset), (TableKey, u64)>;

/// Notes what is to be read now.
fn look(log: &EmbeddedLog, seen: &mut Seen) {
    for partition in (0..3).map(PartitionId) {
        for record in read_all(log, partition.0, log.bounds(partition).start) {
            let row = (record.header.key, u64::from(record.header.rows));
            assert_eq!(*seen.entry((partition, record.offset)).or_insert(row), row, "a record changed");
        }
    }
}

/// Every row that was ever to be read is counted once, those that are there still from any offset on.
fn check_rows(log: &EmbeddedLog, seen: &mut Seen) {
    look(log, seen);
    for partition in (0..3).map(PartitionId) {
        let bounds = log.bounds(partition);
        for table in 0..2 {
            let key = block(0, table, 0, 0, 0).header.key;
            let rows = |from| -> u64 {
                let records = seen.range((partition, from)..(partition, bounds.end));
                records.filter(|(_, (of, _))| *of == key).map(|(_, (_, rows))| rows).sum()
            };
            for applied in [bounds.start, Offset(bounds.start.0.midpoint(bounds.end.0)), bounds.end] {
                let expected =
                    LogLedger { acked_rows: rows(Offset::ZERO), in_flight_rows: rows(applied), end: bounds.end };
                assert_eq!(log.ledger(partition, key, applied).unwrap(), expected);
            }
        }
    }
}

/// Goal: the power fails at each call to the disk in turn, whatever part of the unsynced data survives: nothing acked
/// is lost, nothing is half there, and the log goes on.
#[test]
fn power_fails_at_any_call() {
    for at in 0..130 {
        for seed in 0..3 {
            let mut files = MemoryFiles::new(seed * 1_000 + at);
            files.set_plan(Box::new(move |_, n| if n >= at { Outcome::PowerOff } else { Outcome::Done }));
            let mut acked = Acked::new();
            if let Ok(log) = open(&files) {
                let log = Arc::new(log);
                for round in 0..8 {
                    append_some(&log, round * 10..round * 10 + 4, &mut acked);
                }
            }
            files.cut_power();
            let log = Arc::new(open(&files).unwrap());
            check(&log, &acked, &BTreeMap::new());
            let mut seen = Seen::new();
            check_rows(&log, &mut seen);
            assert_eq!(append_some(&log, 500..504, &mut acked), 4, "the log goes on");
            check(&log, &acked, &BTreeMap::new());
            check_rows(&log, &mut seen);
            drop(log);
            files.cut_power();
            let log = open(&files).unwrap();
            check(&log, &acked, &BTreeMap::new());
            check_rows(&log, &mut seen);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: any calls fail (no room, input and output, short writes), the process dies or the power fails, records are
    /// released, in any order and again and again: nothing acked and not released is lost.
    #[test]
    fn any_faults_at_any_time(seed: u64, one_in in 3_u64..60, ends in prop::collection::vec((any::<bool>(), 1_u64..12, any::<bool>()), 1..6)) {
        let mut files = MemoryFiles::new(seed);
        let mut acked = Acked::new();
        let mut released = BTreeMap::new();
        let mut seen = Seen::new();
        let mut next = 0;
        for (life, (power, rounds, release)) in ends.into_iter().enumerate() {
            let log = Arc::new(open(&files).unwrap());
            check(&log, &acked, &released);
            check_rows(&log, &mut seen);
            files.set_plan(seeded_faults(seed ^ life as u64, one_in));
            for _ in 0..rounds {
                append_some(&log, next..next + 3, &mut acked);
                next += 10;
            }
            if release {
                files.set_plan(crate::faults::no_faults());
                look(&log, &mut seen);
                files.set_plan(seeded_faults(seed ^ !life as u64, one_in));
                for partition in (0..3).map(PartitionId) {
                    let to = Offset(log.bounds(partition).end.0 * 2 / 3);
                    released.insert(partition, to);
                    log.release_before(partition, to);
                }
                append_some(&log, next..next + 3, &mut acked);
                next += 10;
            }
            if power {
                files.cut_power();
            } else {
                files.kill();
            }
        }
        let log = open(&files).unwrap();
        check(&log, &acked, &released);
        check_rows(&log, &mut seen);
    }
}

/// Goal: after a failed sync the pages look written and are not; a start must not take them for durable, or a second
/// crash would take back what readers have seen.
#[test]
fn a_failed_sync_is_not_believed_later() {
    for seed in 0..20 {
        let mut files = MemoryFiles::new(seed);
        let log = Arc::new(open(&files).unwrap());
        let mut acked = Acked::new();
        append_some(&log, 0..2, &mut acked);
        let mut failing = false;
        files.set_plan(Box::new(move |call, _| {
            failing |= call == Call::Sync;
            if failing { Outcome::Fail(std::io::ErrorKind::Other) } else { Outcome::Done }
        }));
        assert_eq!(append_some(&log, 10..12, &mut acked), 0);
        // The process dies before it can say where the truth ends.
        files.kill();
        drop(log);
        let seen = |log: &EmbeddedLog| {
            let bodies = |partition| read_all(log, partition, Offset::ZERO).into_iter().map(|record| record.body);
            (0..3).map(|partition| bodies(partition).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let first = open(&files).unwrap();
        check(&first, &acked, &BTreeMap::new());
        let shown = seen(&first);
        files.cut_power();
        drop(first);
        let second = open(&files).unwrap();
        assert_eq!(seen(&second), shown, "what was shown once stays");
        check(&second, &acked, &BTreeMap::new());
    }
}

/// Goal: a new file whose header was not synced and that cannot be removed looks whole to the next start; it is made so, or
/// a crash after the next file would leave a log that does not open.
#[test]
fn a_header_that_was_never_synced_is_not_believed_later() {
    for seed in 0..20 {
        let mut files = MemoryFiles::new(seed);
        let log = Arc::new(open(&files).unwrap());
        files.set_plan(Box::new(|call, _| match call {
            Call::Sync | Call::Remove => Outcome::Fail(std::io::ErrorKind::Other),
            _ => Outcome::Done,
        }));
        let mut acked = Acked::new();
        assert_eq!(append_some(&log, 0..1, &mut acked), 0);
        files.kill();
        drop(log);
        let log = Arc::new(open(&files).unwrap());
        assert_eq!(append_some(&log, 1..3, &mut acked), 2);
        files.cut_power();
        drop(log);
        check(&open(&files).unwrap(), &acked, &BTreeMap::new());
    }
}

/// Goal: of a file that could not be made a header may stay, which says where the file before it ends; that one gets no further
/// record, even one for which it had room, or the header would take it back after a crash.
#[test]
fn a_file_that_could_not_be_made_takes_nothing_back() {
    for seed in 0..20 {
        let mut files = MemoryFiles::new(seed);
        let log = Arc::new(open(&files).unwrap());
        let mut acked = Acked::new();
        // Seeds of large blocks; the file has room for all of these but the last, and for a small one after them.
        let large: Vec<u64> = (4..).step_by(5).take((SEGMENT_BYTES / 20_500) as usize + 1).collect();
        let (last, fitting) = large.split_last().unwrap();
        fitting.iter().for_each(|&large| assert_eq!(append_some(&log, large..large + 1, &mut acked), 1));
        files.set_plan(Box::new(|call, _| match call {
            Call::SyncDir | Call::Remove => Outcome::Fail(std::io::ErrorKind::Other),
            _ => Outcome::Done,
        }));
        assert_eq!(append_some(&log, *last..last + 1, &mut acked), 0);
        files.set_plan(crate::faults::no_faults());
        assert_eq!(append_some(&log, 1_000..1_001, &mut acked), 1);
        files.cut_power();
        drop(log);
        check(&open(&files).unwrap(), &acked, &BTreeMap::new());
    }
}

/// Goal: a failed group takes no offset, no row count, and harms no group after it.
#[test]
fn a_failed_group_leaves_no_trace() {
    for failing in [Call::Write, Call::Sync] {
        let files = MemoryFiles::new(7);
        let log = Arc::new(open(&files).unwrap());
        let mut acked = Acked::new();
        append_some(&log, 0..1, &mut acked);
        files.set_plan(Box::new(move |call, _| {
            if call == failing { Outcome::Fail(std::io::ErrorKind::Other) } else { Outcome::Done }
        }));
        assert_eq!(append_some(&log, 10..11, &mut acked), 0);
        files.set_plan(crate::faults::no_faults());
        assert_eq!(append_some(&log, 20..24, &mut acked), 4);
        check(&log, &acked, &BTreeMap::new());
        assert_eq!((0..3).map(|p| log.bounds(PartitionId(p)).end.0).sum::<u64>(), acked.len() as u64);
        let mut rows = BTreeMap::new();
        for record in (0..3).flat_map(|partition| read_all(&*log, partition, Offset::ZERO)) {
            let count = rows.entry((record.header.partition, record.header.key)).or_insert(0);
            *count += u64::from(record.header.rows);
            assert_eq!(record.header.appender_rows, *count);
        }
    }
}

/// Goal: every start is a new appender, whose row counts begin anew; a second one at the same time is refused.
#[test]
fn every_start_is_a_new_epoch() {
    let files = MemoryFiles::new(1);
    for epoch in 1..6 {
        let log = Arc::new(open(&files).unwrap());
        assert_eq!(log.appender().0, epoch);
        assert!(matches!(open(&files), Err(crate::OpenError::InUse(dir)) if dir.as_os_str() == DIR));
        append_some(&log, 3..4, &mut Acked::new());
        let last = read_all(&*log, 0, Offset(epoch - 1)).pop().unwrap();
        assert_eq!((last.header.appender.0, last.header.appender_rows), (epoch, 2));
        if epoch % 2 == 0 {
            run(log.close());
        }
    }
}

/// Goal: readers that wait are woken when the log is dropped.
#[test]
fn dropping_wakes_readers() {
    let log = open(&MemoryFiles::new(1)).unwrap();
    let mut reader = log.reader(PartitionId(0), Offset::ZERO).unwrap();
    let waiting = std::thread::spawn(move || reader.poll(1, std::time::Duration::from_secs(30), &mut Vec::new()));
    drop(log);
    assert!(matches!(waiting.join().unwrap(), Err(ReadError::Closed)));
}
