//! A table at one offset: exactly the rows of the records before it, although writing goes on.
//!
//! 1. The offset is loaded before the segment list, and each segment's row count after the list. So the rows found are at
//!    least those of the records before the offset, and each segment is cut back by its runs to exactly those.
//! 2. Segments stand in canonical order: slots by start, then stragglers, then as they were created.
//! 3. A snapshot pins the memory of its segments and dictionaries.

use std::{fmt, ops::Range};

use types::{ColumnDef, ColumnKind, Offset, Rollup, TableKey, Timestamp};

use crate::{
    columns::{self, Codes, ColumnIndex, Width},
    dictionary::DictionaryView,
    metric::Metric,
    rollup::{Folds, PartBuilder, Resolved, RollupPart, RollupView, Version},
    segment::{CHUNK_ROWS, Segment, Stored, Zone},
    sync::Arc,
    times::Times,
    view::{Sealed, SegmentEntry, TableView},
};

/// A table in one partition at one offset.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    key: TableKey,
    next_offset: Offset,
    columns: Arc<Vec<ColumnDef>>,
    evicted_before: Option<Timestamp>,
    segments: Vec<SegmentView>,
    rollups: Vec<RollupSnapshot>,
}

impl TableSnapshot {
    /// Cuts a view, which was loaded after `next_offset`, at that offset.
    pub(crate) fn cut(key: TableKey, next_offset: Offset, view: &TableView) -> Self {
        let segments = view.segments.iter().filter_map(|entry| SegmentView::cut(entry, next_offset)).collect();
        let rollups = view.rollups.iter().map(|rollup| RollupSnapshot::cut(rollup, next_offset)).collect();
        let (columns, evicted_before) = (Arc::clone(&view.columns), view.evicted_before);
        Self { key, next_offset, columns, evicted_before, segments, rollups }
    }

    /// The table.
    #[must_use]
    pub fn key(&self) -> TableKey {
        self.key
    }

    /// The snapshot holds every record before this offset and none from it on.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Rows with event times before this may have left memory; `None` where none has.
    #[must_use]
    pub fn evicted_before(&self) -> Option<Timestamp> {
        self.evicted_before
    }

    /// The columns seen so far, by [`ColumnIndex`]. There may be more than the rows use.
    #[must_use]
    pub fn columns(&self) -> &[ColumnDef] {
        &self.columns
    }

    /// The columns with their numbers.
    pub fn numbered_columns(&self) -> impl Iterator<Item = (ColumnIndex, &ColumnDef)> {
        (0..).map(ColumnIndex).zip(self.columns.iter())
    }

    /// The number of a column; `None` where no event had it. A linear search: resolve once per query.
    #[must_use]
    pub fn column(&self, name: &str, kind: ColumnKind) -> Option<ColumnIndex> {
        columns::position(&self.columns, name, kind)
    }

    /// The segments in canonical order; none is empty.
    #[must_use]
    pub fn segments(&self) -> &[SegmentView] {
        &self.segments
    }

    /// The table's rollups, in the order declared.
    #[must_use]
    pub fn rollups(&self) -> &[RollupSnapshot] {
        &self.rollups
    }

    /// Rows of all segments.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.segments.iter().map(SegmentView::rows).sum()
    }
}

/// Names what a rollup keeps of rows that have left, among all under one budget: the same name, the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupVersion {
    /// Of which rollup.
    pub rollup: u64,
    /// Rises with every change of what it keeps, or of how far back that goes.
    pub revision: u64,
}

/// A rollup at the offset of a snapshot.
#[derive(Debug, Clone)]
pub struct RollupSnapshot {
    id: u64,
    rollup: Arc<Rollup>,
    version: Option<Version>,
}

impl RollupSnapshot {
    fn cut(view: &RollupView, next_offset: Offset) -> Self {
        Self { id: view.id, rollup: Arc::clone(&view.rollup), version: view.at(next_offset).cloned() }
    }

    /// What was declared.
    #[must_use]
    pub fn rollup(&self) -> &Rollup {
        &self.rollup
    }

    /// All rows with times from here on are in the history or resident; `None` where its past at the snapshot's offset is
    /// not kept any more, so that only rows can answer.
    #[must_use]
    pub fn covered_from(&self) -> Option<Timestamp> {
        self.version.as_ref().map(|version| version.covered_from)
    }

    /// Which past it has; `None` where that is not kept any more.
    #[must_use]
    pub fn version(&self) -> Option<RollupVersion> {
        self.version.as_ref().map(|version| RollupVersion { rollup: self.id, revision: version.revision })
    }

    /// Rows that came when the rows of their bucket had left, and changed what was said of it.
    #[must_use]
    pub fn revised(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| version.revised)
    }

    /// What it keeps of rows that have left: the parts that may have buckets with numbers in a range.
    pub fn history(&self, buckets: Range<i64>) -> impl Iterator<Item = &Arc<RollupPart>> {
        self.version.iter().flat_map(move |version| version.history.parts_in(buckets.clone()))
    }

    /// What it has of a segment of the same snapshot: parts, and how many of the segment's first rows these hold.
    #[must_use]
    pub fn of_segment<'a>(&self, segment: &'a SegmentView) -> (&'a [Arc<RollupPart>], usize) {
        // Parts of rows that the snapshot does not have are of no use to it.
        let folded = segment.folds.of(self.id).filter(|folded| folded.rows <= segment.rows);
        folded.map_or((&[], 0), |folded| (&folded.parts, folded.rows))
    }

    /// What it would have of some rows of a segment of `table` whose times lie in a range; `None` where there is none.
    #[must_use]
    pub fn of_rows(
        &self,
        table: &TableSnapshot,
        segment: &SegmentView,
        rows: Range<usize>,
        times: &Range<Timestamp>,
    ) -> Option<RollupPart> {
        PartBuilder::of_rows(&Resolved::new(&self.rollup, table.columns()), segment, rows, Some(times)).finish(None)
    }
}

