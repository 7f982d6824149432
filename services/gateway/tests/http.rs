//! `POST /v1/events` and its neighbours, over real sockets.

mod support;

use std::{collections::BTreeSet, io::Write as _, sync::atomic::Ordering::Relaxed, time::Duration};

use proto::hot_tier::MemoryState;
use serde_json::json;
use support::{Gateway, NOW, event, log::State, token};
use types::{Offset, PartitionId, TableId, TableName};

fn shop() -> TableName {
    TableName::new("shop", "events")
}

/// Goal: every form of a body gives the same events, and the reply has the contract's shape.
#[tokio::test]
async fn all_forms_are_taken() {
    let gateway = Gateway::start().await;
    let one = gateway.post(event(0)).await;
    assert_eq!(one.status, 200, "{}", one.json);
    assert_eq!(one.json["accepted"], 1);
    assert_eq!(one.json["rejected"], json!([]));
    assert_eq!(one.json["durability"], "synced");
    assert!(one.json["token"].is_string() && one.json.as_object().unwrap().len() == 4);
    let array = format!("[{},{}]", event(1), event(2));
    let wrapped = format!("{{\"events\":[{},{}]}}", event(3), event(4));
    assert_eq!(gateway.post(array).await.json["accepted"], 2);
    assert_eq!(gateway.post_with(&[], wrapped).await.json["accepted"], 2);
    let lines = format!("{}\n\n{}\r\n", event(5), event(6));
    for kind in ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8"] {
        assert_eq!(gateway.post_with(&[("content-type", kind)], lines.clone()).await.json["accepted"], 2);
    }
    let mut ids: Vec<_> = gateway.log.events().into_iter().map(|(_, _, event)| event).collect();
    ids.sort();
    assert_eq!(ids.len(), 9);
    assert!(ids[0].contains("\"event_id\":\"e0\"") && ids[0].contains("\"region\":\"r0\""), "{}", ids[0]);
}

