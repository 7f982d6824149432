//! The partition: a deterministic state machine over its part of the log, with one writer and any number of readers.
//!
//! 1. State changes only by applying records in offset order. The log's append time is the only clock.
//! 2. Rows lie in segments, by coarse slots of event time. A segment's writer fills columns beyond the published row
//!    count and publishes with one Release store; readers see a prefix that never changes. No lock anywhere.
//! 3. A snapshot is the state at exactly one offset, although writing goes on.
//! 4. What leaves memory (the oldest rows first) leaves together with the horizon that says so, and its memory is used
//!    again when the last reader has left.
//!
//! `docs/concurrency.md` lists every atomic with its partner and its test.

mod block;
mod budget;
mod checkpoint;
mod chunked;
mod columns;
mod dedup;
mod dictionary;
mod event_times;
mod gaps;
mod limits;
mod lookup;
#[cfg(all(test, loom))]
mod loom_models;
mod metric;
mod pool;
mod reader;
mod rollup;
mod seal;
mod segment;
mod slab;
mod slots;
mod snapshot;
mod sync;
mod table;
mod table_columns;
mod times;
mod usual;
mod view;
mod writer;

pub use budget::{Charge, MemoryBudget};
pub use checkpoint::{
    Capture, FORMAT, Horizon, Piece, PieceKind, PieceName, Pieces, RestoreError, Restored, SealedRows, horizon_alone,
    newest_within, restore,
};
pub use columns::{Codes, ColumnIndex};
pub use dedup::{FrozenIds, HeapRuns, IdRuns, PinnedRun, RunFault, RunId, RunSet, SetUsage};
pub use dictionary::DictionaryView;
pub use limits::Limits;
pub use metric::Metric;
pub use reader::{PartitionStatus, Reader, TableStatus};
pub use rollup::{DISTINCT_EXACT_MAX, DistinctCell, MetricCell, RollupPart};
pub use segment::{CHUNK_ROWS, Zone};
pub use snapshot::{RollupSnapshot, RollupVersion, SegmentId, SegmentView, TableSnapshot};
pub use times::Times;
pub use writer::{Applied, ApplyError, Writer, gap_of, partition, partition_with_runs};
