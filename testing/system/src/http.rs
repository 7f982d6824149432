//! Exchanges over HTTP in which any outcome is news, not an error.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// No exchange takes longer, so that a server that hangs is found out.
const EXCHANGE_MAX: Duration = Duration::from_secs(90);

/// A client that keeps its connections.
#[derive(Debug, Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// A reply, whatever its status.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// One exchange; `None`: its outcome is unknown.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Reply> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("addresses and headers are well formed");
        let exchange = async {
            let reply = self.0.request(request).await.ok()?;
            let status = reply.status();
            Some(Reply { status, body: reply.into_body().collect().await.ok()?.to_bytes() })
        };
        tokio::time::timeout(EXCHANGE_MAX, exchange).await.ok()?
    }

    /// Gets what is at `url`.
    pub(crate) async fn get(&self, url: &str) -> Option<Reply> {
        self.exchange(Method::GET, url, &[], Bytes::new()).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, url: &str, body: &Value) -> Option<Reply> {
        let headers = [("content-type", "application/json")];
        self.exchange(Method::POST, url, &headers, body.to_string().into()).await
    }
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Status and body, for a message.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.status, String::from_utf8_lossy(&self.body))
    }
}