/// Goal: what is wrong with one event rejects that event with its index and reason, and is found again as a dead letter.
#[tokio::test]
async fn bad_events_are_rejected_alone() {
    let gateway = Gateway::start().await;
    let bad = r#"{"namespace":"shop","table":"events","metrics":{"revenue":"x"}}"#;
    let future = format!("{{\"namespace\":\"shop\",\"table\":\"events\",\"event_time\":{}}}", NOW + 60_000_001);
    let body = format!("[{},{bad},{},{future},{{\"table\":\"events\"}}]", event(0), event(1));
    let reply = gateway.post(body).await;
    assert_eq!((reply.status, &reply.json["accepted"]), (200, &json!(2)), "{}", reply.json);
    let rejected = reply.json["rejected"].as_array().unwrap();
    assert_eq!(rejected.iter().map(|reject| reject["index"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3, 4]);
    assert!(rejected.iter().all(|reject| reject["code"] == "INVALID_ARGUMENT"));
    assert_eq!(rejected[0]["message"], "metrics.revenue is not a number");
    assert!(rejected[1]["message"].as_str().unwrap().contains("max_future_us"));
    assert!(rejected[2]["message"].as_str().unwrap().contains("namespace"));

    let letters = gateway.get("/v1/dead-letters/shop/events").await;
    assert_eq!(letters.json["cursor"], json!(null));
    let letters = letters.json["letters"].as_array().unwrap();
    assert_eq!(letters.len(), 2, "the last names no table");
    assert_eq!(letters[0]["received_us"], NOW);
    assert_eq!(letters[0]["code"], "INVALID_ARGUMENT");
    assert_eq!(letters[0]["event"], serde_json::from_str::<serde_json::Value>(bad).unwrap());
    assert_eq!(letters[1]["event"]["event_time"], NOW + 60_000_001);
}

/// Goal: a request of which nothing was accepted is a 400 with the error beside the rejects; a body that cannot be parsed
/// has the error alone; neither appends.
#[tokio::test]
async fn nothing_accepted_is_an_error() {
    let gateway = Gateway::start().await;
    let bad = r#"{"namespace":"shop","table":"events","colour":1}"#;
    let reply = gateway.post(bad).await;
    assert_eq!((reply.status, &reply.json["accepted"]), (400, &json!(0)));
    assert_eq!(reply.json["error"]["code"], "INVALID_ARGUMENT");
    assert_eq!(reply.json["rejected"].as_array().unwrap().len(), 1);
    assert_eq!(gateway.get("/v1/dead-letters/shop/events").await.json["letters"].as_array().unwrap().len(), 1);
    let deep = "[".repeat(100_000);
    for body in ["{", "", "[]", "{\"events\":[]}", "7", &deep, "\u{1}"] {
        let reply = gateway.post(body.to_owned()).await;
        assert_eq!(reply.status, 400, "{body:.20}");
        assert_eq!(reply.json["error"]["code"], "INVALID_ARGUMENT");
        assert!(reply.json["accepted"].is_null(), "{body:.20}");
    }
    let lines = gateway.post_with(&[("content-type", "application/x-ndjson")], "no\nline\n").await;
    assert_eq!((lines.status, lines.json["accepted"].is_null()), (400, true));
    assert_eq!(gateway.log.rows(), 0);
}

/// Goal: gzip and zstd are inflated within the limit; bombs stop there, doubled and unknown encodings are refused.
#[tokio::test]
async fn encodings_are_bounded() {
    let gateway = Gateway::with(&[("gateway.request_bytes_max", "1048576")]).await;
    let many = format!("[{}]", (0..2_000).map(event).collect::<Vec<_>>().join(","));
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let send = async |encoding: &'static str, body: Vec<u8>| {
        gateway.post_with(&[("content-type", "application/json"), ("content-encoding", encoding)], body).await
    };
    assert_eq!(send("gzip", gzip(many.as_bytes())).await.json["accepted"], 2_000);
    assert_eq!(send("zstd", zstd(many.as_bytes())).await.json["accepted"], 2_000);
    assert_eq!(send("identity", many.clone().into()).await.json["accepted"], 2_000);
    let bomb = vec![b' '; 64 << 20];
    assert_eq!(send("gzip", gzip(&bomb)).await.status, 413);
    assert_eq!(send("zstd", zstd(&bomb)).await.status, 413);
    assert_eq!(send("identity", bomb).await.status, 413);
    for encoding in ["gzip, gzip", "br", "gzip,identity"] {
        assert_eq!(send(encoding, gzip(many.as_bytes())).await.status, 415, "{encoding}");
    }
    let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip"), ("content-type", "application/json")];
    assert_eq!(gateway.post_with(&twice, gzip(many.as_bytes())).await.status, 415);
    assert_eq!(send("gzip", b"no gzip".to_vec()).await.status, 400);
    assert_eq!(gateway.post_with(&[("content-type", "text/csv")], many).await.status, 415);
}

/// Goal: limits of count, rate and queue answer with their code, field and time, and take nothing.
#[tokio::test]
async fn limits_answer_by_name() {
    let gateway = Gateway::with(&[
        ("gateway.request_events_max", "10"),
        ("gateway.rate_limit", "100"),
        ("gateway.tenant_rate_limit", "20"),
        ("gateway.burst_ms", "1000"),
    ])
    .await;
    let some = |n: u64| format!("[{}]", (0..n).map(event).collect::<Vec<_>>().join(","));
    let reply = gateway.post(some(11)).await;
    assert_eq!((reply.status, &reply.json["error"]["code"]), (413, &json!("RESOURCE_EXHAUSTED")));
    assert!(reply.retry_after.is_none());
    assert_eq!(gateway.post(some(10)).await.status, 200);
    let limits = gateway.get("/v1/limits").await.json;
    assert_eq!(limits["tenant"], json!({"events_per_second": 20, "burst": 20, "remaining": 10}));
    assert_eq!(limits["request"]["events"], 10);
    assert_eq!(gateway.post(some(10)).await.status, 200);
    for _ in 0..2 {
        let reply = gateway.post(some(10)).await;
        assert_eq!((reply.status, &reply.json["error"]["field"]), (429, &json!("tenant_rate_limit")));
        assert!(reply.retry_after.unwrap() >= 1);
    }
    assert_eq!(gateway.log.rows(), 20);
    gateway.clock.advance(Duration::from_millis(500));
    assert_eq!(gateway.post(some(10)).await.status, 200);

    gateway.clock.advance(Duration::from_secs(10));
    for state in [State::Filling, State::Full] {
        gateway.log.set(state);
        let reply = gateway.post(event(1)).await;
        assert_eq!((reply.status, &reply.json["error"]["field"]), (429, &json!("log_queue")));
        assert!((1..=3).contains(&reply.retry_after.unwrap()));
    }
    gateway.log.set(State::Failing);
    let reply = gateway.post(event(1)).await;
    assert_eq!((reply.status, &reply.json["error"]["code"]), (503, &json!("UNAVAILABLE")));
    assert!(reply.retry_after.is_some());
    gateway.log.set(State::Well);
    gateway.catalog.away.store(true, Relaxed);
    let elsewhere = r#"{"namespace":"shop","table":"unknown"}"#;
    assert_eq!(gateway.post(elsewhere).await.status, 503);
    assert_eq!(gateway.post(event(1)).await.status, 200, "a known table needs nobody");
}

