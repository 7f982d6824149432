//! What a table is, but for its rows and strings, as bytes. What it remembers of identities comes last, in a form of its own.

use std::collections::BTreeSet;

use kernels::Scale;
use types::{ColumnDef, ColumnKind, Generation, Offset, TableId, TableKey, TenantId, Timestamp};

use super::{Form, Put, RestoreError, Take, rollup::RollupState};
use crate::{
    Limits,
    columns::Width,
    dedup::Counts,
    event_times::EventTimes,
    segment::StoredTimes,
    slots::Slots,
    usual::Usual,
    view::{Sealed, SegmentOrder},
};

/// A table's state. Other pieces are named by their number in the checkpoint.
#[derive(Debug)]
pub(crate) struct TableState {
    pub(crate) key: TableKey,
    pub(crate) hot_window_us: Option<i64>,
    pub(crate) times: EventTimes,
    pub(crate) columns: Vec<ColumnDef>,
    /// By column: the dictionary that new rows are coded with; `None` for metrics.
    pub(crate) dictionaries: Vec<Option<u32>>,
    pub(crate) usual: Usual,
    pub(crate) slots: Slots,
    /// By number of the slot.
    pub(crate) open: Vec<Option<OpenState>>,
    pub(crate) stragglers: OpenState,
    /// Ascending by order.
    pub(crate) segments: Vec<SegmentState>,
    pub(crate) sequence: u64,
    pub(crate) evicted_before: Option<Timestamp>,
    /// In the order declared.
    pub(crate) rollups: Vec<RollupState>,
    pub(crate) stored: u64,
    pub(crate) left: u64,
    pub(crate) refused: u64,
    pub(crate) counts: Counts,
}

/// An open slot, or the stragglers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenState {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) rows: usize,
    pub(crate) gone: bool,
    /// The sequence of its segment, and when that was opened.
    pub(crate) segment: Option<(u64, Timestamp)>,
}

/// A segment of the list.
#[derive(Debug)]
pub(crate) struct SegmentState {
    pub(crate) order: SegmentOrder,
    pub(crate) piece: u32,
    pub(crate) capacity: usize,
    pub(crate) rows: usize,
    pub(crate) times: StoredTimes,
    pub(crate) columns: Vec<ColumnState>,
    pub(crate) sealed: Option<Sealed>,
}

/// How a segment holds a column.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ColumnState {
    Absent,
    Values,
    Decimals { width: Width, scale: Scale },
    Codes { width: Width, dictionary: u32 },
}

impl TableState {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_key(out, self.key);
        out.optional(self.hot_window_us, Put::i64);
        self.times.encode(out);
        out.list(self.columns.iter(), |out, column| {
            out.bool(column.kind == ColumnKind::Metric);
            out.bytes(column.name.as_bytes());
        });
        out.list(self.dictionaries.iter(), |out, dictionary| out.optional(*dictionary, Put::u32));
        self.usual.encode(out);
        self.slots.encode(out);
        out.list(self.open.iter(), |out, slot| out.optional(slot.as_ref(), |out, slot| slot.encode(out)));
        self.stragglers.encode(out);
        out.list(self.segments.iter(), |out, segment| segment.encode(out));
        out.optional(self.evicted_before, Put::time);
        out.list(self.rollups.iter(), |out, rollup| rollup.encode(out));
        let Counts { duplicate, conflict } = self.counts;
        let counters = [self.sequence, self.stored, self.left, self.refused, duplicate, conflict];
        counters.into_iter().for_each(|counter| out.u64(counter));
    }

    pub(crate) fn decode(take: &mut Take<'_>, limits: Limits) -> Result<Self, RestoreError> {
        let key = take_key(take)?;
        let hot_window_us = take.optional(Take::i64)?;
        let times = EventTimes::decode(take)?;
        let columns = take.list(|take| {
            let kind = if take.bool()? { ColumnKind::Metric } else { ColumnKind::Dimension };
            Ok(ColumnDef { name: take.str()?.to_owned(), kind })
        })?;
        let dictionaries = take.list(|take| take.optional(Take::u32))?;
        let usual = Usual::decode(take)?;
        let slots = Slots::decode(take, limits)?;
        let open = take.list(|take| take.optional(OpenState::decode))?;
        let stragglers = OpenState::decode(take)?;
        let segments = take.list(SegmentState::decode)?;
        let evicted_before = take.optional(Take::time)?;
        let rollups = take.list(RollupState::decode)?;
        let [sequence, stored, left, refused] = [take.u64()?, take.u64()?, take.u64()?, take.u64()?];
        let counts = Counts { duplicate: take.u64()?, conflict: take.u64()? };
        let state = Self {
            key,
            hot_window_us,
            times,
            columns,
            dictionaries,
            usual,
            slots,
            open,
            stragglers,
            segments,
            sequence,
            evicted_before,
            rollups,
            stored,
            left,
            refused,
            counts,
        };
        if state.holds_together(limits) {
            Ok(state)
        } else {
            Err(RestoreError::Malformed("a table contradicts itself"))
        }
    }

    /// The pieces of all dictionaries that it names.
    pub(crate) fn dictionaries_named(&self) -> BTreeSet<u32> {
        let columns = self.segments.iter().flat_map(|segment| segment.columns.iter());
        let of_segments = columns.filter_map(|column| match column {
            ColumnState::Codes { dictionary, .. } => Some(*dictionary),
            ColumnState::Absent | ColumnState::Values | ColumnState::Decimals { .. } => None,
        });
        self.dictionaries.iter().flatten().copied().chain(of_segments).collect()
    }

    /// Evicts a segment that is not restored.
    pub(crate) fn leave_out(&mut self, sealed: &Sealed) {
        self.left += sealed.rows as u64;
        self.evicted_before = self.evicted_before.max(Some(sealed.time_max.saturating_add(1)));
    }

    /// Whether its parts fit to each other, as far as what restores them relies on that.
    fn holds_together(&self, limits: Limits) -> bool {
        let columns = self.columns.len();
        let dictionaries = self.columns.iter().zip(&self.dictionaries);
        let mut open: Vec<SegmentOrder> = self.open_segments().collect();
        open.sort_unstable();
        let unsealed = self.segments.iter().filter(|segment| segment.sealed.is_none()).map(|segment| segment.order);
        self.dictionaries.len() == columns
            && self.usual.len() <= columns
            && dictionaries.into_iter().all(|(def, at)| (def.kind == ColumnKind::Dimension) == at.is_some())
            && self.open.len() == limits.open_slots_max
            && self.segments.is_sorted_by(|before, after| before.order < after.order)
            && unsealed.eq(open)
            && self.segments.iter().all(|segment| segment.holds_together(&self.columns, limits))
            && self.stored.checked_sub(self.left) == Some(self.segments.iter().map(|segment| segment.rows as u64).sum())
    }

    /// The segments that are open, by their place in the list.
    fn open_segments(&self) -> impl Iterator<Item = SegmentOrder> {
        self.open.iter().flatten().chain([&self.stragglers]).filter_map(OpenState::order)
    }
}

