//! The most frequent strings of each group.
//!
//! 1. A partition counts every string of a group and hands on the most frequent ones, by count descending, then value
//!    ascending: [`Cut`] says how many, and the count of the next one, its *floor*. A string that it does not name stood there
//!    at most that often (as in the threshold algorithm of Fagin, Lotem and Naor 2001; merged as the counters of Agarwal et
//!    al. 2012, "Mergeable summaries").
//!    Where counts fall steeply few are enough: a string that counts next to nothing beside the last one asked for stays behind.
//! 2. So the sum of a string's counts is too small by at most the floors of the partitions that did not name it, and a group
//!    is exact where no other string can stand above any that is named: the answer proves itself, and mostly it can.
//! 3. Where a string stands in one partition only (the table is partitioned by its column) no floor is needed.
//! 4. A summary of a rollup has a floor of its own, which its strings may have stood more often, too: they get no credit.

use std::cmp::Reverse;

use engine::DictionaryView;
use sketch::{Bound, HeavyHitters, ROWS_MAX};
use types::ApiError;

use crate::{
    ast::TOP_MAX,
    counted::Counted,
    pair_counts::{PairCounts, pair},
    values::Interner,
    wire::{Reader, WireError, Writer, read_pairs, read_values, write_pairs, write_values},
};

/// Strings that a partition names in all groups together, if groups are few.
const KEPT_ALL: usize = 1 << 18;
/// And of a single group, at most and at least: the second bounds the error to 1/4096 of the rows.
const KEPT_MAX: usize = 1 << 16;
const KEPT_MIN: usize = 1 << 12;
const _: () = assert!(TOP_MAX as usize <= KEPT_MIN);
/// Where counts fall steeply, fewer will do: floors that come to this part of the last count asked for, all partitions together.
const FLOOR_SHARE: u64 = 32;
/// Entries that wait to be put in order, at least.
const PENDING_MIN: usize = 1 << 14;

/// A string of a group.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Group and number of the string.
    key: u64,
    count: u64,
    /// The floors of the partitions that named it: in the others it stood at most as often as their floors say.
    credit: u64,
}

/// Counts of strings by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Top {
    values: Interner,
    /// Ascending by key up to `settled`, each once; the rest in any order.
    entries: Vec<Entry>,
    settled: usize,
    /// By group: what the partitions left out stood at most so often, added up. Groups beyond have 0.
    floors: Vec<u64>,
}

/// The most frequent strings of a group, by count descending, then value ascending.
pub(crate) type Leaders = Vec<(String, u64)>;

impl Top {
    /// The strings of counted codes. `cut`: these are all of the partition, of so many groups; see [`Top::cut`].
    pub(crate) fn of_codes(mut counts: PairCounts, dictionary: DictionaryView<'_>, cut: Option<Cut>) -> Self {
        let string = |code| dictionary.get(code).expect("a dictionary has every code of its rows");
        let mut top = Self::default();
        let mut chosen = Vec::new();
        counts.counted_by_group(|group, counted| {
            chosen.clear();
            let kept = cut.map_or(usize::MAX, |cut| cut.kept(&counted));
            // One more than stays, so that its count is known.
            counted.leaders(kept.saturating_add(1), |code, count| chosen.push((code, count)));
            // Cut by code, so that strings which do not stay need not be copied.
            let floor = leave_most_frequent(&mut chosen, kept, string);
            top.raise_floor(group, cut.map_or(0, |cut| cut.floor(floor)));
            let credit = top.floor(group);
            top.entries.extend(chosen.iter().map(|&(code, count)| Entry { key: pair(group, code), count, credit }));
        });
        let codes = top.entries.iter().map(|entry| entry.key as u32);
        let numbers = top.values.absorb(dictionary.len() as usize + 1, codes, string);
        for entry in &mut top.entries {
            entry.key = entry.key >> 32 << 32 | u64::from(numbers[entry.key as u32 as usize]);
        }
        top.settle();
        top
    }

    /// Adds the counts of each group `g` of `other` to group `map[g]` here.
    pub(crate) fn absorb(&mut self, other: &Self, map: &[u32]) {
        let from = other.values.values();
        let used = other.entries.iter().map(|entry| entry.key as u32);
        let string = |number| from.get(number).expect("numbers from 1 have strings");
        let numbers = self.values.absorb(from.numbers(), used, string);
        for entry in &other.entries {
            let key = pair(map[(entry.key >> 32) as usize], numbers[entry.key as u32 as usize]);
            self.entries.push(Entry { key, ..*entry });
        }
        for (group, &floor) in other.floors.iter().enumerate().filter(|(_, floor)| **floor > 0) {
            self.raise_floor(map[group], floor);
        }
        self.settle_when_long();
    }

