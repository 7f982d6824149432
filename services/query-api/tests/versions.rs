//! Nodes of two versions in one cluster, as during an upgrade: what one does not understand of the other is refused by name,
//! another replica answers, and what is only new to it is passed over.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use prost::Message as _;
use proto::{
    hot_tier::HotTier,
    internal::{ScanPart, ScanRequest},
};
use serde_json::{Value, json};
use support::{Event, NODE, PARTITIONS, REPLICA, Setup, World, as_elsewhere, cluster_key};
use types::NodeId;

const MEMORY: u64 = 1 << 30;
/// A field that no message has in this version: its key on the wire, its length, and something.
const LATER_FIELD: &[u8] = &[0xc2, 0x3e, 3, 7, 7, 7];

/// How a node of another version differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiffersIn {
    /// It is older: plans of this version have a later form than it reads.
    Plans,
    /// It is newer: its results have a later form than is read here.
    Results,
    /// It is newer, and says more than is known here.
    Fields,
    /// It is older, and has no such call.
    Calls,
}

/// The way to a node, on which its messages and those to it become those of another version.
#[derive(Clone)]
struct OtherVersion {
    node: SocketAddr,
    differs: DiffersIn,
    asked: Arc<AtomicUsize>,
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

fn body(bytes: Bytes, trailers: HeaderMap) -> Body {
    Full::new(bytes).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed()
}

/// Changes each message of a gRPC body: its bytes stand behind a flag and their length.
fn each_message(mut body: Bytes, change: impl Fn(Bytes) -> Bytes) -> Bytes {
    let mut out = BytesMut::new();
    while body.has_remaining() {
        let (flag, length) = (body.get_u8(), body.get_u32() as usize);
        let message = change(body.split_to(length));
        out.put_u8(flag);
        out.put_u32(message.len() as u32);
        out.put(message);
    }
    out.freeze()
}

fn later_form(of: &Bytes) -> Bytes {
    Bytes::from([&[of[0] + 1], &of[1..]].concat())
}

impl OtherVersion {
    fn request(&self, message: Bytes) -> Bytes {
        if self.differs != DiffersIn::Plans {
            return message;
        }
        let mut request = ScanRequest::decode(message).unwrap();
        request.plan = later_form(&request.plan);
        request.encode_to_vec().into()
    }

    fn reply(&self, message: Bytes) -> Bytes {
        match self.differs {
            DiffersIn::Results => {
                let mut part = ScanPart::decode(message).unwrap();
                let begins = part.pieces.iter_mut().filter(|piece| piece.begin.is_some() && !piece.partial.is_empty());
                begins.for_each(|piece| piece.partial = later_form(&piece.partial));
                part.encode_to_vec().into()
            }
            DiffersIn::Fields => [&message, LATER_FIELD].concat().into(),
            DiffersIn::Plans | DiffersIn::Calls => message,
        }
    }

    async fn pass(self, request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
        let (mut head, incoming) = request.into_parts();
        let asked = incoming.collect().await.unwrap().to_bytes();
        if head.uri.path().ends_with("/Scan") {
            self.asked.fetch_add(1, SeqCst);
        }
        if self.differs == DiffersIn::Calls {
            let headers =
                [("content-type", "application/grpc"), ("grpc-status", "12"), ("grpc-message", "no such call")];
            let mut response = Response::new(body(Bytes::new(), HeaderMap::new()));
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return Ok(response);
        }
        head.uri = format!("http://{}{}", self.node, head.uri.path()).parse().unwrap();
        let asked = each_message(asked, |message| self.request(message));
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let (head, answered) = client.request(Request::from_parts(head, Full::new(asked))).await.unwrap().into_parts();
        let answered = answered.collect().await.unwrap();
        let trailers = answered.trailers().cloned().unwrap_or_default();
        let answered = each_message(answered.to_bytes(), |message| self.reply(message));
        Ok(Response::from_parts(head, body(answered, trailers)))
    }

    /// The node as others see it.
    async fn serve(self) -> Arc<dyn HotTier> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serve = service_fn({
                    let node = self.clone();
                    move |request| node.clone().pass(request)
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), serve));
            }
        });
        as_elsewhere(address, Some(cluster_key()))
    }
}

async fn fill(world: &mut World) {
    for partition in 0..PARTITIONS {
        let event = |n: u64| Event { time: n as i64, number: n * 7 + u64::from(partition) };
        world.ingest(partition, &(0..500).map(event).collect::<Vec<_>>()).await;
    }
}

/// A query API of this version before a node of another and one of its own; `held_by` these two, the first of them asked first.
async fn mixed(differs: DiffersIn, held_by: &[NodeId]) -> (World, World, Arc<AtomicUsize>) {
    let mut there = World::start(MEMORY).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let other = OtherVersion { node: there.node_address(), differs, asked: Arc::clone(&asked) };
    let (replica, held_by) = (Some(other.serve().await), Some(held_by.to_vec()));
    let mut here = World::start_with(Setup { replica, held_by, ..Setup::of_events(MEMORY) }).await;
    fill(&mut there).await;
    fill(&mut here).await;
    (here, there, asked)
}

fn questions() -> [Value; 2] {
    [json!([]), json!(["region"])].map(|group_by| {
        json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1_000, "group_by": group_by,
            "aggregates": [{"fn": "count"}, {"fn": "sum", "metric": "number"}, {"fn": "distinct", "dimension": "region"}]})
    })
}

/// Goal: whatever a node of another version does not understand, or is not understood of it, the other replica is asked, and the
/// answer is whole and the same; what a later node only says besides is passed over, and its answer taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_answers_for_one_of_another_version() {
    for differs in [DiffersIn::Plans, DiffersIn::Results, DiffersIn::Fields, DiffersIn::Calls] {
        let (mixed, own, asked) = mixed(differs, &[REPLICA, NODE]).await;
        for question in questions() {
            let (status, expected) = own.post("/v1/query", question.to_string()).await;
            let (mixed_status, answer) = mixed.post("/v1/query", question.to_string()).await;
            assert_eq!((status, mixed_status), (200, 200), "{differs:?}: {answer}");
            assert_eq!(answer["rows"], expected["rows"], "{differs:?}");
            assert_eq!(answer["receipt"]["complete"], json!(true), "{differs:?}");
        }
        assert!(asked.load(SeqCst) > 0, "{differs:?}: it was asked");
    }
}

/// Goal: where no replica understands a question it is refused with the versions by name, as something that passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_understands_the_versions_are_named() {
    let words = [
        (
            DiffersIn::Plans,
            "the plan of another process cannot be read: it is of version 2, and this process reads up to 1",
        ),
        (
            DiffersIn::Results,
            "the result of a partition of another process cannot be read: it is of version 2, and this process reads up to 1",
        ),
        (DiffersIn::Calls, "no such call"),
    ];
    for (differs, words) in words {
        let (mixed, _node, _) = mixed(differs, &[REPLICA]).await;
        for question in questions() {
            let (status, answer) = mixed.post("/v1/query", question.to_string()).await;
            let error = &answer["error"];
            assert_eq!((status, &error["code"]), (503, &json!("UNAVAILABLE")), "{differs:?}: {answer}");
            assert_eq!(error["message"], json!(format!("node 2 speaks another version: {words}")), "{differs:?}");
        }
    }
}
