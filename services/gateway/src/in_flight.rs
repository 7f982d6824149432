//! A bound on the bytes of request bodies that are being read or worked on, over all connections.
//!
//! Limits per request do not bound memory: many senders may each stay below them. Here every byte of a body is counted
//! as it arrives, and the request that would pass the bound is refused while the others go on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use types::{ApiError, ErrorCode};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The bytes in flight of a gateway and their bound.
#[derive(Debug)]
pub(crate) struct InFlight {
    // Relaxed everywhere: the count orders nothing, and a read-modify-write never loses an update.
    bytes: AtomicU64,
    bytes_max: u64,
}

impl InFlight {
    /// No bytes yet, at most `bytes_max` to come.
    #[must_use]
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }

    /// A share that holds nothing yet, for one request or stream.
    #[must_use]
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share(Arc::new(Held { total: Arc::clone(self), bytes: AtomicU64::new(0), broke_off: AtomicBool::new(false) }))
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
            return Err(refusal());
        }
        self.0.bytes.fetch_add(bytes, Relaxed);
        Ok(())
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
        self.0.broke_off.load(Relaxed).then(refusal)
    }

    /// A body that holds its bytes as they arrive.
    pub(crate) fn meter<B>(&self, body: B) -> UnsyncBoxBody<Bytes, BoxError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        UnsyncBoxBody::new(Metered { body: Box::pin(body), share: self.clone() })
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

fn refusal() -> ApiError {
    ApiError::new(ErrorCode::ResourceExhausted, "too many bytes of requests are under way, try again later")
        .with_field("requests_in_flight")
        .with_retry_after(Duration::from_secs(1))
}

struct Metered<B> {
    body: Pin<Box<B>>,
    share: Share,
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) else { return Poll::Pending };
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
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    /// Goal: what is held never passes the bound, is given back to the byte, and a refusal leaves the others alone.
    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_given_back() {
        let total = InFlight::new(10);
        let (a, b) = (total.share(), total.share());
        a.hold(6).unwrap();
        assert_eq!(b.hold(5).unwrap_err().code, ErrorCode::ResourceExhausted);
        assert!(b.refused().is_none(), "its body, as that of a stream, goes on");
        b.hold(4).unwrap();
        a.give_back(100);
        assert_eq!(total.bytes.load(Relaxed), 4);
        drop(a.holding(3).unwrap());
        assert_eq!(total.bytes.load(Relaxed), 4, "a share that goes on, as that of a stream, gets it back");
        let more = b.holding(2).unwrap();
        assert!(b.holding(5).is_err());
        drop(b);
        assert_eq!(total.bytes.load(Relaxed), 6, "what waits is held although its request is gone");
        drop(more);
        assert_eq!(total.bytes.load(Relaxed), 0);
        let body = a.meter(Full::new(Bytes::from_static(b"12345678901")));
        assert!(body.collect().await.is_err());
        assert!(a.refused().is_some() && total.share().refused().is_none());
        drop(a);
        assert_eq!(total.bytes.load(Relaxed), 0);
        let c = total.share();
        assert_eq!(c.meter(Full::new(Bytes::from_static(b"1234567890"))).collect().await.unwrap().to_bytes().len(), 10);
        assert_eq!(total.bytes.load(Relaxed), 10);
    }
}
