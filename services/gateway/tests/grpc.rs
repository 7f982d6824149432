//! `truenow.v1.Ingest` over real sockets.

mod support;

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use bytes::Bytes;
use codec::{BodyBuilder, EventRef, PartitionKey};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use proto::v1::{DescribeTableRequest, Event, IngestBatchRequest, IngestColumnsRequest};
use support::{Gateway, NOW, log::State, token};
use tokio_stream::StreamExt as _;
use tonic::Code;
use types::{PartitionId, TableId, TableName, Timestamp};

fn event(n: u64) -> Event {
    Event {
        namespace: "shop".into(),
        table: "events".into(),
        event_time: Some(NOW + n as i64),
        event_id: Some(format!("e{n}")),
        dimensions: [("region".into(), format!("r{}", n % 3))].into(),
        metrics: [("revenue".into(), n as f64)].into(),
    }
}

fn batch(events: Vec<Event>) -> IngestBatchRequest {
    IngestBatchRequest { events, ..Default::default() }
}

/// A block of rows with ids `e{n}`, or with none where `ids` is false.
fn block(rows: impl Iterator<Item = u64>, ids: bool, time: impl Fn(u64) -> i64) -> Bytes {
    let mut builder = BodyBuilder::default();
    for n in rows {
        let id = format!("e{n}");
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(time(n)),
            event_id: ids.then_some(id.as_bytes()),
            dimensions: &[("region", "eu")],
            metrics: &[("n", n as f64)],
        };
        builder.push(&event, Timestamp(0), builder.rows() as u32).unwrap();
    }
    builder.finish(false).unwrap().bytes
}

fn columns(blocks: Vec<Bytes>) -> IngestColumnsRequest {
    IngestColumnsRequest { namespace: "shop".into(), table: "events".into(), blocks, ..Default::default() }
}

/// Goal: rows are taken, bad ones rejected by index and kept as JSON, and the token covers them.
#[tokio::test]
async fn rows_are_taken() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let mut bad = event(1);
    bad.metrics.insert("revenue".into(), f64::NAN);
    let reply = client.ingest_batch(batch(vec![event(0), bad, event(2)])).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.durability.as_str()), (2, "synced"));
    assert_eq!((reply.rejected[0].index, reply.rejected[0].code.as_str()), (1, "INVALID_ARGUMENT"));
    assert_eq!(reply.rejected[0].message, "metrics.revenue is not a number");
    assert!(token(&reply.token).table(TableId(1)).is_some());
    let letters = gateway.get("/v1/dead-letters/shop/events").await.json;
    assert_eq!(letters["letters"][0]["event"]["event_id"], "e1");
    assert_eq!(letters["letters"][0]["event"]["metrics"]["revenue"], "NaN");
    assert_eq!(gateway.log.rows(), 2);
    let none = client.ingest_batch(batch(vec![])).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

/// Goal: a producer's batch carries its identity, the same at each sending.
#[tokio::test]
async fn producers_are_identified() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let mut anonymous = event(0);
    anonymous.event_id = None;
    for sequence in [1, 1, 2] {
        let request = IngestBatchRequest { events: vec![anonymous.clone()], producer_id: "p".into(), sequence };
        client.ingest_batch(request).await.unwrap();
    }
    let identities: Vec<_> = gateway.log.blocks().iter().map(|block| block.header.batch.unwrap()).collect();
    assert_eq!(identities.iter().filter(|identity| identity.sequence == 1).count(), 2);
    assert!(identities.iter().all(|identity| identity.producer == identities[0].producer));
}

/// Goal: batches of a stream are acked one by one in order; the first failure ends it.
#[tokio::test]
async fn streams_ack_in_order() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let batches: Vec<_> = (1..50_u64).map(|n| batch((0..n).map(event).collect())).collect();
    let mut replies = client.ingest_stream(tokio_stream::iter(batches)).await.unwrap().into_inner();
    for n in 1..50 {
        assert_eq!(replies.message().await.unwrap().unwrap().accepted, n);
    }
    assert!(replies.message().await.unwrap().is_none());

    gateway.log.next(&[State::Well, State::Failing]);
    let batches = (0..5).map(|n| batch(vec![event(n)]));
    let mut replies = client.ingest_stream(tokio_stream::iter(batches)).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().accepted, 1);
    assert_eq!(replies.message().await.unwrap_err().code(), Code::Unavailable);
}

