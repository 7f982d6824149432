//! Reading a request's body whole, within a size and a time.

use std::{error::Error, time::Duration};

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use types::{ApiError, ErrorCode};

use crate::timed_body::BodyStalled;

/// Reads a whole body. A body that announces more than `limit` bytes is refused before a byte of it is read.
///
/// # Errors
/// 413 beyond `limit` bytes, 408 where it is not complete after `timeout`, 499 where the client left.
pub async fn read_body(body: Body, limit: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(timeout, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(stalled(timeout)),
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(too_large(limit));
    }
    // Most requests come in one piece, which is handed on as it is.
    let Some(second) = next_data(&mut body).await? else { return Ok(first) };
    // Memory grows with what has arrived, not with what was announced.
    let mut whole = BytesMut::with_capacity((first.len() + second.len()).min(limit).next_power_of_two());
    whole.extend_from_slice(&first);
    let mut piece = second;
    loop {
        if whole.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&piece);
        match next_data(&mut body).await? {
            Some(next) => piece = next,
            None => return Ok(whole.freeze()),
        }
    }
}

/// The next piece of data that is not empty; `None` at the end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| failed(&error))?.into_data() {
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            // Trailers say nothing that a handler needs; empty pieces neither.
            _ => {}
        }
    }
    Ok(None)
}

fn failed(error: &axum::Error) -> ApiError {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(BodyStalled { timeout }) = cause.downcast_ref() {
            return stalled(*timeout);
        }
        source = cause.source();
    }
    ApiError::new(ErrorCode::Cancelled, "the connection ended before the request's body did")
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the request's body has more than {limit} bytes; send it in parts"))
}

fn stalled(timeout: Duration) -> ApiError {
    let message = format!("the request's body was not complete after {} ms", timeout.as_millis());
    ApiError::new(ErrorCode::RequestTimeout, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pieces(pieces: &[&'static [u8]]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        Body::from_stream(tokio_stream::iter(pieces))
    }

    /// Goal: a body comes out as it went in, and the limit counts all of its pieces to the byte.
    #[tokio::test]
    async fn the_limit_is_exact() {
        let bodies: [&[&'static [u8]]; 4] = [&[], &[b""], &[b"abcdef"], &[b"abc", b"", b"de", b"f"]];
        for parts in bodies {
            let whole: Vec<u8> = parts.concat();
            assert_eq!(read_body(pieces(parts), whole.len(), SECOND).await.unwrap(), whole);
            if !whole.is_empty() {
                let error = read_body(pieces(parts), whole.len() - 1, SECOND).await.unwrap_err();
                assert_eq!(error.code, ErrorCode::TooLarge);
            }
        }
        let error = read_body(Body::from("announced"), 8, SECOND).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
    }

    /// Goal: a body that stops is given up at the time limit.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up() {
        let body = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read_body(body, 8, SECOND).await.unwrap_err().code, ErrorCode::RequestTimeout);
    }
}
