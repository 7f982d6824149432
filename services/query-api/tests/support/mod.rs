//! A query API before a real log and a real node of the hot tier, both of them in this process.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use cache::ResultCache;
use codec::{BodyBuilder, ClusterKey, ControlRecord, EventRef, TokenKey};
use config::{HotTierConfig, QueryApiConfig, ServiceAddresses};
use engine::Limits;
use event_log::{Append, EmbeddedConfig, EmbeddedLog, EventLog, Record};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use placement::PlacementMap;
use proto::{
    catalog::{Catalog, NewTable, TablePatch},
    hot_tier::{HotTier, HotTierClient, PartitionWriter},
    progress::{Progress, TableProgress},
    wire::Connector,
};
use serde_json::Value;
use service::{Authenticator, Host, HttpLimits, Metrics, Running};
use types::{
    ApiError, ColumnDef, ColumnKind, ErrorCode, GapReason, Generation, NodeId, Offset, PartitionId, Schema,
    SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId, Timestamp,
};

pub const PARTITIONS: u32 = 3;
pub const TOKEN_KEY: [u8; 32] = [9; 32];
pub const NODE: NodeId = NodeId(1);
pub const REPLICA: NodeId = NodeId(2);

/// An event of the tests: its time, and what all else is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub time: i64,
    pub number: u64,
}

impl Event {
    pub fn id(self) -> String {
        format!("event {}", self.number)
    }

    pub fn region(self) -> String {
        format!("r{}", self.number % 3)
    }

    fn push(self, builder: &mut BodyBuilder, index: u32) {
        let (id, region) = (self.id(), self.region());
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(self.time),
            event_id: Some(id.as_bytes()),
            dimensions: &[("region", &region)],
            metrics: &[("number", self.number as f64)],
        };
        builder.push(&event, Timestamp(0), index).unwrap();
    }
}

pub struct World {
    pub log: Arc<EmbeddedLog>,
    pub catalog: Arc<OneTable>,
    /// As the query API sees it.
    pub node: Arc<dyn HotTier>,
    writers: Vec<Box<dyn PartitionWriter>>,
    running: Running,
    /// Another query API on the same node, where results are shared.
    other: Option<Running>,
    node_running: Running,
    _dir: tempfile::TempDir,
}

/// What a world is made of.
pub struct Setup {
    pub memory_bytes: u64,
    /// How long whole results are kept; zero: never.
    pub cache_ttl: Duration,
    /// Room for the results of tasks; 0: none is kept.
    pub task_cache_bytes: u64,
    pub scan_threads: u32,
    pub limits: Limits,
    pub table: Table,
    /// Where two query APIs share whole results; `None`: there is one.
    pub shared_results: Option<Arc<dyn ResultCache>>,
    /// Whether the query API sees the node over gRPC, as if it were in another process.
    pub elsewhere: bool,
    /// Another node that has the same partitions.
    pub replica: Option<Arc<dyn HotTier>>,
    /// Who holds the partitions, by the placement map; `None`: all nodes, the one of this world first.
    pub held_by: Option<Vec<NodeId>>,
}

impl Setup {
    /// The table of [`Event`]s, laid out as a server does.
    pub fn of_events(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            cache_ttl: Duration::ZERO,
            task_cache_bytes: memory_bytes / 64,
            scan_threads: 2,
            limits: hot_tier::limits(memory_bytes, 7),
            table: table(1),
            shared_results: None,
            elsewhere: false,
            replica: None,
            held_by: None,
        }
    }
}

impl World {
    /// An empty table, with this much memory for its rows; no result is kept.
    pub async fn start(memory_bytes: u64) -> Self {
        Self::start_with(Setup::of_events(memory_bytes)).await
    }

    /// The same where results are kept for so long.
    pub async fn start_keeping(memory_bytes: u64, cache_ttl: Duration) -> Self {
        Self::start_with(Setup { cache_ttl, ..Setup::of_events(memory_bytes) }).await
    }