/// Goal: a batch of a stream that meets a limit is refused by itself, with the time to come back; the stream goes on.
#[tokio::test]
async fn streams_refuse_batch_by_batch() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    gateway.log.next(&[State::Well, State::Full, State::Well]);
    let batches = (0..3).map(|n| batch(vec![event(n)]));
    let mut replies = client.ingest_stream(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut accepted = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        accepted.push(reply.accepted);
        if let Some(refused) = reply.refused {
            assert_eq!((refused.code.as_str(), refused.field.as_str()), ("RESOURCE_EXHAUSTED", "log_queue"));
            assert!((1_000..=3_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
        }
    }
    assert_eq!((accepted.iter().sum::<u64>(), accepted.len(), gateway.log.rows()), (2, 3, 2));
    gateway.load.lag(0, Duration::from_secs(60));
    let unary = client.ingest_batch(batch(vec![event(9)])).await.unwrap_err();
    assert_eq!(unary.code(), Code::ResourceExhausted);
    assert!(unary.metadata().get("retry-after").is_some());
}

/// Sends raw bytes as the body of a call and gives the status of the answer.
async fn call(gateway: &Gateway, method: &str, body: Vec<u8>) -> (i32, String) {
    call_with(gateway, method, Full::new(Bytes::from(body)).boxed()).await
}

async fn call_with(gateway: &Gateway, method: &str, body: BoxBody<Bytes, Infallible>) -> (i32, String) {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/truenow.v1.Ingest/{method}", gateway.running.grpc_address());
    let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let response = client.request(request.body(body).unwrap()).await.unwrap();
    let mut headers = response.headers().clone();
    let collected = response.into_body().collect().await.unwrap();
    headers.extend(collected.trailers().cloned().unwrap_or_default());
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (text("grpc-status").unwrap().parse().unwrap(), text("grpc-message").unwrap_or_default())
}

/// A body of which nothing ever comes.
fn silent() -> BoxBody<Bytes, Infallible> {
    BodyExt::boxed(StreamBody::new(tokio_stream::pending()))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    body
}

/// Goal: what is no message is the caller's fault and says so; what is too long is refused before it is read.
#[tokio::test]
async fn bad_messages_are_invalid_arguments() {
    let gateway =
        Gateway::with(&[("gateway.request_bytes_max", "1048576"), ("gateway.request_events_max", "1000")]).await;
    let (invalid, exhausted) = (Code::InvalidArgument as i32, Code::ResourceExhausted as i32);
    let good = batch(vec![event(0)]).encode_to_vec();
    assert_eq!(call(&gateway, "IngestBatch", framed(&good)).await.0, 0);
    let cases: [(&str, Vec<u8>); 6] = [
        ("cut off", framed(&good[..good.len() - 1])),
        ("unknown field", framed(&[0x2a, 1, 0])),
        ("group", framed(&[0x0b])),
        ("varint", framed(&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("none", Vec::new()),
        ("two", [framed(&good), framed(&good)].concat()),
    ];
    for (name, body) in cases {
        for method in ["IngestBatch", "IngestColumns"] {
            let (code, message) = call(&gateway, method, body.clone()).await;
            assert_eq!(code, invalid, "{name} {method}: {message}");
        }
    }
    assert_eq!(call(&gateway, "IngestStream", framed(&good[..5])).await.0, invalid);
    assert_eq!(call(&gateway, "IngestBatch", [0, 0xff, 0xff, 0xff, 0xff].to_vec()).await.0, exhausted);
    assert_eq!(call(&gateway, "IngestBatch", framed(&vec![0; 2 << 20])).await.0, exhausted);
    assert_eq!(call(&gateway, "IngestBatch", framed(&[0x0a, 0].repeat(1_001))).await.0, exhausted);
    assert_eq!(call(&gateway, "Nothing", framed(&good)).await.0, Code::Unimplemented as i32);
    assert_eq!(gateway.log.rows(), 1);
}

/// Goal: a message that never comes whole ends the call in time.
#[tokio::test]
async fn messages_that_do_not_come_are_given_up() {
    let gateway = Gateway::with(&[("http.body_timeout_ms", "200")]).await;
    let first = tokio_stream::once(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 1, 0, 7]))));
    let open = BodyExt::boxed(StreamBody::new(first.chain(tokio_stream::pending())));
    let (code, message) = call_with(&gateway, "IngestBatch", open).await;
    assert_eq!(code, Code::DeadlineExceeded as i32, "{message}");
}

