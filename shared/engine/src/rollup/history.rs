//! What a rollup keeps of rows that have left: parts, by pages of buckets. A history never changes; a change makes another
//! one, which shares with it all pages but those that it touches.

use std::{collections::BTreeSet, ops::Range};

use rpds::RedBlackTreeMapSync;
use types::{Interval, Timestamp};

use super::{
    page::{Bounds, Page, PageKey, sharded, slice},
    part::RollupPart,
};
use crate::{MemoryBudget, sync::Arc};

/// A page is the grain in which a history leaves memory: so many buckets, or those of a day where that are fewer.
const PAGE_BUCKETS_MAX: i64 = 256;
const PAGE_US_MAX: i64 = 86_400_000_000;

/// Buckets of rows that have left.
#[derive(Debug, Clone)]
pub(crate) struct History {
    interval: Interval,
    bounds: Bounds,
    /// Every shard of a page that has parts. A copy costs nothing, and a change what its path in the tree does.
    pages: RedBlackTreeMapSync<PageKey, Page>,
    bytes: u64,
}

impl History {
    /// A history of no rows.
    pub(crate) fn new(interval: Interval) -> Self {
        Self::with_bounds(interval, Bounds::DEFAULT)
    }

    fn with_bounds(interval: Interval, bounds: Bounds) -> Self {
        Self { interval, bounds, pages: RedBlackTreeMapSync::new_sync(), bytes: 0 }
    }

    /// A history of these parts, each of which lies in one page, page by page; `None` where they do not.
    pub(crate) fn of_parts(interval: Interval, parts: Vec<Arc<RollupPart>>) -> Option<Self> {
        Self::new(interval).restored(parts)
    }

    fn restored(mut self, parts: Vec<Arc<RollupPart>>) -> Option<Self> {
        let mut before: Option<(i64, Vec<Arc<RollupPart>>)> = None;
        for part in parts {
            let number = self.page_of(*part.buckets().first()?);
            if number != self.page_of(*part.buckets().last()?) {
                return None;
            }
            match &mut before {
                Some((known, _)) if *known > number => return None,
                Some((known, parts)) if *known == number => parts.push(part),
                _ => self.put(before.replace((number, vec![part]))),
            }
        }
        self.put(before);
        Some(self)
    }

    fn put(&mut self, page: Option<(i64, Vec<Arc<RollupPart>>)>) {
        let pages = page.map(|(number, parts)| sharded(number, parts, self.bounds)).unwrap_or_default();
        pages.into_iter().for_each(|(key, page)| self.insert(key, page));
    }

