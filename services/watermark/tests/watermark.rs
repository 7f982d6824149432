//! The watermark service, started, between a log and a hot tier that stand in for the real ones.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use event_log::{Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogReader, ReadError};
use placement::PlacementMap;
use proto::{
    catalog::{Catalog, NewTable, TablePatch},
    hot_tier::{HotTier, PartitionScan, PartitionStatus, ScanRequest, TablePartitionStatus},
};
use serde_json::{Value, json};
use service::{Authenticator, HealthStatus, Host, HttpLimits, Metrics, Running};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use types::{
    ApiError, ColumnDef, ErrorCode, Generation, NodeId, Offset, PartitionId, Schema, Table, TableId, TableKey,
    TableName, TableSettings, TenantId, Timestamp,
};
use watermark::{Config, Deps, LAG_AGE_US_MAX};

const NOW: i64 = 1_754_772_362_000_000;

/// Two partitions whose record `n` was appended `n` µs after [`NOW`].
#[derive(Default)]
struct World {
    ends: Mutex<BTreeMap<u32, u64>>,
    applied: Mutex<BTreeMap<u32, u64>>,
    is_away: AtomicBool,
    now: AtomicI64,
}

#[async_trait]
impl EventLog for World {
    fn partitions(&self) -> u32 {
        2
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    async fn append(&self, _: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        Err(AppendError::Closed)
    }

    fn reader(&self, _: PartitionId, _: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        Err(ReadError::Closed)
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        let end = self.ends.lock().unwrap().get(&partition.0).copied().unwrap_or(0);
        Bounds { start: Offset(0), end: Offset(end), last_append_time: Timestamp(NOW + end as i64 - 1) }
    }

    fn append_time_of(&self, partition: PartitionId, offset: Offset) -> Option<Timestamp> {
        (offset < self.bounds(partition).end).then(|| Timestamp(NOW + offset.0 as i64))
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Offset {
        Offset(0)
    }

    fn load(&self) -> Load {
        Load { queued_bytes: 0, queued_bytes_max: 1 }
    }

    fn release_before(&self, _: PartitionId, _: Offset) {}

    async fn close(&self) {}
}

#[async_trait]
impl HotTier for World {
    async fn scan(&self, _: ScanRequest) -> Result<Vec<PartitionScan>, ApiError> {
        Err(ApiError::unavailable("no scans here"))
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        if self.is_away.load(SeqCst) {
            return Err(ApiError::unavailable("away"));
        }
        let status = |partition: u32| PartitionStatus {
            partition: PartitionId(partition),
            next_offset: Offset(self.applied.lock().unwrap().get(&partition).copied().unwrap_or(0)),
            append_time: Timestamp::MIN,
            rows: 0,
            bytes: 0,
        };
        Ok((0..2).map(status).collect())
    }

    /// Partition 1 has not seen the table yet.
    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        let status = self.status().await?;
        let next_offset = status[0].next_offset;
        let seen = next_offset > Offset(0);
        Ok(vec![TablePartitionStatus {
            partition: PartitionId(0),
            next_offset,
            event_time_max: seen.then_some(Timestamp(77)),
            last_events_at: seen.then_some(Timestamp(NOW)),
            live: 1,
            evicted: 0,
        }])
    }
}

#[async_trait]
impl Catalog for World {
    fn cached(&self, _: TenantId, _: &TableName) -> Option<Arc<Table>> {
        None
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        if *name != TableName::new("shop", "events") {
            return Err(ApiError::new(ErrorCode::NotFound, "there is no such table"));
        }
        Ok(Arc::new(Table {
            key: TableKey { tenant, table: TableId(1), generation: Generation(3) },
            name: name.clone(),
            partitions: vec![PartitionId(0), PartitionId(1)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema: Schema::default(),
            settings: TableSettings::default(),
        }))
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
        let replicas = (0..2).map(|partition| (PartitionId(partition), vec![NodeId(1)])).collect();
        Arc::new(PlacementMap { version: 1, replicas })
    }
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self::default();
        world.now.store(NOW, SeqCst);
        Arc::new(world)
    }

