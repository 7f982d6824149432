//! The engine against a plain list of rows.
#![cfg(not(loom))]

mod rows;

use std::{collections::BTreeMap, sync::Arc};

use engine::{Limits, MemoryBudget, Reader, TableSnapshot, Writer, partition};
use proptest::prelude::*;
use rows::{PARTITION, Row, apply, block, decode, table_key};
use types::{GapReason, LogGap, Offset, PartitionId, Schema, Table, TableKey, TableName, TableSettings, Timestamp};

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
        recent_ids_max: 4,
        folded_rows_max: 32,
        hash_seed: 3,
    }
}

#[derive(Debug, Clone)]
enum Op {
    Block { table: u64, rows: Vec<Row> },
    HotWindow { table: u64, hot_window_us: i64 },
    Drop { table: u64 },
    Housekeep,
}

/// Mostly small integers, so that segments hold decimals; also numbers with places, and doubles that are no decimals.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        12 => (-5_i32..5).prop_map(f64::from),
        3 => (-900_i32..900).prop_map(|cents| f64::from(cents) / 100.0),
        1 => prop::sample::select(vec![0.1 + 0.2, 1e300, -1e17]),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let dimensions = prop::collection::btree_map("[a-d]", "[x-z]{1,2}|long value that fits no slot [x-z]", 0..4);
    let metrics = prop::collection::btree_map("[m-o]", value(), 0..3);
    let time = prop_oneof![4 => 0_i64..60, 1 => -200_i64..400];
    (time, dimensions, metrics).prop_map(|(time, dimensions, metrics)| Row { time, dimensions, metrics })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0_u64..2, prop::collection::vec(row(), 1..12)).prop_map(|(table, rows)| Op::Block { table, rows }),
        1 => (0_u64..2, 5_i64..100).prop_map(|(table, hot_window_us)| Op::HotWindow { table, hot_window_us }),
        1 => (0_u64..2).prop_map(|table| Op::Drop { table }),
        3 => Just(Op::Housekeep),
    ]
}

fn described(key: TableKey, hot_window_us: i64) -> Table {
    Table {
        key,
        name: TableName::new("n", "t"),
        partitions: vec![PARTITION],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings { hot_window_us: Some(hot_window_us), ..TableSettings::default() },
    }
}

type Model = BTreeMap<TableKey, BTreeMap<(Offset, u32), Row>>;

/// What a reader sees is what the model has, less what the horizon and the counters say is gone.
fn check(reader: &Reader, model: &Model, may_evict: bool) -> Result<(), TestCaseError> {
    prop_assert_eq!(reader.tables(), model.keys().copied().collect::<Vec<_>>());
    for (key, expected) in model {
        let snapshot = reader.snapshot(*key).expect("it is listed");
        let seen = decode(&snapshot);
        let by_origin: BTreeMap<_, _> = seen.iter().cloned().collect();
        prop_assert_eq!(by_origin.len(), seen.len(), "no row twice");
        for (origin, row) in &by_origin {
            prop_assert_eq!(Some(row), expected.get(origin));
        }
        let status = reader.table_status(*key).expect("it is listed");
        prop_assert_eq!(status.live as usize, seen.len());
        prop_assert_eq!((status.live + status.evicted) as usize, expected.len());
        let horizon = snapshot.evicted_before();
        for (origin, row) in expected.iter().filter(|(origin, _)| !by_origin.contains_key(origin)) {
            prop_assert!(may_evict, "{origin:?} is missing");
            prop_assert!(horizon.is_some_and(|horizon| Timestamp(row.time) < horizon), "{row:?} left unannounced");
        }
    }
    Ok(())
}

struct World {
    writer: Writer,
    reader: Reader,
    model: Model,
    generations: [u32; 2],
    clock: i64,
}

impl World {
    fn new(limits: Limits, budget: &Arc<MemoryBudget>) -> Self {
        let (writer, reader) = partition(PARTITION, Offset::ZERO, limits, Arc::clone(budget));
        Self { writer, reader, model: Model::new(), generations: [1; 2], clock: 0 }
    }

