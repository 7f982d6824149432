//! Groups with their keys and states, column by column, and their merge.
//!
//! A key is a bucket number (where the plan has an interval) and one number per group column, 0 for "absent". What a
//! number stands for is its owner's to know: a dictionary's code, or a place in a list of values.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use hashbrown::HashTable;
use types::{ApiError, ErrorCode};

use crate::{
    plan::Plan,
    selection::Narrowed,
    state::{Level, State},
};

/// Slots of a direct index, at most: 4 MiB of `u32`.
const DIRECT_SLOTS_MAX: usize = 1 << 20;
/// And so many per group that there may be, where that is known: clearing more would take longer than to look for keys by hash.
const DIRECT_SLOTS_PER_GROUP: usize = 32;
const FREE: u32 = u32::MAX;

/// Groups in order of first appearance.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    /// Bucket numbers; all 0 without an interval.
    pub(crate) buckets: Vec<i64>,
    /// Per group column, one number per group.
    pub(crate) keys: Vec<Vec<u32>>,
    /// Rows per group.
    pub(crate) rows: Vec<u64>,
    /// Per cell of the plan.
    pub(crate) states: Vec<State>,
}

impl Groups {
    /// No group yet.
    pub(crate) fn new(plan: &Plan, level: Level) -> Self {
        Self {
            buckets: Vec::new(),
            keys: vec![Vec::new(); plan.groups.len()],
            rows: Vec::new(),
            states: plan
                .cells
                .iter()
                .map(|cell| match plan.round {
                    None => State::new(cell, 0, level),
                    Some(_) => State::Narrowed(Narrowed::default()),
                })
                .collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// These groups alone; their states are plain.
    pub(crate) fn pick(&self, groups: &[u32]) -> Self {
        Self {
            buckets: groups.iter().map(|&group| self.buckets[group as usize]).collect(),
            keys: self.keys.iter().map(|keys| groups.iter().map(|&group| keys[group as usize]).collect()).collect(),
            rows: groups.iter().map(|&group| self.rows[group as usize]).collect(),
            states: self.states.iter().map(|state| state.pick(groups)).collect(),
        }
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        let keys = self.rows.len() * (size_of::<i64>() + size_of::<u64>() + self.keys.len() * size_of::<u32>());
        keys + self.states.iter().map(State::bytes).sum::<usize>()
    }
}

/// Merges groups whose keys have one meaning.
pub(crate) struct Merger {
    groups: Groups,
    index: KeyIndex,
    groups_max: usize,
    map: Vec<u32>,
}

impl Merger {
    /// A merger for keys of at most `numbers[column]` numbers each.
    pub(crate) fn new(plan: &Plan, numbers: &[usize]) -> Self {
        // Buckets have no bound of their own, so a plan with an interval is merged by hash.
        let numbers = if plan.interval.is_some() { None } else { Some(numbers) };
        Self {
            groups: Groups::new(plan, Level::Codes),
            index: KeyIndex::new(numbers, DIRECT_SLOTS_MAX),
            groups_max: plan.groups_max,
            map: Vec::new(),
        }
    }

    /// The same for keys whose numbers are those of strings, of at most so many groups.
    pub(crate) fn of_strings(plan: &Plan, numbers: &[usize], groups: usize) -> Self {
        if plan.groups.len() == 1 || plan.interval.is_some() {
            return Self::unbounded(plan);
        }
        let slots_max = groups.saturating_mul(DIRECT_SLOTS_PER_GROUP).min(DIRECT_SLOTS_MAX);
        Self { index: KeyIndex::new(Some(numbers), slots_max), ..Self::unbounded(plan) }
    }

    /// A merger for keys of any numbers, which are those of strings: given from 1 on, as they come.
    pub(crate) fn unbounded(plan: &Plan) -> Self {
        let index = match (plan.groups.len(), plan.interval) {
            (1, None) => KeyIndex::Numbered(Vec::new()),
            _ => KeyIndex::Hashed(HashTable::new()),
        };
        Self { groups: Groups::new(plan, Level::Strings), index, ..Self::new(plan, &vec![1; plan.groups.len()]) }
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn into_groups(self) -> Groups {
        self.groups
    }

    /// Merges `other`, whose numbers in column `c` are `numbers[c][n]` here where there is such a list.
    pub(crate) fn absorb(&mut self, other: &Groups, numbers: &[Vec<u32>]) -> Result<(), ApiError> {
        self.absorb_keys(other, numbers)?;
        let groups = self.groups.len();
        for (into, from) in self.groups.states.iter_mut().zip(&other.states) {
            into.grow(groups);
            into.absorb(from, &self.map);
        }
        Ok(())
    }

    /// The same without states, which are the caller's. Returns which groups here those of `other` are.
    pub(crate) fn absorb_keys(&mut self, other: &Groups, numbers: &[Vec<u32>]) -> Result<&[u32], ApiError> {
        self.index.find_or_insert(&mut self.groups, other, numbers, &mut self.map);
        let groups = self.groups.buckets.len();
        if groups > self.groups_max {
            return Err(too_many_groups(self.groups_max));
        }
        self.groups.rows.resize(groups, 0);
        for (&rows, &at) in other.rows.iter().zip(&self.map) {
            self.groups.rows[at as usize] += rows;
        }
        Ok(&self.map)
    }

    /// Which groups here those that were merged last are.
    pub(crate) fn last_map(&self) -> &[u32] {
        &self.map
    }
}

/// The error of a query whose intermediate results take more memory than they may.
pub(crate) fn too_many_bytes(max: usize) -> ApiError {
    let message = format!(
        "the intermediate results of the query take more than {} MiB; narrow it by a filter, a shorter range, fewer groups \
         or fewer aggregates",
        max >> 20
    );
    ApiError::new(ErrorCode::TooLarge, message).with_field("aggregates")
}

/// The error of a query that makes more groups than it may.
pub(crate) fn too_many_groups(max: usize) -> ApiError {
    let message =
        format!("the query makes more than {max} groups; narrow it by a filter, a shorter range or fewer columns");
    ApiError::new(ErrorCode::TooLarge, message).with_field("group_by")
}

impl Groups {
    /// Adds the one group of a plan without groups, which has seen nothing.
    pub(crate) fn push_empty(&mut self) {
        self.push_key(0, &[]);
        self.rows.push(0);
        let groups = self.rows.len();
        self.states.iter_mut().for_each(|state| state.grow(groups));
    }

    /// Adds a group's key; its rows and states are to follow.
    pub(crate) fn push_key(&mut self, bucket: i64, key: &[u32]) -> u32 {
        let at = self.buckets.len();
        self.buckets.push(bucket);
        for (column, &number) in self.keys.iter_mut().zip(key) {
            column.push(number);
        }
        u32::try_from(at).expect("a merge stops at the limit on groups, which is below 2^32")
    }

    fn has_key(&self, at: u32, bucket: i64, key: &[u32]) -> bool {
        let at = at as usize;
        self.buckets[at] == bucket && self.keys.iter().zip(key).all(|(column, &number)| column[at] == number)
    }

    fn hash(&self, at: u32) -> u64 {
        hash_key(self.buckets[at as usize], self.keys.iter().map(|column| column[at as usize]))
    }
}

/// Finds the group of a key.
enum KeyIndex {
    /// By the key itself, as a number of mixed radix.
    Direct {
        numbers: Vec<usize>,
        slots: Vec<u32>,
    },
    /// By the one number that is the key, however many there will be: a line of slots that grows with the strings.
    Numbered(Vec<u32>),
    Hashed(HashTable<u32>),
}

impl KeyIndex {
    fn new(numbers: Option<&[usize]>, slots_max: usize) -> Self {
        let slots = numbers.and_then(|numbers| {
            let slots = numbers.iter().try_fold(1_usize, |slots, &n| slots.checked_mul(n));
            slots.filter(|&slots| slots <= slots_max)
        });
        match (numbers, slots) {
            (Some(numbers), Some(slots)) => Self::Direct { numbers: numbers.to_vec(), slots: vec![FREE; slots] },
            _ => Self::Hashed(HashTable::new()),
        }
    }

    /// Writes the group of each of `other`'s keys to `map`; see [`Merger::absorb`].
    fn find_or_insert(&mut self, groups: &mut Groups, other: &Groups, numbers: &[Vec<u32>], map: &mut Vec<u32>) {
        let number = |column: usize, group: usize| {
            let number = other.keys[column][group];
            numbers.get(column).map_or(number, |map| map[number as usize])
        };
        map.clear();
        match self {
            Self::Direct { numbers: radices, slots } => {
                map.resize(other.len(), 0);
                for (column, &radix) in radices.iter().enumerate() {
                    let keys = map.iter_mut().enumerate();
                    keys.for_each(|(group, key)| *key = *key * radix as u32 + number(column, group));
                }
                find_in_slots(slots, groups, other, number, map);
            }
            Self::Numbered(slots) => {
                map.extend((0..other.len()).map(|group| number(0, group)));
                let greatest = map.iter().max().map_or(0, |&greatest| greatest as usize);
                slots.resize(slots.len().max(greatest + 1), FREE);
                find_in_slots(slots, groups, other, number, map);
            }
            Self::Hashed(table) => {
                let mut key = vec![0; other.keys.len()];
                for group in 0..other.len() {
                    let bucket = other.buckets[group];
                    key.iter_mut().enumerate().for_each(|(column, key)| *key = number(column, group));
                    let hash = hash_key(bucket, key.iter().copied());
                    let found = table.find(hash, |&at| groups.has_key(at, bucket, &key)).copied();
                    map.push(found.unwrap_or_else(|| {
                        let at = groups.push_key(bucket, &key);
                        table.insert_unique(hash, at, |&at| groups.hash(at));
                        at
                    }));
                }
            }
        }
    }
}

/// Replaces each slot in `map` by the group that it holds, after the keys of groups that are new.
fn find_in_slots(
    slots: &mut [u32],
    groups: &mut Groups,
    other: &Groups,
    number: impl Fn(usize, usize) -> u32,
    map: &mut [u32],
) {
    let mut new = Vec::new();
    let first_new = groups.buckets.len();
    for (group, at) in map.iter_mut().enumerate() {
        let slot = &mut slots[*at as usize];
        if *slot == FREE {
            *slot = (first_new + new.len()) as u32;
            new.push(group);
        }
        *at = *slot;
    }
    groups.buckets.extend(new.iter().map(|&group| other.buckets[group]));
    for (column, keys) in groups.keys.iter_mut().enumerate() {
        keys.extend(new.iter().map(|&group| number(column, group)));
    }
}

/// Where the hashes of this process begin. Clients choose event times, and so the buckets in keys: with a seed that they do
/// not know they cannot choose such that collide. No result depends on it: tables are asked for keys alone, never listed.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// Spreads a key over 64 bits by multiplying and folding; equal keys are told apart by comparing them.
pub(crate) fn hash_key(bucket: i64, key: impl Iterator<Item = u32>) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |hash: u64, number: u64| {
        let wide = u128::from(hash ^ number) * u128::from(ODD);
        (wide as u64) ^ (wide >> 64) as u64
    };
    let first = fold(*SEED, bucket.cast_unsigned());
    key.fold(first, |hash, number| fold(hash, u64::from(number) | 1 << 63))
}
