//! A segment: rows of one table in columns, append-only, one writer, any number of readers, no lock.
//!
//! 1. Only the writer touches rows from `rows` on, and only it stores `rows`. It writes all columns of its new rows, then
//!    zones and runs, then stores `rows` once with Release: a row is visible in all columns or in none.
//! 2. Readers load `rows` with Acquire and touch only rows below it. A published row never changes.
//! 3. Zones only widen. A reader may see one that is too wide for its rows, never one that is too narrow.
//! 4. Runs say which record a row came from. They are published before the rows of theirs, so a reader finds every row's
//!    record and can cut its rows at an offset.
//! 5. The slab is used again only when the last `Arc` of the segment is gone.
//! 6. The filter of a chunk ([`chunk_filter`]) is written before the chunk's last row is published, and never again: whoever
//!    observed all rows of a chunk sees its filter as it sees the rows.

mod chunk_filter;
mod copy;
mod writer;

use std::fmt;

use kernels::Scale;
use types::{Offset, Timestamp};

use crate::{
    MemoryBudget,
    budget::Charge,
    chunked::Chunked,
    columns::{Codes, ColumnIndex, Width},
    dictionary::Dictionary,
    metric::Metric,
    slab::{Item, LINE_WORDS, Slab},
    sync::{Arc, AtomicI64, AtomicUsize, Ordering, ROWS_OBSERVE, RUNS_OBSERVE},
    times::Times,
};

use chunk_filter::FILTER_WORDS;
pub(crate) use writer::{Rows, SegmentWriter};

/// Rows of a chunk: the unit of zones, and of work in a scan.
pub const CHUNK_ROWS: usize = 4_096;
/// Log2 of the runs of the first chunk of them.
const FIRST_RUNS_LOG2: u32 = if cfg!(loom) { 1 } else { 3 };

/// Consecutive rows of a segment that are consecutive rows of one block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// The record.
    pub(crate) offset: u64,
    /// The first row in the segment.
    pub(crate) row: u32,
    /// The same row in the block.
    pub(crate) block_row: u32,
}

/// Least and greatest event time of some rows, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    /// The least.
    pub min: Timestamp,
    /// The greatest.
    pub max: Timestamp,
}

impl Zone {
    /// Of no rows.
    pub(crate) const EMPTY: Self = Self { min: Timestamp::MAX, max: Timestamp::MIN };

    pub(crate) fn of(times: &[i64]) -> Self {
        let fold = |(min, max): (i64, i64), time: &i64| (min.min(*time), max.max(*time));
        let (min, max) = times.iter().fold((i64::MAX, i64::MIN), fold);
        Self { min: Timestamp(min), max: Timestamp(max) }
    }

    pub(crate) fn widened(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// A zone that its writer widens while readers look.
struct SharedZone {
    min: AtomicI64,
    max: AtomicI64,
}

impl SharedZone {
    fn empty() -> Self {
        Self { min: AtomicI64::new(i64::MAX), max: AtomicI64::new(i64::MIN) }
    }

    /// Relaxed: the row count publishes it.
    fn store(&self, zone: Zone) {
        self.min.store(zone.min.0, Ordering::Relaxed);
        self.max.store(zone.max.0, Ordering::Relaxed);
    }

    /// At least as wide as the rows whose count the caller observed.
    fn load(&self) -> Zone {
        Zone { min: Timestamp(self.min.load(Ordering::Relaxed)), max: Timestamp(self.max.load(Ordering::Relaxed)) }
    }
}

/// How a segment holds event times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredTimes {
    /// As they are.
    Whole,
    /// As offsets from a base, in a sealed segment.
    Offsets { width: Width, base: i64 },
}

impl StoredTimes {
    /// The smallest form for times of which these are the least and the greatest.
    pub(crate) fn smallest(zone: Zone) -> Self {
        match u32::try_from(zone.max.0.abs_diff(zone.min.0)) {
            Ok(span) => Self::Offsets { width: Width::for_codes(span as usize), base: zone.min.0 },
            Err(_) => Self::Whole,
        }
    }

    pub(crate) fn item_bytes(self) -> usize {
        match self {
            Self::Whole => size_of::<i64>(),
            Self::Offsets { width, .. } => width.bytes(),
        }
    }
}

/// How a segment holds one of the table's columns.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// Not at all: absent in every row.
    Absent,
    /// Codes of a dimension.
    Codes { width: Width, dictionary: Arc<Dictionary>, word: usize },
    /// Values of a metric, NaN where absent.
    Values { word: usize },
    /// Values of a metric that are decimal numbers, as integers, 0 where absent; in a sealed segment.
    Decimals { width: Width, scale: Scale, word: usize },
}

impl Stored {
    /// The strings of its codes.
    pub(crate) fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        match self {
            Self::Codes { dictionary, .. } => Some(dictionary),
            Self::Absent | Self::Values { .. } | Self::Decimals { .. } => None,
        }
    }
}

