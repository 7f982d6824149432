//! Making parts: of rows, and of other parts.
//!
//! Rows are taken chunk by chunk: first the group of each row, then each column at once. Where bucket and codes of a run of
//! rows are few together, a row's group is found in an array; else by hash.

use std::{collections::HashMap, ops::Range};

use hashbrown::HashTable;
use sketch::hash_str;
use types::{ColumnKind, Interval, Rollup, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::part::{GroupColumns, RollupPart, Shape, Strings};
use crate::{
    MemoryBudget,
    columns::{Codes, ColumnIndex, position},
    segment::CHUNK_ROWS,
    snapshot::SegmentView,
    sync::Arc,
};

/// Places of the array in which groups are found, at most: 4 MiB.
const DIRECT_MAX: u64 = 1 << 20;
/// And this many whatever the rows: less would save nothing.
const DIRECT_MIN: u64 = 1 << 12;
const UNKNOWN: u32 = u32::MAX;
/// A row that is not taken.
const PASSED_OVER: u32 = u32::MAX;

/// A rollup with its columns found among those of a table.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    interval: Interval,
    group_by: Vec<Option<ColumnIndex>>,
    metrics: Vec<ColumnIndex>,
    distinct: Vec<Option<ColumnIndex>>,
    percentiles: Vec<Option<ColumnIndex>>,
    top: Vec<Option<ColumnIndex>>,
}

impl Resolved {
    /// Columns that no event had are absent in every row.
    pub(crate) fn new(rollup: &Rollup, columns: &[types::ColumnDef]) -> Self {
        let all = |names: &[String], kind: ColumnKind| names.iter().map(|name| position(columns, name, kind)).collect();
        let metrics = (0..).map(ColumnIndex).zip(columns).filter(|(_, def)| def.kind == ColumnKind::Metric);
        Self {
            interval: rollup.interval,
            group_by: all(&rollup.group_by, ColumnKind::Dimension),
            metrics: metrics.map(|(column, _)| column).collect(),
            distinct: all(&rollup.distinct, ColumnKind::Dimension),
            percentiles: all(&rollup.percentiles, ColumnKind::Metric),
            top: all(&rollup.top, ColumnKind::Dimension),
        }
    }

    fn shape(&self) -> Shape {
        let Self { group_by, distinct, percentiles, top, .. } = self;
        Shape { keys: group_by.len(), distinct: distinct.len(), quantiles: percentiles.len(), tops: top.len() }
    }
}

/// The strings of a column, each once.
#[derive(Debug, Default)]
struct Interner {
    strings: Strings,
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    fn number(&mut self, value: &str) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = self.strings.push(value);
        self.numbers.insert(value.into(), number);
        number
    }

    /// The numbers here of the strings that these groups of a part have in a column.
    fn numbers(&mut self, part: &RollupPart, column: usize, groups: &[u32]) -> Vec<u32> {
        let mut known = Numbers::new(part.strings(column), groups.len());
        let numbers = groups.iter().map(|&at| {
            let number = part.key(column)[at as usize];
            known.get_or_insert_with(number, || self.number(part.string(column, number).expect("its number is not 0")))
        });
        numbers.collect()
    }
}

/// A part under way.
pub(crate) struct PartBuilder {
    interners: Vec<Interner>,
    groups: GroupColumns,
    index: HashTable<u32>,
}

