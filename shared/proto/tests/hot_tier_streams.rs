//! A scan behind gRPC as it is made: partitions arrive while others are scanned, no faster than they are taken, and what nobody waits
//! for any more ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use proto::{
    hot_tier::{
        ChecksumRequest, EventsRequest, HotTier, HotTierClient, HotTierService, NodeEvents, NodeExplanation, NodeScan,
        PartitionScan, PartitionStatus, ScanRequest, TableChecksum, TablePartitionStatus, Unavailable, Version,
    },
    wire::Connector,
};
use query::{Cancel, Plan, QueryLimits};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use types::{
    ApiError, ErrorCode, GapReason, Generation, LogGap, Offset, PartitionId, Schema, SchemaVersion, Table, TableId,
    TableKey, TableName, TableSettings, TenantId,
};

const PARTITIONS: u32 = 64;
const KEY: TableKey = TableKey { tenant: TenantId(7), table: TableId(1), generation: Generation(3) };
/// Gaps of a partition: so many that each takes more than a part of the stream.
const GAPS: u64 = 40_000;
/// Partitions that may be under way: in the windows of the stream and of the connection, in parts that wait, and read ahead.
const AHEAD_MAX: usize = 24;

/// A node whose scans find what it is told, and end only where it is told so.
struct Stepwise {
    steps: Mutex<Option<mpsc::UnboundedReceiver<Step>>>,
    /// Partitions that were taken from it.
    taken: AtomicUsize,
    /// Told how long the caller waits when a scan begins, and nothing when it ends.
    events: mpsc::UnboundedSender<Option<Duration>>,
}

/// What a scan does next.
enum Step {
    Find(u32),
    Fail,
}

struct TellsEnd<'a>(&'a Stepwise);

impl Drop for TellsEnd<'_> {
    fn drop(&mut self) {
        // The test may have ended before.
        let _ = self.0.events.send(None);
    }
}

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::internal("not in this fake"))
}

#[async_trait]
impl HotTier for Stepwise {
    async fn scan(&self, _: ScanRequest) -> Result<NodeScan, ApiError> {
        not_here()
    }

    async fn scan_each(
        &self,
        request: ScanRequest,
        found: mpsc::Sender<PartitionScan>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        let mut steps = self.steps.lock().unwrap().take().expect("one scan");
        self.events.send(Some(request.deadline - Instant::now())).unwrap();
        let _tells = TellsEnd(self);
        while let Some(step) = steps.recv().await {
            let Step::Find(partition) = step else { return Err(ApiError::new(ErrorCode::TooLarge, "too many groups")) };
            found.send(scanned(&request.plan, PartitionId(partition))).await.unwrap();
            self.taken.fetch_add(1, SeqCst);
        }
        Ok(vec![(PartitionId(PARTITIONS), Unavailable::Recovering)])
    }

    async fn applied(&self, _: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
        not_here()
    }

    async fn events(&self, _: EventsRequest) -> Result<NodeEvents, ApiError> {
        not_here()
    }

    async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
        not_here()
    }

    async fn checksum(&self, _: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        not_here()
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        not_here()
    }

    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        not_here()
    }
}

fn scanned(plan: &Plan, partition: PartitionId) -> PartitionScan {
    let left = false.into();
    let partial = query::merge(plan, partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap();
    let gap = |at| LogGap { first: Offset(at), end: Offset(at + 1), table: None, times: None, reason: GapReason::Gone };
    PartitionScan {
        partition,
        partial: Some(partial),
        version: Version(partition.0.into()),
        next_offset: Offset(GAPS),
        lacks_before: vec![None],
        gaps: (0..GAPS).map(gap).collect(),
    }
}

fn request() -> ScanRequest {
    let table = Table {
        key: KEY,
        name: TableName::new("shop", "events"),
        partitions: (0..PARTITIONS).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), Vec::new()),
        settings: TableSettings::default(),
    };
    let json = br#"{"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1000}"#;
    let query = query::parse(json, &QueryLimits::default()).unwrap();
    ScanRequest {
        plan: Arc::new(query::plan(&query, &[Arc::new(table)]).unwrap()),
        partitions: (0..=PARTITIONS).map(PartitionId).collect(),
        after: Vec::new(),
        at: Vec::new(),
        known: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(600),
    }
}

