//! What a table's schema may be, so that it costs nobody but its own table.

/// Bytes of its text.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// How deep its objects and lists may nest, each reference followed.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Objects and lists that it may have, each reference followed wherever it stands, and each counted as often as it is visited:
/// what a value of an event may be held against.
pub const SCHEMA_NODES_MAX: usize = 10_000;
/// Patterns that it may have.
pub const PATTERNS_MAX: usize = 64;
/// Bytes that one compiled pattern may take.
pub(crate) const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Bytes that the engine may keep for one pattern while it runs.
pub(crate) const PATTERN_CACHE_BYTES_MAX: usize = 256 << 10;
/// Bytes that a compiled object or list takes, about.
pub(crate) const NODE_BYTES: usize = 512;
/// Bytes of a value that a message shows.
pub(crate) const SHOWN_VALUE_BYTES_MAX: usize = 64;
/// Bytes of any one part of a message.
pub(crate) const SHOWN_BYTES_MAX: usize = 200;

// A chain of references as long as the text allows would otherwise be walked by recursion.
const _: () = assert!(SCHEMA_DEPTH_MAX <= 128);