    fn key(&self, table: u64) -> TableKey {
        table_key(table, self.generations[table as usize])
    }

    fn run(&mut self, op: &Op) {
        self.clock += 20;
        let (offset, now) = (self.writer.next_offset(), Timestamp(self.clock));
        match op {
            Op::Block { table, rows } => {
                let key = self.key(*table);
                apply(&mut self.writer, self.clock, key, rows);
                let known = self.model.entry(key).or_default();
                known.extend(rows.iter().enumerate().map(|(index, row)| ((offset, index as u32), row.clone())));
            }
            Op::HotWindow { table, hot_window_us } => {
                let key = self.key(*table);
                self.writer.configure(offset, now, &described(key, *hot_window_us)).expect("in order");
                self.model.entry(key).or_default();
            }
            Op::Drop { table } => {
                let key = self.key(*table);
                self.writer.drop_table(offset, now, key).expect("in order");
                self.model.remove(&key);
                self.generations[*table as usize] += 1;
            }
            Op::Housekeep => self.writer.housekeep(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Goal: after any history a snapshot is exactly the rows applied: none lost, none twice, each with its origin,
    /// through rolls, new columns, new dictionary epochs, stragglers, widening and drops.
    #[test]
    fn rows_match_oracle(ops in prop::collection::vec(op(), 1..40)) {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let mut world = World::new(tiny(), &budget);
        for op in ops.iter().filter(|op| !matches!(op, Op::HotWindow { .. })) {
            world.run(op);
            check(&world.reader, &world.model, false)?;
        }
        drop(world);
        prop_assert_eq!((budget.used(), budget.retired()), (0, 0), "all memory was accounted for");
    }

    /// Goal: with hot windows and a budget, what is missing lies behind the horizon and is counted.
    #[test]
    fn evicted_rows_are_announced(ops in prop::collection::vec(op(), 1..40), limit in 20_000_u64..200_000) {
        let budget = Arc::new(MemoryBudget::new(limit));
        let mut world = World::new(tiny(), &budget);
        for op in &ops {
            world.run(op);
            check(&world.reader, &world.model, true)?;
        }
        drop(world);
        prop_assert_eq!((budget.used(), budget.retired()), (0, 0), "all memory was accounted for");
    }

    /// Goal: a snapshot at an earlier offset is the one that was taken then, less only what lies behind its horizon; one at
    /// an offset that is still to come is refused.
    #[test]
    fn earlier_snapshots_come_again(ops in prop::collection::vec(op(), 1..40), limit in 20_000_u64..400_000) {
        let mut world = World::new(tiny(), &Arc::new(MemoryBudget::new(limit)));
        let mut taken = Vec::new();
        for op in &ops {
            world.run(op);
            let (next_offset, keys) = (world.reader.next_offset(), world.reader.tables());
            let (_, snapshots) = world.reader.snapshots(&keys);
            let rows = |snapshot: Option<TableSnapshot>| decode(&snapshot.expect("it is listed")).into_iter().collect();
            taken.push((next_offset, keys, snapshots.into_iter().map(rows).collect::<Vec<BTreeMap<_, _>>>()));
        }
        for (next_offset, keys, then) in taken {
            let again = world.reader.snapshots_at(&keys, next_offset).expect("it is not to come");
            for (again, then) in again.into_iter().zip(then) {
                // A table that was dropped since has no snapshot.
                let Some(again) = again else { continue };
                prop_assert_eq!(again.next_offset(), next_offset);
                let rows: BTreeMap<_, _> = decode(&again).into_iter().collect();
                prop_assert!(rows.iter().all(|(origin, row)| then.get(origin) == Some(row)), "no row that was not there");
                let horizon = again.evicted_before().unwrap_or(Timestamp::MIN);
                let gone = then.iter().filter(|(origin, _)| !rows.contains_key(origin));
                prop_assert!(gone.clone().all(|(_, row)| Timestamp(row.time) < horizon), "rows left unannounced");
            }
        }
        let ahead = Offset(world.reader.next_offset().0 + 1);
        prop_assert!(world.reader.snapshots_at(&world.reader.tables(), ahead).is_none());
    }

    /// Goal: what is evicted on one replica changes nothing in how another lays out the rows that both have.
    #[test]
    fn eviction_moves_no_row(ops in prop::collection::vec(op(), 1..40)) {
        let mut keeps = World::new(tiny(), &Arc::new(MemoryBudget::new(u64::MAX)));
        let mut evicts = World::new(tiny(), &Arc::new(MemoryBudget::new(60_000)));
        for op in ops.iter().filter(|op| !matches!(op, Op::HotWindow { .. })) {
            keeps.run(op);
            evicts.run(op);
            evicts.run(&Op::Housekeep);
        }
        for key in keeps.reader.tables() {
            let (all, some) = (keeps.reader.snapshot(key).unwrap(), evicts.reader.snapshot(key).unwrap());
            let horizon = some.evicted_before().unwrap_or(Timestamp::MIN);
            // Segments with rows from the horizon on, each as its times: position within a segment counts.
            let shape = |snapshot: &engine::TableSnapshot| -> Vec<Vec<i64>> {
                let kept = snapshot.segments().iter().filter(|segment| {
                    segment.times().iter().any(|time| Timestamp(time) >= horizon)
                });
                kept.map(|segment| segment.times().iter().collect()).collect()
            };
            prop_assert_eq!(shape(&all), shape(&some));
        }
    }
}

fn plain(time: i64) -> Row {
    Row { time, dimensions: [("d".to_owned(), "x".to_owned())].into(), metrics: [("m".to_owned(), 1.0)].into() }
}

/// Goal: a held snapshot stays as it was while the same memory budget evicts and reuses around it.
#[test]
fn held_snapshots_do_not_change() {
    let budget = Arc::new(MemoryBudget::new(100_000));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, tiny(), Arc::clone(&budget));
    let key = table_key(0, 1);
    let mut held = Vec::new();
    for time in 0..2_000 {
        apply(&mut writer, time, key, &[plain(time), plain(time)]);
        if time % 100 == 0 {
            let snapshot = reader.snapshot(key).unwrap();
            held.push((decode(&snapshot), snapshot));
        }
        if time % 16 == 0 {
            writer.housekeep();
        }
    }
    assert!(reader.table_status(key).unwrap().evicted > 0);
    held.iter().for_each(|(before, snapshot)| assert_eq!(&decode(snapshot), before));
    held.clear();
    writer.housekeep();
    assert_eq!(budget.retired(), 0, "what readers left is not pinned");
    assert!(budget.used() <= budget.limit(), "{} of {}", budget.used(), budget.limit());
}

/// Goal: one outlier in the future moves neither the watermark nor the hot window.
#[test]
fn outliers_move_nothing() {
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, Limits::default(), budget);
    let (key, now) = (table_key(0, 1), 1_700_000_000_000_000);
    writer.configure(Offset(0), Timestamp(now), &described(key, 60_000_000)).unwrap();
    apply(&mut writer, now, key, &[plain(now - 5), plain(now + 1_000_000_000_000)]);
    writer.housekeep();
    let status = reader.table_status(key).unwrap();
    assert_eq!((status.event_time_max, status.live), (Some(Timestamp(now - 5)), 2));
    assert_eq!(status.last_events_at, Some(Timestamp(now)));
}

/// Goal: a row that comes behind the horizon counts as evicted and takes no memory, whether its slot is still open or not.
#[test]
fn late_rows_are_evicted_at_once() {
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, tiny(), budget);
    let key = table_key(0, 1);
    writer.configure(Offset(0), Timestamp(0), &described(key, 20)).unwrap();
    apply(&mut writer, 100, key, &[plain(1), plain(95)]);
    writer.housekeep();
    assert_eq!(reader.snapshot(key).unwrap().evicted_before(), Some(Timestamp(10)), "the slot of 1 has left");
    // The first finds its slot open, the second one that is opened for it.
    for late in [2, -7] {
        let applied = apply(&mut writer, 100, key, &[plain(late)]);
        assert_eq!((applied.stored, applied.evicted), (0, 1));
    }
    let status = reader.table_status(key).unwrap();
    assert_eq!((status.live, status.evicted, reader.snapshot(key).unwrap().rows()), (1, 3, 1));
}

