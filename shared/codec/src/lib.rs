//! Bytes (protobuf rows, JSON, NDJSON, columns) to validated blocks and back.
//!
//! 1. Rows of every source become [`EventRef`]s, one at a time, borrowed from the input; [`BodyBuilder`] turns them into
//!    the columns of a block. Nothing is allocated per event in the steady state.
//! 2. A block is a [`BlockHeader`] and a body. [`BodyView`] reads a body in place; `docs/block-format.md` describes it.
//! 3. Nothing that comes from outside is trusted: counts are checked before anything is made of them, and no bytes panic.
//! 4. Everything here is a function of its arguments: no clock, no randomness, no files, no threads.

mod body;
mod event;
mod header;

pub use body::{
    ABSENT, ABSENT_BITS, BLOCK_BYTES_MAX, BLOCK_ROWS_MAX, BatchIndexes, BlockError, Body, BodyBuilder, BodyView, Codes,
    DimensionView, F64s, Ids, MetricView, PushError, Times, is_absent,
};
pub use event::{EventRef, Reject};
pub use header::{BatchIdentity, BlockHeader, BlockKind, FORMAT_VERSION, HEADER_BYTES, HeaderError};
