//! Answers while their clients take them: bounded by bytes, and given up where nothing is taken.
//!
//! What a client does not take lies in this process, and a connection that is alive says nothing about one of its streams,
//! whose window may stay closed for as long as the client likes.
//!
//! 1. The text of an answer is counted from before its query gives back its place until its last byte went to the transport;
//!    where there is too much of it, an answer is refused.
//! 2. A body hands on pieces of bounded size, copied, so that what waits in the transport keeps no more than that.
//! 3. The first piece is taken by the query's deadline, each other one within its timeout after the one before. Else the
//!    answer goes, whether anybody asks for more or not; whoever asks later is told.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    http::HeaderMap,
    response::Response,
};
use bytes::{Buf as _, Bytes};
use hyper::body::{Frame, SizeHint};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use service::Protocol;
use tokio::task::JoinHandle;
use types::{ApiError, ErrorCode};

/// Bytes that a body hands on at a time.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// Bytes of the text of all answers that are not taken yet.
const UNSENT_BYTES_MAX: usize = 512 << 20;
/// This share of them is for answers of one piece: clients that are slow with long ones do not stop those.
const SHORT_SHARE: usize = 8;
/// What an answer takes beside its text, at least.
const ANSWER_BYTES_MIN: usize = 4 << 10;

/// The bytes of answers that are not taken yet.
pub(crate) struct Unsent {
    // Relaxed: a count that publishes nothing else.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Bytes that count for as long as this lives.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Unsent {
    pub(crate) fn new() -> Self {
        describe_gauge!("truenow_query_unsent_bytes", "Text of answers that clients have not taken yet.");
        describe_counter!("truenow_query_given_up_total", "Answers of which a client took nothing for too long.");
        Self { bytes: Arc::default(), bytes_max: UNSENT_BYTES_MAX }
    }

    /// Counts a text of so many bytes.
    ///
    /// # Errors
    /// `TOO_LARGE` where it is longer than all together may be, `RESOURCE_EXHAUSTED` where too much is not taken yet.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share, ApiError> {
        let long_max = self.bytes_max - self.bytes_max / SHORT_SHARE;
        let bytes_max = if bytes <= PIECE_BYTES { self.bytes_max } else { long_max };
        if bytes > bytes_max {
            return Err(too_long(bytes, bytes_max));
        }
        let bytes = bytes.max(ANSWER_BYTES_MIN);
        let taken =
            self.bytes.fetch_update(Relaxed, Relaxed, |taken| Some(taken + bytes).filter(|all| *all <= bytes_max));
        taken.map_err(|_| too_much())?;
        gauge!("truenow_query_unsent_bytes").increment(bytes as f64);
        Ok(Share { bytes, of: Arc::clone(&self.bytes) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Relaxed);
        gauge!("truenow_query_unsent_bytes").decrement(self.bytes as f64);
    }
}

fn too_long(bytes: usize, bytes_max: usize) -> ApiError {
    let message = format!(
        "the answer has {} MiB, more than the {} MiB that answers may have; ask for fewer rows or columns",
        bytes >> 20,
        bytes_max >> 20
    );
    ApiError::new(ErrorCode::TooLarge, message).with_field("limit")
}

fn too_much() -> ApiError {
    let message = "the answers that clients have not taken yet leave no room for another one; try again later";
    let error = ApiError::new(ErrorCode::ResourceExhausted, message);
    error.with_field("queries").with_retry_after(Duration::from_secs(1))
}

fn not_taken() -> ApiError {
    let message = "nothing of the answer was taken for its timeout_ms; read faster, raise it, or ask for fewer rows";
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("timeout_ms")
}

/// Until when an answer waits for its client; among the extensions of the response.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// By when the first piece is taken.
    pub(crate) until: Instant,
    /// How long after a piece the next one is taken.
    pub(crate) timeout: Duration,
    /// Of its text.
    pub(crate) share: Arc<Share>,
}

/// Holds the body of an answer; other responses go as they are.
pub(crate) fn hold(mut response: Response, protocol: Protocol) -> Response {
    match response.extensions_mut().remove::<Held>() {
        Some(held) => response.map(|body| Body::new(HeldBody::new(body, held, protocol))),
        None => response,
    }
}

/// The body of an answer. All that it needs of memory is in `kept`, which its timer empties.
struct HeldBody {
    kept: Arc<Mutex<Kept>>,
    timer: JoinHandle<()>,
    protocol: Protocol,
}

struct Kept {
    /// `None`: it was sent, or given up.
    content: Option<Content>,
    until: Instant,
    timeout: Duration,
    is_given_up: bool,
}

struct Content {
    body: Body,
    /// Of a frame of the body that is longer than a piece.
    rest: Bytes,
    _share: Arc<Share>,
}

impl HeldBody {
    fn new(body: Body, Held { until, timeout, share }: Held, protocol: Protocol) -> Self {
        let content = Some(Content { body, rest: Bytes::new(), _share: share });
        let kept = Arc::new(Mutex::new(Kept { content, until, timeout, is_given_up: false }));
        let timer = tokio::spawn(give_up(Arc::clone(&kept)));
        Self { kept, timer, protocol }
    }
}

/// Empties what is kept when its time is over.
async fn give_up(kept: Arc<Mutex<Kept>>) {
    loop {
        let until = lock(&kept).until;
        tokio::time::sleep_until(until.into()).await;
        let mut kept = lock(&kept);
        if kept.until == until {
            if kept.content.take().is_some() {
                kept.is_given_up = true;
                counter!("truenow_query_given_up_total").increment(1);
            }
            return;
        }
    }
}

/// Locks. A panic while it was held, of the body inside, leaves that one broken alone.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.timer.abort();
        lock(&self.kept).content = None;
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let mut kept = lock(&self.kept);
        if std::mem::take(&mut kept.is_given_up) {
            return Poll::Ready(Some(cut(self.protocol)));
        }
        let Some(content) = &mut kept.content else { return Poll::Ready(None) };
        let frame = ready!(content.poll(cx));
        if matches!(frame, Some(Ok(_))) {
            // Asked for a frame, the client has taken those before.
            kept.until = kept.until.max(tokio::time::Instant::now().into_std() + kept.timeout);
        } else {
            kept.content = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = lock(&self.kept);
        let is_sent = |content: &Content| content.rest.is_empty() && content.body.is_end_stream();
        !kept.is_given_up && kept.content.as_ref().is_none_or(is_sent)
    }

    fn size_hint(&self) -> SizeHint {
        let kept = lock(&self.kept);
        let Some(content) = &kept.content else { return SizeHint::default() };
        let (body, rest) = (content.body.size_hint(), content.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        body.upper().into_iter().for_each(|upper| hint.set_upper(upper + rest));
        hint
    }
}

impl Content {
    /// The next frame; of data no more than a piece.
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.len() > PIECE_BYTES => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let bytes = self.rest.len().min(PIECE_BYTES);
        let piece = Bytes::copy_from_slice(&self.rest[..bytes]);
        self.rest.advance(bytes);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// How an answer ends that was given up: its connection or stream is cut, which over gRPC has words for it.
fn cut(protocol: Protocol) -> Result<Frame<Bytes>, axum::Error> {
    match protocol {
        Protocol::Http => Err(axum::Error::new(not_taken())),
        Protocol::Grpc => {
            let mut trailers = HeaderMap::new();
            service::to_status(&not_taken()).add_header(&mut trailers).expect("the message is plain ASCII");
            Ok(Frame::trailers(trailers))
        }
    }
}

#[cfg(test)]
mod tests;
