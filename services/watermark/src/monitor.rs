//! The lag of all partitions, measured from the log's side each second: as gauges, and as the service's health.
//!
//! A hot tier that does not answer counts as standing still where it was heard of last, so that a dead reader shows as a lag
//! that grows.

use std::{collections::BTreeMap, sync::Arc};

use event_log::EventLog;
use proto::hot_tier::HotTier;
use types::{Offset, PartitionId, Timestamp};

use crate::progress::{Lag, lags_of};

/// From this age of the oldest record that waits the service says that it is degraded, µs.
pub const LAG_AGE_US_MAX: i64 = 10_000_000;

/// Watches every partition of the log.
pub(crate) struct Monitor {
    log: Arc<dyn EventLog>,
    hot_tier: Arc<dyn HotTier>,
    applied: BTreeMap<PartitionId, Offset>,
}

/// What one look at all partitions found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) lags: Vec<Lag>,
    /// What is wrong, for people; empty where nothing is.
    pub(crate) reasons: Vec<String>,
}

impl Monitor {
    pub(crate) fn new(log: Arc<dyn EventLog>, hot_tier: Arc<dyn HotTier>) -> Self {
        let applied =
            (0..log.partitions()).map(|partition| (PartitionId(partition), log.bounds(PartitionId(partition)).start));
        Self { applied: applied.collect(), log, hot_tier }
    }

    /// Looks at all partitions; `clock` is read after the hot tier has answered.
    pub(crate) async fn observe(&mut self, clock: &(dyn Fn() -> Timestamp + Send + Sync)) -> Observation {
        let mut reasons = Vec::new();
        match self.hot_tier.status().await {
            Ok(status) => {
                self.applied.extend(status.into_iter().map(|status| (status.partition, status.next_offset)));
            }
            Err(error) => reasons.push(format!("the hot tier does not answer: {error}")),
        }
        let now = clock();
        let of_log = self.applied.iter().filter(|(partition, _)| partition.0 < self.log.partitions());
        let applied = of_log.map(|(&partition, &next_offset)| (partition, next_offset)).collect();
        let lags = lags_of(&self.log, applied, now).await.unwrap_or_else(|error| {
            reasons.push(error.to_string());
            Vec::new()
        });
        reasons.extend(lags.iter().filter(|lag| lag.freshness_us > LAG_AGE_US_MAX).map(|lag| {
            let (records, seconds) = (lag.records(), lag.freshness_us / 1_000_000);
            format!("partition {} is {seconds} s behind its log, {records} records wait", lag.partition)
        }));
        Observation { lags, reasons }
    }
}

/// Puts an observation into the gauges.
pub(crate) fn publish(observation: &Observation) {
    for lag in &observation.lags {
        let partition = lag.partition.to_string();
        metrics::gauge!("truenow_partition_lag_records", "partition" => partition.clone()).set(lag.records() as f64);
        metrics::gauge!("truenow_freshness_seconds", "partition" => partition).set(lag.freshness_us as f64 / 1e6);
    }
}
