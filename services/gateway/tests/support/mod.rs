//! A gateway on ephemeral ports before a catalog and a log in memory, whose failures a test can switch on.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its part")]

pub mod catalog;
pub mod load;
pub mod log;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use codec::{Token, TokenKey};
use config::{Machine, Sources};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use service::{Authenticator, Host, HttpLimits, Metrics, Running};
use types::Timestamp;

use self::{catalog::MemoryCatalog, load::TestLoad, log::MemoryLog};

/// The time at which all tests take place, µs.
pub const NOW: i64 = 1_754_772_362_000_000;
const KEY: [u8; 32] = [9; 32];

/// A clock that stands still until a test moves it.
#[derive(Default)]
pub struct TestClock {
    now: AtomicI64,
    monotonic_us: AtomicU64,
    tick_us: AtomicU64,
}

impl TestClock {
    /// From now on the monotonic clock moves on with each look at it.
    pub fn tick(&self, by: Duration) {
        self.tick_us.store(by.as_micros() as u64, Relaxed);
    }

    /// Both clocks move on.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_micros() as i64, Relaxed);
        self.monotonic_us.fetch_add(by.as_micros() as u64, Relaxed);
    }
}

impl gateway::Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(NOW + self.now.load(Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_us.fetch_add(self.tick_us.load(Relaxed), Relaxed))
    }
}

pub struct Gateway {
    pub running: Running,
    pub catalog: Arc<MemoryCatalog>,
    pub log: Arc<MemoryLog>,
    pub clock: Arc<TestClock>,
    pub load: Arc<TestLoad>,
    pub dir: tempfile::TempDir,
}

pub struct Reply {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub json: Value,
}

impl Gateway {
    /// A gateway with default settings.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A gateway with some settings, as `section.key` and value.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(MemoryLog::new(4));
        Self::in_dir(dir, Arc::new(MemoryCatalog::new(4)), log, settings).await
    }

    /// A gateway that finds what another one left.
    pub async fn in_dir(
        dir: tempfile::TempDir,
        catalog: Arc<MemoryCatalog>,
        log: Arc<MemoryLog>,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::sharing(dir, catalog, log, settings, None).await
    }

    /// A gateway that shares its limits with others.
    pub async fn sharing(
        dir: tempfile::TempDir,
        catalog: Arc<MemoryCatalog>,
        log: Arc<MemoryLog>,
        settings: &[(&str, &str)],
        shared_limits: Option<gateway::SharedLimits>,
    ) -> Self {
        let mut flags: Vec<_> = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        flags.push(("data_dir".into(), dir.path().display().to_string()));
        flags.push(("gateway.http_port".into(), "0".into()));
        flags.push(("gateway.grpc_port".into(), "0".into()));
        let sources = Sources { file: None, environment: Vec::new(), flags };
        let config = sources.into_config(&Machine { cores: 2, memory_bytes: 8 << 30 }).unwrap();
        let limits = HttpLimits { body_timeout: config.http.body_timeout, ..HttpLimits::default() };
        let key = config.api_key.as_ref().map(|key| key.expose().to_owned());
        let host = Host { limits, authenticator: Authenticator::from_key(key.as_deref()), metrics: Metrics::install() };
        let (clock, load) = (Arc::new(TestClock::default()), Arc::new(TestLoad::default()));
        let deps = gateway::Deps {
            catalog: catalog.clone(),
            shared_limits,
            log: log.clone(),
            token_key: TokenKey::new(KEY),
            limiter_key: 1,
            letters: gateway::open_dead_letters(&config).unwrap(),
            lag: load.clone(),
            memory: load.clone(),
            clock: clock.clone(),
        };
        let running = gateway::start(&config, &host, deps).await.unwrap();
        Self { running, catalog, log, clock, load, dir }
    }

    /// Sends JSON to `POST /v1/events`.
    pub async fn post(&self, body: impl Into<Bytes>) -> Reply {
        self.post_with(&[("content-type", "application/json")], body).await
    }

    pub async fn post_with(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.send("POST", "/v1/events", headers, body.into()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Bytes::new()).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let mut request =
            http::Request::builder().method(method).uri(format!("http://{}{path}", self.running.http_address()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Reply { status, retry_after, json }
    }

    /// A client of the gRPC port.
    pub async fn grpc(&self) -> proto::v1::ingest_client::IngestClient<tonic::transport::Channel> {
        let address = format!("http://{}", self.running.grpc_address());
        proto::v1::ingest_client::IngestClient::connect(address).await.unwrap()
    }
}

/// Reads a token that a gateway gave.
pub fn token(text: &str) -> Token {
    Token::decode(&TokenKey::new(KEY), text).unwrap()
}

/// A good event as JSON.
pub fn event(n: u64) -> String {
    format!(
        "{{\"namespace\":\"shop\",\"table\":\"events\",\"event_time\":{},\"event_id\":\"e{n}\",\
         \"dimensions\":{{\"region\":\"r{}\"}},\"metrics\":{{\"revenue\":{n}}}}}",
        NOW + n as i64,
        n % 3
    )
}
