//! The body of an answer: a long text goes in the pieces in which it is there, so that it is not copied to become one.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::held::PIECE_BYTES;

/// A text, one piece behind the other.
#[derive(Debug)]
pub(crate) struct Text(VecDeque<Bytes>);

impl Text {
    /// Of these pieces; a short text is one.
    pub(crate) fn of<const PIECES: usize>(pieces: [String; PIECES]) -> Self {
        if pieces.iter().map(String::len).sum::<usize>() <= PIECE_BYTES {
            return Self([Bytes::from(pieces.concat())].into());
        }
        Self(pieces.into_iter().filter(|piece| !piece.is_empty()).map(Bytes::from).collect())
    }
}

impl From<Text> for Body {
    fn from(text: Text) -> Self {
        Self::new(text)
    }
}

impl HttpBody for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// Goal: a text comes whole and says how long it is, be it short and one piece, or long and several.
    #[tokio::test]
    async fn texts_come_whole() {
        for (long, frames) in [(0, 1), (PIECE_BYTES - 2, 1), (PIECE_BYTES - 1, 3), (PIECE_BYTES * 3, 3)] {
            let pieces = ["[".to_owned(), "1".repeat(long), "]".to_owned()];
            let whole = pieces.concat();
            let text = Text::of(pieces);
            assert_eq!((text.0.len(), text.size_hint().exact()), (frames, Some(whole.len() as u64)));
            assert_eq!(text.collect().await.expect("it does not fail").to_bytes(), whole);
        }
    }
}
