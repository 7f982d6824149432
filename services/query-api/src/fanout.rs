//! Sends a plan to the nodes that hold its partitions and gathers the partial results in partition order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use futures_util::future::join_all;
use placement::PlacementMap;
use proto::hot_tier::{HotTier, NodeScan, PartitionScan, ScanRequest, Unavailable, Version};
use query::Plan;
use types::{ApiError, ErrorCode, LogGap, NodeId, Offset, PartitionId, Timestamp};

/// The nodes of the hot tier, by id.
pub type Nodes = BTreeMap<NodeId, Arc<dyn HotTier>>;

/// What came back: partitions in their order, and those of which nothing came, with the reason. Either all partitions have
/// the versions that are known, or each one has its result.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) scans: Vec<PartitionScan>,
    pub(crate) unavailable: Vec<(PartitionId, Unavailable)>,
}

impl Gathered {
    /// Whether all partitions have the versions that are known.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.unavailable.is_empty() && self.scans.iter().all(|scan| scan.partial.is_none())
    }

    /// Before which event time rows have left memory somewhere, of any table.
    pub(crate) fn lacks_before(&self) -> Option<Timestamp> {
        self.scans.iter().flat_map(|scan| scan.lacks_before.iter().flatten()).max().copied()
    }

    /// Records of the log that are missing from the results, if they are of the queried tables.
    pub(crate) fn gaps(&self) -> Vec<(PartitionId, LogGap)> {
        self.scans.iter().flat_map(|scan| scan.gaps.iter().map(|gap| (scan.partition, *gap))).collect()
    }

    /// What the results cover: every record before these offsets.
    pub(crate) fn covered(&self) -> Vec<(PartitionId, Offset)> {
        self.scans.iter().map(|scan| (scan.partition, scan.next_offset)).collect()
    }
}

/// What to ask, of which partitions.
#[derive(Clone)]
pub(crate) struct FanOut {
    pub(crate) plan: Arc<Plan>,
    pub(crate) partitions: BTreeSet<PartitionId>,
    pub(crate) after: Vec<(PartitionId, Offset)>,
    /// Offsets of an earlier scan whose rows are asked about again; where there is none, the rows that there are.
    pub(crate) at: Vec<(PartitionId, Offset)>,
    /// Versions of all partitions, ascending, of which the plan's results are known; empty where none is.
    pub(crate) known: Vec<(PartitionId, Version)>,
    pub(crate) deadline: Instant,
}

impl FanOut {
    /// Runs the plan on each partition's primary node.
    ///
    /// # Errors
    /// The first error of a node, by node, that is not its absence: an absent node's partitions come back as unavailable.
    pub(crate) async fn run(&self, nodes: &Nodes, placement: &PlacementMap) -> Result<Gathered, ApiError> {
        let mut gathered = self.ask(nodes, placement).await?;
        if gathered.is_unchanged() {
            return Ok(gathered);
        }
        // What is known is of use as a whole alone: the nodes that have nothing new are asked for all that they have.
        let (found, unchanged): (Vec<_>, Vec<_>) = gathered.scans.into_iter().partition(|scan| scan.partial.is_some());
        gathered.scans = found;
        if !unchanged.is_empty() {
            let partitions = unchanged.iter().map(|scan| scan.partition).collect();
            let more = Self { partitions, known: Vec::new(), ..self.clone() }.ask(nodes, placement).await?;
            gathered.scans.extend(more.scans);
            gathered.unavailable.extend(more.unavailable);
            gathered.scans.sort_by_key(|scan| scan.partition);
            gathered.unavailable.sort_unstable_by_key(|(partition, _)| *partition);
        }
        Ok(gathered)
    }