    /// All parts, page by page.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Arc<RollupPart>> {
        self.pages.values().flat_map(|page| page.parts.iter())
    }

    /// The parts that may have buckets with numbers in a range.
    pub(crate) fn parts_in(&self, buckets: Range<i64>) -> impl Iterator<Item = &Arc<RollupPart>> {
        let (end, size) = (buckets.end, self.page_buckets());
        let pages = self.pages.range(PageKey::first(self.page_of(buckets.start))..);
        let pages = pages.take_while(move |(key, _)| key.number.saturating_mul(size) < end);
        pages.flat_map(|(_, page)| page.parts.iter())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The end of the first page, µs; `None` where there is none.
    pub(crate) fn first_end(&self) -> Option<Timestamp> {
        self.pages.first().map(|(key, _)| self.page_end(key.number))
    }

    /// Takes over the buckets of a part from the one of this number on; pages where parts are to be merged or divided now
    /// are added to `uneven`. `false`: by copies, the part itself is not in it.
    pub(crate) fn absorb(
        &mut self,
        part: &Arc<RollupPart>,
        from: i64,
        uneven: &mut BTreeSet<PageKey>,
        budget: &Arc<MemoryBudget>,
    ) -> bool {
        let mut is_in = false;
        let mut at = part.buckets().partition_point(|bucket| *bucket < from);
        while let Some(&bucket) = part.buckets().get(at) {
            let number = self.page_of(bucket);
            let end = at + part.buckets()[at..].partition_point(|bucket| self.page_of(*bucket) == number);
            for (key, piece) in self.pieces(number, part, at..end, budget) {
                is_in |= Arc::ptr_eq(&piece, part);
                let page = self.pages.get(&key).map(|page| page.with(Arc::clone(&piece)));
                let page = page.unwrap_or_else(|| Page::whole(vec![piece]));
                if page.is_uneven(self.bounds) {
                    uneven.insert(key);
                }
                self.insert(key, page);
            }
            at = end;
        }
        is_in
    }

    /// Groups of a part, which are all that it has of a page, by the shards of that page.
    fn pieces(
        &self,
        number: i64,
        part: &Arc<RollupPart>,
        groups: Range<usize>,
        budget: &Arc<MemoryBudget>,
    ) -> Vec<(PageKey, Arc<RollupPart>)> {
        let shards: Vec<PageKey> = self.pages.range(PageKey::all(number)).map(|(key, _)| *key).collect();
        let chosen = if shards.len() <= 1 {
            vec![(PageKey::first(number), groups.map(|at| at as u32).collect())]
        } else {
            let mut chosen: Vec<(PageKey, Vec<u32>)> = shards.into_iter().map(|key| (key, Vec::new())).collect();
            for (at, hash) in groups.clone().zip(part.hashes(groups)) {
                let shard = chosen.partition_point(|(key, _)| key.least <= hash) - 1;
                chosen[shard].1.push(at as u32);
            }
            chosen
        };
        let pieces = chosen.into_iter().filter_map(|(key, groups)| Some((key, slice(part, &groups, budget)?)));
        pieces.collect()
    }

    /// The pages where parts are to be merged or divided.
    pub(crate) fn uneven(&self) -> BTreeSet<PageKey> {
        self.pages.iter().filter(|(_, page)| page.is_uneven(self.bounds)).map(|(key, _)| *key).collect()
    }

    /// Merges and divides parts of pages in `uneven`, until `left` groups were looked at or nothing is due. `true`: something
    /// was. It says what it said, in fewer or smaller parts.
    pub(crate) fn compact(
        &mut self,
        uneven: &mut BTreeSet<PageKey>,
        left: &mut usize,
        budget: &Arc<MemoryBudget>,
    ) -> bool {
        let mut changed = false;
        while *left > 0
            && let Some(key) = uneven.pop_first()
        {
            // A page that has left needs nothing.
            let step = self.pages.get(&key).and_then(|page| page.step(key, self.bounds, budget));
            let Some((pages, groups)) = step else { continue };
            for (key, page) in pages {
                if page.is_uneven(self.bounds) {
                    uneven.insert(key);
                }
                self.insert(key, page);
            }
            *left = left.saturating_sub(groups);
            changed = true;
        }
        changed
    }

    /// Drops the pages that end at `horizon` or before. Returns the end of the last one of them.
    pub(crate) fn drop_before(&mut self, horizon: Timestamp) -> Option<Timestamp> {
        let mut last = None;
        while let Some((&key, page)) = self.pages.first()
            && self.page_end(key.number) <= horizon
        {
            self.bytes -= page.bytes();
            page.parts.iter().for_each(|part| part.retire());
            self.pages.remove_mut(&key);
            last = Some(self.page_end(key.number));
        }
        last
    }

    fn page_buckets(&self) -> i64 {
        (PAGE_US_MAX / self.interval.micros()).clamp(1, PAGE_BUCKETS_MAX)
    }

    fn page_of(&self, bucket: i64) -> i64 {
        bucket.div_euclid(self.page_buckets())
    }

    fn page_end(&self, number: i64) -> Timestamp {
        let buckets = number.saturating_add(1).saturating_mul(self.page_buckets());
        Timestamp(buckets.saturating_mul(self.interval.micros()))
    }

    fn insert(&mut self, key: PageKey, page: Page) {
        self.bytes -= self.pages.get(&key).map_or(0, Page::bytes);
        self.bytes += page.bytes();
        self.pages.insert_mut(key, page);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{
        super::part::{GroupColumns, Shape, Strings},
        *,
    };

    const SHAPE: Shape = Shape { keys: 1, distinct: 0, quantiles: 0, tops: 0 };

    /// What a group of one part is: its bucket, its key, its rows.
    type Group = (i64, u8, u64);

    fn part(groups: &[Group], budget: &Arc<MemoryBudget>) -> Arc<RollupPart> {
        let rows: BTreeMap<(i64, u8), u64> =
            groups.iter().map(|(bucket, key, rows)| ((*bucket, *key), *rows)).collect();
        let (mut strings, mut columns) = (Strings::default(), GroupColumns::new(SHAPE));
        let mut numbers = BTreeMap::new();
        for ((bucket, key), rows) in rows {
            let number =
                *numbers.entry(key).or_insert_with(|| if key == 0 { 0 } else { strings.push(&key.to_string()) });
            let at = columns.push(bucket, &[number]);
            columns.rows[at as usize] = rows;
        }
        Arc::new(RollupPart::new(vec![strings], columns, Some(budget)))
    }

    /// The rows of each group, over all parts.
    fn said<'a>(parts: impl Iterator<Item = &'a Arc<RollupPart>>) -> BTreeMap<(i64, Option<String>), u64> {
        let mut said = BTreeMap::new();
        for part in parts {
            assert!(part.is_each_once() && part.buckets().is_sorted());
            for at in 0..part.groups() {
                let key = part.string(0, part.key(0)[at]).map(str::to_owned);
                *said.entry((part.buckets()[at], key)).or_default() += part.rows()[at];
            }
        }
        said
    }

    fn groups() -> impl Strategy<Value = Vec<Group>> {
        let bucket = prop_oneof![8 => 0_i64..4, 1 => -300_i64..900];
        prop::collection::vec((bucket, 0_u8..40, 1_u64..5), 1..60)
    }

    proptest! {
        /// Goal: however parts come, and however far pages are merged and divided meanwhile, a history says what all of its
        /// parts say together, whole and by ranges of buckets, also when it is made again of its parts; once nothing is due,
        /// no part passes its bounds, the parts of a page are few, and all memory is accounted for.
        #[test]
        fn pages_say_what_their_parts_say(
            all in prop::collection::vec((groups(), 0_usize..60), 1..20),
            groups_max in 4_usize..40,
            bytes_max in 500_u64..4_000,
        ) {
            let budget = Arc::new(MemoryBudget::new(u64::MAX));
            let bounds = Bounds { groups_max, bytes_max };
            let interval = Interval::from_micros(1_000_000).unwrap();
            let mut history = History::with_bounds(interval, bounds);
            let (mut uneven, mut expected) = (BTreeSet::new(), BTreeMap::new());
            for (groups, mut left) in all {
                let part = part(&groups, &budget);
                for (group, rows) in said(std::iter::once(&part)) {
                    *expected.entry(group).or_default() += rows;
                }
                if !history.absorb(&part, i64::MIN, &mut uneven, &budget) {
                    part.retire();
                }
                history.compact(&mut uneven, &mut left, &budget);
                prop_assert_eq!(&said(history.parts()), &expected);
            }
            let of_some = |from: i64, to: i64| {
                let mut some = expected.clone();
                some.retain(|(bucket, _), _| (from..to).contains(bucket));
                some
            };
            let mut some = said(history.parts_in(0..256));
            some.retain(|(bucket, _), _| (0..256).contains(bucket));
            prop_assert_eq!(some, of_some(0, 256));
            history.compact(&mut uneven, &mut { usize::MAX }, &budget);
            prop_assert!(history.uneven().is_empty());
            prop_assert_eq!(&said(history.parts()), &expected);
            for part in history.parts() {
                prop_assert!(part.groups() <= groups_max.max(2) && (part.bytes() <= bytes_max || part.groups() <= 2));
            }
            for page in history.pages.values() {
                let halves = page.parts.windows(2).all(|pair| pair[0].groups() >= 2 * pair[1].groups());
                prop_assert!(halves, "each part has twice the groups of the next");
            }
            prop_assert_eq!(history.bytes(), budget.used() - budget.retired());
            let parts: Vec<Arc<RollupPart>> = history.parts().cloned().collect();
            let again = History::with_bounds(interval, bounds).restored(parts.clone()).expect("pages in order");
            prop_assert_eq!((said(again.parts()), again.bytes()), (expected, history.bytes()));
            for (key, page) in again.pages.iter() {
                // Where a group that comes would be looked for.
                for hash in page.parts.iter().flat_map(|part| part.hashes(0..part.groups())) {
                    let shard = again.pages.range(PageKey::all(key.number)).rfind(|(key, _)| key.least <= hash);
                    prop_assert_eq!(shard.map(|(key, _)| *key), Some(*key));
                }
            }
            drop((parts, again));
            history.drop_before(Timestamp::MAX);
            prop_assert_eq!((history.bytes(), budget.used(), budget.retired()), (0, 0, 0));
        }
    }

    /// Goal: rows at the greatest and the least bucket of all are kept, though no number lies behind or before these.
    #[test]
    fn the_last_bucket_is_taken() {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let mut history = History::new(Interval::from_micros(1).unwrap());
        let part = part(&[(i64::MAX, 1, 3), (i64::MAX - 1, 2, 4), (i64::MIN, 3, 5)], &budget);
        assert!(!history.absorb(&part, i64::MIN, &mut BTreeSet::new(), &budget));
        assert_eq!(said(history.parts()), said(std::iter::once(&part)));
    }
}
