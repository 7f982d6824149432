//! HTTP exchanges with services: JSON in, JSON out, errors in the contract's shape turned into [`Failure`]s.

use std::{error::Error, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::{addresses::Addresses, failure::Failure};

/// No exchange takes longer; above the longest time-out that a query may ask for.
const EXCHANGE_MAX: Duration = Duration::from_secs(120);

/// A client that keeps its connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    authorization: Option<String>,
}

/// A reply, whatever its status.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// When trying again may help, as the server said.
    pub(crate) retry_after: Option<Duration>,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Http {
    /// A client with the API key of the command line.
    ///
    /// # Errors
    /// The key file cannot be read.
    pub(crate) fn new(addresses: &Addresses) -> Result<Self, Failure> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, authorization: addresses.key()?.map(|key| format!("Bearer {key}")) })
    }

    /// One exchange, whatever its status.
    ///
    /// # Errors
    /// Nothing answers at `url`, or not in time.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| Failure::new(format!("{url} is no address: {error}")))?;
        let exchange = async {
            let reply = self.client.request(request).await.map_err(|error| unreachable(url, &error))?;
            let status = reply.status();
            let retry_after = reply.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = reply.into_body().collect().await.map_err(|error| unreachable(url, &error))?.to_bytes();
            Ok(Reply { status, retry_after: retry_after.map(Duration::from_secs), body })
        };
        match tokio::time::timeout(EXCHANGE_MAX, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::new(format!("{url} did not answer within {} s", EXCHANGE_MAX.as_secs()))),
        }
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Http::exchange`].
    pub(crate) async fn post_json(&self, url: &str, body: String) -> Result<Reply, Failure> {
        self.exchange(Method::POST, url, &[(CONTENT_TYPE.as_str(), "application/json")], body.into()).await
    }

    /// Gets a text that must come with status 200.
    ///
    /// # Errors
    /// As [`Http::exchange`], or another status.
    pub(crate) async fn get_text(&self, url: &str) -> Result<String, Failure> {
        let reply = self.exchange(Method::GET, url, &[], Bytes::new()).await?;
        if reply.status != StatusCode::OK {
            return Err(reply.refusal());
        }
        String::from_utf8(reply.body.into()).map_err(|_not_text| Failure::new(format!("{url} did not answer in UTF-8")))
    }
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// This reply as the failure that it reports.
    pub(crate) fn refusal(&self) -> Failure {
        let json = self.json();
        let error = &json["error"];
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        match (text("code"), text("message")) {
            (Some(code), Some(message)) => {
                let failure = Failure::new(format!("{code}: {message}"));
                match text("field") {
                    Some(field) => failure.hint(format!("at fault: {field}")),
                    None => failure,
                }
            }
            _ => Failure::new(format!("the server answered {}: {}", self.status, String::from_utf8_lossy(&self.body))),
        }
    }
}

fn unreachable(url: &str, error: &dyn Error) -> Failure {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::new(format!("no answer from {url}: {cause}"))
        .hint("is the server running? `truenow serve` starts it, --port-offset and the address flags say where it is")
}
