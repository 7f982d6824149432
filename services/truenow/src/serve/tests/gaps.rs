//! Replicas that the log alone cannot make whole.

use std::path::{Path, PathBuf};

use event_log::Bounds;
use hyper::Method;
use serde_json::{Value, json};
use types::{Offset, PartitionId};

use super::{BETWEEN, Composed, PARTITIONS, TRIES, World};

/// Small, so that the log lets go of what two checkpoints of each partition do not need.
const SEGMENT_BYTES: u64 = 16 << 10;
const NODE: &str = "hot-tier,stream-ingester";
/// Events of one request.
const BATCH: u32 = 200;

/// Two nodes that hold all partitions both, over a log that let go of its begin. Nobody changes the map any more.
struct Cluster {
    world: World,
    plane: Composed,
    gateway: Composed,
    query_api: Composed,
    events: u32,
}

impl Cluster {
    async fn start() -> (Self, [Composed; 2]) {
        let world = World::with_segments(SEGMENT_BYTES).await;
        let plane = world.start(&world.config("control-plane,watermark", &[])).await;
        let rebalancer = world.member(&plane, "rebalancer", &[("cluster.nodes_first", "2")]).await;
        let gateway = world.member(&plane, "gateway", &[]).await;
        let query_api = world.member(&plane, "query-api", &[]).await;
        let mut cluster = Self { world, plane, gateway, query_api, events: 0 };
        let nodes = tokio::join!(cluster.node("1", "a"), cluster.node("2", "a"));
        cluster.world.until_placed(&cluster.plane, "[1,2]").await;
        rebalancer.vanish().await;
        cluster.ingest_until_released(&[Offset::ZERO; PARTITIONS as usize]).await;
        cluster.assert_whole().await;
        (cluster, nodes.into())
    }

    /// A node; one of the same id and another `disk` has nothing of what it had.
    async fn node(&self, id: &str, disk: &str) -> Composed {
        let often = ("hot_tier.checkpoint_interval_ms", "200");
        let settings = [("cluster.node_id", id), ("cluster.zone", disk), often];
        self.world.member(&self.plane, NODE, &settings).await
    }

    /// Where a node has the checkpoints of a partition.
    fn checkpoints(&self, id: &str, disk: &str, partition: u32) -> PathBuf {
        let of_node = format!("{NODE}-{id}-{disk}-");
        let all = std::fs::read_dir(self.world.directory.path()).unwrap().map(|entry| entry.unwrap());
        let dir = all.into_iter().find(|entry| entry.file_name().to_str().unwrap().starts_with(&of_node));
        dir.expect("the node was started").path().join("checkpoints").join(partition.to_string())
    }

