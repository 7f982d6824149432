//! The read side of a partition: snapshots of tables at one offset, and how far everything is.

use types::{LogGap, Offset, PartitionId, TableKey, Timestamp};

use crate::{
    snapshot::TableSnapshot,
    sync::{Arc, Ordering, weakened},
    view::{PartitionShared, TableShared, TableView, time_or_none},
};

/// Tries to read counters that belong to one offset, before those of two are taken.
const STATUS_TRIES_MAX: usize = 8;

/// Tries to find the pasts of rollups at one offset, before what they keep of rows that have left is done without.
const PAST_TRIES_MAX: usize = 8;

/// Reads a partition while its writer goes on. Never waits, never makes the writer wait.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<PartitionShared>,
}

/// A partition's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the record to apply next.
    pub next_offset: Offset,
    /// Append time of the record applied last; `Timestamp::MIN` where there is none.
    pub append_time: Timestamp,
    /// Rows resident, of all tables.
    pub rows: u64,
    /// Accounted bytes of all tables, as of the last housekeeping.
    pub bytes: u64,
    /// Records that could not be read or applied, or were of a table that is gone.
    pub passed_over: u64,
    /// Runs of ids that could not be written and stay in memory until they can, as of the last housekeeping.
    pub unwritten_runs: u64,
}

/// What one table has in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the record to apply next.
    pub next_offset: Offset,
    /// The greatest event time seen, without times too far in the future; `None` where there was none.
    pub event_time_max: Option<Timestamp>,
    /// Append time of the record with the table's newest events; `None` where there was none.
    pub last_events_at: Option<Timestamp>,
    /// Rows resident.
    pub live: u64,
    /// Rows that left, or came too late to stay.
    pub evicted: u64,
    /// Rows that were left out, as their identity had been applied before. With `live` and `evicted` they are all rows that
    /// the table was sent here.
    pub duplicate: u64,
    /// Rows among `duplicate` whose content was another than the first one's.
    pub conflict: u64,
    /// Rows among `live` and `evicted` that came behind the watermark of their partition less the table's lateness.
    pub late: u64,
}

/// Tables as they were published, some of them unknown.
type Views = Vec<(TableKey, Option<Arc<TableView>>)>;

impl Reader {
    pub(crate) fn new(shared: Arc<PartitionShared>) -> Self {
        Self { shared }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.shared.partition
    }

