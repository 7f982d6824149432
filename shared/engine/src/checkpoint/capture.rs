//! Taking a partition's state, and cutting it into pieces. The taking is the writer's; the rest any thread can do.

use std::{collections::HashMap, ops::Range};

use types::{ColumnDef, Generation, LogGap, Offset, PartitionId, Rollup, TableId, TableKey, TenantId, Timestamp};

use super::{
    OpenState, PieceKind, PieceName, Put, SegmentState, TableState,
    dictionary::encode_strings,
    rollup::{RollupState, encode_part},
    segment::encode_rows,
    table::ColumnState,
};
use crate::{
    MemoryBudget, RunId,
    budget::Charge,
    dedup::{Counts, DedupCapture},
    dictionary::{Dictionary, DictionaryView, DictionaryWriter},
    event_times::EventTimes,
    gaps::Gaps,
    rollup::{RollupPart, Version},
    segment::{Segment, Stored},
    slots::Slots,
    sync::Arc,
    usual::Usual,
    view::SegmentEntry,
};

/// A partition's state at one offset. It pins the memory of its rows and strings for as long as it lives.
pub struct Capture {
    pub(crate) partition: PartitionId,
    pub(crate) next_offset: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) passed_over: u64,
    pub(crate) gaps: Vec<LogGap>,
    /// Ascending.
    pub(crate) dropped: Vec<((TenantId, TableId), Generation)>,
    /// Ascending by key.
    pub(crate) tables: Vec<CapturedTable>,
    pub(crate) budget: Arc<MemoryBudget>,
    /// What nothing but this holds and no other charge counts; see [`Capture::account`].
    pub(crate) alone: Charge,
}

/// A table's state. Its fields are those of [`TableState`], shared with the writer where they are large.
pub(crate) struct CapturedTable {
    pub(crate) key: TableKey,
    pub(crate) hot_window_us: Option<i64>,
    pub(crate) times: EventTimes,
    pub(crate) columns: Arc<Vec<ColumnDef>>,
    pub(crate) dictionaries: Vec<Option<DictionaryAt>>,
    pub(crate) usual: Usual,
    pub(crate) slots: Slots,
    pub(crate) open: Vec<Option<OpenState>>,
    pub(crate) stragglers: OpenState,
    pub(crate) segments: Vec<CapturedSegment>,
    pub(crate) sequence: u64,
    pub(crate) evicted_before: Option<Timestamp>,
    pub(crate) rollups: Vec<CapturedRollup>,
    pub(crate) stored: u64,
    pub(crate) left: u64,
    pub(crate) refused: u64,
    pub(crate) counts: Counts,
    pub(crate) dedup: DedupCapture,
}

/// A segment with so many rows.
pub(crate) struct CapturedSegment {
    pub(crate) entry: SegmentEntry,
    pub(crate) rows: usize,
}

/// A rollup with what it keeps of rows that have left. What it has of segments is made of their rows again.
pub(crate) struct CapturedRollup {
    pub(crate) rollup: Arc<Rollup>,
    pub(crate) version: Version,
}

/// A dictionary with so many strings.
#[derive(Clone)]
pub(crate) struct DictionaryAt {
    dictionary: Arc<Dictionary>,
    strings: u32,
}

impl DictionaryAt {
    pub(crate) fn of_writer(writer: &DictionaryWriter) -> Self {
        Self { dictionary: Arc::clone(writer.shared()), strings: writer.len() as u32 }
    }
}

/// A part of a partition's state that is kept and read back as a whole.
pub struct Piece<'a> {
    content: Content<'a>,
}

enum Content<'a> {
    Partition(&'a Capture),
    Table(&'a CapturedTable, Numbers),
    Dictionary(DictionaryAt),
    Segment(&'a CapturedSegment),
    Rollup(&'a RollupPart),
}

/// The numbers of the pieces that a table's state names.
struct Numbers {
    dictionaries: HashMap<u64, u32>,
    first_segment: u32,
    first_rollup: u32,
}

impl Capture {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The offset of the record that comes next: the state holds what every one before it did.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The runs of ids that the state refers to.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.tables.iter().flat_map(|table| table.dedup.runs())
    }

    /// The budget that its memory counts in.
    #[must_use]
    pub fn budget(&self) -> &Arc<MemoryBudget> {
        &self.budget
    }

    /// Counts what only this holds by now of what it shared with the writer. Rows and strings count by themselves for as long
    /// as anybody holds them; identities count where their table does, and here once that has let go of them.
    pub fn account(&mut self) {
        self.alone.set(self.tables.iter().map(|table| table.dedup.bytes_alone()).sum());
    }

    /// The pieces, in an order that [`super::restore`] relies on.
    #[must_use]
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = vec![Piece { content: Content::Partition(self) }];
        for table in &self.tables {
            let mut dictionaries = HashMap::new();
            for dictionary in table.all_dictionaries() {
                dictionaries.entry(dictionary.dictionary.id()).or_insert_with(|| {
                    pieces.push(Piece { content: Content::Dictionary(dictionary) });
                    pieces.len() as u32 - 1
                });
            }
            let first_segment = pieces.len() as u32;
            pieces.extend(table.segments.iter().map(|segment| Piece { content: Content::Segment(segment) }));
            let first_rollup = pieces.len() as u32;
            let parts = table.rollups.iter().flat_map(|rollup| rollup.version.history.parts());
            pieces.extend(parts.map(|part| Piece { content: Content::Rollup(part) }));
            let numbers = Numbers { dictionaries, first_segment, first_rollup };
            pieces.push(Piece { content: Content::Table(table, numbers) });
        }
        pieces
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.partition.0);
        out.u64(self.next_offset.0);
        out.time(self.append_time);
        out.u64(self.passed_over);
        Gaps::encode(&self.gaps, out);
        out.list(self.dropped.iter(), |out, ((tenant, table), until)| {
            out.u64(tenant.0);
            out.u64(table.0);
            out.u32(until.0);
        });
    }
}

