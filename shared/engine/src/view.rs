//! What a partition's writer publishes and its readers load.
//!
//! 1. `applied` is stored with Release after all rows of a record are published, and loaded first by readers.
//! 2. A table's columns, segment list and eviction horizon are one value, replaced as a whole: no reader sees rows gone
//!    without the horizon that says so.
//! 3. Counters are Relaxed: each is stored by the writer alone, and what must add up is derived from monotone ones.

use std::collections::HashMap;

use types::{ColumnDef, LogGap, Offset, PartitionId, TableKey, Timestamp};

use crate::{
    rollup::{Folds, RollupView},
    segment::Segment,
    sync::{APPLIED_OBSERVE, APPLIED_PUBLISH, Arc, AtomicI64, AtomicU64, Ordering, Published},
};

/// Where a segment stands among those of its table: slots by their start, then stragglers; then as they were created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentOrder {
    /// Start of its slot; `Timestamp::MAX` for stragglers.
    pub(crate) slot_start: Timestamp,
    /// Rises with each segment of the table.
    pub(crate) sequence: u64,
}

/// What is known of a segment that gets no more rows.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) rows: usize,
    pub(crate) runs: usize,
    pub(crate) last_offset: Offset,
    pub(crate) time_max: Timestamp,
    /// By column: least and greatest value, `None` for what has none.
    pub(crate) metric_ranges: Box<[Option<(f64, f64)>]>,
}

/// A segment in a table's list.
#[derive(Debug, Clone)]
pub(crate) struct SegmentEntry {
    pub(crate) order: SegmentOrder,
    pub(crate) segment: Arc<Segment>,
    pub(crate) sealed: Option<Arc<Sealed>>,
    /// What rollups have of it.
    pub(crate) folds: Folds,
}

/// A table in one partition, as of one moment.
#[derive(Debug)]
pub(crate) struct TableView {
    pub(crate) columns: Arc<Vec<ColumnDef>>,
    /// Ascending by order.
    pub(crate) segments: Vec<SegmentEntry>,
    /// Rows with event times before this may have left.
    pub(crate) evicted_before: Option<Timestamp>,
    /// In the order declared.
    pub(crate) rollups: Vec<RollupView>,
}

/// A table in one partition, shared by its writer and its readers.
#[derive(Debug)]
pub(crate) struct TableShared {
    pub(crate) view: Published<TableView>,
    /// Rows that were stored, ever.
    pub(crate) stored: AtomicU64,
    /// Rows among them that have left.
    pub(crate) left: AtomicU64,
    /// Rows that came too late to be stored.
    pub(crate) refused: AtomicU64,
    /// Rows that were left out, as their identity had been applied before.
    pub(crate) duplicate: AtomicU64,
    /// Rows among them whose content was another.
    pub(crate) conflict: AtomicU64,
    /// Rows, stored or not, that came behind the watermark.
    pub(crate) late: AtomicU64,
    /// `i64::MIN` where there was none.
    pub(crate) event_time_max: AtomicI64,
    /// `i64::MIN` where there was none.
    pub(crate) last_events_at: AtomicI64,
}

impl TableShared {
    pub(crate) fn new(columns: Arc<Vec<ColumnDef>>) -> Self {
        Self {
            view: Published::new(TableView {
                columns,
                segments: Vec::new(),
                evicted_before: None,
                rollups: Vec::new(),
            }),
            stored: AtomicU64::new(0),
            left: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            conflict: AtomicU64::new(0),
            late: AtomicU64::new(0),
            event_time_max: AtomicI64::new(i64::MIN),
            last_events_at: AtomicI64::new(i64::MIN),
        }
    }
}

pub(crate) type Tables = HashMap<TableKey, Arc<TableShared>>;

/// A partition, shared by its writer and its readers.
#[derive(Debug)]
pub(crate) struct PartitionShared {
    pub(crate) partition: PartitionId,
    pub(crate) tables: Published<Tables>,
    /// Published before the offset behind them, so that who sees an offset sees all gaps before it.
    pub(crate) gaps: Published<Vec<LogGap>>,
    applied: AtomicU64,
    /// `i64::MIN` where there is none.
    pub(crate) append_time: AtomicI64,
    /// Bytes of the tables, as of the last housekeeping.
    pub(crate) bytes: AtomicU64,
    /// Records that were passed over.
    pub(crate) passed_over: AtomicU64,
    /// Runs of ids that could not be written, as of the last housekeeping.
    pub(crate) unwritten_runs: AtomicU64,
}

impl PartitionShared {
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            tables: Published::new(Tables::new()),
            gaps: Published::new(Vec::new()),
            applied: AtomicU64::new(0),
            append_time: AtomicI64::new(i64::MIN),
            bytes: AtomicU64::new(0),
            passed_over: AtomicU64::new(0),
            unwritten_runs: AtomicU64::new(0),
        }
    }

    /// Every record before `next` is published.
    pub(crate) fn publish_applied(&self, next: Offset, append_time: Timestamp) {
        self.append_time.store(append_time.0, Ordering::Relaxed);
        // Publishes all that the record did; pairs with `PartitionShared::applied`.
        self.applied.store(next.0, APPLIED_PUBLISH);
    }

    /// The offset after the last record whose rows are all visible to the caller.
    pub(crate) fn applied(&self) -> Offset {
        Offset(self.applied.load(APPLIED_OBSERVE))
    }
}

/// A time that is `i64::MIN` where there is none.
pub(crate) fn time_or_none(time: &AtomicI64) -> Option<Timestamp> {
    let time = time.load(Ordering::Relaxed);
    (time != i64::MIN).then_some(Timestamp(time))
}
