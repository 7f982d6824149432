//! The one accept loop, for HTTP and for gRPC ports alike.
//!
//! 1. A connection has a limit for everything that it can make the server wait for or keep: version, headers, streams,
//!    pings, writes. The libraries' defaults have none for several of them.
//! 2. The loop survives every error of `accept`; beyond the connection limit a new one is closed at once, so that those
//!    that are open stay served.
//! 3. At shutdown the port closes first; connections finish the requests under way and are cut after the drain timeout.

use std::{io, pin::pin, time::Duration};

use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use metrics::{Counter, Gauge, counter, gauge};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Calls, Shutdown,
    calls::{Accepted, WithCalls},
    direct::PortService,
    io::{ByteCounters, Version, accept_version},
    unread::Unread,
};

/// All headers of a request together, bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Requests under way on one HTTP/2 connection.
const STREAMS_MAX: u32 = 200;
/// Calls on a connection that were given up before they were looked at, beyond which the connection is closed: as many as a client may
/// have under way, as one that gives up on a busy server gives them all up at once. (The usual 20 are fewer than hedged queries are.)
const GIVEN_UP_MAX: usize = STREAMS_MAX as usize;
/// How often a quiet HTTP/2 connection is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it has to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a client may send on one HTTP/2 stream before the server has read it, bytes; a connection's window is of [`Unread`].
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Largest HTTP/2 frame that a client may send, bytes: columns come in few large pieces.
const FRAME_BYTES_MAX: u32 = 256 << 10;
/// What waits for a client to read it, per HTTP/2 stream, bytes.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// How long `accept` rests when the system has no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of a listening port; `config` holds the defaults.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Connections, at most.
    pub connections_max: usize,
    /// How long a request's headers may take, and how long a connection may stay without a request (HTTP/1).
    pub header_timeout: Duration,
    /// How long a request's body, or one gRPC message, may take.
    pub body_timeout: Duration,
    /// How long a client may read nothing of what is written to it.
    pub write_timeout: Duration,
    /// How long requests under way may take at shutdown.
    pub drain_timeout: Duration,
    /// What clients may have sent over HTTP/2 before anybody reads it, over all ports with clones of these limits.
    pub unread: Unread,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            unread: Unread::default(),
        }
    }
}

/// What a port speaks; it decides the shape of errors and the label `protocol` of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// Its name as a label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Everything that a connection's task needs; cheap to clone.
#[derive(Clone)]
struct Port {
    answers: PortService,
    calls: Calls,
    limits: HttpLimits,
    stop: Shutdown,
    bytes: ByteCounters,
    open: Gauge,
    refused: Counter,
}

/// Serves `answers` on `listener` until `stop`, then drains. Returns the number of connections that had to be cut.
pub(crate) async fn serve(
    listener: TcpListener,
    answers: PortService,
    service: &'static str,
    (protocol, calls): (Protocol, Calls),
    limits: HttpLimits,
    stop: Shutdown,
) -> usize {
    let protocol = protocol.name();
    let bytes = |direction: &'static str| counter!("truenow_network_bytes_total", "service" => service, "protocol" => protocol, "direction" => direction);
    let port = Port {
        answers,
        calls,
        stop,
        bytes: ByteCounters { received: bytes("received"), sent: bytes("sent") },
        open: gauge!("truenow_connections", "service" => service, "protocol" => protocol),
        refused: counter!("truenow_connections_refused_total", "service" => service, "protocol" => protocol),
        limits,
    };
    let mut connections = accept_all(&listener, &port).await;
    drop(listener);
    let drained = timeout(port.limits.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    let cut = if drained.is_ok() { 0 } else { connections.len() };
    connections.shutdown().await;
    port.open.set(0.0);
    cut
}

/// Accepts until `stop`; returns the connections that are open then.
async fn accept_all(listener: &TcpListener, port: &Port) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let stopped = port.stop.wait();
    let mut stopped = pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return connections,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= port.limits.connections_max => port.refused.increment(1),
                Ok((stream, _)) => drop(connections.spawn(serve_connection(stream, port.clone()))),
                Err(error) => {
                    if let Some(pause) = pause_after(&error) {
                        tracing::warn!(%error, "cannot accept connections for the moment");
                        tokio::time::sleep(pause).await;
                    }
                }
            },
        }
        port.open.set(connections.len() as f64);
    }
}

/// How long to rest after an error of `accept`. An error of one connection concerns no other; any other means that
/// the system is short of something, and asking again at once would only burn a core.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let of_one_connection =
        matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted);
    (!of_one_connection).then_some(ACCEPT_PAUSE)
}

async fn serve_connection(stream: TcpStream, port: Port) {
    // A reply must not wait for the client's delayed acknowledgement. Where the option fails the connection is dead.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let accepted = accept_version(stream, port.limits.write_timeout, port.bytes.clone());
    let accepted = tokio::select! {
        accepted = timeout(port.limits.header_timeout, accepted) => accepted,
        () = port.stop.wait() => return,
    };
    let Ok(Ok((version, stream))) = accepted else { return };
    let service = port.answers;
    let stream = TokioIo::new(stream);
    match version {
        Version::Http1 => {
            let connection = http1_builder(&port.limits).serve_connection(stream, service);
            drive(connection, Accepted::new(Calls::Spawned), &port.stop).await;
        }
        Version::Http2 => {
            let (window, accepted) = (port.limits.unread.window(), Accepted::new(port.calls));
            let connection = http2_builder(window.bytes(), accepted.clone()).serve_connection(stream, service);
            drive(connection, accepted, &port.stop).await;
        }
    }
}

/// Runs a connection to its end, which `stop` brings on after the requests under way.
async fn drive(connection: impl GracefulConnection, accepted: Accepted, stop: &Shutdown) {
    let mut connection = WithCalls::new(connection, accepted);
    // How a connection ended is the client's affair: there is nobody left to tell and nothing to do.
    tokio::select! {
        _ = &mut connection => return,
        () = stop.wait() => {}
    }
    connection.graceful_shutdown();
    let _ = connection.await;
}

fn http1_builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(HEADER_BYTES_MAX)
        .half_close(false);
    builder
}

fn http2_builder(window_bytes: u32, accepted: Accepted) -> http2::Builder<Accepted> {
    let mut builder = http2::Builder::new(accepted);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(GIVEN_UP_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES.min(window_bytes))
        .initial_connection_window_size(window_bytes)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a shortage of descriptors pauses the loop, an aborted connection does not.
    #[test]
    fn only_shortages_pause() {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        const ENOMEM: i32 = 12;
        for shortage in [EMFILE, ENFILE, ENOMEM] {
            assert_eq!(pause_after(&io::Error::from_raw_os_error(shortage)), Some(ACCEPT_PAUSE));
        }
        assert_eq!(pause_after(&io::ErrorKind::ConnectionAborted.into()), None);
    }
}