impl Piece<'_> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PieceKind {
        match &self.content {
            Content::Partition(_) => PieceKind::Partition,
            Content::Table(..) => PieceKind::Table,
            Content::Dictionary(_) => PieceKind::Dictionary,
            Content::Segment(_) => PieceKind::Segment,
            Content::Rollup(_) => PieceKind::Rollup,
        }
    }

    /// Its name, if it is one that only grows: ranges of it that were kept are still good.
    #[must_use]
    pub fn name(&self) -> Option<PieceName> {
        match &self.content {
            Content::Partition(_) | Content::Table(..) => None,
            Content::Dictionary(at) => Some(PieceName(at.dictionary.id())),
            Content::Segment(segment) => Some(PieceName(segment.entry.segment.id())),
            Content::Rollup(part) => Some(PieceName(part.id())),
        }
    }

    /// How many items it has (rows, strings); 1 for what is kept as a whole.
    #[must_use]
    pub fn items(&self) -> u64 {
        match &self.content {
            Content::Partition(_) | Content::Table(..) | Content::Rollup(_) => 1,
            Content::Dictionary(at) => u64::from(at.strings),
            Content::Segment(segment) => segment.rows as u64,
        }
    }

    /// Bytes of an item, about.
    #[must_use]
    pub fn item_bytes(&self) -> u64 {
        match &self.content {
            Content::Partition(_) | Content::Table(..) => 1,
            Content::Dictionary(at) => at.dictionary.string_bytes() / u64::from(at.strings).max(1) + 4,
            Content::Segment(segment) => segment.entry.segment.layout().row_bytes() as u64,
            Content::Rollup(part) => part.bytes(),
        }
    }

    /// Appends some of its items, at least one, as bytes.
    ///
    /// # Panics
    /// It has no such items.
    pub fn encode(&self, items: Range<u64>, out: &mut Vec<u8>) {
        assert!(items.start < items.end && items.end <= self.items(), "items {items:?} of {}", self.items());
        let range = items.start as usize..items.end as usize;
        match &self.content {
            Content::Partition(capture) => capture.encode(out),
            Content::Table(table, numbers) => {
                table.state(numbers).encode(out);
                table.dedup.encode(out);
            }
            Content::Dictionary(at) => {
                // SAFETY: the writer had so many when it was captured.
                let view = unsafe { DictionaryView::new(&at.dictionary, at.strings) };
                encode_strings(view, range, out);
            }
            Content::Segment(segment) => encode_rows(&segment.entry.segment, range, out),
            Content::Rollup(part) => encode_part(part, out),
        }
    }
}

impl CapturedTable {
    /// The dictionaries in use and those of segments; some of them more than once.
    fn all_dictionaries(&self) -> impl Iterator<Item = DictionaryAt> + '_ {
        let stored = self.segments.iter().flat_map(|segment| segment.entry.segment.layout().columns.iter());
        // One that is not in use gets no more strings.
        let ended = stored
            .filter_map(Stored::dictionary)
            .map(|dictionary| DictionaryAt { strings: dictionary.observe(), dictionary: Arc::clone(dictionary) });
        // Those in use come first: of two with one id the first is taken, and they were counted when they were captured.
        self.dictionaries.iter().flatten().cloned().chain(ended)
    }

    fn state(&self, numbers: &Numbers) -> TableState {
        let number = |dictionary: &Dictionary| numbers.dictionaries[&dictionary.id()];
        let segment = |(at, captured): (usize, &CapturedSegment)| SegmentState {
            order: captured.entry.order,
            piece: numbers.first_segment + at as u32,
            capacity: captured.entry.segment.layout().capacity,
            rows: captured.rows,
            times: captured.entry.segment.layout().times,
            columns: column_states(&captured.entry.segment, number),
            sealed: captured.entry.sealed.as_deref().cloned(),
        };
        let mut next_rollup = numbers.first_rollup;
        let rollup = |CapturedRollup { rollup, version }: &CapturedRollup| {
            let first = next_rollup;
            next_rollup += version.history.parts().count() as u32;
            RollupState {
                rollup: Rollup::clone(rollup),
                from: version.from,
                covered_from: version.covered_from,
                revised: version.revised,
                parts: (first..next_rollup).collect(),
            }
        };
        TableState {
            rollups: self.rollups.iter().map(rollup).collect(),
            key: self.key,
            hot_window_us: self.hot_window_us,
            times: self.times.clone(),
            columns: Vec::clone(&self.columns),
            dictionaries: self.dictionaries.iter().map(|at| at.as_ref().map(|at| number(&at.dictionary))).collect(),
            usual: self.usual.clone(),
            slots: self.slots.clone(),
            open: self.open.clone(),
            stragglers: self.stragglers,
            segments: self.segments.iter().enumerate().map(segment).collect(),
            sequence: self.sequence,
            evicted_before: self.evicted_before,
            stored: self.stored,
            left: self.left,
            refused: self.refused,
            counts: self.counts,
        }
    }
}

fn column_states(segment: &Segment, number: impl Fn(&Dictionary) -> u32) -> Vec<ColumnState> {
    let state = |stored: &Stored| match stored {
        Stored::Absent => ColumnState::Absent,
        Stored::Values { .. } => ColumnState::Values,
        Stored::Decimals { width, scale, .. } => ColumnState::Decimals { width: *width, scale: *scale },
        Stored::Codes { width, dictionary, .. } => ColumnState::Codes { width: *width, dictionary: number(dictionary) },
    };
    segment.layout().columns.iter().map(state).collect()
}
