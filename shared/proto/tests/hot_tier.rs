//! A node of the hot tier behind gRPC: what it says arrives as it was said, and what nobody waits for any more ends.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use proptest::{prelude::*, test_runner::TestRunner};
use proto::{
    hot_tier::{
        ChecksumRequest, EventsCovered, EventsRequest, HotTier, HotTierClient, HotTierService, NodeEvents,
        NodeExplanation, NodeScan, PartitionExplanation, PartitionScan, PartitionStatus, ScanRequest, TableChecksum,
        TablePartitionStatus, Unavailable, Version,
    },
    wire::Connector,
};
use query::{
    Cancel, EventPlace, Plan, QueryLimits, RawEvent, RollupExplanation, RowsChecksum, ScanCost, SegmentCount,
    SegmentExplanation, Skip, SourceExplanation,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use types::{
    ApiError, ErrorCode, GapReason, Generation, Interval, LogGap, Offset, PartitionId, Rollup, Schema, SchemaVersion,
    Table, TableId, TableKey, TableName, TableSettings, TenantId, TimeRange, Timestamp,
};

/// A node that says what it was told to, once, and remembers what it was asked.
#[derive(Default)]
struct Fake {
    scan: Mutex<Option<Result<NodeScan, ApiError>>>,
    events: Mutex<Option<Result<NodeEvents, ApiError>>>,
    explanation: Mutex<Option<Result<NodeExplanation, ApiError>>>,
    status: Mutex<Option<Result<Vec<PartitionStatus>, ApiError>>>,
    table_status: Mutex<Option<Result<Vec<TablePartitionStatus>, ApiError>>>,
    checksum: Mutex<Option<Result<TableChecksum, ApiError>>>,
    asked: Mutex<Option<ScanRequest>>,
    asked_checksum: Mutex<Option<ChecksumRequest>>,
    asked_events: Mutex<Option<EventsRequest>>,
    /// Told when a wait for offsets begins, and when it is dropped.
    waits: Option<mpsc::UnboundedSender<Wait>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wait {
    Begun(Vec<(PartitionId, Offset)>, Duration),
    Dropped,
}

struct TellsDrop(mpsc::UnboundedSender<Wait>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.send(Wait::Dropped).unwrap();
    }
}

fn told<T>(what: &Mutex<Option<Result<T, ApiError>>>) -> Result<T, ApiError> {
    what.lock().unwrap().take().expect("the fake was told what to say")
}

#[async_trait]
impl HotTier for Fake {
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
        *self.asked.lock().unwrap() = Some(request);
        told(&self.scan)
    }

    async fn applied(&self, after: Vec<(PartitionId, Offset)>, deadline: Instant) -> Result<(), ApiError> {
        let waits = self.waits.clone().expect("the fake tells who waits");
        waits.send(Wait::Begun(after, deadline - Instant::now())).unwrap();
        let _tells = TellsDrop(waits);
        tokio::time::sleep_until(deadline.into()).await;
        Err(ApiError::new(ErrorCode::DeadlineExceeded, "not yet").with_field("after"))
    }

    async fn events(&self, request: EventsRequest) -> Result<NodeEvents, ApiError> {
        *self.asked_events.lock().unwrap() = Some(request);
        told(&self.events)
    }

    async fn explain(&self, request: ScanRequest) -> Result<NodeExplanation, ApiError> {
        *self.asked.lock().unwrap() = Some(request);
        told(&self.explanation)
    }

    async fn checksum(&self, request: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        *self.asked_checksum.lock().unwrap() = Some(request);
        told(&self.checksum)
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        told(&self.status)
    }

    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        assert_eq!(key, KEY);
        told(&self.table_status)
    }
}

const KEY: TableKey = TableKey { tenant: TenantId(7), table: TableId(u64::MAX), generation: Generation(3) };

fn plan() -> Arc<Plan> {
    let table = Table {
        key: KEY,
        name: TableName::new("shop", "events"),
        partitions: (0..64).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), Vec::new()),
        settings: TableSettings::default(),
    };
    let json = br#"{"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1000}"#;
    let query = query::parse(json, &QueryLimits::default()).unwrap();
    Arc::new(query::plan(&query, &[Arc::new(table)]).unwrap())
}

