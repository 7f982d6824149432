//! The memory of a segment: one allocation of words, in which each column has its place.
//!
//! 1. A slab is initialised from its first moment (zeros, later what its last user left), so any prefix may be read.
//! 2. It hands out slices of disjoint ranges: the writer's beyond the published rows, the readers' below. Who may have
//!    which is the segment's rule, not this file's.
//! 3. Sizes are classes (32 per doubling), so that a slab fits the next segment of the same kind.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use crate::{
    MemoryBudget,
    budget::Charge,
    sync::{Arc, Owned, Witness},
};

/// Columns start at cache lines.
pub(crate) const LINE_WORDS: usize = 8;
const WORD_BYTES: usize = size_of::<u64>();

/// Items that a slab can hold: plain numbers no larger or stricter in alignment than its words.
///
/// # Safety
/// Every bit pattern is a value, and size and alignment are at most those of `u64`.
pub(crate) unsafe trait Item: Copy {}
// SAFETY: a plain number.
unsafe impl Item for u8 {}
// SAFETY: a plain number.
unsafe impl Item for u16 {}
// SAFETY: a plain number.
unsafe impl Item for u32 {}
// SAFETY: a plain number.
unsafe impl Item for u64 {}
// SAFETY: a plain number.
unsafe impl Item for i64 {}
// SAFETY: a plain number.
unsafe impl Item for f64 {}

/// An allocation of words, charged to the budget until it is dropped.
pub(crate) struct Slab {
    memory: Owned<Memory>,
}

struct Memory {
    words: NonNull<u64>,
    count: usize,
    /// By row; it travels with the memory, so that loom sees a reader left behind when the slab is used again.
    witness: Witness,
    charge: Charge,
}

// SAFETY: plain memory that is owned; sharing it safely is the promise of whoever calls the unsafe methods.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Slab {
    /// The size class that holds `words`.
    pub(crate) fn class(words: usize) -> usize {
        let step = (words.next_power_of_two() / 64).max(LINE_WORDS);
        words.max(1).next_multiple_of(step)
    }

    /// A slab of zeros; `words` is a class.
    pub(crate) fn new(words: usize, budget: &Arc<MemoryBudget>) -> Self {
        let layout = Self::layout(words);
        // SAFETY: the layout's size is not zero, as classes are not.
        let start = unsafe { alloc_zeroed(layout) };
        #[expect(clippy::cast_ptr_alignment, reason = "the layout is aligned to cache lines")]
        let Some(words_start) = NonNull::new(start.cast::<u64>()) else { handle_alloc_error(layout) };
        let charge = Charge::new(budget, layout.size() as u64);
        let witness = Witness::new(if cfg!(loom) { words } else { 0 });
        Self { memory: Owned::new(Memory { words: words_start, count: words, witness, charge }) }
    }

    /// The same memory once more: the fault that a model of reclaiming has to find.
    #[cfg(loom)]
    pub(crate) fn alias(&self) -> Self {
        Self { memory: self.memory.alias() }
    }

    fn layout(words: usize) -> Layout {
        assert!(words > 0, "a slab has a size");
        Layout::from_size_align(words * WORD_BYTES, LINE_WORDS * WORD_BYTES).expect("far below the address space")
    }

    /// Its size in words.
    pub(crate) fn words(&self) -> usize {
        self.memory.count
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.charge.bytes()
    }

    /// Who touches which rows.
    pub(crate) fn witness(&self) -> &Witness {
        &self.memory.witness
    }

    fn start_of<T: Item>(&self, word: usize, end: usize) -> *mut T {
        assert!(word * WORD_BYTES + end * size_of::<T>() <= self.memory.count * WORD_BYTES, "beyond the slab");
        // SAFETY: within the allocation, as asserted.
        unsafe { self.memory.words.as_ptr().add(word) }.cast::<T>()
    }

    /// Items `from..to` of the column that starts at `word`.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives.
    pub(crate) unsafe fn items<T: Item>(&self, word: usize, from: usize, to: usize) -> &[T] {
        let start = self.start_of::<T>(word, to);
        debug_assert!(from <= to);
        // SAFETY: in bounds and initialised; not written meanwhile by the caller's promise.
        unsafe { std::slice::from_raw_parts(start.wrapping_add(from), to - from) }
    }

    /// The same for writing.
    ///
    /// # Safety
    /// Nobody else reads or writes them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the writer's part of memory that readers share")]
    pub(crate) unsafe fn items_mut<T: Item>(&self, word: usize, from: usize, to: usize) -> &mut [T] {
        let start = self.start_of::<T>(word, to);
        debug_assert!(from <= to);
        // SAFETY: in bounds and initialised; the caller has them alone.
        unsafe { std::slice::from_raw_parts_mut(start.wrapping_add(from), to - from) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and dropped once.
        unsafe { dealloc(self.words.as_ptr().cast(), Slab::layout(self.count)) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: a class wastes at most a 32nd beyond a line, is a class itself, and its memory is charged.
    #[test]
    fn classes_are_close_and_stable() {
        for words in 1..5_000 {
            let class = Slab::class(words);
            assert!(class >= words && class <= words + words / 32 + LINE_WORDS, "{words} -> {class}");
            assert_eq!(Slab::class(class), class);
            assert_eq!(class % LINE_WORDS, 0);
        }
        let budget = Arc::new(MemoryBudget::new(0));
        let slab = Slab::new(Slab::class(100), &budget);
        assert_eq!(budget.used(), slab.bytes());
        // SAFETY: nobody else has the slab.
        assert!(unsafe { slab.items::<u16>(8, 0, 40) }.iter().all(|item| *item == 0));
        drop(slab);
        assert_eq!(budget.used(), 0);
    }
}
