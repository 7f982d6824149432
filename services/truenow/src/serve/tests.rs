//! A cluster in one process: every member composed as `truenow serve` does it, with its own ports, and calls between them over
//! the network. They share a log in memory and metadata in a directory.

mod gaps;
mod merging;
mod moves;

use std::{sync::Arc, time::Duration};

use config::{Config, Machine, Sources};
use event_log::{EmbeddedConfig, EmbeddedLog, EventLog, SystemClock, faults::MemoryFiles};
use hyper::{Method, body::Bytes};
use metadata::{MetadataStore, SqliteStore};
use serde_json::{Value, json};
use service::Metrics;
use tempfile::TempDir;

use super::{
    compose::{ComposeError, Composed},
    engines::Engines,
};
use crate::{addresses::Addresses, http::Http};

const PARTITIONS: u32 = 8;
const KEY: &str = "the-key-of-this-cluster";
/// Patience with a machine that has much else to do.
const TRIES: u32 = 600;
const BETWEEN: Duration = Duration::from_millis(100);

struct World {
    log: Arc<dyn EventLog>,
    store: Arc<dyn MetadataStore>,
    directory: TempDir,
    http: Http,
}

impl World {
    async fn new() -> Self {
        Self::with_log(EmbeddedConfig::new("/log", PARTITIONS)).await
    }

    /// With a log in files of so many bytes.
    async fn with_segments(segment_bytes: u64) -> Self {
        Self::with_log(EmbeddedConfig { segment_bytes, ..EmbeddedConfig::new("/log", PARTITIONS) }).await
    }

    async fn with_log(config: EmbeddedConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(config, Arc::new(MemoryFiles::new(1)), Arc::new(SystemClock)).unwrap();
        let store = SqliteStore::open(&directory.path().join("metadata.db")).await.unwrap();
        let http = Http::new(&Addresses::default()).unwrap();
        Self { log: Arc::new(log), store: Arc::new(store), directory, http }
    }

    /// The settings of a member that runs some services on ports that are free.
    fn config(&self, services: &str, more: &[(&str, String)]) -> Config {
        let of_ports = config::keys().filter(|key| ["http_port", "grpc_port"].contains(&key.name));
        let mut flags: Vec<(String, String)> = of_ports.map(|key| (key.path(), "0".into())).collect();
        let name = more.iter().map(|(_, value)| value.replace(':', "-")).collect::<Vec<_>>().join("-");
        let data = self.directory.path().join(format!("{services}-{name}"));
        flags.push(("services".into(), services.into()));
        flags.push(("cluster_key".into(), KEY.into()));
        flags.push(("data_dir".into(), data.display().to_string()));
        flags.push(("hot_tier.memory_gb".into(), "0.1".into()));
        flags.push(("hot_tier.scan_threads".into(), "1".into()));
        flags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let sources = Sources { flags, ..Sources::default() };
        sources.into_config(&Machine { cores: 2, memory_bytes: 8 << 30 }).unwrap()
    }

    async fn start(&self, config: &Config) -> Composed {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let engines = Engines { log: Arc::clone(&self.log), store: Some(Arc::clone(&self.store)), results: None };
        Composed::start(config, Metrics::install(), engines).await.unwrap()
    }

    /// A member that follows a control plane elsewhere.
    async fn member(&self, plane: &Composed, services: &str, more: &[(&str, &str)]) -> Composed {
        let plane = plane.running("control-plane").grpc_address().to_string();
        let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let more: Vec<_> = more.chain([("cluster.control_plane", plane)]).collect();
        self.start(&self.config(services, &more)).await
    }

