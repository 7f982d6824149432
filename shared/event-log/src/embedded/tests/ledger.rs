//! Row counts over starts: what is stored beside the files, and what makes up for it where it is gone.

use std::{io::ErrorKind, path::Path};

use bytes::Bytes;
use codec::{BlockKind, ControlRecord};
use types::{Offset, PartitionId, TableKey};
use xxhash_rust::xxh3::xxh3_64;

use super::{DIR, open};
use crate::{
    Append, EmbeddedLog, EventLog, FileSystem,
    conformance::block,
    embedded::{
        frame::{HEAD_BYTES, stored_bytes},
        segment::{index_name, log_name, records_at, totals_name},
        totals::{RowTotals, TotalsAt},
    },
    faults::{MemoryFiles, Outcome},
};

fn key(table: u64) -> TableKey {
    block(0, table, 0, 0, 0).header.key
}

fn append(log: &EmbeddedLog, block: Append) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(log.append(vec![block])).unwrap();
}

fn acked(log: &EmbeddedLog, table: u64) -> u64 {
    let partition = PartitionId(0);
    log.ledger(partition, key(table), log.bounds(partition).end).unwrap().acked_rows
}

fn drop_table(table: u64) -> Append {
    let mut control = block(0, table, 0, 0, 0);
    control.body = Bytes::from(ControlRecord::TableDropped(key(table)).encode());
    control.header.kind = BlockKind::Control;
    control.header.body_len = control.body.len() as u32;
    control.header.body_checksum = xxh3_64(&control.body);
    control
}