    /// Adds counts of strings, each given by its group and its number among so many strings.
    pub(crate) fn add_counts<'a>(
        &mut self,
        counts: impl Iterator<Item = (u32, u32, u64)> + Clone,
        numbers: usize,
        string: impl Fn(u32) -> &'a str,
    ) {
        let numbers = self.values.absorb(numbers, counts.clone().map(|(_, number, _)| number), string);
        let entry = |(group, number, count): (u32, u32, u64)| {
            let key = pair(group, numbers[number as usize]);
            Entry { key, count, credit: 0 }
        };
        self.entries.extend(counts.map(entry));
        self.settle_when_long();
    }

    /// Adds what a rollup has of a group.
    pub(crate) fn add_summary(&mut self, group: u32, summary: &HeavyHitters) {
        let hitters = summary.top(usize::MAX);
        let counts = (1..).zip(&hitters).map(|(number, hitter)| (group, number, hitter.count));
        self.add_counts(counts, hitters.len() + 1, |number| hitters[number as usize - 1].item);
        self.raise_floor(group, summary.undercount());
    }

    /// Leaves the most frequent strings of each group; for all counts of a partition.
    pub(crate) fn cut(&mut self, cut: Cut) {
        self.settle();
        let whole = std::mem::take(self);
        self.floors.clone_from(&whole.floors);
        let values = whole.values.values();
        let string = |number| values.get(number).expect("numbers from 1 have strings");
        let mut chosen: Vec<(u32, u64)> = Vec::new();
        for run in whole.entries.chunk_by(|a, b| a.key >> 32 == b.key >> 32) {
            let group = (run[0].key >> 32) as u32;
            chosen.clear();
            chosen.extend(run.iter().map(|entry| (entry.key as u32, entry.count)));
            let kept = cut.kept(&Counted::List(&chosen));
            let floor = leave_most_frequent(&mut chosen, kept, string);
            let floor = cut.floor(floor);
            self.raise_floor(group, floor);
            self.entries.extend(chosen.iter().map(|&(number, count)| {
                let key = pair(group, number);
                let known = run.binary_search_by_key(&key, |entry| entry.key).expect("it was chosen of the run");
                Entry { key, count, credit: run[known].credit + floor }
            }));
        }
        let used = self.entries.iter().map(|entry| entry.key as u32);
        let numbers = self.values.absorb(values.numbers(), used, string);
        for entry in &mut self.entries {
            entry.key = entry.key >> 32 << 32 | u64::from(numbers[entry.key as u32 as usize]);
        }
        self.settle();
    }

    /// The `k` most frequent strings of each of the groups `kept`, in that order, and how far the worst of them can be off;
    /// `None` where all are exact. `rows` has the rows of every group; `spend` takes the bytes of each list.
    ///
    /// # Errors
    /// Those of `spend`.
    pub(crate) fn leaders(
        &mut self,
        rows: &[u64],
        k: usize,
        kept: &[u32],
        mut spend: impl FnMut(usize) -> Result<(), ApiError>,
    ) -> Result<(Vec<Leaders>, Option<Bound>), ApiError> {
        self.settle();
        let values = self.values.values();
        let string = |number| values.get(number).expect("numbers from 1 have strings");
        let mut leaders = Vec::with_capacity(kept.len());
        let mut share: Option<f64> = None;
        for &group in kept {
            let run = self.of_group(group);
            let floor = self.floor(group);
            let mut chosen: Vec<(u32, u64)> = run.iter().map(|entry| (entry.key as u32, entry.count)).collect();
            leave_most_frequent(&mut chosen, k, string);
            chosen.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| string(a.0).cmp(string(b.0))));
            if !is_exact(run, floor, &chosen, k) {
                let off = floor as f64 / rows[group as usize] as f64;
                share = Some(share.map_or(off, |worst: f64| worst.max(off)));
            }
            let of_group: Leaders = chosen.iter().map(|&(number, count)| (string(number).to_owned(), count)).collect();
            let text: usize = of_group.iter().map(|(value, _)| value.len()).sum();
            spend(text + size_of_val(&*of_group) + size_of::<Leaders>())?;
            leaders.push(of_group);
        }
        Ok((leaders, share.map(|share| Bound { kind: sketch::BoundKind::Absolute, value: share, confidence: 1.0 })))
    }

    /// The entries of a group; all are settled.
    fn of_group(&self, group: u32) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.key >> 32 < u64::from(group));
        let rest = &self.entries[begin..];
        &rest[..rest.partition_point(|entry| entry.key >> 32 == u64::from(group))]
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + size_of_val(&*self.entries) + size_of_val(&*self.floors)
    }

    /// Writes all that it has.
    pub(crate) fn write(&mut self, out: &mut Writer) {
        self.settle();
        let Self { values, entries, settled: _, floors } = self;
        write_values(out, values.values());
        write_pairs(out, entries.iter().map(|entry| entry.key));
        out.column(entries.iter().map(|entry| entry.count));
        out.column(entries.iter().map(|entry| entry.credit));
        out.number(floors.len() as u64);
        out.column(floors.iter().copied());
    }

    /// What [`Top::write`] wrote of so many groups.
    pub(crate) fn read(from: &mut Reader<'_>, groups: usize) -> Result<Self, WireError> {
        let values = read_values(from)?;
        let keys = read_pairs(from, groups, values.numbers())?;
        let counts = from.column(keys.len(), ROWS_MAX, |count| count)?;
        let credits = from.column(keys.len(), ROWS_MAX, |credit| credit)?;
        let named = keys.into_iter().zip(counts).zip(credits);
        let entries: Vec<_> = named.map(|((key, count), credit)| Entry { key, count, credit }).collect();
        let length = from.length()?;
        let floors = from.column(length, ROWS_MAX, |floor| floor)?;
        let top = Self { values: Interner::of_values(values), settled: entries.len(), entries, floors };
        // The floors of those that named a string are some of all floors.
        let credited = |entry: &Entry| entry.credit <= top.floor((entry.key >> 32) as u32);
        if length <= groups && top.entries.iter().all(credited) {
            Ok(top)
        } else {
            Err(WireError::Invalid("a string has more credit than its group has floors"))
        }
    }

    fn floor(&self, group: u32) -> u64 {
        self.floors.get(group as usize).copied().unwrap_or(0)
    }

    fn raise_floor(&mut self, group: u32, floor: u64) {
        if floor > 0 {
            if self.floors.len() <= group as usize {
                self.floors.resize(group as usize + 1, 0);
            }
            self.floors[group as usize] += floor;
        }
    }

    fn settle_when_long(&mut self) {
        if self.entries.len() - self.settled >= self.settled.max(PENDING_MIN) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.settled < self.entries.len() {
            // A stable sort takes what is in order already as it is.
            self.entries.sort_by_key(|entry| entry.key);
            self.entries.dedup_by(|next, kept| {
                let same = next.key == kept.key;
                if same {
                    kept.count += next.count;
                    kept.credit += next.credit;
                }
                same
            });
            self.settled = self.entries.len();
        }
    }
}

