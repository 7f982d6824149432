//! The time limit of a request's body, whoever reads it.
//!
//! 1. The clock runs only while a reader waits for the client; a slow reader costs the client nothing.
//! 2. An HTTP body has one limit for the whole of it, so that a byte now and then does not keep it open.
//! 3. A gRPC stream may be quiet between its messages for as long as it likes, but a message that has begun, if only by
//!    its length, must be complete within the limit: memory is reserved for it by then.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// Bytes before each gRPC message: a flag and the length.
const MESSAGE_HEADER_BYTES: usize = 5;

/// The body was not complete in time.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was not complete after {timeout:?}")]
pub(crate) struct BodyStalled {
    /// The limit.
    pub(crate) timeout: Duration,
}

/// A request's body that fails when it does not arrive in time.
pub(crate) struct TimedBody {
    inner: Body,
    timeout: Duration,
    /// `None`: the limit is for the whole body.
    messages: Option<MessageBounds>,
    /// Made at the first wait, so that a body that is there already costs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    /// A limit for the whole of `inner`; its failure is a [`BodyStalled`].
    pub(crate) fn whole(inner: Body, timeout: Duration) -> Self {
        Self { inner, timeout, messages: None, timer: None }
    }

    /// A limit for each gRPC message in `inner`; its failure is a [`Status`].
    pub(crate) fn per_message(inner: Body, timeout: Duration) -> Self {
        Self { inner, timeout, messages: Some(MessageBounds::default()), timer: None }
    }

    fn stalled(&self) -> axum::Error {
        match self.messages {
            None => axum::Error::new(BodyStalled { timeout: self.timeout }),
            Some(_) => {
                let message = format!("the message was not complete after {} ms", self.timeout.as_millis());
                axum::Error::new(Status::deadline_exceeded(message))
            }
        }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            if let (Some(messages), Some(Ok(frame))) = (&mut this.messages, &frame)
                && let Some(data) = frame.data_ref()
                && messages.advance(data)
            {
                // A message ended in this piece: the next one has a limit of its own.
                this.timer = None;
            }
            return Poll::Ready(frame);
        }
        if this.messages.as_ref().is_some_and(MessageBounds::is_between) {
            return Poll::Pending;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(this.stalled())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where in a stream of gRPC messages the data ends that has arrived so far.
#[derive(Debug, Default)]
struct MessageBounds {
    header: [u8; MESSAGE_HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the message that are still to come, once its header is complete.
    body_bytes: u32,
}

impl MessageBounds {
    /// Whether no message has begun.
    fn is_between(&self) -> bool {
        self.header_bytes == 0
    }

    /// Takes the next piece of data; whether a message ended in it.
    fn advance(&mut self, mut data: &[u8]) -> bool {
        let mut ended = false;
        while !data.is_empty() {
            if self.header_bytes < MESSAGE_HEADER_BYTES {
                self.header[self.header_bytes] = data.get_u8();
                self.header_bytes += 1;
                if self.header_bytes < MESSAGE_HEADER_BYTES {
                    continue;
                }
                let [_, length @ ..] = self.header;
                self.body_bytes = u32::from_be_bytes(length);
            } else {
                let taken = data.len().min(self.body_bytes as usize);
                data.advance(taken);
                self.body_bytes -= u32::try_from(taken).expect("taken is at most body_bytes");
            }
            if self.body_bytes == 0 {
                self.header_bytes = 0;
                ended = true;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio_stream::StreamExt as _;

    use super::*;

    /// Goal: message bounds are found wherever the pieces are cut.
    #[test]
    fn bounds_do_not_depend_on_the_cut() {
        let stream = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1], b"d"].concat();
        let ends = [8, 13, 19];
        for size in 1..=stream.len() {
            let mut bounds = MessageBounds::default();
            let mut seen = 0;
            for piece in stream.chunks(size) {
                let before = seen;
                seen += piece.len();
                let expected = ends.iter().any(|end| before < *end && *end <= seen);
                assert_eq!(bounds.advance(piece), expected, "pieces of {size}, at {seen}");
                assert_eq!(bounds.is_between(), ends.contains(&seen), "pieces of {size}, at {seen}");
            }
        }
    }

    fn then_silence(data: &'static [u8]) -> Body {
        let data = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from_static(data)));
        Body::from_stream(data.chain(tokio_stream::pending()))
    }

    /// Goal: a message that has begun is timed, silence between messages is not, and a whole body always is.
    #[tokio::test(start_paused = true)]
    async fn only_what_has_begun_is_timed() {
        let limit = Duration::from_secs(1);
        let day = Duration::from_secs(86_400);
        let begun = TimedBody::per_message(then_silence(&[0, 0, 0, 64, 0]), limit).collect();
        let error = tokio::time::timeout(day, begun).await.expect("it gives up").unwrap_err();
        assert_eq!(Status::from_error(Box::new(error)).code(), tonic::Code::DeadlineExceeded);

        let between = TimedBody::per_message(then_silence(&[0, 0, 0, 0, 1, 7]), limit).collect();
        assert!(tokio::time::timeout(day, between).await.is_err(), "a quiet stream stays open");

        let whole = TimedBody::whole(then_silence(b"abc"), limit).collect();
        assert!(tokio::time::timeout(day, whole).await.expect("it gives up").is_err());
    }
}
