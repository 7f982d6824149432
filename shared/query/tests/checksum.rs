//! Checksums of rows, of replicas that lay them out otherwise.

mod world;

use std::sync::atomic::AtomicBool;

use engine::Limits;
use proptest::prelude::*;
use query::{Cancel, Checksum, RowsChecksum};
use types::{TimeRange, Timestamp};
use world::{PARTITIONS, Random, Shape, World, random_row, tiny};

const SPAN_US: i64 = 3_000;

/// The checksums of all tables and partitions.
fn sums(world: &World, range: TimeRange) -> Vec<RowsChecksum> {
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let snapshots = world.readers.iter().flat_map(|reader| world.tables.iter().map(|table| reader.snapshot(table.key)));
    snapshots
        .map(|table| {
            let mut checksum = Checksum::new(table?, range);
            while checksum.step(&cancel).unwrap() {}
            Some(checksum.found())
        })
        .map(Option::unwrap_or_default)
        .collect()
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp(start), Timestamp(end)).unwrap()
}

fn shape(rows: usize, limits: Limits) -> Shape {
    Shape { rows, limits, span_us: SPAN_US, in_order: false, users: 40 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: replicas of one log have equal checksums of any range, however small their segments and dictionaries are and
    /// however much the other one has let go of before the range; and each of its rows counts.
    #[test]
    fn layout_changes_no_checksum(seed: u64, rows in 1_usize..1_500, start in 0..SPAN_US, length in 1..SPAN_US) {
        let (small, mut large) = (World::new(seed, shape(rows, tiny())), World::new(seed, shape(rows, Limits::default())));
        let asked = range(start, start + length);
        let expected = sums(&small, asked);
        prop_assert_eq!(&sums(&large, asked), &expected);
        let inside = small.rows.iter().filter(|row| asked.contains(Timestamp(row.time))).count() as u64;
        prop_assert_eq!(expected.iter().map(|sum| sum.rows).sum::<u64>(), inside);
        // From the newest event on, so that something leaves and what is asked for stays.
        let newest = small.rows.iter().map(|row| row.time).max().unwrap();
        prop_assume!(newest > start);
        large.keep_only(Some(newest - start));
        prop_assert_eq!(&sums(&large, asked), &expected);
    }

    /// Goal: one row that says something else in one column, or has a value where the other has none, shows in its partition
    /// and its table alone.
    #[test]
    fn a_divergence_shows(seed: u64, rows in 1_usize..400, which: prop::sample::Index, how in 0..4) {
        let mut random = Random(seed);
        let shape = shape(rows, tiny());
        let all: Vec<_> = (0..rows).map(|at| random_row(&mut random, &shape, at)).collect();
        let mut other = all.clone();
        let row = &mut other[which.index(rows)];
        match how {
            0 => row.time += 1,
            1 => drop(row.dimensions.insert("region", "another".to_owned())),
            2 => drop(row.metrics.insert("latency", -0.5)),
            _ => drop(row.dimensions.insert("late", String::new())),
        }
        let of = |rows: &[world::Row]| {
            let mut world = World::new(seed, Shape { rows: 0, ..shape });
            world.ingest(&mut Random(seed), rows);
            sums(&world, range(0, SPAN_US + 2))
        };
        let (one, other) = (of(&all), of(&other));
        let differ = one.iter().zip(&other).filter(|(one, other)| one != other).count();
        prop_assert_eq!((one.len(), differ), (2 * PARTITIONS as usize, 1));
    }
}
