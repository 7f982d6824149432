//! Sends batches on many connections at once and takes the time of each.
//!
//! 1. A batch counts when its ack is there. Refusals for rate or load are tried again, and the batch's time goes on.
//! 2. With an offered rate, each batch has a due time, fixed before the clock starts, and its latency counts from then,
//!    so that a stalled server is charged with all the batches that it kept waiting (no coordinated omission). Without
//!    one the loop is closed: a worker sends when its last batch is acked, and latency is service time.

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use hdrhistogram::Histogram;
use hyper::{Method, StatusCode};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use types::Timestamp;

use super::{
    raw_codec::RawCodec,
    report::latencies,
    template::{Repeats, Stamp, Template},
};
use crate::{addresses::Addresses, args::Mode, failure::Failure, http::Http};

/// A run as the workers share it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The way in.
    pub(crate) mode: Mode,
    /// Batches to send, in turn.
    pub(crate) templates: Vec<Template>,
    /// When the first batch may go.
    pub(crate) begin: Instant,
    /// When the last batch may go.
    pub(crate) end: Instant,
    /// Time between two batches of one worker; `None`: as fast as acks come.
    pub(crate) interval: Option<Duration>,
    /// Prefix of the workers' producer ids, of its own for each table.
    pub(crate) producer: String,
    /// Which events repeat earlier ones, if any do.
    pub(crate) repeats: Option<Repeats>,
    /// The number of the next batch of all workers; gives it its template and its ids.
    pub(crate) batches: AtomicU64,
}

impl Plan {
    /// The next batch, with the time from which its latency counts.
    pub(crate) fn batch(&self, from: Instant) -> Due {
        // Relaxed: the number only has to be unique.
        let number = self.batches.fetch_add(1, Relaxed);
        let template = &self.templates[number as usize % self.templates.len()];
        let now = Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let message = template.stamp(&Stamp { now, number, producer: &self.producer, repeats: self.repeats });
        Due { message, number, from }
    }

    /// The identity of a batch where a header holds it.
    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.producer)
    }
}

/// What a worker measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Latency of each batch, µs.
    pub(crate) latency_us: Histogram<u64>,
    /// Events acked.
    pub(crate) events: u64,
    /// Bytes of the messages that were acked.
    pub(crate) bytes: u64,
    /// Sendings that were refused for now, and in a closed loop tried again.
    pub(crate) refusals: u64,
    /// Batches that were due when too many were under way; in an open loop they are left out.
    pub(crate) unsent: u64,
    /// When the last ack came.
    pub(crate) last_ack: Instant,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(begin: Instant) -> Self {
        Self { latency_us: latencies(), events: 0, bytes: 0, refusals: 0, unsent: 0, last_ack: begin }
    }

    /// A batch that was due at `from` is acked just now.
    pub(crate) fn acked(&mut self, from: Instant, events: u64, bytes: u64) {
        self.last_ack = Instant::now();
        self.latency_us.saturating_record(micros(self.last_ack - from));
        self.events += events;
        self.bytes += bytes;
    }

    /// Adds what another worker measured.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency_us.add(&other.latency_us).expect("both have the same bounds");
        self.events += other.events;
        self.bytes += other.bytes;
        self.refusals += other.refusals;
        self.unsent += other.unsent;
        self.last_ack = self.last_ack.max(other.last_ack);
    }
}

/// A connection of its own to the gateway.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    /// HTTP, to `…/v1/events`.
    Http(Http, String),
    /// gRPC.
    Grpc(Grpc<Channel>, Option<String>),
}

/// How one sending ended.
pub(crate) enum Ack {
    /// So many events are durable.
    Accepted(u64),
    /// It was refused for now; when it may be sent again.
    Later(Duration),
}

