//! Sends a plan to the nodes that hold its partitions and gathers the partial results in partition order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use placement::PlacementMap;
use proto::hot_tier::{NodeScan, PartitionScan, ScanRequest, Unavailable, Version};
use query::Plan;
use types::{ApiError, LogGap, NodeId, Offset, PartitionId, Timestamp};

use crate::fleet::{Ask, Fleet, Wanted};

/// The version of a partition on the node that gave it, to which alone it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionAt {
    pub(crate) partition: PartitionId,
    pub(crate) node: NodeId,
    pub(crate) version: Version,
}

/// What came back: partitions in their order, and those of which nothing came, with the reason. Either all partitions have
/// the versions that are known, or each one has its result.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) scans: Vec<PartitionScan>,
    /// Which node each of them came from.
    pub(crate) nodes: BTreeMap<PartitionId, NodeId>,
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

    /// The versions of what came, where each came from.
    pub(crate) fn versions(&self) -> Vec<VersionAt> {
        let version = |scan: &PartitionScan| {
            let PartitionScan { partition, version, .. } = *scan;
            VersionAt { partition, node: self.nodes[&partition], version }
        };
        self.scans.iter().map(version).collect()
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
    pub(crate) known: Vec<VersionAt>,
    /// Nodes that scanned a partition before.
    pub(crate) prefer: BTreeMap<PartitionId, NodeId>,
    pub(crate) deadline: Instant,
}

impl FanOut {
    /// Runs the plan on a replica of each partition.
    ///
    /// # Errors
    /// The first error of a node that is not its absence: partitions of which no replica answers come back as unavailable.
    pub(crate) async fn run(&self, fleet: &Fleet, placement: &PlacementMap) -> Result<Gathered, ApiError> {
        let mut gathered = self.ask(fleet, placement).await?;
        if gathered.is_unchanged() {
            return Ok(gathered);
        }
        // What is known is of use as a whole alone: the nodes that have nothing new are asked for all that they have.
        let (found, unchanged): (Vec<_>, Vec<_>) = gathered.scans.into_iter().partition(|scan| scan.partial.is_some());
        gathered.scans = found;
        if !unchanged.is_empty() {
            let partitions = unchanged.iter().map(|scan| scan.partition).collect();
            let prefer = gathered.nodes.clone();
            let more = Self { partitions, known: Vec::new(), prefer, ..self.clone() }.ask(fleet, placement).await?;
            gathered.scans.extend(more.scans);
            gathered.nodes.extend(more.nodes);
            gathered.unavailable.extend(more.unavailable);
            gathered.scans.sort_by_key(|scan| scan.partition);
            gathered.unavailable.sort_unstable_by_key(|(partition, _)| *partition);
        }
        Ok(gathered)
    }

    async fn ask(&self, fleet: &Fleet, placement: &PlacementMap) -> Result<Gathered, ApiError> {
        let known: BTreeMap<_, _> = self.known.iter().map(|known| (known.partition, known.node)).collect();
        let prefer = if known.is_empty() { &self.prefer } else { &known };
        let wanted = Wanted { partitions: &self.partitions, after: &self.after, prefer, hedged: true };
        let asked = fleet.ask(placement, wanted, |ask| self.scan(ask)).await?;
        let mut gathered = Gathered { scans: Vec::new(), nodes: BTreeMap::new(), unavailable: asked.unavailable };
        for (node, scans) in asked.replies {
            gathered.nodes.extend(scans.iter().map(|scan| (scan.partition, node)));
            gathered.scans.extend(scans);
        }
        gathered.scans.sort_by_key(|scan| scan.partition);
        Ok(gathered)
    }

    /// The scan of one node.
    async fn scan(
        &self,
        Ask { id, node, partitions }: Ask,
    ) -> Result<(Vec<PartitionScan>, Vec<(PartitionId, Unavailable)>), ApiError> {
        let of_node = |offsets: &[(PartitionId, Offset)]| {
            offsets.iter().filter(|(partition, _)| partitions.contains(partition)).copied().collect()
        };
        let known = self.known.iter().filter(|known| known.node == id && partitions.contains(&known.partition));
        let request = ScanRequest {
            plan: Arc::clone(&self.plan),
            after: of_node(&self.after),
            at: of_node(&self.at),
            known: known.map(|known| (known.partition, known.version)).collect(),
            deadline: self.deadline,
            partitions,
        };
        let NodeScan { scans, unavailable } = node.scan(request).await?;
        Ok((scans, unavailable))
    }
}

#[cfg(test)]
mod tests;
