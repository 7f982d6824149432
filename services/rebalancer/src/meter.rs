//! What each replica makes its node do, as rates: from what nodes say of it since they opened it, between two looks. And whether it
//! holds all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures_util::future::join_all;
use placement::PartitionWork;
use proto::hot_tier::{HotTier, PartitionStatus};
use types::{NodeId, PartitionId};

use crate::watching::HotTiers;

/// A replica.
pub(crate) type Replica = (PartitionId, NodeId);

/// Looks at all nodes from time to time. Cloning shares what it saw.
#[derive(Clone)]
pub(crate) struct Meter {
    nodes: HotTiers,
    seen: Arc<Mutex<BTreeMap<Replica, Seen>>>,
}

/// A replica at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    events: u64,
    scan_us: u64,
    work: PartitionWork,
    whole: bool,
}

impl Meter {
    pub(crate) fn new(nodes: HotTiers) -> Self {
        Self { nodes, seen: Arc::default() }
    }

    /// Looks at all nodes at once. Of one that does not answer nothing is known.
    pub(crate) async fn look(&self, now: Instant) {
        let nodes = Arc::clone(&self.nodes.borrow());
        let ask = |(&id, node): (&NodeId, &Arc<dyn HotTier>)| {
            let node = Arc::clone(node);
            async move { (id, node.status().await) }
        };
        let answers = join_all(nodes.iter().map(ask)).await;
        let mut seen = self.seen();
        let mut newest = BTreeMap::new();
        for (node, status) in answers.into_iter().filter_map(|(node, status)| Some((node, status.ok()?))) {
            for status in status {
                let replica = (status.partition, node);
                newest.insert(replica, Seen::new(seen.get(&replica), &status, now));
            }
        }
        *seen = newest;
    }

    /// The work of each replica, as of the last look; rates are 0 before the second look at one.
    pub(crate) fn work(&self) -> BTreeMap<Replica, PartitionWork> {
        self.seen().iter().map(|(replica, seen)| (*replica, seen.work)).collect()
    }

    /// Whether a replica holds all that its partition's log had, as of the last look; `None`: that is not known.
    pub(crate) fn is_whole(&self, replica: &Replica) -> Option<bool> {
        self.seen().get(replica).map(|seen| seen.whole)
    }

    /// What a node held says nothing of what it has when it is back.
    pub(crate) fn forget(&self, is_gone: impl Fn(NodeId) -> bool) {
        self.seen().retain(|(_, node), _| !is_gone(*node));
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<Replica, Seen>> {
        // What is in it is replaced as a whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn new(before: Option<&Self>, status: &PartitionStatus, at: Instant) -> Self {
        let PartitionStatus { bytes, events, scan_us, whole, .. } = *status;
        // A replica that was opened anew counts from 0 again, and has no rate before the next look.
        let before = before.filter(|before| before.events <= events && before.scan_us <= scan_us && before.at < at);
        let rate = |more: u64, before: &Self| {
            let us = (at - before.at).as_micros().max(1);
            u64::try_from(u128::from(more) * 1_000_000 / us).unwrap_or(u64::MAX)
        };
        let (events_per_second, query_us_per_second) = before
            .map_or((0, 0), |before| (rate(events - before.events, before), rate(scan_us - before.scan_us, before)));
        Self { at, events, scan_us, work: PartitionWork { bytes, events_per_second, query_us_per_second }, whole }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use types::{Offset, Timestamp};

    use super::*;

    /// Goal: rates are what came between two looks, by the time between them; a replica that begins to count anew has none.
    #[test]
    fn rates_are_between_looks() {
        let start = Instant::now();
        let look = |before: Option<&Seen>, seconds, events, scan_us| {
            let (partition, next_offset, append_time) = (PartitionId(1), Offset(9), Timestamp(0));
            let (rows, bytes, map_version, whole) = (5, 70, 1, true);
            let status = PartitionStatus {
                partition,
                next_offset,
                append_time,
                rows,
                bytes,
                events,
                scan_us,
                map_version,
                whole,
            };
            Seen::new(before, &status, start + Duration::from_secs(seconds))
        };
        let rates = |seen: &Seen| (seen.work.bytes, seen.work.events_per_second, seen.work.query_us_per_second);
        let first = look(None, 0, 1_000, 50);
        assert_eq!(rates(&first), (70, 0, 0));
        let second = look(Some(&first), 4, 3_000, 2_050);
        assert_eq!(rates(&second), (70, 500, 500));
        let anew = look(Some(&second), 8, 100, 9_000);
        assert_eq!(rates(&anew), (70, 0, 0));
        assert_eq!(rates(&look(Some(&anew), 9, 100, 9_000)), (70, 0, 0));
    }
}
