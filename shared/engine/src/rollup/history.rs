//! What a rollup keeps of rows that have left: parts, by pages of buckets. A history never changes; a change makes another
//! one, which shares all pages but those that it touches.

use std::ops::Range;

use types::{Interval, Timestamp};

use super::{builder::PartBuilder, part::RollupPart};
use crate::{MemoryBudget, sync::Arc};

/// A page is the grain in which a history leaves memory: so many buckets, or those of a day where that are fewer.
const PAGE_BUCKETS_MAX: i64 = 256;
const PAGE_US_MAX: i64 = 86_400_000_000;

/// Buckets that lie side by side.
#[derive(Debug, Clone)]
struct Page {
    /// The number of its first bucket, divided by the buckets of a page.
    number: i64,
    /// The older ones first; each has at least twice the groups of the next.
    parts: Arc<Vec<Arc<RollupPart>>>,
}

/// Buckets of rows that have left, ascending.
#[derive(Debug, Clone)]
pub(crate) struct History {
    interval: Interval,
    pages: Vec<Page>,
    bytes: u64,
}

impl History {
    /// A history of no rows.
    pub(crate) fn new(interval: Interval) -> Self {
        Self { interval, pages: Vec::new(), bytes: 0 }
    }

    /// A history of these parts, each of which lies in one page; `None` where one does not.
    pub(crate) fn of_parts(interval: Interval, parts: Vec<Arc<RollupPart>>) -> Option<Self> {
        let mut history = Self::new(interval);
        for part in parts {
            let page_of = |bucket: Option<&i64>| bucket.map(|bucket| history.page_of(*bucket));
            let (first, last) = (page_of(part.buckets().first())?, page_of(part.buckets().last())?);
            let at = history.pages.partition_point(|page| page.number < first);
            if first != last || at + 1 < history.pages.len() {
                return None;
            }
            history.bytes += part.bytes();
            match history.pages.get_mut(at) {
                Some(page) => Arc::get_mut(&mut page.parts).expect("nobody else has it yet").push(part),
                None => history.pages.push(Page { number: first, parts: Arc::new(vec![part]) }),
            }
        }
        Some(history)
    }

    /// All parts, page by page.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Arc<RollupPart>> {
        self.pages.iter().flat_map(|page| page.parts.iter())
    }

    /// The parts that may have buckets with numbers in a range.
    pub(crate) fn parts_in(&self, buckets: Range<i64>) -> impl Iterator<Item = &Arc<RollupPart>> {
        let first = self.pages.partition_point(|page| page.number < self.page_of(buckets.start));
        let (end, size) = (buckets.end, self.page_buckets());
        let pages = self.pages[first..].iter().take_while(move |page| page.number.saturating_mul(size) < end);
        pages.flat_map(|page| page.parts.iter())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The end of the first page, µs; `None` where there is none.
    pub(crate) fn first_end(&self) -> Option<Timestamp> {
        self.pages.first().map(|page| self.page_end(page.number))
    }

    /// Takes over the buckets of a part from the one of this number on. `false`: by copies, the part itself is not in it.
    pub(crate) fn absorb(&mut self, part: &Arc<RollupPart>, from: i64, budget: &Arc<MemoryBudget>) -> bool {
        let mut is_in = false;
        let mut at = part.groups_in(&(from..i64::MAX)).start;
        while let Some(&bucket) = part.buckets().get(at) {
            let number = self.page_of(bucket);
            let first = number.saturating_mul(self.page_buckets());
            let buckets = first.max(from)..first.saturating_add(self.page_buckets());
            let taken = part.groups_in(&buckets);
            is_in |= taken.len() == part.groups();
            let piece = if is_in { Some(Arc::clone(part)) } else { slice(part, &buckets, budget) };
            self.push(number, piece, budget);
            // The greatest bucket of all has no end: it is the last one of the last page.
            at = taken.end.max(at + 1);
        }
        is_in
    }

    /// Drops the pages that end at `horizon` or before. Returns the end of the last one of them.
    pub(crate) fn drop_before(&mut self, horizon: Timestamp) -> Option<Timestamp> {
        let count = self.pages.partition_point(|page| self.page_end(page.number) <= horizon);
        let gone: Vec<Page> = self.pages.drain(..count).collect();
        for part in gone.iter().flat_map(|page| page.parts.iter()) {
            self.bytes -= part.bytes();
            part.retire();
        }
        gone.last().map(|last| self.page_end(last.number))
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

    fn push(&mut self, number: i64, part: Option<Arc<RollupPart>>, budget: &Arc<MemoryBudget>) {
        let Some(part) = part else { return };
        match self.pages.binary_search_by_key(&number, |page| page.number) {
            Err(at) => {
                self.bytes += part.bytes();
                self.pages.insert(at, Page { number, parts: Arc::new(vec![part]) });
            }
            Ok(at) => {
                let bytes = |parts: &[Arc<RollupPart>]| parts.iter().map(|part| part.bytes()).sum::<u64>();
                let mut parts = Vec::clone(&self.pages[at].parts);
                self.bytes -= bytes(&parts);
                push_part(&mut parts, part, budget);
                self.bytes += bytes(&parts);
                self.pages[at].parts = Arc::new(parts);
            }
        }
    }
}

/// Adds a part to a list in which each has at least twice the groups of the next, so that it stays short and each group is
/// merged a few times at most.
pub(crate) fn push_part(parts: &mut Vec<Arc<RollupPart>>, part: Arc<RollupPart>, budget: &Arc<MemoryBudget>) {
    parts.push(part);
    while let [.., before, last] = &parts[..] {
        if before.groups() >= 2 * last.groups() {
            return;
        }
        let merged = merge(before, last, budget);
        [before, last].into_iter().for_each(|part| part.retire());
        parts.truncate(parts.len() - 2);
        parts.push(Arc::new(merged));
    }
}

fn merge(a: &RollupPart, b: &RollupPart, budget: &Arc<MemoryBudget>) -> RollupPart {
    let mut builder = PartBuilder::new(a.groups.shape());
    builder.absorb(a, &ALL);
    builder.absorb(b, &ALL);
    builder.finish(Some(budget)).expect("parts have groups")
}

fn slice(part: &RollupPart, buckets: &Range<i64>, budget: &Arc<MemoryBudget>) -> Option<Arc<RollupPart>> {
    let mut builder = PartBuilder::new(part.groups.shape());
    builder.absorb(part, buckets);
    builder.finish(Some(budget)).map(Arc::new)
}

const ALL: Range<i64> = i64::MIN..i64::MAX;
