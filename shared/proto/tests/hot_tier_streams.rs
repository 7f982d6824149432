//! A scan behind gRPC as it is made: partitions arrive while others are scanned, no faster than they are taken, and what nobody waits
//! for any more ends, and nothing else.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use proto::{
    hot_tier::{
        ChecksumRequest, EventsRequest, HotTier, HotTierClient, HotTierService, NodeEvents, NodeExplanation, NodeScan,
        PartitionScan, PartitionStatus, ScanRequest, TableChecksum, TablePartitionStatus, Unavailable, Version,
    },
    wire::Connector,
};
use query::{Cancel, Plan, QueryLimits};
use tokio::sync::{mpsc, watch};
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
/// Calls that are given up at a time.
const GIVEN_UP: usize = 100;

/// A node whose scans find what it is told, and end only where it is told so.
struct Stepwise {
    steps: Mutex<Option<mpsc::UnboundedReceiver<Step>>>,
    /// Partitions that were taken from it.
    taken: AtomicUsize,
    /// Told how long the caller waits when a scan begins, and nothing when it ends.
    events: mpsc::UnboundedSender<Option<Duration>>,
    /// Calls that wait for something to be applied, and up to which of them it is.
    asked: watch::Sender<usize>,
    applied: watch::Sender<usize>,
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
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        self.applied.subscribe().wait_for(|applied| *applied >= number).await.unwrap();
        Ok(())
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
        self.applied.subscribe().wait_for(|applied| *applied == usize::MAX).await.unwrap();
        Ok(Vec::new())
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

/// A node behind gRPC.
struct Reached {
    node: Arc<Stepwise>,
    client: HotTierClient,
    steps: mpsc::UnboundedSender<Step>,
    events: mpsc::UnboundedReceiver<Option<Duration>>,
}

/// A scan under way behind gRPC.
struct Scan {
    node: Arc<Stepwise>,
    steps: mpsc::UnboundedSender<Step>,
    events: mpsc::UnboundedReceiver<Option<Duration>>,
    found: mpsc::Receiver<PartitionScan>,
    scanning: tokio::task::JoinHandle<Result<Vec<(PartitionId, Unavailable)>, ApiError>>,
}

async fn reach() -> Reached {
    let ((steps, told), (tells, events)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let node = Arc::new(Stepwise {
        steps: Mutex::new(Some(told)),
        taken: AtomicUsize::new(0),
        events: tells,
        asked: watch::Sender::default(),
        applied: watch::Sender::default(),
    });
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Server::builder().add_service(HotTierService::server(Arc::clone(&node) as Arc<dyn HotTier>));
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = HotTierClient::new(Connector::new(None).to(&address).unwrap());
    Reached { node, client, steps, events }
}

async fn begin() -> Scan {
    let Reached { node, client, steps, events } = reach().await;
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

/// Goal: calls that are given up while their answers are on their way, as of replicas of which another answered first, end no other
/// call on the connection, however many they are.
#[tokio::test]
async fn calls_that_are_given_up_end_no_others() {
    let Reached { node, client, .. } = reach().await;
    let client = Arc::new(client);
    let goes_on = Arc::clone(&client);
    let goes_on = tokio::spawn(async move { goes_on.status().await });
    let deadline = Instant::now() + Duration::from_secs(600);
    for asked in (GIVEN_UP..=40 * GIVEN_UP).step_by(GIVEN_UP) {
        let calls = (0..GIVEN_UP).map(|_| client.applied(vec![(PartitionId(0), Offset(1))], deadline));
        let mut arrived = node.asked.subscribe();
        tokio::select! {
            ended = join_all(calls) => panic!("{:?}", ended[0]),
            all = arrived.wait_for(|arrived| *arrived == asked) => drop(all.unwrap()),
        }
        // All are given up here; that they are comes there after the answers were sent.
        node.applied.send_replace(asked);
        tokio::task::yield_now().await;
    }
    node.applied.send_replace(usize::MAX);
    assert_eq!(goes_on.await.unwrap(), Ok(Vec::new()));
}
