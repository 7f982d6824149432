//! Times that travel: a call says how long its caller waits, and what serves it stops then.

use std::{future::Future, time::Duration};

use tonic::{Request, Response, Status, metadata::MetadataMap};
use types::{ApiError, ErrorCode};

use super::error::{error_of, status_of};

/// The header of gRPC that says how long a caller waits.
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// How much longer than the other side the caller itself waits, so that the answer "the time was up" still arrives.
const GRACE: Duration = Duration::from_millis(100);

/// A request whose caller waits for so long.
pub fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Makes a call with a time: `call` gets the request. A caller that leaves earlier ends the call on the other side, too.
///
/// # Errors
/// What the other side says; `UNAVAILABLE` where it cannot be reached; `DEADLINE_EXCEEDED` where the time is up.
pub async fn call<T, R, F>(message: T, timeout: Duration, call: impl FnOnce(Request<T>) -> F) -> Result<R, ApiError>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    match tokio::time::timeout(timeout + GRACE, call(timed(message, timeout))).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(error_of(&status)),
        Err(_) => Err(time_is_up(timeout)),
    }
}

/// Serves a call for as long as its caller waits; without a word on that, to the end.
///
/// # Errors
/// The error of what serves, as a status; `DEADLINE_EXCEEDED` where the time is up.
pub async fn in_time<T>(
    metadata: &MetadataMap,
    serving: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    let served = match timeout_of(metadata) {
        None => serving.await,
        Some(timeout) => match tokio::time::timeout(timeout, serving).await {
            Ok(served) => served,
            Err(_) => Err(time_is_up(timeout)),
        },
    };
    served.map(Response::new).map_err(|error| status_of(&error))
}

fn time_is_up(timeout: Duration) -> ApiError {
    let message = format!("another service of the cluster did not answer within {} ms", timeout.as_millis());
    ApiError::new(ErrorCode::DeadlineExceeded, message)
}

/// At most eight digits and a unit, as gRPC has it; anything else says nothing.
fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(TIMEOUT_HEADER, value.parse().unwrap());
        metadata
    }

    /// Goal: what a caller sets is what is read, to the precision that gRPC has.
    #[test]
    fn timeouts_travel() {
        for timeout in [Duration::from_micros(1), Duration::from_millis(1_500), Duration::from_secs(60)] {
            assert_eq!(timeout_of(timed((), timeout).metadata()), Some(timeout));
        }
        assert_eq!(timeout_of(&MetadataMap::new()), None);
    }

    proptest! {
        /// Goal: whatever a caller writes there, nothing panics.
        #[test]
        fn any_text_is_read(text in "[ -~]{0,12}") {
            let _ = timeout_of(&metadata(&text));
        }
    }

    /// Goal: what serves is dropped when its caller's time is up, and the caller is told.
    #[tokio::test(start_paused = true)]
    async fn serving_ends_in_time() {
        let status = in_time::<()>(&metadata("20m"), std::future::pending()).await.unwrap_err();
        assert_eq!(error_of(&status).code, ErrorCode::DeadlineExceeded);
        let served = in_time(&metadata("20m"), async { Ok(7) }).await.unwrap();
        assert_eq!(served.into_inner(), 7);
    }
}
