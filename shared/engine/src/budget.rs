//! One memory budget for all partitions of a node.
//!
//! 1. Whoever allocates adds to `used` and whoever frees subtracts, whatever the thread: rows, dictionaries, runs, pools, what is
//!    remembered of identities, rollups.
//! 2. What has left the tables but is still pinned by readers counts in `used` and in `retired`. It is already paid for:
//!    evicting more would free none of it, so eviction looks at `used - retired`.
//! 3. A small share of the limit is for buffers that wait to be used again (`pooled`), so that the steady state frees and
//!    allocates nothing.
//! 4. Each partition's writer publishes the event time of the oldest thing that it could evict. Only the owner of the
//!    oldest evicts, so that the oldest rows of the node leave first; see [`MemoryBudget::may_evict`].

use crossbeam_utils::CachePadded;
use types::{PartitionId, Timestamp};

use crate::sync::{Arc, AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Partitions that one budget can serve.
const PARTITIONS_MAX: usize = if cfg!(loom) { 2 } else { types::limits::PARTITIONS_MAX as usize };
/// Above `limit + limit / OVERDRAFT_SHARE` every partition evicts, also one that does not own the oldest: the owner may be
/// behind, and memory comes before order.
const OVERDRAFT_SHARE: u64 = 16;
/// Above `limit + limit / EXHAUSTED_SHARE` nothing more should come in; beyond the overdraft, which passes by itself.
const EXHAUSTED_SHARE: u64 = 8;
/// This share of the limit is for buffers that wait to be used again.
const RESERVE_SHARE: u64 = 32;
/// This share of the limit is for tables of newest ids; beyond it they become sorted runs earlier.
const RECENT_IDS_SHARE: u64 = 8;
/// This share of the limit is for all that is remembered of identities: tables, filters, what is needed to find runs.
const IDENTITIES_SHARE: u64 = 2;
/// This share of the limit is for what rollups keep of rows that have left.
const HISTORY_SHARE: u64 = 4;
/// Times that lie this close count as equally old.
const OLDEST_TOLERANCE_US: i64 = 60_000_000;

/// The memory that all partitions of a node share, in bytes.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    used: CachePadded<AtomicU64>,
    retired: CachePadded<AtomicU64>,
    pooled: CachePadded<AtomicU64>,
    /// The part of `used` in tables of newest ids.
    recent_ids: CachePadded<AtomicU64>,
    /// The part of `used` that is remembered of identities, tables of newest ids included.
    identities: CachePadded<AtomicU64>,
    /// The part of `used` in histories of rollups.
    history: CachePadded<AtomicU64>,
    /// Source of ids that are unique among all that the budget covers.
    ids: AtomicU64,
    /// By partition: event time of its oldest evictable rows, `i64::MAX` where there are none.
    oldest: Box<[CachePadded<AtomicI64>]>,
    /// One more than the greatest partition that ever published.
    partitions: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: CachePadded::new(AtomicU64::new(0)),
            retired: CachePadded::new(AtomicU64::new(0)),
            pooled: CachePadded::new(AtomicU64::new(0)),
            recent_ids: CachePadded::new(AtomicU64::new(0)),
            identities: CachePadded::new(AtomicU64::new(0)),
            history: CachePadded::new(AtomicU64::new(0)),
            ids: AtomicU64::new(1),
            oldest: (0..PARTITIONS_MAX).map(|_| CachePadded::new(AtomicI64::new(i64::MAX))).collect(),
            partitions: AtomicUsize::new(0),
        }
    }

    /// The limit, bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes allocated: rows, rollups, runs, dictionaries and their indexes, pooled buffers, and what readers still pin.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The part of [`MemoryBudget::used`] that has left the tables and waits for readers to leave.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether so much more than the limit is used that making room does not keep up: nothing more can leave, or readers hold
    /// on to what has left.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.used() > self.limit + self.limit / EXHAUSTED_SHARE
    }

    /// Bytes that eviction has to free; 0 where none. What is retired or pooled is not resident any more.
    pub(crate) fn excess(&self) -> u64 {
        let gone = self.retired() + self.pooled.load(Ordering::Relaxed);
        self.used().saturating_sub(gone).saturating_sub(self.limit - self.reserve())
    }

    /// Bytes that may still become resident before eviction begins.
    #[must_use]
    pub fn room(&self) -> u64 {
        let gone = self.retired() + self.pooled.load(Ordering::Relaxed);
        (self.limit - self.reserve()).saturating_sub(self.used().saturating_sub(gone))
    }

    /// The part of the limit that pools may fill, so that memory is used again and not freed and allocated.
    fn reserve(&self) -> u64 {
        self.limit / RESERVE_SHARE
    }

    /// Takes room in the pools' share for a buffer; `false` where there is none.
    pub(crate) fn pool(&self, bytes: u64) -> bool {
        if self.pooled.load(Ordering::Relaxed) + bytes > self.reserve() {
            return false;
        }
        // Two writers may pass the check together: the share is then exceeded by one buffer.
        self.pooled.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    pub(crate) fn unpool(&self, bytes: u64) {
        self.pooled.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        // Relaxed: a count that publishes nothing else.
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn retire(&self, bytes: u64) {
        self.retired.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn reclaim(&self, bytes: u64) {
        self.retired.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The part of [`MemoryBudget::used`] that is remembered of the identities of events, bytes.
    #[must_use]
    pub fn identities(&self) -> u64 {
        self.identities.load(Ordering::Relaxed)
    }

    /// Whether the identities take more than the half of the limit that is theirs. Rows leave for them, but no id is
    /// forgotten before its window is over: events with ids are to be refused until some are.
    #[must_use]
    pub fn ids_over_share(&self) -> bool {
        self.identities() > self.limit / IDENTITIES_SHARE
    }

    /// Whether tables of newest ids may grow by so many bytes. Two writers may pass together: the share is a measure for
    /// who spills, and not a bound that memory depends on.
    pub(crate) fn has_room_for_recent_ids(&self, bytes: u64) -> bool {
        self.recent_ids.load(Ordering::Relaxed) + bytes <= self.limit / RECENT_IDS_SHARE
    }

    /// The part of [`MemoryBudget::used`] that rollups keep of rows that have left, bytes.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Whether histories of rollups take more than their share of the limit, and a partition that has so many bytes of them
    /// is one of those to give way: at least one is.
    pub(crate) fn history_is_over(&self, of_partition: u64) -> bool {
        let share = self.limit / HISTORY_SHARE;
        let partitions = self.partitions.load(Ordering::Relaxed).max(1) as u64;
        self.history() > share && of_partition >= share / partitions
    }

    /// An id that nothing else under this budget has.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Says what a partition could evict next.
    pub(crate) fn publish_oldest(&self, partition: PartitionId, oldest: Option<Timestamp>) {
        let index = partition.0 as usize;
        // Relaxed: a hint for the choice among partitions; nothing is read on the strength of it.
        self.oldest[index].store(oldest.map_or(i64::MAX, |time| time.0), Ordering::Relaxed);
        self.partitions.fetch_max(index + 1, Ordering::Relaxed);
    }

    /// Whether `partition` is the one to evict: its oldest rows are the oldest of the node or close to them, or so much
    /// is used that order no longer counts.
    pub(crate) fn may_evict(&self, partition: PartitionId, oldest: Timestamp) -> bool {
        if self.excess() > self.limit / OVERDRAFT_SHARE {
            return true;
        }
        let published = self.partitions.load(Ordering::Relaxed);
        let others = self.oldest[..published].iter().enumerate().filter(|(index, _)| *index != partition.0 as usize);
        let oldest_elsewhere = others.map(|(_, time)| time.load(Ordering::Relaxed)).min().unwrap_or(i64::MAX);
        oldest.0 <= oldest_elsewhere.saturating_add(OLDEST_TOLERANCE_US)
    }
}

/// Bytes that are used for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Charge {
    /// Of so many bytes.
    #[must_use]
    pub fn new(budget: &Arc<MemoryBudget>, bytes: u64) -> Self {
        budget.add(bytes);
        Self { budget: Arc::clone(budget), bytes }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it so many bytes.
    pub fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.budget.add(bytes);
            self.budget.sub(self.bytes);
            self.bytes = bytes;
        }
    }
}

/// Bytes that are used for as long as this lives, and may be retired before that: readers hold on to what has left.
#[derive(Debug)]
pub(crate) struct RetiringCharge {
    charge: Charge,
    retired: AtomicBool,
}

impl RetiringCharge {
    pub(crate) fn new(budget: &Arc<MemoryBudget>, bytes: u64) -> Self {
        Self { charge: Charge::new(budget, bytes), retired: AtomicBool::new(false) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.charge.bytes
    }

    /// The writer has no more use for it.
    pub(crate) fn retire(&self) {
        // Relaxed: the writer alone retires, and whoever drops the last of it sees that by the count of owners.
        if !self.retired.swap(true, Ordering::Relaxed) {
            self.charge.budget.retire(self.charge.bytes);
        }
    }
}

impl Drop for RetiringCharge {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            self.charge.budget.reclaim(self.charge.bytes);
        }
    }
}

