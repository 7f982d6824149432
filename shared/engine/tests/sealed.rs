//! Sealed segments, in their smallest form, against the rows that came.
#![cfg(not(loom))]

mod kept;
mod rows;

use std::{collections::BTreeMap, sync::Arc};

use engine::{
    CHUNK_ROWS, HeapRuns, Limits, MemoryBudget, Metric, Reader, SegmentView, TableSnapshot, Times, horizon_alone,
    partition, restore,
};
use kept::Kept;
use proptest::prelude::*;
use rows::{PARTITION, Row, apply, table_key};
use types::{ColumnKind, Offset};

/// A segment of them has two chunks, the second of which is short.
const SEGMENT_ROWS: usize = 8_192;
const SEGMENT_US: i64 = 1 << 40;

fn limits() -> Limits {
    let rows = SEGMENT_ROWS;
    Limits { segment_rows_first: rows, segment_rows_max: rows, slot_width_us: SEGMENT_US, ..Limits::default() }
}

/// What a metric's values are like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Integers that fit so many bits.
    Integers(u32),
    /// Numbers with so many places, of either sign.
    Places(i32),
    /// As before, but one has more places.
    OneFiner,
    /// Any doubles.
    Doubles,
    /// Integers, and one number that no decimal of a few places is.
    OneOther,
    /// All the same.
    Constant,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        prop::sample::select(vec![3, 8, 15, 31]).prop_map(Kind::Integers),
        (1..5).prop_map(Kind::Places),
        Just(Kind::OneFiner),
        Just(Kind::Doubles),
        Just(Kind::OneOther),
        Just(Kind::Constant),
    ]
}

/// A well spread number.
fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Kind {
    fn value(self, random: u64, is_odd_one: bool) -> f64 {
        let places = |places: i32, n: u64| (n as f64 - 40_000.0) / 10_f64.powi(places);
        match self {
            Self::Integers(bits) => (random >> (64 - bits)) as f64,
            Self::Places(count) => places(count, random >> 47),
            Self::OneFiner => places(if is_odd_one { 4 } else { 2 }, (random >> 47) | 1),
            Self::Doubles => f64::from_bits(random >> 2),
            Self::OneOther if is_odd_one => 0.1 + 0.2,
            Self::OneOther => (random >> 57) as f64,
            Self::Constant => 7.25,
        }
    }

    /// Bytes of a value in a sealed segment.
    fn bytes(self) -> Vec<usize> {
        match self {
            Self::Integers(3) | Self::Constant => vec![1],
            Self::Integers(8) => vec![1, 2],
            Self::Integers(15) => vec![1, 2],
            Self::Integers(_) | Self::Places(_) | Self::OneFiner => vec![1, 2, 4],
            Self::Doubles | Self::OneOther => vec![8],
        }
    }
}

fn history(kinds: [Kind; 2], rows: usize, span: i64, present: u64, seed: u64) -> Vec<Row> {
    let row = |n: usize| {
        let random = |at: u64| mixed(seed ^ (n as u64 * 4 + at));
        let value = |at: usize| kinds[at].value(random(at as u64), n == rows / 2);
        let is_in = |at: usize| n == rows / 2 || random(2 + at as u64) % 8 < present;
        let metrics = ["m", "n"].into_iter().enumerate().filter(|&(at, _)| is_in(at));
        Row {
            time: SEGMENT_US + (random(3) % (span as u64 + 1)) as i64,
            dimensions: BTreeMap::from([("d".to_owned(), format!("v{}", random(1) % 5))]),
            metrics: metrics.map(|(at, name)| (name.to_owned(), value(at))).collect(),
        }
    };
    (0..rows).map(row).collect()
}

/// The rows of a segment in the order in which they lie there; they are `rows` from the first one of its first record on.
fn check_segment(snapshot: &TableSnapshot, segment: &SegmentView, rows: &[Row]) -> Result<(), TestCaseError> {
    let (mut times, mut values) = ([0; CHUNK_ROWS], [0.0; CHUNK_ROWS]);
    for chunk in 0..segment.chunks() {
        let range = segment.rows_of(chunk);
        let expected: Vec<i64> = rows[range.clone()].iter().map(|row| row.time).collect();
        prop_assert_eq!(segment.times().read(range.clone(), &mut times), &expected[..]);
        let (zone, min, max) = (segment.chunk_zone(chunk), expected.iter().min(), expected.iter().max());
        prop_assert_eq!((Some(&zone.min.0), Some(&zone.max.0)), (min, max));
    }
    for name in ["m", "n"] {
        let column = snapshot.column(name, ColumnKind::Metric).expect("a row has it");
        let bits = |row: &Row| row.metrics.get(name).copied().unwrap_or(f64::NAN).to_bits();
        let metric = segment.metric(column).expect("a row has it");
        for chunk in 0..segment.chunks() {
            let range = segment.rows_of(chunk);
            let read = metric.read(range.clone(), None, &mut values);
            for (row, value) in range.zip(read) {
                prop_assert_eq!(value.to_bits(), bits(&rows[row]), "{} of row {}, {:?}", name, row, rows[row]);
                prop_assert_eq!(metric.get(row).to_bits(), bits(&rows[row]));
            }
        }
        let present = || rows.iter().filter_map(|row| row.metrics.get(name).copied());
        if segment.sealed() {
            let expected = (present().fold(f64::MAX, f64::min), present().fold(f64::MIN, f64::max));
            prop_assert_eq!(segment.metric_range(column), Some(expected));
        }
    }
    Ok(())
}

