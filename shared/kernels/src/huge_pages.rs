//! Asking the system for large pages under memory that is touched in no order: a look at a filter or table of many MiB else
//! misses the processor's cache of page addresses as well.

use std::ffi::c_void;

/// Bytes of a huge page, and the least that is worth one.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Asks for huge pages under `items`, as far as these fill some. A hint, to be given before the memory is first touched:
/// nothing else changes, and where the system has no huge pages, nothing at all.
pub fn advise_huge_pages<T>(items: &mut [T]) {
    let range = items.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(HUGE_PAGE_BYTES);
    let end = range.end.addr() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if start >= end {
        return;
    }
    let first = range.start.with_addr(start).cast::<c_void>();
    // A system without huge pages says so; small ones serve as well.
    // SAFETY: the pages from `start` to `end` lie within `items`, which is borrowed for long enough, and the advice changes
    // neither their content nor whether they can be used.
    let _advised = unsafe { rustix::mm::madvise(first, end - start, rustix::mm::Advice::LinuxHugepage) };
}
