//! Reading a body in place. Every count is held against the bytes that are there before anything is made of it.

use types::{
    check_column_name,
    limits::{DIMENSION_BYTES_MAX, EVENT_COLUMNS_MAX, EVENT_ID_BYTES_MAX, TABLE_COLUMNS_MAX},
};

use super::{
    ABSENT_BITS, BLOCK_BYTES_MAX, BLOCK_ROWS_MAX, BlockError,
    columns::{BatchIndexes, Codes, DimensionView, F64s, Ids, MetricView, Times, offset},
    layout::{BODY_HEADER_BYTES, ColumnType, Cursor, ENTRY_BYTES, Entry, FIXED_ID_BYTES, FLAG_HAS_ABSENT, code_width},
};

/// At most one each of event_time, event_id and batch_index stand before the named columns.
const UNNAMED_COLUMNS_MAX: usize = 3;
/// Rows whose columns are counted at a time, on the stack.
const COUNTED_ROWS: usize = 256;

/// A body of a block of events, checked and read in place.
#[derive(Debug, Clone)]
pub struct BodyView<'a> {
    times: Times<'a>,
    ids: Option<Ids<'a>>,
    batch_indexes: Option<BatchIndexes<'a>>,
    dimensions: Vec<DimensionView<'a>>,
    metrics: Vec<MetricView<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// Structure, and that no access panics.
    Structure,
    /// Also every value and every limit.
    All,
}

impl<'a> BodyView<'a> {
    /// Reads a body from outside: structure, canonical form, names, values and limits are checked.
    ///
    /// # Errors
    /// The bytes are no body, or hold what no event may hold.
    pub fn parse(body: &'a [u8]) -> Result<Self, BlockError> {
        let view = Self::read(body, Checks::All)?;
        view.check_names()?;
        view.check_event_columns()?;
        Ok(view)
    }

    /// Reads a body that [`BodyView::parse`] or [`super::BodyBuilder`] stood behind when its checksum was made. Structure
    /// is checked so far that no access can panic; metrics, names and limits are not looked at again.
    ///
    /// # Errors
    /// The bytes are no body.
    pub fn parse_trusted(body: &'a [u8]) -> Result<Self, BlockError> {
        Self::read(body, Checks::Structure)
    }

    /// How many events there are; at least one.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.0.len()
    }

    /// The event times.
    #[must_use]
    pub fn times(&self) -> Times<'a> {
        self.times
    }

    /// The event ids, if any event has one.
    #[must_use]
    pub fn ids(&self) -> Option<Ids<'a>> {
        self.ids
    }

    /// The events' indexes in their original batch; `None`: 0, 1, 2 …
    #[must_use]
    pub fn batch_indexes(&self) -> Option<BatchIndexes<'a>> {
        self.batch_indexes
    }

    /// The dimensions, in the body's order.
    #[must_use]
    pub fn dimensions(&self) -> &[DimensionView<'a>] {
        &self.dimensions
    }

    /// The metrics, in the body's order.
    #[must_use]
    pub fn metrics(&self) -> &[MetricView<'a>] {
        &self.metrics
    }

    fn read(body: &'a [u8], checks: Checks) -> Result<Self, BlockError> {
        if body.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLarge(body.len()));
        }
        let mut cursor = Cursor::new(body);
        let (rows, columns) = read_header(&mut cursor)?;
        let directory = cursor.take(columns * ENTRY_BYTES)?.as_chunks::<ENTRY_BYTES>().0;
        let mut names = Names::take(&mut cursor, directory)?;
        let mut view =
            Self { times: Times(&[]), ids: None, batch_indexes: None, dimensions: Vec::new(), metrics: Vec::new() };
        let mut last: Option<ColumnType> = None;
        for (column, raw) in directory.iter().enumerate() {
            let entry = Entry::decode(column, raw)?;
            check_order(column, last, entry.kind)?;
            last = Some(entry.kind);
            let name = names.next(column, &entry)?;
            let mut reader = ColumnReader { cursor: &mut cursor, rows, column, entry, checks };
            match entry.kind {
                ColumnType::EventTime => view.times = Times(reader.plain()?),
                ColumnType::BatchIndex => view.batch_indexes = Some(BatchIndexes(reader.plain()?)),
                ColumnType::EventId => view.ids = Some(reader.ids()?),
                ColumnType::Dimension => view.dimensions.push(reader.dimension(name)?),
                ColumnType::Metric => view.metrics.push(reader.metric(name)?),
            }
        }
        cursor.finish()?;
        Ok(view)
    }

    /// Names are such that columns may have, and distinct.
    fn check_names(&self) -> Result<(), BlockError> {
        let unnamed = 1 + usize::from(self.ids.is_some()) + usize::from(self.batch_indexes.is_some());
        let mut names: Vec<&str> =
            self.dimensions.iter().map(|d| d.name).chain(self.metrics.iter().map(|m| m.name)).collect();
        for (column, name) in names.iter().enumerate() {
            check_column_name(name).map_err(|error| BlockError::Name { column: unnamed + column, error })?;
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BlockError::DuplicateName { name: pair[0].to_owned() }),
            None => Ok(()),
        }
    }

    /// No event has more columns than events may have. A block that has no more itself needs no look at its rows.
    fn check_event_columns(&self) -> Result<(), BlockError> {
        if self.dimensions.len() + self.metrics.len() <= EVENT_COLUMNS_MAX {
            return Ok(());
        }
        for start in (0..self.rows()).step_by(COUNTED_ROWS) {
            let mut counts = [0_usize; COUNTED_ROWS];
            let counts = &mut counts[..COUNTED_ROWS.min(self.rows() - start)];
            for dimension in &self.dimensions {
                for (row, count) in counts.iter_mut().enumerate() {
                    *count += usize::from(dimension.codes.get(start + row) != 0);
                }
            }
            for metric in &self.metrics {
                for (row, count) in counts.iter_mut().enumerate() {
                    *count += usize::from(metric.values.get(start + row).to_bits() != ABSENT_BITS);
                }
            }
            if let Some(row) = counts.iter().position(|&count| count > EVENT_COLUMNS_MAX) {
                return Err(BlockError::EventColumns { row: start + row, columns: counts[row] });
            }
        }
        Ok(())
    }
}

