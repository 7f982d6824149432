//! A connection's bytes: those already read come first, those that pass are counted, and a client that stops reading is
//! cut off, so that what waits for it does not stay in memory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use metrics::Counter;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// What every HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Counters of the bytes of a port.
#[derive(Clone)]
pub(crate) struct ByteCounters {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// A connection that is guarded as the module says.
pub(crate) struct GuardedStream {
    stream: TcpStream,
    /// Bytes that were read to learn the version.
    first: Bytes,
    write_timeout: Duration,
    write_timer: Option<Pin<Box<Sleep>>>,
    bytes: ByteCounters,
}

/// Reads as much as it takes to learn the version. The caller bounds its time: a client may stop after any byte.
///
/// # Errors
/// The connection ended or failed.
pub(crate) async fn accept_version(
    mut stream: TcpStream,
    write_timeout: Duration,
    bytes: ByteCounters,
) -> io::Result<(Version, GuardedStream)> {
    let mut first = Vec::with_capacity(HTTP2_PREFACE.len());
    let version = loop {
        let missing = HTTP2_PREFACE.len() - first.len();
        if missing == 0 {
            break Version::Http2;
        }
        if (&mut stream).take(missing as u64).read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2_PREFACE.starts_with(&first) {
            break Version::Http1;
        }
    };
    bytes.received.increment(first.len() as u64);
    let first = Bytes::from(first);
    Ok((version, GuardedStream { stream, first, write_timeout, write_timer: None, bytes }))
}

impl GuardedStream {
    /// Passes a write's outcome on; one that has waited too long fails.
    fn guard<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            return outcome;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        match timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = outcome {
            self.bytes.sent.increment(count as u64);
        }
        self.guard(cx, outcome)
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let count = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.bytes.received.increment((buffer.filled().len() - before) as u64);
        outcome
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.guard(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.guard(cx, outcome)
    }
}