/// A scan under way behind gRPC.
struct Scan {
    node: Arc<Stepwise>,
    steps: mpsc::UnboundedSender<Step>,
    events: mpsc::UnboundedReceiver<Option<Duration>>,
    found: mpsc::Receiver<PartitionScan>,
    scanning: tokio::task::JoinHandle<Result<Vec<(PartitionId, Unavailable)>, ApiError>>,
}

async fn begin() -> Scan {
    let ((steps, told), (tells, events)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let node = Arc::new(Stepwise { steps: Mutex::new(Some(told)), taken: AtomicUsize::new(0), events: tells });
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Server::builder().add_service(HotTierService::server(Arc::clone(&node) as Arc<dyn HotTier>));
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = HotTierClient::new(Connector::new(None).to(&address).unwrap());
    let (sender, found) = mpsc::channel(1);
    let scanning = tokio::spawn(async move { client.scan_each(request(), sender).await });
    Scan { node, steps, events, found, scanning }
}

/// Goal: a partition arrives whole before the next one is scanned; an error that comes later is the scan's, and ends it.
#[tokio::test]
async fn partitions_arrive_before_the_end() {
    let mut scan = begin().await;
    // The last ones wait for a part to be full, and to be read behind those before.
    for partition in 0..8 {
        scan.steps.send(Step::Find(partition)).unwrap();
    }
    for partition in 0..4 {
        let found = scan.found.recv().await.unwrap();
        assert_eq!((found.partition, found.gaps.len() as u64), (PartitionId(partition), GAPS));
        assert!(found.partial.is_some() && !scan.scanning.is_finished());
    }
    scan.steps.send(Step::Fail).unwrap();
    let error = scan.scanning.await.unwrap().unwrap_err();
    assert_eq!((error.code, &error.message[..]), (ErrorCode::TooLarge, "too many groups"));
}

/// Goal: a node gets no further ahead of whoever takes its partitions than the windows of the connection reach, and all arrive.
#[tokio::test]
async fn a_scan_goes_as_fast_as_it_is_taken() {
    let Scan { node, steps, events: _events, mut found, scanning } = begin().await;
    (0..PARTITIONS).for_each(|partition| steps.send(Step::Find(partition)).unwrap());
    drop(steps);
    for at in 0..PARTITIONS as usize {
        let scan = found.recv().await.unwrap();
        assert_eq!(scan.partition, PartitionId(at as u32));
        // Whatever can run meanwhile runs.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let taken = node.taken.load(SeqCst);
        assert!(taken <= at + AHEAD_MAX, "{taken} partitions were made when {} were taken", at + 1);
    }
    assert_eq!(found.recv().await.map(|scan| scan.partition), None);
    assert_eq!(scanning.await.unwrap().unwrap(), [(PartitionId(PARTITIONS), Unavailable::Recovering)]);
}

/// Goal: how long the caller waits travels; a caller that leaves, before the first partition or after some, ends the scan.
#[tokio::test]
async fn a_scan_ends_with_its_caller() {
    for partitions in [0, 8] {
        let mut scan = begin().await;
        let left = scan.events.recv().await.unwrap().expect("it begins");
        assert!(left > Duration::from_secs(300) && left <= Duration::from_secs(600), "{left:?}");
        (0..partitions).for_each(|partition| scan.steps.send(Step::Find(partition)).unwrap());
        if partitions > 0 {
            assert!(scan.found.recv().await.is_some());
        }
        scan.scanning.abort();
        assert!(scan.scanning.await.unwrap_err().is_cancelled());
        assert_eq!(scan.events.recv().await, Some(None), "the scan ends though nobody told it to");
    }
}
