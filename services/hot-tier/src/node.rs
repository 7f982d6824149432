//! The node: its partitions, and scans over them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use engine::Reader;
use proto::hot_tier::{HotTier, PartitionScan, PartitionStatus, ScanRequest, TablePartitionStatus};
use tokio::sync::watch;
use types::{ApiError, ErrorCode, Offset, PartitionId, TableKey};

use crate::{
    pool::ScanPool,
    scan::{Prepare, Stop},
};

/// A partition as scans see it.
pub(crate) struct Partition {
    pub(crate) reader: Reader,
    /// Whether everything that was durable at the start has been applied; see [`crate::writer`].
    pub(crate) recovered: watch::Receiver<bool>,
    /// The offset to apply next, as a value to wait for.
    pub(crate) applied: watch::Receiver<Offset>,
}

/// A node of the hot tier. Cloning shares it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    partitions: BTreeMap<PartitionId, Partition>,
    pool: ScanPool,
}

impl Node {
    pub(crate) fn new(partitions: BTreeMap<PartitionId, Partition>, pool: ScanPool) -> Self {
        Self { inner: Arc::new(Inner { partitions, pool }) }
    }

    /// Runs of ids that could not be written and stay in memory until they can.
    pub(crate) fn unwritten_runs(&self) -> u64 {
        self.inner.partitions.values().map(|partition| partition.reader.status().unwritten_runs).sum()
    }

    fn partition(&self, partition: PartitionId) -> Result<&Partition, ApiError> {
        let away = || ApiError::unavailable(format!("partition {partition} is not on this node"));
        self.inner.partitions.get(&partition).ok_or_else(away)
    }

    /// Waits until each partition has been recovered and holds what must be applied.
    async fn wait(&self, request: &ScanRequest) -> Result<(), ApiError> {
        for &partition in &request.partitions {
            if !*self.partition(partition)?.recovered.borrow() {
                let message = format!("partition {partition} is being rebuilt from the log; try again");
                return Err(ApiError::unavailable(message));
            }
        }
        for &(partition, offset) in &request.after {
            let mut applied = self.partition(partition)?.applied.clone();
            let reached = applied.wait_for(|next| *next >= offset);
            match tokio::time::timeout_at(request.deadline.into(), reached).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(ApiError::unavailable(format!("partition {partition} is closed"))),
                Err(_) => return Err(not_covered(partition, offset)),
            }
        }
        Ok(())
    }
}

fn not_covered(partition: PartitionId, offset: Offset) -> ApiError {
    let message = format!("partition {partition} did not reach offset {offset} in time; the data is safe, ask again");
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("after")
}

#[async_trait]
impl HotTier for Node {
    async fn scan(&self, request: ScanRequest) -> Result<Vec<PartitionScan>, ApiError> {
        self.wait(&request).await?;
        let readers = request.partitions.iter().map(|&partition| Ok(self.partition(partition)?.reader.clone()));
        let readers = readers.collect::<Result<_, ApiError>>()?;
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let outcome = Prepare::submit(self.inner.pool.queue(), request.plan, readers, Arc::clone(&stop.0));
        // The reply is dropped unsent only by a panic, which the pool has logged.
        outcome.await.unwrap_or_else(|_| Err(ApiError::internal("the scan failed; the server's log says why")))
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        Ok(self.inner.partitions.values().map(|partition| partition_status(&partition.reader)).collect())
    }

    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        let readers = self.inner.partitions.values().map(|partition| &partition.reader);
        Ok(readers.filter_map(|reader| table_status(reader, key)).collect())
    }
}

fn partition_status(reader: &Reader) -> PartitionStatus {
    let status = reader.status();
    PartitionStatus {
        partition: status.partition,
        next_offset: status.next_offset,
        append_time: status.append_time,
        rows: status.rows,
        bytes: status.bytes,
    }
}

fn table_status(reader: &Reader, key: TableKey) -> Option<TablePartitionStatus> {
    let status = reader.table_status(key)?;
    Some(TablePartitionStatus {
        partition: status.partition,
        next_offset: status.next_offset,
        event_time_max: status.event_time_max,
        last_events_at: status.last_events_at,
        live: status.live,
        evicted: status.evicted,
        duplicate: status.duplicate,
        conflict: status.conflict,
        erased: 0,
        late: status.late,
    })
}

/// Stops the scan's work when the request is dropped: the client left, or its time was up.
struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.leave();
    }
}
