//! The rebalancer, started, over a hot tier and a placement map that stand in for the real ones.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use metadata::{Coordination as _, NodeDescription, SqliteStore};
use placement::PlacementMap;
use proto::{
    catalog::{Catalog, NewTable, TablePatch},
    hot_tier::{
        ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, NodeScan, PartitionStatus, ScanRequest,
        TableChecksum, TablePartitionStatus,
    },
    members::HOT_TIER,
};
use rebalancer::{Config, Deps, Placer, Spread};
use serde_json::{Value, json};
use service::{Authenticator, Host, HttpLimits, Metrics, Running};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use types::{ApiError, ColumnDef, NodeId, Offset, PartitionId, Table, TableKey, TableName, TenantId, Timestamp};

/// Four partitions of 100 rows and 1,000 bytes on node 1, beside which there may be a node 2 without any but one.
struct World {
    nodes: u64,
    is_away: AtomicBool,
}

#[async_trait]
impl HotTier for World {
    async fn scan(&self, _: ScanRequest) -> Result<NodeScan, ApiError> {
        Err(ApiError::unavailable("no scans here"))
    }

    async fn events(&self, _: EventsRequest) -> Result<NodeEvents, ApiError> {
        Err(ApiError::unavailable("no events here"))
    }

    async fn applied(&self, _: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
        Err(ApiError::unavailable("no scans here"))
    }

    async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
        Err(ApiError::unavailable("no plans here"))
    }

    async fn checksum(&self, _: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        Err(ApiError::unavailable("no checksums here"))
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        if self.is_away.load(SeqCst) {
            return Err(ApiError::unavailable("away"));
        }
        let status = |partition| PartitionStatus {
            partition: PartitionId(partition),
            next_offset: Offset(1),
            append_time: Timestamp(1),
            rows: 100,
            bytes: 1_000,
            events: 0,
            scan_us: 0,
            map_version: 0,
            whole: true,
        };
        Ok((0..5).map(status).collect())
    }

    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Catalog for World {
    fn cached(&self, _: TenantId, _: &TableName) -> Option<Arc<Table>> {
        None
    }

    async fn table(&self, _: TenantId, _: &TableName) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    async fn tables(&self, _: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        Ok(Vec::new())
    }

    async fn create(&self, _: TenantId, _: NewTable) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    async fn ensure_table(&self, _: TenantId, _: &TableName) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    async fn ensure_columns(&self, _: TableKey, _: &[ColumnDef]) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    async fn patch(&self, _: TenantId, _: &TableName, _: TablePatch) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    async fn delete(&self, _: TenantId, _: &TableName) -> Result<(), ApiError> {
        Err(ApiError::unavailable("not here"))
    }

    fn placement(&self) -> Arc<PlacementMap> {
        let node = |partition| if partition == 4 { self.nodes } else { 1 };
        let replicas = (0..5).map(|partition| (PartitionId(partition), vec![NodeId(node(partition))])).collect();
        Arc::new(PlacementMap { version: 7, replicas, ..PlacementMap::default() })
    }
}

async fn start(world: &Arc<World>) -> Running {
    start_with(world, None).await
}

async fn start_with(world: &Arc<World>, placer: Option<Placer>) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let host = Host { limits: HttpLimits::default(), authenticator: Authenticator::Open, metrics: Metrics::install() };
    let deps = Deps { catalog: world.clone(), hot_tier: world.clone(), clock: Arc::new(|| Timestamp(42)), placer };
    rebalancer::start(&host, &Config { http: any, grpc: any }, deps).await.unwrap()
}

async fn ask(running: &Running, method: &str, path: &str) -> (u16, Value) {
    ask_with(running, method, path, "").await
}