/// The numbers of the files of records.
fn logs(files: &MemoryFiles) -> Vec<u64> {
    let names = files.list(Path::new(DIR)).unwrap();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Goal: a call that fails while a log is opened, whichever, lets the start fail or does no harm: what was counted of
/// records that are gone is not given up because it cannot be read now.
#[test]
fn a_failing_call_at_a_start_loses_no_count() {
    for at in 0..60 {
        let mut files = MemoryFiles::new(at);
        let mut rows = 0;
        for _ in 0..3 {
            let log = open(&files).unwrap();
            for n in 0..12 {
                append(&log, block(0, 1, 3, n, 20_000));
                rows += 3;
            }
            (0..3).for_each(|partition| log.release_before(PartitionId(partition), log.bounds(PartitionId(0)).end));
            append(&log, block(0, 1, 3, 99, 20_000));
            rows += 3;
            files.kill();
        }
        assert!(logs(&files)[0] > 1, "the first file was released");
        files.set_plan(Box::new(move |_, n| if n == at { Outcome::Fail(ErrorKind::Other) } else { Outcome::Done }));
        if let Ok(log) = open(&files) {
            assert_eq!(acked(&log, 1), rows, "call {at} failed");
        }
        files.kill();
        assert_eq!(acked(&open(&files).unwrap(), 1), rows, "after call {at} failed");
    }
}

/// Goal: counts are the same after every start, however the last life ended, over many files, with the older ones
/// released; any one file of counts may be lost or damaged as long as the records that it sums up are there.
#[test]
fn counts_outlive_lives_and_records() {
    let mut files = MemoryFiles::new(1);
    let mut rows = 0;
    for life in 0..6 {
        let log = open(&files).unwrap();
        assert_eq!(acked(&log, 1), rows, "life {life}");
        for n in 0..12 {
            append(&log, block(0, 1, 3, n, 20_000));
            rows += 3;
        }
        assert_eq!(acked(&log, 1), rows);
        let released = Offset(log.bounds(PartitionId(0)).end.0.saturating_sub(20));
        (0..3).for_each(|partition| log.release_before(PartitionId(partition), released));
        if life % 2 == 0 {
            files.kill();
        }
    }
    files.kill();
    let numbers = logs(&files);
    assert!(numbers[0] > 3 && numbers.len() > 2, "{numbers:?}");
    for number in numbers[1]..=numbers.last().unwrap() + 1 {
        for damaged in [false, true] {
            let path = Path::new(DIR).join(totals_name(number));
            let Some(bytes) = files.contents(&path) else { continue };
            if damaged {
                files.damage(&path, |file| file.fill(7));
            } else {
                files.remove(&path).unwrap();
            }
            let log = open(&files).unwrap();
            assert_eq!(acked(&log, 1), rows, "file {number}, damaged: {damaged}");
            files.kill();
            drop(log);
            if files.contents(&path).is_some() {
                files.damage(&path, |file| file.clone_from(&bytes));
            }
        }
    }
}

/// Goal: a log from before there were counts is counted at its first start, and not again at the next.
#[test]
fn a_log_without_counts_is_counted_once() {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    (0..40).for_each(|n| append(&log, block(0, 1, 5, n, 20_000)));
    drop(log);
    let numbers = logs(&files);
    for number in &numbers {
        let _ = files.remove(&Path::new(DIR).join(totals_name(number + 1)));
    }
    assert_eq!(acked(&open(&files).unwrap(), 1), 200);
    files.kill();
    // Were it counted again, these records would be missed now.
    files.damage(&Path::new(DIR).join(log_name(numbers[1])), |file| {
        let records = usize::try_from(records_at(3)).unwrap();
        file[records..].fill(1);
    });
    assert_eq!(acked(&open(&files).unwrap(), 1), 200);
}

/// Goal: of records that are damaged in the last file the rows are counted all the same, where a later record of the
/// table tells of them: a loss must show in the ledger, not vanish from it.
#[test]
fn damaged_rows_stay_counted() {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    (0..5).for_each(|n| append(&log, block(0, 1, 10 + n, u64::from(n), 100)));
    // Later records of all partitions: it can be told whose the damaged one was.
    (1..3).for_each(|partition| append(&log, block(partition, 1, 1, 1, 100)));
    files.kill();
    drop(log);
    let path = Path::new(DIR).join(log_name(1));
    let bytes = files.contents(&path).unwrap();
    let second = usize::try_from(records_at(3)).unwrap() + stored_bytes(100) as usize;
    for damage in [&[8][..], &[HEAD_BYTES], &[8, 60]] {
        files.damage(&path, |file| {
            file.clone_from(&bytes);
            damage.iter().for_each(|at| file[second + at] ^= 1);
        });
        let log = open(&files).unwrap();
        assert_eq!(log.recovery().damaged_records, 1);
        assert_eq!(acked(&log, 1), 10 + 11 + 12 + 13 + 14, "damage at {damage:?}");
        files.kill();
        drop(log);
        for name in [index_name(1), totals_name(2)] {
            files.remove(&Path::new(DIR).join(name)).unwrap();
        }
    }
}

/// Goal: a life of a table that ended is counted no more, neither while it runs nor after a start; others stay.
#[test]
fn ended_lives_are_forgotten() {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    for table in [1, 2] {
        append(&log, block(0, table, 4, 1, 100));
    }
    append(&log, drop_table(1));
    assert_eq!((acked(&log, 1), acked(&log, 2)), (0, 4));
    files.kill();
    drop(log);
    let log = open(&files).unwrap();
    assert_eq!((acked(&log, 1), acked(&log, 2)), (0, 4));
}

/// Goal: counts survive their bytes and the loss of either copy; a cut, both copies damaged, or another place make them none.
#[test]
fn counts_round_trip_and_notice_damage() {
    let mut totals = RowTotals::default();
    for n in 0..9 {
        totals.add(&block(n % 3, u64::from(n / 3), n, 1, 0).header, &[]);
    }
    let at = TotalsAt { number: 7, previous_end: 800 };
    let bytes = totals.encode(at);
    assert_eq!(RowTotals::decode(&bytes, at), Some(totals.clone()));
    assert_eq!(RowTotals::decode(&bytes, TotalsAt { number: 8, ..at }), None);
    assert_eq!(RowTotals::decode(&bytes, TotalsAt { previous_end: 808, ..at }), None);
    let half = bytes.len() / 2;
    for byte in 0..half {
        assert_eq!(RowTotals::decode(&bytes[..byte], at), None);
        let mut damaged = bytes.clone();
        damaged[byte] ^= 1;
        assert_eq!(RowTotals::decode(&damaged, at), Some(totals.clone()));
        damaged[half + (byte + 5) % half] ^= 1;
        assert_eq!(RowTotals::decode(&damaged, at), None);
    }
}