/// Goal: bodies that together would pass the bound on bytes in flight are refused, and what they held is given back.
#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let gateway =
        Gateway::with(&[("gateway.inflight_bytes_max", "1048576"), ("gateway.request_bytes_max", "1048576")]).await;
    for _ in 0..3 {
        let fits = format!("[{}]", (0..2_000).map(event).collect::<Vec<_>>().join(","));
        assert_eq!(gateway.post(fits.clone()).await.status, 200);
        let inflated = zstd::encode_all(format!("{}{}", " ".repeat(900_000), event(1)).as_bytes(), 1).unwrap();
        assert_eq!(gateway.post_with(&[("content-encoding", "zstd")], inflated).await.status, 200);
        // As large as one may be; with its compressed bytes more than all together may have.
        let spaces = " ".repeat((1 << 20) - event(1).len());
        let large = zstd::encode_all(format!("{spaces}{}", event(1)).as_bytes(), 1).unwrap();
        let reply = gateway.post_with(&[("content-encoding", "zstd")], large).await;
        assert_eq!((reply.status, &reply.json["error"]["field"]), (429, &json!("requests_in_flight")));
    }
}

/// Goal: what is applied may lag behind by so many bytes or so long, and memory may be short: first health is degraded by
/// that reason, then events are refused before they are read, spread in time; when it has passed all is as before.
#[tokio::test]
async fn overload_is_refused_first_and_passes() {
    let settings =
        [("gateway.lag_refused_ms", "5000"), ("gateway.lag_refused_bytes", "2000000"), ("gateway.rate_limit", "20")];
    let gateway = Gateway::with(&settings).await;
    let seconds = Duration::from_secs;
    let well = || gateway.load.lag(2_000_000, seconds(5));
    let long = || gateway.load.lag(0, Duration::from_millis(5_001));
    let much = || gateway.load.lag(2_000_001, seconds(0));
    let ids = || gateway.load.memory(MemoryState::IdsFull);
    let full = || gateway.load.memory(MemoryState::Full);
    let cases: [(&dyn Fn(), &str); 4] =
        [(&long, "apply_lag"), (&much, "apply_lag"), (&ids, "dedup_window_us"), (&full, "memory")];
    for (n, (set, field)) in cases.into_iter().enumerate() {
        set();
        let mut times = BTreeSet::new();
        for _ in 0..20 {
            // No JSON: were it read, that would be the answer.
            let reply = gateway.post("{").await;
            assert_eq!((reply.status, &reply.json["error"]["field"]), (429, &json!(field)), "{}", reply.json);
            times.insert(reply.retry_after.unwrap());
        }
        assert!(times.len() > 1 && times.iter().all(|after| (1..=3).contains(after)), "{times:?}");
        well();
        gateway.load.memory(MemoryState::Room);
        assert_eq!(gateway.post(event(n as u64)).await.status, 200);
    }
    let health = gateway.get("/health").await;
    assert_eq!((health.status, gateway.log.rows()), (200, 4), "{}", health.json);
}

