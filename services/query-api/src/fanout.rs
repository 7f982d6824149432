//! Sends a plan to the nodes that hold its partitions and gathers the partial results in partition order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use futures_util::future::join_all;
use placement::PlacementMap;
use proto::hot_tier::{HotTier, NodeScan, PartitionScan, ScanRequest, Unavailable};
use query::Plan;
use types::{ApiError, ErrorCode, LogGap, NodeId, Offset, PartitionId, Timestamp};

/// The nodes of the hot tier, by id.
pub type Nodes = BTreeMap<NodeId, Arc<dyn HotTier>>;

/// What came back: results in partition order, and the partitions of which none came, with the reason.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) scans: Vec<PartitionScan>,
    pub(crate) unavailable: Vec<(PartitionId, Unavailable)>,
}

impl Gathered {
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
    pub(crate) deadline: Instant,
}

impl FanOut {
    /// Runs the plan on each partition's primary node.
    ///
    /// # Errors
    /// The first error of a node, by node, that is not its absence: an absent node's partitions come back as unavailable.
    pub(crate) async fn run(&self, nodes: &Nodes, placement: &PlacementMap) -> Result<Gathered, ApiError> {
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
