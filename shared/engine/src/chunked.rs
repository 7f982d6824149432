//! Append-only memory that never moves: chunks that double after every fourth one, so that at most a fifth of it is not in use
//! yet; one writer, many readers, no lock.
//!
//! 1. Only the writer allocates chunks and writes items; it writes an item once, before it publishes it.
//! 2. This file publishes nothing. Its owner keeps a count, stores it with Release after the items, and readers read only
//!    items below a count that they loaded with Acquire. That orders the chunk pointers too, so those are Relaxed.
//! 3. A published item never moves or changes until the whole is dropped.

use std::{cell::UnsafeCell, ops::Range, ptr};

use crate::{
    MemoryBudget,
    sync::{Arc, AtomicPtr, Ordering, Witness},
};

/// Chunks that there can be; with the first of one item this is enough for 2^32 items.
pub(crate) const CHUNKS_MAX: usize = 128;
/// Log2 of the chunks of one size.
const ALIKE_LOG2: u32 = 2;

struct Chunk<T> {
    items: Box<[UnsafeCell<T>]>,
    witness: Witness,
}

/// Items at indices that stay valid; chunks `4k` to `4k + 3` have `2^(first_log2 + k)` of them each.
pub(crate) struct Chunked<T> {
    first_log2: u32,
    chunks: Box<[AtomicPtr<Chunk<T>>]>,
    budget: Arc<MemoryBudget>,
}

// SAFETY: readers only read published items, which never change (rule 3), so sharing needs what `&T` needs.
unsafe impl<T: Send + Sync> Sync for Chunked<T> {}
// SAFETY: the chunks are owned; moving the owner moves them.
unsafe impl<T: Send> Send for Chunked<T> {}

impl<T: Copy + Default> Chunked<T> {
    /// Nothing yet; the first chunk will have `2^first_log2` items and there will be at most `items_max`.
    pub(crate) fn new(first_log2: u32, items_max: usize, budget: Arc<MemoryBudget>) -> Self {
        let chunks = Self::chunks(first_log2, items_max);
        assert!(chunks <= CHUNKS_MAX, "{items_max} items do not fit");
        budget.add(Self::pointer_bytes(chunks));
        Self { first_log2, chunks: (0..chunks).map(|_| AtomicPtr::new(ptr::null_mut())).collect(), budget }
    }

    /// What [`Chunked::bytes`] says of one with so many items that was made for `items_max`, where the first chunk has `2^first_log2`.
    pub(crate) fn bytes_with(first_log2: u32, items: usize, items_max: usize) -> u64 {
        let used = items.checked_sub(1).map_or(0, |last| place(first_log2, last).0 + 1);
        let chunks = (0..used).map(|number| Self::chunk_bytes(items_of(first_log2, number))).sum::<u64>();
        chunks + Self::pointer_bytes(Self::chunks(first_log2, items_max))
    }

    /// Chunks that there are at most.
    fn chunks(first_log2: u32, items_max: usize) -> usize {
        place(first_log2, items_max.max(1) - 1).0 + 1
    }

    /// How many items lie together from `index` on.
    pub(crate) fn room_at(&self, index: usize) -> usize {
        let (number, at) = place(self.first_log2, index);
        items_of(self.first_log2, number) - at
    }

    /// Writes items that lie together at `index`.
    ///
    /// # Safety
    /// Called by the one writer, and no item of the range was published before.
    pub(crate) unsafe fn write(&self, index: usize, items: &[T]) {
        if items.is_empty() {
            return;
        }
        let (number, at) = place(self.first_log2, index);
        assert!(items.len() <= self.room_at(index), "items must lie in one chunk");
        let chunk = self.chunk_for_writing(number);
        chunk.witness.write(at..at + items.len());
        let target = UnsafeCell::raw_get(chunk.items[at..at + items.len()].as_ptr());
        // SAFETY: in bounds by the slice above; unpublished items are the writer's alone (the caller's promise).
        unsafe { ptr::copy_nonoverlapping(items.as_ptr(), target, items.len()) };
    }