/// Goal: strings that no row has any more leave memory: values that are all different do not outgrow the budget.
#[test]
fn strings_leave_with_their_rows() {
    let budget = Arc::new(MemoryBudget::new(2 << 20));
    let limits = Limits {
        segment_rows_max: 64,
        dictionary_entries_max: usize::MAX,
        dictionary_bytes_max: (2 << 20) / 16,
        ..tiny()
    };
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, limits, Arc::clone(&budget));
    let key = table_key(0, 1);
    for block in 0..1_000 {
        let different = (0..64).map(|row| {
            let value = format!("a value of which there is only one, {block} {row}");
            Row { time: block * 10, dimensions: [("d".to_owned(), value)].into(), metrics: BTreeMap::new() }
        });
        apply(&mut writer, block * 10, key, &different.collect::<Vec<_>>());
        writer.housekeep();
    }
    let status = reader.table_status(key).unwrap();
    assert!(status.live > 0 && status.evicted > 0, "{status:?}");
    assert!(budget.used() <= budget.limit(), "{} of {}", budget.used(), budget.limit());
}

/// Goal: rows at the greatest time there is leave like others when memory is short, and making room comes to an end.
#[test]
fn the_greatest_time_can_leave() {
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, tiny(), Arc::new(MemoryBudget::new(1)));
    let key = table_key(0, 1);
    for _ in 0..10 {
        apply(&mut writer, 0, key, &[plain(i64::MAX), plain(i64::MAX)]);
    }
    writer.housekeep();
    let status = reader.table_status(key).unwrap();
    assert!(status.evicted > 0, "the sealed segments have left");
    assert_eq!(status.live + status.evicted, 20);
    assert_eq!(reader.snapshot(key).unwrap().evicted_before(), Some(Timestamp::MAX));
}

