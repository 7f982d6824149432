//! Tests of the embedded log: the suite, and what it must withstand.

mod crash;
mod damage;
mod disk_full;
mod driven;
mod layout;
mod ledger;
mod overlap;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use types::Timestamp;

use super::{EmbeddedConfig, EmbeddedLog, OpenError};
use crate::{EventLog, faults::MemoryFiles};

const DIR: &str = "/log";
const SEGMENT_BYTES: u64 = 96 << 10;

crate::conformance!(suite_on_disk, {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open_on_disk(config(dir.path())).unwrap();
    (Arc::new(log) as Arc<dyn EventLog>, dir)
});

crate::conformance!(suite_in_memory, (Arc::new(open(&MemoryFiles::new(1)).unwrap()) as Arc<dyn EventLog>, ()));

crate::conformance!(suite_without_tail, {
    let config = EmbeddedConfig { tail_bytes_max: 0, index_bytes_max: 0, ..config(Path::new(DIR)) };
    let log = EmbeddedLog::open(config, Arc::new(MemoryFiles::new(1)), Arc::new(ticking_clock())).unwrap();
    (Arc::new(log) as Arc<dyn EventLog>, ())
});

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: SEGMENT_BYTES,
        queue_bytes_max: 4 << 20,
        overlap_bytes_min: 1_000,
        tail_bytes_max: 100 << 10,
        ..EmbeddedConfig::new(dir, 3)
    }
}

fn open(files: &MemoryFiles) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(config(Path::new(DIR)), Arc::new(files.clone()), Arc::new(ticking_clock()))
}

/// A clock that goes on at every look, and back now and then.
fn ticking_clock() -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let ticks = AtomicI64::new(1_000);
    move || {
        // Relaxed: a counter of its own that orders nothing else.
        let tick = ticks.fetch_add(1, Ordering::Relaxed);
        Timestamp(if tick % 7 == 0 { tick - 20 } else { tick })
    }
}
