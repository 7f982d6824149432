//! An [`ApiError`] as a gRPC status between processes, and back. Code, message, field and time to come back arrive as they were;
//! what the transport itself reports becomes the nearest error there is.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};
use types::{ApiError, ErrorCode};

use crate::internal::{self, ErrorDetails};

/// Longest message and field that travel, bytes: both go in headers, percent-encoded, which have a limit of their own.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// When to come back where the transport does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The error as a status.
#[must_use]
pub fn status_of(error: &ApiError) -> Status {
    let details = ErrorDetails {
        code: code_to_wire(error.code).into(),
        field: error.field.as_deref().map(|field| cut(field).to_owned()),
        retry_after_us: error.retry_after.map(|after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX)),
    };
    let code = Code::from_i32(error.code.grpc_code());
    Status::with_details(code, cut(&error.message), Bytes::from(details.encode_to_vec()))
}

/// The error that a status stands for.
#[must_use]
pub fn error_of(status: &Status) -> ApiError {
    let details = (!status.details().is_empty()).then(|| ErrorDetails::decode(status.details()).ok()).flatten();
    let ours = details.and_then(|details| Some((code_from_wire(details.code())?, details)));
    match ours {
        // Where a status was changed on its way, its own code counts.
        Some((code, details)) if code.grpc_code() == status.code() as i32 => ApiError {
            code,
            message: status.message().to_owned(),
            field: details.field,
            retry_after: details.retry_after_us.map(Duration::from_micros),
        },
        _ => of_transport(status),
    }
}

fn of_transport(status: &Status) -> ApiError {
    let code = match status.code() {
        Code::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unimplemented,
        // Cancelled, too, is said of a connection that went away: the caller is still here. And so is exhausted, where the other side
        // closes a connection on which too many calls were given up (ENHANCE_YOUR_CALM): our services say it with details.
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted | Code::ResourceExhausted => {
            ErrorCode::Unavailable
        }
        _ => ErrorCode::Internal,
    };
    let error = ApiError::new(code, status.message());
    if code == ErrorCode::Unavailable { error.with_retry_after(RETRY_AFTER) } else { error }
}

/// As much of a text as travels, cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

macro_rules! codes {
    ($($code:ident,)*) => {
        fn code_to_wire(code: ErrorCode) -> internal::ErrorCode {
            match code {
                $(ErrorCode::$code => internal::ErrorCode::$code,)*
            }
        }

        fn code_from_wire(code: internal::ErrorCode) -> Option<ErrorCode> {
            match code {
                internal::ErrorCode::Unspecified => None,
                $(internal::ErrorCode::$code => Some(ErrorCode::$code),)*
            }
        }

        #[cfg(test)]
        const CODES: &[ErrorCode] = &[$(ErrorCode::$code,)*];
    };
}

codes! {
    InvalidArgument,
    OutOfRange,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    TooLarge,
    ResourceExhausted,
    Unimplemented,
    RequestTimeout,
    Cancelled,
    DeadlineExceeded,
    Unavailable,
    Internal,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a status is after it went through the headers of an answer.
    fn sent(status: &Status) -> Status {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        Status::from_header_map(&headers).unwrap()
    }

    proptest! {
        /// Goal: an error arrives as it was: its code among all of ours, its text in any language, its field, its time.
        #[test]
        fn errors_travel_whole(
            code in prop::sample::select(CODES),
            message in ".{0,40}",
            field in prop::option::of(".{0,20}"),
            retry_after in prop::option::of(0_u64..u64::MAX),
        ) {
            let error = ApiError { code, message, field, retry_after: retry_after.map(Duration::from_micros) };
            prop_assert_eq!(error_of(&sent(&status_of(&error))), error);
        }

        /// Goal: details that others made do no harm.
        #[test]
        fn foreign_details_do_no_harm(code in 1..17, details in prop::collection::vec(any::<u8>(), 0..60)) {
            let status = Status::with_details(Code::from_i32(code), "so", Bytes::from(details));
            let error = error_of(&status);
            prop_assert_eq!(error.message, "so");
        }
    }

    /// Goal: a text that is too long for a header is cut between characters, and the rest arrives.
    #[test]
    fn long_texts_are_cut() {
        let error = ApiError::invalid("field", format!("x{}", "ß".repeat(TEXT_BYTES_MAX)));
        let arrived = error_of(&sent(&status_of(&error)));
        assert_eq!((arrived.code, arrived.field.as_deref()), (ErrorCode::InvalidArgument, Some("field")));
        assert_eq!(arrived.message.len(), TEXT_BYTES_MAX - 1);
        assert!(error.message.starts_with(&arrived.message));
    }

    /// Goal: a connection that went away reads as something to try again, however the transport puts it.
    #[test]
    fn a_lost_connection_is_unavailable() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::ResourceExhausted] {
            let error = error_of(&Status::new(code, "transport error"));
            assert_eq!((error.code, error.retry_after), (ErrorCode::Unavailable, Some(RETRY_AFTER)));
        }
    }
}
