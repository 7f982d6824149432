//! The real server while it reads its checkpoints: a disk that takes its time is a pipe in the place of a file, as opening one
//! for reading waits for somebody who writes.

mod server;

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use server::Server;

const HOT_TIER: u16 = 9090;
const GATEWAY: u16 = 8088;
const QUERY_API: u16 = 8081;
const INGESTER: u16 = 8100;

/// Sends events with these numbers as ids; returns the token.
fn send(server: &Server, ids: impl Iterator<Item = u64>) -> Value {
    let event = |n: u64| json!({"namespace": "n", "table": "t", "event_id": n.to_string(), "metrics": {"m": 1.0}});
    let events: Vec<Value> = ids.map(event).collect();
    let body = json!({ "events": events }).to_string();
    let (status, reply) = server.request(GATEWAY, "POST", "/v1/events", &body);
    assert_eq!((status, &reply["accepted"]), (200, &json!(events.len())), "{reply}");
    reply["token"].clone()
}

fn count(server: &Server, after: &[&Value]) -> (u16, Value) {
    let query = json!({
        "namespace": "n", "table": "t", "start_time": 0, "end_time": 4_102_444_800_000_000_u64,
        "aggregates": [{"fn": "count", "as": "n"}], "after": after,
    });
    server.request(QUERY_API, "POST", "/v1/query", &query.to_string())
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|is| is == end)).collect()
}

fn wait_for_checkpoint(server: &Server, dir: &Path) {
    for _ in 0..1_000 {
        if !files(dir, "checkpoint").is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("no checkpoint comes:\n{}", server.log());
}

/// Goal: while checkpoints are read events are acked, questions are refused as such, health says what goes on, and SIGTERM
/// ends the server in order; the next start has what came before and meanwhile, each event once.
#[test]
fn events_are_taken_while_checkpoints_are_read() {
    let settings = [("TRUENOW_PARTITIONS", "1"), ("TRUENOW_HOT_TIER_CHECKPOINT_INTERVAL_MS", "100")];
    let mut server = Server::start_with(&settings);
    let before = send(&server, 0..50);
    assert_eq!(count(&server, &[&before]).1["rows"], json!([{"n": 50}]));
    let checkpoints = server.data().join("checkpoints/0");
    wait_for_checkpoint(&server, &checkpoints);
    server.kill();
    let packs = files(&checkpoints, "pack");
    assert!(!packs.is_empty());
    for pack in &packs {
        fs::rename(pack, pack.with_extension("away")).unwrap();
        assert!(Command::new("mkfifo").arg(pack).status().unwrap().success());
    }

    server.restart();
    server.wait_for(GATEWAY);
    server.wait_for(QUERY_API);
    let meanwhile = send(&server, 40..80);
    let (status, reply) = count(&server, &[]);
    assert_eq!((status, &reply["error"]["code"]), (503, &json!("UNAVAILABLE")), "{reply}");
    assert!(reply.to_string().contains("recovering"), "{reply}");
    for port in [HOT_TIER, INGESTER] {
        let (status, health) = server.request(port, "GET", "/health", "");
        assert_eq!((status, &health["status"]), (503, &json!("starting")), "{health}");
        assert_eq!(health["progress"], json!(0.0));
    }
    server.terminate();
    server.wait_for_silence(GATEWAY);
    let unblock = |pack| drop(File::options().read(true).write(true).open(pack).unwrap());
    assert!(server.ended(|| packs.iter().for_each(unblock)).success());

    packs.iter().for_each(|pack| fs::rename(pack.with_extension("away"), pack).unwrap());
    server.restart();
    [HOT_TIER, INGESTER, QUERY_API].into_iter().for_each(|port| server.wait_for(port));
    assert_eq!(count(&server, &[&before, &meanwhile]).1["rows"], json!([{"n": 80}]));
}

/// Goal: where the checkpoints cannot be gone on from, the server ends with an error that names the partition, though it took
/// events by then, and the next start has them.
#[test]
fn a_server_that_cannot_open_its_partitions_ends() {
    let settings = [("TRUENOW_PARTITIONS", "1"), ("TRUENOW_HOT_TIER_CHECKPOINT_INTERVAL_MS", "100")];
    let mut server = Server::start_with(&settings);
    let before = send(&server, 0..50);
    let checkpoints = server.data().join("checkpoints/0");
    wait_for_checkpoint(&server, &checkpoints);
    server.kill();
    // A directory in the place of each pack can be opened and not be read, which may pass.
    let packs = files(&checkpoints, "pack");
    for pack in &packs {
        fs::rename(pack, pack.with_extension("away")).unwrap();
        fs::create_dir(pack).unwrap();
    }
    server.restart();
    assert_eq!(server.ended(|| ()).code(), Some(1));
    assert!(server.log().contains("partition 0"), "{}", server.log());
    for pack in &packs {
        fs::remove_dir(pack).unwrap();
        fs::rename(pack.with_extension("away"), pack).unwrap();
    }
    server.restart();
    [HOT_TIER, INGESTER, QUERY_API].into_iter().for_each(|port| server.wait_for(port));
    assert_eq!(count(&server, &[&before]).1["rows"], json!([{"n": 50}]));
}

/// Goal: SIGTERM ends a server in order also while it waits for brokers that take connections and say nothing; until then it keeps
/// others out of its data directory, whatever engines it has.
#[test]
fn a_server_that_waits_for_its_engines_can_be_stopped() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let brokers: &'static str = silent.local_addr().unwrap().to_string().leak();
    let mut server = Server::spawned(&[("TRUENOW_EVENT_LOG_KAFKA_BROKERS", brokers)]);
    // Once it asks, it opens its log.
    let _asked = silent.accept().unwrap();
    let (status, said) = server.second_on_its_data();
    assert!(!status.success() && said.contains("in use by another process"), "{status}: {said}");
    server.terminate();
    assert!(server.ended(|| {}).success(), "{}", server.log());
    assert!(server.log().contains("shutting down"), "{}", server.log());
}
