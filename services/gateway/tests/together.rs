//! Single events of many calls, which are stored together.

mod support;

use std::future::Future;

use futures_util::{FutureExt as _, future::join_all};
use proto::v1::{Event, IngestBatchRequest, IngestReply, ingest_client::IngestClient};
use support::{Gateway, NOW, log::State, token};
use tonic::{Code, Status, transport::Channel};
use types::TableId;

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

fn send(
    client: &IngestClient<Channel>,
    events: Vec<Event>,
) -> impl Future<Output = Result<IngestReply, Status>> + use<> {
    let (mut client, request) = (client.clone(), IngestBatchRequest { events, ..Default::default() });
    async move { client.ingest_batch(request).await.map(tonic::Response::into_inner) }
}

/// A gateway whose table has its columns, with a connection.
async fn ready(settings: &[(&str, &str)]) -> (Gateway, IngestClient<Channel>) {
    let gateway = Gateway::with(settings).await;
    let client = gateway.grpc().await;
    assert_eq!(send(&client, vec![event(0)]).await.unwrap().accepted, 1);
    (gateway, client)
}

/// Sends single events so that they all wait for one another: two before them are on their way to a log that stalls, and a call behind them,
/// which goes alone, has reached it. Then the log is as `then` says. Gives the answers, and the appends that they took.
async fn all_at_once(
    gateway: &Gateway,
    client: &IngestClient<Channel>,
    events: Vec<Event>,
    then: State,
) -> (Vec<Result<IngestReply, Status>>, usize) {
    let asked = gateway.log.times_asked();
    gateway.log.set(State::Stalled);
    let mut before = Vec::new();
    for n in 0..2 {
        before.push(tokio::spawn(send(client, vec![event(1_000 + n)])));
        gateway.log.asked(asked + 1 + n as usize).await;
    }
    let mut answers = Box::pin(join_all(events.into_iter().map(|event| send(client, vec![event]))));
    // The calls leave here, one after the other, and a connection keeps their order.
    assert!((&mut answers).now_or_never().is_none());
    let behind = tokio::spawn(send(client, vec![event(1_002), event(1_003)]));
    let watched = async {
        gateway.log.asked(asked + 3).await;
        gateway.log.set(then);
    };
    let (answers, ()) = tokio::join!(answers, watched);
    join_all(before).await;
    let _ = behind.await;
    (answers, gateway.log.times_asked() - asked - 3)
}

/// Goal: single events that wait for one another go into one append, in a block for each partition; each call is acked for its event
/// alone, with a token that covers it, and no event is lost or doubled.
#[tokio::test]
async fn single_events_share_blocks() {
    let (gateway, client) = ready(&[]).await;
    let (answers, appends) = all_at_once(&gateway, &client, (1..=100).map(event).collect(), State::Well).await;
    assert_eq!(appends, 1);
    assert_eq!(gateway.log.rows(), 105);
    for (n, answer) in (1_u64..).zip(answers) {
        let reply = answer.unwrap();
        assert_eq!((reply.accepted, reply.durability.as_str(), reply.rejected.len()), (1, "synced", 0));
        let token = token(&reply.token);
        let id = format!("\"e{n}\"");
        let holding: Vec<_> = gateway.log.events().into_iter().filter(|(.., event)| event.contains(&id)).collect();
        let [(block, ..)] = &holding[..] else { panic!("{id} is there {} times", holding.len()) };
        let covered = &token.table(TableId(1)).unwrap().offsets;
        let before = gateway.log.offset_of(block).next();
        assert!(covered.iter().any(|&(partition, next)| partition == block.header.partition && next >= before));
    }
    assert!(gateway.log.blocks().len() <= 1 + 2 + 2 + 4, "a block for each partition");
}

/// Goal: what is wrong with one call, or new in it, is its own affair: it gets the answer that it would have got alone, and the others are
/// stored, each once.
#[tokio::test]
async fn what_is_wrong_with_a_call_is_its_own() {
    type Spoil = fn(&mut Event);
    let wrong: [(&str, Spoil); 4] = [
        ("metrics.revenue is not a number", |event| event.metrics = [("revenue".into(), f64::NAN)].into()),
        ("region is a dimension of this table", |event| {
            event.dimensions.clear();
            event.metrics = [("region".into(), 1.0)].into();
        }),
        ("", |event| event.dimensions = [("new".into(), "x".into())].into()),
        ("", |event| event.table = "others".into()),
    ];
    let (gateway, client) = ready(&[]).await;
    for (at, (message, spoil)) in (0_u64..).zip(wrong) {
        let first = 10 * (at + 1);
        let mut events: Vec<_> = (first..first + 5).map(event).collect();
        spoil(&mut events[2]);
        let (rows, letters) = (gateway.log.rows(), 5 - u64::from(!message.is_empty()));
        let (answers, _) = all_at_once(&gateway, &client, events, State::Well).await;
        let replies: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(replies.iter().map(|reply| reply.accepted).sum::<u64>(), letters, "{message}");
        let rejected = &replies[2].rejected;
        assert!(rejected.iter().all(|reject| reject.index == 0 && reject.message.contains(message)), "{rejected:?}");
        assert_eq!(rejected.len(), usize::from(!message.is_empty()));
        assert_eq!(gateway.log.rows() - rows, letters as usize + 4, "and those before and behind");
    }
    let letters = gateway.get("/v1/dead-letters/shop/events").await.json;
    assert_eq!(letters["letters"].as_array().unwrap().len(), 2, "{letters}");
}