fn read_header(cursor: &mut Cursor<'_>) -> Result<(usize, usize), BlockError> {
    let header = cursor.take(BODY_HEADER_BYTES)?;
    let rows = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let columns = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if header[6..].iter().any(|&byte| byte != 0) {
        return Err(BlockError::NotZero(BODY_HEADER_BYTES));
    }
    if rows == 0 || rows as usize > BLOCK_ROWS_MAX {
        return Err(BlockError::Rows(rows));
    }
    if columns == 0 || columns > TABLE_COLUMNS_MAX + UNNAMED_COLUMNS_MAX {
        return Err(BlockError::Columns(columns));
    }
    Ok((rows as usize, columns))
}

fn check_order(column: usize, last: Option<ColumnType>, kind: ColumnType) -> Result<(), BlockError> {
    let in_order = match last {
        None => kind == ColumnType::EventTime,
        Some(last) if kind.is_named() => last.rank() <= kind.rank(),
        Some(last) => last.rank() < kind.rank(),
    };
    if in_order { Ok(()) } else { Err(BlockError::Order(column)) }
}

/// The names of the named columns, back to back behind the directory.
struct Names<'a> {
    text: &'a [u8],
}

impl<'a> Names<'a> {
    fn take(cursor: &mut Cursor<'a>, directory: &[[u8; ENTRY_BYTES]]) -> Result<Self, BlockError> {
        let len = directory.iter().map(|entry| usize::from(entry[3])).sum();
        Ok(Self { text: cursor.take(len)? })
    }

    fn next(&mut self, column: usize, entry: &Entry) -> Result<&'a str, BlockError> {
        if entry.kind.is_named() == (entry.name_len == 0) {
            return Err(BlockError::Directory { column, field: "name_len" });
        }
        let (name, rest) = self.text.split_at(usize::from(entry.name_len));
        self.text = rest;
        std::str::from_utf8(name).map_err(|_| BlockError::Utf8(column))
    }
}

/// Reads the buffers of one column.
struct ColumnReader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    rows: usize,
    column: usize,
    entry: Entry,
    checks: Checks,
}

