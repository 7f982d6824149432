//! Fake nodes in virtual time.

mod merging;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use proto::hot_tier::{
    ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, PartitionStatus, TableChecksum,
    TablePartitionStatus,
};
use query::{Cancel, QueryLimits};
use tokio::sync::{Semaphore, watch};
use types::{
    ErrorCode, Generation, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId,
};

use super::*;
use crate::nodes::Nodes;

const PARTITIONS: u32 = 2;

/// How a node behaves now.
#[derive(Debug, Clone)]
struct Manner {
    takes: Duration,
    /// It answers with this error.
    error: Option<ErrorCode>,
    /// Partitions that it has, but cannot scan.
    recovering: Vec<PartitionId>,
    /// What each of its partitions has applied.
    applied: u64,
    version: u128,
    /// Its results come one by one as this lets them, each with so many groups.
    one_by_one: Option<(Arc<Semaphore>, usize)>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { takes: Duration::ZERO, error: None, recovering: Vec::new(), applied: 0, version: 1, one_by_one: None }
    }
}

/// A node, and what became of the scans that it was asked for.
#[derive(Default)]
struct Fake {
    manner: Mutex<Manner>,
    /// Partitions scanned, those whose version was known not among them.
    scanned: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// The requests of which the caller did not wait for the end.
    dropped: AtomicUsize,
}

/// Counts a request that is dropped before its end.
struct Begun<'a>(&'a Fake, bool);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let count = if self.1 { &self.0.ended } else { &self.0.dropped };
        count.fetch_add(1, Relaxed);
    }
}

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::internal("not in this fake"))
}