/// Where the columns of a segment of some capacity lie in its slab. Event times come first.
#[derive(Debug, Clone)]
pub(crate) struct SegmentLayout {
    pub(crate) capacity: usize,
    pub(crate) times: StoredTimes,
    /// By [`ColumnIndex`]; columns beyond the end are absent.
    pub(crate) columns: Box<[Stored]>,
    /// Words of the slab.
    pub(crate) words: usize,
}

impl SegmentLayout {
    /// Places `columns`; their words are filled in.
    pub(crate) fn new(capacity: usize, times: StoredTimes, mut columns: Box<[Stored]>) -> Self {
        let mut end = lines(capacity * times.item_bytes());
        for column in &mut columns {
            let (word, item_bytes) = match column {
                Stored::Absent => continue,
                Stored::Codes { width, word, .. } | Stored::Decimals { width, word, .. } => (word, width.bytes()),
                Stored::Values { word } => (word, size_of::<f64>()),
            };
            *word = end;
            end += lines(capacity * item_bytes);
            if let Stored::Codes { width: Width::Four, .. } = column {
                end += capacity / CHUNK_ROWS * FILTER_WORDS;
            }
        }
        Self { capacity, times, columns, words: Slab::class(end) }
    }

    /// Bytes of one row.
    pub(crate) fn row_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|stored| match stored {
            Stored::Absent => 0,
            Stored::Codes { width, .. } | Stored::Decimals { width, .. } => width.bytes(),
            Stored::Values { .. } => size_of::<f64>(),
        });
        self.times.item_bytes() + columns.sum::<usize>()
    }

    /// Bytes of all rows that there is room for, but for what rounding adds.
    pub(crate) fn items_bytes(&self) -> usize {
        self.capacity * self.row_bytes()
    }

    /// The columns of wide codes, whose full chunks have filters: where each begins.
    pub(crate) fn wide_codes(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|column| match column {
            Stored::Codes { width: Width::Four, word, .. } => Some(*word),
            _ => None,
        })
    }

    /// Where the filter of a full chunk lies of the wide codes that begin at `word`.
    pub(crate) fn filter_word(&self, word: usize, chunk: usize) -> usize {
        word + lines(self.capacity * Width::Four.bytes()) + chunk * FILTER_WORDS
    }
}

/// Words of as many cache lines as `bytes` need.
fn lines(bytes: usize) -> usize {
    bytes.div_ceil(LINE_WORDS * 8) * LINE_WORDS
}