/// Goal: health tells of a lag before events are refused for it, and when it is over.
#[tokio::test]
async fn a_lag_degrades_first() {
    let gateway = Gateway::start().await;
    let until = async |status: &str| {
        let wait = async {
            loop {
                let health = gateway.get("/health").await.json;
                if health["status"] == status {
                    return health;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens at one of the next looks")
    };
    gateway.load.lag(0, Duration::from_millis(2_001));
    let health = until("degraded").await;
    assert!(health["reasons"][0].as_str().unwrap().contains("2.0 s"), "{health}");
    assert_eq!(gateway.post(event(0)).await.status, 200);
    gateway.load.lag(0, Duration::ZERO);
    until("healthy").await;
}

/// Goal: tables and columns grow with the events, by asking once; a name keeps its kind, across requests and within one.
#[tokio::test]
async fn tables_and_columns_grow() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.post(event(0)).await.status, 200);
    let table = gateway.catalog.find(&shop()).unwrap();
    assert_eq!(table.schema.columns().len(), 2);
    let asked = gateway.catalog.calls.load(Relaxed);
    assert_eq!(gateway.post(event(1)).await.status, 200);
    assert_eq!(gateway.catalog.calls.load(Relaxed), asked, "the hot path asks nobody");

    let swapped = r#"{"namespace":"shop","table":"events","dimensions":{"revenue":"x"}}"#;
    let reply = gateway.post(format!("[{swapped},{}]", event(2))).await;
    assert_eq!(reply.json["accepted"], 1, "{}", reply.json);
    assert_eq!(reply.json["rejected"][0]["message"], "dimensions.revenue: revenue is a metric of this table");
    let both = |id| {
        let as_metric = format!(r#"{{"namespace":"shop","table":"events","event_id":"{id}","metrics":{{"new":1}}}}"#);
        let as_name =
            format!(r#"{{"namespace":"shop","table":"events","event_id":"{id}n","dimensions":{{"new":"x"}}}}"#);
        format!("{as_metric},{as_name}")
    };
    let many = (0..20).map(both).collect::<Vec<_>>().join(",");
    let reply = gateway.post(format!("[{many}]")).await;
    assert_eq!(reply.json["accepted"], 20, "the first kind holds in all partitions: {}", reply.json);
    let headers: Vec<_> = gateway.log.blocks().iter().map(|block| block.header.schema_version).collect();
    assert_eq!(headers.iter().max(), Some(&gateway.catalog.find(&shop()).unwrap().schema.version()));

    gateway.catalog.auto_create.store(false, Relaxed);
    let elsewhere = r#"{"namespace":"shop","table":"other"}"#;
    let reply = gateway.post(format!("[{elsewhere},{}]", event(3))).await;
    assert_eq!((&reply.json["accepted"], &reply.json["rejected"][0]["code"]), (&json!(1), &json!("NOT_FOUND")));
}

/// Goal: more columns than a table may have are rejected, event by event, and those that fit are not.
#[tokio::test]
async fn tables_stop_growing() {
    let gateway = Gateway::start().await;
    let event = |n: usize| {
        let metrics: Vec<_> = (0..60).map(|m| format!("\"m{}\":1", n * 60 + m)).collect();
        format!(r#"{{"namespace":"shop","table":"events","metrics":{{{}}}}}"#, metrics.join(","))
    };
    let reply = gateway.post(format!("[{}]", (0..20).map(event).collect::<Vec<_>>().join(","))).await;
    assert_eq!(reply.json["accepted"], 17, "17 · 60 = 1020 columns fit");
    assert!(reply.json["rejected"][0]["message"].as_str().unwrap().contains("at most 1024 columns"));
}

/// Goal: a token covers its own batch and all that was acked before for its tables, and only grows.
#[tokio::test]
async fn tokens_cover_all_that_was_acked() {
    let gateway = Gateway::start().await;
    let covered = |reply: &support::Reply| {
        token(reply.json["token"].as_str().unwrap()).table(TableId(1)).unwrap().offsets.clone()
    };
    let mut last = Vec::new();
    for n in 0..20 {
        let offsets = covered(&gateway.post(event(n)).await);
        for (partition, offset) in &last {
            assert!(offsets.iter().any(|(p, o)| p == partition && o >= offset));
        }
        last = offsets;
    }
    let ends = |p: u32| (PartitionId(p), event_log::EventLog::bounds(&*gateway.log, PartitionId(p)).end);
    let expected: Vec<_> = (0..4).map(ends).filter(|(_, end)| *end > Offset::ZERO).collect();
    assert_eq!(last, expected);
}

/// Goal: a batch with a key goes to one partition with its identity and its events' own indexes, the same each time.
#[tokio::test]
async fn batches_with_a_key_are_identified() {
    let gateway = Gateway::start().await;
    let event = |n: u32| {
        let metric = if n == 2 { "\"x\"".to_owned() } else { n.to_string() };
        format!(r#"{{"namespace":"shop","table":"events","metrics":{{"n":{metric}}}}}"#)
    };
    let body = format!("[{}]", (0..6).map(event).collect::<Vec<_>>().join(","));
    for key in ["a", "a", "b"] {
        let headers = [("idempotency-key", key), ("content-type", "application/json")];
        assert_eq!(gateway.post_with(&headers, body.clone()).await.json["accepted"], 5);
    }
    let blocks = gateway.log.blocks();
    assert_eq!(blocks.len(), 3, "one block per batch");
    let identities: Vec<_> = blocks.iter().map(|block| block.header.batch.unwrap().producer).collect();
    assert_eq!(identities.iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
    for (_, index, event) in gateway.log.events() {
        assert!(event.contains(&format!("\"n\":{index}.0")), "{index}: {event}");
    }
    let long = "x".repeat(257);
    assert_eq!(gateway.post_with(&[("idempotency-key", &long)], body).await.status, 400);
}

/// Goal: events go where their key says: the value of `partition_by`, else the id; those with neither stay together.
#[tokio::test]
async fn events_go_where_their_key_says() {
    let gateway = Gateway::start().await;
    let table = gateway.catalog.put(&shop(), |table| table.partition_by = Some("user".into()));
    let event = |n: u32| {
        let id = if n % 3 == 1 { format!("\"event_id\":\"i{n}\",") } else { String::new() };
        let user = if n.is_multiple_of(3) { format!("\"user\":\"u{n}\"") } else { String::new() };
        format!(r#"{{"namespace":"shop","table":"events",{id}"dimensions":{{{user}}},"metrics":{{"n":{n}}}}}"#)
    };
    let body = format!("[{}]", (0..60).map(event).collect::<Vec<_>>().join(","));
    assert_eq!(gateway.post(body).await.json["accepted"], 60);
    let mut others = std::collections::BTreeSet::new();
    for (block, _, event) in gateway.log.events() {
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        let partition = block.header.partition;
        if let Some(user) = event["dimensions"]["user"].as_str() {
            assert_eq!(partition, codec::partition_of(&table, codec::PartitionKey::Value(user)));
        } else if let Some(id) = event["event_id"].as_str() {
            assert_eq!(partition, codec::partition_of(&table, codec::PartitionKey::EventId(id.as_bytes())));
        } else {
            others.insert(partition);
        }
    }
    assert_eq!(others.len(), 1);
}

/// Goal: dead letters are paged, and are there after a restart; what no table can be named has none.
#[tokio::test]
async fn dead_letters_survive_a_restart() {
    let gateway = Gateway::start().await;
    let bad: Vec<_> = (0..5).map(|n| format!(r#"{{"namespace":"shop","table":"events","x{n}":1}}"#)).collect();
    let lines = format!("{}\n{{\"namespace\":\"shop\",\"table\":\"events\",\n", bad.join("\n"));
    let kind = [("content-type", "application/x-ndjson")];
    assert_eq!(gateway.post_with(&kind, lines).await.status, 400);
    let Gateway { running, catalog, log, dir, .. } = gateway;
    let _ = running.shutdown().await;
    let gateway = Gateway::in_dir(dir, catalog, log, &[]).await;
    let (mut letters, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/v1/dead-letters/shop/events?limit=2{cursor}")).await.json;
        letters.extend(page["letters"].as_array().unwrap().clone());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(letters.len(), 6);
    assert_eq!(letters[0]["event"]["x0"], 1);
    assert_eq!(letters[5]["event"], "{\"namespace\":\"shop\",\"table\":\"events\",");
    for (path, status) in [
        ("/v1/dead-letters/shop/events?cursor=zzz", 400),
        ("/v1/dead-letters/shop/events?limit=0", 400),
        ("/v1/dead-letters/shop/events?colour=red", 400),
        ("/v1/dead-letters/shop/%2e%2e", 404),
        ("/v1/dead-letters/shop/none", 200),
    ] {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
    }
}

/// Goal: with a key configured nobody gets in without it, and health stays open.
#[tokio::test]
async fn a_key_is_asked_for() {
    let gateway = Gateway::with(&[("api_key", "a-key-of-some-length")]).await;
    assert_eq!(gateway.post(event(0)).await.status, 401);
    let headers = [("authorization", "Bearer a-key-of-some-length"), ("content-type", "application/json")];
    assert_eq!(gateway.post_with(&headers, event(0)).await.status, 200);
    let health = gateway.get("/health").await;
    assert_eq!((health.status, &health.json["service"]), (200, &json!("gateway")));
}