impl Fake {
    fn manner(&self) -> Manner {
        self.manner.lock().unwrap().clone()
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    async fn wait(&self, after: &[(PartitionId, Offset)], deadline: Instant) -> Result<(), ApiError> {
        let late = ApiError::new(ErrorCode::DeadlineExceeded, "never").with_field("after");
        while after.iter().any(|(_, offset)| offset.0 > self.manner().applied) {
            if Instant::now() >= deadline && tokio::time::Instant::now() >= deadline.into() {
                return Err(late);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn scan_of(&self, plan: &Plan, partition: PartitionId, known: &[(PartitionId, Version)]) -> PartitionScan {
        let (version, left) = (Version(self.manner().version), false.into());
        let partial = (!known.contains(&(partition, version))).then(|| {
            self.scanned.fetch_add(1, Relaxed);
            query::merge(plan, partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap()
        });
        let next_offset = Offset(self.manner().applied);
        PartitionScan { partition, partial, version, next_offset, lacks_before: vec![None], gaps: Vec::new() }
    }
}

#[async_trait]
impl HotTier for Fake {
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
        self.begun.fetch_add(1, Relaxed);
        let mut begun = Begun(self, false);
        let manner = self.manner();
        tokio::time::sleep(manner.takes).await;
        begun.1 = true;
        if let Some(code) = manner.error {
            return Err(ApiError::new(code, "as it was told"));
        }
        self.wait(&request.after, request.deadline).await?;
        let (not_there, there): (Vec<_>, Vec<_>) =
            request.partitions.iter().copied().partition(|partition| manner.recovering.contains(partition));
        Ok(NodeScan {
            scans: there.into_iter().map(|p| self.scan_of(&request.plan, p, &request.known)).collect(),
            unavailable: not_there.into_iter().map(|p| (p, Unavailable::Recovering)).collect(),
        })
    }

    async fn scan_each(
        &self,
        request: ScanRequest,
        found: mpsc::Sender<PartitionScan>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        if let Some((gate, groups)) = self.manner().one_by_one {
            return merging::one_by_one(self, &request, &found, &gate, groups).await;
        }
        let NodeScan { scans, unavailable } = self.scan(request).await?;
        for scan in scans {
            found.send(scan).await.map_err(|_| ApiError::internal("nobody takes it"))?;
        }
        Ok(unavailable)
    }

    async fn applied(&self, after: Vec<(PartitionId, Offset)>, deadline: Instant) -> Result<(), ApiError> {
        match self.manner().error {
            Some(code) => Err(ApiError::new(code, "as it was told")),
            None => self.wait(&after, deadline).await,
        }
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

struct World {
    fakes: Vec<Arc<Fake>>,
    fleet: Fleet,
    placement: PlacementMap,
    /// Where the log's partitions end.
    log_end: Arc<AtomicU64>,
}

impl World {
    /// So many nodes, and the replicas of each partition.
    fn new(nodes: u64, replicas: &[&[u64]]) -> Self {
        let fakes: Vec<_> = (0..nodes).map(|_| Arc::new(Fake::default())).collect();
        let members = (0..).map(NodeId).zip(fakes.iter().map(|fake| Arc::clone(fake) as Arc<dyn HotTier>));
        let log_end = Arc::new(AtomicU64::new(0));
        let end = Arc::clone(&log_end);
        let fleet = Fleet::new(Nodes::fixed(members), Box::new(move |_| Offset(end.load(Relaxed))));
        let replicas = (0..).map(PartitionId).zip(replicas.iter().map(|of| of.iter().copied().map(NodeId).collect()));
        let placement = PlacementMap { replicas: replicas.collect(), ..PlacementMap::default() };
        Self { fakes, fleet, placement, log_end }
    }

    /// Two nodes, each of which has both partitions and is the first for one.
    fn replicated() -> Self {
        Self::new(2, &[&[0, 1], &[1, 0]])
    }

    fn fan_out(&self) -> FanOut {
        FanOut {
            plan: plan(),
            partitions: self.placement.replicas.keys().copied().collect(),
            after: Vec::new(),
            at: Vec::new(),
            known: Vec::new(),
            prefer: BTreeMap::new(),
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    async fn run(&self, fan_out: FanOut) -> Gathered {
        fan_out.run(&self.fleet, &self.placement, None).await.unwrap()
    }

    async fn knowing(&self, known: &[VersionAt]) -> Gathered {
        self.run(FanOut { known: known.to_vec(), ..self.fan_out() }).await
    }

    /// Lets the times of all nodes be known: so long each.
    async fn warm_up(&self, takes: Duration) {
        self.fakes.iter().for_each(|fake| fake.set(Manner { takes, ..Manner::default() }));
        for _ in 0..300 {
            assert_eq!(nodes(&self.run(self.fan_out()).await), [0, 1]);
        }
        for fake in &self.fakes {
            [&fake.begun, &fake.ended, &fake.dropped].into_iter().for_each(|count| count.store(0, Relaxed));
        }
    }

    fn counts(&self, of: impl Fn(&Fake) -> &AtomicUsize) -> Vec<usize> {
        self.fakes.iter().map(|fake| of(fake).swap(0, Relaxed)).collect()
    }
}

/// Which node answered for each partition.
fn nodes(gathered: &Gathered) -> Vec<u64> {
    assert!(gathered.scans.iter().all(|scan| gathered.nodes.contains_key(&scan.partition)));
    gathered.nodes.values().map(|node| node.0).collect()
}

fn plan() -> Arc<Plan> {
    plan_of(r#"{"namespace": "shop", "table": "events", "start_time": 0, "end_time": 1000}"#)
}

fn plan_of(json: &str) -> Arc<Plan> {
    plan_within(json, &QueryLimits::default())
}

fn plan_within(json: &str, limits: &QueryLimits) -> Arc<Plan> {
    let table = Table {
        key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
        name: TableName::new("shop", "events"),
        partitions: (0..PARTITIONS).map(PartitionId).collect(),
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), Vec::new()),
        settings: TableSettings::default(),
    };
    let query = query::parse(json.as_bytes(), limits).unwrap();
    Arc::new(query::plan(&query, &[Arc::new(table)]).unwrap())
}

/// Goal: what is known is of use where no partition changed; where one of one node did, the other node is asked for all
/// that it has, and every result is there.
#[tokio::test(start_paused = true)]
async fn known_results_are_used_as_a_whole() {
    let world = World::new(2, &[&[0], &[1]]);
    let first = world.run(world.fan_out()).await;
    assert!(!first.is_unchanged() && first.scans.iter().all(|scan| scan.partial.is_some()));
    assert_eq!(world.counts(|fake| &fake.scanned), [1, 1]);
    let again = world.knowing(&first.versions()).await;
    assert_eq!((again.is_unchanged(), world.counts(|fake| &fake.scanned)), (true, vec![0, 0]));
    for changed in 0..2 {
        let known = world.knowing(&[]).await.versions();
        world.counts(|fake| &fake.scanned);
        world.fakes[changed].manner.lock().unwrap().version += 1;
        let gathered = world.knowing(&known).await;
        assert!(!gathered.is_unchanged() && gathered.scans.iter().all(|scan| scan.partial.is_some()));
        let partitions: Vec<u32> = gathered.scans.iter().map(|scan| scan.partition.0).collect();
        assert_eq!((&partitions[..], world.counts(|fake| &fake.scanned)), (&[0, 1][..], vec![1, 1]));
    }
}

/// Goal: a version is shown to the node that gave it and to no other, for whom it could be another state's; where that node is
/// away, the other scans.
#[tokio::test(start_paused = true)]
async fn versions_go_where_they_came_from() {
    let world = World::replicated();
    // The first replica of partition 0 is busy: the second one gave the version.
    let known = [(0, 1), (1, 1)].map(|(partition, node)| VersionAt {
        partition: PartitionId(partition),
        node: NodeId(node),
        version: Version(1),
    });
    let gathered = world.knowing(&known).await;
    assert!(gathered.is_unchanged());
    assert_eq!((nodes(&gathered), world.counts(|fake| &fake.begun)), (vec![1, 1], vec![0, 1]));
    world.fakes[1].set(Manner { error: Some(ErrorCode::Unavailable), ..Manner::default() });
    let gathered = world.knowing(&known).await;
    assert!(!gathered.is_unchanged() && gathered.scans.iter().all(|scan| scan.partial.is_some()));
    assert_eq!((nodes(&gathered), world.counts(|fake| &fake.scanned)), (vec![0, 0], vec![2, 0]));
}

/// Goal: a node that fails is replaced by the other replica at once, and is asked last for a while; partitions that recover are
/// asked of the other replica alone; where none is left they are named with the reason.
#[tokio::test(start_paused = true)]
async fn replicas_help_out() {
    let world = World::replicated();
    assert_eq!(nodes(&world.run(world.fan_out()).await), [0, 1]);
    world.fakes[0].set(Manner { error: Some(ErrorCode::Unavailable), ..Manner::default() });
    world.counts(|fake| &fake.begun);
    assert_eq!(nodes(&world.run(world.fan_out()).await), [1, 1]);
    assert_eq!(world.counts(|fake| &fake.begun), [1, 2]);
    assert_eq!(nodes(&world.run(world.fan_out()).await), [1, 1]);
    assert_eq!(world.counts(|fake| &fake.begun), [0, 1], "it failed a moment ago");

    let recovering = vec![PartitionId(1)];
    world.fakes[1].set(Manner { recovering, ..Manner::default() });
    let gathered = world.run(world.fan_out()).await;
    assert_eq!(
        (nodes(&gathered), &gathered.unavailable[..]),
        (vec![1], &[(PartitionId(1), Unavailable::Recovering)][..])
    );
    tokio::time::advance(Duration::from_secs(2)).await;
    world.fakes[0].set(Manner::default());
    let gathered = world.run(world.fan_out()).await;
    assert_eq!((nodes(&gathered), gathered.unavailable.len()), (vec![0, 0], 0));

    world.fakes.iter().for_each(|fake| fake.set(Manner { error: Some(ErrorCode::Unavailable), ..Manner::default() }));
    let gathered = world.run(world.fan_out()).await;
    let gone = [0, 1].map(|partition| (PartitionId(partition), Unavailable::Unreachable));
    assert_eq!((gathered.scans.len(), &gathered.unavailable[..]), (0, &gone[..]));
}

/// Goal: an error that another replica would say as well is the answer; what an earlier version does not know, another replica
/// may, and where none does the answer says so: that passes.
#[tokio::test(start_paused = true)]
async fn errors_are_told_from_absence() {
    let world = World::replicated();
    let fails = |node: usize, code| world.fakes[node].set(Manner { error: Some(code), ..Manner::default() });
    let run = async || world.fan_out().run(&world.fleet, &world.placement, None).await;
    fails(0, ErrorCode::TooLarge);
    assert_eq!(run().await.unwrap_err().code, ErrorCode::TooLarge);
    fails(0, ErrorCode::Unimplemented);
    assert_eq!(nodes(&run().await.unwrap()), [1, 1]);
    fails(1, ErrorCode::Unimplemented);
    let refused = run().await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.ends_with("speaks another version: as it was told"), "{refused:?}");
}

/// Goal: a node that takes longer than it mostly does is overtaken by the other replica, and its request is dropped; one that
/// answers in time, before or after the second request, is not.
#[tokio::test(start_paused = true)]
async fn slow_nodes_are_overtaken() {
    let world = World::replicated();
    world.warm_up(Duration::from_millis(10)).await;
    let slow = |millis| world.fakes[0].set(Manner { takes: Duration::from_millis(millis), ..Manner::default() });
    slow(5_000);
    let began = tokio::time::Instant::now();
    assert_eq!(nodes(&world.run(world.fan_out()).await), [1, 1]);
    assert!(began.elapsed() < Duration::from_millis(30), "{:?}", began.elapsed());
    assert_eq!(world.counts(|fake| &fake.begun), [1, 2]);
    assert_eq!(world.counts(|fake| &fake.dropped), [1, 0]);
    slow(13);
    tokio::time::advance(Duration::from_secs(2)).await;
    let prefer = [(PartitionId(0), NodeId(0)), (PartitionId(1), NodeId(1))].into();
    assert_eq!(nodes(&world.run(FanOut { prefer, ..world.fan_out() }).await), [0, 1]);
    assert_eq!((world.counts(|fake| &fake.begun), world.counts(|fake| &fake.dropped)), (vec![1, 2], vec![0, 1]));
}

/// Goal: of two requests that both lack something each partition counts once, and what one node lacks comes from the other.
#[tokio::test(start_paused = true)]
async fn what_two_nodes_found_counts_once() {
    for lacks in [Vec::new(), vec![PartitionId(0)]] {
        let world = World::replicated();
        world.warm_up(Duration::from_millis(10)).await;
        let manner =
            |millis, recovering| Manner { takes: Duration::from_millis(millis), recovering, ..Manner::default() };
        world.fakes[0].set(manner(13, vec![PartitionId(1)]));
        world.fakes[1].set(manner(10, lacks));
        let prefer = [0, 1].map(|partition| (PartitionId(partition), NodeId(0))).into();
        let gathered = world.run(FanOut { prefer, ..world.fan_out() }).await;
        let partitions: Vec<u32> = gathered.scans.iter().map(|scan| scan.partition.0).collect();
        assert_eq!((&partitions[..], gathered.unavailable.len()), (&[0, 1][..], 0));
        assert!(world.counts(|fake| &fake.begun).iter().sum::<usize>() >= 2, "a second request was made");
    }
}

/// Goal: however slow a node is, at most one request in twenty is made twice, and what it is asked for goes on.
#[tokio::test(start_paused = true)]
async fn second_requests_have_a_budget() {
    let world = World::new(2, &[&[0, 1]]);
    world.fakes[0].set(Manner { takes: Duration::from_millis(10), ..Manner::default() });
    let preferred = async || {
        let prefer = [(PartitionId(0), NodeId(0))].into();
        world.run(FanOut { prefer, ..world.fan_out() }).await
    };
    for _ in 0..100 {
        preferred().await;
    }
    // Fifteen times as long as before, and yet preferred: each request would be made twice.
    world.fakes[0].set(Manner { takes: Duration::from_millis(150), ..Manner::default() });
    world.counts(|fake| &fake.begun);
    for _ in 0..400 {
        preferred().await;
    }
    let [first, second] = world.counts(|fake| &fake.begun)[..] else { panic!("two nodes") };
    assert!(first == 400 && (1..=25).contains(&second), "{second} of {first}");
}

/// Goal: what is asked goes to the replica that has less to do and takes less time; between equals to the first.
#[tokio::test(start_paused = true)]
async fn the_least_loaded_is_asked() {
    let world = World::new(2, &[&[0, 1]]);
    assert_eq!(nodes(&world.run(world.fan_out()).await), [0]);
    world.fakes[0].set(Manner { takes: Duration::from_secs(9), ..Manner::default() });
    let busy = async { world.run(world.fan_out()).await };
    let other = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.run(world.fan_out()).await
    };
    let (busy, other) = tokio::join!(busy, other);
    assert_eq!((nodes(&busy), nodes(&other)), (vec![0], vec![1]));
    assert_eq!(nodes(&world.run(world.fan_out()).await), [1], "the first took nine seconds");
}

/// Goal: an answer that is to cover an offset comes from the replica that has it, and waits for none that lags; where all lag
/// until the deadline, that is the error, and a node that is away is none.
#[tokio::test(start_paused = true)]
async fn lagging_replicas_are_passed_over() {
    let world = World::replicated();
    let has = |node: usize, applied| world.fakes[node].set(Manner { applied, ..Manner::default() });
    let after: BTreeMap<_, _> = [(PartitionId(0), Offset(7))].into();
    let wait = async |millis| {
        let deadline = Instant::now() + Duration::from_millis(millis);
        world.fleet.applied(&after, &world.placement, deadline).await.map_err(|error| error.field)
    };
    has(0, 3);
    has(1, 7);
    assert_eq!(wait(60_000).await, Ok(()));
    let after_list: Vec<_> = after.clone().into_iter().collect();
    let gathered = world.run(FanOut { after: after_list, ..world.fan_out() }).await;
    assert_eq!((gathered.nodes[&PartitionId(0)], gathered.scans[0].next_offset), (NodeId(1), Offset(7)));

    let world = World::replicated();
    let wait = async |millis| {
        let deadline = Instant::now() + Duration::from_millis(millis);
        world.fleet.applied(&after, &world.placement, deadline).await.map_err(|error| error.field)
    };
    assert_eq!(wait(0).await, Err(Some("after".to_owned())));
    world.fakes.iter().for_each(|fake| fake.set(Manner { error: Some(ErrorCode::Unavailable), ..Manner::default() }));
    assert_eq!(wait(0).await, Ok(()));
}

/// Goal: a replica that stands still while the log goes on is not asked where there is another, though it is preferred; it is tried
/// now and then, and asked as before once it follows again.
#[tokio::test(start_paused = true)]
async fn replicas_far_behind_are_asked_last() {
    let world = World::replicated();
    let stand = |nodes: [u64; 2]| {
        let manner = |applied| Manner { applied, ..Manner::default() };
        world.fakes.iter().zip(nodes).for_each(|(fake, applied)| fake.set(manner(applied)));
    };
    let prefer = BTreeMap::from([(PartitionId(0), NodeId(0))]);
    let ask = async || nodes(&world.run(FanOut { prefer: prefer.clone(), ..world.fan_out() }).await);
    let later = async |secs| tokio::time::advance(Duration::from_secs(secs)).await;
    world.log_end.store(10, Relaxed);
    stand([7, 10]);
    for _ in 0..2 {
        assert_eq!(ask().await, [0, 1], "it may have come just now");
        later(2).await;
    }
    for _ in 0..3 {
        assert_eq!(ask().await, [1, 1]);
        later(3).await;
    }
    later(2).await;
    assert_eq!(ask().await, [0, 1], "it may be well again");
    assert_eq!(ask().await, [1, 1]);
    stand([10, 10]);
    later(11).await;
    for _ in 0..2 {
        assert_eq!(ask().await, [0, 1]);
    }
}

/// Goal: nodes that come and go are asked from then on, and not any more.
#[tokio::test(start_paused = true)]
async fn nodes_come_and_go() {
    let world = World::replicated();
    let member = |node: usize| (NodeId(node as u64), Arc::clone(&world.fakes[node]) as Arc<dyn HotTier>);
    let (members, view) = watch::channel(Arc::new([member(0)].into()));
    let fleet = Fleet::new(Nodes::watched(view), Box::new(|_| Offset::ZERO));
    let run = async || nodes(&world.fan_out().run(&fleet, &world.placement, None).await.unwrap());
    assert_eq!(run().await, [0, 0]);
    members.send_replace(Arc::new([member(0), member(1)].into()));
    assert_eq!(run().await, [0, 1]);
    members.send_replace(Arc::new([member(1)].into()));
    assert_eq!(run().await, [1, 1]);
}
