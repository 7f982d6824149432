//! The JSON Schema of a table, for every form in which events come.

mod support;

use bytes::Bytes;
use codec::{BodyBuilder, EventRef};
use proto::v1::{Event, IngestBatchRequest, IngestColumnsRequest};
use serde_json::{Value, json};
use support::{Gateway, NOW};
use types::{TableName, Timestamp};

const NEGATIVE: &str = "/metrics/revenue: -1.0 is less than the minimum of 0 (minimum at /properties/metrics/properties/revenue/minimum of the table's json_schema)";
/// Events of a request: more than fit where a request is sorted without a decode thread.
const MANY: usize = 500;

/// A gateway with the table `shop.events`, whose events need an id and take no negative revenue and no metric beside it.
async fn gateway() -> Gateway {
    let gateway = Gateway::start().await;
    put(
        &gateway,
        &json!({
            "required": ["event_id"],
            "properties": {"metrics": {"properties": {"revenue": {"minimum": 0}}, "additionalProperties": false}},
        }),
    );
    gateway
}

fn put(gateway: &Gateway, schema: &Value) {
    gateway.catalog.put(&TableName::new("shop", "events"), |table| {
        table.settings.json_schema = Some(schema.to_string().into());
    });
}

/// Which revenue an event has: of every five the second is refused.
fn revenue(n: usize) -> f64 {
    if n % 5 == 1 { -1.0 } else { n as f64 }
}

fn json_event(n: usize) -> Value {
    json!({"namespace":"shop","table":"events","event_time":NOW,"event_id":format!("e{n}"),
        "dimensions":{"robot":true},"metrics":{"revenue":revenue(n)}})
}

fn row(n: usize) -> Event {
    Event {
        namespace: "shop".into(),
        table: "events".into(),
        event_time: Some(NOW),
        event_id: Some(format!("e{n}")),
        dimensions: [("robot".into(), "true".into())].into(),
        metrics: [("revenue".into(), revenue(n))].into(),
    }
}

fn block(rows: std::ops::Range<usize>, extra: impl Fn(usize) -> bool) -> Bytes {
    let mut builder = BodyBuilder::default();
    for n in rows {
        let (id, metrics) = (format!("e{n}"), [("revenue", revenue(n)), ("extra", 1.0)]);
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(NOW),
            event_id: Some(id.as_bytes()),
            dimensions: &[("robot", "true")],
            metrics: &metrics[..1 + usize::from(extra(n))],
        };
        builder.push(&event, Timestamp(0), 0).unwrap();
    }
    builder.finish(false).unwrap().bytes
}

fn columns(blocks: Vec<Bytes>) -> IngestColumnsRequest {
    IngestColumnsRequest { namespace: "shop".into(), table: "events".into(), blocks, ..Default::default() }
}

/// Goal: JSON, lines, rows and columns get the same verdicts, in requests of one event and of many; each reject names the
/// place, and is kept as a dead letter.
#[tokio::test]
async fn every_form_gets_the_same_verdict() {
    for events in [2, MANY] {
        let refused: Vec<usize> = (0..events).filter(|n| revenue(*n) < 0.0).collect();
        let gateway = gateway().await;
        let documents: Vec<_> = (0..events).map(json_event).collect();
        let lines: String = documents.iter().map(|event| format!("{event}\n")).collect();
        let replies = [
            gateway.post(json!(documents).to_string()).await.json,
            gateway.post_with(&[("content-type", "application/x-ndjson")], lines).await.json,
        ];
        let mut verdicts = Vec::new();
        for reply in replies {
            let rejected = reply["rejected"].as_array().unwrap().iter();
            let rejected =
                rejected.map(|r| (r["index"].as_u64().unwrap() as usize, r["message"].as_str().unwrap().to_owned()));
            verdicts.push((reply["accepted"].as_u64().unwrap(), rejected.collect::<Vec<_>>()));
        }
        let mut client = gateway.grpc().await;
        let batch = IngestBatchRequest { events: (0..events).map(row).collect(), ..Default::default() };
        let blocks = vec![block(0..1, |_| false), block(1..events, |_| false)];
        for reply in [
            client.ingest_batch(batch).await.unwrap().into_inner(),
            client.ingest_columns(columns(blocks)).await.unwrap().into_inner(),
        ] {
            let rejected = reply.rejected.into_iter().map(|reject| (reject.index as usize, reject.message));
            verdicts.push((reply.accepted, rejected.collect()));
        }
        let expected: Vec<_> = refused.iter().map(|n| (*n, NEGATIVE.to_owned())).collect();
        for verdict in verdicts {
            assert_eq!(verdict, ((events - refused.len()) as u64, expected.clone()));
        }
        let letters = gateway.get("/v1/dead-letters/shop/events").await.json;
        let letters = letters["letters"].as_array().unwrap();
        assert!(letters.len() >= 4.min(4 * refused.len()), "{}", letters.len());
        assert_eq!((&letters[0]["message"], &letters[0]["event"]), (&json!(NEGATIVE), &json_event(1)));
        assert_eq!(gateway.log.rows(), 4 * (events - refused.len()));
    }
}

