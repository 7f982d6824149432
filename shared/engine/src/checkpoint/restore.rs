//! A partition of the pieces of its state.
//!
//! Rows are read in the order in which the memory budget would rather keep them: open segments, then sealed ones from the
//! newest times to the oldest, of all tables together. Where the budget has become smaller, those that it has no room for
//! are evicted without having been read: whoever knows all that share the budget says from which time on it has room
//! ([`Horizon`]), so that the oldest leave first, whichever partition they are in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use types::{Generation, Offset, PartitionId, TableId, TableKey, TenantId, Timestamp};

use super::{
    PieceKind, PieceName, RestoreError, RowsPart, SegmentState, TableState, Take, dictionary::decode_strings, rollup,
    table::ColumnState,
};
use crate::{
    IdRuns, Limits, MemoryBudget, Reader, Writer,
    dedup::Dedup,
    dictionary::{Dictionary, DictionaryWriter},
    gaps::Gaps,
    pool::Pool,
    rollup::{Folds, History, RollupState, Version, fold},
    segment::{Segment, SegmentLayout, SegmentWriter, Stored},
    sync::Arc,
    table::TableWriter,
    table_columns::TableColumns,
    view::{SegmentEntry, SegmentOrder},
};

/// Where the pieces of a state come from.
pub trait Pieces {
    /// What they are, by number.
    fn kinds(&self) -> &[PieceKind];

    /// Hands the parts of a piece to `take`, in order; an error of `take` ends it.
    ///
    /// # Errors
    /// That of `take`, or [`RestoreError::Source`]: a part cannot be read, or is not what was written.
    fn read(&mut self, piece: u32, take: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>)
    -> Result<(), RestoreError>;
}

/// A sealed segment that waits to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedRows {
    /// The greatest event time in it.
    pub time_max: Timestamp,
    /// Bytes that its rows will take.
    pub bytes: u64,
}

/// Told the sealed segments of a partition when all else of it is in memory; says from which `time_max` on they are to be
/// read. The others are evicted.
pub type Horizon<'a> = dyn FnMut(&[SealedRows]) -> Timestamp + 'a;

/// The least time such that segments of it and of later times fit into `room` bytes: the newest first, and all of one time or
/// none.
#[must_use]
pub fn newest_within(room: u64, mut sealed: Vec<SealedRows>) -> Timestamp {
    sealed.sort_unstable_by_key(|rows| Reverse(rows.time_max));
    let mut left = room;
    for rows in sealed {
        match left.checked_sub(rows.bytes) {
            Some(bytes) => left = bytes,
            None => return Timestamp(rows.time_max.0.saturating_add(1)),
        }
    }
    Timestamp::MIN
}

/// The [`Horizon`] of a partition that has the budget for itself.
pub fn horizon_alone(budget: &MemoryBudget) -> impl FnMut(&[SealedRows]) -> Timestamp + '_ {
    |sealed| newest_within(budget.room(), sealed.to_vec())
}

/// A restored partition, which [`Restored::into_partition`] starts.
pub struct Restored {
    pub(crate) partition: PartitionState,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) pool: Pool,
    pub(crate) tables: BTreeMap<TableKey, TableWriter>,
    names: Vec<(u32, PieceName)>,
}

/// What concerns no single table.
pub(crate) struct PartitionState {
    pub(crate) partition: PartitionId,
    pub(crate) next_offset: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) passed_over: u64,
    pub(crate) gaps: Gaps,
    pub(crate) dropped: Vec<((TenantId, TableId), Generation)>,
}

/// The parts of a table, put together.
pub(crate) struct RestoredTable {
    pub(crate) state: TableState,
    pub(crate) columns: TableColumns,
    /// By piece.
    dictionaries: BTreeMap<u32, Arc<Dictionary>>,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) open: BTreeMap<SegmentOrder, SegmentWriter>,
    pub(crate) rollups: Vec<RollupState>,
    pub(crate) dedup: Dedup,
}

