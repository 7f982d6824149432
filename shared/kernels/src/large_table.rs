//! Zeroed tables that are touched in no order. A look at one of many MiB else misses the processor's cache of page addresses
//! as well as that of memory, so large ones lie on huge pages, where the system has them.
//!
//! They lie in mappings of their own. Advice for memory of the allocator stays with the addresses when that is freed: whatever
//! comes to lie there next is then zeroed by 2 MiB at its first byte.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ffi::c_void,
    fmt,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Bytes of a huge page, and the least that is worth one.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Tables begin at cache lines, which is enough for every [`Plain`] of up to one.
const LINE_BYTES: usize = 64;

/// What a table can be of: plain numbers.
///
/// # Safety
/// All bits 0 are a value of the type.
pub unsafe trait Plain: Copy {}

// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: a number.
unsafe impl Plain for u64 {}

/// A slice of numbers, all 0 at first, whose length does not change. The system zeroes a large one as it is first touched.
pub struct LargeTable<T: Plain> {
    /// Of `len` initialised elements, which nothing else points to.
    first: NonNull<T>,
    len: usize,
    /// Whether they are a mapping of their own, of [`mapped_bytes`], or else an allocation of [`layout`].
    mapped: bool,
}

// SAFETY: the table owns its elements as a boxed slice does, and those are plain numbers.
unsafe impl<T: Plain + Send> Send for LargeTable<T> {}
// SAFETY: a shared table gives shared references to its elements and nothing else.
unsafe impl<T: Plain + Sync> Sync for LargeTable<T> {}

impl<T: Plain> LargeTable<T> {
    /// A table of `len` times 0.
    ///
    /// # Panics
    /// As a vector does, where so many fit into no address space.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        if let Some(bytes) = mapped_bytes::<T>(len)
            && let Some(first) = map::<T>(len, bytes)
        {
            return Self { first, len, mapped: true };
        }
        let layout = layout::<T>(len);
        if layout.size() == 0 {
            return Self { first: NonNull::dangling(), len, mapped: false };
        }
        // SAFETY: the layout has a size.
        let start = unsafe { alloc(layout) };
        let Some(first) = NonNull::new(start.cast::<T>()) else { handle_alloc_error(layout) };
        // Written, and not only allocated as zeros: what is first touched by reading is given a page twice, once for all the
        // zeros that there are, and once where it is written.
        // SAFETY: as many elements were allocated, and all bits 0 are a value of each.
        unsafe { first.as_ptr().write_bytes(0, len) };
        Self { first, len, mapped: false }
    }
}

/// An allocation of `len` elements.
fn layout<T>(len: usize) -> Layout {
    let layout = Layout::array::<T>(len).and_then(|layout| layout.align_to(LINE_BYTES));
    layout.unwrap_or_else(|_| panic!("capacity overflow"))
}

/// Address space for `len` elements, whole huge pages of it, as else they would not begin where one can; `None` where they fill
/// none, or fit nowhere.
fn mapped_bytes<T>(len: usize) -> Option<usize> {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= HUGE_PAGE_BYTES)?;
    bytes.checked_next_multiple_of(HUGE_PAGE_BYTES)
}

/// A mapping of so many bytes, which are enough for `len` elements; `None` where the system gives none.
fn map<T: Plain>(len: usize, bytes: usize) -> Option<NonNull<T>> {
    // SAFETY: a new mapping at an address that the system chooses touches nothing that is there.
    let start =
        unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    let start = start.ok()?;
    // What is left behind the last whole one stays on small pages, and is not resident where it is not used.
    let whole = len * size_of::<T>() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    // A system without huge pages says so; small ones serve as well.
    // SAFETY: the range lies within the mapping, and the advice changes neither its content nor whether it can be used.
    let _advised = unsafe { madvise(start, whole, Advice::LinuxHugepage) };
    // Pages are zero, which is a value of every `Plain`, and aligned for any of up to a page.
    NonNull::new(start.cast())
}

impl<T: Plain> Drop for LargeTable<T> {
    fn drop(&mut self) {
        if !self.mapped {
            let layout = layout::<T>(self.len);
            if layout.size() > 0 {
                // SAFETY: `zeroed` allocated it with this layout.
                unsafe { dealloc(self.first.as_ptr().cast(), layout) };
            }
            return;
        }
        let bytes = mapped_bytes::<T>(self.len).expect("it was mapped with as many");
        // SAFETY: this mapping was made for the table, with as many bytes, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.first.as_ptr().cast::<c_void>(), bytes) };
        debug_assert_eq!(unmapped, Ok(()), "a mapping of our own");
    }
}

impl<T: Plain> Deref for LargeTable<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `first` points to `len` initialised elements that are the table's own, for as long as it lives.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for LargeTable<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the table is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T: Plain> Default for LargeTable<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Plain> Clone for LargeTable<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for LargeTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: tables of any size, mapped or not, are zero, hold what is written to their ends, and are copied whole.
    #[test]
    fn tables_hold_what_is_written() {
        for len in [0, 1, 1_000, HUGE_PAGE_BYTES / 8 - 1, HUGE_PAGE_BYTES / 8, HUGE_PAGE_BYTES / 8 * 3 + 5] {
            let mut table = LargeTable::<u64>::zeroed(len);
            assert_eq!((table.len(), table.mapped), (len, len * 8 >= HUGE_PAGE_BYTES));
            assert!(table.iter().all(|number| *number == 0));
            assert!(
                table.as_ptr().addr().is_multiple_of(LINE_BYTES) || len == 0,
                "a look at 64 bytes is one at one line"
            );
            if let [first, .., last] = &mut *table {
                (*first, *last) = (1, 2);
            }
            let copy = table.clone();
            assert_eq!(copy[..], table[..]);
            assert_eq!(copy.iter().sum::<u64>(), if len > 1 { 3 } else { 0 });
        }
    }

    /// Goal: a length whose bytes no number holds makes no small table that says it is long.
    #[test]
    #[should_panic(expected = "capacity overflow")]
    fn lengths_that_fit_nowhere_are_refused() {
        let _table = LargeTable::<u64>::zeroed(usize::MAX / 8 + 2 + HUGE_PAGE_BYTES);
    }

    /// Goal: bytes behind the last whole huge page are a table's as well.
    #[test]
    fn the_last_bytes_can_be_used() {
        let mut table = LargeTable::<u8>::zeroed(HUGE_PAGE_BYTES * 2 + 7);
        table.fill(7);
        assert!(table.iter().all(|byte| *byte == 7));
    }
}
