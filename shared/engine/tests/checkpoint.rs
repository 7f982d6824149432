//! A partition that is captured, restored and sent the rest of its log, against one that never stopped.
#![cfg(not(loom))]

mod disk_runs;
mod kept;
mod plain_rollup;
mod rows;

use std::sync::Arc;

use codec::{BlockHeader, BodyView};
use disk_runs::{Disk, Runs};
use engine::{
    Limits, MemoryBudget, Reader, SegmentView, TableSnapshot, Writer, horizon_alone, partition_with_runs, restore,
};
use kept::Kept;
use proptest::prelude::*;
use rows::{PARTITION, Row, block_with_ids, decode, table_key};
use types::{
    GapReason, Interval, LogGap, Offset, PartitionId, Rollup, Schema, Table, TableKey, TableName, TableSettings,
    Timestamp,
};

/// Sizes so small that every case comes up within a few rows.
fn tiny() -> Limits {
    Limits {
        segment_rows_first: 2,
        segment_rows_max: 8,
        open_slots_max: 3,
        idle_rows: 12,
        slot_width_us: 10,
        slots_opened_max: 6,
        slot_rows_min: 4,
        straggler_rows_max: 5,
        dictionary_entries_max: 4,
        dictionary_bytes_max: u64::MAX,
        recent_ids_max: 6,
        folded_rows_max: 1 << 20,
        hash_seed: 3,
    }
}

#[derive(Debug, Clone)]
enum Op {
    Block {
        table: u64,
        rows: Vec<(Row, Option<u8>)>,
        after_us: i64,
    },
    /// A record that cannot be applied.
    Bad {
        table: u64,
    },
    /// Records that left the log before they were read.
    Gone {
        records: u64,
    },
    Configure {
        table: u64,
        hot_window_us: Option<i64>,
        dedup_window_us: i64,
        lateness_us: i64,
        rollups: Vec<Rollup>,
    },
    Drop {
        table: u64,
    },
    Housekeep,
}

/// Mostly small integers, so that segments hold decimals; also numbers with places, and doubles that are no decimals. Their
/// sums are exact, in whatever order rollups take them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        12 => (-5_i32..5).prop_map(f64::from),
        3 => (-900_i32..900).prop_map(|quarters| f64::from(quarters) / 4.0),
        1 => prop::sample::select(vec![0.0, 1.0 / 512.0]),
    ]
}

fn row() -> impl Strategy<Value = (Row, Option<u8>)> {
    let dimensions = prop::collection::btree_map("[a-c]", "[x-z]{1,2}|long value that fits no slot [x-z]", 0..3);
    let metrics = prop::collection::btree_map("[m-n]", value(), 0..3);
    let time = prop_oneof![4 => 0_i64..60, 1 => -200_i64..400];
    (time, dimensions, metrics, prop::option::of(0_u8..40))
        .prop_map(|(time, dimensions, metrics, id)| (Row { time, dimensions, metrics }, id))
}

