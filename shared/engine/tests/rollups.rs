//! Rollups against a plain map of the rows that a partition was sent.
#![cfg(not(loom))]

mod disk_runs;
mod kept;
mod plain_rollup;
mod rows;

use std::{collections::BTreeMap, sync::Arc};

use codec::BodyView;
use disk_runs::{Disk, Runs};
use engine::{Limits, MemoryBudget, Reader, TableSnapshot, Writer, horizon_alone, partition_with_runs, restore};
use kept::Kept;
use plain_rollup::{actual, check_group, expected};
use proptest::prelude::*;
use rows::{PARTITION, Row, block_with_ids, decode, table_key};
use types::{Interval, Offset, Rollup, Schema, Table, TableKey, TableName, TableSettings, Timestamp};

/// Longer than any test's clock runs.
const FOR_EVER: i64 = i64::MAX / 4;

/// Sizes so small that every case comes up within a few rows.
fn tiny() -> Limits {
    Limits {
        segment_rows_first: 2,
        segment_rows_max: 8,
        open_slots_max: 3,
        idle_rows: 20,
        slot_width_us: 10,
        slots_opened_max: 6,
        slot_rows_min: 4,
        straggler_rows_max: 5,
        dictionary_entries_max: 4,
        dictionary_bytes_max: u64::MAX,
        recent_ids_max: 6,
        folded_rows_max: 32,
        hash_seed: 3,
    }
}

#[derive(Debug, Clone)]
enum Op {
    Block {
        table: u64,
        rows: Vec<(Row, Option<u8>)>,
    },
    Configure {
        table: u64,
        hot_window_us: Option<i64>,
        rollups: Vec<Rollup>,
    },
    Drop {
        table: u64,
    },
    Housekeep,
    Checkpoint,
    /// The last checkpoint is restored, and what came since is sent again.
    Crash,
}

fn row() -> impl Strategy<Value = (Row, Option<u8>)> {
    let dimensions = prop::collection::btree_map("[a-c]", "[x-z]{1,2}|long value that fits no slot [x-z]", 0..4);
    let value = (-50_i32..50, -3_i32..12).prop_map(|(value, scale)| f64::from(value) * 10_f64.powi(scale));
    let metrics = prop::collection::btree_map("[m-o]", value, 0..3);
    let time = prop_oneof![6 => 0_i64..60, 2 => -200_i64..400, 1 => -3_000_i64..800];
    (time, dimensions, metrics, prop::option::of(0_u8..60))
        .prop_map(|(time, dimensions, metrics, id)| (Row { time, dimensions, metrics }, id))
}

