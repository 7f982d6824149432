//! Slots of the rows of a task: from a row's bucket and codes to a small number.
//!
//! 1. Where all keys together are few, the slot is the key itself, a number of mixed radix. Otherwise keys are numbered as
//!    they appear, by hash; parts whose radices do not fit 64 bits together are numbered in stages, so any number of columns
//!    does.
//! 2. Which of the two it is changes no result: both take rows in order, and lanes are decided by [`lanes_log2`] alone.

use engine::{Codes, Times, Zone};
use hashbrown::HashTable;
use kernels::{CHUNK_ROWS, FewRows, Groups, Key, LANES, Rows, Selection, Values};
use types::{ApiError, Interval, Timestamp};

use crate::{
    groups::{hash_key, too_many_groups},
    plan::{GroupColumn, Plan},
    task::Task,
};

/// Slots that are keys themselves, at most.
const DIRECT_SLOTS_MAX: u128 = 1 << 22;
/// And so many per row of the task: they are cleared before and read after, which is far less than a hash per row.
const DIRECT_SLOTS_PER_ROW: u128 = 4;
/// And this many whatever the rows of a task: less would save nothing.
const DIRECT_SLOTS_MIN: u128 = 1 << 12;
/// Lanes where slots may be so few that additions to one slot would wait for each other.
const LANES_LOG2: u32 = LANES.trailing_zeros();

/// Where a part of a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bucket,
    Column(usize),
}

/// Parts whose radices fit a key together.
#[derive(Debug, Default)]
struct Stage {
    parts: Vec<(Part, u64)>,
    numbers: Numbers,
}

/// Numbers keys as they appear.
#[derive(Debug, Default)]
struct Numbers {
    table: HashTable<(u64, u32)>,
    keys: Vec<u64>,
}

/// Finds the slots of rows.
#[derive(Debug)]
pub(crate) struct Grouper {
    stages: Vec<Stage>,
    /// Keys of a single stage are slots.
    direct: Option<usize>,
    first_bucket: i64,
    interval: Option<Interval>,
    lanes_log2: u32,
    groups_max: usize,
    narrow_keys: Box<[u32; CHUNK_ROWS]>,
    wide_keys: Box<[u64; CHUNK_ROWS]>,
    /// Scratch for event times.
    times: Box<[i64; CHUNK_ROWS]>,
}

/// Rows of a chunk by keys of one byte, of which there are few.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Few<'k> {
    rows: FewRows<'k>,
    /// The slot of key 0.
    first_slot: usize,
}

/// The slots of the rows taken of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'k> {
    pub(crate) slots: &'k [u32],
    lanes_log2: u32,
}

impl<'k> Found<'k> {
    /// Their groups.
    pub(crate) fn groups(self) -> Groups<'k> {
        Groups::Slots { slots: self.slots, lanes_log2: self.lanes_log2 }
    }
}

impl<'k> Few<'k> {
    /// The groups of the rows, where all of the chunk are taken.
    pub(crate) fn groups(&self) -> Option<Groups<'k>> {
        let FewRows { keys, selection, .. } = self.rows;
        selection.is_none().then_some(Groups::Keys { keys, first: (self.first_slot / LANES) as u32 })
    }

    /// Counts the rows in slots of their groups.
    pub(crate) fn count(&self, counts: &mut [u32]) {
        let FewRows { keys, least, greatest, selection } = self.rows;
        kernels::count_few(keys, least, greatest, selection, &mut counts[self.first_slot..]);
    }

    /// Whether all keys that there can be have rows already.
    pub(crate) fn have_rows(&self, counts: &[u32]) -> bool {
        let FewRows { least, greatest, .. } = self.rows;
        (least..=greatest).all(|key| counts[self.first_slot + usize::from(key) * LANES] > 0)
    }

    /// Adds values by slot; `false`: nothing was added, and it has to be done otherwise.
    pub(crate) fn sum(&self, values: Values<'_>, sums: &mut [f64]) -> bool {
        kernels::sum_few(self.rows, values, &mut sums[self.first_slot..])
    }

    /// Keeps the least value by slot. As [`Few::sum`].
    pub(crate) fn least(&self, values: Values<'_>, least: &mut [f64]) -> bool {
        kernels::least_few(self.rows, values, &mut least[self.first_slot..])
    }

    /// Keeps the greatest value by slot. As [`Few::sum`].
    pub(crate) fn greatest(&self, values: Values<'_>, greatest: &mut [f64]) -> bool {
        kernels::greatest_few(self.rows, values, &mut greatest[self.first_slot..])
    }
}

