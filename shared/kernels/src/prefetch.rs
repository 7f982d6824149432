//! Asking the processor for memory before it is looked at, so that many misses are waited for together.

/// Bytes of a line of the cache.
#[cfg(all(target_arch = "x86_64", not(miri)))]
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

/// Starts to load the items of some rows.
#[inline]
pub fn prefetch_listed<T>(items: &[T], rows: &[u16]) {
    rows.iter().for_each(|&row| prefetch(items, usize::from(row)));
}
