//! What is stored reads back as it was, and files live and go as they should.

use std::path::Path;

use proptest::prelude::*;
use types::{Offset, PartitionId, Timestamp};

use super::{DIR, EmbeddedConfig, SEGMENT_BYTES, config, open};
use crate::{
    EmbeddedLog, EventLog, FileSystem,
    conformance::{block, read_all},
    embedded::{
        frame::{Frame, FrameKey, HEAD_BYTES},
        index::{Entry, FileIndex},
        segment::{SegmentHeader, Stand, records_at},
    },
    faults::MemoryFiles,
};

/// Goal: a head survives its bytes; a damaged bit, another file's number, another log's key or a cut makes it none.
#[test]
fn heads_round_trip_and_notice_damage() {
    let header = block(3, 4, 5, 6, 70).header;
    let (partition, offset, append_time) = (PartitionId(3), Offset(1 << 40), Timestamp(-5));
    let frame = Frame { partition, offset, append_time, file: 9, durable_to: 4_096, header };
    let mut bytes = Vec::new();
    let key = FrameKey(11);
    frame.encode_into(key, &mut bytes);
    assert_eq!((bytes.len(), Frame::decode(&bytes, key, 9)), (HEAD_BYTES, Some(frame)));
    assert_eq!((Frame::decode(&bytes, key, 8), Frame::decode(&bytes[..HEAD_BYTES - 1], key, 9)), (None, None));
    assert_eq!(Frame::decode(&bytes, FrameKey(0), 9), None);
    for bit in 0..HEAD_BYTES * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Frame::decode(&bytes, key, 9), None, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

fn stands() -> impl Strategy<Value = Vec<Stand>> {
    let stand = (0..u64::MAX / 2, any::<i64>());
    let stand = stand.prop_map(|(next, time)| Stand { next: Offset(next), last_time: Timestamp(time) });
    prop::collection::vec(stand, 1..700)
}

proptest! {
    /// Goal: a file's header survives its bytes, the loss of either copy, but not of both.
    #[test]
    fn headers_round_trip(base in stands(), number: u64, previous_end: u64, at: prop::sample::Index) {
        let partitions = base.len();
        let header = SegmentHeader { number, previous: number / 2, previous_end, base };
        let bytes = header.encode();
        prop_assert_eq!(bytes.len() as u64, records_at(partitions));
        let at = at.index(40 + 16 * partitions + 8);
        for copies in [vec![0], vec![1], vec![0, 1]] {
            let mut damaged = bytes.clone();
            copies.iter().for_each(|copy| damaged[copy * bytes.len() / 2 + at] ^= 4);
            let expected = (copies.len() == 1).then(|| header.clone());
            prop_assert_eq!(SegmentHeader::decode(&damaged, partitions), expected);
        }
        prop_assert_eq!(SegmentHeader::decode(&bytes, partitions + 1), None);
    }

    /// Goal: an index survives its bytes and nothing else does: a damaged bit, a cut, another file's number.
    #[test]
    fn indexes_round_trip(
        records in prop::collection::vec((0..3_usize, 0..1_u64 << 33, any::<u32>(), any::<i64>(), 0..9_u8), 0..50),
        at: prop::sample::Index,
    ) {
        let base = vec![Stand { next: Offset(7), last_time: Timestamp(1) }; 3];
        let mut index = FileIndex::new(base.clone());
        for (partition, position, body_len, time, hole) in records {
            let time = Timestamp(time);
            let entry = if hole == 0 { Entry::hole(time) } else { Entry::at(position * 8 / 2 / 8 * 8, body_len, time) };
            index.push(partition, entry);
        }
        let bytes = index.encode(5, 600);
        prop_assert_eq!(FileIndex::decode(&bytes, 5, base.clone()), Some((index, 600)));
        prop_assert_eq!(FileIndex::decode(&bytes, 6, base.clone()), None);
        let at = at.index(bytes.len());
        prop_assert_eq!(FileIndex::decode(&bytes[..at], 5, base.clone()), None);
        let mut damaged = bytes;
        damaged[at] ^= 32;
        prop_assert_eq!(FileIndex::decode(&damaged, 5, base), None);
    }
}

fn names(files: &MemoryFiles, ending: &str) -> Vec<String> {
    files.list(Path::new(DIR)).unwrap().into_iter().filter(|name| name.ends_with(ending)).collect()
}

async fn fill(log: &EmbeddedLog, blocks: u64) {
    for n in 0..blocks {
        log.append(vec![block((n % 3) as u32, 1, 1, n, 20_000)]).await.unwrap();
    }
}

fn release_all(log: &EmbeddedLog) {
    for partition in (0..3).map(PartitionId) {
        log.release_before(partition, log.bounds(partition).end);
    }
}

/// Goal: a file goes when all partitions have released it, not before; its room is used again; a start continues.
#[tokio::test]
async fn released_files_are_used_again() {
    let mut files = MemoryFiles::new(1);
    let log = open(&files).unwrap();
    fill(&log, 30).await;
    let before = names(&files, ".log").len();
    assert!(before >= 7);
    for partition in [PartitionId(0), PartitionId(1)] {
        log.release_before(partition, log.bounds(partition).end);
    }
    fill(&log, 3).await;
    assert!(names(&files, ".log").len() >= before, "one partition has released nothing");
    release_all(&log);
    fill(&log, 6).await;
    assert!(names(&files, ".log").len() <= 3);
    fill(&log, 60).await;
    let lengths = || names(&files, ".log").iter().map(|n| files.contents(&Path::new(DIR).join(n)).unwrap().len()).max();
    assert_eq!(lengths(), Some(SEGMENT_BYTES as usize));
    let bounds: Vec<_> = (0..3).map(|partition| log.bounds(PartitionId(partition))).collect();
    files.kill();
    drop(log);
    let log = open(&files).unwrap();
    assert_eq!(bounds, (0..3).map(|partition| log.bounds(PartitionId(partition))).collect::<Vec<_>>());
    for partition in 0..3 {
        let bounds = log.bounds(PartitionId(partition));
        assert_eq!(read_all(&log, partition, bounds.start).len() as u64, bounds.end.0 - bounds.start.0);
    }
}

/// Goal: offsets go on after all records of all partitions are gone and the process has died.
#[tokio::test]
async fn offsets_outlive_their_records() {
    let mut files = MemoryFiles::new(1);
    for round in 0..5 {
        let log = open(&files).unwrap();
        fill(&log, 12).await;
        release_all(&log);
        assert_eq!(log.bounds(PartitionId(2)).end, Offset(4 * (round + 1)));
        if round % 2 == 0 {
            files.kill();
        }
    }
}

/// Goal: bytes that shall stay on disk stay, released or not.
#[tokio::test]
async fn retention_keeps_its_minimum() {
    let files = MemoryFiles::new(1);
    let config = EmbeddedConfig { retention_bytes_min: 5 * SEGMENT_BYTES, ..config(Path::new(DIR)) };
    let log =
        EmbeddedLog::open(config, std::sync::Arc::new(files.clone()), std::sync::Arc::new(super::ticking_clock()))
            .unwrap();
    for _ in 0..60 {
        fill(&log, 1).await;
        release_all(&log);
    }
    assert!((6..=8).contains(&names(&files, ".log").len()), "{:?}", names(&files, ".log"));
}

/// Goal: a start that finds sealed files reads their headers and no more.
#[tokio::test]
async fn a_start_reads_little() {
    let mut files = MemoryFiles::new(1);
    fill(&open(&files).unwrap(), 400).await;
    files.kill();
    let log = open(&files).unwrap();
    let sealed = names(&files, ".log").len() as u64;
    assert_eq!(log.recovery().files, sealed);
    assert!(sealed > 90 && files.calls() < 6 * sealed, "{} calls for {sealed} files", files.calls());
    assert_eq!(read_all(&log, 0, Offset::ZERO).len(), 134);
}