    async fn ask(&self, of: &Composed, service: &str, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}{path}", of.running(service).http_address());
        let headers = [("content-type", "application/json")];
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let reply = self.http.exchange(method, &url, &headers, body).await.unwrap();
        (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap_or_default())
    }

    /// Sends events with the ids of a range, and gives the token.
    async fn ingest(&self, gateway: &Composed, ids: std::ops::Range<u32>) -> String {
        let events: Vec<_> = ids.clone().map(event).collect();
        let mut last = Value::Null;
        for _ in 0..TRIES {
            let (status, reply) =
                self.ask(gateway, "gateway", Method::POST, "/v1/events", &json!({"events": events})).await;
            if status == 200 {
                assert_eq!(reply["accepted"], json!(ids.len()), "{reply}");
                return reply["token"].as_str().unwrap().to_owned();
            }
            assert!(status == 429 || status == 503, "{status} {reply}");
            last = reply;
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("events are not taken: {last}");
    }

    /// Waits until all partitions lie on these nodes, in any order.
    async fn until_placed(&self, plane: &Composed, nodes: &str) {
        let nodes: Vec<u64> = serde_json::from_str(nodes).unwrap();
        for _ in 0..TRIES {
            let (_, cluster) = self.ask(plane, "control-plane", Method::GET, "/v1/cluster", &Value::Null).await;
            let placed = cluster["placement"]["partitions"].as_array().cloned().unwrap_or_default();
            let holders = placed.iter().map(|partition| {
                let mut holders: Vec<u64> = serde_json::from_value(partition["replicas"].clone()).unwrap();
                holders.sort_unstable();
                holders
            });
            if !placed.is_empty() && holders.into_iter().all(|holders| holders == nodes) {
                return;
            }
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("partitions do not come to lie on {nodes:?}");
    }

    /// Asks for all events until the answer is complete: partitions that were placed anew are read from the log first.
    async fn count_complete(&self, query_api: &Composed) -> u64 {
        let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1_000_000,
            "aggregates": [{"fn": "count"}], "timeout_ms": 5_000});
        let mut last = Value::Null;
        for _ in 0..TRIES {
            let (status, answer) = self.ask(query_api, "query-api", Method::POST, "/v1/query", &query).await;
            if status == 200 && answer["receipt"]["complete"] == json!(true) {
                return answer["rows"][0]["count"].as_u64().unwrap();
            }
            last = answer;
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("answers stay incomplete: {last}");
    }

    /// All replicas answer, and those of a partition have the same.
    async fn until_replicas_agree(&self, query_api: &Composed) {
        for partition in 0..PARTITIONS {
            let path = format!("/v1/replicas/shop/events/{partition}");
            let mut agreed = Value::Null;
            for _ in 0..TRIES {
                agreed = self.ask(query_api, "query-api", Method::GET, &path, &Value::Null).await.1;
                if !agreed["agree"].is_null() {
                    break;
                }
                tokio::time::sleep(BETWEEN).await;
            }
            assert_eq!(agreed["agree"], json!(true), "{agreed}");
        }
    }

    /// Asks for all events behind some tokens; the answer is complete.
    async fn count(&self, query_api: &Composed, after: &[&str]) -> u64 {
        self.count_within(query_api, 1_000_000, after).await
    }

    /// As [`World::count`], of events up to a time.
    async fn count_within(&self, query_api: &Composed, end_time: u64, after: &[&str]) -> u64 {
        let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": end_time,
            "aggregates": [{"fn": "count"}], "after": after, "timeout_ms": 20_000});
        let (status, answer) = self.ask(query_api, "query-api", Method::POST, "/v1/query", &query).await;
        assert_eq!((status, &answer["receipt"]["complete"]), (200, &json!(true)), "{answer}");
        answer["rows"][0]["count"].as_u64().unwrap()
    }
}

fn event(id: u32) -> Value {
    json!({"namespace": "shop", "table": "events", "event_time": id, "event_id": format!("e{id}"),
        "dimensions": {"region": format!("r{}", id % 7)}, "metrics": {"revenue": 1.0}})
}

impl Composed {
    fn running(&self, service: &str) -> &service::Running {
        let mut all = self.before_log.iter().chain(&self.after_log);
        all.find(|running| running.service() == service).expect("it runs here")
    }

    /// Ends in order, as a process does that has its log for itself: the others go on reading theirs, which is the same here.
    async fn depart(self) {
        if let Some(reporter) = self.reporter {
            reporter.leave().await;
        }
        self.opening.iter().for_each(|opening| opening.stop.trigger());
        super::compose::stop(self.before_log).await;
        super::compose::stop(self.after_log).await;
    }

    /// Ends as a process that was killed: nobody is told, and what it shares with others stays.
    async fn vanish(self) {
        self.reporter.into_iter().for_each(super::reporter::Reporter::fall_silent);
        self.opening.iter().for_each(|opening| opening.stop.trigger());
        super::compose::stop(self.before_log).await;
        super::compose::stop(self.after_log).await;
    }
}

