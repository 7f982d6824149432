//! Every atomic, cell and shared pointer of the engine comes from here, so that loom can take their place.
//!
//! 1. A normal build uses the standard library and `arc-swap`. Under `cfg(loom)` the same names are loom's.
//! 2. Bulk memory (columns, strings) is plain memory behind raw pointers, which loom cannot watch. A [`Witness`] stands
//!    beside it: in a loom build one watched cell per item, else nothing.
//! 3. The orderings that carry a protocol have names here. A loom build with `ENGINE_WEAKEN=<name>` weakens that one,
//!    and `scripts/check-loom.sh` shows that a model then fails.

use std::ops::Range;

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
};

/// Publishes a segment's rows, with their codes, zones and runs; partner: [`ROWS_OBSERVE`].
pub(crate) const ROWS_PUBLISH: Ordering = release("rows-publish");
/// Sees all of what was stored before the row count.
pub(crate) const ROWS_OBSERVE: Ordering = acquire("rows-observe");
/// Publishes a segment's runs; partner: [`RUNS_OBSERVE`].
pub(crate) const RUNS_PUBLISH: Ordering = release("runs-publish");
/// Sees the runs below the run count, also those of rows that are not published yet.
pub(crate) const RUNS_OBSERVE: Ordering = acquire("runs-observe");
/// Publishes the strings of a dictionary and its lookup; partner: [`ENTRIES_OBSERVE`].
pub(crate) const ENTRIES_PUBLISH: Ordering = release("entries-publish");
/// Sees the strings below the entry count.
pub(crate) const ENTRIES_OBSERVE: Ordering = acquire("entries-observe");
/// Publishes that all rows of all records before an offset are published; partner: [`APPLIED_OBSERVE`].
pub(crate) const APPLIED_PUBLISH: Ordering = release("applied-publish");
/// Sees every row of every record before the offset.
pub(crate) const APPLIED_OBSERVE: Ordering = acquire("applied-observe");

const fn release(name: &str) -> Ordering {
    if weakened(name) { Ordering::Relaxed } else { Ordering::Release }
}

const fn acquire(name: &str) -> Ordering {
    if weakened(name) { Ordering::Relaxed } else { Ordering::Acquire }
}

/// Whether this is the loom build that is to show that `name` is needed.
pub(crate) const fn weakened(name: &str) -> bool {
    if !cfg!(loom) {
        return false;
    }
    match option_env!("ENGINE_WEAKEN") {
        Some(chosen) => same_bytes(chosen.as_bytes(), name.as_bytes()),
        None => false,
    }
}

/// `==` of byte strings, which the standard library does not offer in constants.
const fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A value that the writer replaces as a whole while readers hold older ones.
///
/// The exchange itself is `arc-swap`'s, which has its own proofs; a loom build has a mutex around an `Arc` in its place.
#[derive(Debug)]
pub(crate) struct Published<T> {
    #[cfg(not(loom))]
    current: arc_swap::ArcSwap<T>,
    #[cfg(loom)]
    current: loom::sync::Mutex<Arc<T>>,
}

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self {
            #[cfg(not(loom))]
            current: arc_swap::ArcSwap::new(value),
            #[cfg(loom)]
            current: loom::sync::Mutex::new(value),
        }
    }

    /// The value of now; it stays as it is for as long as it is held.
    pub(crate) fn load(&self) -> Arc<T> {
        #[cfg(not(loom))]
        return self.current.load_full();
        #[cfg(loom)]
        return self.current.lock().expect("no writer panics in here").clone();
    }

    /// Replaces the value for readers to come.
    pub(crate) fn store(&self, value: T) {
        #[cfg(not(loom))]
        self.current.store(Arc::new(value));
        #[cfg(loom)]
        {
            let old = std::mem::replace(&mut *self.current.lock().expect("no reader panics in here"), Arc::new(value));
            drop(old);
        }
    }
}

/// A value with one owner. In a loom build it can be made to have two, so that a model can look for the consequences.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    #[cfg(not(loom))]
    value: T,
    #[cfg(loom)]
    value: std::sync::Arc<T>,
}

impl<T> Owned<T> {
    #[cfg(not(loom))]
    pub(crate) fn new(value: T) -> Self {
        Self { value }
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Self {
        Self { value: std::sync::Arc::new(value) }
    }

    #[cfg(loom)]
    pub(crate) fn alias(&self) -> Self {
        Self { value: std::sync::Arc::clone(&self.value) }
    }
}

impl<T> std::ops::Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Tells loom who touches which items of a piece of plain memory. Nothing in a normal build.
#[derive(Debug)]
pub(crate) struct Witness {
    #[cfg(loom)]
    cells: Box<[loom::cell::UnsafeCell<()>]>,
}

#[cfg(not(loom))]
impl Witness {
    pub(crate) fn new(_items: usize) -> Self {
        Self {}
    }

    pub(crate) fn read(&self, _items: Range<usize>) {}

    pub(crate) fn write(&self, _items: Range<usize>) {}
}

#[cfg(loom)]
impl Witness {
    pub(crate) fn new(items: usize) -> Self {
        Self { cells: (0..items).map(|_| loom::cell::UnsafeCell::new(())).collect() }
    }

    pub(crate) fn read(&self, items: Range<usize>) {
        self.cells[items].iter().for_each(|cell| cell.with(|_| ()));
    }

    pub(crate) fn write(&self, items: Range<usize>) {
        self.cells[items].iter().for_each(|cell| cell.with_mut(|_| ()));
    }
}