impl OpenState {
    /// The place of its segment in the list.
    pub(crate) fn order(&self) -> Option<SegmentOrder> {
        self.segment.map(|(sequence, _)| SegmentOrder { slot_start: self.start, sequence })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.time(self.start);
        out.time(self.end);
        out.u64(self.rows as u64);
        out.bool(self.gone);
        out.optional(self.segment, |out, (sequence, opened_at)| {
            out.u64(sequence);
            out.time(opened_at);
        });
    }

    fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        Ok(Self {
            start: take.time()?,
            end: take.time()?,
            rows: take.size()?,
            gone: take.bool()?,
            segment: take.optional(|take| Ok((take.u64()?, take.time()?)))?,
        })
    }
}

impl SegmentState {
    fn encode(&self, out: &mut Vec<u8>) {
        out.time(self.order.slot_start);
        out.u64(self.order.sequence);
        out.u32(self.piece);
        out.u32(self.capacity as u32);
        out.u32(self.rows as u32);
        self.times.encode(out);
        out.list(self.columns.iter(), |out, column| match *column {
            ColumnState::Absent => out.u8(0),
            ColumnState::Values => Form::Doubles.encode(out),
            ColumnState::Decimals { width, scale } => Form::Decimals(width, scale).encode(out),
            ColumnState::Codes { width, dictionary } => {
                Form::Codes(width).encode(out);
                out.u32(dictionary);
            }
        });
        out.optional(self.sealed.as_ref(), |out, sealed| {
            out.u32(sealed.runs as u32);
            out.u64(sealed.last_offset.0);
            out.time(sealed.time_max);
            out.list(sealed.metric_ranges.iter(), |out, range| {
                out.optional(*range, |out, (min, max)| {
                    out.f64(min);
                    out.f64(max);
                });
            });
        });
    }

    fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        let order = SegmentOrder { slot_start: take.time()?, sequence: take.u64()? };
        let (piece, capacity, rows) = (take.u32()?, take.u32()? as usize, take.u32()? as usize);
        let times = StoredTimes::decode(take)?;
        let columns = take.list(|take| match take.u8()? {
            0 => Ok(ColumnState::Absent),
            byte => Ok(match Form::decode(byte, take)? {
                Form::Doubles => ColumnState::Values,
                Form::Decimals(width, scale) => ColumnState::Decimals { width, scale },
                Form::Codes(width) => ColumnState::Codes { width, dictionary: take.u32()? },
            }),
        })?;
        let sealed = take.optional(|take| {
            let (runs, last_offset, time_max) = (take.u32()? as usize, Offset(take.u64()?), take.time()?);
            let metric_ranges = take.list(|take| take.optional(|take| Ok((take.f64()?, take.f64()?))))?;
            Ok(Sealed { rows, runs, last_offset, time_max, metric_ranges: metric_ranges.into_boxed_slice() })
        })?;
        Ok(Self { order, piece, capacity, rows, times, columns, sealed })
    }

    fn holds_together(&self, columns: &[ColumnDef], limits: Limits) -> bool {
        let kinds = self.columns.iter().zip(columns).all(|(column, def)| match column {
            ColumnState::Absent => true,
            ColumnState::Values => def.kind == ColumnKind::Metric,
            ColumnState::Decimals { .. } => def.kind == ColumnKind::Metric && self.sealed.is_some(),
            ColumnState::Codes { .. } => def.kind == ColumnKind::Dimension,
        });
        kinds
            && self.columns.len() <= columns.len()
            && (self.times == StoredTimes::Whole || self.sealed.is_some())
            && self.capacity <= limits.segment_rows_max
            && (1..=self.capacity).contains(&self.rows)
    }
}

pub(crate) fn put_key(out: &mut Vec<u8>, key: TableKey) {
    out.u64(key.tenant.0);
    out.u64(key.table.0);
    out.u32(key.generation.0);
}

pub(crate) fn take_key(take: &mut Take<'_>) -> Result<TableKey, RestoreError> {
    Ok(TableKey { tenant: TenantId(take.u64()?), table: TableId(take.u64()?), generation: Generation(take.u32()?) })
}
