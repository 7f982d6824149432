//! The body of a block of events: columns, little-endian, so laid out that every length follows from the counts.
//!
//! 1. Given columns have one encoding. What could be written in two ways (widths, flags, padding, order) is checked.
//! 2. A body from outside goes through [`BodyView::parse`]. [`BodyView::parse_trusted`] leaves out the passes over values
//!    for a body whose checksum was verified against a header that was made after a full check.
//! 3. Nothing in a body needs to be aligned in memory; buffers start at multiples of 8 from the body's start.
//!
//! `docs/block-format.md` describes the bytes.

mod builder;
mod columns;
mod dictionary;
mod error;
mod layout;
mod split;
mod view;
mod write;

pub use builder::{Body, BodyBuilder, PushError};
pub use columns::{BatchIndexes, Codes, DimensionView, F64s, Ids, MetricView, Times};
pub use error::BlockError;
pub use view::BodyView;

/// Rows of one block.
pub const BLOCK_ROWS_MAX: usize = 1 << 20;
/// Bytes of one block's body.
pub const BLOCK_BYTES_MAX: usize = types::limits::REQUEST_BYTES_CEILING;
/// The bit pattern of an absent metric: the canonical quiet NaN. No other value that is not finite occurs in a body.
pub const ABSENT_BITS: u64 = 0x7ff8_0000_0000_0000;
/// An absent metric.
pub const ABSENT: f64 = f64::from_bits(ABSENT_BITS);

const _: () = assert!(BLOCK_ROWS_MAX >= types::limits::REQUEST_EVENTS_MAX);
const _: () = assert!(BLOCK_BYTES_MAX <= u32::MAX as usize); // offsets and the header's length are u32

/// Whether a metric's value stands for an absent one.
#[must_use]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT_BITS
}