/// The columns of a chunk that make keys.
pub(crate) struct KeyColumns<'a> {
    pub(crate) times: Times<'a>,
    /// Per group column, the codes of the whole segment; `None` where it is absent.
    pub(crate) codes: &'a [Option<Codes<'a>>],
    /// The chunk's rows in the segment.
    pub(crate) rows: std::ops::Range<usize>,
}

/// Time buckets as a part of keys.
#[derive(Clone, Copy)]
struct Buckets {
    interval: Interval,
    /// The bucket that is 0 in a key.
    first: i64,
}

/// How many lanes a slot has. It depends on the plan and on the width of codes, which the log decides: never on how much of
/// a dictionary happens to be visible.
fn lanes_log2(plan: &Plan, task: &Task) -> u32 {
    let dimensions = plan.groups.iter().filter(|group| matches!(group, GroupColumn::Dimension(_))).count();
    match (dimensions, plan.interval) {
        (0, _) => LANES_LOG2,
        (1, None) if task.narrow => LANES_LOG2,
        _ => 0,
    }
}

impl Grouper {
    pub(crate) fn new(plan: &Plan, task: &Task) -> Self {
        let lanes_log2 = lanes_log2(plan, task);
        let mut parts = Vec::new();
        let mut first_bucket = 0;
        if let (Some(interval), Some((min, max))) = (plan.interval, times(task)) {
            first_bucket = interval.bucket_of(min);
            parts.push((Part::Bucket, interval.bucket_of(max).abs_diff(first_bucket).saturating_add(1)));
        }
        for (column, dictionary) in task.dictionaries.iter().enumerate() {
            if let Some(codes) = dictionary.and_then(|segment| task.source.group_codes(column, segment)) {
                parts.push((Part::Column(column), u64::from(codes)));
            }
        }
        let slots = parts.iter().fold(1_u128, |slots, &(_, radix)| slots.saturating_mul(u128::from(radix)));
        let slots_max = (task.rows as u128 * DIRECT_SLOTS_PER_ROW).clamp(DIRECT_SLOTS_MIN, DIRECT_SLOTS_MAX);
        let slots = slots.checked_shl(lanes_log2).unwrap_or(u128::MAX);
        Self {
            stages: stages(parts),
            direct: (slots <= slots_max).then_some(slots as usize),
            first_bucket,
            interval: plan.interval,
            lanes_log2,
            groups_max: plan.groups_max,
            narrow_keys: Box::new([0; CHUNK_ROWS]),
            wide_keys: Box::new([0; CHUNK_ROWS]),
            times: Box::new([0; CHUNK_ROWS]),
        }
    }

    /// How many slots there are so far: every slot found is below.
    pub(crate) fn slots(&self) -> usize {
        let numbered = || self.stages.last().map_or(1, |stage| stage.numbers.keys.len()) << self.lanes_log2;
        self.direct.unwrap_or_else(numbered)
    }

    /// Finds the slot of each row taken; [`Grouper::found`] has them.
    pub(crate) fn find(&mut self, columns: &KeyColumns<'_>, rows: Rows<'_>) -> Result<(), ApiError> {
        let buckets = self.interval.map(|interval| Buckets { interval, first: self.first_bucket });
        let times = &mut self.times;
        if self.direct.is_some() {
            let keys = &mut self.narrow_keys[..rows.len()];
            keys.fill(0);
            for &(part, radix) in self.stages.iter().flat_map(|stage| &stage.parts) {
                append(keys, rows, columns, part, radix as u32, buckets, times);
            }
        } else {
            let keys = &mut self.wide_keys[..rows.len()];
            keys.fill(0);
            for stage in &mut self.stages {
                for &(part, radix) in &stage.parts {
                    append(keys, rows, columns, part, radix, buckets, times);
                }
                stage.numbers.number(keys);
                if stage.numbers.keys.len() > self.groups_max {
                    return Err(too_many_groups(self.groups_max));
                }
            }
            for (narrow, &wide) in self.narrow_keys.iter_mut().zip(&*keys) {
                *narrow = wide as u32;
            }
        }
        let slots = &mut self.narrow_keys[..rows.len()];
        if self.lanes_log2 > 0 {
            kernels::add_lanes(slots, rows);
        }
        Ok(())
    }

