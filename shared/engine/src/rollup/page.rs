//! The parts of a page of a history, and when they are merged or divided.
//!
//! Parts of a page are merged so that there are few of them, and so that a group takes memory once. A part has a bound all
//! the same: whoever merges, writes or reads one does so in one go, and other tables' records wait meanwhile. So where the
//! groups of a page are too many for one part, the page is divided by hash: each shard has the groups whose hashes begin with
//! the same bits.

use std::ops::{Range, RangeInclusive};

use super::{builder::PartBuilder, part::RollupPart};
use crate::{MemoryBudget, sync::Arc};

/// Bits of a hash; what they do not tell apart is not divided.
const HASH_BITS: u32 = u64::BITS;

/// How large parts become by merging, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) groups_max: usize,
    pub(super) bytes_max: u64,
}

impl Bounds {
    /// So a merge costs less than a housekeeping's folding does, and a checkpoint's buffer for a part is a few of its own.
    pub(super) const DEFAULT: Self = Self { groups_max: 32_768, bytes_max: 16 << 20 };

    /// Whether a part of so many groups and bytes is too large. One of two groups is as small as parts can be made.
    fn are_passed_by(self, size: Size) -> bool {
        size.groups > self.groups_max || size.bytes > self.bytes_max && size.groups > 2
    }
}

/// What a part has, or several: groups that two of them have count twice.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    groups: usize,
    bytes: u64,
}

impl Size {
    fn of(part: &RollupPart) -> Self {
        Self { groups: part.groups(), bytes: part.bytes() }
    }

    fn and(self, other: Self) -> Self {
        Self { groups: self.groups + other.groups, bytes: self.bytes + other.bytes }
    }
}

/// Names a shard of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageKey {
    /// The number of the page's first bucket, divided by the buckets of a page.
    pub(super) number: i64,
    /// The least hash that a group of the shard can have.
    pub(super) least: u64,
}

impl PageKey {
    /// The first shard of a page; there is one of each page that has parts.
    pub(super) fn first(number: i64) -> Self {
        Self { number, least: 0 }
    }

    /// All shards that a page can have.
    pub(super) fn all(number: i64) -> RangeInclusive<Self> {
        Self::first(number)..=Self { number, least: u64::MAX }
    }
}

/// A page, or a shard of one.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// So many first bits are those of all its groups' hashes.
    depth: u32,
    /// The older ones first.
    pub(super) parts: Arc<Vec<Arc<RollupPart>>>,
}

/// What a page's parts need.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Merge(Range<usize>),
    Divide,
}

impl Page {
    /// A page that is not divided.
    pub(super) fn whole(parts: Vec<Arc<RollupPart>>) -> Self {
        Self { depth: 0, parts: Arc::new(parts) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes()).sum()
    }

    /// This page with one part more.
    pub(super) fn with(&self, part: Arc<RollupPart>) -> Self {
        let mut parts = Vec::clone(&self.parts);
        parts.push(part);
        Self { depth: self.depth, parts: Arc::new(parts) }
    }

    /// Whether parts are to be merged or divided.
    pub(super) fn is_uneven(&self, bounds: Bounds) -> bool {
        self.due(bounds).is_some()
    }

    /// One step towards few parts that keep to their bounds: the pages that take the place of this one, and how many groups
    /// were looked at. `None`: nothing is due.
    pub(super) fn step(
        &self,
        key: PageKey,
        bounds: Bounds,
        budget: &Arc<MemoryBudget>,
    ) -> Option<(Vec<(PageKey, Self)>, usize)> {
        let (pages, gone) = match self.due(bounds)? {
            Step::Merge(range) => {
                let merged = merge(&self.parts[range.clone()], budget);
                let mut parts = Vec::clone(&self.parts);
                parts.splice(range.clone(), [Arc::new(merged)]);
                (vec![(key, Self { depth: self.depth, parts: Arc::new(parts) })], &self.parts[range])
            }
            Step::Divide => (self.halves(key, budget), &self.parts[..]),
        };
        let kept =
            |part: &&Arc<RollupPart>| pages.iter().all(|(_, page)| page.parts.iter().all(|p| !Arc::ptr_eq(p, part)));
        gone.iter().filter(kept).for_each(|part| part.retire());
        let groups = gone.iter().map(|part| part.groups()).sum();
        Some((pages, groups))
    }

    fn halves(&self, key: PageKey, budget: &Arc<MemoryBudget>) -> Vec<(PageKey, Self)> {
        let middle = middle(key, self.depth);
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for part in self.parts.iter() {
            let hashes = part.hashes(0..part.groups());
            let (of_low, of_high): (Vec<u32>, Vec<u32>) =
                (0..part.groups() as u32).partition(|at| hashes[*at as usize] < middle.least);
            low.extend(slice(part, &of_low, budget));
            high.extend(slice(part, &of_high, budget));
        }
        let page = |parts| Self { depth: self.depth + 1, parts: Arc::new(parts) };
        vec![(key, page(low)), (middle, page(high))]
    }

