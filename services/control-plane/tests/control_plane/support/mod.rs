//! Stand-ins for the log and the hot tier, and a plain HTTP client.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use codec::{BlockKind, ControlRecord};
use control_plane::{CatalogSettings, ControlPlane, Nodes};
use event_log::{Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError};
use metadata::{MetadataStore, SqliteStore};
use proto::hot_tier::{
    ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, NodeScan, PartitionStatus, ScanRequest,
    TableChecksum, TablePartitionStatus,
};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use types::{ApiError, LogIdentity, NodeId, Offset, PartitionId, TableKey, Timestamp};

pub(crate) const LOG_PARTITIONS: u32 = 8;
pub(crate) const NOW: Timestamp = Timestamp(1_754_772_362_000_000);

/// A log that keeps what was appended, and can refuse.
#[derive(Default)]
pub(crate) struct FakeLog {
    pub(crate) appended: Mutex<Vec<Append>>,
    pub(crate) is_away: AtomicBool,
}

impl FakeLog {
    /// The control records of one partition, in order.
    pub(crate) fn records_of(&self, partition: PartitionId) -> Vec<ControlRecord> {
        let appended = self.appended.lock().unwrap();
        let blocks = appended.iter().filter(|block| block.header.partition == partition);
        blocks
            .map(|block| {
                assert_eq!((block.header.kind, block.header.rows), (BlockKind::Control, 0));
                assert_eq!(block.header.body_len as usize, block.body.len());
                let record = ControlRecord::decode(&block.body).unwrap();
                assert_eq!(record.key(), block.header.key);
                record
            })
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.appended.lock().unwrap().len()
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, SeqCst);
    }
}

#[async_trait]
impl EventLog for FakeLog {
    fn identity(&self) -> LogIdentity {
        LogIdentity(1)
    }

    fn partitions(&self) -> u32 {
        LOG_PARTITIONS
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        // A real log gives way to others while it waits for the disk.
        tokio::task::yield_now().await;
        if self.is_away.load(SeqCst) {
            return Err(AppendError::Unavailable(Arc::new(std::io::Error::other("the disk is full"))));
        }
        let mut appended = self.appended.lock().unwrap();
        let places = blocks.iter().zip(appended.len() as u64..).map(|(block, offset)| Appended {
            partition: block.header.partition,
            offset: Offset(offset),
            append_time: NOW,
        });
        let places = places.collect();
        appended.extend(blocks);
        Ok(places)
    }

    fn reader(&self, _: PartitionId, _: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        Err(ReadError::Closed)
    }

    fn bounds(&self, _: PartitionId) -> Bounds {
        Bounds { start: Offset(0), end: Offset(0), last_append_time: Timestamp::MIN }
    }

    fn append_time_of(&self, _: PartitionId, _: Offset) -> Option<Timestamp> {
        None
    }

    fn offset_at(&self, _: PartitionId, _: Timestamp) -> Offset {
        Offset(0)
    }

    fn ledger(&self, _: PartitionId, _: TableKey, _: Offset) -> Result<LogLedger, ReadError> {
        Err(ReadError::Closed)
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

/// A hot tier with a hundred rows in each partition, or away.
#[derive(Default)]
pub(crate) struct FakeHotTier {
    pub(crate) is_away: AtomicBool,
}

#[async_trait]
impl HotTier for FakeHotTier {
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
            append_time: NOW,
            rows: 100,
            bytes: 1_000,
            events: 0,
            scan_us: 0,
            map_version: 0,
            whole: true,
        };
        Ok((0..LOG_PARTITIONS).map(status).collect())
    }

    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        Ok(Vec::new())
    }
}

/// A control plane over a fresh store.
pub(crate) struct Bench {
    pub(crate) plane: ControlPlane,
    pub(crate) log: Arc<FakeLog>,
    pub(crate) store: Arc<dyn MetadataStore>,
    directory: TempDir,
}

pub(crate) fn settings() -> CatalogSettings {
    CatalogSettings {
        nodes: Nodes::Alone { node: NodeId(1), address: "127.0.0.1:9091".into() },
        auto_create_tables: true,
        tables_max: 20,
        auto_create_per_minute: 60,
    }
}

impl Bench {
    pub(crate) async fn new(settings: CatalogSettings) -> Self {
        let directory = TempDir::new().unwrap();
        let log = Arc::new(FakeLog::default());
        let store: Arc<dyn MetadataStore> = Arc::new(open(&directory).await);
        let plane = ControlPlane::open(Arc::clone(&store), log.clone(), settings, NOW).await.unwrap();
        Self { plane, log, store, directory }
    }

    /// Another control plane on the same metadata and log, as another process would have it.
    pub(crate) async fn beside(&self, settings: CatalogSettings) -> ControlPlane {
        let store = Arc::new(open(&self.directory).await);
        ControlPlane::open(store, self.log.clone(), settings, NOW).await.unwrap()
    }

    /// Makes what all processes said last so much older, as the time does in which nobody hears them.
    pub(crate) async fn age_words(&self, by: Duration) {
        let path = self.directory.path().join("metadata.db");
        let mut file = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        let older = sqlx::query("UPDATE nodes SET heartbeat_at = heartbeat_at - $1").bind(by.as_micros() as i64);
        older.execute(&mut file).await.unwrap();
    }

    /// The same after a crash: nothing is closed, memory is gone, the log and the store's file are what they were.
    pub(crate) async fn restarted(self) -> Self {
        let Self { log, directory, .. } = self;
        let store: Arc<dyn MetadataStore> = Arc::new(open(&directory).await);
        let plane = ControlPlane::open(Arc::clone(&store), log.clone(), settings(), NOW).await.unwrap();
        Self { plane, log, store, directory }
    }
}

async fn open(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(&directory.path().join("metadata.db")).await.unwrap()
}

/// Sends one request; gives the status and the JSON of the answer (null where there is no body).
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
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
    (status, if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") })
}
