//! How the nodes of the hot tier are, as gateways on other machines see it: how far behind they are, and whether their memory
//! has room.
//!
//! 1. Each node reports some times a second. What it said last counts for [`STALE_AFTER`]; then it is unknown.
//! 2. A partition is as far behind as the best of its replicas that is known: one that has failed holds nobody up.
//! 3. Where none of them is known, the partition counts as standing still since one was heard of: its lag grows, and with it the
//!    answer of the gateway, from degraded to refused.
//! 4. Memory is as short as on the node where it is shortest, of those that are known: every replica takes every event.

mod client;
mod service;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use placement::PlacementMap;
use tokio::time::Instant;
use types::{NodeId, PartitionId};

use crate::{
    hot_tier::MemoryState,
    internal,
    progress::{Lag, PartitionLag},
};

pub use client::NodeStates;
pub use service::NodeStateService;

/// For how long what a node said counts.
pub const STALE_AFTER: Duration = Duration::from_secs(2);

/// What a node said last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    memory: MemoryState,
    lags: BTreeMap<PartitionId, Lag>,
}

/// What was heard of all nodes.
#[derive(Debug)]
struct Heard {
    since: Instant,
    reports: BTreeMap<NodeId, (Report, Instant)>,
    /// When any node spoke of a partition last, also one that holds it no more.
    spoken_of: BTreeMap<PartitionId, Instant>,
}

impl Heard {
    fn new(now: Instant) -> Self {
        Self { since: now, reports: BTreeMap::new(), spoken_of: BTreeMap::new() }
    }

    fn take(&mut self, node: NodeId, report: Report, now: Instant) {
        self.spoken_of.extend(report.lags.keys().map(|&partition| (partition, now)));
        self.reports.insert(node, (report, now));
    }

    /// The lag of all partitions of the map together.
    fn lag(&self, map: &PlacementMap, now: Instant) -> Lag {
        let mut all = Lag::default();
        for (&partition, nodes) in &map.replicas {
            let Lag { bytes, age } = self.partition_lag(partition, nodes, now);
            all = Lag { bytes: all.bytes.saturating_add(bytes), age: all.age.max(age) };
        }
        all
    }

    fn partition_lag(&self, partition: PartitionId, nodes: &[NodeId], now: Instant) -> Lag {
        let said = |node: &NodeId| {
            let (report, at) = self.reports.get(node)?;
            Some((*report.lags.get(&partition)?, now.duration_since(*at)))
        };
        let said: Vec<(Lag, Duration)> = nodes.iter().filter_map(said).collect();
        let known = said.iter().filter(|(_, ago)| *ago < STALE_AFTER).map(|(lag, _)| *lag);
        if let Some(best) = known.min_by_key(|lag| (lag.age, lag.bytes)) {
            return best;
        }
        let stands_still = |(lag, ago): &(Lag, Duration)| Lag { bytes: lag.bytes, age: lag.age + *ago };
        let last = self.spoken_of.get(&partition).unwrap_or(&self.since);
        let not_heard = Lag { bytes: 0, age: now.duration_since(*last) };
        said.iter().map(stands_still).min_by_key(|lag| lag.age).unwrap_or(not_heard)
    }

    /// The memory of the nodes of the map.
    fn memory(&self, map: &PlacementMap, now: Instant) -> MemoryState {
        let holds = |node: &NodeId| map.replicas.values().any(|nodes| nodes.contains(node));
        let known = self.reports.iter().filter(|(node, (_, at))| now.duration_since(*at) < STALE_AFTER && holds(node));
        let severity = |memory: &MemoryState| match memory {
            MemoryState::Room => 0,
            MemoryState::Full => 1,
            // Last, for somebody can do something about it.
            MemoryState::IdsFull => 2,
        };
        known.map(|(_, (report, _))| report.memory).max_by_key(severity).unwrap_or(MemoryState::Room)
    }
}

impl From<(MemoryState, &Arc<Vec<PartitionLag>>)> for internal::NodeReport {
    fn from((memory, lags): (MemoryState, &Arc<Vec<PartitionLag>>)) -> Self {
        let lag = |lag: &PartitionLag| internal::PartitionLag {
            partition: lag.partition.0,
            bytes: lag.lag.bytes,
            age_us: u64::try_from(lag.lag.age.as_micros()).unwrap_or(u64::MAX),
        };
        let memory = match memory {
            MemoryState::Room => internal::MemoryState::Room,
            MemoryState::IdsFull => internal::MemoryState::IdsFull,
            MemoryState::Full => internal::MemoryState::Full,
        };
        Self { memory: memory.into(), lags: lags.iter().map(lag).collect() }
    }
}

impl From<internal::NodeReport> for Report {
    fn from(report: internal::NodeReport) -> Self {
        let memory = match report.memory() {
            // What a newer node may say beyond these is no reason to refuse.
            internal::MemoryState::Room | internal::MemoryState::Unspecified => MemoryState::Room,
            internal::MemoryState::IdsFull => MemoryState::IdsFull,
            internal::MemoryState::Full => MemoryState::Full,
        };
        let lag = |lag: internal::PartitionLag| {
            let (bytes, age) = (lag.bytes, Duration::from_micros(lag.age_us));
            (PartitionId(lag.partition), Lag { bytes, age })
        };
        Self { memory, lags: report.lags.into_iter().map(lag).collect() }
    }
}

#[cfg(test)]
mod tests;
