//! A started service as clients see it: real sockets on loopback, requests written by hand where the client misbehaves.

mod answers;
mod calls;
mod grpc;
mod hostile;
mod lifecycle;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Path, Query, Request, State},
    routing::{get, post},
};
use bytes::Bytes;
use serde::Deserialize;
use service::{
    ApiResult, Authenticator, Calls, Direct, Health, Host, HttpLimits, Metrics, Parts, Routes, Running, read_body,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use types::TenantId;

/// The largest body that `/echo` takes, bytes.
const BODY_BYTES_MAX: usize = 1_024;
/// No test waits this long; a client that does has hung.
const HUNG: Duration = Duration::from_secs(20);

/// What a handler waits for in the tests of the lifecycle.
#[derive(Clone, Default)]
struct Gate {
    entered: Arc<Notify>,
    open: Arc<Notify>,
}

#[derive(Deserialize)]
struct Numbered {
    number: u32,
}

fn router(gate: Gate) -> Router {
    Router::new()
        .route("/echo", post(echo))
        .route("/panic", get(panics))
        .route("/tenant", get(async |Extension(tenant): Extension<TenantId>| tenant.to_string()))
        .route("/items/{id}", get(async |Path(id): Path<String>| id))
        .route("/query", get(async |Query(query): Query<Numbered>| query.number.to_string()))
        .route("/wait", get(wait))
        .with_state(gate)
}

async fn echo(request: Request) -> ApiResult<Bytes> {
    Ok(read_body(request.into_body(), BODY_BYTES_MAX, HUNG).await?)
}

async fn panics() -> &'static str {
    panic!("a planted defect")
}

async fn wait(State(gate): State<Gate>) -> &'static str {
    gate.entered.notify_one();
    gate.open.notified().await;
    "waited"
}

/// Short limits, so that the tests of what runs out need no long time.
fn limits() -> HttpLimits {
    let short = Duration::from_millis(200);
    HttpLimits { connections_max: 64, header_timeout: short, body_timeout: short, ..HttpLimits::default() }
}

struct Start {
    service: &'static str,
    limits: HttpLimits,
    key: Option<&'static str>,
    gate: Gate,
    calls: Calls,
    direct: Option<Arc<dyn Direct>>,
}

impl Start {
    /// A service of this name: metrics of a process are shared, and the name keeps the tests apart.
    fn named(service: &'static str) -> Self {
        Self { service, limits: limits(), key: None, gate: Gate::default(), calls: Calls::Spawned, direct: None }
    }

    async fn start(self) -> Running {
        let host =
            Host { limits: self.limits, authenticator: Authenticator::from_key(self.key), metrics: Metrics::install() };
        let parts = Parts {
            health: Health::starting(self.service, "1.2.3"),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            router: router(self.gate),
            grpc_routes: Routes::default(),
            grpc_names: vec!["truenow.v1.Ingest".into()],
            grpc_calls: self.calls,
            direct: self.direct,
            descriptors: Vec::new(),
        };
        host.start(parts).await.unwrap()
    }
}

/// Everything that the server says to `request` until it closes the connection.
async fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends an answer as well: the server closed while bytes of the request were on their way.
    let _ = timeout(HUNG, stream.read_to_end(&mut answer)).await.expect("the server closes the connection");
    String::from_utf8(answer).unwrap()
}

async fn fetch(address: SocketAddr, path: &str, headers: &str) -> String {
    talk(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn json(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer:?}"))
}