async fn ask_with(running: &Running, method: &str, path: &str, body: &str) -> (u16, Value) {
    let exchange = async {
        let mut stream = TcpStream::connect(running.http_address()).await.unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

/// Goal: on one node there is nothing to move, the answer says why, and asking to rebalance is remembered with that reason.
#[tokio::test]
async fn one_node_has_nothing_to_move() {
    let world = Arc::new(World { nodes: 1, is_away: AtomicBool::new(false) });
    let running = start(&world).await;
    let reason = "there is one node, so there is nowhere to move to";
    let plan = json!({
        "placement_version":7,
        "nodes":[{"node":1,"partitions":5,"rows":500,"bytes":5_000,"events_per_second":0,"query_us_per_second":0}],
        "moves":[],"bytes":0,"reason":reason,
    });
    assert_eq!(ask(&running, "GET", "/v1/plan").await, (200, plan));
    assert_eq!(
        ask(&running, "GET", "/v1/moves").await,
        (200, json!({"placement_version":7,"moves":[],"draining":[],"runs":[]}))
    );
    let run = json!({"at_us":42,"placement_version":7,"moves":[],"reason":reason});
    assert_eq!(ask(&running, "POST", "/v1/rebalance").await, (200, run.clone()));
    assert_eq!(
        ask(&running, "GET", "/v1/moves").await,
        (200, json!({"placement_version":7,"moves":[],"draining":[],"runs":[run]}))
    );
    world.is_away.store(true, SeqCst);
    assert_eq!(ask(&running, "GET", "/v1/plan").await.0, 503);
    assert_eq!(running.shutdown().await.connections_cut, 0);
}

/// Goal: an uneven map gives a plan of moves with bytes and reasons; since no other node can be reached nothing is claimed to
/// have moved.
#[tokio::test]
async fn an_uneven_map_gives_moves() {
    let world = Arc::new(World { nodes: 2, is_away: AtomicBool::new(false) });
    let running = start(&world).await;
    let (_, plan) = ask(&running, "GET", "/v1/plan").await;
    let step = json!({"partition":0,"from":1,"to":2,"bytes":1_000,"reason":"its node carries more than its share"});
    assert_eq!((&plan["moves"], &plan["bytes"]), (&json!([step]), &json!(1_000)));
    let (status, answer) = ask(&running, "POST", "/v1/rebalance").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("FAILED_PRECONDITION")));
    assert_eq!(ask(&running, "GET", "/v1/moves").await.1["runs"], json!([]));
    let _drained = running.shutdown().await;
}

/// Goal: in a cluster nothing is planned off a node that does not live, though the map names it, nor asked of it; what lies on the
/// others is evened out all the same.
#[tokio::test]
async fn nothing_is_planned_off_a_node_that_does_not_live() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&directory.path().join("metadata.db")).await.unwrap());
    let replicas = (0..5).map(|partition| (PartitionId(partition), vec![NodeId(if partition == 4 { 3 } else { 1 })]));
    let map = PlacementMap { version: 7, replicas: replicas.collect(), ..PlacementMap::default() };
    store.store_placement(&map, 0, None).await.unwrap();
    let mut living = Vec::new();
    for node in [1, 2] {
        let addresses = [(HOT_TIER.to_owned(), "127.0.0.1:1".to_owned())].into();
        let epoch = store.register_node(&NodeDescription { id: NodeId(node), zone: None, addresses }, 0).await.unwrap();
        living.push((NodeId(node), epoch));
    }
    let heard = store.clone();
    let hearts = tokio::spawn(async move {
        loop {
            for &(node, epoch) in &living {
                heard.heartbeat(node, epoch).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let spread = Spread { partitions: 5, replicas: 1, nodes_first: 1 };
    let nodes = tokio::sync::watch::channel(Arc::default()).1;
    let placer = Placer::new(store.clone(), nodes, spread, Duration::from_secs(5), "a".to_owned());
    let world = Arc::new(World { nodes: 2, is_away: AtomicBool::new(false) });
    let running = start_with(&world, Some(placer)).await;

    let moves = |answer: &Value| {
        let ends = |step: &Value| (step["from"].as_u64().unwrap(), step["to"].as_u64().unwrap());
        answer["moves"].as_array().unwrap().iter().map(ends).collect::<Vec<_>>()
    };
    let (status, plan) = ask(&running, "GET", "/v1/plan").await;
    assert_eq!((status, moves(&plan)), (200, vec![(1, 2), (1, 2)]), "{plan}");
    let off_lost = r#"{"partition": 4, "from": 3, "to": 1}"#;
    let (status, answer) = ask_with(&running, "POST", "/v1/moves", off_lost).await;
    assert_eq!((status, &answer["error"]["field"]), (409, &json!("from")), "{answer}");
    let (status, run) = ask(&running, "POST", "/v1/rebalance").await;
    assert_eq!((status, moves(&run)), (200, vec![(1, 2), (1, 2)]), "{run}");
    let stored = store.placement().await.unwrap();
    assert_eq!(stored.moves.keys().copied().collect::<Vec<_>>(), [0, 1].map(PartitionId), "{stored:?}");
    let _drained = running.shutdown().await;
    hearts.abort();
}
