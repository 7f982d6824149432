//! A [`types::ApiError`] as HTTP clients and as gRPC clients see it.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::Serialize;
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap},
};
use types::{ApiError, ErrorCode};

/// The gRPC metadata that carries an error's field; with `-bin` appended where the field is not plain ASCII.
pub const FIELD_METADATA: &str = "truenow-field";
/// The gRPC metadata that carries the seconds after which trying again may help.
pub const RETRY_AFTER_METADATA: &str = "retry-after";

const FIELD_METADATA_BINARY: &str = "truenow-field-bin";
/// Longest text of a library's own error response that is taken over as a message, bytes.
const FOREIGN_MESSAGE_BYTES_MAX: usize = 1 << 10;

/// What an HTTP handler returns.
pub type ApiResult<T> = Result<T, ApiErrorResponse>;

/// An error as an HTTP response: `{"error":{"code","message","field"}}`, with `Retry-After` where trying again may help.
#[derive(Debug)]
pub struct ApiErrorResponse(pub ApiError);

impl From<ApiError> for ApiErrorResponse {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl IntoResponse for ApiErrorResponse {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status =
            StatusCode::from_u16(error.code.http_status()).expect("the codes of the contract are HTTP statuses");
        let mut response = response_of(status, error.code.name(), &error.message, error.field.as_deref());
        if let Some(after) = error.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        response
    }
}

fn response_of(status: StatusCode, code: &'static str, message: &str, field: Option<&str>) -> Response {
    let body = ErrorBody { error: ErrorFields { code, message, field } };
    let json = serde_json::to_vec(&body).expect("texts always serialise");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}

/// Seconds of a `Retry-After`: rounded up, at least 1, so that a client that obeys does not come too early.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

/// The error as a gRPC status, with the field and the time to try again in its metadata.
#[must_use]
pub fn to_status(error: &ApiError) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(field) = &error.field {
        match AsciiMetadataValue::try_from(field.as_str()) {
            Ok(value) if field.is_ascii() => drop(metadata.insert(FIELD_METADATA, value)),
            _ => drop(metadata.insert_bin(FIELD_METADATA_BINARY, BinaryMetadataValue::from_bytes(field.as_bytes()))),
        }
    }
    if let Some(after) = error.retry_after {
        metadata.insert(RETRY_AFTER_METADATA, AsciiMetadataValue::from(whole_seconds(after)));
    }
    Status::with_metadata(Code::from_i32(error.code.grpc_code()), error.message.clone(), metadata)
}

/// The answer where no route matches.
pub(crate) async fn unknown_route() -> ApiErrorResponse {
    ApiError::new(ErrorCode::NotFound, "there is no such path").into()
}

/// The answer where the path exists with another method. Not a code of its own in the contract: 405 says it all.
pub(crate) async fn unknown_method() -> Response {
    response_of(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", "this path does not take this method", None)
}

/// Puts an error of a library (an extractor's rejection, say) into the shape of the contract; others pass untouched.
pub(crate) async fn in_contract_shape(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_error || is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = first_bytes(body).await;
    let text = String::from_utf8_lossy(&text);
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge.name(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::Unimplemented.name(),
        StatusCode::NOT_FOUND => ErrorCode::NotFound.name(),
        status if status.is_server_error() => ErrorCode::Internal.name(),
        _ => ErrorCode::InvalidArgument.name(),
    };
    let message = if text.is_empty() { parts.status.canonical_reason().unwrap_or("refused") } else { &*text };
    response_of(status, code, message, None)
}

/// At most [`FOREIGN_MESSAGE_BYTES_MAX`] of a body; nothing of a longer or failing one.
async fn first_bytes(body: Body) -> Bytes {
    match http_body_util::Limited::new(body, FOREIGN_MESSAGE_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a wait is never rounded down, and never to nothing.
    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }

    /// Goal: a gRPC client gets the field and the wait, also where the field is not ASCII.
    #[test]
    fn a_status_carries_field_and_wait() {
        let error = ApiError::invalid("größe", "no such column").with_retry_after(Duration::from_millis(10));
        let status = to_status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "no such column");
        let field = status.metadata().get_bin(FIELD_METADATA_BINARY).unwrap().to_bytes().unwrap();
        assert_eq!(field, "größe".as_bytes());
        assert_eq!(status.metadata().get(RETRY_AFTER_METADATA).unwrap(), "1");

        let plain = to_status(&ApiError::invalid("limit", "must be positive"));
        assert_eq!(plain.metadata().get(FIELD_METADATA).unwrap(), "limit");
    }
}