/// Goal: where the log cannot be written or is full, every call that waits learns it, and the next ones are stored.
#[tokio::test]
async fn a_log_that_fails_fails_each_call() {
    let (gateway, client) = ready(&[]).await;
    for (state, code) in [(State::Failing, Code::Unavailable), (State::Full, Code::ResourceExhausted)] {
        let (answers, _) = all_at_once(&gateway, &client, (1..=20).map(event).collect(), state).await;
        for answer in answers {
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert!(refused.metadata().get("retry-after").is_some());
        }
        gateway.log.set(State::Well);
        assert_eq!(send(&client, vec![event(50)]).await.unwrap().accepted, 1);
    }
    assert_eq!(gateway.log.rows(), 1 + 2);
}

/// Goal: of calls that wait for one another as many are taken as the rate limit lets through, and the others are refused with the time to
/// come back.
#[tokio::test]
async fn the_rate_limit_counts_each_call() {
    let (gateway, client) = ready(&[("gateway.tenant_rate_limit", "10"), ("gateway.burst_ms", "1000")]).await;
    let sent = join_all((1..=30).map(|n| send(&client, vec![event(n)]))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = sent.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), gateway.log.rows()), (9, 10));
    for refused in refused {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.metadata().get("retry-after").is_some());
    }
}

/// Goal: where each partition has a fate of its own, no call waits for another's: each event is an append of its own.
#[tokio::test]
async fn on_brokers_each_call_goes_alone() {
    let (gateway, client) = ready(&[]).await;
    gateway.log.goes_to_brokers();
    gateway.log.set(State::Stalled);
    let asked = gateway.log.times_asked();
    let sent: Vec<_> = (1..=20).map(|n| tokio::spawn(send(&client, vec![event(n)]))).collect();
    gateway.log.asked(asked + 20).await;
    gateway.log.set(State::Well);
    for call in sent {
        assert_eq!(call.await.unwrap().unwrap().durability, "replicated");
    }
}

/// Goal: of a call that was given up before its turn nothing is stored; the others of the turn are.
#[tokio::test]
async fn calls_that_were_given_up_are_left_out() {
    let (gateway, client) = ready(&[]).await;
    let asked = gateway.log.times_asked();
    gateway.log.set(State::Stalled);
    let mut stored = Vec::new();
    for n in 0..2 {
        stored.push(tokio::spawn(send(&client, vec![event(1_000 + n)])));
        gateway.log.asked(asked + 1 + n as usize).await;
    }
    let given_up: Vec<_> = (1..=10).map(|n| tokio::spawn(send(&client, vec![event(n)]))).collect();
    stored.push(tokio::spawn(send(&client, vec![event(1_002)])));
    // The calls behind go alone. A connection keeps the order: when the first is there so are the calls before it, and when the second is,
    // the resets.
    for n in 0..2 {
        let behind = vec![event(1_003 + 2 * n), event(1_004 + 2 * n)];
        stored.push(tokio::spawn(send(&client, behind)));
        gateway.log.asked(asked + 3 + n as usize).await;
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::task::yield_now().await;
    }
    gateway.log.set(State::Well);
    for call in stored {
        call.await.unwrap().unwrap();
    }
    assert_eq!(gateway.log.rows(), 1 + 2 + 1 + 4);
}

/// Goal: an event that is known by its batch alone gets a block of its own with that identity; one with an id of its own needs none.
#[tokio::test]
async fn the_identity_of_a_batch_stays_with_its_event() {
    let (gateway, mut client) = ready(&[]).await;
    let request = |n: u64, id: Option<&str>| IngestBatchRequest {
        events: vec![Event { event_id: id.map(str::to_owned), ..event(n) }],
        producer_id: "p".into(),
        sequence: n,
    };
    for (n, id) in [(1, None), (2, Some("mine"))] {
        assert_eq!(client.ingest_batch(request(n, id)).await.unwrap().into_inner().accepted, 1);
    }
    let blocks = gateway.log.events();
    let batch_of = |n: u64| {
        let found = blocks.iter().find(|(.., event)| event.contains(&format!("\"revenue\":{n}")));
        found.unwrap().0.header.batch.map(|batch| batch.sequence)
    };
    assert_eq!([1, 2].map(batch_of), [Some(1), None]);
    let nameless = IngestBatchRequest { events: vec![event(9)], sequence: 1, ..Default::default() };
    assert_eq!(client.ingest_batch(nameless).await.unwrap_err().code(), Code::InvalidArgument);
}

/// Goal: a key is asked for on this way as on the others.
#[tokio::test]
async fn a_key_is_asked_for() {
    let gateway = Gateway::with(&[("api_key", "0123456789abcdef0123456789abcdef")]).await;
    let client = gateway.grpc().await;
    assert_eq!(send(&client, vec![event(1)]).await.unwrap_err().code(), Code::Unauthenticated);
    let mut request = tonic::Request::new(IngestBatchRequest { events: vec![event(1)], ..Default::default() });
    let key = "Bearer 0123456789abcdef0123456789abcdef";
    request.metadata_mut().insert("authorization", key.parse().unwrap());
    assert_eq!(client.clone().ingest_batch(request).await.unwrap().into_inner().accepted, 1);
    assert_eq!(gateway.log.rows(), 1);
}
