//! Asking a query again and again over one connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{Failure, queries::Query, server::Server};

/// Asked so often before anything is timed.
const WARM_UP: usize = 2;

/// One connection to a service, kept.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by the next request.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, host: address.to_owned() })
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    /// As [`Connection::post`].
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(Request::get(path), Bytes::new()).await
    }

    /// Posts JSON and reads the reply.
    ///
    /// # Errors
    /// The connection is gone, or the status is none of success.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Bytes, Failure> {
        let request = Request::post(path).header("content-type", "application/json");
        self.exchange(request, body.to_string().into()).await
    }

    async fn exchange(&mut self, request: hyper::http::request::Builder, body: Bytes) -> Result<Bytes, Failure> {
        let request = request.header("host", &self.host).body(Full::new(body))?;
        let reply = self.sender.send_request(request).await?;
        let status = reply.status();
        let body = reply.into_body().collect().await?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into()) }
    }
}

/// What a query took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Median of the wall times, ms.
    pub(crate) median_ms: f64,
    /// The least of them, ms.
    pub(crate) min_ms: f64,
    /// Mean CPU time of the server, ms.
    pub(crate) cpu_ms: f64,
    /// Bytes of the answer.
    pub(crate) bytes: usize,
}

/// Asks a query `runs` times.
///
/// # Errors
/// The server refuses it.
pub(crate) async fn measure(server: &Server, query: &Query, runs: usize) -> Result<(Value, Timing), Failure> {
    let mut connection = Connection::open(&server.address(8081)).await?;
    let mut answer = Bytes::new();
    for _ in 0..WARM_UP {
        answer = connection.post("/v1/query", &query.question).await?;
    }
    let before = server.cpu()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        answer = connection.post("/v1/query", &query.question).await?;
        times.push(began.elapsed());
    }
    let cpu = server.cpu()?.saturating_sub(before);
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let timing = Timing {
        median_ms: ms(times[times.len() / 2]),
        min_ms: ms(times[0]),
        cpu_ms: ms(cpu) / times.len() as f64,
        bytes: answer.len(),
    };
    Ok((serde_json::from_slice(&answer)?, timing))
}
