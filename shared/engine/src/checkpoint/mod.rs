//! A partition's state at one offset as bytes, and back.
//!
//! 1. [`Capture`] is taken by the writer between two records. It copies little: what only grows (rows of segments, strings
//!    of dictionaries) is shared, with how much of it there was.
//! 2. A capture is a list of [`Piece`]s. Rows and strings are pieces of their own, which a later checkpoint need not write
//!    again, and so are the parts of rollups: a piece is named by its [`PieceName`], and bytes of a range of it are good for
//!    ever. All that changes in place is in the pieces of the partition and of its tables, which name the others by their
//!    number in the list.
//! 3. [`restore`] makes a writer of the pieces that goes on exactly as the captured one would have: where later rows go, how
//!    they are coded, and what is a duplicate depends on nothing that a checkpoint leaves out.
//! 4. The bytes are not trusted: whatever they are, the outcome is a partition or a [`RestoreError`], and memory is asked
//!    for by what is there and not by what a length claims. That they are the bytes that were written, whoever keeps them
//!    has to check.
//!
//! All numbers are little-endian. The format of all pieces has one version, [`FORMAT`].

mod bytes;
mod capture;
mod dictionary;
mod forms;
mod restore;
mod rollup;
mod segment;
mod table;

use std::error::Error;

use crate::RunFault;

pub(crate) use bytes::{Put, Take, text};
pub use capture::{Capture, Piece};
pub(crate) use capture::{CapturedRollup, CapturedSegment, CapturedTable, DictionaryAt};
pub(crate) use forms::Form;
pub(crate) use restore::RestoredTable;
pub use restore::{Horizon, Pieces, Restored, SealedRows, horizon_alone, newest_within, restore};
pub(crate) use segment::{Number, RowsPart};
pub(crate) use table::{OpenState, SegmentState, TableState, put_key, take_key};

/// The version of the bytes of all pieces. Whoever keeps them keeps it beside them.
pub const FORMAT: u32 = 3;

/// What a piece is. The numbers are for keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PieceKind {
    /// What concerns no single table; the first piece, and the only one of its kind.
    Partition = 1,
    /// A table, but for its rows and strings.
    Table = 2,
    /// Strings of one epoch of a dimension.
    Dictionary = 3,
    /// Rows of a segment.
    Segment = 4,
    /// What a rollup keeps of some rows that have left.
    Rollup = 5,
}

impl PieceKind {
    /// The kind of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let kinds = [Self::Partition, Self::Table, Self::Dictionary, Self::Segment, Self::Rollup];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Names a piece that only grows, in this life of the process: equal names and ranges have equal content, and bytes of a range
/// are good for ever. A segment's rows may have smaller bytes once it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PieceName(pub u64);

/// Why there is no partition in some pieces.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// They are not what a capture of this format gives.
    #[error("the state of the partition is malformed: {0}")]
    Malformed(&'static str),
    /// They are of another version.
    #[error("the state of the partition is of another version")]
    Version,
    /// It was made with other [`crate::Limits`] than those given.
    #[error("the state of the partition was made with other limits")]
    Limits,
    /// The runs of ids that it refers to cannot be read.
    #[error(transparent)]
    Ids(#[from] RunFault),
    /// A piece could not be read.
    #[error("read a piece of the state")]
    Source(#[source] Box<dyn Error + Send + Sync>),
}