    /// The offset of the record to apply next; every record before it is visible.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.shared.applied()
    }

    /// A table as it is at one offset, which is at least what [`Reader::next_offset`] gave before. `None` where the
    /// partition does not know the table. It pins memory for as long as it lives.
    #[must_use]
    pub fn snapshot(&self, key: TableKey) -> Option<TableSnapshot> {
        let mut views = Views::default();
        let next_offset = self.views(&[key], &mut views);
        let (key, view) = views.pop()?;
        Some(TableSnapshot::cut(key, next_offset, view?.as_ref()))
    }

    /// Several tables at one offset, in the order of `keys`: together they are the state there. As [`Reader::snapshot`].
    ///
    /// Where the writer changed pasts of rollups each time between the offset and one of the tables, their past is left out
    /// in the end ([`crate::RollupSnapshot::covered_from`]): nobody waits for a pause.
    #[must_use]
    pub fn snapshots(&self, keys: &[TableKey]) -> (Offset, Vec<Option<TableSnapshot>>) {
        let mut views = Views::default();
        let next_offset = self.views(keys, &mut views);
        (next_offset, cut(next_offset, &views))
    }

    /// Fills `views` with what each table is now, and gives an offset that all of them cover.
    ///
    /// All are loaded before any is looked at: what the writer does meanwhile is as little as can be.
    fn views(&self, keys: &[TableKey], views: &mut Views) -> Offset {
        let mut tries = 0;
        loop {
            // First the offset, then what it covers: whatever is loaded later holds at least all rows before it.
            let mut next_offset = self.shared.applied();
            self.load(keys, views);
            if weakened("offset-first") {
                next_offset = self.shared.applied();
            }
            tries += 1;
            if tries == PAST_TRIES_MAX || !self.is_outrun(next_offset, views) {
                return next_offset;
            }
        }
    }

    fn load(&self, keys: &[TableKey], views: &mut Views) {
        views.clear();
        let tables = self.shared.tables.load();
        views.extend(keys.iter().map(|key| (*key, tables.get(key).map(|table| table.view.load()))));
    }

    /// As [`Reader::snapshots`], but at an earlier offset: without the rows of the records from `next_offset` on. Rows that
    /// have left since are not there either, as the snapshots' horizons say. `None` where that offset is still to come.
    #[must_use]
    pub fn snapshots_at(&self, keys: &[TableKey], next_offset: Offset) -> Option<Vec<Option<TableSnapshot>>> {
        if next_offset > self.shared.applied() {
            return None;
        }
        let mut views = Views::default();
        self.load(keys, &mut views);
        Some(cut(next_offset, &views))
    }

    /// The tables that the partition knows, ascending.
    #[must_use]
    pub fn tables(&self) -> Vec<TableKey> {
        let mut keys: Vec<TableKey> = self.shared.tables.load().keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    /// The records that the state lacks, ascending. Asked after an offset or a snapshot was taken, it has all gaps before it
    /// that matter to it, and maybe some behind.
    #[must_use]
    pub fn gaps(&self) -> Arc<Vec<LogGap>> {
        self.shared.gaps.load()
    }

    /// How far the partition is.
    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        let next_offset = self.shared.applied();
        PartitionStatus {
            partition: self.shared.partition,
            next_offset,
            append_time: time_or_none(&self.shared.append_time).unwrap_or(Timestamp::MIN),
            rows: self.shared.tables.load().values().map(|table| live(table)).sum(),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            passed_over: self.shared.passed_over.load(Ordering::Relaxed),
            unwritten_runs: self.shared.unwritten_runs.load(Ordering::Relaxed),
        }
    }

    /// How far one table is in the partition; `None` where the partition does not know it.
    #[must_use]
    pub fn table_status(&self, key: TableKey) -> Option<TableStatus> {
        let table = self.table(key)?;
        let mut status = self.table_status_now(&table);
        for _ in 1..STATUS_TRIES_MAX {
            // Counters that were read between two equal offsets belong to it.
            if self.shared.applied() == status.next_offset {
                break;
            }
            status = self.table_status_now(&table);
        }
        Some(status)
    }

    fn table_status_now(&self, table: &TableShared) -> TableStatus {
        let next_offset = self.shared.applied();
        // `live + evicted` is `stored + refused` whatever `left` is, so a row that leaves meanwhile is counted once.
        let left = table.left.load(Ordering::Relaxed);
        let stored = table.stored.load(Ordering::Relaxed);
        TableStatus {
            partition: self.shared.partition,
            next_offset,
            event_time_max: time_or_none(&table.event_time_max),
            last_events_at: time_or_none(&table.last_events_at),
            live: stored.saturating_sub(left),
            evicted: left + table.refused.load(Ordering::Relaxed),
            duplicate: table.duplicate.load(Ordering::Relaxed),
            conflict: table.conflict.load(Ordering::Relaxed),
            late: table.late.load(Ordering::Relaxed),
        }
    }

    /// Whether the writer has gone so far since `next_offset` was loaded that the past of a rollup at that offset is not kept
    /// any more. Then a further try succeeds unless the writer does that again: each time it has applied a record.
    fn is_outrun(&self, next_offset: Offset, views: &Views) -> bool {
        let lacks = |view: &TableView| view.rollups.iter().any(|rollup| rollup.at(next_offset).is_none());
        views.iter().filter_map(|(_, view)| view.as_ref()).any(|view| lacks(view))
            && self.shared.applied() > next_offset
    }

    fn table(&self, key: TableKey) -> Option<Arc<TableShared>> {
        self.shared.tables.load().get(&key).cloned()
    }
}

fn cut(next_offset: Offset, views: &Views) -> Vec<Option<TableSnapshot>> {
    let cut =
        |(key, view): &(TableKey, Option<Arc<TableView>>)| Some(TableSnapshot::cut(*key, next_offset, view.as_ref()?));
    views.iter().map(cut).collect()
}

fn live(table: &TableShared) -> u64 {
    let left = table.left.load(Ordering::Relaxed);
    table.stored.load(Ordering::Relaxed).saturating_sub(left)
}