/// How a partition's counts are cut before they travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Strings that stay of a group, at most.
    most: usize,
    /// And at least, if it has more.
    least: usize,
    /// How many are asked for.
    k: usize,
    /// A string that counts less than the one of rank `k` by this factor need not stay.
    share: u64,
    disjoint: bool,
}

impl Cut {
    /// For one of so many partitions, which has so many groups, of each of which `k` strings are asked for. `disjoint`: no
    /// other partition has any of the strings.
    pub(crate) fn new(groups: usize, k: usize, partitions: usize, disjoint: bool) -> Self {
        let most = if disjoint { TOP_MAX as usize } else { (KEPT_ALL / groups.max(1)).clamp(KEPT_MIN, KEPT_MAX) };
        Self { most, least: most.min(KEPT_MIN), k, share: FLOOR_SHARE * partitions.max(1) as u64, disjoint }
    }

    /// How many strings stay of a group with these counts. It depends on the counts alone.
    fn kept(self, counted: &Counted<'_>) -> usize {
        if counted.len() <= self.most || self.least == self.most {
            return self.most;
        }
        counted.above(counted.of_rank(self.k) / self.share).clamp(self.least, self.most)
    }

    /// What a string that was left out can add elsewhere.
    fn floor(self, count: u64) -> u64 {
        if self.disjoint { 0 } else { count }
    }
}