/// Goal: a record out of order changes nothing; one that cannot be applied is passed over, counted, and the next comes.
#[test]
fn bad_records_are_passed_over() {
    let (mut writer, reader) =
        partition(PARTITION, Offset(7), Limits::default(), Arc::new(MemoryBudget::new(u64::MAX)));
    let key = table_key(0, 1);
    let (header, body) = block(key, &[plain(1)]);
    let view = codec::BodyView::parse(&body).unwrap();
    let order = engine::ApplyError::Order { expected: Offset(7), got: Offset(8) };
    assert_eq!(writer.apply(Offset(8), Timestamp(0), &header, &view), Err(order));
    let foreign = codec::BlockHeader { partition: PartitionId(3), ..header };
    let error = writer.apply(Offset(7), Timestamp(0), &foreign, &view);
    assert_eq!(error, Err(engine::ApplyError::Partition(PartitionId(3))));
    let short = codec::BlockHeader { rows: 9, ..header };
    assert!(writer.apply(Offset(8), Timestamp(0), &short, &view).is_err());
    assert_eq!(writer.apply(Offset(9), Timestamp(0), &header, &view).map(|applied| applied.stored), Ok(1));
    writer.drop_table(Offset(10), Timestamp(0), key).unwrap();
    assert_eq!(writer.apply(Offset(11), Timestamp(0), &header, &view).map(|applied| applied.stored), Ok(0));
    assert_eq!((reader.status().passed_over, reader.status().rows, reader.next_offset()), (3, 0, Offset(12)));
}

