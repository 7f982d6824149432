//! Progress of one table: what the hot tier applied, against what the log holds.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use event_log::EventLog;
use proto::{
    hot_tier::{HotTier, TablePartitionStatus},
    progress::{PartitionProgress, Progress, TableProgress},
};
use types::{ApiError, Offset, PartitionId, Table, Timestamp};

use crate::{
    Clock,
    progress::{EventTimes, Lag, lags_of, low_watermark},
};

/// The [`Progress`] of tables, asked from the hot tier and the log each time.
pub struct Watermarks {
    log: Arc<dyn EventLog>,
    hot_tier: Arc<dyn HotTier>,
    clock: Clock,
}

impl Watermarks {
    /// Progress between this log and this hot tier.
    pub fn new(log: Arc<dyn EventLog>, hot_tier: Arc<dyn HotTier>, clock: Clock) -> Self {
        Self { log, hot_tier, clock }
    }

    /// The next offsets of partitions that know nothing of the table yet.
    async fn next_offsets(&self) -> Result<BTreeMap<PartitionId, Offset>, ApiError> {
        let status = self.hot_tier.status().await?;
        Ok(status.into_iter().map(|status| (status.partition, status.next_offset)).collect())
    }
}

#[async_trait]
impl Progress for Watermarks {
    async fn table(&self, table: &Table) -> Result<TableProgress, ApiError> {
        let known: BTreeMap<PartitionId, TablePartitionStatus> =
            self.hot_tier.table_status(table.key).await?.into_iter().map(|status| (status.partition, status)).collect();
        let complete = table.partitions.iter().all(|partition| known.contains_key(partition));
        let others = if complete { BTreeMap::new() } else { self.next_offsets().await? };
        let now = (self.clock)();
        let next_offset = |&partition: &PartitionId| {
            let known = known.get(&partition).map(|status| status.next_offset);
            let next = known.or_else(|| others.get(&partition).copied());
            let away = || ApiError::unavailable(format!("partition {partition} is on no node that answers"));
            next.map(|next| (partition, next)).ok_or_else(away)
        };
        let applied = table.partitions.iter().map(next_offset).collect::<Result<Vec<_>, _>>()?;
        let lags = lags_of(&self.log, applied, now).await?;
        let progress = |lag: Lag| PartitionProgress {
            partition: lag.partition,
            log_end: lag.log_end,
            next_offset: lag.next_offset,
            event_time_max: known.get(&lag.partition).and_then(|status| status.event_time_max),
            freshness_us: lag.freshness_us,
        };
        let partitions: Vec<_> = lags.into_iter().map(progress).collect();
        let of_table = table.partitions.iter().filter_map(|partition| known.get(partition));
        let times: Vec<_> = of_table.filter_map(event_times).collect();
        let freshness_us = partitions.iter().map(|partition| partition.freshness_us).max().unwrap_or(0);
        Ok(TableProgress { partitions, watermark: low_watermark(&times, now), freshness_us })
    }

    async fn watermark(&self, tables: &[Arc<Table>]) -> Result<Option<Timestamp>, ApiError> {
        let mut times = Vec::new();
        for table in tables {
            times.extend(self.hot_tier.table_status(table.key).await?.iter().filter_map(event_times));
        }
        Ok(low_watermark(&times, (self.clock)()))
    }

    async fn freshness_us(&self, covered: Vec<(PartitionId, Offset)>, as_of: Timestamp) -> Result<i64, ApiError> {
        let behind: Vec<_> = covered.into_iter().filter(|&(p, next)| next < self.log.bounds(p).end).collect();
        if behind.is_empty() {
            return Ok(0);
        }
        // A record that left the log's memory is looked up on disk.
        let log = Arc::clone(&self.log);
        let ages = move || {
            let age = |(partition, next)| Some(as_of.micros_since(log.append_time_of(partition, next)?));
            behind.into_iter().filter_map(age).max().unwrap_or(0).max(0)
        };
        let ages = tokio::task::spawn_blocking(ages).await;
        ages.map_err(|error| ApiError::internal(format!("reading the log's times failed: {error}")))
    }
}

fn event_times(status: &TablePartitionStatus) -> Option<EventTimes> {
    Some(EventTimes { max: status.event_time_max?, last_events_at: status.last_events_at? })
}
