//! What a partition makes this node do, counted since it was opened: for who evens it out between nodes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// See the module. Relaxed: figures, of which only the difference between two looks counts.
#[derive(Debug, Default)]
pub(crate) struct Work {
    events: AtomicU64,
    scan_us: AtomicU64,
}

impl Work {
    /// Events were applied, duplicates among them.
    pub(crate) fn note_events(&self, events: u64) {
        self.events.fetch_add(events, Relaxed);
    }

    /// A scan took this much of the partition.
    pub(crate) fn note_scan(&self, time: Duration) {
        self.scan_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    pub(crate) fn scan_us(&self) -> u64 {
        self.scan_us.load(Relaxed)
    }
}
