//! The client before a real gateway with a log in memory.

#[path = "../../../services/gateway/tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, time::Duration};

use support::{Gateway, NOW, log::State, token};
use truenow_client::{Client, ClientError, Event, Options, PushError, RetryPolicy, Row};
use types::{TableId, TableName};

async fn connect(gateway: &Gateway) -> Client {
    Client::connect(&format!("http://{}", gateway.running.grpc_address()), None).await.unwrap()
}

fn options() -> Options {
    let retry = RetryPolicy { pause: Duration::from_millis(1), ..RetryPolicy::default() };
    Options { batch_rows_max: 100, batches_in_flight_max: 3, retry, ..Options::new("p") }
}

async fn push(writer: &mut truenow_client::ColumnsWriter, n: u64, id: bool, time: i64) -> Result<(), PushError> {
    let (text, user) = (format!("e{n}"), format!("u{}", n % 17));
    let event_id = id.then_some(text.as_bytes());
    let (dimensions, metrics) = ([("user", user.as_str())], [("n", n as f64)]);
    writer.push(&Row { event_time: time, event_id, dimensions: &dimensions, metrics: &metrics }).await
}

/// How often each event (by its metric `n`) lies in the log.
fn times_stored(gateway: &Gateway) -> BTreeMap<u64, usize> {
    let mut times = BTreeMap::new();
    for (_, _, event) in gateway.log.events() {
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        *times.entry(event["metrics"]["n"].as_f64().unwrap() as u64).or_default() += 1;
    }
    times
}

/// Goal: rows arrive once, in blocks that the gateway takes as they are, whatever the table's key; the summary adds up.
#[tokio::test]
async fn rows_arrive_as_columns() {
    for partition_by in [None, Some("user".to_owned())] {
        let gateway = Gateway::start().await;
        let name = TableName::new("shop", "events");
        gateway.catalog.put(&name, |table| table.partition_by = partition_by);
        let mut writer = connect(&gateway).await.columns("shop", "events", options()).await.unwrap();
        for n in 0..1_050 {
            push(&mut writer, n, true, NOW).await.unwrap();
        }
        let summary = writer.finish().await.unwrap();
        assert_eq!((summary.accepted, summary.rejected, summary.batches, summary.retries), (1_050, 0, 11, 0));
        assert_eq!(summary.durability, "synced");
        assert!(token(summary.tokens.last().unwrap()).table(TableId(1)).is_some());
        assert_eq!(times_stored(&gateway).into_values().collect::<Vec<_>>(), vec![1; 1_050]);
        // 4 partitions, 11 batches: had a block been split again there would be more.
        assert!(gateway.log.blocks().len() <= 44, "{}", gateway.log.blocks().len());
    }
}

/// Goal: refusals and failures that may pass are tried again with the same identity; what was stored in between is the
/// same batch again, told apart by nothing but its place in the log.
#[tokio::test]
async fn batches_are_sent_until_they_are_acked() {
    let gateway = Gateway::start().await;
    let mut writer = connect(&gateway).await.columns("shop", "events", options()).await.unwrap();
    gateway.log.next(&[State::Uncertain]);
    for n in 0..300 {
        push(&mut writer, n, false, NOW).await.unwrap();
    }
    let summary = writer.finish().await.unwrap();
    assert_eq!((summary.accepted, summary.batches, summary.retries), (300, 3, 1));
    let mut blocks = BTreeMap::<_, Vec<_>>::new();
    for block in gateway.log.blocks() {
        blocks.entry(block.header.batch.unwrap().sequence).or_default().push((block.header.partition, block.body));
    }
    assert!(blocks.keys().eq(&[1, 2, 3]));
    assert_eq!(blocks.values().map(Vec::len).sum::<usize>(), 4, "one batch lies there twice");
    assert!(blocks.values().all(|copies| copies.iter().all(|copy| *copy == copies[0])));
}

