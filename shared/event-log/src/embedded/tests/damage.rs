//! Torn tails are cut, damage is named, nothing is skipped.

use std::path::{Path, PathBuf};

use types::{Offset, PartitionId};

use super::{DIR, config, open};
use crate::{
    EmbeddedLog, EventLog, OpenError, ReadError, Record,
    conformance::block,
    embedded::{
        frame::{Frame, FrameKey, HEAD_BYTES, stored_bytes},
        segment::records_at,
    },
    faults::MemoryFiles,
};

const SIZES: [usize; 6] = [40, 1_000, 7, 300, 0, 90];

fn log_path(number: u64) -> PathBuf {
    Path::new(DIR).join(format!("{number:020}.log"))
}

/// Appends one block a call, so a group each; the partition alternates.
fn append_each(log: &EmbeddedLog, sizes: &[usize]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (n, size) in (0_u32..).zip(sizes) {
        runtime.block_on(log.append(vec![block(n % 2, 1, 1, u64::from(n), *size)])).unwrap();
    }
}

/// What a partition gives, record by record, damage included.
fn read_each(log: &EmbeddedLog, partition: u32) -> Vec<Result<Record, Offset>> {
    let partition = PartitionId(partition);
    let bounds = log.bounds(partition);
    let read = |offset| {
        let mut records = Vec::new();
        let mut reader = log.reader(partition, Offset(offset)).unwrap();
        match reader.poll(1, std::time::Duration::ZERO, &mut records) {
            Ok(1) => Ok(records.remove(0)),
            Err(ReadError::Corrupt { offset, .. }) => Err(offset),
            other => panic!("neither a record nor damage: {other:?}"),
        }
    };
    (bounds.start.0..bounds.end.0).map(read).collect()
}

/// The file of a process that died after appending `SIZES`, with the ends of its records.
fn dead_log() -> (MemoryFiles, Vec<u8>, Vec<usize>) {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    append_each(&log, &SIZES);
    files.kill();
    drop(log);
    let bytes = files.contents(&log_path(1)).unwrap();
    let mut end = usize::try_from(records_at(3)).unwrap();
    let ends = SIZES.map(|size| {
        end += crate::embedded::frame::stored_bytes(size as u32) as usize;
        end
    });
    (files, bytes, ends.to_vec())
}

/// Goal: a file cut off at any byte of its last records opens with the records before the cut, whole.
#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let (mut files, bytes, ends) = dead_log();
    for cut in ends[2]..=ends[5] {
        for zeros in [false, true] {
            files.damage(&log_path(1), |file| {
                file.clear();
                file.extend_from_slice(&bytes[..cut]);
                if zeros {
                    file.resize(bytes.len(), 0);
                }
            });
            let log = open(&files).unwrap();
            let records: Vec<_> = (0..2).flat_map(|partition| read_each(&log, partition)).collect();
            // Of the last bytes of a record some are padding, and zeros like those that were there.
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert!((whole..=whole + usize::from(zeros || cut + 8 > ends[whole.min(5)])).contains(&records.len()));
            assert!(records.iter().all(Result::is_ok));
            append_each(&log, &[5, 5]);
            files.kill();
            drop(log);
            assert!(open(&files).unwrap().bounds(PartitionId(0)).end.0 >= 2);
            files.kill();
            remove_all_but_first(&files);
        }
    }
}

fn remove_all_but_first(files: &MemoryFiles) {
    use crate::FileSystem as _;
    let dir = Path::new(DIR);
    for name in files.list(dir).unwrap() {
        if name != "manifest" && name != "00000000000000000001.log" {
            files.remove(&dir.join(name)).unwrap();
        }
    }
}

/// Goal: any flipped bit of a stored record is noticed: as damage of exactly that record where something after it
/// shows that it was synced, as a torn tail in the last group, as a refusal to open where it cannot be told whose the
/// record was. Its neighbours stay readable, and no offset is given twice.
#[test]
fn flipped_bits_are_noticed_in_a_file_left_open() {
    let (mut files, bytes, ends) = dead_log();
    let start = ends[0];
    for bit in (start * 8..ends[5] * 8).step_by(3) {
        let record = ends.iter().filter(|end| **end <= bit / 8).count();
        let body_end = ends[record - 1] + crate::embedded::frame::HEAD_BYTES + SIZES[record];
        if bit / 8 >= body_end {
            continue; // padding holds nothing
        }
        files.damage(&log_path(1), |file| {
            file.clone_from(&bytes);
            file[bit / 8] ^= 1 << (bit % 8);
        });
        match open(&files) {
            Err(OpenError::Damaged { .. }) => {}
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(log) => {
                let read = [read_each(&log, 0), read_each(&log, 1)];
                let records: Vec<_> = (0..SIZES.len()).map(|n| read[n % 2].get(n / 2)).collect();
                for (n, record_read) in records.into_iter().enumerate() {
                    match record_read {
                        Some(Ok(read)) if n != record => assert_eq!(read.body, block(0, 1, 1, n as u64, SIZES[n]).body),
                        Some(Err(offset)) if n == record => assert_eq!(offset.0, n as u64 / 2),
                        None if n == record && n == SIZES.len() - 1 => {}
                        other => panic!("bit {bit} of record {record}: record {n} is {other:?}"),
                    }
                }
            }
        }
        files.kill();
        remove_all_but_first(&files);
    }
}

