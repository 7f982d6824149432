//! The write side of a partition: records in, in offset order.

mod checkpoint;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use codec::{BlockHeader, BlockKind, BodyView};
use types::{GapReason, Generation, LogGap, Offset, PartitionId, Table, TableId, TableKey, TenantId, Timestamp};

use crate::{
    IdRuns, Limits, MemoryBudget, Reader, RunFault,
    dedup::HeapRuns,
    gaps::Gaps,
    pool::Pool,
    sync::{Arc, Ordering},
    table::{Means, TableWriter},
    view::{PartitionShared, Tables},
};

/// What a block became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Rows that are resident now.
    pub stored: u64,
    /// Rows that came too late to stay.
    pub evicted: u64,
    /// Rows whose identity had been applied before.
    pub duplicate: u64,
}

/// Why a record had no effect. All but [`ApplyError::Order`] and [`ApplyError::Ids`] pass the record over: it is counted and
/// becomes a gap of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Not the next record; nothing happened.
    #[error("record {got} came where {expected} is next")]
    Order {
        /// The next offset.
        expected: Offset,
        /// That of the record.
        got: Offset,
    },
    /// Made for another partition.
    #[error("the block is for partition {0}")]
    Partition(PartitionId),
    /// Not a block of events.
    #[error("the block holds no events")]
    Kind,
    /// Header and body contradict each other.
    #[error("the header counts {header} rows, the body {body}")]
    Rows {
        /// The header's count.
        header: u32,
        /// The body's.
        body: usize,
    },
    /// The table would have more columns than a table may.
    #[error("the table would have too many columns")]
    TooManyColumns,
    /// A code stands for no entry of the block's dictionary.
    #[error("a code is beyond its dictionary")]
    Code,
    /// Whether the rows were applied before cannot be told now. Nothing happened: the same record is still the next one.
    #[error(transparent)]
    Ids(#[from] RunFault),
}

/// The one writer of a partition. Not `Clone`; it may move between threads.
pub struct Writer {
    shared: Arc<PartitionShared>,
    next: Offset,
    append_time: Timestamp,
    /// In the order of their keys: what is done for all is done in the same order on every replica.
    tables: BTreeMap<TableKey, TableWriter>,
    /// By table: up to which life it was dropped.
    dropped: HashMap<(TenantId, TableId), Generation>,
    /// What the state lacks.
    gaps: Gaps,
    /// The table at which rollups had to stop taking rows: the next one is first.
    folded_last: Option<TableKey>,
    means: Means,
}

/// An empty partition whose first record will be that at `start`: its one writer, and a reader to clone.
///
/// # Panics
/// The limits contradict each other.
#[must_use]
pub fn partition(partition: PartitionId, start: Offset, limits: Limits, budget: Arc<MemoryBudget>) -> (Writer, Reader) {
    partition_with_runs(partition, start, limits, budget, Box::new(HeapRuns::default()))
}

/// As [`partition`], with a place for the ids that memory does not hold. `runs` is empty, and the partition's alone.
///
/// # Panics
/// The limits contradict each other.
#[must_use]
pub fn partition_with_runs(
    partition: PartitionId,
    start: Offset,
    limits: Limits,
    budget: Arc<MemoryBudget>,
    runs: Box<dyn IdRuns>,
) -> (Writer, Reader) {
    limits.check();
    let shared = Arc::new(PartitionShared::new(partition));
    shared.publish_applied(start, Timestamp::MIN);
    let pool = Pool::new(Arc::clone(&budget));
    let writer = Writer {
        shared: Arc::clone(&shared),
        next: start,
        append_time: Timestamp::MIN,
        tables: BTreeMap::new(),
        dropped: HashMap::new(),
        gaps: Gaps::default(),
        folded_last: None,
        means: Means::new(limits, budget, pool, runs),
    };
    (writer, Reader::new(shared))
}

