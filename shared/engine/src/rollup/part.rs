//! A part of a rollup: some rows by bucket and group, in columns. It never changes, and owns its strings.

use std::{collections::HashSet, ops::Range};

use sketch::{HeavyHitters, Hll, QuantileSketch};
use types::Rollup;
use xxhash_rust::xxh3::xxh3_64;

use super::sum::MetricCell;
use crate::{MemoryBudget, budget::RetiringCharge, columns::ColumnIndex, sync::Arc};

/// Distinct values of a group whose hashes are kept one by one, at most; more become a sketch.
pub const DISTINCT_EXACT_MAX: usize = 1_000;

/// Some strings, numbered from 1; 0 is "absent".
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Strings {
    pub(crate) text: String,
    pub(crate) ends: Vec<u32>,
}

impl Strings {
    /// Gives a string its number; it has none yet.
    pub(crate) fn push(&mut self, value: &str) -> u32 {
        self.text.push_str(value);
        self.ends.push(
            u32::try_from(self.text.len())
                .expect("a part has the strings of one segment's rows, or keeps to its bounds"),
        );
        self.ends.len() as u32
    }

    /// Without room for more.
    pub(crate) fn shrunk(mut self) -> Self {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self
    }

    /// The string of a number; `None` for 0.
    pub(crate) fn get(&self, number: u32) -> Option<&str> {
        let at = (number as usize).checked_sub(1)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.text[start..self.ends[at] as usize])
    }
}

/// The distinct values of a group, by their hashes ([`sketch::hash_str`]): the same however they were split and merged.
#[derive(Debug, Clone, PartialEq)]
pub enum DistinctCell {
    /// All of them, ascending, at most [`DISTINCT_EXACT_MAX`].
    Hashes(Vec<u64>),
    /// More.
    Sketch(Box<Hll>),
}

impl Default for DistinctCell {
    fn default() -> Self {
        Self::Hashes(Vec::new())
    }
}

impl DistinctCell {
    /// Takes hashes, which ascend, each once.
    pub(crate) fn extend(&mut self, more: &[u64]) {
        match self {
            Self::Sketch(sketch) => sketch.extend(more),
            Self::Hashes(hashes) => {
                hashes.extend_from_slice(more);
                hashes.sort_unstable();
                hashes.dedup();
                if hashes.len() > DISTINCT_EXACT_MAX {
                    let mut sketch = Hll::default();
                    sketch.extend(hashes);
                    *self = Self::Sketch(Box::new(sketch));
                }
            }
        }
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        match other {
            Self::Hashes(more) => self.extend(more),
            Self::Sketch(more) => {
                let mut sketch = more.clone();
                match self {
                    Self::Hashes(hashes) => sketch.extend(hashes),
                    Self::Sketch(known) => sketch.merge(known),
                }
                *self = Self::Sketch(sketch);
            }
        }
    }

    fn shrink(&mut self) {
        if let Self::Hashes(hashes) = self {
            hashes.shrink_to_fit();
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Hashes(hashes) => size_of_val(&**hashes),
                Self::Sketch(sketch) => sketch.bytes(),
            }
    }
}

/// Groups with all that is kept of them, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GroupColumns {
    /// Numbers of buckets.
    pub(crate) buckets: Vec<i64>,
    /// By column of the rollup's `group_by`: numbers of strings.
    pub(crate) keys: Vec<Vec<u32>>,
    /// Rows of each group.
    pub(crate) rows: Vec<u64>,
    /// Metrics that any row had, ascending.
    pub(crate) metrics: Vec<(ColumnIndex, Vec<MetricCell>)>,
    /// By column of the rollup's `distinct`, `percentiles` and `top`.
    pub(crate) distinct: Vec<Vec<DistinctCell>>,
    pub(crate) quantiles: Vec<Vec<QuantileSketch>>,
    pub(crate) tops: Vec<Vec<HeavyHitters>>,
}