fn rollup() -> impl Strategy<Value = Rollup> {
    let names = |of: &'static [&'static str]| {
        prop::sample::subsequence(of, 0..=of.len())
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let interval = prop::sample::select(vec![1, 7, 10, 1_000]);
    let keep_us = prop::sample::select(vec![None, Some(40), Some(300), Some(FOR_EVER), Some(FOR_EVER)]);
    // A column that no event ever has is absent in all.
    let group_by = names(&["a", "b", "nobody's"]);
    (interval, group_by, names(&["b", "c"]), names(&["m"]), names(&["c"]), keep_us).prop_map(
        |(interval, group_by, distinct, percentiles, top, keep_us)| Rollup {
            interval: Interval::from_micros(interval).unwrap(),
            group_by,
            distinct,
            percentiles,
            top,
            keep_us,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let rollups = prop::collection::vec(rollup(), 0..4);
    let hot_window_us = prop_oneof![1 => Just(None), 2 => (5_i64..100).prop_map(Some)];
    prop_oneof![
        16 => (0_u64..2, prop::collection::vec(row(), 1..12)).prop_map(|(table, rows)| Op::Block { table, rows }),
        3 => (0_u64..2, hot_window_us, rollups)
            .prop_map(|(table, hot_window_us, rollups)| Op::Configure { table, hot_window_us, rollups }),
        1 => (0_u64..2).prop_map(|table| Op::Drop { table }),
        6 => Just(Op::Housekeep),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Crash),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let first = (0_u64..2, prop::collection::vec(rollup(), 1..3)).prop_map(|(table, rollups)| Op::Configure {
        table,
        hot_window_us: Some(30),
        rollups,
    });
    (first, prop::collection::vec(op(), 1..50)).prop_map(|(first, ops)| [first].into_iter().chain(ops).collect())
}

fn described(key: TableKey, hot_window_us: Option<i64>, rollups: &[Rollup]) -> Table {
    Table {
        key,
        name: TableName::new("n", "t"),
        partitions: vec![PARTITION],
        partition_by: Some("a".to_owned()),
        partition_seed: 0,
        identity_seed: key.table.0,
        schema: Schema::default(),
        settings: TableSettings { hot_window_us, rollups: rollups.to_vec(), ..TableSettings::default() },
    }
}

/// Where the log is.
#[derive(Clone, Copy, Default)]
struct Sender {
    generations: [u32; 2],
    clock: i64,
}

impl Sender {
    fn key(&self, table: u64) -> TableKey {
        table_key(table, self.generations[table as usize] + 1)
    }
}

struct World {
    writer: Writer,
    reader: Reader,
    disk: Disk,
    budget: Arc<MemoryBudget>,
}

impl World {
    fn new(budget: MemoryBudget) -> Self {
        let (disk, budget) = (Disk::default(), Arc::new(budget));
        let runs = Box::new(Runs::on(&disk));
        let (writer, reader) = partition_with_runs(PARTITION, Offset::ZERO, tiny(), Arc::clone(&budget), runs);
        Self { writer, reader, disk, budget }
    }

    fn restart(self, kept: &mut Kept) -> Self {
        let Self { disk, budget, writer, reader } = self;
        drop((writer, reader));
        let mut runs = Runs::on(&disk);
        let restored = restore(PARTITION, kept, tiny(), &budget, &mut runs, &mut horizon_alone(&budget))
            .expect("what was captured");
        kept.rename(restored.names());
        let (writer, reader) = restored.into_partition(Box::new(runs));
        Self { writer, reader, disk, budget }
    }

    fn run(&mut self, op: &Op, sender: &mut Sender) {
        let (offset, now) = (self.writer.next_offset(), Timestamp(sender.clock));
        match op {
            Op::Block { table, rows } => {
                sender.clock += 20;
                let (header, body) = block_with_ids(sender.key(*table), rows);
                let view = BodyView::parse(&body).expect("a good body");
                self.writer.apply(offset, Timestamp(sender.clock), &header, &view).expect("a good block");
            }
            Op::Configure { table, hot_window_us, rollups } => {
                let table = described(sender.key(*table), *hot_window_us, rollups);
                self.writer.configure(offset, now, &table).expect("in order");
            }
            Op::Drop { table } => {
                self.writer.drop_table(offset, now, sender.key(*table)).expect("in order");
                sender.generations[*table as usize] += 1;
            }
            Op::Housekeep => self.writer.housekeep(),
            Op::Checkpoint | Op::Crash => {}
        }
    }
}

/// The same as a partition without settings sees it, which has every row.
fn without_settings(op: &Op) -> Op {
    match op {
        Op::Configure { table, .. } => Op::Configure { table: *table, hot_window_us: None, rollups: Vec::new() },
        other => other.clone(),
    }
}

/// Each group that a rollup covers says what its rows say, and there are no others.
fn check(snapshot: &TableSnapshot, all: &BTreeMap<(Offset, u32), Row>) {
    for rollup in snapshot.rollups() {
        let Some(from) = rollup.covered_from() else { continue };
        let is_whole = from == Timestamp::MIN || from.0 % rollup.rollup().interval.micros() == 0;
        assert!(is_whole, "{from:?} is no start of a bucket");
        let first = rollup.rollup().interval.bucket_of(from);
        let before = rollup.history(plain_rollup::ALL_BUCKETS).flat_map(|part| part.buckets());
        assert!(before.min().is_none_or(|bucket| *bucket >= first), "nothing is kept that is not covered");
        let groups = expected(rollup.rollup(), all.values(), from);
        let mut cells = actual(snapshot, rollup);
        cells.retain(|(bucket, _), _| *bucket >= first);
        assert_eq!(cells.keys().collect::<Vec<_>>(), groups.keys().collect::<Vec<_>>(), "{rollup:?}");
        cells.iter().for_each(|(key, cell)| check_group(rollup.rollup(), key, cell, &groups[key]));
    }
}

/// How far back rollups that were declared at once have to go: `Timestamp::MIN` where nothing limits them.
fn check_coverage(snapshot: &TableSnapshot, declared_at: &[(Rollup, Timestamp)], now: i64, memory_is_scarce: bool) {
    let ceil = |time: Timestamp, interval: Interval| match time {
        Timestamp::MIN => Timestamp::MIN,
        time => Timestamp((time.0 + interval.micros() - 1).div_euclid(interval.micros()) * interval.micros()),
    };
    let horizon = snapshot.evicted_before().unwrap_or(Timestamp::MIN);
    for (rollup, (declared, since)) in snapshot.rollups().iter().zip(declared_at) {
        assert_eq!(rollup.rollup(), declared);
        let (from, interval) = (rollup.covered_from().expect("it is of the newest offset"), declared.interval);
        match declared.keep_us {
            None => {
                assert!(from >= ceil(horizon, interval));
                // It may have had a history before it was declared anew, and given it up for memory: that does not come back.
                assert!(memory_is_scarce || from <= ceil(horizon.max(*since), interval));
            }
            Some(_) if memory_is_scarce => {}
            Some(keep_us) => {
                // A page more than it has to stay may be there, never less.
                let due = Timestamp(now.saturating_sub(keep_us)).max(*since);
                assert!(from <= ceil(due, interval), "{from:?} is behind {due:?} of {declared:?}");
            }
        }
    }
}

/// Runs operations on a partition with settings and a memory budget, beside one that keeps every row.
fn run(ops: &[Op], limit: u64) {
    let mut world = World::new(MemoryBudget::new(limit));
    let mut all = World::new(MemoryBudget::new(u64::MAX));
    let (mut sender, mut sender_of_all) = (Sender::default(), Sender::default());
    let mut kept: Option<(Kept, usize, Sender)> = None;
    let mut declared: BTreeMap<TableKey, Vec<(Rollup, Timestamp)>> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        if let Op::Configure { table, rollups, .. } = op {
            let key = sender.key(*table);
            let snapshot = world.reader.snapshot(key);
            let before = declared.remove(&key).unwrap_or_default();
            let since = |rollup: &Rollup| {
                // One that is kept for another time goes on at best; what it covers is not asked of it here.
                let same = before.iter().find(|(known, _)| known == rollup).map(|(_, since)| *since);
                let horizon = snapshot.as_ref().and_then(TableSnapshot::evicted_before);
                (rollup.clone(), same.unwrap_or(horizon.unwrap_or(Timestamp::MIN)))
            };
            declared.insert(key, rollups.iter().map(since).collect());
        }
        world.run(op, &mut sender);
        all.run(&without_settings(op), &mut sender_of_all);
        match op {
            Op::Checkpoint => {
                let before = kept.take().map(|(kept, ..)| kept).unwrap_or_default();
                kept = Some((Kept::of(&world.writer, &before, 3), at + 1, sender));
            }
            Op::Crash => {
                if let Some((kept, from, mut sender)) = kept.as_mut().map(|(kept, at, sender)| (kept, *at, *sender)) {
                    world = world.restart(kept);
                    ops[from..at].iter().for_each(|op| world.run(op, &mut sender));
                }
            }
            _ => {}
        }
        let next_offset = world.reader.next_offset();
        assert_eq!(next_offset, all.reader.next_offset());
        for key in world.reader.tables() {
            // At the newest offset, and at the one before: without the last record.
            for offset in [next_offset.0, next_offset.0.saturating_sub(1)].map(Offset) {
                let at = |reader: &Reader| reader.snapshots_at(&[key], offset).expect("not to come").remove(0).unwrap();
                check(&at(&world.reader), &decode(&at(&all.reader)).into_iter().collect());
            }
            let has_past = |snapshot: &TableSnapshot| snapshot.rollups().iter().all(|r| r.version().is_some());
            let snapshot = world.reader.snapshot(key).unwrap();
            assert!(has_past(&snapshot));
            if matches!(op, Op::Block { .. }) {
                // Readers that saw the offset before the record go on with what they saw.
                let before = world.reader.snapshots_at(&[key], Offset(next_offset.0 - 1)).unwrap().remove(0).unwrap();
                assert!(has_past(&before));
            }
            // What a table came to by records that were sent again is not followed.
            if kept.is_none() {
                let declared = declared.get(&key).map_or(&[][..], Vec::as_slice);
                check_coverage(&snapshot, declared, sender.clock, limit < u64::MAX);
            }
        }
    }
    let budget = Arc::clone(&world.budget);
    drop(world);
    assert_eq!((budget.used(), budget.retired(), budget.history()), (0, 0, 0), "all memory was accounted for");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Goal: whatever leaves by hot windows, and whenever rollups are declared, folded, checkpointed and restored, a rollup
    /// says of each bucket that it covers what all rows of it say, each once; it covers what it has to.
    #[test]
    fn rollups_match_a_map(ops in ops()) {
        run(&ops, u64::MAX);
    }

    /// Goal: the same while memory is scarce, so that rows leave early and histories give way: what is still covered is whole.
    #[test]
    fn scarce_memory_changes_only_coverage(ops in ops(), limit in 20_000_u64..200_000) {
        run(&ops, limit);
    }
}

fn by_hour(keep_us: Option<i64>) -> Rollup {
    Rollup {
        interval: Interval::from_micros(1_000).unwrap(),
        group_by: Vec::new(),
        distinct: vec!["d".to_owned()],
        percentiles: vec!["m".to_owned()],
        top: vec!["d".to_owned()],
        keep_us,
    }
}

/// Goal: groups of very many values become sketches: what counts distinct values is the same as if they had come at once,
/// and heavy hitters keep to their bound, however often parts were merged.
#[test]
fn many_values_become_sketches() {
    let mut world = World::new(MemoryBudget::new(u64::MAX));
    let sender = Sender::default();
    let key = sender.key(0);
    world.writer.configure(Offset(0), Timestamp(0), &described(key, Some(1_000), &[by_hour(Some(FOR_EVER))])).unwrap();
    let mut all = Vec::new();
    for n in 0..12_000_i64 {
        // Half of the rows have one of ten values, the others one of their own.
        let value = if n % 2 == 0 { format!("often {}", n % 20) } else { format!("seldom {n}") };
        all.push(Row {
            time: n,
            dimensions: [("d".to_owned(), value)].into(),
            metrics: [("m".to_owned(), n as f64)].into(),
        });
    }
    all.iter_mut().for_each(|row| row.time /= 4);
    for (at, rows) in all.chunks(100).enumerate() {
        rows::apply(&mut world.writer, at as i64 * 25, key, rows);
        world.writer.housekeep();
    }
    let snapshot = world.reader.snapshot(key).unwrap();
    let rollup = &snapshot.rollups()[0];
    assert!(rollup.history(plain_rollup::ALL_BUCKETS).count() > 0 && snapshot.rows() > 0, "some rows have left");
    let groups = expected(rollup.rollup(), &all, Timestamp::MIN);
    let cells = actual(&snapshot, rollup);
    assert_eq!(cells.keys().collect::<Vec<_>>(), groups.keys().collect::<Vec<_>>());
    cells.iter().for_each(|(key, cell)| check_group(rollup.rollup(), key, cell, &groups[key]));
    let is_sketch = |cell: &plain_rollup::Cell| matches!(cell.distinct[0], engine::DistinctCell::Sketch(_));
    assert!(cells.values().all(is_sketch) && cells.len() == 3);
}

/// Goal: a row that comes when its slot has left is in the rollup with its record, counts as evicted, and is told as a
/// revision; the version of the rollup changes with it. A rollup that does not outlive rows does not take it.
#[test]
fn late_rows_revise_what_is_kept() {
    let mut world = World::new(MemoryBudget::new(u64::MAX));
    let key = Sender::default().key(0);
    let rollups = [by_hour(Some(FOR_EVER)), by_hour(None)];
    world.writer.configure(Offset(0), Timestamp(0), &described(key, Some(20), &rollups)).unwrap();
    rows::apply(&mut world.writer, 3_000, key, &[plain(1), plain(2_995)]);
    world.writer.housekeep();
    let before = world.reader.snapshot(key).unwrap();
    assert_eq!((before.rows(), before.evicted_before()), (1, Some(Timestamp(10))));
    let applied = rows::apply(&mut world.writer, 3_000, key, &[plain(2)]);
    assert_eq!((applied.stored, applied.evicted), (0, 1));
    let after = world.reader.snapshot(key).unwrap();
    let counts = |snapshot: &TableSnapshot, at: usize| {
        actual(snapshot, &snapshot.rollups()[at])
            .into_iter()
            .map(|((bucket, _), cell)| (bucket, cell.rows))
            .collect::<Vec<_>>()
    };
    assert_eq!((counts(&before, 0), counts(&after, 0)), (vec![(0, 1), (2, 1)], vec![(0, 2), (2, 1)]));
    assert_eq!((counts(&after, 1), after.rollups()[1].covered_from()), (vec![(2, 1)], Some(Timestamp(1_000))));
    assert_eq!((before.rollups()[0].revised(), after.rollups()[0].revised()), (0, 1));
    assert!(before.rollups()[0].version() < after.rollups()[0].version());
    assert_eq!(before.rollups()[1].version(), after.rollups()[1].version());
    // Who asks at the offset before sees what was there then.
    let again = world.reader.snapshots_at(&[key], before.next_offset()).unwrap().remove(0).unwrap();
    assert_eq!(counts(&again, 0), counts(&before, 0));
}

/// Goal: where rollups keep so much that it is more than their share of memory, the oldest goes, and is not covered any more.
#[test]
fn histories_keep_to_their_share() {
    let budget = 4 << 20;
    let mut world = World::new(MemoryBudget::new(budget));
    let key = Sender::default().key(0);
    let fine = Rollup {
        interval: Interval::from_micros(1).unwrap(),
        group_by: vec!["d".to_owned()],
        ..by_hour(Some(FOR_EVER))
    };
    world.writer.configure(Offset(0), Timestamp(0), &described(key, Some(1_000), &[fine])).unwrap();
    for block in 0..400_i64 {
        let rows: Vec<Row> = (0..40)
            .map(|n| {
                let dimensions = [("d".to_owned(), format!("value {n} of {block}"))].into();
                Row { time: block * 40 + n, dimensions, metrics: [("m".to_owned(), 1.0)].into() }
            })
            .collect();
        rows::apply(&mut world.writer, block * 40, key, &rows);
        world.writer.housekeep();
    }
    let (used, history) = (world.budget.used(), world.budget.history());
    assert!(history > budget / 8 && history <= budget / 4, "{history} of {budget}");
    assert!(used <= budget, "{used} of {budget}");
    let snapshot = world.reader.snapshot(key).unwrap();
    let from = snapshot.rollups()[0].covered_from().unwrap();
    let horizon = snapshot.evicted_before().unwrap();
    assert!(Timestamp::MIN < from && from < horizon, "{from:?} before {horizon:?}");
    let rows: u64 = actual(&snapshot, &snapshot.rollups()[0]).values().map(|cell| cell.rows).sum();
    assert_eq!(rows as i64, 400 * 40 - from.0, "all of the rows that it covers");
}

fn plain(time: i64) -> Row {
    Row { time, dimensions: BTreeMap::new(), metrics: [("m".to_owned(), time as f64)].into() }
}

/// Goal: no record and no housekeeping waits until rollups have taken all rows of very many that are to leave at once: these
/// leave as rollups take them, some at a time, and each is in the rollups or among the rows meanwhile.
#[test]
fn rows_leave_as_rollups_take_them() {
    let mut world = World::new(MemoryBudget::new(u64::MAX));
    let key = Sender::default().key(0);
    let rollups = [1, 2, 3]
        .map(|interval| Rollup { interval: Interval::from_micros(interval).unwrap(), ..by_hour(Some(FOR_EVER)) });
    world.writer.configure(Offset(0), Timestamp(0), &described(key, Some(50), &rollups)).unwrap();
    rows::apply(&mut world.writer, 0, key, &(0..96).map(plain).collect::<Vec<_>>());
    rows::apply(&mut world.writer, 10_000, key, &[plain(9_990)]);
    let mut before = 97;
    for round in 0..12 {
        world.writer.housekeep();
        let snapshot = world.reader.snapshot(key).unwrap();
        // A row counts once per rollup; what housekeeping takes beside what leaves may leave at the next round.
        assert!(before - snapshot.rows() <= 3 * tiny().folded_rows_max / rollups.len(), "in round {round}");
        before = snapshot.rows();
        for rollup in snapshot.rollups() {
            let rows: u64 = actual(&snapshot, rollup).values().map(|cell| cell.rows).sum();
            assert_eq!(rows, 97, "in round {round}");
        }
    }
    assert_eq!(before, 1, "all have left in the end");
}

/// Goal: a table is looked at once in a round of housekeeping, wherever the round before had to stop: rows of an open segment
/// wait until there are more, and do not become parts of a few.
#[test]
fn a_round_takes_each_table_once() {
    let mut world = World::new(MemoryBudget::new(u64::MAX));
    let [first, second] = [0, 1].map(|table| Sender::default().key(table));
    for key in [first, second] {
        let table = described(key, None, &[by_hour(None)]);
        world.writer.configure(world.writer.next_offset(), Timestamp(0), &table).unwrap();
    }
    rows::apply(&mut world.writer, 0, first, &(0..40).map(|n| plain(n % 10)).collect::<Vec<_>>());
    world.writer.housekeep();
    let reader = world.reader.clone();
    let folded = |key| {
        let snapshot = reader.snapshot(key).unwrap();
        snapshot.segments().iter().map(|segment| snapshot.rollups()[0].of_segment(segment).1).collect::<Vec<usize>>()
    };
    assert_eq!(folded(first).iter().sum::<usize>(), tiny().folded_rows_max, "the round ended before all were taken");
    rows::apply(&mut world.writer, 0, second, &[plain(0)]);
    world.writer.housekeep();
    assert!(folded(first).iter().sum::<usize>() > tiny().folded_rows_max);
    assert_eq!(folded(second), [0], "it was just seen to grow");
}

/// Goal: parts that have left and that readers hold are paid for by nobody's rows, and are freed when these go.
#[test]
fn parts_that_readers_hold_are_retired() {
    let mut world = World::new(MemoryBudget::new(u64::MAX));
    let key = Sender::default().key(0);
    world.writer.configure(Offset(0), Timestamp(0), &described(key, None, &[by_hour(None)])).unwrap();
    let row = |time: i64| Row { time, dimensions: BTreeMap::new(), metrics: [("m".to_owned(), 1.0)].into() };
    rows::apply(&mut world.writer, 0, key, &(0..64).map(row).collect::<Vec<_>>());
    (0..3).for_each(|_| world.writer.housekeep());
    let held = world.reader.snapshot(key).unwrap();
    let parts = |snapshot: &TableSnapshot| {
        let of = |segment| snapshot.rollups()[0].of_segment(segment).0.len();
        snapshot.segments().iter().map(of).sum::<usize>()
    };
    assert!(parts(&held) > 0 && world.budget.retired() == 0);
    world.writer.configure(world.writer.next_offset(), Timestamp(0), &described(key, None, &[])).unwrap();
    let retired = world.budget.retired();
    assert!(retired > 0, "a reader holds on to parts that have left");
    let used = world.budget.used();
    drop(held);
    assert_eq!((world.budget.retired(), world.budget.used()), (0, used - retired));
}