/// Goal: in a file that was closed in order, with or without its index, any flipped bit of a record is damage of
/// exactly that record; a damaged index is made again.
#[test]
fn flipped_bits_are_noticed_in_a_sealed_file() {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    append_each(&log, &SIZES);
    drop(log);
    let log = open(&files).unwrap();
    append_each(&log, &[1, 1]); // a second file, which says where the first ends
    drop(log);
    let (bytes, start) = (files.contents(&log_path(1)).unwrap(), usize::try_from(records_at(3)).unwrap());
    let index_path = log_path(1).with_extension("idx");
    for (round, bit) in (start * 8..bytes.len() * 8).step_by(5).enumerate() {
        files.damage(&log_path(1), |file| {
            file.clone_from(&bytes);
            file[bit / 8] ^= 1 << (bit % 8);
        });
        if round % 2 == 0 {
            files.damage(&index_path, |file| {
                let at = round % file.len();
                file[at] ^= 1;
            });
        }
        let log = open(&files).unwrap();
        let read: Vec<_> = (0..2).flat_map(|partition| read_each(&log, partition)).collect();
        assert_eq!(read.len(), SIZES.len() + 2);
        let damaged = read.iter().filter(|record| record.is_err()).count();
        assert!(damaged <= 1, "bit {bit}: one record was damaged, {damaged} are");
        if damaged == 0 {
            let whole = |(n, record): (usize, &Result<Record, Offset>)| {
                record.as_ref().unwrap().body == block(0, 1, 1, n as u64, SIZES[n]).body
            };
            // Each partition has three records of the first file, then one of the second.
            assert!(whole((0, &read[0])) && whole((1, &read[4])));
            assert!(is_padding(bit / 8, start), "bit {bit} of a record was not noticed");
        }
        files.kill();
        drop(log);
    }
}

fn is_padding(at: usize, start: usize) -> bool {
    let mut position = start;
    SIZES.iter().any(|size| {
        let body_end = position + crate::embedded::frame::HEAD_BYTES + size;
        position += crate::embedded::frame::stored_bytes(*size as u32) as usize;
        (body_end..position).contains(&at)
    })
}

/// Goal: a record that a client wrote into the body of its block is not taken for one where a crash tore the head before it;
/// with the log's key it would be.
#[test]
fn a_forged_record_is_not_taken() {
    let key = FrameKey(0x5EED);
    for (forged_with, taken) in [(FrameKey(0), false), (FrameKey(1), false), (key, true)] {
        let mut files = MemoryFiles::new(1);
        let config = super::EmbeddedConfig { frame_key: Some(key.0), ..config(Path::new(DIR)) };
        let clock = std::sync::Arc::new(super::ticking_clock());
        let log = EmbeddedLog::open(config, std::sync::Arc::new(files.clone()), clock).unwrap();
        append_each(&log, &[40]);
        let torn_at = usize::try_from(records_at(3)).unwrap() + stored_bytes(40) as usize;
        let mut evil = block(0, 1, 1, 2, 0);
        let header = evil.header;
        let frame = Frame {
            partition: PartitionId(0),
            offset: Offset(1),
            append_time: types::Timestamp(1 << 40),
            file: 1,
            durable_to: 1 << 30,
            header,
        };
        let mut body = Vec::new();
        frame.encode_into(forged_with, &mut body);
        evil.header.body_len = body.len() as u32;
        evil.header.body_checksum = xxhash_rust::xxh3::xxh3_64(&body);
        evil.body = body.into();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(log.append(vec![evil])).unwrap();
        files.kill();
        drop(log);
        files.damage(&log_path(1), |file| file[torn_at..torn_at + HEAD_BYTES].fill(0));
        let opened = open(&files);
        let kept = opened.as_ref().map(|log| log.bounds(PartitionId(0)).end.0);
        assert_eq!(matches!(kept, Ok(1)), !taken, "{kept:?}");
    }
}