/// Bytes that a table remembers of identities, for as long as this lives.
#[derive(Debug)]
pub(crate) struct IdentityCharge {
    all: Charge,
    /// The part in tables of newest ids.
    recent: u64,
}

impl IdentityCharge {
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { all: Charge::new(budget, 0), recent: 0 }
    }

    /// Makes it `all` bytes, `recent` of them in tables of newest ids.
    pub(crate) fn set(&mut self, all: u64, recent: u64) {
        let budget = &self.all.budget;
        if all != self.all.bytes {
            budget.identities.fetch_add(all, Ordering::Relaxed);
            budget.identities.fetch_sub(self.all.bytes, Ordering::Relaxed);
        }
        if recent != self.recent {
            budget.recent_ids.fetch_add(recent, Ordering::Relaxed);
            budget.recent_ids.fetch_sub(self.recent, Ordering::Relaxed);
            self.recent = recent;
        }
        self.all.set(all);
    }
}

/// Bytes of a rollup's history, for as long as this lives. Its parts are charged by themselves: this says whose they are.
#[derive(Debug)]
pub(crate) struct HistoryCharge {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl HistoryCharge {
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it so many bytes.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.budget.history.fetch_add(bytes, Ordering::Relaxed);
        self.budget.history.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for HistoryCharge {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Drop for IdentityCharge {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.sub(self.bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: the partition with the oldest rows evicts, the others wait, until far too much is used.
    #[test]
    fn the_oldest_leave_first() {
        let budget = MemoryBudget::new(1_600);
        let (old, new) = (Timestamp(0), Timestamp(10 * OLDEST_TOLERANCE_US));
        budget.publish_oldest(PartitionId(0), Some(old));
        budget.publish_oldest(PartitionId(1), Some(new));
        budget.add(1_650);
        assert_eq!(budget.excess(), 100, "a share of the limit is for pools");
        assert!(budget.may_evict(PartitionId(0), old));
        assert!(!budget.may_evict(PartitionId(1), new));
        assert!(budget.may_evict(PartitionId(1), Timestamp(OLDEST_TOLERANCE_US)));
        budget.publish_oldest(PartitionId(0), None);
        assert!(budget.may_evict(PartitionId(1), new));
        budget.publish_oldest(PartitionId(0), Some(old));
        budget.add(60);
        assert!(budget.may_evict(PartitionId(1), new), "beyond the overdraft nobody waits");
    }

    /// Goal: identities beyond half of the limit are said to be so until they are fewer, whatever else is used.
    #[test]
    fn identities_have_half() {
        let budget = Arc::new(MemoryBudget::new(1_000));
        budget.add(5_000);
        let (mut one, mut other) = (IdentityCharge::new(&budget), IdentityCharge::new(&budget));
        one.set(300, 100);
        other.set(200, 200);
        assert!(!budget.ids_over_share());
        other.set(201, 0);
        assert!(budget.ids_over_share());
        assert_eq!((budget.identities(), budget.used()), (501, 5_501));
        drop(one);
        assert!(!budget.ids_over_share());
        drop(other);
        assert_eq!((budget.identities(), budget.used(), budget.recent_ids.load(Ordering::Relaxed)), (0, 5_000, 0));
    }

    /// Goal: memory that readers pin is counted, and does not call for more eviction.
    #[test]
    fn pinned_memory_is_counted_once() {
        let budget = MemoryBudget::new(100);
        budget.add(150);
        budget.retire(60);
        assert_eq!((budget.used(), budget.retired(), budget.excess()), (150, 60, 0));
        assert!(budget.is_exhausted(), "whoever holds it, it is held");
        budget.reclaim(60);
        budget.sub(60);
        assert_eq!((budget.used(), budget.excess()), (90, 0));
        assert!(!budget.is_exhausted());
    }
}
