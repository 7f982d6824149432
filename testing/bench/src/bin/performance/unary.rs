//! Calls of one event beside calls of nothing: the same client, as many under way, by turns.
//!
//! The empty call is answered by a bare tonic server on a thread of its own in this process, with an empty message. The call
//! with an event goes to a server of TrueNow and ends when the event is on disk.

use std::time::{Duration, Instant};

use bench::{
    Failure, Server,
    report::{Goal, Table, rate, short},
};
use bytes::Bytes;
use prost::Message as _;
use proto::v1::{Event, IngestBatchRequest};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::{
    context::Context,
    empty_call::{self, RawCodec},
};

/// Connections, and calls under way on each; together few enough for the streams that a server allows.
const CONNECTIONS: usize = 4;
const WINDOW: usize = 128;
/// By turns, so that what else the machine does meets both.
const ROUNDS: usize = 3;
const SECONDS: u64 = 5;
/// The least share of the empty call's rate.
const SHARE_WANTED: f64 = 0.7;
/// Stands for the id in the message that each call copies.
const SAMPLE_ID: &str = "0123456789abcdef";

/// What one turn found.
#[derive(Debug, Clone, Copy)]
struct Turn {
    per_second: f64,
    server_ns: f64,
    client_ns: f64,
}

/// The turns of both.
#[derive(Debug)]
pub(crate) struct Calls {
    empty: Vec<Turn>,
    event: Vec<Turn>,
}

impl Calls {
    fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
        let mut values: Vec<f64> = turns.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn share(&self) -> f64 {
        Self::median(&self.event, |turn| turn.per_second) / Self::median(&self.empty, |turn| turn.per_second)
    }

    /// Whether calls with an event are nearly as many as empty ones.
    pub(crate) fn goal(&self) -> Goal {
        Goal {
            what: "unary calls of one event, synced, beside empty tonic calls".to_owned(),
            wanted: format!("{:.0} %", SHARE_WANTED * 100.0),
            found: format!("{:.0} %", self.share() * 100.0),
            met: self.share() >= SHARE_WANTED,
        }
    }

    /// Both, as medians of the turns.
    pub(crate) fn table(&self) -> Table {
        let title = format!(
            "Unary gRPC calls, {CONNECTIONS} connections with {WINDOW} calls under way on each, medians of {ROUNDS} turns:"
        );
        let mut table = Table::new(&title, &["call", "calls/s", "server, ns/call", "client, ns/call"]);
        for (name, turns) in [("empty, bare tonic", &self.empty), ("one event with id, synced", &self.event)] {
            table.rows.push(vec![
                name.to_owned(),
                rate(Self::median(turns, |turn| turn.per_second)),
                short(Self::median(turns, |turn| turn.server_ns)),
                short(Self::median(turns, |turn| turn.client_ns)),
            ]);
        }
        table
    }
}

/// Takes turns.
///
/// # Errors
/// A server fails.
pub(crate) async fn run(context: &Context) -> Result<Calls, Failure> {
    let server = context.start(&[]).await?;
    let table =
        json!({"namespace": "bench", "table": "unary", "dimensions": ["region", "user_id"], "metrics": ["revenue"]});
    bench::Connection::open(&server.address(8001)).await?.post("/v1/tables", &table).await?;
    let empty = empty_call::serve()?;
    let time = Duration::from_secs(context.seconds(SECONDS));
    let mut calls = Calls { empty: Vec::new(), event: Vec::new() };
    let mut first = 0;
    for _ in 0..ROUNDS {
        calls.empty.push(turn(&format!("http://{empty}"), empty_call::PATH, None, time, &mut first).await?);
        let before = server.cpu()?;
        let address = format!("http://{}", server.address(9088));
        let event = message();
        let mut found = turn(&address, "/truenow.v1.Ingest/IngestBatch", Some(&event), time, &mut first).await?;
        found.server_ns = server_ns(&server, before, &found, time)?;
        calls.event.push(found);
    }
    for (name, turns) in [("empty", &calls.empty), ("event", &calls.event)] {
        for turn in turns {
            context.keep(&json!({"call": name, "calls_per_s": turn.per_second, "server_ns": turn.server_ns,
                "client_ns": turn.client_ns}))?;
        }
    }
    server.stop().await?;
    Ok(calls)
}

fn server_ns(server: &Server, before: Duration, turn: &Turn, time: Duration) -> Result<f64, Failure> {
    let took = server.cpu()?.saturating_sub(before);
    Ok(took.as_nanos() as f64 / (turn.per_second * time.as_secs_f64()).max(1.0))
}

/// An event as it goes over the wire, with the place of its id.
struct Template {
    bytes: Vec<u8>,
    id: usize,
}

fn message() -> Template {
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let event = Event {
        namespace: "bench".to_owned(),
        table: "unary".to_owned(),
        event_time: None,
        event_id: Some(SAMPLE_ID.to_owned()),
        dimensions: [text("region", "eu-west"), text("user_id", "user_0012345")].into(),
        metrics: std::iter::once(("revenue".to_owned(), 12.5)).collect(),
    };
    let bytes = IngestBatchRequest { events: vec![event], producer_id: String::new(), sequence: 0 }.encode_to_vec();
    let id = bytes.windows(SAMPLE_ID.len()).position(|part| part == SAMPLE_ID.as_bytes());
    Template { bytes, id: id.expect("the message holds what was put into it") }
}

impl Template {
    fn stamped(&self, number: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        bytes[self.id..self.id + SAMPLE_ID.len()].copy_from_slice(format!("{number:016x}").as_bytes());
        bytes.into()
    }
}

/// Calls for `time`, and counts those that ended in it. Ids go on from `first`.
async fn turn(
    address: &str,
    path: &'static str,
    event: Option<&Template>,
    time: Duration,
    first: &mut u64,
) -> Result<Turn, Failure> {
    let (client, process) = (cpu(ClockId::ThreadCPUTime), cpu(ClockId::ProcessCPUTime));
    let end = Instant::now() + time;
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true).connect().await?;
        for _ in 0..WINDOW {
            let template = event.map(|event| Template { bytes: event.bytes.clone(), id: event.id });
            // Far more than one worker can use up.
            *first += 1 << 32;
            workers.spawn(call(Grpc::new(channel.clone()), path, template, *first, end));
        }
    }
    let mut calls = 0;
    while let Some(worker) = workers.join_next().await {
        calls += worker??;
    }
    let client = cpu(ClockId::ThreadCPUTime) - client;
    let others = cpu(ClockId::ProcessCPUTime) - process - client;
    let per_call = |seconds: f64| seconds * 1e9 / calls.max(1) as f64;
    Ok(Turn { per_second: calls as f64 / time.as_secs_f64(), server_ns: per_call(others), client_ns: per_call(client) })
}

async fn call(
    mut grpc: Grpc<Channel>,
    path: &'static str,
    template: Option<Template>,
    mut number: u64,
    end: Instant,
) -> Result<u64, Failure> {
    let mut calls = 0;
    loop {
        let message = template.as_ref().map_or_else(Bytes::new, |template| template.stamped(number));
        grpc.ready().await?;
        let reply = grpc.unary(Request::new(message), PathAndQuery::from_static(path), RawCodec).await?;
        if template.is_some() && reply.into_inner().is_empty() {
            return Err("an event was acked with an empty reply".into());
        }
        if Instant::now() >= end {
            return Ok(calls);
        }
        (calls, number) = (calls + 1, number + 1);
    }
}

fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