/// Bytes of event times and of both metrics.
fn forms(snapshot: &TableSnapshot, segment: &SegmentView) -> (usize, Vec<usize>) {
    let metric = |name| segment.metric(snapshot.column(name, ColumnKind::Metric).unwrap());
    let bytes =
        ["m", "n"].map(metric).into_iter().map(|metric| metric.map_or(0, |metric: Metric<'_>| metric.item_bytes()));
    (Times::item_bytes(&segment.times()), bytes.collect())
}

fn check(reader: &Reader, rows: &[Row]) -> Result<Vec<(usize, Vec<usize>)>, TestCaseError> {
    let snapshot = reader.snapshot(table_key(0, 1)).unwrap();
    prop_assert_eq!(snapshot.segments().len(), 2);
    let (sealed, open) = (&snapshot.segments()[0], &snapshot.segments()[1]);
    prop_assert_eq!((sealed.rows(), sealed.sealed(), open.sealed()), (SEGMENT_ROWS, true, false));
    check_segment(&snapshot, sealed, &rows[..SEGMENT_ROWS])?;
    check_segment(&snapshot, open, &rows[SEGMENT_ROWS..])?;
    Ok(snapshot.segments().iter().map(|segment| forms(&snapshot, segment)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Goal: whatever its values are, a sealed segment has the very bits of the rows that came, in the smallest form of each
    /// column, with exact zones and ranges; and so it has after a restart from parts written before and after it was sealed.
    #[test]
    fn what_is_sealed_is_what_came(
        kinds in prop::array::uniform2(kind()),
        span in prop::sample::select(vec![0, 255, 256, 65_535, 65_536, i64::from(u32::MAX), 1 << 32, SEGMENT_US - 1]),
        present in 1_u64..=8,
        seed: u64,
    ) {
        let key = table_key(0, 1);
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (mut writer, reader) = partition(PARTITION, Offset::ZERO, limits(), Arc::clone(&budget));
        let rows = history(kinds, SEGMENT_ROWS + 100, span, present, seed);
        let mut before = Kept::default();
        for (at, block) in rows.chunks(1_000).enumerate() {
            apply(&mut writer, 0, key, block);
            if at == 4 {
                before = Kept::of(&writer, &Kept::default(), 1_500);
            }
        }
        let found = check(&reader, &rows)?;
        let span = rows[..SEGMENT_ROWS].iter().map(|row| row.time).max().unwrap()
            - rows[..SEGMENT_ROWS].iter().map(|row| row.time).min().unwrap();
        let time_bytes = match span { 0..=0xff => 1, 0x100..=0xffff => 2, 0x1_0000..=0xffff_ffff => 4, _ => 8 };
        let (sealed_times, sealed_metrics) = &found[0];
        prop_assert_eq!(*sealed_times, time_bytes);
        for (kind, bytes) in kinds.iter().zip(sealed_metrics) {
            prop_assert!(kind.bytes().contains(bytes), "{:?} in {} bytes", kind, bytes);
        }
        prop_assert_eq!(&found[1], &(8, vec![8, 8]), "an open segment has rows as they come");

        let mut kept = Kept::of(&writer, &before, 1_500);
        let other = Arc::new(MemoryBudget::new(u64::MAX));
        let mut runs = HeapRuns::default();
        let restored = restore(PARTITION, &mut kept, limits(), &other, &mut runs, &mut horizon_alone(&other)).unwrap();
        let (restored, again) = restored.into_partition(Box::new(runs));
        prop_assert_eq!(check(&again, &rows)?, found);
        drop((writer, reader, restored, again));
        prop_assert_eq!((budget.used(), other.used()), (0, 0), "all memory was accounted for");
    }
}

/// Goal: a slot's large segment is sealed once other slots alone had rows for a while, a small one is not; a late row begins a
/// small segment, and all rows stay.
#[test]
fn idle_slots_give_back_what_they_do_not_use() {
    const WIDTH: i64 = 1_000;
    let limits = Limits {
        segment_rows_first: 16,
        segment_rows_max: 1_024,
        idle_rows: 150,
        slot_width_us: WIDTH,
        ..Limits::default()
    };
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let (mut writer, reader) = partition(PARTITION, Offset::ZERO, limits, Arc::clone(&budget));
    let rows = |slot: i64, count: i64| -> Vec<Row> {
        let metrics = BTreeMap::from([("m".to_owned(), 0.5)]);
        let row = |n| Row { time: slot * WIDTH + n, dimensions: BTreeMap::new(), metrics: metrics.clone() };
        (0..count).map(row).collect()
    };
    // By slot and place in it: rows, and whether they are sealed.
    let segments = || -> Vec<(usize, bool)> {
        let snapshot = reader.snapshot(table_key(0, 1)).unwrap();
        snapshot.segments().iter().map(|segment| (segment.rows(), segment.sealed())).collect()
    };
    let mut apply = |rows: &[Row]| apply(&mut writer, 0, table_key(0, 1), rows);
    apply(&rows(0, 100));
    apply(&rows(1, 100));
    apply(&rows(2, 10));
    apply(&rows(3, 10));
    assert_eq!(segments(), [(100, true), (100, false), (10, false), (10, false)]);
    apply(&rows(1, 1));
    apply(&rows(3, 1));
    apply(&rows(3, 1));
    assert_eq!(segments(), [(100, true), (101, false), (10, false), (12, false)], "a row puts it off");
    apply(&rows(3, 148));
    let used = budget.used();
    apply(&rows(0, 1));
    assert_eq!(segments(), [(100, true), (1, false), (101, true), (10, false), (16, true), (144, false)]);
    assert!(budget.used() < used + 4_096, "room for 16 rows, and not for 128");
}
