//! A rollup as a map from bucket and group to all values, made of rows in plain form; and what a snapshot has of one,
//! brought to that form.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::{BTreeMap, BTreeSet};

use engine::{DISTINCT_EXACT_MAX, DistinctCell, MetricCell, RollupPart, RollupSnapshot, TableSnapshot};
use sketch::{HeavyHitters, Hll, QuantileSketch, hash_str};
use types::{ColumnKind, Rollup, Timestamp};

use crate::rows::Row;

/// A bucket's number and the values of the columns of `group_by`.
pub(crate) type Key = (i64, Vec<Option<String>>);

/// All buckets; the greatest one has no number behind it.
pub(crate) const ALL_BUCKETS: std::ops::Range<i64> = i64::MIN..i64::MAX;

/// What a rollup has of a group, from a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(crate) rows: u64,
    pub(crate) metrics: BTreeMap<String, MetricCell>,
    pub(crate) distinct: Vec<DistinctCell>,
    pub(crate) quantiles: Vec<QuantileSketch>,
    pub(crate) tops: Vec<HeavyHitters>,
}

impl Cell {
    /// All that it can be asked for, as text.
    pub(crate) fn said(&self) -> String {
        let metrics = self.metrics.iter().map(|(name, cell)| (name, cell.count(), cell.sum(), cell.min(), cell.max()));
        let quantiles = self.quantiles.iter().map(QuantileSketch::to_bytes);
        let tops = self.tops.iter().map(HeavyHitters::to_bytes);
        let sketches = (quantiles.collect::<Vec<_>>(), tops.collect::<Vec<_>>());
        format!("{:?}", (self.rows, metrics.collect::<Vec<_>>(), &self.distinct, sketches))
    }
}

/// What a rollup would have of these rows whose times are not before `from`: the rows by group.
pub(crate) fn expected<'a>(
    rollup: &Rollup,
    rows: impl IntoIterator<Item = &'a Row>,
    from: Timestamp,
) -> BTreeMap<Key, Vec<&'a Row>> {
    let mut groups: BTreeMap<Key, Vec<&Row>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| Timestamp(row.time) >= from) {
        let key = rollup.group_by.iter().map(|name| row.dimensions.get(name).cloned()).collect();
        groups.entry((rollup.interval.bucket_of(Timestamp(row.time)), key)).or_default().push(row);
    }
    groups
}

/// What a snapshot has of its rollup of this place: all of the history, parts of segments, and rows that no part has.
pub(crate) fn actual(snapshot: &TableSnapshot, rollup: &RollupSnapshot) -> BTreeMap<Key, Cell> {
    let mut groups = BTreeMap::new();
    let ever = Timestamp::MIN..Timestamp::MAX;
    rollup.history(ALL_BUCKETS).for_each(|part| absorb(&mut groups, snapshot, rollup.rollup(), part));
    for segment in snapshot.segments() {
        let (parts, rows) = rollup.of_segment(segment);
        parts.iter().for_each(|part| absorb(&mut groups, snapshot, rollup.rollup(), part));
        let rest = rollup.of_rows(snapshot, segment, rows..segment.rows(), &ever);
        rest.iter().for_each(|part| absorb(&mut groups, snapshot, rollup.rollup(), part));
    }
    groups
}

fn absorb(groups: &mut BTreeMap<Key, Cell>, snapshot: &TableSnapshot, rollup: &Rollup, part: &RollupPart) {
    assert!(part.buckets().is_sorted() && part.groups() > 0);
    for at in 0..part.groups() {
        let value = |column| part.string(column, part.key(column)[at]).map(str::to_owned);
        let key = (part.buckets()[at], (0..rollup.group_by.len()).map(value).collect());
        let cell = groups.entry(key).or_insert_with(|| Cell {
            distinct: vec![DistinctCell::default(); rollup.distinct.len()],
            quantiles: vec![QuantileSketch::default(); rollup.percentiles.len()],
            tops: vec![HeavyHitters::default(); rollup.top.len()],
            ..Cell::default()
        });
        cell.rows += part.rows()[at];
        for (column, def) in snapshot.numbered_columns().filter(|(_, def)| def.kind == ColumnKind::Metric) {
            let of_group = part.metric(column).map(|cells| cells[at]).filter(|cell| cell.count() > 0);
            if let Some(of_group) = of_group {
                cell.metrics.entry(def.name.clone()).or_default().merge(&of_group);
            }
        }
        cell.distinct.iter_mut().enumerate().for_each(|(place, cell)| cell.merge(&part.distinct(place)[at]));
        cell.quantiles.iter_mut().enumerate().for_each(|(place, cell)| cell.merge(&part.quantiles(place)[at]));
        cell.tops.iter_mut().enumerate().for_each(|(place, cell)| cell.merge(&part.tops(place)[at]));
    }
}