    /// Parts are due to be merged where one has less than twice the groups of the next, so each group is merged a few times
    /// at most; what would be too large is divided before. Groups with equal hashes stay apart, as they are.
    fn due(&self, bounds: Bounds) -> Option<Step> {
        let sizes: Vec<Size> = self.parts.iter().map(|part| Size::of(part)).collect();
        let may_divide = self.depth < HASH_BITS;
        if may_divide && sizes.iter().any(|size| bounds.are_passed_by(*size)) {
            return Some(Step::Divide);
        }
        for at in (1..sizes.len()).rev() {
            if sizes[at - 1].groups >= 2 * sizes[at].groups {
                continue;
            }
            let (mut first, mut size) = (at - 1, sizes[at - 1].and(sizes[at]));
            if !bounds.are_passed_by(size) {
                // As many at once as are due then: one by one, a list of small ones would be merged again and again.
                while first > 0 && sizes[first - 1].groups < 2 * size.groups {
                    let more = size.and(sizes[first - 1]);
                    if bounds.are_passed_by(more) {
                        break;
                    }
                    (first, size) = (first - 1, more);
                }
                return Some(Step::Merge(first..at + 1));
            }
            if may_divide {
                return Some(Step::Divide);
            }
        }
        None
    }
}

/// The second half of a shard that so many bits are the same in.
fn middle(key: PageKey, depth: u32) -> PageKey {
    PageKey { least: key.least | 1 << (HASH_BITS - 1 - depth), ..key }
}

/// Parts of a page that were read back, each in the narrowest shard that is worth while.
pub(super) fn sharded(number: i64, parts: Vec<Arc<RollupPart>>, bounds: Bounds) -> Vec<(PageKey, Page)> {
    let hashed = parts.into_iter().map(|part| {
        let hashes = part.hashes(0..part.groups());
        let (least, greatest) = hashes.iter().fold((u64::MAX, 0), |(a, b), hash| (a.min(*hash), b.max(*hash)));
        (part, least..=greatest)
    });
    let mut pages = Vec::new();
    let mut waiting = vec![(PageKey::first(number), 0, hashed.collect::<Vec<_>>())];
    while let Some((key, depth, parts)) = waiting.pop() {
        let size = parts.iter().fold(Size::default(), |size, (part, _)| size.and(Size::of(part)));
        let divides =
            |middle: PageKey| !parts.iter().any(|(_, h)| *h.start() < middle.least && *h.end() >= middle.least);
        if bounds.are_passed_by(size) && depth < HASH_BITS && divides(middle(key, depth)) {
            let middle = middle(key, depth);
            let (low, high) = parts.into_iter().partition(|(_, hashes)| *hashes.end() < middle.least);
            waiting.extend([(key, depth + 1, low), (middle, depth + 1, high)]);
        } else {
            let parts = parts.into_iter().map(|(part, _)| part).collect();
            pages.push((key, Page { depth, parts: Arc::new(parts) }));
        }
    }
    pages
}

/// Adds a part of a segment's rows to those before it, and merges what is due. A segment's rows bound what that takes.
pub(super) fn push_part(parts: &mut Vec<Arc<RollupPart>>, part: Arc<RollupPart>, budget: &Arc<MemoryBudget>) {
    parts.push(part);
    // Nothing is divided here: where a merge would pass the bounds there is none.
    let mut page = Page { depth: HASH_BITS, parts: Arc::new(std::mem::take(parts)) };
    while let Some((pages, _)) = page.step(PageKey::first(0), Bounds::DEFAULT, budget) {
        page = pages.into_iter().next().expect("a merge leaves one page").1;
    }
    parts.extend_from_slice(&page.parts);
}

fn merge(parts: &[Arc<RollupPart>], budget: &Arc<MemoryBudget>) -> RollupPart {
    let mut builder = PartBuilder::new(parts[0].groups.shape());
    parts.iter().for_each(|part| builder.absorb(part, &(0..part.groups() as u32).collect::<Vec<_>>()));
    builder.finish(Some(budget)).expect("parts have groups")
}

/// These groups of a part, ascending; `None` of no group.
pub(super) fn slice(part: &Arc<RollupPart>, groups: &[u32], budget: &Arc<MemoryBudget>) -> Option<Arc<RollupPart>> {
    if groups.len() == part.groups() {
        return Some(Arc::clone(part));
    }
    let mut builder = PartBuilder::new(part.groups.shape());
    builder.absorb(part, groups);
    builder.finish(Some(budget)).map(Arc::new)
}