/// Some are kept longer than rows, some are not, some for ever.
fn rollup() -> impl Strategy<Value = Rollup> {
    let keep_us = prop::sample::select(vec![None, Some(100), Some(1_000_000_000_000)]);
    (prop::sample::select(vec![1, 10]), prop::bool::ANY, keep_us).prop_map(|(interval, is_grouped, keep_us)| Rollup {
        interval: Interval::from_micros(interval).unwrap(),
        group_by: if is_grouped { vec!["a".to_owned()] } else { Vec::new() },
        distinct: vec!["b".to_owned()],
        percentiles: vec!["m".to_owned()],
        top: vec!["c".to_owned()],
        keep_us,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let after_us = prop_oneof![3 => 0_i64..10, 1 => 0_i64..300, 1 => 0_i64..700_000_000];
    prop_oneof![
        16 => (0_u64..3, prop::collection::vec(row(), 1..12), after_us)
            .prop_map(|(table, rows, after_us)| Op::Block { table, rows, after_us }),
        1 => (0_u64..3).prop_map(|table| Op::Bad { table }),
        2 => (0_u64..3, prop::option::of(5_i64..100), 1_i64..400, 0_i64..20, prop::collection::vec(rollup(), 0..3)).prop_map(
            |(table, hot_window_us, dedup_window_us, lateness_us, rollups)| {
                Op::Configure { table, hot_window_us, dedup_window_us, lateness_us, rollups }
            }
        ),
        1 => (0_u64..3).prop_map(|table| Op::Drop { table }),
        1 => (1_u64..4).prop_map(|records| Op::Gone { records }),
        3 => Just(Op::Housekeep),
    ]
}

/// Where a life ends: the first checkpoint, the one that it is restored from, and the crash, as shares of what is left.
fn crashes() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    prop::collection::vec((0.0..1.0, 0.0..1.0, 0.0..1.0), 1..4)
}

fn described(key: TableKey, settings: TableSettings) -> Table {
    Table {
        key,
        name: TableName::new("n", "t"),
        partitions: vec![PARTITION],
        partition_by: Some("a".to_owned()),
        partition_seed: 0,
        identity_seed: key.table.0,
        schema: Schema::default(),
        settings,
    }
}

/// A partition with the state of what is sent to it, which is a function of the operations too.
struct World {
    writer: Writer,
    reader: Reader,
}

/// Where the sender of the log is after some operations.
#[derive(Clone, Copy, Default)]
struct Sender {
    generations: [u32; 3],
    clock: i64,
}

impl World {
    fn new(limits: Limits, budget: &Arc<MemoryBudget>, disk: &Disk) -> Self {
        let runs = Box::new(Runs::on(disk));
        let (writer, reader) = partition_with_runs(PARTITION, Offset::ZERO, limits, Arc::clone(budget), runs);
        Self { writer, reader }
    }

    fn restored(kept: &mut Kept, limits: Limits, budget: &Arc<MemoryBudget>, disk: &Disk) -> Self {
        let mut runs = Runs::on(disk);
        let restored =
            restore(PARTITION, kept, limits, budget, &mut runs, &mut horizon_alone(budget)).expect("what was captured");
        kept.rename(restored.names());
        let (writer, reader) = restored.into_partition(Box::new(runs));
        Self { writer, reader }
    }

    fn run(&mut self, op: &Op, sender: &mut Sender) {
        let offset = self.writer.next_offset();
        let key = |table: u64, sender: &Sender| table_key(table, sender.generations[table as usize] + 1);
        match op {
            Op::Block { table, rows, after_us } => {
                sender.clock += after_us;
                let (header, body) = block_with_ids(key(*table, sender), rows);
                let view = BodyView::parse(&body).expect("a good body");
                self.writer.apply(offset, Timestamp(sender.clock), &header, &view).expect("a good block");
            }
            Op::Bad { table } => {
                let (header, body) = block_with_ids(key(*table, sender), &[(plain(sender.clock), None)]);
                let view = BodyView::parse(&body).expect("a good body");
                let header = BlockHeader { partition: PartitionId(9), ..header };
                self.writer.apply(offset, Timestamp(sender.clock), &header, &view).expect_err("another partition's");
            }
            Op::Configure { table, hot_window_us, dedup_window_us, lateness_us, rollups } => {
                let settings = TableSettings {
                    hot_window_us: *hot_window_us,
                    dedup_window_us: *dedup_window_us,
                    lateness_us: *lateness_us,
                    rollups: rollups.clone(),
                    ..TableSettings::default()
                };
                let table = described(key(*table, sender), settings);
                self.writer.configure(offset, Timestamp(sender.clock), &table).expect("in order");
            }
            Op::Drop { table } => {
                self.writer.drop_table(offset, Timestamp(sender.clock), key(*table, sender)).expect("in order");
                sender.generations[*table as usize] += 1;
            }
            Op::Gone { records } => {
                let end = Offset(offset.0 + records);
                let gap = LogGap { first: offset, end, table: None, times: None, reason: GapReason::Gone };
                self.writer.pass_over(gap, Timestamp::MIN).expect("in order");
            }
            Op::Housekeep => self.writer.housekeep(),
        }
    }
}

fn plain(time: i64) -> Row {
    Row { time, dimensions: [("a".to_owned(), "x".to_owned())].into(), metrics: [("m".to_owned(), 1.0)].into() }
}

/// All that rollups say, as text.
fn rollups(snapshot: &TableSnapshot) -> Vec<String> {
    let rollups = snapshot.rollups().iter();
    let all = rollups.map(|rollup| {
        let said = plain_rollup::actual(snapshot, rollup).into_iter().map(|(key, cell)| (key, cell.said()));
        format!("{:?}", (rollup.rollup(), rollup.covered_from(), rollup.revised(), said.collect::<Vec<_>>()))
    });
    all.collect()
}

/// All that can be asked of two partitions.
fn check_alike(left: &Reader, right: &Reader) -> Result<(), TestCaseError> {
    let status = |reader: &Reader| {
        let status = reader.status();
        (status.next_offset, status.append_time, status.rows, status.passed_over)
    };
    prop_assert_eq!(status(left), status(right));
    prop_assert_eq!(left.gaps(), right.gaps());
    prop_assert_eq!(left.tables(), right.tables());
    for key in left.tables() {
        prop_assert_eq!(left.table_status(key), right.table_status(key));
        let (left, right) = (left.snapshot(key).unwrap(), right.snapshot(key).unwrap());
        prop_assert_eq!(left.columns(), right.columns());
        prop_assert_eq!(left.evicted_before(), right.evicted_before());
        prop_assert_eq!(decode(&left), decode(&right));
        prop_assert_eq!(left.segments().len(), right.segments().len());
        let numbered: Vec<_> = left.numbered_columns().map(|(column, _)| column).collect();
        for (left, right) in left.segments().iter().zip(right.segments()) {
            prop_assert_eq!((left.rows(), left.sealed(), left.zone()), (right.rows(), right.sealed(), right.zone()));
            prop_assert_eq!(left.times().item_bytes(), right.times().item_bytes());
            for &column in &numbered {
                let bytes = |segment: &SegmentView| segment.metric(column).map(|metric| metric.item_bytes());
                prop_assert_eq!(bytes(left), bytes(right), "{:?}", column);
            }
        }
        prop_assert_eq!(rollups(&left), rollups(&right));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Goal: whatever the history and wherever it is captured and cut, what was restored and is sent the rest of the log
    /// cannot be told from what ran through: rows and their order, segments, codes, columns, counters, horizons, verdicts.
    #[test]
    fn a_restart_changes_nothing(
        ops in prop::collection::vec(op(), 1..60),
        crashes in crashes(),
        steps in prop::collection::vec(1_u64..20, 2),
    ) {
        let (through_disk, disk) = (Disk::default(), Disk::default());
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (mut through, mut sender) = (World::new(tiny(), &budget, &through_disk), Sender::default());
        let mut restarted = World::new(tiny(), &budget, &disk);
        // What is known before the first operation, too.
        let mut senders = vec![sender];
        let (mut kept, mut at, mut kept_at) = (Kept::of(&restarted.writer, &Kept::default(), 1), 0, 0);
        for (first, second, crash) in crashes {
            // Two checkpoints, the second of which takes from the first, then a crash, all in this order.
            let left = (ops.len() - at) as f64;
            let mut marks = [first, second, crash].map(|share| at + (share * left) as usize);
            marks.sort_unstable();
            while at <= marks[2] && at < ops.len() {
                if at == marks[0] || at == marks[1] {
                    kept = Kept::of(&restarted.writer, &kept, steps[usize::from(at == marks[1])]);
                    kept_at = at;
                }
                restarted.run(&ops[at], &mut senders[at].clone());
                if senders.len() == at + 1 {
                    through.run(&ops[at], &mut sender);
                    senders.push(sender);
                }
                at += 1;
                if senders.len() == at + 1 {
                    check_alike(&through.reader, &restarted.reader)?;
                }
            }
            restarted = World::restored(&mut kept, tiny(), &budget, &disk);
            at = kept_at;
        }
        for at in at..ops.len() {
            restarted.run(&ops[at], &mut senders[at].clone());
            if senders.len() == at + 1 {
                through.run(&ops[at], &mut sender);
                senders.push(sender);
                check_alike(&through.reader, &restarted.reader)?;
            }
        }
        check_alike(&through.reader, &restarted.reader)?;
        drop((through, restarted));
        prop_assert_eq!((budget.used(), budget.retired()), (0, 0), "all memory was accounted for");
    }
}

/// Blocks of numbered rows in order of time, with strings and some repeated ids.
fn history(blocks: i64) -> Vec<Op> {
    let rows = |block: i64| {
        let row = |n: i64| {
            let dimensions = [("d".to_owned(), format!("string {}", n % 7))].into();
            let row = Row { time: n, dimensions, metrics: [("m".to_owned(), n as f64)].into() };
            (row, Some((n % 251) as u8))
        };
        (block * 20..block * 20 + 20).map(row).collect()
    };
    (0..blocks).map(|block| Op::Block { table: (block % 2) as u64, rows: rows(block), after_us: 20 }).collect()
}

/// Goal: where memory has become smaller the oldest rows are evicted before they are read, announced and counted, and what
/// is left is as it was.
#[test]
fn a_smaller_budget_evicts_the_oldest() {
    let (disk, mut sender) = (Disk::default(), Sender::default());
    let large = Arc::new(MemoryBudget::new(u64::MAX));
    let mut world = World::new(tiny(), &large, &disk);
    history(400).iter().for_each(|op| world.run(op, &mut sender));
    let kept = Kept::of(&world.writer, &Kept::default(), 3);
    let state_bytes = large.used();
    // Of nine tenths some rows stay; of a 16th, in which the ids alone have no room, none has to.
    for (least_live, bytes) in [(1, state_bytes / 10 * 9), (0, state_bytes / 2), (0, state_bytes / 16)] {
        let small = Arc::new(MemoryBudget::new(bytes));
        let mut restored = World::restored(&mut kept.clone(), tiny(), &small, &disk);
        // Open segments and strings are not left out; the next round of housekeeping sees to those.
        assert!(small.used() < bytes + state_bytes / 8, "{} of {bytes}", small.used());
        restored.writer.housekeep();
        for key in world.reader.tables() {
            let (all, some) = (world.reader.snapshot(key).unwrap(), restored.reader.snapshot(key).unwrap());
            let horizon = some.evicted_before().expect("some rows have left");
            let newest = |snapshot| {
                decode(snapshot).into_iter().filter(|(_, row)| Timestamp(row.time) >= horizon).collect::<Vec<_>>()
            };
            assert_eq!(newest(&all), newest(&some));
            let (before, after) = (world.reader.table_status(key).unwrap(), restored.reader.table_status(key).unwrap());
            assert_eq!(after.live, decode(&some).len() as u64);
            assert_eq!((after.live + after.evicted, after.duplicate), (before.live + before.evicted, before.duplicate));
            assert!((least_live..before.live).contains(&after.live), "{} of {}", after.live, before.live);
        }
    }
}

/// A table with a rollup that is kept for ever.
fn with_rollup(table: u64, hot_window_us: i64, interval: i64, with_sketches: bool) -> Op {
    let rollup = Rollup {
        interval: Interval::from_micros(interval).unwrap(),
        group_by: vec!["d".to_owned()],
        distinct: vec!["d".to_owned()],
        percentiles: if with_sketches { vec!["m".to_owned()] } else { Vec::new() },
        top: vec!["d".to_owned()],
        keep_us: Some(i64::MAX / 4),
    };
    let rollups = vec![rollup];
    Op::Configure { table, hot_window_us: Some(hot_window_us), dedup_window_us: 1_000, lateness_us: 0, rollups }
}

/// Goal: rows that a smaller budget has no room for leave for the rollups that outlive them, as in any eviction: these say
/// what they said, of all that ever came.
#[test]
fn a_smaller_budget_takes_nothing_from_rollups() {
    let large = || Arc::new(MemoryBudget::new(u64::MAX));
    let blocks = history(1_500);
    let of_rows = {
        let (budget, mut sender) = (large(), Sender::default());
        let mut world = World::new(tiny(), &budget, &Disk::default());
        blocks.iter().for_each(|op| world.run(op, &mut sender));
        budget.used()
    };
    let (disk, mut sender) = (Disk::default(), Sender::default());
    let mut world = World::new(tiny(), &large(), &disk);
    let coarse = [0, 1].map(|table| with_rollup(table, 24_000, 1_000_000, false));
    coarse.iter().chain(&blocks).chain(&[Op::Housekeep]).for_each(|op| world.run(op, &mut sender));
    let kept = Kept::of(&world.writer, &Kept::default(), 3);
    for share in [2, 4] {
        let small = Arc::new(MemoryBudget::new(of_rows / share));
        let mut restored = World::restored(&mut kept.clone(), tiny(), &small, &disk);
        let rows = [&restored, &world].map(|world| world.reader.status().rows);
        assert!(rows[0] < rows[1], "{rows:?} with {} of {of_rows} bytes", small.limit());
        for _ in 0..2 {
            for key in world.reader.tables() {
                let (all, some) = (world.reader.snapshot(key).unwrap(), restored.reader.snapshot(key).unwrap());
                assert!(all.evicted_before().is_some(), "there is a history");
                assert_eq!(rollups(&all), rollups(&some));
            }
            restored.writer.housekeep();
        }
    }
}

/// Goal: where rows leave for rollups because memory has become smaller, what these keep is held to its share while the state
/// is read, not only at the first housekeeping; the rest of it is whole, and the smaller the share the less there is.
#[test]
fn a_smaller_budget_bounds_histories() {
    let (disk, mut sender) = (Disk::default(), Sender::default());
    let large = Arc::new(MemoryBudget::new(u64::MAX));
    let mut world = World::new(tiny(), &large, &disk);
    let fine = [0, 1].map(|table| with_rollup(table, 1_000_000, 1, true));
    fine.iter().chain(&history(600)).for_each(|op| world.run(op, &mut sender));
    let kept = Kept::of(&world.writer, &Kept::default(), 3);
    let mut all_before = 0;
    for share in [2, 4] {
        let small = Arc::new(MemoryBudget::new(large.used() / share));
        let restored = World::restored(&mut kept.clone(), tiny(), &small, &disk);
        let (history, limit) = (small.history(), small.limit());
        assert!(history > limit / 16 && history <= limit / 4, "{history} of {limit}");
        assert!(small.used() < limit + limit / 8, "{} of {limit}", small.used());
        let mut all = 0;
        for key in world.reader.tables() {
            let snapshot = restored.reader.snapshot(key).unwrap();
            let rollup = &snapshot.rollups()[0];
            let (from, horizon) = (rollup.covered_from().unwrap(), snapshot.evicted_before().unwrap());
            assert!(Timestamp::MIN < from && from < horizon, "{from:?} {horizon:?}");
            let rows: u64 = plain_rollup::actual(&snapshot, rollup).values().map(|cell| cell.rows).sum();
            let sent = decode(&world.reader.snapshot(key).unwrap());
            assert_eq!(rows as usize, sent.iter().filter(|(_, row)| Timestamp(row.time) >= from).count());
            all += rows;
        }
        assert!(all_before == 0 || all < all_before);
        all_before = all;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Goal: pieces that are cut off, changed, missing or in each other's place are an error or a partition, never a panic,
    /// and what was read of them does not stay in memory.
    #[test]
    fn no_bytes_are_trusted(piece: prop::sample::Index, part: prop::sample::Index, at: prop::sample::Index,
                            other: prop::sample::Index, flip in 1_u8.., what in 0_u8..5) {
        let (disk, mut sender) = (Disk::default(), Sender::default());
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let mut world = World::new(tiny(), &budget, &disk);
        let rollups = [(0, 30, 5), (1, 1_000, 1_000)].map(|(table, hot_window_us, interval)| with_rollup(table, hot_window_us, interval, true));
        let housekeeping = [Op::Housekeep, Op::Housekeep, Op::Housekeep];
        rollups.iter().chain(&history(6)).chain(&housekeeping).for_each(|op| world.run(op, &mut sender));
        let has_left = |key| world.reader.snapshot(key).is_some_and(|snapshot| snapshot.evicted_before().is_some());
        prop_assert!(world.reader.tables().into_iter().any(has_left), "a rollup has a history");
        let mut kept = Kept::of(&world.writer, &Kept::default(), 5);
        drop(world);
        let piece = piece.index(kept.parts.len());
        if !kept.parts[piece].is_empty() {
            let part = part.index(kept.parts[piece].len());
            let bytes = &mut kept.parts[piece][part];
            let at = at.index(bytes.len());
            match what {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= flip,
                2 => bytes.push(flip),
                3 => drop(kept.parts[piece].remove(part)),
                _ => {
                    let other = other.index(kept.parts.len());
                    kept.parts.swap(piece, other);
                }
            }
        }
        let mut runs = Runs::on(&disk);
        let restored = restore(PARTITION, &mut kept, tiny(), &budget, &mut runs, &mut horizon_alone(&budget));
        prop_assert!(what == 1 || what == 4 || what == 3 || restored.is_err() || kept.parts[piece].is_empty());
        if let Ok(restored) = restored {
            let (_, reader) = restored.into_partition(Box::new(runs));
            for key in reader.tables() {
                let snapshot = reader.snapshot(key).unwrap();
                prop_assert_eq!(snapshot.rows() as u64, reader.table_status(key).unwrap().live);
            }
        }
        prop_assert_eq!(budget.used(), 0);
    }
}