/// Goal: events that go in through any gateway are counted once by any query API, over nodes of which each holds some
/// partitions, each partition twice; when a node is killed, answers stay complete and events are taken on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_answers_as_one_and_outlives_a_node() {
    let world = World::new().await;
    let plane = world.config("control-plane,watermark,rebalancer", &[("cluster.nodes_first", "3".into())]);
    let plane = world.start(&plane).await;
    let node = async |id| world.member(&plane, "hot-tier,stream-ingester", &[("cluster.node_id", id)]).await;
    let (first, second, third) = tokio::join!(node("1"), node("2"), node("3"));
    let gateways = [world.member(&plane, "gateway", &[]).await, world.member(&plane, "gateway", &[]).await];
    let queries = [world.member(&plane, "query-api", &[]).await, world.member(&plane, "query-api", &[]).await];

    let tokens = [world.ingest(&gateways[0], 0..300).await, world.ingest(&gateways[1], 200..500).await];
    let tokens = tokens.each_ref().map(String::as_str);
    // Until all is placed and opened, answers are refused; from then on none is, also where one of two replicas dies.
    for query_api in &queries {
        assert_eq!(world.count_complete(query_api).await, 500);
    }
    world.until_replicas_agree(&queries[0]).await;
    for query_api in &queries {
        assert_eq!(world.count(query_api, &tokens).await, 500);
    }
    let (_, cluster) = world.ask(&plane, "control-plane", Method::GET, "/v1/cluster", &Value::Null).await;
    let placed = cluster["placement"]["partitions"].as_array().unwrap();
    assert_eq!(placed.len() as u32, PARTITIONS);
    assert!(placed.iter().all(|partition| partition["replicas"].as_array().unwrap().len() == 2), "{cluster}");
    let (_, ledger) = world.ask(&plane, "watermark", Method::GET, "/v1/ledger/shop/events", &Value::Null).await;
    let counted = ["acked", "live", "duplicate", "dead_lettered"].map(|term| ledger[term].as_u64());
    assert_eq!((counted, &ledger["balanced"]), ([600, 500, 100, 0].map(Some), &json!(true)), "{ledger}");

    first.vanish().await;
    for query_api in &queries {
        assert_eq!(world.count(query_api, &tokens).await, 500);
    }
    let token = world.ingest(&gateways[1], 500..700).await;
    for query_api in &queries {
        assert_eq!(world.count(query_api, &[&token]).await, 700);
    }
    // Its partitions go to the others, which read them from the log: each alone has all.
    world.until_placed(&plane, "[2,3]").await;
    let [second, third] = [second, third];
    second.vanish().await;
    for query_api in &queries {
        assert_eq!(world.count_complete(query_api).await, 700);
    }
    world.until_placed(&plane, "[3]").await;
    // It comes back as one of the two, and both hold everything again.
    let second = node("2").await;
    world.until_placed(&plane, "[2,3]").await;
    third.vanish().await;
    assert_eq!(world.count_complete(&queries[0]).await, 700);
    for member in gateways.into_iter().chain(queries).chain([second, plane]) {
        member.shutdown().await;
    }
}

/// Goal: a process that another has replaced as the same node is told so, and can say why it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_replaced_ends() {
    let world = World::new().await;
    let plane = world.start(&world.config("control-plane,watermark,rebalancer", &[])).await;
    let node = async || world.member(&plane, "hot-tier,stream-ingester", &[("cluster.node_id", "1")]).await;
    let mut first = node().await;
    world.until_placed(&plane, "[1]").await;
    let second = node().await;
    let why = first.failed().await;
    assert!(matches!(&why, ComposeError::Replaced(cause) if cause.message.contains("node 1")), "{why:?}");
    for member in [first, second, plane] {
        member.shutdown().await;
    }
}

/// Goal: a cluster over a log that lies on the disk of one process is refused by name.
#[tokio::test]
async fn a_cluster_needs_engines_that_are_shared() {
    let world = World::new().await;
    let refused = Engines::open(&world.config("control-plane", &[])).await.err().unwrap();
    assert!(matches!(refused, ComposeError::NotShared { setting: "event_log.kafka.brokers", .. }), "{refused}");
    let brokers = [("event_log.kafka.brokers", "127.0.0.1:1".to_owned())];
    let refused = Engines::open(&world.config("control-plane", &brokers)).await.err().unwrap();
    assert!(matches!(refused, ComposeError::NotShared { setting: "metadata.url", .. }), "{refused}");
    assert!(refused.to_string().contains("SQLite"), "{refused}");
}
