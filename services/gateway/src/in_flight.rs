//! Bounds on the bytes of request bodies, over all connections: on those that are being read or worked on, and on those
//! that wait for their ack.
//!
//! 1. Limits per request do not bound memory: many senders may each stay below them. Here every byte of a body is counted
//!    as it arrives, and the request that would pass the bound is refused while the others go on.
//! 2. Bodies that fit in memory may still be too many: who waits for seconds has given up meanwhile, and what lies about for
//!    seconds has left the processor's caches when its turn comes. So no more bytes wait between their body's end and their ack
//!    than become durable in [`ROOM_FOR`] at the pace of the last seconds (Little's law). A request is held against this
//!    room by its headers, before its body is read, and again when its body is whole. Bodies that are still on their way do
//!    not count: slow senders take nobody's room.
//! 3. A request that finds no room stands in line for it, at most [`WAIT_MAX`], and is refused then. There are two lines: first
//!    those whose bodies are here and take memory, then those by their headers; in each it is first come, first served, and
//!    nobody passes. Of the latter as many are called as bodies go and count, and with each look at the pace as many as there is
//!    room for, for some of them send slowly, or not at all. The body of who stands in line by its headers stays with its
//!    sender, but for the windows of HTTP/2. To refuse it at once would cost more than to let it wait: senders who are
//!    refused send again, or send the next, and each refusal takes work from the threads of those who were let in. Where
//!    refusals came at once, in one run on a busy machine, seven of eight requests were refused and half as much was taken
//!    (docs/decisions/0015).

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use admission::overload::spread;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    sync::{Mutex, Notify},
    time::timeout,
};
use types::{ApiError, ErrorCode};

use crate::admission::RETRY_AFTER_LEAST;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long whole bodies wait for their ack, about: a few commits of the log.
pub(crate) const ROOM_FOR: Duration = Duration::from_millis(250);
/// How long a request stands in line for room, or for a decode thread, at most.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests that stand in line for room.
const LINE_MAX: usize = 4_096;
/// Room that there is at any pace, bytes: a burst after a pause finds it.
const ROOM_LEAST: u64 = 16 << 20;

/// The bytes in flight of a gateway and their bounds.
#[derive(Debug)]
pub(crate) struct InFlight {
    // Relaxed everywhere: the figures order nothing, and a read-modify-write never loses an update.
    bytes: AtomicU64,
    bytes_max: u64,
    /// Bytes of whole bodies that have no ack yet.
    waiting: AtomicU64,
    /// Nobody is let in where at least so many wait.
    room: AtomicU64,
    /// Requests that stand in line for room before their bodies are read.
    by_headers: Line,
    /// Those that do with their bodies here.
    whole: Line,
    /// Held by the first of `whole`.
    first: Mutex<()>,
    /// Bytes of bodies that were acked, ever.
    acked: AtomicU64,
    /// How many bodies that were.
    acked_bodies: AtomicU64,
    /// Spreads the times to come back.
    refusals: AtomicU64,
}

/// A line for room.
#[derive(Debug, Default)]
struct Line {
    standing: AtomicUsize,
    /// Calls who stands first.
    call: Notify,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.standing.load(Relaxed) == 0
    }
}