/// Goal: a log of another format is refused by its version, not taken for damaged or for a new one.
#[test]
fn another_format_is_refused_by_name() {
    let files = MemoryFiles::new(1);
    append_each(&open(&files).unwrap(), &[10]);
    let manifest = Path::new(DIR).join("manifest");
    files.damage(&manifest, |file| file[4_096 + 4] = 1);
    let refused = open(&files).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, OpenError::Version { found: 1, read: 3, .. }), "{refused}");
}

/// Goal: a file in the middle that lost its header or is gone stops the start; one damaged copy of a header does not.
#[test]
fn a_missing_file_is_not_skipped() {
    let files = MemoryFiles::new(1);
    for _ in 0..3 {
        append_each(&open(&files).unwrap(), &[10, 20]);
    }
    files.damage(&log_path(2), |file| file[16] ^= 1);
    assert_eq!(open(&files).unwrap().bounds(PartitionId(0)).end, Offset(3));
    files.damage(&log_path(2), |file| file[4_096 + 16] ^= 1);
    assert!(matches!(open(&files), Err(OpenError::Damaged { path, .. }) if path == log_path(2)));
    crate::FileSystem::remove(&files, &log_path(2)).unwrap();
    assert!(matches!(open(&files), Err(OpenError::Damaged { path, .. }) if path == log_path(3)));
}

/// Goal: a log whose manifest is gone or damaged is not taken for a new one.
#[test]
fn a_lost_manifest_is_not_replaced() {
    let files = MemoryFiles::new(1);
    append_each(&open(&files).unwrap(), &[10]);
    let manifest = Path::new(DIR).join("manifest");
    files.damage(&manifest, |file| file[4_096 + 16] ^= 1);
    assert!(matches!(open(&files), Err(OpenError::Damaged { path, .. }) if path == manifest));
}

/// Goal: a log keeps its partitions whatever it is told later.
#[test]
fn the_number_of_partitions_is_fixed() {
    let files: std::sync::Arc<MemoryFiles> = MemoryFiles::new(1).into();
    let with = |partitions| {
        let config = super::EmbeddedConfig { partitions, ..config(Path::new(DIR)) };
        EmbeddedLog::open(config, files.clone(), std::sync::Arc::new(super::ticking_clock()))
    };
    assert_eq!(with(3).unwrap().partitions(), 3);
    assert_eq!(with(5).unwrap().partitions(), 3);
    assert!(matches!(with(0), Err(OpenError::Config { field: "partitions", .. })));
}

/// Goal: the very first start may end at any byte of the manifest that it writes; the next one begins the log anew.
#[test]
fn a_first_start_may_end_anywhere_in_the_manifest() {
    let path = Path::new(DIR).join("manifest");
    let whole = MemoryFiles::new(1);
    drop(open(&whole).unwrap());
    let first = whole.contents(&path).unwrap();
    for written in 0..56 {
        let files = MemoryFiles::new(1);
        drop(open(&files).unwrap());
        files.damage(&path, |bytes| {
            bytes.fill(0);
            // The first epoch is written to the second slot.
            bytes[4_096..4_096 + written].copy_from_slice(&first[4_096..4_096 + written]);
        });
        assert_eq!(open(&files).unwrap().appender().0, 1, "{written} bytes were written");
    }
}

/// Goal: a log keeps its identity from start to start, and one that was made before logs had any gets one at its next start,
/// with what it holds and the rest of its manifest as they were.
#[test]
fn a_log_keeps_its_identity() {
    let files = MemoryFiles::new(1);
    let of = |log: &EmbeddedLog| (log.identity(), log.appender().0, log.bounds(PartitionId(0)).end, log.partitions());
    let log = open(&files).unwrap();
    append_each(&log, &[10]);
    let (drawn, ..) = of(&log);
    drop(log);
    assert_eq!(of(&open(&files).unwrap()), (drawn, 2, Offset(1), 3));

    // As version 2 wrote it: what is behind the key is the checksum.
    let manifest = Path::new(DIR).join("manifest");
    files.damage(&manifest, |file| {
        for slot in [0, 4_096] {
            file[slot + 4] = 2;
            let checksum = xxhash_rust::xxh3::xxh3_64(&file[slot..slot + 32]);
            file[slot + 32..slot + 56].fill(0);
            file[slot + 32..slot + 40].copy_from_slice(&checksum.to_le_bytes());
        }
    });
    let mended = of(&open(&files).unwrap());
    assert_eq!((mended.1, mended.2, mended.3), (3, Offset(1), 3));
    assert_ne!(mended.0, drawn);
    assert_ne!(mended.0, types::LogIdentity(0));
    let versions = files.contents(&manifest).map(|file| [file[4], file[4_096 + 4]]);
    assert_eq!(versions, Some([3; 2]), "the program before would go on from its slot");
    assert_eq!(of(&open(&files).unwrap()), (mended.0, 4, Offset(1), 3));
}
