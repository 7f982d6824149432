//! One connection to a service, kept.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Failure;

/// One connection to a service.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen by the next request.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, host: address.to_owned() })
    }

    /// Whether the other side has not closed it: it does so where nothing is asked for some seconds.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    /// As [`Connection::post`].
    pub async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(Request::get(path), Bytes::new()).await
    }

    /// Posts JSON and reads the reply.
    ///
    /// # Errors
    /// The connection is gone, or the status is none of success.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Bytes, Failure> {
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
