//! The one message of a unary gRPC call, as the bytes that the network delivered.
//!
//! A reader of streams copies every piece of a body into a buffer of its own, as messages may begin and end anywhere in it.
//! Here the body is one message, and a batch of columns mostly comes as one piece: then nothing is copied, and the log
//! writes from the memory that the socket was read into.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tonic::Status;

/// What gRPC puts before a message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Reads a body to its end: one message of at most `bytes_max` bytes.
///
/// # Errors
/// `OUT_OF_RANGE` as soon as it says that it is longer, `INTERNAL` for what is no message (as tonic has it), `INVALID_ARGUMENT`
/// for none or several; and what breaks the body off.
pub(crate) async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let mut gathered = Gathered::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            gathered.add(data, bytes_max)?;
        }
    }
    gathered.message()
}

/// A message that is read, within a time. Mostly it is there when its headers are, and then costs no timer.
///
/// # Errors
/// `DEADLINE_EXCEEDED` where it does not come in time; or those of reading it.
pub(crate) async fn in_time(
    message: impl Future<Output = Result<Bytes, Status>>,
    limit: Duration,
) -> Result<Bytes, Status> {
    let mut message = pin!(message);
    if let Poll::Ready(message) = poll_fn(|cx| Poll::Ready(message.as_mut().poll(cx))).await {
        return message;
    }
    // On the heap, so that calls that need none are not larger by a timer.
    let message = Box::pin(tokio::time::timeout(limit, message)).await;
    message.map_err(|_| Status::deadline_exceeded("the message did not arrive in time"))?
}

/// What has come so far.
#[derive(Debug, Default)]
struct Gathered {
    /// The only piece, or else none.
    first: Bytes,
    /// All pieces, where there are several.
    all: BytesMut,
    /// Prefix and message together, once the prefix is there.
    wanted: Option<usize>,
}

impl Gathered {
    fn add(&mut self, data: Bytes, bytes_max: usize) -> Result<(), Status> {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
        } else {
            if self.all.is_empty() {
                let first = std::mem::take(&mut self.first);
                self.all.reserve(self.wanted.unwrap_or_default().max(first.len() + data.len()));
                self.all.extend_from_slice(&first);
            }
            self.all.extend_from_slice(&data);
        }
        let bytes = if self.all.is_empty() { &*self.first } else { &*self.all };
        if self.wanted.is_none() {
            self.wanted = wanted(bytes, bytes_max)?;
        }
        match self.wanted {
            Some(wanted) if bytes.len() > wanted => Err(Status::invalid_argument("the call has more than one message")),
            _ => Ok(()),
        }
    }

    fn message(self) -> Result<Bytes, Status> {
        let mut bytes = if self.all.is_empty() { self.first } else { self.all.freeze() };
        if bytes.is_empty() {
            return Err(Status::invalid_argument("the call has no message"));
        }
        if self.wanted != Some(bytes.len()) {
            return Err(Status::internal("the message is cut off"));
        }
        bytes.advance(PREFIX_BYTES);
        Ok(bytes)
    }
}

/// Bytes of prefix and message, by the prefix; `None` where it is not there yet.
fn wanted(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if compressed != 0 {
        return Err(Status::internal("the message says that it is compressed, and no compression was agreed upon"));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > bytes_max {
        return Err(Status::out_of_range(format!("the message has {length} bytes, the limit is {bytes_max}")));
    }
    Ok(Some(PREFIX_BYTES + length))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::FutureExt as _;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn read_pieces(pieces: Vec<Bytes>, bytes_max: usize) -> Result<Bytes, Status> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        read(StreamBody::new(tokio_stream::iter(frames)), bytes_max).now_or_never().expect("all of it is there")
    }

    proptest! {
        /// Goal: however a body is cut into pieces, its message is the one that was framed; one byte less or more, or a limit
        /// below its length, is refused.
        #[test]
        fn messages_come_whole(message in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(0_usize..206, 0..6)) {
            let bytes = Bytes::from(framed(&message));
            let cut = |bytes: &Bytes| {
                let mut at: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([0, bytes.len()]).collect();
                at.sort_unstable();
                at.windows(2).map(|ends| bytes.slice(ends[0]..ends[1])).collect::<Vec<_>>()
            };
            prop_assert_eq!(&read_pieces(cut(&bytes), message.len()).unwrap()[..], &message[..]);
            let code = |bytes: &Bytes, bytes_max| read_pieces(cut(bytes), bytes_max).unwrap_err().code();
            let shorter = bytes.slice(..bytes.len() - 1);
            prop_assert_eq!(code(&shorter, 200), Code::Internal);
            let longer = Bytes::from([&bytes[..], &[7]].concat());
            prop_assert_eq!(code(&longer, 200), Code::InvalidArgument);
            if let Some(less) = message.len().checked_sub(1) {
                prop_assert_eq!(code(&bytes, less), Code::OutOfRange);
            }
        }
    }

    /// Goal: a body that comes as one piece is not copied.
    #[test]
    fn one_piece_is_not_copied() {
        let bytes = Bytes::from(framed(&[1; 1_000]));
        let message = read(Full::new(bytes.clone()), 1_000).now_or_never().unwrap().unwrap();
        assert_eq!(message.as_ptr(), bytes[PREFIX_BYTES..].as_ptr());
    }

    /// Goal: a message that says it is compressed is none, and a body without bytes has none.
    #[test]
    fn no_message_is_refused() {
        assert_eq!(read_pieces(vec![Bytes::from_static(&[1, 0, 0, 0, 0])], 9).unwrap_err().code(), Code::Internal);
        assert_eq!(read_pieces(vec![Bytes::new()], 9).unwrap_err().code(), Code::InvalidArgument);
    }
}