    /// Items that lie together.
    ///
    /// # Safety
    /// All of them are below a count that the owner published and the caller observed.
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        if range.is_empty() {
            return &[];
        }
        let (number, at) = place(self.first_log2, range.start);
        assert!(range.len() <= self.room_at(range.start), "items must lie in one chunk");
        // Relaxed: the observed count orders this pointer (rule 2).
        let chunk = self.chunks[number].load(Ordering::Relaxed);
        // SAFETY: a published item's chunk was stored before the count, and chunks live as long as `self`.
        let chunk = unsafe { &*chunk };
        chunk.witness.read(at..at + range.len());
        let items = UnsafeCell::raw_get(chunk.items[at..at + range.len()].as_ptr());
        // SAFETY: in bounds by the slice above; published items never change (rule 3).
        unsafe { std::slice::from_raw_parts(items, range.len()) }
    }

    /// One item; see [`Chunked::slice`].
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn get(&self, index: usize) -> T {
        // SAFETY: passed on to the caller.
        let items = unsafe { self.slice(index..index + 1) };
        items[0]
    }

    /// Asks for the cache line of an item that was written.
    pub(crate) fn prefetch(&self, index: usize) {
        let (number, at) = place(self.first_log2, index);
        // Relaxed: as for every item, the count that the caller knows it by orders the pointer.
        let chunk = self.chunks[number].load(Ordering::Relaxed);
        // SAFETY: null, or a chunk that is freed only when `self` is dropped.
        if let Some(chunk) = unsafe { chunk.as_ref() } {
            kernels::prefetch(&chunk.items, at);
        }
    }

    fn chunk_for_writing(&self, number: usize) -> &Chunk<T> {
        // Relaxed: only the writer stores these pointers, and it is the one who reads here.
        let mut chunk = self.chunks[number].load(Ordering::Relaxed);
        if chunk.is_null() {
            let items = items_of(self.first_log2, number);
            self.budget.add(Self::chunk_bytes(items));
            let new = Chunk {
                items: (0..items).map(|_| UnsafeCell::new(T::default())).collect(),
                witness: Witness::new(items),
            };
            chunk = Box::into_raw(Box::new(new));
            self.chunks[number].store(chunk, Ordering::Relaxed);
        }
        // SAFETY: not null, and freed only when `self` is dropped.
        unsafe { &*chunk }
    }

    fn pointer_bytes(chunks: usize) -> u64 {
        (chunks * size_of::<AtomicPtr<Chunk<T>>>()) as u64
    }

    fn chunk_bytes(items: usize) -> u64 {
        (items * size_of::<T>() + size_of::<Chunk<T>>()) as u64
    }

    /// Bytes of all chunks, and of the places where they are noted.
    pub(crate) fn bytes(&self) -> u64 {
        let used = self.chunks.iter().enumerate().filter(|(_, chunk)| !chunk.load(Ordering::Relaxed).is_null());
        let chunks = used.map(|(number, _)| Self::chunk_bytes(items_of(self.first_log2, number))).sum::<u64>();
        chunks + Self::pointer_bytes(self.chunks.len())
    }
}

/// Chunk and place in it of an index.
fn place(first_log2: u32, index: usize) -> (usize, usize) {
    let biased = index + (1 << (first_log2 + ALIKE_LOG2));
    let log2 = biased.ilog2() - ALIKE_LOG2;
    let behind = biased - (1 << (log2 + ALIKE_LOG2));
    (((log2 - first_log2) << ALIKE_LOG2) as usize + (behind >> log2), behind & ((1 << log2) - 1))
}

/// Items of a chunk.
fn items_of(first_log2: u32, number: usize) -> usize {
    1 << (first_log2 as usize + (number >> ALIKE_LOG2))
}

impl<T> Drop for Chunked<T> {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            let chunk = chunk.load(Ordering::Relaxed);
            if chunk.is_null() {
                continue;
            }
            // SAFETY: made by `Box::into_raw` and stored once; nobody else is left, as `self` is being dropped.
            let chunk = unsafe { Box::from_raw(chunk) };
            self.budget.sub((chunk.items.len() * size_of::<T>() + size_of::<Chunk<T>>()) as u64);
        }
        self.budget.sub((self.chunks.len() * size_of::<AtomicPtr<Chunk<T>>>()) as u64);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: every index keeps its item through all growth, and the budget gets back what it gave.
    #[test]
    fn items_stay_where_they_are() {
        let budget = Arc::new(MemoryBudget::new(0));
        let chunked = Chunked::<u32>::new(2, 1_000, Arc::clone(&budget));
        for index in 0..1_000_usize {
            // SAFETY: this thread is the writer, and each index is written once.
            unsafe { chunked.write(index, &[index as u32]) };
        }
        // SAFETY: written above by this thread.
        assert!((0..1_000).all(|index| unsafe { chunked.get(index) } == index as u32));
        assert_eq!((chunked.room_at(0), chunked.room_at(12), chunked.room_at(16), chunked.room_at(47)), (4, 4, 8, 1));
        assert_eq!(budget.used(), chunked.bytes());
        assert_eq!(budget.used(), Chunked::<u32>::bytes_with(2, 1_000, 1_000));
        drop(chunked);
        assert_eq!(budget.used(), 0);
    }
}