impl GroupColumns {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            keys: vec![Vec::new(); shape.keys],
            distinct: vec![Vec::new(); shape.distinct],
            quantiles: vec![Vec::new(); shape.quantiles],
            tops: vec![Vec::new(); shape.tops],
            ..Self::default()
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            keys: self.keys.len(),
            distinct: self.distinct.len(),
            quantiles: self.quantiles.len(),
            tops: self.tops.len(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a group of no rows.
    pub(crate) fn push(&mut self, bucket: i64, key: &[u32]) -> u32 {
        self.buckets.push(bucket);
        self.keys.iter_mut().zip(key).for_each(|(column, number)| column.push(*number));
        self.rows.push(0);
        self.metrics.iter_mut().for_each(|(_, cells)| cells.push(MetricCell::default()));
        self.distinct.iter_mut().for_each(|cells| cells.push(DistinctCell::default()));
        self.quantiles.iter_mut().for_each(|cells| cells.push(QuantileSketch::default()));
        self.tops.iter_mut().for_each(|cells| cells.push(HeavyHitters::default()));
        self.rows.len() as u32 - 1
    }

    /// The cells of a metric, of which no row may have been seen yet.
    pub(crate) fn metric_mut(&mut self, column: ColumnIndex) -> &mut Vec<MetricCell> {
        let at = self.metrics.binary_search_by_key(&column, |(known, _)| *known).unwrap_or_else(|at| {
            self.metrics.insert(at, (column, vec![MetricCell::default(); self.rows.len()]));
            at
        });
        &mut self.metrics[at].1
    }

    /// Adds what each of these groups of `other` has to the group here whose place stands beside it.
    pub(crate) fn absorb(&mut self, other: &Self, groups: &[u32], places: &[u32]) {
        let pairs = || groups.iter().zip(places).map(|(&from, &into)| (from as usize, into as usize));
        fn each<T>(
            into: &mut [T],
            from: &[T],
            pairs: impl Iterator<Item = (usize, usize)>,
            merge: impl Fn(&mut T, &T),
        ) {
            pairs.for_each(|(at, place)| merge(&mut into[place], &from[at]));
        }
        each(&mut self.rows, &other.rows, pairs(), |into, from| *into += from);
        for (column, cells) in &other.metrics {
            each(self.metric_mut(*column), cells, pairs(), MetricCell::merge);
        }
        let distinct = self.distinct.iter_mut().zip(&other.distinct);
        distinct.for_each(|(into, from)| each(into, from, pairs(), DistinctCell::merge));
        let quantiles = self.quantiles.iter_mut().zip(&other.quantiles);
        quantiles.for_each(|(into, from)| each(into, from, pairs(), QuantileSketch::merge));
        let tops = self.tops.iter_mut().zip(&other.tops);
        tops.for_each(|(into, from)| each(into, from, pairs(), HeavyHitters::merge));
    }

    /// The groups of these numbers, in this order.
    pub(crate) fn select(&self, order: &[u32]) -> Self {
        fn pick<T: Clone>(from: &[T], order: &[u32]) -> Vec<T> {
            order.iter().map(|&at| from[at as usize].clone()).collect()
        }
        Self {
            buckets: pick(&self.buckets, order),
            keys: self.keys.iter().map(|column| pick(column, order)).collect(),
            rows: pick(&self.rows, order),
            metrics: self.metrics.iter().map(|(column, cells)| (*column, pick(cells, order))).collect(),
            distinct: self.distinct.iter().map(|cells| pick(cells, order)).collect(),
            quantiles: self.quantiles.iter().map(|cells| pick(cells, order)).collect(),
            tops: self.tops.iter().map(|cells| pick(cells, order)).collect(),
        }
    }

    /// Gives back what the columns have room for and do not need.
    pub(crate) fn shrink(&mut self) {
        self.buckets.shrink_to_fit();
        self.keys.iter_mut().for_each(Vec::shrink_to_fit);
        self.rows.shrink_to_fit();
        self.metrics.iter_mut().for_each(|(_, cells)| cells.shrink_to_fit());
        self.distinct.iter_mut().for_each(Vec::shrink_to_fit);
        self.distinct.iter_mut().flatten().for_each(DistinctCell::shrink);
        self.quantiles.iter_mut().for_each(Vec::shrink_to_fit);
        self.tops.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// Whether all columns have as many items.
    pub(crate) fn is_even(&self) -> bool {
        let len = self.len();
        self.buckets.len() == len
            && self.keys.iter().all(|column| column.len() == len)
            && self.metrics.iter().all(|(_, cells)| cells.len() == len)
            && self.distinct.iter().all(|cells| cells.len() == len)
            && self.quantiles.iter().all(|cells| cells.len() == len)
            && self.tops.iter().all(|cells| cells.len() == len)
    }

    fn bytes(&self) -> usize {
        let fixed = size_of::<i64>() + size_of::<u64>() + self.keys.len() * size_of::<u32>();
        let groups = self.len() * (fixed + self.metrics.len() * size_of::<MetricCell>());
        let distinct: usize = self.distinct.iter().flatten().map(DistinctCell::bytes).sum();
        let quantiles: usize = self.quantiles.iter().flatten().map(QuantileSketch::bytes).sum();
        let tops: usize = self.tops.iter().flatten().map(HeavyHitters::bytes).sum();
        groups + distinct + quantiles + tops
    }
}

/// How many columns of each sort a rollup has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) keys: usize,
    pub(crate) distinct: usize,
    pub(crate) quantiles: usize,
    pub(crate) tops: usize,
}

impl Shape {
    pub(crate) fn of(rollup: &Rollup) -> Self {
        let Rollup { group_by, distinct, percentiles, top, .. } = rollup;
        Self { keys: group_by.len(), distinct: distinct.len(), quantiles: percentiles.len(), tops: top.len() }
    }
}

/// Some rows by bucket and group: what a rollup keeps of them.
#[derive(Debug)]
pub struct RollupPart {
    /// Names the part among all under one budget.
    id: u64,
    /// By column of the rollup's `group_by`.
    pub(crate) strings: Vec<Strings>,
    /// Ascending by bucket; each bucket and key once.
    pub(crate) groups: GroupColumns,
    /// `None`: of one query, which answers for its memory itself.
    charge: Option<RetiringCharge>,
}

impl RollupPart {
    pub(crate) fn new(strings: Vec<Strings>, groups: GroupColumns, budget: Option<&Arc<MemoryBudget>>) -> Self {
        let text: usize = strings.iter().map(|strings| strings.text.len() + size_of_val(&*strings.ends)).sum();
        let bytes = size_of::<Self>() + text + groups.bytes();
        let charge = budget.map(|budget| RetiringCharge::new(budget, bytes as u64));
        Self { id: budget.map_or(0, |budget| budget.next_id()), strings, groups, charge }
    }