/// Goal: a row that cannot be is refused here and the next goes on; one that the table does not take is named by its number.
#[tokio::test]
async fn rejected_rows_are_named() {
    let gateway = Gateway::start().await;
    let mut writer = connect(&gateway).await.columns("shop", "events", options()).await.unwrap();
    for n in 0..250 {
        let time = if n == 40 || n == 170 { i64::MAX } else { NOW };
        push(&mut writer, n, true, time).await.unwrap();
        if n == 99 {
            let bad = Row { event_time: NOW, event_id: None, dimensions: &[], metrics: &[("n", f64::NAN)] };
            assert!(matches!(writer.push(&bad).await, Err(PushError::Row(_))));
        }
    }
    let summary = writer.finish().await.unwrap();
    assert_eq!((summary.accepted, summary.rejected), (248, 2));
    let mut rows: Vec<_> = summary.rejects.iter().map(|reject| reject.row).collect();
    rows.sort_unstable();
    assert_eq!(rows, [40, 171], "the row that was refused here counts as taken");
}

/// Goal: what can never pass ends the writer with the server's reason.
#[tokio::test]
async fn refusals_for_good_end_the_writer() {
    let gateway = Gateway::start().await;
    let mut writer = connect(&gateway).await.columns("shop", "events", options()).await.unwrap();
    gateway.post(r#"{"namespace":"shop","table":"events","dimensions":{"n":"x"}}"#).await;
    push(&mut writer, 0, true, NOW).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(status) if status.message().contains("n is a dimension")), "{error}");
    let nobody = Client::connect("http://127.0.0.1:1", None).await;
    assert!(matches!(nobody, Err(ClientError::Connect { .. })));
}

/// Goal: rows over a stream arrive in order, and again from the first that was not acked where the stream breaks.
#[tokio::test]
async fn rows_arrive_over_a_stream() {
    let gateway = Gateway::start().await;
    let mut writer = connect(&gateway).await.rows(Options { batch_rows_max: 10, ..options() });
    gateway.log.next(&[State::Well, State::Well, State::Failing]);
    for n in 0..205 {
        let event = Event {
            namespace: "shop".into(),
            table: format!("t{}", n % 2),
            event_time: Some(if n == 77 { i64::MAX } else { NOW }),
            event_id: Some(format!("e{n}")),
            dimensions: [].into(),
            metrics: [("n".into(), n as f64)].into(),
        };
        writer.push(event).await.unwrap();
    }
    let summary = writer.finish().await.unwrap();
    assert_eq!((summary.accepted, summary.rejected, summary.batches), (204, 1, 21));
    assert_eq!(summary.rejects[0].row, 77);
    assert!(summary.retries >= 1);
    assert!(times_stored(&gateway).into_keys().eq((0..205).filter(|n| *n != 77)), "none is missing");
}

/// Goal: batches of a stream that are refused for a while are sent again after the time that the server says, behind the
/// others, until each has arrived once; the pause is made once for all that were refused together.
#[tokio::test(start_paused = true)]
async fn refused_batches_of_a_stream_come_again() {
    let gateway = Gateway::start().await;
    let mut writer = connect(&gateway).await.rows(Options { batch_rows_max: 10, ..options() });
    gateway.log.next(&[State::Well, State::Full, State::Full, State::Full, State::Full]);
    let began = tokio::time::Instant::now();
    for n in 0..100 {
        let event = Event {
            namespace: "shop".into(),
            table: "t".into(),
            event_time: Some(NOW),
            event_id: Some(format!("e{n}")),
            dimensions: [].into(),
            metrics: [("n".into(), n as f64)].into(),
        };
        writer.push(event).await.unwrap();
    }
    let summary = writer.finish().await.unwrap();
    assert_eq!((summary.accepted, summary.batches), (100, 10));
    assert!((1..=4).contains(&summary.retries), "{}", summary.retries);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let stored = times_stored(&gateway);
    assert!(stored.keys().copied().eq(0..100) && stored.values().all(|times| *times == 1), "{stored:?}");
}