    async fn ask(&self, nodes: &Nodes, placement: &PlacementMap) -> Result<Gathered, ApiError> {
        let Assigned { by_node, mut unavailable } = assign(&self.partitions, nodes, placement);
        let scans = by_node.into_iter().map(|(node, partitions)| async move {
            let of_node = |offsets: &[(PartitionId, Offset)]| {
                offsets.iter().filter(|(p, _)| partitions.contains(p)).copied().collect()
            };
            let request = ScanRequest {
                plan: Arc::clone(&self.plan),
                partitions: partitions.clone(),
                after: of_node(&self.after),
                at: of_node(&self.at),
                known: self.known.iter().filter(|(p, _)| partitions.contains(p)).copied().collect(),
                deadline: self.deadline,
            };
            (partitions, nodes[&node].scan(request).await)
        });
        let mut found = Vec::new();
        for (partitions, result) in join_all(scans).await {
            match result {
                Ok(NodeScan { scans, unavailable: not_there }) => {
                    found.extend(scans);
                    unavailable.extend(not_there);
                }
                Err(error) if error.code == ErrorCode::Unavailable => {
                    unavailable.extend(partitions.into_iter().map(|p| (p, Unavailable::Unreachable)));
                }
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|scan| scan.partition);
        unavailable.sort_unstable_by_key(|(partition, _)| *partition);
        Ok(Gathered { scans: found, unavailable })
    }
}

/// Waits until all nodes have applied what is to be covered, as far as they answer: a scan says who does not.
///
/// # Errors
/// `DEADLINE_EXCEEDED` with the field `after`.
pub(crate) async fn applied(
    after: &BTreeMap<PartitionId, Offset>,
    nodes: &Nodes,
    placement: &PlacementMap,
    deadline: Instant,
) -> Result<(), ApiError> {
    let by_node = assign(&after.keys().copied().collect(), nodes, placement).by_node;
    let waits = by_node.into_iter().map(|(node, partitions)| {
        let after = partitions.into_iter().map(|partition| (partition, after[&partition])).collect();
        async move { nodes[&node].applied(after, deadline).await }
    });
    join_all(waits)
        .await
        .into_iter()
        .find(|waited| waited.as_ref().is_err_and(|e| e.code != ErrorCode::Unavailable))
        .unwrap_or(Ok(()))
}

/// Each partition goes to the first of its replicas that is known here.
pub(crate) fn assign(partitions: &BTreeSet<PartitionId>, nodes: &Nodes, placement: &PlacementMap) -> Assigned {
    let (mut by_node, mut unavailable) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
    for &partition in partitions {
        let replicas = placement.replicas.get(&partition).map(Vec::as_slice).unwrap_or_default();
        match replicas.iter().find(|node| nodes.contains_key(node)) {
            Some(&node) => by_node.entry(node).or_default().push(partition),
            None => unavailable.push((partition, Unavailable::Unreachable)),
        }
    }
    Assigned { by_node, unavailable }
}

/// Which node scans which partitions, and the partitions of which no node is known here.
pub(crate) struct Assigned {
    pub(crate) by_node: BTreeMap<NodeId, Vec<PartitionId>>,
    pub(crate) unavailable: Vec<(PartitionId, Unavailable)>,
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        time::Duration,
    };

    use async_trait::async_trait;
    use proto::hot_tier::{EventsRequest, NodeEvents, NodeExplanation, PartitionStatus, TablePartitionStatus};
    use query::{Cancel, QueryLimits};
    use types::{Generation, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings, TenantId};

    use super::*;

    /// A node of one partition whose version rises, and how often it scanned.
    #[derive(Default)]
    struct Fake {
        version: AtomicU64,
        scans: AtomicUsize,
    }

    fn not_here<T>() -> Result<T, ApiError> {
        Err(ApiError::internal("not in this fake"))
    }

    #[async_trait]
    impl HotTier for Fake {
        async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
            let version = Version(self.version.load(Relaxed).into());
            let partition = request.partitions[0];
            let partial = (request.known != [(partition, version)]).then(|| {
                self.scans.fetch_add(1, Relaxed);
                let left = false.into();
                query::merge(&request.plan, partition, Vec::new(), &Cancel::new(&left, &|| false)).unwrap()
            });
            let next_offset = Offset(request.after.first().map_or(0, |(_, offset)| offset.0));
            let lacks_before = vec![None];
            let scan = PartitionScan { partition, partial, version, next_offset, lacks_before, gaps: Vec::new() };
            Ok(NodeScan { scans: vec![scan], unavailable: Vec::new() })
        }

