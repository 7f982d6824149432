//! Bytes (protobuf rows, JSON, NDJSON, columns) to validated blocks and back.

mod header;

pub use header::{BatchIdentity, BlockHeader, BlockKind, FORMAT_VERSION, HEADER_BYTES, HeaderError};