    /// Whether each bucket and key, and each string of a column, is there once.
    pub(crate) fn is_each_once(&self) -> bool {
        let mut of_column = HashSet::new();
        let strings = self.strings.iter().all(|strings| {
            of_column.clear();
            (1..=strings.ends.len() as u32).all(|number| of_column.insert(strings.get(number)))
        });
        // Groups ascend by bucket: those that could be the same lie side by side.
        let mut of_bucket = HashSet::new();
        let all: Vec<usize> = (0..self.groups()).collect();
        let groups = all.chunk_by(|a, b| self.buckets()[*a] == self.buckets()[*b]).all(|same| {
            of_bucket.clear();
            same.iter()
                .all(|at| of_bucket.insert(self.groups.keys.iter().map(|column| column[*at]).collect::<Vec<u32>>()))
        });
        strings && groups
    }

    /// Of each group of a range a hash of its bucket and key, which is the same in every part.
    pub(crate) fn hashes(&self, groups: Range<usize>) -> Vec<u64> {
        let buckets = &self.groups.buckets[groups.clone()];
        let mut hashes: Vec<u64> = buckets.iter().map(|bucket| xxh3_64(&bucket.to_le_bytes())).collect();
        for (numbers, strings) in self.groups.keys.iter().zip(&self.strings) {
            for (hash, number) in hashes.iter_mut().zip(&numbers[groups.clone()]) {
                // An absent value is told from an empty one.
                let value = strings.get(*number).map_or(1, |value| xxh3_64(value.as_bytes()));
                *hash = (hash.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        hashes
    }

    /// Bytes that it takes of the budget.
    pub(crate) fn bytes(&self) -> u64 {
        self.charge.as_ref().map_or(0, RetiringCharge::bytes)
    }

    /// The writer has no more use for it; readers may.
    pub(crate) fn retire(&self) {
        self.charge.iter().for_each(RetiringCharge::retire);
    }

    /// Names the part among all under one budget; it never changes. 0: it is of one query.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many groups there are, each of one bucket.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The number of each group's bucket, ascending.
    #[must_use]
    pub fn buckets(&self) -> &[i64] {
        &self.groups.buckets
    }

    /// The groups whose buckets have numbers in a range.
    #[must_use]
    pub fn groups_in(&self, buckets: &std::ops::Range<i64>) -> std::ops::Range<usize> {
        let all = &self.groups.buckets;
        all.partition_point(|bucket| *bucket < buckets.start)..all.partition_point(|bucket| *bucket < buckets.end)
    }

    /// Per group the number of its string in a column of the rollup's `group_by`; 0 where it is absent.
    #[must_use]
    pub fn key(&self, column: usize) -> &[u32] {
        &self.groups.keys[column]
    }

    /// How many strings a column of the rollup's `group_by` has; their numbers are from 1 to this.
    #[must_use]
    pub fn strings(&self, column: usize) -> usize {
        self.strings[column].ends.len()
    }

    /// A string of a column of the rollup's `group_by`; `None` for the number 0.
    #[must_use]
    pub fn string(&self, column: usize, number: u32) -> Option<&str> {
        self.strings[column].get(number)
    }

    /// The rows of each group.
    #[must_use]
    pub fn rows(&self) -> &[u64] {
        &self.groups.rows
    }

    /// The values of a metric in each group; `None` where no row had one.
    #[must_use]
    pub fn metric(&self, column: ColumnIndex) -> Option<&[MetricCell]> {
        let at = self.groups.metrics.binary_search_by_key(&column, |(known, _)| *known).ok()?;
        Some(&self.groups.metrics[at].1)
    }

    /// The distinct values of each group, by place in the rollup's `distinct`.
    #[must_use]
    pub fn distinct(&self, at: usize) -> &[DistinctCell] {
        &self.groups.distinct[at]
    }

    /// The sketch of each group's values, by place in the rollup's `percentiles`.
    #[must_use]
    pub fn quantiles(&self, at: usize) -> &[QuantileSketch] {
        &self.groups.quantiles[at]
    }

    /// The most frequent values of each group, by place in the rollup's `top`.
    #[must_use]
    pub fn tops(&self, at: usize) -> &[HeavyHitters] {
        &self.groups.tops[at]
    }
}
