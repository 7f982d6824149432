//! Errors as clients see them: a code, what was wrong and what would be right, and the field at fault.

use std::{fmt, time::Duration};

/// The codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Malformed or contradictory input.
    InvalidArgument,
    /// The range reaches behind what is covered.
    OutOfRange,
    /// No credential, or a bad one.
    Unauthenticated,
    /// The credential's role is too small.
    PermissionDenied,
    /// No such table, or another tenant's.
    NotFound,
    /// Creating twice.
    AlreadyExists,
    /// Changing what is immutable.
    FailedPrecondition,
    /// One request beyond a size limit.
    TooLarge,
    /// A rate, quota, queue or lag limit; later it may pass.
    ResourceExhausted,
    /// An encoding or media type that is not spoken.
    Unimplemented,
    /// A request that did not arrive in time.
    RequestTimeout,
    /// The client left.
    Cancelled,
    /// The time was up.
    DeadlineExceeded,
    /// The log, or a partition that the answer needs, is away.
    Unavailable,
    /// A defect of the server; never the caller's fault.
    Internal,
}

impl ErrorCode {
    /// The name in an error body. Both limits of size and of rate are `RESOURCE_EXHAUSTED`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::TooLarge | Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::RequestTimeout | Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::RequestTimeout => 408,
            Self::AlreadyExists | Self::FailedPrecondition => 409,
            Self::TooLarge => 413,
            Self::Unimplemented => 415,
            Self::ResourceExhausted => 429,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// The gRPC status code (`google.rpc.Code`).
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::RequestTimeout | Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::TooLarge | Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

/// An error as it goes to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its code.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub message: String,
    /// The innermost name at fault, where there is one.
    pub field: Option<String>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of a code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, retry_after: None }
    }

    /// Malformed input in `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message).with_field(field)
    }

    /// A part that is away for now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message).with_retry_after(Duration::from_secs(1))
    }

    /// A defect of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for ApiError {}
