//! `truenow replay` from a real server's log into another of its tables.

mod server;

use std::process::Command;

use serde_json::{Value, json};
use server::Server;

const CONTROL_PLANE: u16 = 8001;
const QUERY_API: u16 = 8081;
const GATEWAY: u16 = 8088;
const WATERMARK: u16 = 8084;
/// Events with ids; all times are this far apart, µs.
const IDS: i64 = 300;
/// Events with nothing.
const BARE: i64 = 40;

struct Shop {
    server: Server,
    /// What a query presents to see the events sent by this test.
    token: Value,
}

impl Shop {
    /// A server with the table `shop.events`: 300 events with ids, each sent twice, and 40 with none.
    fn open() -> Self {
        let mut shop = Self { server: Server::start(), token: Value::Null };
        for table in ["events", "copy", "part"] {
            let partitions = if table == "copy" { 1 } else { 3 };
            let table = json!({"namespace":"shop","table":table,"partitions":partitions,"partition_by":"user"});
            let (status, reply) = shop.server.request(CONTROL_PLANE, "POST", "/v1/tables", &table.to_string());
            assert_eq!(status, 201, "{reply}");
        }
        let with_ids: Vec<_> = (0..IDS).map(|n| event(n, true)).collect();
        let bare: Vec<_> = (IDS..IDS + BARE).map(|n| event(n, false)).collect();
        for events in [&with_ids[..], &with_ids[..100], &with_ids[50..], &bare[..]] {
            let body = json!({ "events": events }).to_string();
            let (status, reply) = shop.server.request(GATEWAY, "POST", "/v1/events", &body);
            assert_eq!((status, &reply["accepted"]), (200, &json!(events.len())), "{reply}");
            shop.token = reply["token"].clone();
        }
        shop
    }

    /// Rows and revenue of every user, once all that is durable has been applied.
    fn users(&self, table: &str, start: i64, end: i64) -> Value {
        self.settled(table);
        let after = if table == "events" { self.token.clone() } else { Value::Null };
        let query = json!({"namespace":"shop","table":table,"start_time":start,"end_time":end,"group_by":["user"],
            "aggregates":[{"fn":"count"},{"fn":"sum","metric":"revenue"}],"after":after});
        let (status, reply) = self.server.request(QUERY_API, "POST", "/v1/query", &query.to_string());
        assert_eq!(status, 200, "{reply}");
        reply["rows"].clone()
    }

    /// The ledger of a table when nothing of it is in flight.
    fn settled(&self, table: &str) -> Value {
        for _ in 0..600 {
            let path = format!("/v1/ledger/shop/{table}");
            let (status, ledger) = self.server.request(WATERMARK, "GET", &path, "");
            assert_eq!(status, 200, "{ledger}");
            if ledger["in_flight"] == 0 {
                assert_eq!(ledger["balanced"], true, "{ledger}");
                return ledger;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the log of {table} is never applied");
    }

    /// Whether it went well, and what it said.
    fn replay(&self, more: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_truenow"));
        let command = command.args(["replay", "--namespace", "shop", "--table", "events", "--port-offset"]);
        let output = command.arg(self.server.offset().to_string()).args(more).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}

fn event(n: i64, id: bool) -> Value {
    let mut event = json!({"namespace":"shop","table":"events","event_time":1_754_772_362_000_000 + n,
        "dimensions":{"user":format!("u{}", n % 7)},"metrics":{"revenue":n}});
    if id {
        event["event_id"] = json!(format!("e{n}"));
    }
    event
}

/// Goal: a replay brings every event over once, however often it stands in the log and however often the replay is
/// repeated; a range of times brings over its part; counting sends nothing; what cannot be done fails with its reason.
#[test]
fn a_replay_counts_every_event_once() {
    let shop = Shop::open();
    let (start, end) = (1_754_772_362_000_000, 1_754_772_362_000_000 + IDS + BARE);
    let all = shop.users("events", start, end);
    assert_eq!(all.as_array().unwrap().len(), 7);

    let (well, said) = shop.replay(&["--into", "counted", "--dry-run"]);
    assert!(well && said.contains("shop.events has 690 events"), "{said}");
    let (status, _) = shop.server.request(CONTROL_PLANE, "GET", "/v1/tables/shop/counted", "");
    assert_eq!(status, 404);

    for round in 1..=2 {
        let (well, said) = shop.replay(&["--into", "copy"]);
        assert!(well && said.contains("accepted 690 events (synced)"), "{said}");
        assert_eq!(shop.users("copy", start, end), all, "round {round}");
        assert_eq!(shop.settled("copy")["live"], IDS + BARE);
    }

    let (from, to) = (start + 10, start + IDS + 5);
    let (well, said) = shop.replay(&["--into", "shop.part", "--from", &from.to_string(), "--to", &to.to_string()]);
    assert!(well, "{said}");
    assert_eq!(shop.users("part", start, end), shop.users("events", from, to));

    for (arguments, why) in [
        (&["--into", "events"][..], "a table cannot be replayed into itself"),
        (&["--into", "copy", "--from", "7", "--to", "7"], "--to must be after --from"),
        (&["--into", "copy", "--from", "noon"], "--from: "),
    ] {
        let (well, said) = shop.replay(arguments);
        assert!(!well && said.contains(why), "{said}");
    }
    // The later `--table` is the one that counts.
    let (well, said) = shop.replay(&["--into", "copy", "--dry-run", "--to", "2001-01-01T00:00:00Z"]);
    assert!(well && said.contains("shop.events has 0 events in 0 blocks"), "{said}");
    shop.server.request(CONTROL_PLANE, "PATCH", "/v1/tables/shop/part", r#"{"json_schema":{"required":["event_id"]}}"#);
    let (well, said) = shop.replay(&["--into", "part"]);
    assert!(!well && said.contains("rejected 40") && said.contains("\"event_id\" is a required property"), "{said}");
}