/// Makes a partition of the pieces of a state; `runs` has the runs that the state refers to, and `horizon` says which sealed
/// segments there is room for.
///
/// # Errors
/// See [`RestoreError`]. Nothing of what was read stays in memory.
pub fn restore(
    partition: PartitionId,
    pieces: &mut dyn Pieces,
    limits: Limits,
    budget: &Arc<MemoryBudget>,
    runs: &mut dyn IdRuns,
    horizon: &mut Horizon<'_>,
) -> Result<Restored, RestoreError> {
    limits.check();
    // Its share of what all partitions may keep counts from now on.
    budget.publish_oldest(partition, None);
    let kinds = pieces.kinds().to_vec();
    let mut restorer = Restorer {
        pieces,
        kinds,
        limits,
        budget,
        pool: Pool::new(Arc::clone(budget)),
        used: BTreeSet::new(),
        names: Vec::new(),
    };
    let state = restorer.partition_state()?;
    if state.partition != partition {
        return Err(RestoreError::Malformed("it is another partition's"));
    }
    let mut tables = restorer.tables(runs)?;
    restorer.rows(&mut tables, state.next_offset, horizon)?;
    let Restorer { mut pool, names, .. } = restorer;
    let tables = tables.into_iter().map(|table| (table.state.key, TableWriter::restore(table, &mut pool))).collect();
    Ok(Restored { partition: state, limits, budget: Arc::clone(budget), pool, tables, names })
}

impl Restored {
    /// The offset of the record to apply next.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.partition.next_offset
    }

    /// The names that pieces have from now on, by number. Those that are missing were not read.
    #[must_use]
    pub fn names(&self) -> &[(u32, PieceName)] {
        &self.names
    }

    /// The partition, with the runs that it was restored with.
    #[must_use]
    pub fn into_partition(self, runs: Box<dyn IdRuns>) -> (Writer, Reader) {
        Writer::restored(self, runs)
    }
}

struct Restorer<'a> {
    pieces: &'a mut dyn Pieces,
    kinds: Vec<PieceKind>,
    limits: Limits,
    budget: &'a Arc<MemoryBudget>,
    pool: Pool,
    /// Pieces that were read: none belongs to two.
    used: BTreeSet<u32>,
    names: Vec<(u32, PieceName)>,
}