    /// Events come until the log begins behind these offsets.
    async fn ingest_until_released(&mut self, behind: &[Offset]) {
        for _ in 0..TRIES {
            let is_gone = |(partition, offset): (u32, &Offset)| self.bounds(partition).start > *offset;
            if (0..PARTITIONS).zip(behind).all(is_gone) {
                return;
            }
            self.world.ingest(&self.gateway, self.events..self.events + BATCH).await;
            self.events += BATCH;
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("the log lets go of nothing");
    }

    fn bounds(&self, partition: u32) -> Bounds {
        self.world.log.bounds(PartitionId(partition))
    }

    /// Answers become complete, and have every event once.
    async fn assert_whole(&self) {
        assert_eq!(self.world.count_complete(&self.query_api).await, u64::from(self.events));
    }

    async fn until_health(&self, node: &Composed, what: &str, is_so: impl Fn(&Value) -> bool) {
        let mut health = Value::Null;
        for _ in 0..TRIES {
            health = self.world.ask(node, "hot-tier", Method::GET, "/health", &Value::Null).await.1;
            if is_so(&health) {
                return;
            }
            tokio::time::sleep(BETWEEN).await;
        }
        panic!("the node does not become {what}: {health}");
    }

    async fn until_healthy(&self, node: &Composed) {
        self.until_health(node, "healthy", |health| health["status"] == json!("healthy")).await;
    }

    async fn end(self, nodes: [Composed; 1]) {
        for member in [self.gateway, self.query_api].into_iter().chain(nodes).chain([self.plane]) {
            member.shutdown().await;
        }
    }
}

/// Goal: a replica that comes up empty after the log let go of its begin answers for nothing, and says why, while the other is
/// away; when that is back it copies what it has, and then is whole alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_empty_replica_waits_for_the_whole_one() {
    let (cluster, [first, second]) = Cluster::start().await;
    second.vanish().await;
    first.vanish().await;
    let second = cluster.node("2", "b").await;
    let waits = "partition 0 is not open: it waits for a checkpoint of another node";
    cluster.until_health(&second, waits, |health| health["reasons"].to_string().contains(waits)).await;
    let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1_000_000,
        "aggregates": [{"fn": "count"}], "timeout_ms": 2_000});
    let (status, answer) = cluster.world.ask(&cluster.query_api, "query-api", Method::POST, "/v1/query", &query).await;
    assert_eq!(status, 503, "{answer}");
    let (_, health) = cluster.world.ask(&second, "stream-ingester", Method::GET, "/health", &Value::Null).await;
    assert_eq!(health["status"], json!("starting"), "a restart in order has to wait for it: {health}");

    let first = cluster.node("1", "a").await;
    cluster.until_healthy(&second).await;
    first.vanish().await;
    cluster.assert_whole().await;
    cluster.end([second]).await;
}

/// Goal: what a node has of its partitions may be older than all of the log, or damaged: it copies what the other replica has, and
/// then is whole alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_too_old_or_damaged_is_replaced() {
    let (mut cluster, [first, second]) = Cluster::start().await;
    second.vanish().await;
    let ends: Vec<Offset> = (0..PARTITIONS).map(|partition| cluster.bounds(partition).end).collect();
    // The log lets go of what followed the checkpoints of the one that is away.
    cluster.ingest_until_released(&ends).await;
    let second = cluster.node("2", "a").await;
    cluster.until_healthy(&second).await;

    second.vanish().await;
    assert!(damage(&cluster.checkpoints("2", "a", 1)) > 0);
    let second = cluster.node("2", "a").await;
    cluster.until_healthy(&second).await;
    first.vanish().await;
    cluster.assert_whole().await;
    cluster.end([second]).await;
}

/// Goal: what cannot be opened, and nobody else has, is named, and no end of the other partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_partition_that_cannot_be_opened_is_named() {
    let (cluster, [first, second]) = Cluster::start().await;
    first.vanish().await;
    second.vanish().await;
    assert!(damage(&cluster.checkpoints("2", "a", 1)) > 0);
    let second = cluster.node("2", "a").await;
    let named = "partition 1 is not open: it cannot be opened: ";
    cluster.until_health(&second, named, |health| health["reasons"].to_string().contains(named)).await;
    let query = json!({"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1_000_000,
        "aggregates": [{"fn": "count"}], "timeout_ms": 2_000, "allow_partial": true});
    let mut receipt = Value::Null;
    for _ in 0..TRIES {
        let (_, answer) = cluster.world.ask(&cluster.query_api, "query-api", Method::POST, "/v1/query", &query).await;
        receipt = answer["receipt"].clone();
        if receipt["missing"] == json!([{"partition": 1, "why": "unreachable"}]) {
            return cluster.end([second]).await;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    panic!("not one partition alone is missing: {receipt}");
}

/// Changes a byte of each pack in a directory of checkpoints; how many there are.
fn damage(dir: &Path) -> usize {
    let packs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let packs = packs.filter(|path| path.extension().is_some_and(|extension| extension == "pack"));
    let mut damaged = 0;
    for pack in packs {
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        std::fs::write(pack, bytes).unwrap();
        damaged += 1;
    }
    damaged
}
