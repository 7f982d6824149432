//! Why a whole request could not be read. What is wrong inside one event is a [`crate::Reject`] instead.

use types::{ApiError, ErrorCode};

use crate::protobuf::WireError;

/// Why a request's body is none. Nothing that was handed out of it counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More events than a request may have.
    #[error("more than {max} events in one request")]
    TooManyEvents {
        /// The limit.
        max: usize,
    },
    /// Not a protobuf message of this type.
    #[error("request {0}")]
    Protobuf(WireError),
    /// Not UTF-8.
    #[error("body is not UTF-8 from byte {at} on")]
    Utf8 {
        /// Bytes before the first that is not.
        at: usize,
    },
    /// Not JSON, or not one of the forms of events.
    #[error("body is not JSON of events: {reason}")]
    Json {
        /// What the parser found, and where.
        reason: String,
    },
    /// No line of NDJSON is JSON.
    #[error("no line of the body is JSON; the first: {reason}")]
    NoJsonLine {
        /// What is wrong with the first line.
        reason: String,
    },
}

impl DecodeError {
    /// The code of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooManyEvents { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