impl Restorer<'_> {
    /// Hands the parts of a piece of this kind to `take`.
    fn read(
        &mut self,
        piece: u32,
        kind: PieceKind,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        if self.kinds.get(piece as usize) != Some(&kind) || !self.used.insert(piece) {
            return Err(RestoreError::Malformed("a piece is missing, of another kind, or named twice"));
        }
        self.pieces.read(piece, take)
    }

    /// Hands a piece that has one part to `take`.
    fn read_whole<T>(
        &mut self,
        piece: u32,
        kind: PieceKind,
        mut take: impl FnMut(&[u8]) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        let mut value = None;
        self.read(piece, kind, &mut |bytes| {
            value = Some(take(bytes)?);
            Ok(())
        })?;
        value.ok_or(RestoreError::Malformed("a piece has no part"))
    }

    fn partition_state(&mut self) -> Result<PartitionState, RestoreError> {
        self.read_whole(0, PieceKind::Partition, |bytes| {
            let mut take = Take::new(bytes);
            let state = PartitionState {
                partition: PartitionId(take.u32()?),
                next_offset: Offset(take.u64()?),
                append_time: take.time()?,
                passed_over: take.u64()?,
                gaps: Gaps::decode(&mut take)?,
                dropped: take
                    .list(|take| Ok(((TenantId(take.u64()?), TableId(take.u64()?)), Generation(take.u32()?))))?,
            };
            take.end()?;
            Ok(state)
        })
    }

    /// All tables, but for their rows.
    fn tables(&mut self, runs: &mut dyn IdRuns) -> Result<Vec<RestoredTable>, RestoreError> {
        let (limits, budget) = (self.limits, self.budget);
        let mut tables = Vec::new();
        let mut keys = BTreeSet::new();
        for piece in 0..self.kinds.len() as u32 {
            if self.kinds[piece as usize] != PieceKind::Table {
                continue;
            }
            let (state, dedup) = self.read_whole(piece, PieceKind::Table, |bytes| {
                let mut take = Take::new(bytes);
                let state = TableState::decode(&mut take, limits)?;
                Ok((state, Dedup::restore(take.rest(), &mut *runs, budget)?))
            })?;
            if !keys.insert(state.key) {
                return Err(RestoreError::Malformed("a table comes twice"));
            }
            tables.push(self.table(state, dedup)?);
            give_up_history(&mut tables, budget);
        }
        Ok(tables)
    }

    /// A table with its strings, without its rows.
    fn table(&mut self, mut state: TableState, dedup: Dedup) -> Result<RestoredTable, RestoreError> {
        let mut writers = BTreeMap::new();
        for piece in state.dictionaries_named() {
            writers.insert(piece, self.dictionary(piece)?);
        }
        let dictionaries = writers.iter().map(|(piece, writer)| (*piece, Arc::clone(writer.shared()))).collect();
        // Each is in use for one column at most: what was taken is not there for another.
        let mut take = |piece| writers.remove(&piece).ok_or(RestoreError::Malformed("two columns have one dictionary"));
        let in_use = state.dictionaries.iter().map(|piece| piece.map(&mut take).transpose());
        let in_use = in_use.collect::<Result<_, _>>()?;
        let columns = TableColumns::restore(std::mem::take(&mut state.columns), in_use)?;
        let rollups = std::mem::take(&mut state.rollups).into_iter();
        let rollups = rollups.map(|state| self.rollup(state, columns.defs().len())).collect::<Result<_, _>>()?;
        Ok(RestoredTable { state, columns, dictionaries, segments: Vec::new(), open: BTreeMap::new(), rollups, dedup })
    }

    fn rollup(&mut self, state: rollup::RollupState, columns: usize) -> Result<RollupState, RestoreError> {
        let mut parts = Vec::with_capacity(state.parts.len());
        for &piece in &state.parts {
            let budget = self.budget;
            let part = self.read_whole(piece, PieceKind::Rollup, |bytes| {
                rollup::decode_part(bytes, &state.rollup, columns, budget)
            })?;
            self.names.push((piece, PieceName(part.id())));
            parts.push(Arc::new(part));
        }
        let history = History::of_parts(state.rollup.interval, parts)
            .ok_or(RestoreError::Malformed("parts of a rollup are out of place"))?;
        let rollup::RollupState { rollup, from, covered_from, revised, .. } = state;
        let version = Version { from, covered_from, history: Arc::new(history), revised, revision: 0 };
        Ok(RollupState::restored(rollup, version, self.budget))
    }

    fn dictionary(&mut self, piece: u32) -> Result<DictionaryWriter, RestoreError> {
        let mut writer = DictionaryWriter::new(self.limits.hash_seed, self.budget);
        self.read(piece, PieceKind::Dictionary, &mut |bytes| decode_strings(bytes, &mut writer))?;
        self.names.push((piece, PieceName(writer.shared().id())));
        Ok(writer)
    }

    /// Gives the tables their segments, as far as the budget goes; all rows come from records before `end`.
    fn rows(
        &mut self,
        tables: &mut [RestoredTable],
        end: Offset,
        horizon: &mut Horizon<'_>,
    ) -> Result<(), RestoreError> {
        let mut sealed = Vec::new();
        for (at, table) in tables.iter_mut().enumerate() {
            for segment in std::mem::take(&mut table.state.segments) {
                match &segment.sealed {
                    Some(stats) => {
                        let layout = table.layout(&segment);
                        let bytes = Segment::bytes_with(&layout, stats.runs.min(segment.rows));
                        sealed.push((SealedRows { time_max: stats.time_max, bytes }, at, segment));
                    }
                    None => self.segment(segment, table, end)?,
                }
            }
        }
        sealed.sort_by_key(|(rows, ..)| Reverse(rows.time_max));
        let from = horizon(&sealed.iter().map(|(rows, ..)| *rows).collect::<Vec<_>>());
        for (rows, at, segment) in sealed {
            let table = &mut tables[at];
            if rows.time_max >= from {
                self.segment(segment, table, end)?;
            } else {
                self.leave_out(segment, table, end)?;
                give_up_history(tables, self.budget);
            }
        }
        tables.iter_mut().for_each(|table| table.segments.sort_by_key(|entry| entry.order));
        Ok(())
    }

    /// Evicts a sealed segment.
    fn leave_out(&mut self, segment: SegmentState, table: &mut RestoredTable, end: Offset) -> Result<(), RestoreError> {
        let Some(sealed) = &segment.sealed else { return Ok(()) };
        table.state.leave_out(sealed);
        // Rollups that outlive rows have to see them leave.
        if table.rollups.iter().any(RollupState::keeps) {
            self.segment(segment, table, end)?;
            self.names.pop();
            table.keep_of_last(self.budget);
        }
        table.uncover();
        Ok(())
    }

    fn segment(&mut self, state: SegmentState, table: &mut RestoredTable, end: Offset) -> Result<(), RestoreError> {
        let layout = table.layout(&state);
        let slab = self.pool.slab(layout.words);
        let id = self.budget.next_id();
        let mut writer = SegmentWriter::new(Segment::new(id, layout, slab, self.budget));
        self.read(state.piece, PieceKind::Segment, &mut |bytes| {
            let part = RowsPart::decode(bytes)?;
            if part.runs.last().is_some_and(|run| run.offset >= end.0) {
                return Err(RestoreError::Malformed("rows are of a record that is still to come"));
            }
            writer.restore(&part)
        })?;
        if writer.rows() != state.rows {
            return Err(RestoreError::Malformed("a segment has another number of rows"));
        }
        self.names.push((state.piece, PieceName(id)));
        let (order, segment) = (state.order, Arc::clone(writer.shared()));
        if state.sealed.is_none() {
            table.open.insert(order, writer);
        }
        table.segments.push(SegmentEntry {
            order,
            segment,
            sealed: state.sealed.map(Arc::new),
            folds: Folds::default(),
        });
        Ok(())
    }
}

