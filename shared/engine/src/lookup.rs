//! From a string's hash to its code: one table for the writer and all readers of a dictionary.
//!
//! 1. A slot is a code with its hash, eight bytes, so that a chain is walked without a look at any string, and growing reads
//!    none.
//! 2. It only fills up. The writer stores a slot once; who publishes the codes publishes the slots.
//! 3. Whoever asks compares strings: equal hashes are candidates, no more.

use crate::{
    MemoryBudget,
    sync::{Arc, AtomicU64, Ordering},
};

/// Slots of the first table.
const FIRST_SLOTS: usize = if cfg!(loom) { 4 } else { 64 };

/// Codes by hash, open addressing with linear probing; 0 is free.
pub(crate) struct Lookup {
    slots: Box<[AtomicU64]>,
    budget: Arc<MemoryBudget>,
}

impl Lookup {
    /// An empty one.
    pub(crate) fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self::with_slots(FIRST_SLOTS, budget)
    }

    fn with_slots(slots: usize, budget: &Arc<MemoryBudget>) -> Self {
        budget.add((slots * size_of::<AtomicU64>()) as u64);
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), budget: Arc::clone(budget) }
    }

    /// A larger one with all that is here: every fourth one has twice as many slots.
    pub(crate) fn grown(&self) -> Self {
        let slots = self.slots.len();
        let grown = Self::with_slots(slots + (1 << slots.ilog2()) / 4, &self.budget);
        // Relaxed: the writer reads what it stored itself.
        let slots = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|slot| *slot != 0);
        slots.for_each(|slot| grown.store(slot));
        grown
    }

    /// Where a hash's chain begins.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> u32::BITS) as usize
    }

    /// The slot behind one.
    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Whether one with so many codes is too full for another: at four fifths a chain that ends nowhere has 13 slots, in two
    /// cache lines.
    pub(crate) fn is_full_with(&self, codes: usize) -> bool {
        codes * 5 >= self.slots.len() * 4
    }

    /// Enters a code, by the one writer.
    pub(crate) fn insert(&self, hash: u32, code: u32) {
        debug_assert_ne!(code, 0, "0 is free");
        self.store(u64::from(hash) << 32 | u64::from(code));
    }

    fn store(&self, slot: u64) {
        let mut at = self.home((slot >> 32) as u32);
        // Relaxed: only the writer stores slots, and the dictionary's `published` publishes them.
        while self.slots[at].load(Ordering::Relaxed) != 0 {
            at = self.after(at);
        }
        self.slots[at].store(slot, Ordering::Relaxed);
    }

    /// The first code with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at].load(Ordering::Relaxed);
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == hash && is_it(slot as u32) {
                return Some(slot as u32);
            }
            at = self.after(at);
        }
    }

    /// Asks for the cache line where a hash's chain begins.
    pub(crate) fn prefetch(&self, hash: u32) {
        kernels::prefetch(&self.slots, self.home(hash));
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        size_of_val(&*self.slots) as u64
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.budget.sub(self.bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: codes with one hash are all found, through growth, and what is not there is not.
    #[test]
    fn equal_hashes_share_a_chain() {
        let budget = Arc::new(MemoryBudget::new(0));
        let mut lookup = Lookup::new(&budget);
        // Ten codes a hash, spread so that chains begin at the last slots as well.
        let hash_of = |code: u32| (code / 10).wrapping_mul(0x9e37_79b1);
        for code in 1..=1_000_u32 {
            if lookup.is_full_with(code as usize) {
                lookup = lookup.grown();
            }
            lookup.insert(hash_of(code), code);
        }
        for code in 1..=1_000_u32 {
            assert_eq!(lookup.find(hash_of(code), |found| found == code), Some(code));
            assert_eq!(lookup.find(hash_of(code), |found| found == 1_001), None);
        }
        assert_eq!(lookup.find(u32::MAX, |_| true), None);
        assert_eq!(budget.used(), lookup.bytes());
        drop(lookup);
        assert_eq!(budget.used(), 0);
    }
}