    /// The slots that [`Grouper::find`] found for the same rows.
    pub(crate) fn found(&self, rows: Rows<'_>) -> Found<'_> {
        Found { slots: &self.narrow_keys[..rows.len()], lanes_log2: self.lanes_log2 }
    }

    /// How many groups there are, where that is known before the rows are.
    pub(crate) fn groups(&self) -> Option<usize> {
        self.direct.map(|slots| slots >> self.lanes_log2)
    }

    /// Keys of one byte for the rows of a chunk, of which those that are selected are taken, where there is one part to a key
    /// and the chunk has few of them; `keys` is scratch. `zone` has the rows' times.
    pub(crate) fn few<'k>(
        &self,
        columns: &KeyColumns<'k>,
        zone: Zone,
        selection: Option<&'k Selection>,
        keys: &'k mut [u8],
    ) -> Option<Few<'k>> {
        let stage = self.stages.first().filter(|_| self.lanes_log2 > 0 && self.direct.is_some())?;
        let [(part, radix)] = stage.parts[..] else { return None };
        let rows = columns.rows.clone();
        let few_max = kernels::few_max();
        match part {
            Part::Column(column) => {
                let keys = match columns.codes[column] {
                    Some(Codes::U8(codes)) => &codes[rows],
                    Some(_) => return None,
                    None => {
                        let keys = &mut keys[..rows.len()];
                        keys.fill(0);
                        keys
                    }
                };
                let (least, greatest) = kernels::key_range(keys);
                let few = greatest.checked_sub(least).is_some_and(|more| usize::from(more) < few_max);
                few.then_some(Few { rows: FewRows { keys, least, greatest, selection }, first_slot: 0 })
            }
            Part::Bucket => {
                let interval = self.interval?;
                // A zone may have widened since the first bucket was found, but not by rows of this snapshot.
                let last_bucket = self.first_bucket.saturating_add_unsigned(radix - 1);
                let first = interval.bucket_of(zone.min).max(self.first_bucket);
                let more = interval.bucket_of(zone.max).min(last_bucket).checked_sub(first)? as usize;
                if more >= few_max {
                    return None;
                }
                // The last bucket begins at a time of the zone at the latest, so no start is beyond what a time can be.
                let starts: Vec<i64> = (1..=more as i64).map(|n| (first + n) * interval.micros()).collect();
                let keys = &mut keys[..rows.len()];
                columns.times.count_starts(rows, &starts, keys);
                let first_slot = first.abs_diff(self.first_bucket) as usize * LANES;
                Some(Few { rows: FewRows { keys, least: 0, greatest: more as u8, selection }, first_slot })
            }
        }
    }

    /// The group columns whose codes make the slots, each with its radix, where nothing else does and no slot has lanes.
    pub(crate) fn layout(&self) -> Option<Vec<(usize, u32)>> {
        self.direct.filter(|_| self.lanes_log2 == 0)?;
        let column = |&(part, radix): &(Part, u64)| match part {
            Part::Column(column) => Some((column, radix as u32)),
            Part::Bucket => None,
        };
        self.stages.iter().flat_map(|stage| &stage.parts).map(column).collect()
    }

    /// Lanes of a group.
    pub(crate) fn lanes(&self) -> usize {
        1 << self.lanes_log2
    }

    /// Bits of a slot that are its lane.
    pub(crate) fn lanes_log2(&self) -> u32 {
        self.lanes_log2
    }

    /// Memory that its numbers of keys take.
    pub(crate) fn bytes(&self) -> usize {
        self.stages.iter().map(|stage| stage.numbers.keys.len() * 4 * size_of::<u64>()).sum()
    }

    /// The group of a slot: lanes of one group are neighbours.
    pub(crate) fn group_of(&self, slot: u32) -> u32 {
        slot >> self.lanes_log2
    }

    /// The key of a group: its bucket, and into `codes` its code per group column that has any.
    pub(crate) fn key(&self, group: u32, codes: &mut [u32]) -> i64 {
        let mut bucket = 0;
        let mut rest = u64::from(group);
        for stage in self.stages.iter().rev() {
            if self.direct.is_none() {
                rest = stage.numbers.keys[rest as usize];
            }
            for &(part, radix) in stage.parts.iter().rev() {
                match part {
                    // The bucket is the first part of all, so what is left is its distance.
                    Part::Bucket => bucket = self.first_bucket.wrapping_add_unsigned(rest),
                    Part::Column(column) => {
                        codes[column] = (rest % radix) as u32;
                        rest /= radix;
                    }
                }
            }
        }
        bucket
    }
}

