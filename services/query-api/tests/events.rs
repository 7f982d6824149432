//! `GET /v1/events` over HTTP, with a real log and a real node behind it.

mod support;

use std::collections::BTreeSet;

use codec::{Cursor, TableToken, Token, TokenKey};
use serde_json::{Value, json};
use support::{Event, PARTITIONS, TOKEN_KEY, World};
use types::{Offset, PartitionId, SchemaVersion};

const ALL: &str = "/v1/events?namespace=shop&table=events&start_time=0&end_time=1000000";

/// Events whose times repeat and do not follow their numbers.
fn some(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|number| Event { time: (number * 7 % 100) as i64, number }).collect()
}

/// Sends events in small blocks, to all partitions in turn.
async fn ingest(world: &mut World, events: &[Event]) {
    for (at, block) in events.chunks(5).enumerate() {
        world.ingest(at as u32 % PARTITIONS, block).await;
    }
}

fn events_of(page: &Value) -> Vec<Event> {
    let event = |event: &Value| {
        let number = event["metrics"]["number"].as_f64().unwrap() as u64;
        let decoded = Event { time: event["event_time"].as_i64().unwrap(), number };
        let expected = json!({"event_time": decoded.time, "event_id": decoded.id(),
            "dimensions": {"region": decoded.region()}, "metrics": {"number": number as f64}});
        assert_eq!(*event, expected);
        decoded
    };
    page["events"].as_array().unwrap().iter().map(event).collect()
}

fn with_cursor(path: &str, page: &Value) -> Option<String> {
    Some(format!("{path}&cursor={}", page["cursor"].as_str()?))
}

/// Goal: all pages together are what was there at the first one, each event once and in order, whatever came meanwhile;
/// every page says that it covers that state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_stable_under_ingest() {
    let mut world = World::start(1 << 30).await;
    let before = some(0..200);
    ingest(&mut world, &before).await;
    let path = format!("{ALL}&limit=17");
    let (mut next, mut seen, mut covers, mut later) = (Some(path.clone()), Vec::new(), BTreeSet::new(), 200);
    while let Some(url) = next {
        let (status, page) = world.get(&url).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(events_of(&page));
        let receipt = &page["receipt"];
        assert_eq!((&receipt["complete"], &receipt["truncated"]), (&json!(true), &json!(!page["cursor"].is_null())));
        assert!(receipt.get("event_ids_missing").is_none());
        covers.insert((receipt["covers"].to_string(), receipt["offsets"].to_string()));
        ingest(&mut world, &some(later..later + 20)).await;
        later += 20;
        next = with_cursor(&path, &page);
    }
    assert!(seen.is_sorted_by_key(|event| event.time));
    seen.sort_unstable();
    let mut expected = before;
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(covers.len(), 1);
    let (_, fresh) = world.get(&format!("{ALL}&limit=100000")).await;
    assert_eq!((events_of(&fresh).len() as u64, &fresh["cursor"]), (later, &Value::Null));
}

/// Goal: filters and range choose as they do for a query, and an event that was sent twice is shown once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_choose_events() {
    let mut world = World::start(1 << 30).await;
    let sent = some(0..90);
    ingest(&mut world, &sent).await;
    ingest(&mut world, &sent).await;
    let filters = "%7B%22region%22%3A%5B%22r1%22%5D%2C%22number%22%3A%7B%22gte%22%3A30%7D%7D";
    let path = "/v1/events?namespace=shop&table=events&start_time=10&end_time=60";
    let (status, page) = world.get(&format!("{path}&filters={filters}&after=&cursor=")).await;
    assert_eq!(status, 200, "{page}");
    let mut expected: Vec<Event> = sent
        .into_iter()
        .filter(|event| (10..60).contains(&event.time) && event.number >= 30 && event.number % 3 == 1)
        .collect();
    expected.sort_unstable();
    let mut got = events_of(&page);
    got.sort_unstable();
    assert_eq!(got, expected);
    assert!(!got.is_empty());
}

/// Goal: a cursor serves its own question alone: not another range, filter, table or life of the table, not a token, nothing
/// changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_serve_their_own_question() {
    let mut world = World::start(1 << 30).await;
    ingest(&mut world, &some(0..50)).await;
    let (_, page) = world.get(&format!("{ALL}&limit=5")).await;
    let cursor = page["cursor"].as_str().unwrap().to_owned();
    let covers = page["receipt"]["covers"].as_str().unwrap();
    let (status, _) = world.get(&format!("{ALL}&limit=40&timeout_ms=900&cursor={cursor}")).await;
    assert_eq!(status, 200, "limit and timeout may change");
    let other_range = "/v1/events?namespace=shop&table=events&start_time=1&end_time=1000000";
    let changed = if cursor.ends_with('A') { "B" } else { "A" };
    let wrong = [
        format!("{other_range}&cursor={cursor}"),
        format!("{ALL}&filters=%7B%22region%22%3A%22r1%22%7D&cursor={cursor}"),
        format!("{ALL}&cursor={covers}"),
        format!("{ALL}&cursor={changed}{}", &cursor[1..]),
    ];
    for path in wrong {
        let (status, reply) = world.get(&path).await;
        assert_eq!((status, &reply["error"]["field"]), (400, &json!("cursor")), "{path}: {reply}");
    }
    world.catalog.replace();
    let (status, reply) = world.get(&format!("{ALL}&cursor={cursor}")).await;
    assert_eq!((status, &reply["error"]["field"]), (400, &json!("cursor")), "{reply}");
}