    /// The same on a node that draws `seed`, with two query APIs that share results.
    pub async fn start_sharing(
        memory_bytes: u64,
        cache_ttl: Duration,
        seed: u64,
        shared_results: Arc<dyn ResultCache>,
    ) -> Self {
        let limits = hot_tier::limits(memory_bytes, seed);
        let shared_results = Some(shared_results);
        Self::start_with(Setup { cache_ttl, limits, shared_results, ..Setup::of_events(memory_bytes) }).await
    }

    pub async fn start_with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Files so small that records can be released.
        let settings = EmbeddedConfig {
            segment_bytes: 64 << 10,
            tail_bytes_max: 0,
            ..EmbeddedConfig::new(dir.path().join("log"), PARTITIONS)
        };
        let log = Arc::new(EmbeddedLog::open_on_disk(settings).unwrap());
        let host = Host {
            limits: HttpLimits::default(),
            authenticator: Authenticator::of_cluster(cluster_key(), None),
            metrics: Metrics::install(),
        };
        let empty = (0..PARTITIONS).map(|partition| (PartitionId(partition), Offset::ZERO..Offset::ZERO)).collect();
        let storage = hot_tier::Storage { dir: dir.path().to_owned(), identity: log.identity(), log: empty };
        let config = HotTierConfig {
            memory_bytes: setup.memory_bytes,
            scan_threads: setup.scan_threads,
            cache_bytes: setup.task_cache_bytes,
            checkpoint_interval: Duration::ZERO,
            checkpoint_log_bytes: 1 << 20,
            checkpoint_bytes_per_second: 1 << 20,
        };
        let hot = hot_tier::start(&host, addresses(), config, setup.limits, PARTITIONS).await.unwrap();
        let mut writers = hot.partitions.open(storage).await.unwrap();
        writers.iter_mut().for_each(|writer| writer.recovered());
        let node: Arc<dyn HotTier> = Arc::new(hot.node);
        let node_port = hot.running.grpc_address();
        let node = if setup.elsewhere { as_elsewhere(node_port, Some(cluster_key())) } else { node };
        let replica = setup.replica.clone().map(|replica| (REPLICA, replica));
        let nodes: Vec<_> = [(NODE, Arc::clone(&node))].into_iter().chain(replica).collect();
        let held_by = setup.held_by.clone().unwrap_or_else(|| nodes.iter().map(|(id, _)| *id).collect());
        let table = Mutex::new(Arc::new(setup.table.clone()));
        let catalog = Arc::new(OneTable { table, looks_left: Mutex::default(), held_by });
        let deps = || query_api::Deps {
            catalog: catalog.clone(),
            progress: Arc::new(NoProgress),
            nodes: query_api::Nodes::fixed(nodes.clone()),
            log: log.clone(),
            token_key: TokenKey::new(TOKEN_KEY),
            shared_results: setup.shared_results.clone(),
        };
        let running = query_api::start(&host, addresses(), query_config(setup.cache_ttl), deps()).await.unwrap();
        let mut other = None;
        if setup.shared_results.is_some() {
            other = Some(query_api::start(&host, addresses(), query_config(setup.cache_ttl), deps()).await.unwrap());
        }
        Self { log, catalog, node, writers, running, other, node_running: hot.running, _dir: dir }
    }

    /// Sends events as one block to a partition, and applies it.
    pub async fn ingest(&mut self, partition: u32, events: &[Event]) {
        let mut builder = BodyBuilder::default();
        events.iter().zip(0..).for_each(|(event, index)| event.push(&mut builder, index));
        self.send_block(partition, builder).await;
    }

    /// Sends what was built as one block to a partition, and applies it.
    pub async fn send_block(&mut self, partition: u32, mut builder: BodyBuilder) {
        let body = builder.finish(false).unwrap();
        let header = body.header(self.catalog.current().key, SchemaVersion(1), PartitionId(partition), None);
        self.apply(partition, Append { header, body: body.bytes }).await;
    }

    /// Changes the table's settings, in all partitions.
    pub async fn configure(&mut self, settings: TableSettings) {
        let table = self.catalog.configure(settings);
        for partition in 0..PARTITIONS {
            let record = ControlRecord::TableConfigured(Arc::clone(&table));
            let (header, body) = record.block(table.schema.version(), PartitionId(partition));
            self.apply(partition, Append { header, body }).await;
        }
    }

    /// The table keeps so much event time from now on, and what is older leaves.
    pub async fn keep_only(&mut self, hot_window_us: i64) {
        let settings = self.catalog.current().settings.clone();
        self.configure(TableSettings { hot_window_us: Some(hot_window_us), ..settings }).await;
    }

    async fn apply(&mut self, partition: u32, block: Append) {
        self.log.append(vec![block]).await.unwrap();
        let writer = &mut self.writers[partition as usize];
        let mut reader = self.log.reader(PartitionId(partition), writer.next_offset()).unwrap();
        let mut records: Vec<Record> = Vec::new();
        while reader.poll(1 << 20, Duration::ZERO, &mut records).unwrap() > 0 {}
        for record in records {
            writer.apply(record.offset, record.append_time, &record.header, &record.body).unwrap();
        }
        writer.housekeep();
    }

    /// A partition passes over its next record as lost.
    pub fn lose_next(&mut self, partition: u32) {
        let writer = &mut self.writers[partition as usize];
        writer.pass_over(Offset(writer.next_offset().0 + 1), GapReason::Damaged, None).unwrap();
    }

    /// Lets the log drop what lies before an offset of each partition; returns when it has dropped something of the first.
    pub async fn release_before(&self, offset: u64) {
        (0..PARTITIONS).for_each(|partition| self.log.release_before(PartitionId(partition), Offset(offset)));
        while self.log.bounds(PartitionId(0)).start == Offset::ZERO {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(&self.running, "GET", path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        self.send(&self.running, "POST", path, body.into()).await
    }

    /// The same to the other query API.
    pub async fn post_other(&self, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        self.send(self.other.as_ref().expect("results are shared"), "POST", path, body.into()).await
    }

    async fn send(&self, to: &Running, method: &str, path: &str, body: Bytes) -> (u16, Value) {
        let uri = format!("http://{}{path}", to.http_address());
        let request = http::Request::builder().method(method).uri(uri).body(Full::new(body)).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The node as a process sees it that shows this key.
    pub fn node_by(&self, key: Option<ClusterKey>) -> Arc<dyn HotTier> {
        as_elsewhere(self.node_running.grpc_address(), key)
    }

    /// Where the node is served.
    pub fn node_address(&self) -> SocketAddr {
        self.node_running.grpc_address()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.running.grpc_address()
    }
}

pub fn cluster_key() -> ClusterKey {
    ClusterKey::new("the key of this cluster")
}

/// A node as other processes see it: on its port, by the key that they show.
pub fn as_elsewhere(port: SocketAddr, key: Option<ClusterKey>) -> Arc<dyn HotTier> {
    Arc::new(HotTierClient::new(Connector::new(key).to(&port.to_string()).unwrap()))
}

/// A node behind a port that nobody has.
pub async fn nobody() -> Arc<dyn HotTier> {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    as_elsewhere(address, None)
}

fn addresses() -> ServiceAddresses {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ServiceAddresses { http: any, grpc: any }
}

fn query_config(cache_ttl: Duration) -> QueryApiConfig {
    QueryApiConfig {
        cache_ttl,
        cache_bytes: 1 << 20,
        limit_default: 10_000,
        limit_max: 1_000_000,
        groups_max: 1_000,
        timeout_default: Duration::from_secs(5),
        timeout_max: Duration::from_secs(60),
    }
}

/// A catalog of one table, `shop.events`, which may be deleted and made again.
pub struct OneTable {
    table: Mutex<Arc<Table>>,
    /// How many more look-ups find it as it is before it is deleted and made again; `None`: all do.
    looks_left: Mutex<Option<u32>>,
    /// The nodes that have each partition.
    held_by: Vec<NodeId>,
}

impl OneTable {
    pub fn current(&self) -> Arc<Table> {
        self.table.lock().unwrap().clone()
    }

    fn configure(&self, settings: TableSettings) -> Arc<Table> {
        let mut held = self.table.lock().unwrap();
        *held = Arc::new(Table { settings, ..Table::clone(&held) });
        held.clone()
    }

    /// The table gets another dimension.
    pub fn add_column(&self, name: &str) {
        let mut held = self.table.lock().unwrap();
        let mut columns = held.schema.columns().to_vec();
        columns.push(ColumnDef { name: name.into(), kind: ColumnKind::Dimension });
        let version = SchemaVersion(held.schema.version().0 + 1);
        *held = Arc::new(Table { schema: Schema::from_parts(version, columns), ..Table::clone(&held) });
    }

    /// The table is deleted and created again when it has been looked up so often.
    pub fn replace_after(&self, looks: u32) {
        *self.looks_left.lock().unwrap() = Some(looks);
    }

    /// The table is deleted and created again.
    pub fn replace(&self) {
        let mut held = self.table.lock().unwrap();
        *held = Arc::new(table(held.key.generation.0 + 1));
    }
}

fn table(generation: u32) -> Table {
    let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
    table_of(generation, vec![column("region", ColumnKind::Dimension), column("number", ColumnKind::Metric)])
}

/// A life of `shop.events` with these columns.
pub fn table_of(generation: u32, columns: Vec<ColumnDef>) -> Table {
    Table {
        key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(generation) },
        name: TableName::new("shop", "events"),
        partitions: (0..PARTITIONS).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), columns),
        settings: TableSettings::default(),
    }
}

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::unavailable("not in this fake"))
}