/// A node and the way to it.
async fn serve(node: Arc<Fake>) -> (HotTierClient, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Server::builder().add_service(HotTierService::server(node));
    let served =
        tokio::spawn(async move { served.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    (HotTierClient::new(Connector::new(None).to(&address).unwrap()), served)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    (0..64_u32).prop_map(PartitionId)
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(0)].prop_map(Timestamp)
}

fn offset() -> impl Strategy<Value = Offset> {
    any::<u64>().prop_map(Offset)
}

fn range() -> impl Strategy<Value = TimeRange> {
    (time(), time()).prop_filter_map("not empty", |(a, b)| TimeRange::new(a.min(b), a.max(b)))
}

fn gap() -> impl Strategy<Value = LogGap> {
    let reason = prop::sample::select(vec![GapReason::Gone, GapReason::Damaged, GapReason::Inapplicable]);
    let table = prop::option::of(Just(KEY));
    (offset(), offset(), table, prop::option::of((time(), time())), reason)
        .prop_map(|(first, end, table, times, reason)| LogGap { first, end, table, times, reason })
}

fn gaps() -> impl Strategy<Value = Vec<LogGap>> {
    prop::collection::vec(gap(), 0..4)
}

fn offsets() -> impl Strategy<Value = Vec<(PartitionId, Offset)>> {
    prop::collection::vec((partition(), offset()), 0..4)
}

fn unavailable() -> impl Strategy<Value = Vec<(PartitionId, Unavailable)>> {
    let reason = prop::sample::select(vec![Unavailable::Unreachable, Unavailable::Recovering]);
    prop::collection::vec((partition(), reason), 0..4)
}

fn error() -> impl Strategy<Value = ApiError> {
    let code = prop::sample::select(vec![ErrorCode::TooLarge, ErrorCode::DeadlineExceeded, ErrorCode::Unavailable]);
    (code, ".{0,20}", prop::option::of("[a-z]{1,9}"), prop::option::of(0..9_u64)).prop_map(
        |(code, text, field, wait)| ApiError { code, message: text, field, retry_after: wait.map(Duration::from_secs) },
    )
}

/// What a node says: mostly no error.
fn said<T: std::fmt::Debug>(what: impl Strategy<Value = T>) -> impl Strategy<Value = Result<T, ApiError>> {
    prop_oneof![4 => what.prop_map(Ok), 1 => error().prop_map(Err)]
}

fn scanned() -> impl Strategy<Value = PartitionScan> {
    (any::<bool>(), any::<u128>(), offset(), prop::option::of(time()), gaps()).prop_map(
        |(found, version, next_offset, lacks, gaps)| {
            let left = false.into();
            let partition = PartitionId(0);
            let found =
                found.then(|| query::merge(&plan(), partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap());
            let lacks_before = vec![lacks];
            PartitionScan { partition, partial: found, version: Version(version), next_offset, lacks_before, gaps }
        },
    )
}

/// A scan of partitions in the order of a request, which comes with it.
fn node_scan() -> impl Strategy<Value = (Vec<PartitionId>, NodeScan)> {
    let partitions = prop::collection::btree_set(0..64_u32, 0..6);
    (Just(partitions), unavailable(), any::<bool>()).prop_flat_map(|(partitions, unavailable, reverse)| {
        partitions.prop_flat_map(move |partitions| {
            let mut asked: Vec<PartitionId> = partitions.into_iter().map(PartitionId).collect();
            if reverse {
                asked.reverse();
            }
            let unavailable = unavailable.clone();
            prop::collection::vec(scanned(), asked.len()).prop_map(move |mut scans| {
                scans.iter_mut().zip(&asked).for_each(|(scan, &partition)| {
                    scan.partition = partition;
                    if let Some(partial) = &mut scan.partial {
                        let left = false.into();
                        *partial =
                            query::merge(&plan(), partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap();
                    }
                });
                (asked.clone(), NodeScan { scans, unavailable: unavailable.clone() })
            })
        })
    })
}

fn raw_event() -> impl Strategy<Value = RawEvent> {
    let name = || prop::sample::select(vec!["region", "user", "ünï"]).prop_map(Arc::from);
    let place = (time(), partition(), offset(), any::<u32>());
    let dimensions = prop::collection::vec((name(), ".{0,6}"), 0..4);
    let number = any::<f64>().prop_filter("finite", |value| value.is_finite());
    (place, dimensions, prop::collection::vec((name(), number), 0..4)).prop_map(
        |((time, partition, offset, row), dimensions, metrics)| RawEvent {
            place: EventPlace { time, partition, offset, row },
            dimensions,
            metrics,
        },
    )
}

fn node_events() -> impl Strategy<Value = NodeEvents> {
    let covered = (partition(), offset(), prop::option::of(time()), gaps()).prop_map(
        |(partition, next_offset, evicted_before, gaps)| EventsCovered { partition, next_offset, evicted_before, gaps },
    );
    let covered = prop::collection::vec(covered, 0..4);
    // Some pages take several parts.
    let events = (prop::collection::vec(raw_event(), 0..20), prop::sample::select(vec![1, 400]));
    (events, any::<bool>(), covered, unavailable()).prop_map(|((some, times), more, covered, unavailable)| {
        let events = some.iter().cycle().take(some.len() * times).cloned().collect();
        NodeEvents { events, more, covered, unavailable }
    })
}

fn skip() -> impl Strategy<Value = Skip> {
    prop_oneof![Just(Skip::TimeRange), Just(Skip::Rollup), ".{0,5}".prop_map(Skip::Filter)]
}

fn source() -> impl Strategy<Value = SourceExplanation> {
    let rollup = (1..i64::MAX, range(), any::<[u64; 3]>(), prop::option::of(any::<i64>())).prop_map(
        |(interval, times, [groups, rows, revised], keep_us)| {
            let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            let interval = Interval::from_micros(interval).unwrap();
            let (group_by, distinct) = (names(&["a", "b"]), names(&["c"]));
            let rollup = Rollup { interval, group_by, distinct, percentiles: names(&["d"]), top: names(&[]), keep_us };
            RollupExplanation { rollup, times, groups, rows, revised }
        },
    );
    let segment = (any::<u64>(), time(), time(), any::<bool>(), prop::option::of(skip())).prop_map(
        |(rows, time_min, time_max, sealed, skipped)| SegmentExplanation { rows, time_min, time_max, sealed, skipped },
    );
    let count = || any::<[u64; 2]>().prop_map(|[segments, rows]| SegmentCount { segments, rows });
    let cost = (any::<[u64; 2]>(), 0.0..1e30_f64).prop_map(|([rows, bytes], nanoseconds)| ScanCost {
        rows,
        bytes,
        nanoseconds,
    });
    let ends = (prop::option::of(time()), prop::option::of(time()));
    let lists = (
        prop::collection::vec(rollup, 0..3),
        prop::collection::vec(range(), 0..3),
        prop::collection::vec((skip(), count()), 0..3),
        prop::collection::vec(segment, 0..3),
    );
    (0..64_usize, partition(), ends, lists, count(), cost).prop_map(
        |(table, partition, (evicted_before, lacks_before), (rollups, rows, skipped, segments), kept, cost)| {
            SourceExplanation {
                table,
                partition,
                evicted_before,
                lacks_before,
                rollups,
                rows,
                kept,
                skipped,
                segments,
                cost,
            }
        },
    )
}

fn explanation() -> impl Strategy<Value = NodeExplanation> {
    let partition = (partition(), offset(), prop::collection::vec(source(), 0..3), gaps()).prop_map(
        |(partition, next_offset, sources, gaps)| PartitionExplanation { partition, next_offset, sources, gaps },
    );
    (prop::collection::vec(partition, 0..3), unavailable(), 0..999_usize)
        .prop_map(|(partitions, unavailable, threads)| NodeExplanation { partitions, unavailable, threads })
}

fn statuses() -> impl Strategy<Value = Vec<PartitionStatus>> {
    let status = (partition(), offset(), time(), any::<[u64; 5]>(), any::<bool>()).prop_map(
        |(partition, next_offset, append_time, [rows, bytes, events, scan_us, map_version], whole)| PartitionStatus {
            partition,
            next_offset,
            append_time,
            rows,
            bytes,
            events,
            scan_us,
            map_version,
            whole,
        },
    );
    prop::collection::vec(status, 0..4)
}

fn table_statuses() -> impl Strategy<Value = Vec<TablePartitionStatus>> {
    let times = (prop::option::of(time()), prop::option::of(time()));
    let status = (partition(), offset(), times, any::<[u64; 6]>()).prop_map(
        |(
            partition,
            next_offset,
            (event_time_max, last_events_at),
            [live, evicted, duplicate, conflict, erased, late],
        )| {
            TablePartitionStatus {
                partition,
                next_offset,
                event_time_max,
                last_events_at,
                live,
                evicted,
                duplicate,
                conflict,
                erased,
                late,
            }
        },
    );
    prop::collection::vec(status, 0..4)
}

/// A checksum, and the range that it is asked for.
fn table_checksum() -> impl Strategy<Value = (TimeRange, TableChecksum)> {
    (range(), prop::option::of(time()), any::<u64>(), any::<u128>()).prop_map(|(range, evicted_before, rows, sum)| {
        (range, TableChecksum { evicted_before, found: RowsChecksum { rows, sum } })
    })
}

/// What a scan is, as text: partial results do not compare, their bytes do.
fn shown(scan: Result<NodeScan, ApiError>) -> String {
    let scan = scan.map(|mut scan| {
        let partials = scan.scans.iter_mut().map(|scan| scan.partial.take().map(|partial| partial.into_bytes(&plan())));
        (partials.collect::<Vec<_>>(), scan)
    });
    format!("{scan:?}")
}

fn copy(scan: &NodeScan) -> NodeScan {
    let scans = scan.scans.iter().map(|scan| PartitionScan {
        partition: scan.partition,
        partial: scan.partial.clone(),
        version: scan.version,
        next_offset: scan.next_offset,
        lacks_before: scan.lacks_before.clone(),
        gaps: scan.gaps.clone(),
    });
    NodeScan { scans: scans.collect(), unavailable: scan.unavailable.clone() }
}

/// Goal: whatever a node is asked and whatever it says, errors among it, arrives on the other side as it was.
#[test]
fn what_is_said_arrives() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = Arc::new(Fake::default());
    let (client, _served) = runtime.block_on(serve(Arc::clone(&node)));
    let asked = (offsets(), offsets(), prop::collection::vec((partition(), any::<u128>().prop_map(Version)), 0..4));
    let pages = (prop::option::of(offsets()), prop::option::of(raw_event()), any::<u32>());
    let answers = (
        said(node_scan()),
        said(node_events()),
        said(explanation()),
        said(statuses()),
        said(table_statuses()),
        said(table_checksum()),
    );
    let all = (asked, pages, answers);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let ran = runner.run(&all, |((after, at, known), (page_at, position, bytes_max), answers)| {
        let (scan, events, explanation, status, table_status, checksum) = answers;
        let range = checksum.as_ref().map_or(TimeRange::new(Timestamp(0), Timestamp(1)).unwrap(), |(range, _)| *range);
        let deadline = Instant::now() + Duration::from_secs(60);
        let partitions = scan.as_ref().map_or(vec![PartitionId(3)], |(asked, _)| asked.clone());
        let scan = scan.map(|(_, scan)| scan);
        let request = ScanRequest { plan: plan(), partitions, after, at, known, deadline };
        let limit = events.as_ref().map_or(9, |page| page.events.len());
        let asked_events = EventsRequest {
            plan: plan(),
            partitions: request.partitions.clone(),
            after: request.after.clone(),
            at: page_at,
            position: position.map(|event: RawEvent| event.place),
            limit,
            bytes_max: bytes_max as usize,
            deadline,
        };
        let copied = scan.as_ref().map(copy).map_err(Clone::clone);
        *node.scan.lock().unwrap() = Some(copied);
        let show = |of: &ScanRequest| format!("{:?}", (&of.plan, &of.partitions, &of.after, &of.at, &of.known));
        let show_events = |of: &EventsRequest| {
            format!("{:?}", (&of.plan, &of.partitions, &of.after, &of.at, of.position, of.limit, of.bytes_max))
        };
        runtime.block_on(async {
            prop_assert_eq!(shown(client.scan(request.clone()).await), shown(scan));
            prop_assert_eq!(show(&node.asked.lock().unwrap().take().unwrap()), show(&request));
            let said = format!("{events:?}");
            *node.events.lock().unwrap() = Some(events);
            prop_assert_eq!(format!("{:?}", client.events(asked_events.clone()).await), said);
            prop_assert_eq!(
                show_events(&node.asked_events.lock().unwrap().take().unwrap()),
                show_events(&asked_events)
            );
            let said = format!("{explanation:?}");
            *node.explanation.lock().unwrap() = Some(explanation);
            prop_assert_eq!(format!("{:?}", client.explain(request.clone()).await), said);
            let checksum = checksum.map(|(_, sum)| sum);
            *node.checksum.lock().unwrap() = Some(checksum.clone());
            let request =
                ChecksumRequest { key: KEY, partition: PartitionId(7), at: Offset(u64::MAX), range, deadline };
            prop_assert_eq!(client.checksum(request).await, checksum);
            let asked = node.asked_checksum.lock().unwrap().take().unwrap();
            prop_assert_eq!(ChecksumRequest { deadline, ..asked }, request);
            *node.status.lock().unwrap() = Some(status.clone());
            prop_assert_eq!(client.status().await, status);
            *node.table_status.lock().unwrap() = Some(table_status.clone());
            prop_assert_eq!(client.table_status(KEY).await, table_status);
            Ok(())
        })
    });
    ran.unwrap();
}

/// Goal: how long a caller waits travels as what is left of it, and what the node says of it comes back; a caller that leaves
/// ends what it asked for.
#[tokio::test]
async fn waits_end_with_their_caller() {
    let (waits, mut told) = mpsc::unbounded_channel();
    let node = Arc::new(Fake { waits: Some(waits), ..Fake::default() });
    let (client, _served) = serve(node).await;
    let after = vec![(PartitionId(3), Offset(9))];
    let error = client.applied(after.clone(), Instant::now() + Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::DeadlineExceeded, Some("after")));
    let Some(Wait::Begun(asked, left)) = told.recv().await else { panic!("nobody waited") };
    assert!(asked == after && left <= Duration::from_millis(50), "{left:?}");
    assert_eq!(told.recv().await, Some(Wait::Dropped));

    let leaves = tokio::spawn(async move { client.applied(after, Instant::now() + Duration::from_secs(3_000)).await });
    assert!(matches!(told.recv().await, Some(Wait::Begun(..))));
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(told.recv().await, Some(Wait::Dropped));
}

/// Goal: a node that is away reads as one, before it was ever there and after it left.
#[test]
fn a_node_that_is_away_is_unavailable() {
    let [here, there] = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
    let node = Arc::new(Fake::default());
    *node.status.lock().unwrap() = Some(Ok(Vec::new()));
    let listener = there.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Server::builder().add_service(HotTierService::server(node));
    there.spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    let to = |address| async move { HotTierClient::new(Connector::new(None).to(address).unwrap()) };
    let (client, nowhere) = (here.block_on(to(&address)), here.block_on(to("127.0.0.1:1")));
    assert_eq!(here.block_on(client.status()), Ok(Vec::new()));
    // All of it ends, its connections among it.
    drop(there);
    here.block_on(async move {
        let request = ScanRequest {
            plan: plan(),
            partitions: vec![PartitionId(0)],
            after: Vec::new(),
            at: Vec::new(),
            known: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        for away in [client, nowhere] {
            assert_eq!(away.scan(request.clone()).await.unwrap_err().code, ErrorCode::Unavailable);
            assert_eq!(away.status().await.unwrap_err().code, ErrorCode::Unavailable);
        }
    });
}
