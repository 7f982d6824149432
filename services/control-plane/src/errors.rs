//! What failed, as clients see it.

use std::error::Error as _;

use metadata::MetadataError;
use types::{ApiError, ErrorCode, TableName};

/// An error of the store that no caller expects. It is logged here, because clients are not told what the database said.
pub(crate) fn from_metadata(error: &MetadataError) -> ApiError {
    match error {
        MetadataError::Conflict | MetadataError::AlreadyExists => {
            ApiError::unavailable("another change of this table came in between, try again")
        }
        MetadataError::NotFound => ApiError::new(ErrorCode::NotFound, error.to_string()),
        MetadataError::Damaged { .. } | MetadataError::Newer { .. } => {
            tracing::error!(%error, "metadata cannot be used");
            ApiError::internal(error.to_string())
        }
        // Those who failed before it was given up on said why.
        MetadataError::Away { retry_after } => {
            ApiError::unavailable("metadata is unavailable").with_retry_after(*retry_after)
        }
        MetadataError::Database(_) | MetadataError::TimedOut(_) | MetadataError::Address => {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "metadata is unavailable");
            ApiError::unavailable("metadata is unavailable")
        }
        MetadataError::Fenced => ApiError::unavailable(error.to_string()),
    }
}

pub(crate) fn no_table(name: &TableName) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no table {name}")).with_field("table")
}