impl Connection {
    /// Opens a connection for a way in.
    ///
    /// # Errors
    /// Nobody is there.
    pub(crate) async fn open(mode: Mode, addresses: &Addresses) -> Result<Self, Failure> {
        if mode == Mode::Ndjson {
            return Ok(Self::Http(Http::new(addresses)?, format!("{}/v1/events", addresses.gateway())));
        }
        let url = addresses.gateway_grpc();
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| Failure::new(format!("{url} is no address: {error}")))?
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .tcp_nodelay(true);
        let channel =
            endpoint.connect().await.map_err(|error| Failure::new(format!("no answer from {url}: {error}")))?;
        Ok(Self::Grpc(Grpc::new(channel), addresses.key()?.map(|key| format!("Bearer {key}"))))
    }

    /// Authorization and message of a gRPC call.
    pub(crate) fn request<T>(message: T, authorization: Option<&str>) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        if let Some(authorization) = authorization {
            let value =
                authorization.parse().map_err(|_error| Failure::new("the key holds characters no header takes"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    /// Sends one batch; `key` is its identity where the message does not hold it.
    ///
    /// # Errors
    /// It was refused for good, or the connection broke.
    pub(crate) async fn send(&mut self, mode: Mode, message: bytes::Bytes, key: &str) -> Result<Ack, Failure> {
        match self {
            Self::Http(http, url) => {
                let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key)];
                let reply = http.exchange(Method::POST, url, &headers, message).await?;
                match reply.status {
                    StatusCode::OK => accepted(reply.json()["accepted"].as_u64().unwrap_or_default()),
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        Ok(Ack::Later(reply.retry_after.unwrap_or(RETRY)))
                    }
                    _ => Err(reply.refusal()),
                }
            }
            Self::Grpc(grpc, authorization) => {
                grpc.ready().await.map_err(|error| Failure::new(format!("the connection broke: {error}")))?;
                let path = PathAndQuery::from_static(if mode == Mode::Columns {
                    "/truenow.v1.Ingest/IngestColumns"
                } else {
                    "/truenow.v1.Ingest/IngestBatch"
                });
                let request = Self::request(message, authorization.as_deref())?;
                match grpc.unary(request, path, RawCodec).await {
                    Ok(reply) => accepted(reply.into_inner().accepted),
                    Err(status) => later(&status),
                }
            }
        }
    }
}

/// A pause where the server names none.
const RETRY: Duration = Duration::from_millis(20);

fn accepted(events: u64) -> Result<Ack, Failure> {
    if events == 0 {
        Err(Failure::new("a batch was acked without any of its events"))
    } else {
        Ok(Ack::Accepted(events))
    }
}

fn later(status: &Status) -> Result<Ack, Failure> {
    match status.code() {
        Code::ResourceExhausted | Code::Unavailable => Ok(Ack::Later(RETRY)),
        code => Err(Failure::new(format!("{code:?}: {}", status.message()))),
    }
}

/// The batch that a worker sends next.
pub(crate) struct Due {
    /// Its message.
    pub(crate) message: bytes::Bytes,
    /// Its number in the run.
    pub(crate) number: u64,
    /// When its latency begins.
    pub(crate) from: Instant,
}

/// Waits for the time of a worker's `nth` batch and makes it; `None` when the run is over.
pub(crate) async fn next(plan: &Plan, worker: u32, workers: u32, nth: u32) -> Option<Due> {
    let from = match plan.interval {
        None => Instant::now(),
        Some(interval) => {
            // Workers start one after the other, so that the offered load is even.
            let due = plan.begin + interval * worker / workers + interval * nth;
            tokio::time::sleep_until(due.into()).await;
            due
        }
    };
    (from < plan.end && Instant::now() < plan.end).then(|| plan.batch(from))
}

/// Sends batch after batch, each when the one before is acked.
///
/// # Errors
/// A batch was refused for good.
pub(crate) async fn work(
    plan: Arc<Plan>,
    mut connection: Connection,
    worker: u32,
    workers: u32,
) -> Result<Measured, Failure> {
    let mut measured = Measured::new(plan.begin);
    let mut nth = 0;
    while let Some(due) = next(&plan, worker, workers, nth).await {
        nth += 1;
        let key = plan.key(due.number);
        let bytes = due.message.len() as u64;
        loop {
            match connection.send(plan.mode, due.message.clone(), &key).await? {
                Ack::Accepted(events) => {
                    measured.acked(due.from, events, bytes);
                    break;
                }
                Ack::Later(pause) => {
                    measured.refusals += 1;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
    Ok(measured)
}

/// Whole microseconds, at least one, as the histogram wants them.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}
