//! Clients that send single requests and decide by themselves what to do when an outcome is unknown: send the same again.

use std::{fmt::Write as _, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use hyper::{Method, StatusCode};
use proto::v1::{IngestBatchRequest, ingest_client::IngestClient};
use serde_json::json;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{
    event::{Event, Lane, NAMESPACE},
    oracle::Known,
    scene::{Scene, Shown},
    writers::row,
};
use crate::{http::Http, random::Random};

/// Percent of batches that are sent on two connections at once.
const TWINS: u64 = 5;
/// Percent of acked batches after which an earlier one is sent again.
const REPEATS: u64 = 5;
/// Percent of unknown outcomes after which [`Lane::Lines`] gives the batch up.
const GIVES_UP: u64 = 30;

/// How a sending ended.
enum Sent {
    /// All of it is durable; the token.
    Acked(String),
    /// Refused for now.
    Later,
    /// It may be stored or not.
    Unknown,
    /// An answer that the contract does not have.
    Wrong(String),
}

/// A way to the server, or to one gateway of a cluster.
struct Way {
    http: Http,
    events: String,
    grpc: IngestClient<Channel>,
}

/// Sends batch after batch until the run is over.
pub(crate) async fn run(scene: Arc<Scene>, lane: Lane, mut random: Random) {
    let addresses = scene.addresses.events.iter().zip(&scene.addresses.gateway_grpc);
    let way = |(events, grpc): (&String, &String)| {
        let endpoint = Endpoint::from_shared(grpc.clone()).expect("the address is well formed");
        let grpc = IngestClient::new(endpoint.tcp_nodelay(true).connect_lazy());
        Way { http: Http::new(), events: events.clone(), grpc }
    };
    // Two at least, so that a batch can be under way twice.
    let ways: Vec<Way> = addresses.cycle().take(scene.addresses.events.len().max(2)).map(way).collect();
    while !scene.is_over() {
        let open = scene.gate.read().await;
        let (batch, known) = {
            let mut oracle = scene.oracle();
            (oracle.send(lane), oracle.certain())
        };
        settle(&scene, &ways, lane, batch, &known, &mut random).await;
        if random.chance(REPEATS)
            && let Some(batch) = scene.repeatable(lane, &mut random)
        {
            // The batch was acked, and has to count once, whatever becomes of it now.
            if let Sent::Wrong(what) = send(&scene, &ways[0], lane, batch).await {
                scene.violate(format!("batch {batch} of {} again: {what}", lane.name()));
            }
            scene.count(|counts| &counts.repeated);
        }
        drop(open);
        tokio::time::sleep(Duration::from_millis(random.within(2..25))).await;
    }
}

/// Sends a batch until it is acked, or given up. `known`: what was acked before it was first sent.
async fn settle(scene: &Scene, ways: &[Way], lane: Lane, batch: u64, known: &Known, random: &mut Random) {
    loop {
        let sent = if random.chance(TWINS) {
            scene.count(|counts| &counts.twins);
            let (first, second) = tokio::join!(send(scene, &ways[0], lane, batch), send(scene, &ways[1], lane, batch));
            first.better(second)
        } else {
            send(scene, random.choose(ways), lane, batch).await
        };
        match sent {
            Sent::Acked(token) => {
                scene.settle(lane, batch + 1);
                let covers = scene.covered(lane, batch, known);
                return scene.show(lane.table(batch), lane, Shown { tokens: vec![token], covers });
            }
            Sent::Unknown if scene.conduct.gives_up && lane == Lane::Lines && random.chance(GIVES_UP) => {
                scene.count(|counts| &counts.given_up);
                // If the server was started again meanwhile, it may be the new one that has the batch under way.
                let life = scene.life.load(Relaxed);
                return scene.oracle().give_up(lane, batch, life);
            }
            Sent::Later | Sent::Unknown => scene.count(|counts| &counts.retried),
            Sent::Wrong(what) => return scene.violate(format!("batch {batch} of {}: {what}", lane.name())),
        }
        tokio::time::sleep(Duration::from_millis(random.within(5..50))).await;
    }
}

async fn send(scene: &Scene, way: &Way, lane: Lane, batch: u64) -> Sent {
    match lane {
        Lane::Unary => unary(scene, way, lane, batch).await,
        _ => lines(scene, way, lane, batch).await,
    }
}

async fn lines(scene: &Scene, way: &Way, lane: Lane, batch: u64) -> Sent {
    let table = lane.table(batch).name();
    let mut body = String::new();
    for number in lane.numbers(batch) {
        let event = Event::new(lane, number, scene.origin);
        let mut line = json!({
            "namespace": NAMESPACE, "table": table, "event_time": event.time, "event_id": event.id(),
            "dimensions": {"lane": lane.name(), "region": event.region, "user": event.user_name()},
            "metrics": {"n": number},
        });
        if let Some(size) = event.size() {
            line["metrics"]["size"] = json!(size);
        }
        writeln!(body, "{line}").expect("a string takes any text");
    }
    let key = format!("{}-{batch}", scene.producer(lane));
    let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key.as_str())];
    let headers = if lane.has_ids() { &headers[..1] } else { &headers[..] };
    let reply = way.http.exchange(Method::POST, &way.events, headers, body.into()).await;
    let Some(reply) = reply else { return Sent::Unknown };
    match reply.status {
        StatusCode::OK => {
            let json = reply.json();
            match json["token"].as_str() {
                Some(token) if json["accepted"] == json!(lane.batch_rows()) => Sent::Acked(token.to_owned()),
                _ => Sent::Wrong(reply.text()),
            }
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            scene.refuse_events(reply.text());
            if reply.status == StatusCode::TOO_MANY_REQUESTS { Sent::Later } else { Sent::Unknown }
        }
        _ => Sent::Wrong(reply.text()),
    }
}

async fn unary(scene: &Scene, way: &Way, lane: Lane, batch: u64) -> Sent {
    let table = lane.table(batch).name();
    let events = lane.numbers(batch).map(|number| row(&Event::new(lane, number, scene.origin), &table)).collect();
    let request = IngestBatchRequest { events, producer_id: scene.producer(lane), sequence: batch + 1 };
    match way.grpc.clone().ingest_batch(request).await {
        Ok(reply) => {
            let reply = reply.into_inner();
            if reply.accepted == lane.batch_rows() {
                Sent::Acked(reply.token)
            } else {
                Sent::Wrong(format!("{reply:?}"))
            }
        }
        Err(status) => match status.code() {
            Code::ResourceExhausted => Sent::Later,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Sent::Unknown,
            code => Sent::Wrong(format!("{code:?}: {}", status.message())),
        },
    }
}

impl Sent {
    /// What is known after two sendings of the same batch.
    fn better(self, other: Self) -> Self {
        match (self, other) {
            (wrong @ Self::Wrong(_), _) | (_, wrong @ Self::Wrong(_)) => wrong,
            (acked @ Self::Acked(_), _) | (_, acked @ Self::Acked(_)) => acked,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Later, Self::Later) => Self::Later,
        }
    }
}