/// Lets go of the oldest that rollups keep while all of them keep more than their share, before rows are left out for it.
fn give_up_history(tables: &mut [RestoredTable], budget: &MemoryBudget) {
    let mut rollups: Vec<&mut RollupState> = tables.iter_mut().flat_map(|table| &mut table.rollups).collect();
    while budget.history_is_over(rollups.iter().map(|state| state.bytes()).sum()) {
        let Some(end) = rollups.iter().filter_map(|state| state.oldest_page()).min() else { return };
        for state in &mut rollups {
            state.drop_before(end);
        }
    }
}

impl RestoredTable {
    /// Takes the segment that was restored last out again, and gives the rollups what they keep of it.
    fn keep_of_last(&mut self, budget: &Arc<MemoryBudget>) {
        let Some(mut entry) = self.segments.pop() else { return };
        let end = entry.segment.origin(entry.segment.observe() - 1).0.next();
        for state in self.rollups.iter_mut().filter(|state| state.keeps()) {
            fold(state, self.columns.defs(), &mut entry, usize::MAX, budget);
            if let Some(folded) = entry.folds.of(state.view.id) {
                // Nobody waits for a record here.
                state.absorb(&folded.parts, end, false, &mut { usize::MAX }, budget);
            }
        }
    }

    /// Says that the other rollups lack the rows that were left out.
    fn uncover(&mut self) {
        let horizon = self.state.evicted_before;
        self.rollups.iter_mut().filter(|state| !state.keeps()).for_each(|state| state.uncover(horizon));
    }

    /// How a segment holds its rows.
    fn layout(&self, state: &SegmentState) -> SegmentLayout {
        SegmentLayout::new(
            state.capacity,
            state.times,
            state.columns.iter().map(|column| self.stored(*column)).collect(),
        )
    }

    /// How a segment holds a column; its place follows from the layout.
    fn stored(&self, column: ColumnState) -> Stored {
        match column {
            ColumnState::Absent => Stored::Absent,
            ColumnState::Values => Stored::Values { word: 0 },
            ColumnState::Decimals { width, scale } => Stored::Decimals { width, scale, word: 0 },
            ColumnState::Codes { width, dictionary } => {
                let dictionary = Arc::clone(&self.dictionaries[&dictionary]);
                Stored::Codes { width, dictionary, word: 0 }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: the newest segments are chosen as long as they fit, with nothing older than what does not, and all of one time
    /// or none.
    #[test]
    fn the_newest_fit_first() {
        let rows = |time_max, bytes| SealedRows { time_max: Timestamp(time_max), bytes };
        let all = vec![rows(30, 5), rows(10, 1), rows(20, 4), rows(20, 4), rows(40, 2)];
        let from = |room| newest_within(room, all.clone()).0;
        assert_eq!([from(1), from(2), from(7), from(11), from(14), from(15)], [41, 31, 21, 21, 21, 11]);
        assert_eq!([from(16), from(u64::MAX)], [Timestamp::MIN.0; 2]);
        assert_eq!(newest_within(0, Vec::new()), Timestamp::MIN);
    }
}