impl PartBuilder {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            interners: (0..shape.keys).map(|_| Interner::default()).collect(),
            groups: GroupColumns::new(shape),
            index: HashTable::new(),
        }
    }

    /// Of these rows of a segment those with times in a range, where there is one.
    pub(crate) fn of_rows(
        rollup: &Resolved,
        segment: &SegmentView,
        rows: Range<usize>,
        times: Option<&Range<Timestamp>>,
    ) -> Self {
        // Most often all are.
        let times = times.filter(|times| !times.contains(&segment.zone().min) || !times.contains(&segment.zone().max));
        let mut builder = Self::new(rollup.shape());
        let mut scan = RowScan::new(rollup, segment, &rows);
        let mut scratch = Scratch::new();
        let mut from = rows.start;
        while from < rows.end {
            let to = (from + CHUNK_ROWS).min(rows.end);
            builder.add_chunk(&mut scan, from..to, times, &mut scratch);
            from = to;
        }
        builder
    }

    /// Adds these groups of a part.
    pub(crate) fn absorb(&mut self, part: &RollupPart, groups: &[u32]) {
        let columns = self.interners.iter_mut().enumerate();
        let numbers: Vec<Vec<u32>> = columns.map(|(column, interner)| interner.numbers(part, column, groups)).collect();
        let mut key = vec![0; numbers.len()];
        let mut places = Vec::with_capacity(groups.len());
        for (n, &at) in groups.iter().enumerate() {
            key.iter_mut().zip(&numbers).for_each(|(number, numbers)| *number = numbers[n]);
            places.push(self.group(part.buckets()[at as usize], &key));
        }
        self.groups.absorb(&part.groups, groups, &places);
    }

    /// The part; `None` where it has no row.
    pub(crate) fn finish(self, budget: Option<&Arc<MemoryBudget>>) -> Option<RollupPart> {
        let mut groups = self.groups;
        if groups.len() == 0 {
            return None;
        }
        if !groups.buckets.is_sorted() {
            let mut order: Vec<u32> = (0..groups.len() as u32).collect();
            order.sort_by_key(|&at| groups.buckets[at as usize]);
            groups = groups.select(&order);
        } else if budget.is_some() {
            groups.shrink();
        }
        let strings = self.interners.into_iter().map(|interner| interner.strings.shrunk()).collect();
        Some(RollupPart::new(strings, groups, budget))
    }

    /// The number of a group, which is added where it is new.
    fn group(&mut self, bucket: i64, key: &[u32]) -> u32 {
        let groups = &mut self.groups;
        let is_it = |at: &u32| {
            let at = *at as usize;
            groups.buckets[at] == bucket && groups.keys.iter().zip(key).all(|(column, number)| column[at] == *number)
        };
        let hash = hash_of(bucket, key.iter().copied());
        if let Some(at) = self.index.find(hash, is_it) {
            return *at;
        }
        let at = groups.push(bucket, key);
        let hash_at = |at: &u32| {
            let at = *at as usize;
            hash_of(groups.buckets[at], groups.keys.iter().map(|column| column[at]))
        };
        self.index.insert_unique(hash, at, hash_at);
        at
    }

    fn add_chunk(
        &mut self,
        scan: &mut RowScan<'_>,
        rows: Range<usize>,
        times: Option<&Range<Timestamp>>,
        scratch: &mut Scratch,
    ) {
        scan.find(self, rows.clone(), times, scratch);
        let Scratch { places, values: scratch, .. } = scratch;
        for &place in places.iter().filter(|place| **place != PASSED_OVER) {
            self.groups.rows[place as usize] += 1;
        }
        let (rollup, segment) = (scan.rollup, scan.segment);
        for &column in &rollup.metrics {
            let Some(values) = segment.metric(column) else { continue };
            let cells = self.groups.metric_mut(column);
            for (&value, &place) in values.read(rows.clone(), None, scratch).iter().zip(&*places) {
                if place != PASSED_OVER && !value.is_nan() {
                    cells[place as usize].add(value);
                }
            }
        }
        for (&column, sketches) in rollup.percentiles.iter().zip(&mut self.groups.quantiles) {
            let Some(values) = column.and_then(|column| segment.metric(column)) else { continue };
            for (&value, &place) in values.read(rows.clone(), None, scratch).iter().zip(&*places) {
                if place != PASSED_OVER {
                    sketches[place as usize].add(value);
                }
            }
        }
        for (&column, cells) in rollup.distinct.iter().zip(&mut self.groups.distinct) {
            by_code(segment, column, rows.clone(), places, |place, values| {
                let mut hashes: Vec<u64> = values.iter().map(|(value, _)| hash_str(value)).collect();
                hashes.sort_unstable();
                hashes.dedup();
                cells[place as usize].extend(&hashes);
            });
        }
        for (&column, tops) in rollup.top.iter().zip(&mut self.groups.tops) {
            by_code(segment, column, rows.clone(), places, |place, values| {
                values.iter().for_each(|(value, count)| tops[place as usize].add(value, *count));
            });
        }
    }
}