/// What the readers of a segment share.
pub(crate) struct Segment {
    id: u64,
    layout: SegmentLayout,
    slab: Slab,
    zone: SharedZone,
    chunk_zones: Box<[SharedZone]>,
    runs: Chunked<Run>,
    run_count: AtomicUsize,
    rows: AtomicUsize,
    /// This object beside slab and runs.
    overhead: Charge,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Segment {
    /// An empty segment in `slab`, which has the layout's words; `id` is unique under the budget.
    pub(crate) fn new(id: u64, layout: SegmentLayout, slab: Slab, budget: &Arc<MemoryBudget>) -> Self {
        assert!(layout.words <= slab.words(), "the layout fits into its slab");
        let capacity = layout.capacity;
        let chunk_zones: Box<[SharedZone]> = (0..capacity.div_ceil(CHUNK_ROWS)).map(|_| SharedZone::empty()).collect();
        let overhead = Self::overhead(&layout);
        Self {
            id,
            layout,
            slab,
            zone: SharedZone::empty(),
            chunk_zones,
            runs: Chunked::new(FIRST_RUNS_LOG2, capacity, Arc::clone(budget)),
            run_count: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
            overhead: Charge::new(budget, overhead as u64),
        }
    }

    /// Bytes of a segment of a layout that has so many runs.
    pub(crate) fn bytes_with(layout: &SegmentLayout, runs: usize) -> u64 {
        let runs = Chunked::<Run>::bytes_with(FIRST_RUNS_LOG2, runs, layout.capacity);
        (layout.words * size_of::<u64>() + Self::overhead(layout)) as u64 + runs
    }

    fn overhead(layout: &SegmentLayout) -> usize {
        let zones = layout.capacity.div_ceil(CHUNK_ROWS) * size_of::<SharedZone>();
        size_of::<Self>() + zones + size_of_val(&*layout.columns)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn layout(&self) -> &SegmentLayout {
        &self.layout
    }

    /// Bytes of slab, runs and the object itself.
    pub(crate) fn bytes(&self) -> u64 {
        self.slab.bytes() + self.runs.bytes() + self.overhead.bytes()
    }

    /// How many rows a reader may look at.
    pub(crate) fn observe(&self) -> usize {
        // Pairs with the store in `SegmentWriter::publish`.
        self.rows.load(ROWS_OBSERVE)
    }

    /// How many of the first `rows` rows come from records before `end`. `rows` was observed.
    pub(crate) fn rows_before(&self, rows: usize, end: Offset) -> usize {
        // Pairs with the store in `SegmentWriter::publish`: at least the runs of the observed rows.
        let mut count = self.run_count.load(RUNS_OBSERVE);
        let mut cut = rows;
        // The record that cuts is one of the newest: search from the end.
        while count > 0 {
            // SAFETY: below the observed run count.
            let run = unsafe { self.runs.get(count - 1) };
            if run.offset < end.0 {
                break;
            }
            cut = cut.min(run.row as usize);
            count -= 1;
        }
        cut
    }

    /// The record and the row in its block of a row that was observed.
    pub(crate) fn origin(&self, row: usize) -> (Offset, u32) {
        let (mut low, mut high) = (0, self.run_count.load(RUNS_OBSERVE));
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            // SAFETY: below the observed run count.
            let run = unsafe { self.runs.get(middle) };
            if run.row as usize <= row { low = middle } else { high = middle }
        }
        // SAFETY: an observed row has a run, and runs are published before their rows.
        let run = unsafe { self.runs.get(low) };
        (Offset(run.offset), run.block_row + (row - run.row as usize) as u32)
    }

    pub(crate) fn zone(&self) -> Zone {
        self.zone.load()
    }

    pub(crate) fn chunk_zone(&self, chunk: usize) -> Zone {
        self.chunk_zones[chunk].load()
    }

    /// How many runs there are.
    pub(crate) fn runs_len(&self) -> usize {
        self.run_count.load(RUNS_OBSERVE)
    }

    /// All runs.
    pub(crate) fn runs(&self) -> Vec<Run> {
        // SAFETY: below the observed run count.
        (0..self.runs_len()).map(|at| unsafe { self.runs.get(at) }).collect()
    }

    /// How a column is held.
    pub(crate) fn stored(&self, column: ColumnIndex) -> &Stored {
        self.layout.columns.get(column.index()).unwrap_or(&Stored::Absent)
    }

    /// Rows `0..rows` of the column at `word`.
    ///
    /// # Safety
    /// `rows` is at most a count that [`Segment::observe`] gave, or that the writer holds.
    pub(crate) unsafe fn items<T: Item>(&self, word: usize, rows: usize) -> &[T] {
        self.slab.witness().read(0..rows);
        // SAFETY: published rows are never written again (rule 2).
        unsafe { self.slab.items(word, 0, rows) }
    }

    /// By full chunk of the first `rows` rows: whether any of `codes` may stand there among the wide codes at `word`.
    ///
    /// # Safety
    /// As for [`Segment::items`].
    pub(crate) unsafe fn may_hold(&self, word: usize, rows: usize, codes: &[u32]) -> impl Iterator<Item = bool> {
        (0..rows / CHUNK_ROWS).map(move |chunk| {
            let at = self.layout.filter_word(word, chunk);
            // SAFETY: all rows of the chunk were observed, so its filter is written, once and for all (rule 6).
            let filter = unsafe { self.slab.items::<u64>(at, 0, FILTER_WORDS) };
            codes.iter().any(|&code| chunk_filter::may_hold(filter, code))
        })
    }

    /// Event times of rows `0..rows`.
    ///
    /// # Safety
    /// As for [`Segment::items`].
    pub(crate) unsafe fn times(&self, rows: usize) -> Times<'_> {
        match self.layout.times {
            // SAFETY: passed on to the caller.
            StoredTimes::Whole => Times::Whole(unsafe { self.items(0, rows) }),
            StoredTimes::Offsets { width, base } => {
                // SAFETY: as above.
                let offsets = unsafe { self.codes(width, 0, rows) };
                Times::Offsets { base, offsets }
            }
        }
    }

    /// Rows `0..rows` of the codes, or other small numbers, at `word`.
    ///
    /// # Safety
    /// As for [`Segment::items`].
    pub(crate) unsafe fn codes(&self, width: Width, word: usize, rows: usize) -> Codes<'_> {
        match width {
            // SAFETY: passed on to the caller.
            Width::One => Codes::U8(unsafe { self.items(word, rows) }),
            // SAFETY: as above.
            Width::Two => Codes::U16(unsafe { self.items(word, rows) }),
            // SAFETY: as above.
            Width::Four => Codes::U32(unsafe { self.items(word, rows) }),
        }
    }

    /// Rows `0..rows` of a metric; `None` for a column that is absent or no metric.
    ///
    /// # Safety
    /// As for [`Segment::items`].
    pub(crate) unsafe fn metric(&self, column: ColumnIndex, rows: usize) -> Option<Metric<'_>> {
        match *self.stored(column) {
            // SAFETY: passed on to the caller.
            Stored::Values { word } => Some(Metric::Doubles(unsafe { self.items(word, rows) })),
            Stored::Decimals { width, scale, word } => {
                // SAFETY: as above.
                Some(Metric::Decimals { scale, digits: unsafe { self.codes(width, word, rows) } })
            }
            Stored::Absent | Stored::Codes { .. } => None,
        }
    }

    /// Its slab, where no reader is left.
    pub(crate) fn into_slab(segment: Arc<Self>) -> Result<Slab, Arc<Self>> {
        #[cfg(loom)]
        if crate::sync::weakened("reclaim") {
            return Ok(segment.slab.alias());
        }
        // `try_unwrap` acquires what every reader released when it dropped its `Arc`, so their reads are over.
        Arc::try_unwrap(segment).map(|segment| segment.slab)
    }
}