#[async_trait]
impl Catalog for OneTable {
    fn cached(&self, _: TenantId, name: &TableName) -> Option<Arc<Table>> {
        let due = {
            let mut left = self.looks_left.lock().unwrap();
            let due = *left == Some(0);
            *left = if due { None } else { left.map(|left| left - 1) };
            due
        };
        if due {
            self.replace();
        }
        Some(self.current()).filter(|table| table.name == *name)
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        self.cached(tenant, name).ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no table {name}")))
    }

    async fn tables(&self, _: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        Ok(vec![self.current()])
    }

    async fn create(&self, _: TenantId, _: NewTable) -> Result<Arc<Table>, ApiError> {
        not_here()
    }

    async fn ensure_table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        self.table(tenant, name).await
    }

    async fn ensure_columns(&self, _: TableKey, _: &[ColumnDef]) -> Result<Arc<Table>, ApiError> {
        not_here()
    }

    async fn patch(&self, _: TenantId, _: &TableName, _: TablePatch) -> Result<Arc<Table>, ApiError> {
        not_here()
    }

    async fn delete(&self, _: TenantId, _: &TableName) -> Result<(), ApiError> {
        not_here()
    }

    fn placement(&self) -> Arc<PlacementMap> {
        let replicas: BTreeMap<_, _> = (0..PARTITIONS).map(|at| (PartitionId(at), self.held_by.clone())).collect();
        Arc::new(PlacementMap { replicas, ..PlacementMap::default() })
    }
}

/// Says that everything is applied.
struct NoProgress;

#[async_trait]
impl Progress for NoProgress {
    async fn table(&self, _: &Table) -> Result<TableProgress, ApiError> {
        not_here()
    }

    async fn watermark(&self, _: &[Arc<Table>]) -> Result<Option<Timestamp>, ApiError> {
        Ok(None)
    }

    async fn freshness_us(&self, _: Vec<(PartitionId, Offset)>, _: Timestamp) -> Result<i64, ApiError> {
        Ok(0)
    }
}
