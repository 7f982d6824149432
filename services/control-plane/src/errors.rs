//! What failed, as clients see it.

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
        MetadataError::Database(cause) => {
            tracing::error!(%cause, "metadata is unavailable");
            ApiError::unavailable("metadata is unavailable")
        }
    }
}

pub(crate) fn no_table(name: &TableName) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no table {name}")).with_field("table")
}