impl InFlight {
    /// No bytes yet, at most `bytes_max` to come. `salt` spreads the times to come back.
    #[must_use]
    pub(crate) fn new(bytes_max: u64, salt: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            bytes_max,
            waiting: AtomicU64::new(0),
            room: AtomicU64::new(ROOM_LEAST.min(bytes_max)),
            by_headers: Line::default(),
            whole: Line::default(),
            first: Mutex::new(()),
            acked: AtomicU64::new(0),
            acked_bodies: AtomicU64::new(0),
            refusals: AtomicU64::new(salt),
        })
    }

    /// A share that holds nothing yet, for one request or stream.
    #[must_use]
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share(Arc::new(Held { total: Arc::clone(self), bytes: AtomicU64::new(0), broke_off: AtomicBool::new(false) }))
    }

    /// Waits until there is room for one more, whose body is still with its sender.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where there is none in time, or too many stand in line for it.
    pub(crate) async fn enter(&self) -> Result<(), ApiError> {
        if self.by_headers.is_empty() && self.has_room() {
            return Ok(());
        }
        // On the heap, so that calls that do not stand in line are not larger by that.
        Box::pin(self.stand_by_headers()).await
    }

    async fn stand_by_headers(&self) -> Result<(), ApiError> {
        let _place = self.place_in(&self.by_headers)?;
        let mut call = pin!(self.by_headers.call.notified());
        // From here on no call is missed. Whoever made room a moment before may have found the line empty.
        call.as_mut().enable();
        if self.by_headers.standing.load(Relaxed) == 1 && self.has_room() {
            return Ok(());
        }
        // Called is let in. To look again would be to give up the turn: who looks in vain stands at the end.
        timeout(WAIT_MAX, call).await.map_err(|_| self.refusal())
    }

    /// Waits until there is room for a body that is here, and counts it.
    async fn count(&self, bytes: u64) -> Result<(), ApiError> {
        if self.whole.is_empty() && self.has_room() {
            self.waiting.fetch_add(bytes, Relaxed);
            return Ok(());
        }
        Box::pin(self.stand_with_body(bytes)).await
    }

    async fn stand_with_body(&self, bytes: u64) -> Result<(), ApiError> {
        let _place = self.place_in(&self.whole)?;
        let counted = async {
            // One after the other, in the order in which they came: only the first looks, and counts before the next does.
            let _first = self.first.lock().await;
            loop {
                let mut call = pin!(self.whole.call.notified());
                // From here on no call is missed; the look comes after it.
                call.as_mut().enable();
                if self.has_room() {
                    break;
                }
                call.await;
            }
            self.waiting.fetch_add(bytes, Relaxed);
        };
        timeout(WAIT_MAX, counted).await.map_err(|_| self.refusal())
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Relaxed) < self.room.load(Relaxed)
    }

    fn place_in<'a>(&'a self, line: &'a Line) -> Result<PlaceInLine<'a>, ApiError> {
        let standing = self.by_headers.standing.load(Relaxed) + self.whole.standing.load(Relaxed);
        line.standing.fetch_add(1, Relaxed);
        let place = PlaceInLine(&line.standing);
        if standing < LINE_MAX { Ok(place) } else { Err(self.refusal()) }
    }

    /// Calls who stands first in line, if there is room: those whose bodies are here and take memory go before the others. One
    /// call for one change is enough where the change is a body that counts, or goes: of who is called by its headers both follow.
    fn call_next(&self) {
        if !self.has_room() {
            return;
        }
        if !self.whole.is_empty() {
            self.whole.call.notify_one();
        } else if !self.by_headers.is_empty() {
            self.by_headers.call.notify_one();
        }
    }

    /// Calls as many by their headers as have room with bodies of the mean size. Who was called and sends slowly, or never, calls
    /// nobody: without this the others would stand before an idle server.
    fn call_for_all_room(&self) {
        self.call_next();
        let free = self.room.load(Relaxed).saturating_sub(self.waiting.load(Relaxed));
        if free == 0 || !self.whole.is_empty() {
            return;
        }
        let mean = self.acked.load(Relaxed).checked_div(self.acked_bodies.load(Relaxed)).unwrap_or(free).max(1);
        let standing = self.by_headers.standing.load(Relaxed) as u64;
        // One was called before.
        (1..(free / mean).min(standing)).for_each(|_| self.by_headers.call.notify_one());
    }

    /// Bytes of bodies that were acked so far.
    pub(crate) fn acked_bytes(&self) -> u64 {
        self.acked.load(Relaxed)
    }

    /// Makes room for the bytes that are acked in [`ROOM_FOR`].
    pub(crate) fn set_room(&self, bytes: u64) {
        let room = bytes.max(ROOM_LEAST).min(self.bytes_max);
        self.room.store(room, Relaxed);
        self.call_for_all_room();
        metrics::gauge!("truenow_ingest_room_bytes").set(room as f64);
        metrics::gauge!("truenow_ingest_waiting_bytes").set(self.waiting.load(Relaxed) as f64);
    }

    fn refusal(&self) -> ApiError {
        metrics::counter!("truenow_ingest_limited_total", "limit" => "requests_in_flight").increment(1);
        ApiError::new(ErrorCode::ResourceExhausted, "too many bytes of requests are under way, try again later")
            .with_field("requests_in_flight")
            .with_retry_after(spread(RETRY_AFTER_LEAST, self.refusals.fetch_add(1, Relaxed)))
    }
}

