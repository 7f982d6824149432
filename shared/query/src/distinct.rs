//! How many distinct strings each group has: the strings themselves up to [`EXACT_MAX`], then a HyperLogLog.
//!
//! 1. A group's state depends on the set of its strings alone, however they were split and in which order they came: up to
//!    [`EXACT_MAX`] of them are kept, and a sketch is a function of the set that it took. So is the answer.
//! 2. Rollups keep hashes of strings, up to the same number. A group that has some of them has hashes instead of strings. Two
//!    of 1,000 strings have one hash of 64 bits with a probability of 3·10⁻¹⁴.

use std::collections::BTreeMap;

use engine::{DictionaryView, DistinctCell};
use sketch::{Bound, Coupon, Hll, Raises, hash_str};

use crate::{
    pair_counts::pair,
    pair_sets::{CodeSet, PairSets},
    values::{Interner, Values},
    wire::{
        Reader, WireError, Writer, read_pairs, read_sketches, read_values, write_pairs, write_sketches, write_values,
    },
};

/// Distinct strings of a group that are counted exactly, at most: the contract's number.
pub(crate) const EXACT_MAX: usize = 1_000;
const _: () = assert!(EXACT_MAX == engine::DISTINCT_EXACT_MAX); // so that every plan has one answer
/// Pairs that wait to be put in order, at least.
const PENDING_MIN: usize = 1 << 14;

/// Sets of strings by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distinct {
    values: Interner,
    /// Group and number of a string; ascending up to `settled`, each once, and no group there has more than [`EXACT_MAX`] or
    /// a sketch.
    pairs: Vec<u64>,
    settled: usize,
    /// Group and hash of a string; after settling ascending, each once, and no group has both pairs and hashes, more than
    /// [`EXACT_MAX`] of them, or a sketch.
    hashes: Vec<(u32, u64)>,
    settled_hashes: usize,
    sketches: BTreeMap<u32, Hll>,
}

impl Distinct {
    /// The strings of sets of codes.
    pub(crate) fn of_codes(mut sets: PairSets, dictionary: DictionaryView<'_>) -> Self {
        let string = |code| dictionary.get(code).expect("a dictionary has every code of its rows");
        // Each is made for the first group that needs it.
        let (mut raises, mut coupons): (Option<Raises>, Option<Vec<Coupon>>) = (None, None);
        let mut distinct = Self::default();
        sets.by_group(|group, codes| {
            if codes.len() <= EXACT_MAX {
                codes.for_each(|code| distinct.pairs.push(pair(group, code)));
                return;
            }
            let many = match codes {
                CodeSet::Marks(words) => {
                    let raises = raises.get_or_insert_with(|| {
                        let mut raises = Raises::default();
                        dictionary.each_coupons(|coupons| raises.extend(coupons));
                        raises
                    });
                    Hll::of_marked(words, raises)
                }
                CodeSet::Pairs(_) => None,
            };
            let sketch = many.unwrap_or_else(|| {
                let coupons = coupons.get_or_insert_with(|| {
                    let mut coupons = Vec::with_capacity(dictionary.len() as usize + 1);
                    dictionary.each_coupons(|more| coupons.extend_from_slice(more));
                    coupons
                });
                let mut sketch = Hll::default();
                codes.for_each(|code| sketch.insert_coupon(coupons[code as usize]));
                sketch
            });
            distinct.sketches.insert(group, sketch);
        });
        let codes = distinct.pairs.iter().map(|&pair| pair as u32);
        let numbers = distinct.values.absorb(dictionary.len() as usize + 1, codes, string);
        for pair in &mut distinct.pairs {
            *pair = *pair >> 32 << 32 | u64::from(numbers[*pair as u32 as usize]);
        }
        distinct.settle();
        distinct
    }