/// The least and the greatest event time that a selected row of the task may have; `None` for a task without segments.
fn times(task: &Task) -> Option<(Timestamp, Timestamp)> {
    let zones = task.segments.iter().map(|&at| task.source.segments()[at].zone());
    let zone = zones.reduce(|a, b| Zone { min: a.min.min(b.min), max: a.max.max(b.max) })?;
    let last = task.range.end().saturating_add(-1);
    Some((zone.min.max(task.range.start()), zone.max.min(last)))
}

/// Splits parts into stages whose keys fit 64 bits; a number of the stage before stands first in the next one.
fn stages(parts: Vec<(Part, u64)>) -> Vec<Stage> {
    const NUMBERS_MAX: u64 = 1 << 32;
    let mut stages = vec![Stage::default()];
    let mut keys = 1_u64;
    for (part, radix) in parts {
        let stage = stages.last_mut().expect("there is always one");
        if let Some(more) = keys.checked_mul(radix) {
            keys = more;
            stage.parts.push((part, radix));
        } else {
            keys = NUMBERS_MAX.saturating_mul(radix);
            stages.push(Stage { parts: vec![(part, radix)], numbers: Numbers::default() });
        }
    }
    stages
}

fn append<K: Key>(
    keys: &mut [K],
    rows: Rows<'_>,
    columns: &KeyColumns<'_>,
    part: Part,
    radix: K,
    buckets: Option<Buckets>,
    times: &mut [i64; CHUNK_ROWS],
) {
    match (part, buckets) {
        (Part::Bucket, Some(Buckets { interval, first })) => {
            let times = columns.times.read(columns.rows.clone(), times);
            kernels::append_bucket(keys, rows, times, interval.micros(), first);
        }
        (Part::Bucket, None) => unreachable!("there are buckets only where there is an interval"),
        (Part::Column(column), _) => match columns.codes[column] {
            Some(Codes::U8(codes)) => kernels::append_codes(keys, rows, &codes[columns.rows.clone()], radix),
            Some(Codes::U16(codes)) => kernels::append_codes(keys, rows, &codes[columns.rows.clone()], radix),
            Some(Codes::U32(codes)) => kernels::append_codes(keys, rows, &codes[columns.rows.clone()], radix),
            None => kernels::append_absent(keys, radix),
        },
    }
}

impl Numbers {
    /// Replaces each key by its number.
    fn number(&mut self, keys: &mut [u64]) {
        let hash = |key: u64| hash_key(key.cast_signed(), std::iter::empty());
        // Neighbours often have one key.
        let mut last = None;
        for key in keys {
            let number = match last {
                Some((known, number)) if known == *key => number,
                _ => {
                    let hashed = hash(*key);
                    let found = self.table.find(hashed, |(known, _)| known == key);
                    found.map(|&(_, number)| number).unwrap_or_else(|| {
                        let number = self.keys.len() as u32;
                        self.keys.push(*key);
                        self.table.insert_unique(hashed, (*key, number), |(known, _)| hash(*known));
                        number
                    })
                }
            };
            last = Some((*key, number));
            *key = u64::from(number);
        }
    }
}
