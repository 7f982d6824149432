//! What stands in for the log, the hot tier, the catalog and the dead letters, and a plain HTTP client.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use codec::TokenKey;
use event_log::{Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError};
use placement::PlacementMap;
use proto::{
    catalog::{Catalog, NewTable, TablePatch, Tenants},
    dead_letters::DeadLetterCounts,
    hot_tier::{
        ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, NodeScan, PartitionStatus, ScanRequest,
        TableChecksum, TablePartitionStatus,
    },
};
use serde_json::Value;
use service::{Authenticator, Host, HttpLimits, Metrics, Running};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use types::{
    ApiError, ColumnDef, ErrorCode, Generation, LogIdentity, NodeId, Offset, PartitionId, Schema, Table, TableId,
    TableKey, TableName, TableSettings, TenantId, Timestamp,
};
use watermark::{Config, Deps};

pub(crate) const NOW: i64 = 1_754_772_362_000_000;

/// The rows that the partitions of the world hold of its table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) acked: u64,
    pub(crate) in_flight: u64,
    pub(crate) live: u64,
    pub(crate) evicted: u64,
    pub(crate) duplicate: u64,
    pub(crate) erased: u64,
}

/// In balance.
pub(crate) const ROWS: Rows = Rows { acked: 31, in_flight: 16, live: 1, evicted: 2, duplicate: 4, erased: 8 };

/// Two partitions whose record `n` was appended `n` µs after [`NOW`].
pub(crate) struct World {
    pub(crate) ends: Mutex<BTreeMap<u32, u64>>,
    pub(crate) applied: Mutex<BTreeMap<u32, u64>>,
    /// Of partition 0; of partition 1 one row of the table waits.
    pub(crate) rows: Mutex<Rows>,
    pub(crate) is_away: AtomicBool,
    /// Its tenant is gone, and the table with it.
    pub(crate) is_gone: AtomicBool,
    pub(crate) now: AtomicI64,
    /// On which threads the log was asked when a record was appended, which may take the time of a disk or a broker.
    pub(crate) times_asked_on: Mutex<HashSet<ThreadId>>,
    /// The table, of namespace `shop`.
    table: &'static str,
    /// Whose it is.
    tenant: TenantId,
}

#[async_trait]
impl EventLog for World {
    fn identity(&self) -> LogIdentity {
        LogIdentity(1)
    }

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
        self.times_asked_on.lock().unwrap().insert(thread::current().id());
        (offset < self.bounds(partition).end).then(|| Timestamp(NOW + offset.0 as i64))
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Offset {
        Offset(0)
    }

    fn ledger(&self, partition: PartitionId, key: TableKey, applied: Offset) -> Result<LogLedger, ReadError> {
        assert_eq!(key, self.key());
        let Bounds { end, .. } = self.bounds(partition);
        if applied > end {
            return Err(ReadError::NoSuchOffset { partition, wanted: applied });
        }
        let rows = self.rows.lock().unwrap();
        let (acked_rows, in_flight_rows) = if partition.0 == 0 { (rows.acked, rows.in_flight) } else { (1, 1) };
        Ok(LogLedger { acked_rows, in_flight_rows, end })
    }

    fn appended_bytes(&self, _: PartitionId) -> u64 {
        0
    }

    fn load(&self) -> Load {
        Load { queued_bytes: 0, queued_bytes_max: 1 }
    }

    fn release_before(&self, _: PartitionId, _: Offset) {}

    async fn close(&self) {}
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
        let status = |partition: u32| PartitionStatus {
            partition: PartitionId(partition),
            next_offset: Offset(self.applied.lock().unwrap().get(&partition).copied().unwrap_or(0)),
            append_time: Timestamp::MIN,
            rows: 0,
            bytes: 0,
            events: 0,
            scan_us: 0,
            map_version: 0,
            whole: true,
        };
        Ok((0..2).map(status).collect())
    }

    /// Partition 1 has not seen the table yet.
    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        let status = self.status().await?;
        let next_offset = status[0].next_offset;
        let seen = next_offset > Offset(0);
        let rows = *self.rows.lock().unwrap();
        Ok(vec![TablePartitionStatus {
            partition: PartitionId(0),
            next_offset,
            event_time_max: seen.then_some(Timestamp(77)),
            last_events_at: seen.then_some(Timestamp(NOW)),
            live: rows.live,
            evicted: rows.evicted,
            duplicate: rows.duplicate,
            conflict: 2,
            erased: rows.erased,
            late: 3,
        }])
    }
}

#[async_trait]
impl Catalog for World {
    fn cached(&self, _: TenantId, _: &TableName) -> Option<Arc<Table>> {
        None
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        assert_eq!(tenant, self.tenant);
        if *name != TableName::new("shop", self.table) {
            return Err(ApiError::new(ErrorCode::NotFound, "there is no such table"));
        }
        Ok(Arc::new(Table {
            key: self.key(),
            name: name.clone(),
            partitions: vec![PartitionId(0), PartitionId(1)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema: Schema::default(),
            settings: TableSettings::default(),
        }))
    }

    async fn tables(&self, tenant: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        Ok(vec![self.table(tenant, &TableName::new("shop", self.table)).await?])
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
        Arc::new(PlacementMap { version: 1, replicas, ..PlacementMap::default() })
    }
}

#[async_trait]
impl Tenants for World {
    async fn tenants(&self) -> Result<Vec<TenantId>, ApiError> {
        Ok(if self.is_gone.load(SeqCst) { Vec::new() } else { vec![self.tenant] })
    }
}

/// Five of each table.
#[async_trait]
impl DeadLetterCounts for World {
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError> {
        assert_eq!((tenant, table), (TenantId::DEFAULT, &TableName::new("shop", self.table)));
        Ok(5)
    }
}

impl World {
    /// A world with one table. Tests that look at the table's gauges have one of their own.
    pub(crate) fn new(table: &'static str) -> Arc<Self> {
        Self::of_tenant(TenantId::DEFAULT, table)
    }

    /// The same, of another tenant.
    pub(crate) fn of_tenant(tenant: TenantId, table: &'static str) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            ends: Mutex::default(),
            applied: Mutex::default(),
            rows: Mutex::new(ROWS),
            is_away: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            now: AtomicI64::new(NOW),
            times_asked_on: Mutex::default(),
            table,
        })
    }

    pub(crate) fn key(&self) -> TableKey {
        TableKey { tenant: self.tenant, table: TableId(1), generation: Generation(3) }
    }

    pub(crate) async fn start(self: &Arc<Self>) -> (Running, Metrics) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics = Metrics::install();
        let host = Host { limits: HttpLimits::default(), authenticator: Authenticator::Open, metrics: metrics.clone() };
        let world = Arc::clone(self);
        let clock = Arc::new(move || Timestamp(world.now.load(SeqCst)));
        let deps = Deps {
            catalog: self.clone(),
            log: self.clone(),
            hot_tier: self.clone(),
            dead_letters: self.clone(),
            token_key: TokenKey::new([7; 32]),
            tenants: self.clone(),
            clock,
        };
        (watermark::start(&host, &Config { http: any, grpc: any }, deps).await.unwrap(), metrics)
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, Value) {
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

/// Waits for something that the service does by itself each second of a clock that runs as fast as all are waiting.
pub(crate) async fn until<T>(check: impl Fn() -> Option<T>) -> T {
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