/// Goal: what a partition went on without is part of its state: a block that cannot be applied of its table and times, lost
/// records of all that is not known; readers see it with the offset behind it. It ends with its table, and only then.
#[test]
fn missing_records_stay_known() {
    let (mut writer, reader) =
        partition(PARTITION, Offset(7), Limits::default(), Arc::new(MemoryBudget::new(u64::MAX)));
    let (kept, dropped) = (table_key(0, 1), table_key(1, 1));
    for (offset, key) in [(7, kept), (8, dropped)] {
        let (header, body) = block(key, &[plain(5), plain(3)]);
        let view = codec::BodyView::parse(&body).unwrap();
        let short = codec::BlockHeader { rows: 9, ..header };
        assert!(writer.apply(Offset(offset), Timestamp(20), &short, &view).is_err());
    }
    let lost = LogGap { first: Offset(9), end: Offset(12), table: None, times: None, reason: GapReason::Gone };
    assert!(writer.pass_over(LogGap { first: Offset(8), ..lost }, Timestamp(0)).is_err(), "not the next record");
    writer.pass_over(lost, Timestamp(0)).unwrap();
    assert_eq!((writer.next_offset(), reader.next_offset()), (Offset(12), Offset(12)));
    assert_eq!((reader.status().passed_over, reader.status().append_time), (5, Timestamp(20)));
    let of = |first: u64, key| LogGap {
        first: Offset(first),
        end: Offset(first + 1),
        table: Some(key),
        times: Some((Timestamp(3), Timestamp(5))),
        reason: GapReason::Inapplicable,
    };
    assert_eq!(reader.gaps().as_slice(), [of(7, kept), of(8, dropped), lost]);
    assert_eq!(writer.gaps(), reader.gaps().as_slice());
    writer.drop_table(Offset(12), Timestamp(30), dropped).unwrap();
    assert_eq!(reader.gaps().as_slice(), [of(7, kept), lost]);
    // A block of a table that is gone is missed by nobody.
    let (header, body) = block(dropped, &[plain(1)]);
    let view = codec::BodyView::parse(&body).unwrap();
    assert!(writer.apply(Offset(13), Timestamp(30), &codec::BlockHeader { rows: 9, ..header }, &view).is_err());
    assert_eq!(reader.gaps().len(), 2);
}

/// Goal: a set shuffled over seven months needs few segments and little memory, like one in order.
#[test]
fn shuffled_months_stay_small() {
    let (rows_max, day) = (250_000_u64, 86_400_000_000_i64);
    for shuffled in [true, false] {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (mut writer, reader) = partition(PARTITION, Offset::ZERO, Limits::default(), Arc::clone(&budget));
        let key = table_key(0, 1);
        let start = 1_700_000_000_000_000;
        for first in (0..rows_max).step_by(1_000) {
            let rows: Vec<Row> = (first..first + 1_000)
                .map(|n| {
                    let at = if shuffled { n * 104_729 % rows_max } else { n };
                    let dimensions = (0..4).map(|d| (format!("d{d}"), format!("{}", at % (10 << (d * 2)))));
                    let metrics = (0..4).map(|m| (format!("m{m}"), at as f64));
                    let time = start + (at as i64) * (210 * day / rows_max as i64);
                    Row { time, dimensions: dimensions.collect(), metrics: metrics.collect() }
                })
                .collect();
            apply(&mut writer, start + 211 * day, key, &rows);
        }
        writer.housekeep();
        let snapshot = reader.snapshot(key).unwrap();
        assert_eq!(snapshot.rows() as u64, rows_max);
        let (segments, bytes_per_row) = (snapshot.segments().len(), budget.used() / rows_max);
        assert!(segments < 1_000, "shuffled {shuffled}: {segments} segments");
        assert!(bytes_per_row < 100, "shuffled {shuffled}: {bytes_per_row} bytes/row");
    }
}