/// Goal: what only refused events have becomes no column of the table, in rows as in columns.
#[tokio::test]
async fn refused_events_add_no_columns() {
    let gateway = gateway().await;
    let mut wrong = json_event(0);
    wrong["metrics"]["other"] = json!(1);
    let reply = gateway.post(json!([wrong, json_event(2)]).to_string()).await.json;
    assert!(reply["rejected"][0]["message"].as_str().unwrap().starts_with("/metrics: "), "{reply}");
    let mut client = gateway.grpc().await;
    let reply = client.ingest_columns(columns(vec![block(2..6, |n| n == 3)])).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.rejected.len()), (3, 1));
    let table = gateway.catalog.find(&TableName::new("shop", "events")).unwrap();
    let columns: Vec<_> = table.schema.columns().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["robot", "revenue"]);
}

/// Goal: a change of the schema holds from the next request on, and one that this version cannot compile refuses events by
/// name instead of letting them pass.
#[tokio::test]
async fn schemas_change() {
    let gateway = gateway().await;
    let body = json_event(1).to_string();
    assert_eq!(gateway.post(body.clone()).await.json["accepted"], 0);
    put(&gateway, &json!({"required": ["event_id"]}));
    assert_eq!(gateway.post(body.clone()).await.json["accepted"], 1);
    put(&gateway, &json!({"type": "text"}));
    let reply = gateway.post(body).await.json;
    assert_eq!(
        (&reply["accepted"], &reply["rejected"][0]["code"]),
        (&json!(0), &json!("FAILED_PRECONDITION")),
        "{reply}"
    );
    let mut client = gateway.grpc().await;
    let refused = client.ingest_columns(columns(vec![block(0..1, |_| false)])).await.unwrap_err();
    assert!(refused.message().contains("json_schema at /type"), "{refused}");
}

/// Goal: a request that takes a decode thread for too long with its table's schema is refused as a whole, by name, and nothing
/// of it is stored; fewer of the same events are taken.
#[tokio::test]
async fn judging_has_its_time() {
    let gateway = gateway().await;
    // As if an event took so long.
    gateway.clock.tick(std::time::Duration::from_millis(20));
    let documents: Vec<_> = (0..MANY).map(json_event).collect();
    let refused = gateway.post(json!(documents).to_string()).await;
    assert_eq!((refused.status, &refused.json["error"]["field"]), (413, &json!("json_schema")), "{}", refused.json);
    let mut client = gateway.grpc().await;
    let refused = client.ingest_columns(columns(vec![block(0..MANY, |_| false)])).await.unwrap_err();
    assert!(refused.message().contains("json_schema took longer than 5 s"), "{refused}");
    assert_eq!(gateway.log.rows(), 0);
    assert_eq!(gateway.post(json!(documents[..100]).to_string()).await.json["accepted"], 80);
}
