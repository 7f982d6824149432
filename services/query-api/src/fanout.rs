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

use tokio::sync::mpsc;

use crate::{
    arrivals::{Arrivals, Arrived, EarlyMerge},
    fleet::{Ask, Fleet, Wanted},
};

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
    /// Those among them whose results were merged already.
    pub(crate) merged: BTreeSet<PartitionId>,
    /// Which node each of them came from.
    pub(crate) nodes: BTreeMap<PartitionId, NodeId>,
    pub(crate) unavailable: Vec<(PartitionId, Unavailable)>,
}

impl Gathered {
    /// Whether all partitions have the versions that are known.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.unavailable.is_empty() && self.merged.is_empty() && self.scans.iter().all(|scan| scan.partial.is_none())
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

    fn of(arrived: BTreeMap<PartitionId, Arrived>, mut unavailable: Vec<(PartitionId, Unavailable)>) -> Self {
        unavailable.sort_unstable_by_key(|(partition, _)| *partition);
        let merged = arrived.iter().filter(|(_, arrived)| arrived.merged).map(|(partition, _)| *partition).collect();
        let nodes = arrived.iter().map(|(partition, arrived)| (*partition, arrived.node)).collect();
        Self { scans: arrived.into_values().map(|arrived| arrived.scan).collect(), merged, nodes, unavailable }
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
    /// Runs the plan on a replica of each partition. `early`: where results are merged as they come.
    ///
    /// # Errors
    /// The first error of a node that is not its absence: partitions of which no replica answers come back as unavailable.
    pub(crate) async fn run(
        &self,
        fleet: &Fleet,
        placement: &PlacementMap,
        early: Option<Arc<EarlyMerge>>,
    ) -> Result<Gathered, ApiError> {
        let arrivals = Arrivals::new(&self.plan, self.partitions.clone(), early);
        let mut unavailable = self.ask(fleet, placement, &arrivals).await?;
        let unchanged = arrivals.unchanged();
        // What is known is of use as a whole alone: the nodes that have nothing new are asked for all that they have.
        if !unchanged.is_empty() && unchanged.len() < self.partitions.len() {
            let (partitions, prefer) = (unchanged.keys().copied().collect(), unchanged);
            let again = Self { partitions, known: Vec::new(), prefer, ..self.clone() };
            let away = again.ask(fleet, placement, &arrivals).await?;
            // What is not there any more is not known either.
            away.iter().for_each(|(partition, _)| arrivals.forget(*partition));
            unavailable.extend(away);
        }
        Ok(Gathered::of(arrivals.close(), unavailable))
    }

    /// Asks for what has not arrived; returns what did not.
    async fn ask(
        &self,
        fleet: &Fleet,
        placement: &PlacementMap,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        let known: BTreeMap<_, _> = self.known.iter().map(|known| (known.partition, known.node)).collect();
        let prefer = if known.is_empty() { &self.prefer } else { &known };
        let wanted = Wanted { partitions: &self.partitions, after: &self.after, prefer, hedged: true };
        let mut unavailable = fleet.ask(placement, wanted, |ask| self.scan(fleet, ask, arrivals)).await?.unavailable;
        // A node that left had told of some of its partitions before.
        let expected = arrivals.expected();
        unavailable.retain(|(partition, _)| expected.contains(partition));
        Ok(unavailable)
    }

    /// The scan of one node, whose partitions arrive as they come.
    async fn scan(
        &self,
        fleet: &Fleet,
        Ask { id, node, partitions }: Ask,
        arrivals: &Arc<Arrivals>,
    ) -> Result<((), Vec<(PartitionId, Unavailable)>), ApiError> {
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
        let asked_at = tokio::time::Instant::now();
        let take = |scan: PartitionScan| {
            // Of an earlier state it says nothing about the newest.
            if self.at.is_empty() {
                fleet.answered_of(id, scan.partition, scan.next_offset, asked_at);
            }
            arrivals.take(id, scan)
        };
        if !(arrivals.merges_early() && self.plan.grouped()) {
            // A result without groups is a row.
            let NodeScan { scans, unavailable } = node.scan(request).await?;
            scans.into_iter().try_for_each(take)?;
            return Ok(((), unavailable));
        }
        let (found, mut each) = mpsc::channel(1);
        let taking = async move {
            while let Some(scan) = each.recv().await {
                take(scan)?;
            }
            Ok::<_, ApiError>(())
        };
        // What a node said counts although it failed then; what cannot be taken ends the scan at once.
        let scanning = async { Ok(node.scan_each(request, found).await) };
        let (unavailable, ()) = tokio::try_join!(scanning, taking)?;
        Ok(((), unavailable?))
    }
}

#[cfg(test)]
mod tests;