    async fn start(self: &Arc<Self>) -> (Running, Metrics) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics = Metrics::install();
        let host = Host { limits: HttpLimits::default(), authenticator: Authenticator::Open, metrics: metrics.clone() };
        let world = Arc::clone(self);
        let clock = Arc::new(move || Timestamp(world.now.load(SeqCst)));
        let deps = Deps { catalog: self.clone(), log: self.clone(), hot_tier: self.clone(), clock };
        (watermark::start(&host, &Config { http: any, grpc: any }, deps).await.unwrap(), metrics)
    }
}

async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

/// Goal: per partition what the log holds and what is applied, also where a partition has not seen the table yet; lag and
/// freshness are those of the first record that waits.
#[tokio::test]
async fn progress_is_measured_from_the_log() {
    let world = World::new();
    let (running, _) = world.start().await;
    let path = "/v1/watermarks/shop/events";
    let (status, empty) = get(running.http_address(), path).await;
    assert_eq!((status, &empty["watermark_us"], &empty["freshness_us"]), (200, &Value::Null, &json!(0)));

    world.ends.lock().unwrap().extend([(0, 10), (1, 4)]);
    world.applied.lock().unwrap().insert(0, 7);
    world.now.store(NOW + 100, SeqCst);
    let (_, progress) = get(running.http_address(), path).await;
    let expected = json!({
        "namespace":"shop","table":"events","generation":3,"watermark_us":77,"freshness_us":100,
        "partitions":[
            {"partition":0,"log_end":10,"applied":7,"lag_records":3,"event_time_max_us":77,"freshness_us":93,"replicas":[1]},
            {"partition":1,"log_end":4,"applied":0,"lag_records":4,"event_time_max_us":null,"freshness_us":100,"replicas":[1]},
        ],
    });
    assert_eq!(progress, expected);

    assert_eq!(get(running.http_address(), "/v1/watermarks/shop/other").await.0, 404);
    world.is_away.store(true, SeqCst);
    assert_eq!(get(running.http_address(), path).await.0, 503);
    assert_eq!(running.shutdown().await.connections_cut, 0);
}

/// Goal: a reader that is dead shows as lag that grows, in the gauges and as degraded health, and is forgotten once it is back.
#[tokio::test(start_paused = true)]
async fn a_dead_reader_shows() {
    let world = World::new();
    world.ends.lock().unwrap().extend([(0, 5), (1, 0)]);
    world.applied.lock().unwrap().extend([(0, 5), (1, 0)]);
    let (running, metrics) = world.start().await;
    assert_eq!(running.health().status(), HealthStatus::Healthy);

    // The reader dies; the log goes on.
    world.is_away.store(true, SeqCst);
    world.ends.lock().unwrap().insert(0, 50);
    world.now.store(NOW + 5 + LAG_AGE_US_MAX + 1, SeqCst);
    let reasons = until(|| match running.health().status() {
        HealthStatus::Degraded { reasons } if reasons[0].contains("45 records") => Some(reasons),
        _ => None,
    })
    .await;
    assert!(reasons[0].contains("the hot tier does not answer"), "{reasons:?}");
    assert!(reasons[0].contains("partition 0 is 10 s behind its log, 45 records wait"), "{reasons:?}");
    let page = metrics.render();
    assert!(page.contains("truenow_partition_lag_records{partition=\"0\"} 45"), "{page}");
    assert!(page.contains("truenow_freshness_seconds{partition=\"0\"} 10.0"), "{page}");

    world.is_away.store(false, SeqCst);
    world.applied.lock().unwrap().insert(0, 50);
    until(|| (running.health().status() == HealthStatus::Healthy).then_some(())).await;
    assert!(metrics.render().contains("truenow_partition_lag_records{partition=\"0\"} 0"));
    let _drained = running.shutdown().await;
}

/// Waits for something that the service does by itself each second of a clock that runs as fast as all are waiting.
async fn until<T>(check: impl Fn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens within the next rounds")
}