impl Writer {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.shared.partition
    }

    /// The budget of its memory.
    #[must_use]
    pub fn budget(&self) -> &MemoryBudget {
        &self.means.budget
    }

    /// The offset of the record to apply next.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Applies a block of events; when this returns, readers see it.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &BodyView<'_>,
    ) -> Result<Applied, ApplyError> {
        self.begin(offset, append_time)?;
        self.make_room();
        let outcome = self.apply_events(offset, header, body);
        if matches!(outcome, Err(ApplyError::Ids(_))) {
            return outcome;
        }
        if outcome.is_err() {
            self.add_gap(gap_of(offset, header, GapReason::Inapplicable));
        }
        self.end(offset.next());
        outcome
    }

    fn apply_events(
        &mut self,
        offset: Offset,
        header: &BlockHeader,
        body: &BodyView<'_>,
    ) -> Result<Applied, ApplyError> {
        if header.partition != self.shared.partition {
            return Err(ApplyError::Partition(header.partition));
        }
        if header.kind != BlockKind::Events {
            return Err(ApplyError::Kind);
        }
        if header.rows as usize != body.rows() {
            return Err(ApplyError::Rows { header: header.rows, body: body.rows() });
        }
        if self.is_dropped(header.key) {
            self.count_passed_over();
            return Ok(Applied { stored: 0, evicted: 0, duplicate: 0 });
        }
        if !self.tables.contains_key(&header.key) {
            self.create(header.key);
        }
        let table = self.tables.get_mut(&header.key).expect("created above");
        table.judge(self.append_time, header, body, &mut self.means)?;
        table.apply(offset, self.append_time, body, &mut self.means)
    }

    /// Applies a control record that describes a table: creates it here, or changes its settings.
    ///
    /// # Errors
    /// [`ApplyError::Order`].
    pub fn configure(&mut self, offset: Offset, append_time: Timestamp, table: &Table) -> Result<(), ApplyError> {
        self.begin(offset, append_time)?;
        if self.is_dropped(table.key) {
            self.count_passed_over();
        } else {
            if !self.tables.contains_key(&table.key) {
                self.create(table.key);
            }
            self.tables.get_mut(&table.key).expect("created above").configure(table, self.append_time, &mut self.means);
        }
        self.end(offset.next());
        Ok(())
    }

    /// Applies a control record that ends a life of a table, and with it every earlier one.
    ///
    /// # Errors
    /// [`ApplyError::Order`].
    pub fn drop_table(&mut self, offset: Offset, append_time: Timestamp, key: TableKey) -> Result<(), ApplyError> {
        self.begin(offset, append_time)?;
        let until = self.dropped.entry((key.tenant, key.table)).or_insert(key.generation);
        *until = (*until).max(key.generation);
        let gone: Vec<TableKey> = self.tables.keys().copied().filter(|key| self.is_dropped(*key)).collect();
        let gone: Vec<TableWriter> = gone.iter().filter_map(|key| self.tables.remove(key)).collect();
        if !gone.is_empty() {
            // Readers to come do not find the tables; only then their segments are handed on.
            self.publish_tables();
            gone.into_iter().for_each(|table| table.retire_all(&mut self.means));
        }
        self.forget_gaps();
        self.end(offset.next());
        Ok(())
    }

    /// Applies a control record that says nothing but its append time.
    ///
    /// # Errors
    /// [`ApplyError::Order`].
    pub fn tick(&mut self, offset: Offset, append_time: Timestamp) -> Result<(), ApplyError> {
        self.begin(offset, append_time)?;
        self.end(offset.next());
        Ok(())
    }

    /// Goes on behind records that cannot be applied or read. `gap` begins with the next record.
    ///
    /// # Errors
    /// [`ApplyError::Order`].
    pub fn pass_over(&mut self, gap: LogGap, append_time: Timestamp) -> Result<(), ApplyError> {
        self.begin(gap.first, append_time)?;
        self.add_gap(gap);
        self.end(gap.end);
        Ok(())
    }

    /// The records that the state lacks, ascending; a bounded list, part of the state.
    #[must_use]
    pub fn gaps(&self) -> &[LogGap] {
        self.gaps.as_slice()
    }

    /// Work that waits for no record: hot windows, the memory budget, memory that readers have left. To be called often
    /// (every 50 ms), also while no record comes: another partition may wait for this one to evict.
    pub fn housekeep(&mut self) {
        self.means.work_left = self.means.limits.folded_rows_max;
        for table in self.tables.values_mut() {
            table.look_after_ids(self.append_time, &mut self.means);
            let due = table.hot_window_start().zip(table.oldest_evictable(self.append_time));
            if let Some((start, _)) = due.filter(|(start, oldest)| oldest < start) {
                table.evict_through(start.saturating_add(-1), self.append_time, &mut self.means);
            }
            table.tidy_rollups(self.next, self.append_time, &mut self.means);
        }
        self.fold_waiting();
        self.make_room();
        self.give_up_history();
        self.means.pool.reclaim();
        self.means.budget.publish_oldest(self.shared.partition, self.oldest().map(|(oldest, _)| oldest));
        let bytes = self.tables.values().map(TableWriter::bytes).sum();
        self.shared.bytes.store(bytes, Ordering::Relaxed);
        let unwritten = self.tables.values().map(TableWriter::unwritten_runs).sum::<usize>();
        self.shared.unwritten_runs.store(unwritten as u64, Ordering::Relaxed);
    }

    /// The append time from which on a record lets the next housekeeping free something: identities, and, while there is too
    /// little memory, slots that are still open. `None`: the time of records frees nothing.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let short = self.means.budget.excess() > 0;
        let tables = self.tables.values();
        let due = |table: &TableWriter| {
            let slot = if short { table.next_evictable_at(self.append_time) } else { None };
            table.ids_due_at().into_iter().chain(slot).min()
        };
        tables.filter_map(due).min()
    }

    /// Evicts while the budget is exceeded and this partition's oldest rows are the ones to go.
    fn make_room(&mut self) {
        while self.means.budget.excess() > 0 {
            // What histories have beyond their share leaves before rows do: these would only become more of it.
            self.give_up_history();
            if self.means.budget.excess() == 0 {
                return;
            }
            let oldest = self.oldest();
            self.means.budget.publish_oldest(self.shared.partition, oldest.map(|(oldest, _)| oldest));
            let Some((oldest, key)) = oldest else { return };
            if !self.means.budget.may_evict(self.shared.partition, oldest) {
                return;
            }
            let table = self.tables.get_mut(&key).expect("it was just found");
            if table.evict_through(oldest, self.append_time, &mut self.means) == 0 {
                // Trying again would find the same, or rollups have taken as much as they may now: rather over the budget
                // than here for ever.
                return;
            }
        }
    }

    /// Lets rollups take rows that wait: so many at once that no record waits long, and tables in turn.
    fn fold_waiting(&mut self) {
        let last = self.folded_last.map_or(Bound::Unbounded, Bound::Included);
        let behind = |last: TableKey| self.tables.range((Bound::Excluded(last), Bound::Unbounded));
        let first = self.folded_last.map(behind);
        // Each table once: what it has left to take now it is to have at the next round.
        let all = first.into_iter().flatten().chain(self.tables.range((Bound::Unbounded, last)));
        let all = all.filter(|(_, table)| table.has_rollups());
        let keys: Vec<TableKey> = all.map(|(key, _)| *key).collect();
        let mut left = self.means.limits.folded_rows_max;
        for key in keys {
            let table = self.tables.get_mut(&key).expect("it was just listed");
            left = table.fold_waiting(left, &mut self.means);
            if left == 0 {
                self.folded_last = Some(key);
                return;
            }
        }
        self.folded_last = None;
    }

    /// Lets go of the oldest that rollups keep, while all of them keep more than their share.
    fn give_up_history(&mut self) {
        loop {
            let bytes = self.tables.values().map(TableWriter::history_bytes).sum();
            if !self.means.budget.history_is_over(bytes) {
                return;
            }
            let tables = self.tables.iter().filter_map(|(key, table)| Some((table.oldest_history()?, *key)));
            let Some((end, key)) = tables.min() else { return };
            self.tables.get_mut(&key).expect("it was just found").drop_history(end, &mut self.means);
        }
    }

    /// The table with the oldest evictable rows, and their greatest event time; of several the first by key.
    fn oldest(&self) -> Option<(Timestamp, TableKey)> {
        let tables = self.tables.iter();
        tables.filter_map(|(key, table)| table.oldest_evictable(self.append_time).map(|oldest| (oldest, *key))).min()
    }

    fn begin(&mut self, offset: Offset, append_time: Timestamp) -> Result<(), ApplyError> {
        if offset != self.next {
            return Err(ApplyError::Order { expected: self.next, got: offset });
        }
        // The log's times do not fall; should they, the state's do not.
        self.append_time = self.append_time.max(append_time);
        self.means.work_left = self.means.limits.folded_rows_max;
        Ok(())
    }

    fn end(&mut self, next: Offset) {
        self.next = next;
        self.shared.publish_applied(self.next, self.append_time);
    }

    fn is_dropped(&self, key: TableKey) -> bool {
        self.dropped.get(&(key.tenant, key.table)).is_some_and(|until| key.generation <= *until)
    }

    fn create(&mut self, key: TableKey) {
        self.tables.insert(key, TableWriter::new(self.means.limits));
        self.publish_tables();
    }

    fn publish_tables(&self) {
        let tables = self.tables.iter().map(|(key, table)| (*key, Arc::clone(table.shared())));
        self.shared.tables.store(tables.collect::<Tables>());
    }

    fn count_passed_over(&self) {
        self.shared.passed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a gap, for readers to see together with the offset behind it. One of a table that is gone is none.
    fn add_gap(&mut self, gap: LogGap) {
        self.shared.passed_over.fetch_add(gap.end.0 - gap.first.0, Ordering::Relaxed);
        if !gap.table.is_some_and(|key| self.is_dropped(key)) {
            self.gaps.add(gap);
            self.publish_gaps();
        }
    }

    fn forget_gaps(&mut self) {
        let dropped = &self.dropped;
        let is_over = |gap: &LogGap| {
            let until = gap.table.map(|key| (key, dropped.get(&(key.tenant, key.table))));
            until.is_some_and(|(key, until)| until.is_some_and(|until| key.generation <= *until))
        };
        if self.gaps.forget(is_over) {
            self.publish_gaps();
        }
    }

    fn publish_gaps(&self) {
        self.shared.gaps.store(self.gaps.as_slice().to_vec());
    }
}

/// The gap that a record with a readable header leaves.
#[must_use]
pub fn gap_of(offset: Offset, header: &BlockHeader, reason: GapReason) -> LogGap {
    LogGap {
        first: offset,
        end: offset.next(),
        table: Some(header.key),
        times: Some((header.time_min, header.time_max)),
        reason,
    }
}
