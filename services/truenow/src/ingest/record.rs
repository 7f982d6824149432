//! One record of a file: the text of the columns that the mapping asked for, and nothing else.
//!
//! A slot is a column's number in the list that the mapping asked for. Texts lie back to back in one buffer that is
//! reused, so that reading a record allocates nothing in the steady state.

use std::ops::Range;

/// A column that the mapping asked for, by its place in the list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) usize);

/// The columns of one record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    text: String,
    cells: Vec<Option<Range<usize>>>,
    /// Its line in the file, 1-based.
    pub(crate) line: u64,
}

impl Record {
    /// Forgets the record before this one.
    pub(crate) fn begin(&mut self, slots: usize, line: u64) {
        self.text.clear();
        self.cells.clear();
        self.cells.resize(slots, None);
        self.line = line;
    }

    /// Sets the text of a column.
    pub(crate) fn set(&mut self, slot: Slot, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.cells[slot.0] = Some(start..self.text.len());
    }

    /// The text of a column; `None`: absent.
    pub(crate) fn get(&self, slot: Slot) -> Option<&str> {
        self.cells[slot.0].clone().map(|range| &self.text[range])
    }
}

/// What came of reading on.
#[derive(Debug)]
pub(crate) enum Read {
    /// A record.
    Record,
    /// A line that is no record, and why.
    Bad(String),
    /// The end.
    End,
}

/// A reader of one of the formats.
pub(crate) trait Records {
    /// Reads the next record into `record`, whose line is set even where the line is bad.
    ///
    /// # Errors
    /// The file cannot be read on.
    fn next(&mut self, record: &mut Record) -> std::io::Result<Read>;
}
