//! Bytes (protobuf rows, JSON, NDJSON, columns) to validated blocks and back.
//!
//! 1. Rows of every source become [`EventRef`]s, one at a time, borrowed from the input; [`BodyBuilder`] turns them into
//!    the columns of a block. Nothing is allocated per event in the steady state.
//! 2. A block is a [`BlockHeader`] and a body. [`BodyView`] reads a body in place; `docs/block-format.md` describes it.
//! 3. Nothing that comes from outside is trusted: counts are checked before anything is made of them, and no bytes panic.
//! 4. Everything here is a function of its arguments: no clock, no randomness, no files, no threads.

mod body;
mod check;
mod cluster_key;
mod compress;
mod control;
mod cursor;
mod decode_error;
mod event;
mod header;
mod json;
mod partition;
mod protobuf;
mod token;

pub use body::{
    ABSENT, ABSENT_BITS, BLOCK_BYTES_MAX, BLOCK_ROWS_MAX, BatchIndexes, BlockError, Body, BodyBuilder, BodyView, Codes,
    DimensionView, F64s, Ids, MetricView, PushError, Times, is_absent,
};
pub use check::{EventChecker, TimeLimits};
pub use cluster_key::{CLUSTER_HEADER, ClusterKey, ClusterKeyError, SKEW_MS_MAX};
pub use compress::{DecompressError, Encoding, decompress};
pub use control::{ControlError, ControlRecord};
pub use cursor::Cursor;
pub use decode_error::DecodeError;
pub use event::{Decoded, EventRef, Refused, Reject};
pub use header::{BatchIdentity, BlockHeader, BlockKind, FORMAT_VERSION, HEADER_BYTES, HeaderError};
pub use json::{JsonForm, decode_json, raw_json_events};
pub use partition::{PartitionKey, partition_of, partitions_of_rows, sole_partition, verify_partition};
pub use protobuf::{ProtobufBatch, WireError};
pub use token::{TableToken, Token, TokenError, TokenKey};
