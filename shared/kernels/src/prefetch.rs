//! Asking the processor for memory before it is looked at, so that many misses are waited for together.

/// Bytes of a line of the cache.
const LINE_BYTES: usize = 64;

/// Starts to load the cache line that holds item `at`. A hint: nothing happens beyond the end, or where there is no such
/// instruction.
#[inline]
pub fn prefetch<T>(items: &[T], at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(item) = items.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86_64, and the address is that of an item.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (items, at);
}

/// Starts to load items that lie together, as near as the second cache, so that they take no room from what is in the first.
#[inline]
pub fn prefetch_all<T>(items: &[T]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for item in items.iter().step_by((LINE_BYTES / size_of::<T>().max(1)).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86_64, and the address is that of an item.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = items;
}

/// Starts to load, into the second cache, what lies a chunk behind these items: a column's chunks lie one behind the other. A
/// loop that asks so while it waits for something else has its next chunk near. Behind the last chunk it asks for what nobody
/// needs, and nothing happens.
#[inline(always)]
pub(crate) fn prefetch_chunk_behind<T>(items: &[T]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..items.len()).step_by((LINE_BYTES / size_of::<T>().max(1)).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let behind = items.as_ptr().wrapping_add(at + crate::CHUNK_ROWS);
        // SAFETY: SSE is part of x86_64, and a hint about an address that is not there is none.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(behind.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = items;
}

/// Listed rows that are read between two hints about the chunk behind.
pub(crate) const LISTED_AT_ONCE: usize = 8;

/// Whether so many rows of a chunk's items, wherever they are, lie in about half of the lines of the cache or more. Then the next
/// chunk is better asked for as a whole, in order, than row by row when it is known which rows these are.
#[inline(always)]
fn is_most_lines<T>(items: usize, rows: usize) -> bool {
    rows * 2 * (LINE_BYTES / size_of::<T>().max(1)) >= items
}

/// Starts to load what lies a chunk behind a part of these items, if so many listed `rows` of them are in most lines: the
/// `n`-th of as many parts as it takes to read these rows, [`LISTED_AT_ONCE`] at a time.
#[inline(always)]
pub(crate) fn prefetch_part_behind<T>(items: &[T], rows: usize, n: usize) {
    if is_most_lines::<T>(items.len(), rows) {
        let part = items.len() * LISTED_AT_ONCE / rows.max(1) + 1;
        let first = (n * part).min(items.len());
        prefetch_chunk_behind(&items[first..(first + part).min(items.len())]);
    }
}

/// Starts to load the items of some rows of a chunk, unless these were asked for while the chunk before was read: see
/// [`prefetch_part_behind`].
#[inline]
pub fn prefetch_listed<T>(items: &[T], rows: &[u16]) {
    if !is_most_lines::<T>(items.len(), rows.len()) {
        rows.iter().for_each(|&row| prefetch(items, usize::from(row)));
    }
}
