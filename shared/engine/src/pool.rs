//! What has left the tables: segments that readers may still hold, then their memory, kept for the next segments.
//!
//! 1. A segment is retired after the list without it is published. Readers that hold an older list keep it alive.
//! 2. Its slab is taken only when the retired `Arc` is the last one, so no reader can reach it.
//! 3. Free slabs are bounded by number and by the budget's share for them; beyond that they are freed.

use crate::{MemoryBudget, segment::Segment, slab::Slab, sync::Arc};

/// Free slabs that a partition keeps.
const FREE_SLABS_MAX: usize = 2;

/// A segment that left, and its bytes as they were counted.
struct Retired {
    segment: Arc<Segment>,
    bytes: u64,
}

/// The retired segments and free slabs of one partition.
pub(crate) struct Pool {
    retired: Vec<Retired>,
    free: Vec<Slab>,
    budget: Arc<MemoryBudget>,
}

impl Pool {
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { retired: Vec::new(), free: Vec::new(), budget }
    }

    /// Takes over a segment that is in no published list any more. Returns its bytes.
    pub(crate) fn retire(&mut self, segment: Arc<Segment>) -> u64 {
        let bytes = segment.bytes();
        self.budget.retire(bytes);
        self.retired.push(Retired { segment, bytes });
        bytes
    }

    /// Takes back a segment that was in no list.
    pub(crate) fn take_back(&mut self, segment: Arc<Segment>) {
        if let Ok(slab) = Segment::into_slab(segment) {
            self.keep(slab);
        }
    }

    /// Makes free slabs of the retired segments that no reader holds any more.
    pub(crate) fn reclaim(&mut self) {
        for retired in std::mem::take(&mut self.retired) {
            match Segment::into_slab(retired.segment) {
                Ok(slab) => {
                    self.budget.reclaim(retired.bytes);
                    self.keep(slab);
                }
                Err(segment) => self.retired.push(Retired { segment, ..retired }),
            }
        }
    }

    fn keep(&mut self, slab: Slab) {
        if self.free.len() == FREE_SLABS_MAX {
            let oldest = self.free.remove(0);
            self.budget.unpool(oldest.bytes());
        }
        if self.budget.pool(slab.bytes()) {
            self.free.push(slab);
        }
    }

    /// A slab of `words`, which is a class: a free one, or a new one.
    pub(crate) fn slab(&mut self, words: usize) -> Slab {
        if let Some(slab) = self.take(words) {
            return slab;
        }
        self.reclaim();
        self.take(words).unwrap_or_else(|| Slab::new(words, &self.budget))
    }

    fn take(&mut self, words: usize) -> Option<Slab> {
        let at = self.free.iter().position(|slab| slab.words() == words)?;
        let slab = self.free.swap_remove(at);
        self.budget.unpool(slab.bytes());
        Some(slab)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.retired.iter().for_each(|retired| self.budget.reclaim(retired.bytes));
        self.free.iter().for_each(|slab| self.budget.unpool(slab.bytes()));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::slab::LINE_WORDS;

    /// Goal: the pool gives back what fits, keeps few, drops the oldest, and stays within its share of the budget.
    #[test]
    fn pools_are_bounded() {
        let budget = Arc::new(MemoryBudget::new(32 * 4_096));
        let mut pool = Pool::new(Arc::clone(&budget));
        (1..=FREE_SLABS_MAX + 1).for_each(|lines| pool.keep(Slab::new(lines * LINE_WORDS, &budget)));
        assert!(pool.take(LINE_WORDS).is_none());
        let reused = pool.take(2 * LINE_WORDS).expect("kept");
        assert_eq!((reused.words(), pool.free.len()), (2 * LINE_WORDS, FREE_SLABS_MAX - 1));
        pool.keep(Slab::new(Slab::class(512), &budget));
        assert!(pool.take(Slab::class(512)).is_none(), "beyond the share");
        drop((pool, reused));
        assert_eq!(budget.used(), 0);
        assert!(budget.pool(4_096), "the share is free again");
    }
}