impl<'a> ColumnReader<'_, 'a> {
    /// A column that is nothing but `N` bytes per row.
    fn plain<const N: usize>(&mut self) -> Result<&'a [[u8; N]], BlockError> {
        self.expect("width", usize::from(self.entry.width) == N)?;
        self.expect("flags", self.entry.flags == 0)?;
        self.expect("entries", self.entry.entries == 0)?;
        self.expect("bytes", self.entry.bytes == 0)?;
        self.cursor.buffer(self.rows)
    }

    fn ids(&mut self) -> Result<Ids<'a>, BlockError> {
        if self.entry.width != 0 {
            return Ok(Ids::Fixed(self.plain::<FIXED_ID_BYTES>()?));
        }
        self.expect("flags", self.entry.flags == 0)?;
        self.expect("entries", self.entry.entries == 0)?;
        // Ids that are all absent, and ids that are all of 16 bytes, are written in another way.
        self.expect("bytes", self.entry.bytes != 0)?;
        let (offsets, bytes) = self.divided(self.rows, EVENT_ID_BYTES_MAX)?;
        if self.checks == Checks::All {
            let all_fixed = offsets.windows(2).all(|pair| offset(pair, 1) - offset(pair, 0) == FIXED_ID_BYTES);
            self.expect("width", !all_fixed)?;
        }
        Ok(Ids::Variable { offsets, bytes })
    }

    fn dimension(&mut self, name: &'a str) -> Result<DimensionView<'a>, BlockError> {
        let entries = self.entry.entries as usize;
        self.expect("width", self.entry.width == code_width(entries))?;
        self.expect("flags", self.entry.flags == 0)?;
        let codes = match self.entry.width {
            1 => Codes::U8(self.cursor.buffer::<1>(self.rows)?.as_flattened()),
            2 => Codes::U16(self.cursor.buffer(self.rows)?),
            _ => Codes::U32(self.cursor.buffer(self.rows)?),
        };
        let (offsets, bytes) = self.divided(entries, DIMENSION_BYTES_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|_| BlockError::Utf8(self.column))?;
        if !text.is_ascii() && !(0..=entries).all(|entry| text.is_char_boundary(offset(offsets, entry))) {
            return Err(BlockError::Offsets(self.column));
        }
        if codes.max() as usize > entries {
            let row = (0..self.rows).find(|&row| codes.get(row) as usize > entries).expect("the maximum is in a row");
            return Err(BlockError::Code { name: name.to_owned(), row, code: codes.get(row), entries });
        }
        Ok(DimensionView { name, codes, offsets, text })
    }

    fn metric(&mut self, name: &'a str) -> Result<MetricView<'a>, BlockError> {
        self.expect("width", self.entry.width == 8)?;
        self.expect("flags", self.entry.flags <= FLAG_HAS_ABSENT)?;
        self.expect("entries", self.entry.entries == 0)?;
        self.expect("bytes", self.entry.bytes == 0)?;
        let has_absent = self.entry.flags & FLAG_HAS_ABSENT != 0;
        let values = F64s(self.cursor.buffer(self.rows)?);
        if self.checks == Checks::All {
            let (any_bad, any_absent) = values.iter().fold((false, false), |(bad, absent), value| {
                (bad | !value.is_finite(), absent | (value.to_bits() == ABSENT_BITS))
            });
            if any_bad {
                let is_good = |value: f64| value.is_finite() || (has_absent && value.to_bits() == ABSENT_BITS);
                if let Some(row) = values.iter().position(|value| !is_good(value)) {
                    return Err(BlockError::NotFinite { name: name.to_owned(), row });
                }
            }
            self.expect("flags", has_absent == any_absent)?;
        }
        Ok(MetricView { name, values, has_absent })
    }

    /// `count + 1` offsets and the bytes that they divide, each part of at most `max` bytes.
    fn divided(&mut self, count: usize, max: usize) -> Result<(&'a [[u8; 4]], &'a [u8]), BlockError> {
        let offsets = self.cursor.buffer::<4>(count + 1)?;
        let bytes = self.cursor.buffer::<1>(self.entry.bytes as usize)?.as_flattened();
        // One pass without a branch: the lengths wrap where offsets fall, and are then too large.
        let longest = offsets.windows(2).fold(0, |longest: u32, pair| {
            longest.max(u32::from_le_bytes(pair[1]).wrapping_sub(u32::from_le_bytes(pair[0])))
        });
        let (first, last) = (offset(offsets, 0), offset(offsets, count));
        if first == 0 && last == bytes.len() && longest as usize <= max {
            return Ok((offsets, bytes));
        }
        if first != 0 || last != bytes.len() || !offsets.is_sorted_by_key(|raw| u32::from_le_bytes(*raw)) {
            return Err(BlockError::Offsets(self.column));
        }
        let length = |entry| offset(offsets, entry + 1) - offset(offsets, entry);
        let entry = (0..count).find(|&entry| length(entry) > max).expect("the longest is among them");
        Err(BlockError::EntryLength { column: self.column, entry, bytes: length(entry), max })
    }

    fn expect(&self, field: &'static str, holds: bool) -> Result<(), BlockError> {
        if holds { Ok(()) } else { Err(BlockError::Directory { column: self.column, field }) }
    }
}