/// Names a segment among all under one budget. Its rows only grow, so (id, rows) names a content for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A prefix of a segment's rows.
#[derive(Clone)]
pub struct SegmentView {
    segment: Arc<Segment>,
    sealed: Option<Arc<Sealed>>,
    rows: usize,
    folds: Folds,
}

impl fmt::Debug for SegmentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentView").field("id", &self.id()).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl SegmentView {
    fn cut(entry: &SegmentEntry, next_offset: Offset) -> Option<Self> {
        let rows = match &entry.sealed {
            Some(sealed) if sealed.last_offset < next_offset => {
                // Observed all the same: the count orders the rows before this reader.
                entry.segment.observe().min(sealed.rows)
            }
            _ => entry.segment.rows_before(entry.segment.observe(), next_offset),
        };
        (rows > 0).then(|| Self::whole(entry, rows))
    }

    /// The first `rows` rows of a segment, which were observed.
    pub(crate) fn whole(entry: &SegmentEntry, rows: usize) -> Self {
        let (segment, sealed) = (Arc::clone(&entry.segment), entry.sealed.clone());
        Self { segment, sealed, rows, folds: entry.folds.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.segment.id())
    }

    /// How many rows the snapshot has of it; at least 1.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it gets no more rows and all that it has are in the snapshot.
    #[must_use]
    pub fn sealed(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.rows == self.rows)
    }

    /// Event times of the rows, or wider.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.segment.zone()
    }

    /// How many chunks of [`CHUNK_ROWS`] the rows are; the last may be shorter.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(CHUNK_ROWS)
    }

    /// The rows of one chunk.
    ///
    /// # Panics
    /// There is no such chunk.
    #[must_use]
    pub fn rows_of(&self, chunk: usize) -> Range<usize> {
        assert!(chunk < self.chunks(), "chunk {chunk} of {}", self.chunks());
        chunk * CHUNK_ROWS..((chunk + 1) * CHUNK_ROWS).min(self.rows)
    }

    /// Event times of the rows of one chunk, or wider.
    ///
    /// # Panics
    /// There is no such chunk.
    #[must_use]
    pub fn chunk_zone(&self, chunk: usize) -> Zone {
        assert!(chunk < self.chunks(), "chunk {chunk} of {}", self.chunks());
        self.segment.chunk_zone(chunk)
    }

    /// Event times, µs since the epoch.
    #[must_use]
    pub fn times(&self) -> Times<'_> {
        // SAFETY: at most the observed rows.
        unsafe { self.segment.times(self.rows) }
    }

    /// Codes of a dimension; `None` where it is absent in every row, or no dimension.
    #[must_use]
    pub fn codes(&self, column: ColumnIndex) -> Option<Codes<'_>> {
        let Stored::Codes { width, word, .. } = self.segment.stored(column) else { return None };
        // SAFETY: at most the observed rows, of a column of this width.
        Some(unsafe { self.segment.codes(*width, *word, self.rows) })
    }

    /// By chunk, for the first of them: whether a row may have one of `codes` in a dimension; `false` is certain. Of the chunks
    /// behind, and of all where there is none here, nothing is known. A look takes a miss of the cache per code and chunk, where
    /// a chunk's codes are 256 lines of it.
    pub fn may_hold(&self, column: ColumnIndex, codes: &[u32]) -> impl Iterator<Item = bool> {
        let word = match self.segment.stored(column) {
            Stored::Codes { width: Width::Four, word, .. } => Some(*word),
            _ => None,
        };
        // SAFETY: at most the observed rows, of a column of this width.
        word.into_iter().flat_map(move |word| unsafe { self.segment.may_hold(word, self.rows, codes) })
    }

    /// The strings of a dimension's codes: at least those of the rows, and perhaps some that came since. `None` where
    /// [`SegmentView::codes`] is.
    #[must_use]
    pub fn dictionary(&self, column: ColumnIndex) -> Option<DictionaryView<'_>> {
        let Stored::Codes { dictionary, .. } = self.segment.stored(column) else { return None };
        // SAFETY: the count was observed. Strings are published before their rows, so it covers all codes of the rows.
        Some(unsafe { DictionaryView::new(dictionary, dictionary.observe()) })
    }

    /// Values of a metric; `None` where it is absent in every row, or no metric.
    #[must_use]
    pub fn metric(&self, column: ColumnIndex) -> Option<Metric<'_>> {
        // SAFETY: at most the observed rows.
        unsafe { self.segment.metric(column, self.rows) }
    }

    /// Least and greatest value of a metric in a sealed segment; `None` where there is no value, or it is not known yet.
    #[must_use]
    pub fn metric_range(&self, column: ColumnIndex) -> Option<(f64, f64)> {
        let sealed = self.sealed.as_ref().filter(|_| self.sealed())?;
        sealed.metric_ranges.get(column.index()).copied().flatten()
    }

    /// The record of a row, and which row of its block it is.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn origin(&self, row: usize) -> (Offset, u32) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.segment.origin(row)
    }
}
