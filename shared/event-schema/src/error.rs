//! Why a schema is refused.

use crate::limits::{PATTERNS_MAX, SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX};

/// Why a schema is refused. Each says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Not JSON.
    #[error("json_schema is not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("json_schema must be an object of JSON Schema")]
    NoObject,
    /// A draft that is not spoken.
    #[error("json_schema has the $schema {named}, must be that of draft 2020-12, 2019-09 or 7, or absent")]
    UnknownDraft {
        /// What it names.
        named: String,
    },
    /// Too many bytes.
    #[error("json_schema has {bytes} bytes, at most {SCHEMA_BYTES_MAX} are allowed")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Nested too deep.
    #[error("json_schema nests deeper than {SCHEMA_DEPTH_MAX} with its references followed")]
    TooDeep,
    /// Too much to hold one event against.
    #[error("json_schema has more than {SCHEMA_NODES_MAX} objects and lists with its references followed")]
    TooManyNodes,
    /// Too many patterns.
    #[error("json_schema has more than {PATTERNS_MAX} patterns")]
    TooManyPatterns,
    /// A reference that comes back to itself.
    #[error("json_schema refers to itself by {reference:?}: events are two objects deep, so nothing in them recurs")]
    Recursive {
        /// The reference.
        reference: String,
    },
    /// A reference that is none within the schema.
    #[error(
        "json_schema has the reference {reference:?}: references are JSON pointers within it, such as #/$defs/name"
    )]
    Reference {
        /// The reference.
        reference: String,
    },
    /// A keyword that would make references depend on more than the text.
    #[error("json_schema uses {keyword}: name what is shared in $defs and refer to it by $ref")]
    Keyword {
        /// The keyword.
        keyword: &'static str,
    },
    /// Not a schema of its draft, or a pattern that cannot be compiled.
    #[error("json_schema at {at}: {reason}")]
    Invalid {
        /// Where, as a JSON pointer.
        at: String,
        /// Why.
        reason: String,
    },
}
