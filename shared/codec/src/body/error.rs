//! Why bytes are no body of a block.

use types::NameError;

use super::{BLOCK_BYTES_MAX, BLOCK_ROWS_MAX};

/// Why bytes are no body. `column` is the column's place in the directory, from 0. The sender's fault in every case:
/// `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The body ends before what its counts announce.
    #[error("block body is cut off: {needed} bytes are needed, {len} are there")]
    Short {
        /// Bytes that the part read last would need.
        needed: usize,
        /// Bytes of the body.
        len: usize,
    },
    /// Bytes follow the last column.
    #[error("{0} bytes follow the last column of the block")]
    Trailing(usize),
    /// Larger than any block may be.
    #[error("block body has {0} bytes, at most {BLOCK_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// No rows, or too many.
    #[error("block has {0} rows, 1 to {BLOCK_ROWS_MAX} are allowed")]
    Rows(u32),
    /// More columns than a table may have.
    #[error("block has {0} columns, at most {max} dimensions and metrics are allowed", max = types::limits::TABLE_COLUMNS_MAX)]
    Columns(usize),
    /// Reserved bytes or padding that are not zero.
    #[error("bytes before offset {0} of the block must be zero")]
    NotZero(usize),
    /// A kind that this format version does not have.
    #[error("column {column} has the unknown kind {kind}")]
    Kind {
        /// The column.
        column: usize,
        /// Its kind byte.
        kind: u8,
    },
    /// Not event_time, event_id, batch_index, dimensions, metrics in this order, the first of them present.
    #[error("column {0} is out of order: event_time, event_id, batch_index, dimensions, metrics")]
    Order(usize),
    /// A width, flag, name or count that a column of this kind and size does not have.
    #[error("column {column}: {field} does not fit its kind and counts")]
    Directory {
        /// The column.
        column: usize,
        /// The field of its directory entry.
        field: &'static str,
    },
    /// A name that no column may have.
    #[error("name of column {column} {error}")]
    Name {
        /// The column.
        column: usize,
        /// What is wrong with it.
        error: NameError,
    },
    /// Text that is not UTF-8.
    #[error("column {0} holds text that is not UTF-8")]
    Utf8(usize),
    /// Two columns of one name.
    #[error("two columns are named {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Offsets that do not rise from 0 to the length of the bytes, or cut a character.
    #[error("offsets of column {0} do not divide its bytes")]
    Offsets(usize),
    /// A value or an id beyond its limit.
    #[error("entry {entry} of column {column} has {bytes} bytes, at most {max} are allowed")]
    EntryLength {
        /// The column.
        column: usize,
        /// Index of the dictionary entry, or the row of the id.
        entry: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A code beyond the dictionary.
    #[error("row {row} of {name} has code {code}, its dictionary has {entries} entries")]
    Code {
        /// The dimension.
        name: String,
        /// The first such row.
        row: usize,
        /// Its code.
        code: u32,
        /// Entries of the dictionary.
        entries: usize,
    },
    /// A metric that is neither finite nor absent, or absent where the column says that none is.
    #[error("row {row} of {name} is not a number")]
    NotFinite {
        /// The metric.
        name: String,
        /// The first such row.
        row: usize,
    },
    /// More columns in one event than an event may have.
    #[error("row {row} has {columns} columns, at most {max} are allowed", max = types::limits::EVENT_COLUMNS_MAX)]
    EventColumns {
        /// The first such row.
        row: usize,
        /// Columns that are present in it.
        columns: usize,
    },
}