/// Fails unless a group of a snapshot says what its rows say: counts and extremes exactly, sums within 1e-12 of the sum of
/// absolute values, sketches as if the rows had been put into them one by one.
pub(crate) fn check_group(rollup: &Rollup, key: &Key, cell: &Cell, rows: &[&Row]) {
    assert_eq!(cell.rows, rows.len() as u64, "rows of {key:?}");
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.metrics.keys()).collect();
    assert_eq!(cell.metrics.keys().collect::<BTreeSet<_>>(), names, "metrics of {key:?}");
    for name in names {
        let values: Vec<f64> = rows.iter().filter_map(|row| row.metrics.get(name).copied()).collect();
        check_metric(&cell.metrics[name], &values);
    }
    let strings = |name: &String| rows.iter().filter_map(|row| row.dimensions.get(name)).collect::<Vec<_>>();
    for (name, cell) in rollup.distinct.iter().zip(&cell.distinct) {
        let hashes: BTreeSet<u64> = strings(name).into_iter().map(|value| hash_str(value)).collect();
        let hashes: Vec<u64> = hashes.into_iter().collect();
        match cell {
            DistinctCell::Hashes(known) => assert_eq!(known, &hashes),
            DistinctCell::Sketch(known) => {
                assert!(hashes.len() > DISTINCT_EXACT_MAX, "{} values are no reason for a sketch", hashes.len());
                let mut direct = Hll::default();
                direct.extend(&hashes);
                assert_eq!(known.to_bytes(), direct.to_bytes());
            }
        }
    }
    for (name, cell) in rollup.percentiles.iter().zip(&cell.quantiles) {
        let mut direct = QuantileSketch::default();
        rows.iter().filter_map(|row| row.metrics.get(name)).for_each(|value| direct.add(*value));
        assert_eq!(cell.to_bytes(), direct.to_bytes());
    }
    for (name, cell) in rollup.top.iter().zip(&cell.tops) {
        check_top(cell, &strings(name));
    }
}

fn check_metric(cell: &MetricCell, values: &[f64]) {
    assert_eq!(cell.count(), values.len() as u64);
    assert_eq!(cell.min(), values.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(cell.max(), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let absolute: f64 = values.iter().map(|value| value.abs()).sum();
    let sum: f64 = values.iter().sum();
    assert!((cell.sum() - sum).abs() <= 1e-12 * absolute, "{} is not {sum}", cell.sum());
    let mean = sum / values.len() as f64;
    let deviation: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    assert!((cell.deviation() - deviation).abs() <= 1e-9 * squares, "{} is not {deviation}", cell.deviation());
}

/// Counts within what the summary says of itself; exact where it says so, and it must while there were few values.
fn check_top(cell: &HeavyHitters, values: &[&String]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(value).or_default() += 1);
    assert_eq!(cell.total(), values.len() as u64);
    assert!(cell.is_exact() || counts.len() > 2_048, "{} values are no reason for a bound", counts.len());
    assert!(cell.undercount() * 1_025 <= cell.total());
    for (value, &count) in &counts {
        let counted = cell.count(value);
        assert!(counted <= count && count <= counted + cell.undercount(), "{value}: {counted} of {count}");
    }
    assert!(cell.top(usize::MAX).iter().all(|hitter| counts.contains_key(hitter.item)));
}
