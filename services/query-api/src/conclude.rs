//! From the partial results to the answer: the merge, off the network threads, and the further scans of an exact selection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use placement::PlacementMap;
use proto::hot_tier::PartitionScan;
use query::{Answer, Cancel, Finishing, Partial};
use types::{ApiError, Timestamp};

use crate::fanout::{FanOut, Nodes};

/// Where the scans of a query run.
pub(crate) struct Scans<'a> {
    pub(crate) first: &'a FanOut,
    pub(crate) nodes: &'a Nodes,
    pub(crate) placement: &'a PlacementMap,
}

impl Scans<'_> {
    /// The answer of the first scan's results and of as many further scans, at the same offsets, as it takes. `None`: rows of
    /// the first one have left meanwhile, or a partition has, so that all has to be asked again.
    ///
    /// # Errors
    /// Those of scans and merges.
    pub(crate) async fn conclude(&self, scans: Vec<PartitionScan>) -> Result<Option<Answer>, ApiError> {
        let horizons: Vec<_> = scans.iter().map(horizon).collect();
        let at = scans.iter().map(|scan| (scan.partition, scan.next_offset)).collect();
        let (plan, deadline) = (Arc::clone(&self.first.plan), self.first.deadline);
        let partials = partials(scans);
        let begin = move |cancel: &Cancel<'_>| {
            let mut finishing = Finishing::new(&plan, partials, cancel)?;
            let round = finishing.next_round(&plan);
            Ok((finishing, round))
        };
        let (mut finishing, mut next) = off_network(deadline, begin).await?;
        let mut again = FanOut { after: Vec::new(), at, ..self.first.clone() };
        while let Some(round) = next.map(Arc::new) {
            again.plan = Arc::clone(&round);
            again.partitions = again.at.iter().map(|(partition, _)| *partition).collect();
            let found = again.run(self.nodes, self.placement).await?;
            if !found.unavailable.is_empty() || !found.scans.iter().map(horizon).eq(horizons.iter().cloned()) {
                return Ok(None);
            }
            let (plan, partials) = (Arc::clone(&self.first.plan), crate::conclude::partials(found.scans));
            let narrow = move |cancel: &Cancel<'_>| {
                let all = finishing.absorb(&round, partials, cancel)?;
                let round = if all { finishing.next_round(&plan) } else { None };
                Ok((all, finishing, round))
            };
            let all;
            (all, finishing, next) = off_network(deadline, narrow).await?;
            if !all {
                return Ok(None);
            }
        }
        let plan = Arc::clone(&self.first.plan);
        off_network(deadline, move |cancel| finishing.answer(&plan, cancel)).await.map(Some)
    }
}

/// What a partition no longer has: by table, before which time.
fn horizon(scan: &PartitionScan) -> Vec<Option<Timestamp>> {
    scan.evicted_before.clone()
}

fn partials(scans: Vec<PartitionScan>) -> Vec<Partial> {
    scans.into_iter().map(|scan| scan.partial).collect()
}

/// Does work that may take milliseconds. It stops at the deadline, and when nobody waits for it any more.
async fn off_network<R: Send + 'static>(
    deadline: Instant,
    work: impl FnOnce(&Cancel<'_>) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let left = LeftOnDrop(Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&left.0);
    let done = tokio::task::spawn_blocking(move || work(&Cancel::new(&flag, &|| Instant::now() >= deadline))).await;
    done.map_err(|error| ApiError::internal(format!("merging the answer failed: {error}")))?
}

/// Stops the work on an answer when the request is dropped.
struct LeftOnDrop(Arc<AtomicBool>);

impl Drop for LeftOnDrop {
    fn drop(&mut self) {
        // Relaxed: it only has to be seen soon.
        self.0.store(true, Ordering::Relaxed);
    }
}