        async fn applied(&self, after: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
            match after[..] {
                [(PartitionId(1), Offset(7))] => Err(ApiError::new(ErrorCode::DeadlineExceeded, "never")),
                [(_, Offset(8))] => Err(ApiError::unavailable("away")),
                _ => Ok(()),
            }
        }

        async fn events(&self, _: EventsRequest) -> Result<NodeEvents, ApiError> {
            not_here()
        }

        async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
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
        fakes: [Arc<Fake>; 2],
        nodes: Nodes,
        placement: PlacementMap,
    }

    impl World {
        fn new() -> Self {
            let fakes = [Arc::new(Fake::default()), Arc::new(Fake::default())];
            let nodes = fakes.iter().enumerate();
            let nodes = nodes.map(|(at, fake)| (NodeId(at as u64), Arc::clone(fake) as Arc<dyn HotTier>)).collect();
            let replicas = (0..2).map(|at| (PartitionId(at), vec![NodeId(at.into())])).collect();
            Self { fakes, nodes, placement: PlacementMap { replicas, ..PlacementMap::default() } }
        }

        async fn run(&self, known: &[u128]) -> Gathered {
            let known = (0..).map(PartitionId).zip(known.iter().copied().map(Version)).collect();
            let fan_out = FanOut {
                plan: plan(),
                partitions: (0..2).map(PartitionId).collect(),
                after: Vec::new(),
                at: Vec::new(),
                known,
                deadline: Instant::now() + Duration::from_secs(60),
            };
            fan_out.run(&self.nodes, &self.placement).await.unwrap()
        }

        fn scans(&self) -> [usize; 2] {
            self.fakes.each_ref().map(|fake| fake.scans.swap(0, Relaxed))
        }
    }

    fn plan() -> Arc<Plan> {
        let table = Table {
            key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(1) },
            name: TableName::new("shop", "events"),
            partitions: (0..2).map(PartitionId).collect(),
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

    /// Goal: what is known is of use where no partition changed; where one of one node did, the other node is asked for all
    /// that it has, and every result is there.
    #[tokio::test]
    async fn known_results_are_used_as_a_whole() {
        let world = World::new();
        let first = world.run(&[]).await;
        assert!(!first.is_unchanged() && first.scans.iter().all(|scan| scan.partial.is_some()));
        assert_eq!(world.scans(), [1, 1]);
        let again = world.run(&[0, 0]).await;
        assert_eq!((again.is_unchanged(), world.scans()), (true, [0, 0]));
        for changed in 0..2 {
            world.fakes[changed].version.fetch_add(1, Relaxed);
            let known = if changed == 0 { [0, 0] } else { [1, 0] };
            let gathered = world.run(&known).await;
            assert!(!gathered.is_unchanged() && gathered.scans.iter().all(|scan| scan.partial.is_some()));
            let partitions: Vec<u32> = gathered.scans.iter().map(|scan| scan.partition.0).collect();
            assert_eq!((&partitions[..], world.scans()), (&[0, 1][..], [1, 1]));
        }
    }

    /// Goal: a wait for offsets that takes too long is an error, and a node that is away is none: the scan tells.
    #[tokio::test]
    async fn waits_end() {
        let world = World::new();
        let wait = async |offsets: [u64; 2]| {
            let after = (0..).map(PartitionId).zip(offsets.map(Offset)).collect();
            applied(&after, &world.nodes, &world.placement, Instant::now()).await.map_err(|error| error.code)
        };
        assert_eq!(wait([1, 1]).await, Ok(()));
        assert_eq!(wait([8, 8]).await, Ok(()));
        assert_eq!(wait([8, 7]).await, Err(ErrorCode::DeadlineExceeded));
    }
}