/// Goal: a token asks in vain for more than the state that a cursor shows, and is told so by its name; one within that state
/// is honoured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_cannot_show_what_came_later() {
    let mut world = World::start(1 << 30).await;
    ingest(&mut world, &some(0..50)).await;
    let (_, page) = world.get(&format!("{ALL}&limit=5")).await;
    let (cursor, within) = (page["cursor"].as_str().unwrap(), page["receipt"]["covers"].as_str().unwrap());
    let (status, reply) = world.get(&format!("{ALL}&cursor={cursor}&after={within}")).await;
    assert_eq!(status, 200, "{reply}");
    ingest(&mut world, &some(50..100)).await;
    let key = world.catalog.current().key;
    let mut later = Token::new(key.tenant);
    later.cover(&TableToken {
        table: key.table,
        generation: key.generation,
        schema_version: SchemaVersion(1),
        offsets: vec![(PartitionId(1), Offset(page["receipt"]["offsets"]["1"].as_u64().unwrap() + 1))],
    });
    let later = later.encode(&TokenKey::new(TOKEN_KEY));
    let (status, reply) = world.get(&format!("{ALL}&cursor={cursor}&after={later}")).await;
    assert_eq!((status, &reply["error"]["field"]), (400, &json!("after")), "{reply}");
    let (status, reply) = world.get(&format!("{ALL}&after={later}")).await;
    assert_eq!((status, events_of(&reply).len()), (200, 100));
}

/// Goal: where a node has not yet applied the state that a cursor shows, it is the cursor that is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_not_there_yet_is_the_cursors() {
    let mut world = World::start(1 << 30).await;
    ingest(&mut world, &some(0..50)).await;
    let (_, page) = world.get(&format!("{ALL}&limit=5")).await;
    let key = TokenKey::new(TOKEN_KEY);
    let mut ahead = Cursor::decode(&key, page["cursor"].as_str().unwrap()).unwrap();
    ahead.offsets[2].1.0 += 1;
    let (status, reply) = world.get(&format!("{ALL}&timeout_ms=50&cursor={}", ahead.encode(&key))).await;
    assert_eq!((status, &reply["error"]["field"]), (504, &json!("cursor")), "{reply}");
}

/// Goal: what stands in the query string and is wrong is refused by its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_parameters_are_named() {
    let world = World::start(1 << 30).await;
    let cases = [
        ("&limit=0", "limit"),
        ("&limit=x", "limit"),
        ("&filters=%7B", "filters"),
        ("&filters=%7B%22nowhere%22%3A1%7D", "nowhere"),
        ("&group_by=region", "group_by"),
        ("&start_time=1", "start_time"),
        ("&after=abc", "after"),
        ("&cursor=abc", "cursor"),
        ("&allow_partial=yes", "allow_partial"),
        ("&timeout_ms=0", "timeout_ms"),
    ];
    for (more, field) in cases {
        let (status, reply) = world.get(&format!("{ALL}{more}")).await;
        assert_eq!((status, &reply["error"]["field"]), (400, &json!(field)), "{more}: {reply}");
    }
    let (status, reply) = world.get("/v1/events?namespace=shop&table=none&start_time=0&end_time=1").await;
    assert_eq!((status, &reply["error"]["code"]), (404, &json!("NOT_FOUND")));
}

/// Goal: where the log has let records go, their events are still shown, without their ids, and the receipt counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_the_log_has_no_more_are_told() {
    let mut world = World::start(1 << 30).await;
    for number in 0..2_000 {
        world.ingest(0, &[Event { time: number as i64, number }]).await;
    }
    world.release_before(1_990).await;
    let (status, page) = world.get(&format!("{ALL}&limit=100000")).await;
    assert_eq!(status, 200, "{page}");
    let events = page["events"].as_array().unwrap();
    let without = events.iter().take_while(|event| event["event_id"].is_null()).count();
    assert!((1..1_990).contains(&without), "{without}");
    assert!((without..2_000).all(|at| events[at]["event_id"] == format!("event {at}")));
    let expected = json!([{"partition": 0, "why": "released", "events": without}]);
    assert_eq!((&page["receipt"]["event_ids_missing"], &page["receipt"]["complete"]), (&expected, &json!(true)));
}

/// Goal: rows that have left memory are never passed over in silence, not on the first page and not on a later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_left_are_told() {
    let mut world = World::start(3 << 20).await;
    let number = |n: u64| Event { time: n as i64 * 100, number: n };
    let block = |from: u64| (from..from + 500).map(number).collect::<Vec<_>>();
    world.ingest(0, &block(0)).await;
    let path = "/v1/events?namespace=shop&table=events&start_time=0&end_time=100000000&limit=10";
    let (status, first) = world.get(path).await;
    assert_eq!(status, 200, "{first}");
    let next = with_cursor(path, &first).unwrap();
    for from in (500..300_000).step_by(500) {
        world.ingest(0, &block(from)).await;
    }
    for path in [path, &next] {
        let (status, reply) = world.get(path).await;
        assert_eq!((status, &reply["error"]["code"]), (400, &json!("OUT_OF_RANGE")), "{reply}");
        let (status, page) = world.get(&format!("{path}&allow_partial=true")).await;
        assert_eq!((status, &page["receipt"]["complete"]), (200, &json!(false)), "{page}");
        assert_eq!(page["receipt"]["missing"][0]["why"], "evicted");
    }
}