    /// Adds the strings of each group `g` of `other` to group `map[g]` here.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        let from = other.values.values();
        let used = other.pairs.iter().map(|&pair| pair as u32);
        let string = |number| from.get(number).expect("numbers from 1 have strings");
        let numbers = self.values.absorb(from.numbers(), used, string);
        let moved = |key: u64| pair(map[(key >> 32) as usize], numbers[key as u32 as usize]);
        self.pairs.extend(other.pairs.iter().map(|&key| moved(key)));
        self.hashes.extend(other.hashes.iter().map(|&(group, hash)| (map[group as usize], hash)));
        for (&group, sketch) in &other.sketches {
            self.merge_sketch(map[group as usize], sketch);
        }
        self.settle_when_long();
    }

    /// Adds strings, each given by its group and its number among so many strings.
    pub(crate) fn add_strings<'a>(
        &mut self,
        pairs: impl Iterator<Item = (u32, u32)> + Clone,
        numbers: usize,
        string: impl Fn(u32) -> &'a str,
    ) {
        let numbers = self.values.absorb(numbers, pairs.clone().map(|(_, number)| number), string);
        self.pairs.extend(pairs.map(|(group, number)| pair(group, numbers[number as usize])));
        self.settle_when_long();
    }

    /// Adds what a rollup has of a group.
    pub(crate) fn add_cell(&mut self, group: u32, cell: &DistinctCell) {
        match cell {
            DistinctCell::Hashes(hashes) => self.hashes.extend(hashes.iter().map(|&hash| (group, hash))),
            DistinctCell::Sketch(sketch) => self.merge_sketch(group, sketch),
        }
        self.settle_when_long();
    }

    fn merge_sketch(&mut self, group: u32, sketch: &Hll) {
        let into = self.sketches.entry(group).or_insert_with(|| {
            // What the group has here already belongs into its first sketch.
            (self.settled, self.settled_hashes) = (0, 0);
            Hll::default()
        });
        into.merge(sketch);
    }

    fn settle_when_long(&mut self) {
        let pending = self.pairs.len() - self.settled + self.hashes.len() - self.settled_hashes;
        if pending >= (self.settled + self.settled_hashes).max(PENDING_MIN) {
            self.settle();
        }
    }

    /// The count of each of `groups` groups, and how far the worst of them can be off; `None` where all are exact.
    pub(crate) fn counts(&mut self, groups: usize) -> (Vec<u64>, Option<Bound>) {
        self.settle();
        let mut counts = vec![0; groups];
        for run in self.pairs.chunk_by(|a, b| a >> 32 == b >> 32) {
            counts[(run[0] >> 32) as usize] = run.len() as u64;
        }
        for run in self.hashes.chunk_by(|a, b| a.0 == b.0) {
            counts[run[0].0 as usize] = run.len() as u64;
        }
        for (&group, sketch) in &self.sketches {
            // Whoever has a sketch had more strings than are counted exactly.
            counts[group as usize] = sketch.estimate().max(EXACT_MAX as u64 + 1);
        }
        (counts, (!self.sketches.is_empty()).then_some(Hll::BOUND))
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let sketches: usize = self.sketches.values().map(Hll::bytes).sum();
        self.values.bytes() + size_of_val(&*self.pairs) + size_of_val(&*self.hashes) + sketches
    }

    /// Writes all that it has.
    pub(crate) fn write(&mut self, out: &mut Writer) {
        self.settle();
        if !(self.hashes.is_empty() && self.sketches.is_empty()) {
            self.forget_unused();
        }
        let Self { values, pairs, settled: _, hashes, settled_hashes: _, sketches } = self;
        write_values(out, values.values());
        write_pairs(out, pairs.iter().copied());
        out.number(hashes.len() as u64);
        out.column(hashes.iter().map(|&(group, _)| group.into()));
        out.column(hashes.iter().map(|&(_, hash)| hash));
        write_sketches(out, sketches.iter().map(|(&group, sketch)| (group, sketch.to_bytes())));
    }

    /// What [`Distinct::write`] wrote of so many groups.
    pub(crate) fn read(from: &mut Reader<'_>, groups: usize) -> Result<Self, WireError> {
        let values = read_values(from)?;
        let pairs = read_pairs(from, groups, values.numbers())?;
        let length = from.length()?;
        let of_hashes = from.column_below(length, groups)?;
        let hashes: Vec<_> = of_hashes.into_iter().zip(from.column(length, u64::MAX, |hash| hash)?).collect();
        let sketches: BTreeMap<u32, Hll> = read_sketches(from, groups, Hll::from_bytes)?.collect();
        let few = pairs.chunk_by(|a, b| a >> 32 == b >> 32).all(|run| run.len() <= EXACT_MAX)
            && hashes.chunk_by(|a, b| a.0 == b.0).all(|run| run.len() <= EXACT_MAX);
        if !few || !hashes.is_sorted_by(|a, b| a < b) || sketches.values().any(Hll::is_empty) {
            return Err(WireError::Invalid("distinct values are not in order"));
        }
        let (settled, settled_hashes) = (pairs.len(), hashes.len());
        Ok(Self { values: Interner::of_values(values), pairs, settled, hashes, settled_hashes, sketches })
    }

    /// Lets go of the strings that no pair has any more, since sketches took them.
    fn forget_unused(&mut self) {
        let all = std::mem::take(&mut self.values);
        let string = |number| all.values().get(number).expect("numbers from 1 have strings");
        let used = self.pairs.iter().map(|&pair| pair as u32);
        let numbers = self.values.absorb(all.values().numbers(), used, string);
        for pair in &mut self.pairs {
            *pair = *pair >> 32 << 32 | u64::from(numbers[*pair as u32 as usize]);
        }
        self.settled = 0;
        self.settle();
    }

    /// Puts pairs and hashes in order, and those of groups that have too many into sketches.
    fn settle(&mut self) {
        if self.settled == self.pairs.len() && self.settled_hashes == self.hashes.len() {
            return;
        }
        self.settle_hashes();
        self.pairs[self.settled..].sort_unstable();
        // A stable sort takes what is in order already as it is.
        self.pairs.sort();
        self.pairs.dedup();
        let (values, sketches): (&Values, _) = (self.values.values(), &mut self.sketches);
        let mut kept = 0;
        let mut at = 0;
        while at < self.pairs.len() {
            let group = (self.pairs[at] >> 32) as u32;
            let end = at + self.pairs[at..].partition_point(|&pair| (pair >> 32) as u32 == group);
            if end - at > EXACT_MAX || sketches.contains_key(&group) {
                let sketch: &mut Hll = sketches.entry(group).or_default();
                for &pair in &self.pairs[at..end] {
                    sketch.insert(hash_str(values.get(pair as u32).expect("numbers from 1 have strings")));
                }
            } else {
                self.pairs.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        self.pairs.truncate(kept);
        self.settled = kept;
    }

    /// The same of hashes, to which the strings of their groups are added.
    fn settle_hashes(&mut self) {
        if self.hashes.is_empty() {
            return;
        }
        let by_hash = |hashes: &[(u32, u64)], group: u32| hashes.binary_search_by_key(&group, |&(of, _)| of).is_ok();
        self.hashes.sort_unstable();
        let (values, mut more) = (self.values.values(), Vec::new());
        self.pairs.retain(|&key| {
            let (group, number) = ((key >> 32) as u32, key as u32);
            let moves = by_hash(&self.hashes, group);
            if moves {
                more.push((group, hash_str(values.get(number).expect("numbers from 1 have strings"))));
            }
            !moves
        });
        // Which of them were in order is not known any more.
        self.settled = 0;
        self.hashes.extend(more);
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let mut kept = Vec::with_capacity(self.hashes.len());
        for run in self.hashes.chunk_by(|a, b| a.0 == b.0) {
            let group = run[0].0;
            if run.len() > EXACT_MAX || self.sketches.contains_key(&group) {
                let sketch = self.sketches.entry(group).or_default();
                run.iter().for_each(|&(_, hash)| sketch.insert(hash));
            } else {
                kept.extend_from_slice(run);
            }
        }
        self.settled_hashes = kept.len();
        self.hashes = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a group that is counted exactly in one partition and by a sketch in another has the strings of both, whichever
    /// is merged first.
    #[test]
    fn order_of_partitions_changes_no_count() {
        const GROUPS: u32 = 20;
        let partition = |strings: std::ops::Range<u32>| {
            let names: Vec<String> = strings.map(|number| format!("user-{number}")).collect();
            let mut part = Distinct::default();
            let numbers = part.values.absorb(names.len() + 1, 1..=names.len() as u32, |n| &names[n as usize - 1]);
            let pairs = (0..GROUPS).flat_map(|group| numbers[1..].iter().map(move |&number| pair(group, number)));
            part.pairs = pairs.collect();
            part.settle();
            part
        };
        let (exact, sketched) = (partition(0..900), partition(900..2_400));
        assert!(exact.pairs.len() > PENDING_MIN && exact.sketches.is_empty() && sketched.pairs.is_empty());
        let map: Vec<u32> = (0..GROUPS).collect();
        let merged = |parts: [&Distinct; 2]| {
            let mut all = Distinct::default();
            parts.iter().for_each(|part| all.absorb(part, &map));
            all.counts(GROUPS as usize).0
        };
        let counts = merged([&exact, &sketched]);
        assert_eq!(counts, merged([&sketched, &exact]));
        assert!(counts.iter().all(|count| count.abs_diff(2_400) < 100), "{counts:?}");
    }
}