#[derive(Debug)]
struct Held {
    total: Arc<InFlight>,
    bytes: AtomicU64,
    /// The body was refused while it arrived: nothing more of it comes.
    broke_off: AtomicBool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.bytes.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

/// What one request holds of the bytes in flight; given back when its last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Held>);

impl Share {
    /// Holds more bytes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where all requests together would hold more than the bound; nothing more is held then.
    pub(crate) fn hold(&self, bytes: u64) -> Result<(), ApiError> {
        let total = &self.0.total;
        if total.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > total.bytes_max {
            total.bytes.fetch_sub(bytes, Relaxed);
            return Err(total.refusal());
        }
        self.0.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// A whole body that waits for its ack from now on.
    ///
    /// # Errors
    /// As [`InFlight::enter`].
    pub(crate) async fn wait(&self, bytes: u64) -> Result<Waiting, ApiError> {
        let total = Arc::clone(&self.0.total);
        total.count(bytes).await?;
        total.call_next();
        Ok(Waiting { total, bytes })
    }

    /// Holds more bytes for as long as the value lives, which may be longer than the request.
    ///
    /// # Errors
    /// As [`Share::hold`].
    pub(crate) fn holding(&self, bytes: u64) -> Result<Holding, ApiError> {
        self.hold(bytes)?;
        Ok(Holding { share: Some(self.clone()), bytes })
    }

    /// Gives back bytes of what is held, for streams whose share outlives a message.
    pub(crate) fn give_back(&self, bytes: u64) {
        let before = self.0.bytes.fetch_update(Relaxed, Relaxed, |held| Some(held.saturating_sub(bytes)));
        let before = before.expect("the closure always gives a value");
        self.0.total.bytes.fetch_sub(bytes.min(before), Relaxed);
    }

    /// The refusal that ended the body, if one did: its reader sees only that it broke off. What [`Share::hold`] refuses its
    /// caller knows; the body of a stream goes on after that, and may end for another reason.
    #[must_use]
    pub(crate) fn refused(&self) -> Option<ApiError> {
        self.0.broke_off.load(Relaxed).then(|| self.0.total.refusal())
    }

    /// A body that holds its bytes as they arrive.
    pub(crate) fn meter<B>(&self, body: B) -> Metered<B> {
        Metered { body, share: self.clone() }
    }
}

/// More bytes of a request, for as long as this lives: what was made of its body, and what waits on behalf of it.
#[derive(Debug)]
pub(crate) struct Holding {
    share: Option<Share>,
    bytes: u64,
}

impl Holding {
    /// Holds nothing.
    #[cfg(test)]
    pub(crate) const fn nothing() -> Self {
        Self { share: None, bytes: 0 }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.give_back(self.bytes);
        }
    }
}

/// A body that waits for its ack, for as long as this lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct Waiting {
    total: Arc<InFlight>,
    bytes: u64,
}

impl Waiting {
    /// The ack is there.
    pub(crate) fn acked(self) {
        self.total.acked.fetch_add(self.bytes, Relaxed);
        self.total.acked_bodies.fetch_add(1, Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.total.waiting.fetch_sub(self.bytes, Relaxed);
        self.total.call_next();
    }
}

/// A place in the line for room; given up when it is dropped.
struct PlaceInLine<'a>(&'a AtomicUsize);

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A body whose bytes its request holds.
#[derive(Debug)]
pub(crate) struct Metered<B> {
    body: B,
    share: Share,
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return Poll::Pending };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            if let Some(data) = frame.data_ref() {
                self.share.hold(data.len() as u64).inspect_err(|_| self.share.0.broke_off.store(true, Relaxed))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