/// Goal: a call that meets a limit is answered by its headers: its message, which never comes, is not waited for.
#[tokio::test]
async fn calls_are_refused_by_their_headers() {
    let gateway = Gateway::start().await;
    gateway.load.lag(0, Duration::from_secs(60));
    for method in ["IngestBatch", "IngestColumns"] {
        let (code, message) = call_with(&gateway, method, silent()).await;
        assert_eq!(code, Code::ResourceExhausted as i32, "{message}");
        assert!(message.contains("is%20applied"), "{message}");
    }
}

/// Goal: a refusal reaches a sender whose message is larger than what may be under way unread, with the time to come back,
/// and neither the refusal nor what was sent in vain harms what the connection carries next.
#[tokio::test]
async fn large_messages_are_refused_without_harm() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let mut large = event(0);
    large.event_id = Some("x".repeat(8 << 20));
    gateway.load.lag(0, Duration::from_secs(60));
    for _ in 0..20 {
        let refused = client.ingest_batch(batch(vec![large.clone()])).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.metadata().get("retry-after").is_some());
    }
    gateway.load.lag(0, Duration::ZERO);
    assert_eq!(client.ingest_batch(batch(vec![event(1)])).await.unwrap().into_inner().accepted, 1);
}

/// Goal: while as much waits for its ack as may, others are refused by their headers, and batches of streams one by one;
/// as soon as it is acked all are taken again.
#[tokio::test]
async fn what_waits_for_its_ack_is_bounded() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    gateway.log.set(State::Stalled);
    let large = format!("{}{}", " ".repeat((16 << 20) - support::event(0).len()), support::event(0));
    let others = async {
        gateway.log.asked(1).await;
        let (code, message) = call_with(&gateway, "IngestBatch", silent()).await;
        assert_eq!(
            (code, message.starts_with("too%20many%20bytes")),
            (Code::ResourceExhausted as i32, true),
            "{message}"
        );
        // No JSON: were it read, that would be the answer.
        let reply = gateway.post("{").await;
        assert_eq!((reply.status, reply.json["error"]["field"].as_str()), (429, Some("requests_in_flight")));
        let batches = tokio_stream::once(batch(vec![event(1)]));
        let mut replies = client.ingest_stream(batches).await.unwrap().into_inner();
        let refused = replies.message().await.unwrap().unwrap().refused.unwrap();
        assert_eq!(refused.field, "requests_in_flight");
        gateway.log.set(State::Well);
    };
    let (waited, ()) = tokio::join!(gateway.post(large), others);
    assert_eq!(waited.status, 200, "{}", waited.json);
    assert_eq!(client.ingest_batch(batch(vec![event(2)])).await.unwrap().into_inner().accepted, 1);
    assert_eq!(gateway.log.rows(), 2);
}

/// Goal: a description says all that is needed to make blocks; a table is created only where that is asked for.
#[tokio::test]
async fn tables_are_described() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let request = |create| DescribeTableRequest { namespace: "shop".into(), table: "events".into(), create };
    assert_eq!(client.describe_table(request(false)).await.unwrap_err().code(), Code::NotFound);
    let description = client.describe_table(request(true)).await.unwrap().into_inner();
    assert_eq!(description.partitions, [0, 1, 2, 3]);
    assert_eq!((description.partition_seed, description.generation), (42, 1));
    assert_eq!(description.request_events_max, 100_000);
    let bad = DescribeTableRequest { namespace: "a.b".into(), table: "events".into(), create: true };
    assert_eq!(client.describe_table(bad).await.unwrap_err().code(), Code::InvalidArgument);
}

