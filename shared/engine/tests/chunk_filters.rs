//! The filters of chunks against the codes that stand there.
#![cfg(not(loom))]

mod disk_runs;
mod kept;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use disk_runs::{Disk, Runs};
use engine::{
    CHUNK_ROWS, Codes, ColumnIndex, Limits, MemoryBudget, SegmentView, TableSnapshot, horizon_alone,
    partition_with_runs, restore,
};
use kept::Kept;
use rows::{PARTITION, Row, apply, table_key};
use types::{ColumnKind, Offset};

/// Blocks that end at any row of a chunk.
const BLOCK_ROWS: [usize; 4] = [5_000, 4_096, 9_001, 3];
/// More strings than a code of two bytes has.
const USERS: usize = 80_000;

fn rows(first: usize, count: usize) -> Vec<Row> {
    let row = |n: usize| Row {
        // Two slots, of which the first closes.
        time: (n as i64 / 150_000) * 60_000_000,
        dimensions: BTreeMap::from([("user".to_owned(), format!("user {}", n * 7_919 % USERS))]),
        metrics: BTreeMap::new(),
    };
    (first..first + count).map(row).collect()
}

fn user(snapshot: &TableSnapshot) -> ColumnIndex {
    snapshot.column("user", ColumnKind::Dimension).expect("all rows have it")
}

/// How many chunks have filters, how many codes that are not there were looked for, and how many of them were found.
fn check(segment: &SegmentView, column: ColumnIndex) -> (usize, usize, usize) {
    let Some(Codes::U32(codes)) = segment.codes(column) else {
        assert_eq!(segment.may_hold(column, &[1]).count(), 0, "narrow codes have no filters");
        return (0, 0, 0);
    };
    let (mut chunks, mut looked_for, mut found) = (0, 0, 0);
    let full = codes.as_chunks::<CHUNK_ROWS>().0;
    for (chunk, codes) in full.iter().enumerate() {
        let there: BTreeSet<u32> = codes.iter().copied().collect();
        // The segments of a test are many: a few codes of each chunk do, its first and last row among them.
        for &code in codes.iter().step_by(273).chain(codes.last()) {
            let held: Vec<bool> = segment.may_hold(column, &[u32::MAX, code]).collect();
            assert!(held.len() == full.len() && held[chunk], "code {code} of chunk {chunk}");
        }
        for code in (0..50).map(|n| n * 1_597).filter(|code| !there.contains(code)) {
            looked_for += 1;
            found += usize::from(segment.may_hold(column, &[code]).nth(chunk) == Some(true));
        }
        chunks += 1;
    }
    (chunks, looked_for, found)
}

/// Goal: whatever blocks the rows of a chunk came in, its filter names each of its codes and few others: in segments that are
/// written to, in such that are sealed or copied to their size, at an earlier offset, where the last chunks are cut, and in
/// those of a partition that was restored in parts of other sizes.
#[test]
fn filters_name_the_codes_of_their_chunks() {
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let disk = Disk::default();
    let runs = Box::new(Runs::on(&disk));
    let (mut writer, reader) =
        partition_with_runs(PARTITION, Offset::ZERO, Limits::default(), Arc::clone(&budget), runs);
    let (key, mut sent) = (table_key(1, 1), 0);
    for rows_of_block in BLOCK_ROWS.into_iter().cycle().take(110) {
        apply(&mut writer, 1_000_000_000, key, &rows(sent, rows_of_block));
        sent += rows_of_block;
    }
    writer.housekeep();
    let now = reader.snapshot(key).expect("it has rows");
    let earlier = reader.snapshots_at(&[key], Offset(70)).expect("it was applied").remove(0).expect("it had rows");
    let mut kept = Kept::of(&writer, &Kept::default(), 10_000);
    let mut runs = Runs::on(&disk);
    let restored = restore(PARTITION, &mut kept, Limits::default(), &budget, &mut runs, &mut horizon_alone(&budget))
        .expect("whole");
    kept.rename(restored.names());
    let (_writer, restored) = restored.into_partition(Box::new(runs));
    let restored = restored.snapshot(key).expect("it has rows");
    let whole = sent / CHUNK_ROWS / 2;
    for (snapshot, least) in [(now, whole), (earlier, whole / 2), (restored, whole)] {
        let column = user(&snapshot);
        let of_segments: Vec<_> = snapshot.segments().iter().map(|segment| check(segment, column)).collect();
        let chunks: usize = of_segments.iter().map(|(chunks, ..)| chunks).sum();
        assert!(chunks >= least, "{chunks} chunks have filters");
        let (looked_for, found) = of_segments.iter().fold((0, 0), |all, of| (all.0 + of.1, all.1 + of.2));
        assert!(found * 15 < looked_for, "{found} of {looked_for}");
    }
}