/// Hands the values that a dimension has in some rows to `take`, group by group, each value once with its rows.
fn by_code(
    segment: &SegmentView,
    column: Option<ColumnIndex>,
    rows: Range<usize>,
    places: &[u32],
    mut take: impl FnMut(u32, &[(&str, u64)]),
) {
    let Some((codes, view)) = column.and_then(|column| segment.codes(column).zip(segment.dictionary(column))) else {
        return;
    };
    let of_row = |(at, &place): (usize, &u32)| {
        let code = codes.get(rows.start + at);
        (place != PASSED_OVER && code != 0).then_some(u64::from(place) << 32 | u64::from(code))
    };
    let mut pairs: Vec<u64> = places.iter().enumerate().filter_map(of_row).collect();
    pairs.sort_unstable();
    for of_group in pairs.chunk_by(|a, b| a >> 32 == b >> 32) {
        let values = of_group.chunk_by(|a, b| a == b).map(|same| {
            (view.get(same[0] as u32).expect("codes of rows that have a value are not 0"), same.len() as u64)
        });
        let mut values: Vec<(&str, u64)> = values.collect();
        // By the bytes of values: codes are a matter of one dictionary.
        values.sort_unstable();
        take((of_group[0] >> 32) as u32, &values);
    }
}

/// Spreads a key over 64 bits. Numbers are given in order of appearance, so nobody can choose colliding ones.
fn hash_of(bucket: i64, key: impl Iterator<Item = u32>) -> u64 {
    key.fold(xxh3_64_with_seed(&bucket.to_le_bytes(), 0), |hash, number| {
        (hash.rotate_left(5) ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// By code, or by number in another part: the number of its string in the part.
enum Numbers {
    /// Of all codes, [`UNKNOWN`] where there is none yet.
    All(Vec<u32>),
    /// Of those that came: there are more codes than may come.
    Some(HashMap<u32, u32>),
}

impl Numbers {
    /// For codes up to `codes`, of which `taken` may come.
    fn new(codes: usize, taken: usize) -> Self {
        if codes > taken {
            return Self::Some(HashMap::from([(0, 0)]));
        }
        let mut numbers = vec![UNKNOWN; codes + 1];
        numbers[0] = 0;
        Self::All(numbers)
    }

    fn get_or_insert_with(&mut self, code: u32, number: impl FnOnce() -> u32) -> u32 {
        match self {
            Self::Some(numbers) => *numbers.entry(code).or_insert_with(number),
            Self::All(numbers) => {
                let known = &mut numbers[code as usize];
                if *known == UNKNOWN {
                    *known = number();
                }
                *known
            }
        }
    }

    /// How many codes there may be; `None` where nobody asks by code.
    fn len(&self) -> Option<u64> {
        match self {
            Self::All(numbers) => Some(numbers.len() as u64),
            Self::Some(_) => None,
        }
    }
}

/// A column of the key in a segment.
struct KeyColumn<'a> {
    codes: Codes<'a>,
    view: crate::DictionaryView<'a>,
    numbers: Numbers,
    /// How many codes there may be; 0 where that does not matter.
    radix: u64,
    /// Which column of the rollup it is.
    at: usize,
}

/// Memory for the rows of a chunk.
struct Scratch {
    /// The group of each, or [`PASSED_OVER`].
    places: Vec<u32>,
    times: Box<[i64; CHUNK_ROWS]>,
    values: Box<[f64; CHUNK_ROWS]>,
}

impl Scratch {
    fn new() -> Self {
        Self {
            places: Vec::with_capacity(CHUNK_ROWS),
            times: Box::new([0; CHUNK_ROWS]),
            values: Box::new([0.0; CHUNK_ROWS]),
        }
    }
}

/// The rows of a segment on their way into a part.
struct RowScan<'a> {
    rollup: &'a Resolved,
    segment: &'a SegmentView,
    columns: Vec<KeyColumn<'a>>,
    /// By bucket and codes, a number of mixed radix: the group. Empty where there would be too many.
    direct: Vec<u32>,
    first_bucket: i64,
    /// Places of `direct` that a bucket has.
    of_bucket: u64,
    /// The bucket of the row before, and the times of it.
    bucket: i64,
    bucket_times: Range<i64>,
}

impl<'a> RowScan<'a> {
    fn new(rollup: &'a Resolved, segment: &'a SegmentView, rows: &Range<usize>) -> Self {
        let columns = rollup.group_by.iter().enumerate().filter_map(|(at, column)| {
            let (codes, view) = column.and_then(|column| segment.codes(column).zip(segment.dictionary(column)))?;
            let numbers = Numbers::new(view.len() as usize, rows.len().max(DIRECT_MIN as usize));
            let radix = numbers.len().unwrap_or(0);
            Some(KeyColumn { codes, view, numbers, radix, at })
        });
        let columns: Vec<_> = columns.collect();
        let zone = segment.zone();
        let first_bucket = rollup.interval.bucket_of(zone.min);
        let buckets = rollup.interval.bucket_of(zone.max).abs_diff(first_bucket).saturating_add(1);
        let product = columns.iter().try_fold(1_u64, |n, column| n.checked_mul(column.numbers.len()?));
        let places = product.and_then(|product| product.checked_mul(buckets));
        let fits = places.filter(|&n| n <= (rows.len() as u64).clamp(DIRECT_MIN, DIRECT_MAX));
        Self {
            rollup,
            segment,
            columns,
            direct: vec![UNKNOWN; fits.unwrap_or(0) as usize],
            first_bucket,
            of_bucket: product.unwrap_or(0),
            bucket: 0,
            bucket_times: 0..0,
        }
    }

    /// The bucket of a time; rows mostly have that of the row before.
    #[inline(always)]
    fn bucket_of(&mut self, time: i64) -> i64 {
        if !self.bucket_times.contains(&time) {
            let interval = self.rollup.interval;
            self.bucket = interval.bucket_of(Timestamp(time));
            let start = interval.bucket_start(Timestamp(time)).0;
            self.bucket_times = start..start.saturating_add(interval.micros());
        }
        self.bucket
    }

    /// Fills the places with the group of each of these rows.
    fn find(
        &mut self,
        builder: &mut PartBuilder,
        rows: Range<usize>,
        times: Option<&Range<Timestamp>>,
        scratch: &mut Scratch,
    ) {
        let Scratch { places, times: scratch, .. } = scratch;
        places.clear();
        let all_times = self.segment.times().read(rows.clone(), scratch);
        let mut key = vec![0; self.rollup.group_by.len()];
        for (row, &time) in rows.zip(all_times) {
            if times.is_some_and(|times| !times.contains(&Timestamp(time))) {
                places.push(PASSED_OVER);
                continue;
            }
            let bucket = self.bucket_of(time);
            if self.direct.is_empty() {
                places.push(self.place(builder, row, bucket, &mut key));
                continue;
            }
            // Zones are at least as wide as the rows, so the first bucket is not behind this one.
            let mut at = 0;
            for column in &self.columns {
                at = at * column.radix + u64::from(column.codes.get(row));
            }
            let at = (bucket.abs_diff(self.first_bucket) * self.of_bucket + at) as usize;
            if self.direct[at] == UNKNOWN {
                self.direct[at] = self.place(builder, row, bucket, &mut key);
            }
            places.push(self.direct[at]);
        }
    }

    /// The group of a row, by hash.
    fn place(&mut self, builder: &mut PartBuilder, row: usize, bucket: i64, key: &mut [u32]) -> u32 {
        for column in &mut self.columns {
            let code = column.codes.get(row);
            let (view, interner) = (&column.view, &mut builder.interners[column.at]);
            key[column.at] = column
                .numbers
                .get_or_insert_with(code, || interner.number(view.get(code).expect("the number of 0 is known")));
        }
        builder.group(bucket, key)
    }
}