/// Goal: blocks of one partition reach the log as the same bytes; a block of several is split, nothing lost or doubled.
#[tokio::test]
async fn blocks_reach_the_log_as_they_are() {
    let gateway = Gateway::start().await;
    let table = gateway.catalog.put(&TableName::new("shop", "events"), |_| {});
    let mut client = gateway.grpc().await;
    let mut by_partition = BTreeMap::<PartitionId, Vec<u64>>::new();
    for n in 0..400 {
        let key = format!("e{n}");
        by_partition.entry(codec::partition_of(&table, PartitionKey::EventId(key.as_bytes()))).or_default().push(n);
    }
    assert_eq!(by_partition.len(), 4);
    let right: Vec<_> =
        by_partition.values().map(|rows| block(rows.iter().copied(), true, |n| NOW + n as i64)).collect();
    let reply = client.ingest_columns(columns(right.clone())).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.rejected.len()), (400, 0));
    let blocks = gateway.log.blocks();
    assert_eq!(blocks.iter().map(|block| &block.body).collect::<Vec<_>>(), right.iter().collect::<Vec<_>>());
    assert!(blocks.iter().map(|block| block.header.partition).eq(by_partition.keys().copied()));
    assert!(blocks.iter().all(|block| block.header.body_checksum == xxhash_rust::xxh3::xxh3_64(&block.body)));

    let wrong = block(0..400, true, |n| NOW + n as i64);
    assert_eq!(client.ingest_columns(columns(vec![wrong])).await.unwrap().into_inner().accepted, 400);
    let events = gateway.log.events();
    let mut seen = BTreeMap::<String, usize>::new();
    for (block, _, event) in events {
        let id = serde_json::from_str::<serde_json::Value>(&event).unwrap()["event_id"].as_str().unwrap().to_owned();
        let right = codec::partition_of(&table, PartitionKey::EventId(id.as_bytes()));
        assert_eq!(block.header.partition, right);
        *seen.entry(event).or_default() += 1;
    }
    assert!(seen.len() == 400 && seen.values().all(|&times| times == 2), "the same events both times");
}

/// Goal: rows out of the table's time are rejected one by one and kept, the rest is stored, each with the index that it
/// had in the request.
#[tokio::test]
async fn rows_out_of_time_are_rejected() {
    let gateway = Gateway::start().await;
    let mut client = gateway.grpc().await;
    let time = |n: u64| if n % 10 == 3 { i64::MAX } else { NOW };
    let mut request = columns(vec![block(0..20, false, time), block(20..40, false, time)]);
    (request.producer_id, request.sequence) = ("p".into(), 7);
    let reply = client.ingest_columns(request.clone()).await.unwrap().into_inner();
    assert_eq!(reply.accepted, 36);
    assert_eq!(reply.rejected.iter().map(|reject| reject.index).collect::<Vec<_>>(), [3, 13, 23, 33]);
    let events = gateway.log.events();
    assert_eq!(events.len(), 36);
    for (block, index, event) in &events {
        assert!(event.contains(&format!("\"n\":{index}.0")), "{index}: {event}");
        assert_eq!(block.header.batch.unwrap().sequence, 7);
        assert_eq!(block.header.partition, events[0].0.header.partition);
    }
    let letters = gateway.get("/v1/dead-letters/shop/events").await.json;
    assert_eq!(letters["letters"].as_array().unwrap().len(), 4);
    assert_eq!(letters["letters"][2]["event"]["metrics"]["n"], 23.0);

    // Nothing rejected: the first block stays as it is, the second gets its indexes.
    let calm = block(0..20, false, |_| NOW);
    request.blocks = vec![calm.clone(), block(20..40, false, |_| NOW)];
    client.ingest_columns(request).await.unwrap();
    let blocks = gateway.log.blocks();
    assert_eq!(blocks[2].body, calm);
    let indexes: Vec<_> = gateway.log.events()[56..].iter().map(|(_, index, _)| *index).collect();
    assert_eq!(indexes, (20..40).collect::<Vec<_>>());
}

/// Goal: what is no block, contradicts the table or holds too much is refused as a whole, by name.
#[tokio::test]
async fn bad_blocks_are_refused_by_name() {
    let gateway = Gateway::with(&[("gateway.request_events_max", "30")]).await;
    let mut client = gateway.grpc().await;
    let good = block(0..20, true, |_| NOW);
    let mut refuse = async |request| client.ingest_columns(request).await.unwrap_err();
    let cut = refuse(columns(vec![good.clone(), good.slice(..good.len() - 8)])).await;
    assert_eq!((cut.code(), cut.message().starts_with("blocks[1]: ")), (Code::InvalidArgument, true), "{cut}");
    assert_eq!(refuse(columns(vec![])).await.code(), Code::InvalidArgument);
    assert_eq!(refuse(columns(vec![good.clone(), good.clone()])).await.code(), Code::ResourceExhausted);
    let nameless = IngestColumnsRequest { table: String::new(), ..columns(vec![good.clone()]) };
    assert_eq!(refuse(nameless).await.code(), Code::InvalidArgument);
    gateway.post(r#"{"namespace":"shop","table":"events","dimensions":{"n":"x"}}"#).await;
    let contradiction = refuse(columns(vec![good])).await;
    assert_eq!(contradiction.message(), "metrics.n: n is a dimension of this table");
    assert_eq!(contradiction.metadata().get("truenow-field").unwrap(), "metrics.n");
    assert_eq!(gateway.log.rows(), 1);
}