/// Leaves the `kept` most frequent strings, in any order, and returns the count of the most frequent one that it left out.
fn leave_most_frequent<'a>(counted: &mut Vec<(u32, u64)>, kept: usize, string: impl Fn(u32) -> &'a str) -> u64 {
    let mut floor = 0;
    if kept < counted.len() {
        // By count alone first: comparing strings is dear, and only those of the least count that stays need it.
        let (_, &mut (_, least), rest) = counted.select_nth_unstable_by_key(kept - 1, |&(_, count)| Reverse(count));
        floor = rest.iter().map(|&(_, count)| count).max().unwrap_or(0);
        if floor == least {
            let (mut sure, mut even): (Vec<_>, Vec<_>) =
                counted.iter().filter(|(_, count)| *count >= least).partition(|(_, count)| *count > least);
            let more = kept - sure.len();
            even.select_nth_unstable_by_key(more - 1, |&(number, _)| string(number));
            sure.extend_from_slice(&even[..more]);
            *counted = sure;
        }
        counted.truncate(kept);
    }
    floor
}

/// Whether `chosen`, the `k` with the greatest known counts of a group, are surely its `k` most frequent strings, with
/// counts that are complete. `floor`: so often at most a string stood in partitions that did not name it.
fn is_exact(run: &[Entry], floor: u64, chosen: &[(u32, u64)], k: usize) -> bool {
    if floor == 0 {
        return true;
    }
    let Some(&(_, last)) = chosen.last().filter(|_| chosen.len() == k) else { return false };
    // Ties among complete counts were broken by their strings; one that may yet rise must be able to stay below. Whatever is
    // chosen has `last` at least, so it can not.
    floor < last && run.iter().all(|entry| entry.credit == floor || entry.count + (floor - entry.credit) < last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Cut {
        /// That leaves so many.
        fn of(kept: usize) -> Self {
            Self { most: kept, least: kept, k: 1, share: 1, disjoint: false }
        }
    }

    proptest! {
        /// Goal: strings are left out only where there are more than may travel; then as many stay as have to, and those that are
        /// left out count next to nothing beside the last one asked for, all partitions together.
        #[test]
        fn what_is_left_out_counts_next_to_nothing(
            few in prop::collection::vec(0..1_000_000_u32, 0..2_000),
            tail in prop_oneof![Just(0), 0..3_000_u32],
            k in 1..2_000_usize,
            (groups, partitions) in (1..200_usize, 0..5_usize),
        ) {
            let mut counts = few;
            counts.extend((0..2 * KEPT_MAX as u32).map(|at| tail.min(at % 5_000)));
            let cut = Cut::new(groups, k, partitions, false);
            let kept = cut.kept(&Counted::of_line(1, &counts));
            counts.sort_unstable_by_key(|&count| Reverse(count));
            prop_assert!((KEPT_MIN..=cut.most).contains(&kept));
            let (asked, next) = (u64::from(counts[k - 1]), u64::from(counts[kept]));
            prop_assert!(kept == cut.most || next * partitions as u64 <= asked / FLOOR_SHARE);
            // Nor do more stay than that takes.
            prop_assert!(kept == KEPT_MIN || u64::from(counts[kept - 1]) > asked / cut.share || next == 0);
            let all = &counts[..cut.most];
            prop_assert_eq!(cut.kept(&Counted::of_line(1, all)), cut.most);
        }
    }

    /// A partition's counts of one group, of which `kept` strings travel.
    fn partition(counts: &BTreeMap<u8, u64>, kept: usize) -> Top {
        let names: Vec<String> = counts.keys().map(|value| format!("v{value:03}")).collect();
        let mut top = Top::default();
        let numbers: Vec<u32> = (1..=names.len() as u32).collect();
        let map = top.values.absorb(names.len() + 1, numbers.iter().copied(), |number| &names[number as usize - 1]);
        for (number, &count) in numbers.iter().zip(counts.values()) {
            top.entries.push(Entry { key: pair(0, map[*number as usize]), count, credit: 0 });
        }
        top.cut(Cut::of(kept));
        top
    }

    proptest! {
        /// Goal: what claims to be exact is, and the rest lies within its bound, whatever partitions left out; counts are
        /// never too large.
        #[test]
        fn leaders_keep_their_bound(
            parts in prop::collection::vec(prop::collection::btree_map(0..40_u8, 1..30_u64, 1..30), 1..5),
            skew in 1..8_u32,
            kept in 3..12_usize,
            k in 1..4_usize,
        ) {
            let (mut all, mut truth) = (Top::default(), BTreeMap::<String, u64>::new());
            for part in &parts {
                // Some strings lead by far, as most data has it.
                let part: BTreeMap<u8, u64> = part.iter().map(|(&v, &n)| (v, n + (1000 >> (u32::from(v) * skew).min(16)))).collect();
                part.iter().for_each(|(v, n)| *truth.entry(format!("v{v:03}")).or_default() += n);
                all.absorb(&partition(&part, kept), &[0]);
            }
            let rows: u64 = truth.values().sum();
            let (leaders, bound) = all.leaders(&[rows], k, &[0], |_| Ok(())).unwrap();
            let mut want: Vec<(String, u64)> = truth.clone().into_iter().collect();
            want.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            want.truncate(k);
            let off = bound.map_or(0.0, |bound| bound.value * rows as f64 + 1e-6) as u64;
            if bound.is_none() {
                prop_assert_eq!(&leaders[0], &want);
            }
            prop_assert_eq!(leaders[0].len(), want.len());
            for (value, count) in &leaders[0] {
                prop_assert!(*count <= truth[value] && truth[value] - count <= off, "{} of {}", count, truth[value]);
                prop_assert!(truth[value] + off >= want.last().unwrap().1);
            }
        }
    }

    /// Goal: what summaries of rollups took off their counters stays within the bound, which is never left out, whatever was
    /// cut from the partition besides; next to a partition that counted every string.
    #[test]
    fn summaries_keep_their_bound() {
        let (mut all, mut truth) = (Top::default(), BTreeMap::<String, u64>::new());
        for part in 0..3_u64 {
            let mut of_partition = Top::default();
            for bucket in 0..4_u64 {
                let mut summary = HeavyHitters::default();
                for item in 0..5_000_u64 {
                    let value = format!("v{:04}", (item * 7 + bucket * 131) % 5_000);
                    let count = 1 + 4_000 / (1 + item) + (item + part) % 3;
                    summary.add(&value, count);
                    *truth.entry(value).or_default() += count;
                }
                assert!(!summary.is_exact());
                of_partition.add_summary(0, &summary);
            }
            of_partition.cut(Cut::of(1_000));
            all.absorb(&of_partition, &[0]);
        }
        let mut counted = Top::default();
        counted.add_counts([(0, 1, 70_000)].into_iter(), 2, |_| "v0001");
        *truth.get_mut("v0001").unwrap() += 70_000;
        all.absorb(&counted, &[0]);
        let rows = truth.values().sum::<u64>();
        let (leaders, bound) = all.leaders(&[rows], 20, &[0], |_| Ok(())).unwrap();
        let off = bound.expect("counters were lowered").value * rows as f64 + 1e-6;
        let mut want: Vec<u64> = truth.values().copied().collect();
        want.sort_unstable_by_key(|count| Reverse(*count));
        assert_eq!(leaders[0][0].0, "v0001");
        for (value, count) in &leaders[0] {
            assert!(*count <= truth[value] && (truth[value] - count) as f64 <= off, "{count} of {}", truth[value]);
            assert!(truth[value] as f64 + off >= want[19] as f64);
        }
    }

    /// Goal: a summary of which no counter is left, as so many strings came equally often, says how far its empty list is off.
    #[test]
    fn an_empty_list_has_its_bound() {
        let mut summary = HeavyHitters::default();
        // One more than it counts.
        (0..2_049).for_each(|value| summary.add(&format!("request {value}"), 1));
        let mut top = Top::default();
        top.add_summary(0, &summary);
        let (leaders, bound) = top.leaders(&[2_049], 3, &[0], |_| Ok(())).unwrap();
        assert_eq!((leaders[0].len(), bound.map(|bound| bound.value)), (0, Some(1.0 / 2_049.0)));
        // Nothing was left out where there was nothing.
        let (leaders, bound) = top.leaders(&[2_049, 5], 3, &[1], |_| Ok(())).unwrap();
        assert_eq!((leaders[0].len(), bound), (0, None));
    }

    /// Goal: leaders that stand far above what was left out are exact although most strings were.
    #[test]
    fn far_leaders_are_exact() {
        let counts: BTreeMap<u8, u64> = (0..40).map(|value| (value, if value < 2 { 1_000 } else { 3 })).collect();
        let mut all = Top::default();
        (0..4).for_each(|_| all.absorb(&partition(&counts, 5), &[0]));
        let (leaders, bound) = all.leaders(&[10_000], 2, &[0], |_| Ok(())).unwrap();
        assert_eq!((leaders[0].len(), leaders[0][0].1, bound), (2, 4_000, None));
        let (_, bound) = all.leaders(&[10_000], 3, &[0], |_| Ok(())).unwrap();
        assert_eq!(bound.map(|bound| bound.value), Some(4.0 * 3.0 / 10_000.0));
    }
}
