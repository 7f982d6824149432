//! The node: its partitions, and scans over them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use engine::Reader;
use proto::hot_tier::{HotTier, NodeScan, PartitionStatus, ScanRequest, TablePartitionStatus, Unavailable};
use tokio::sync::watch;
use types::{ApiError, ErrorCode, LogGap, Offset, PartitionId, TableKey};

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

    /// The records of the log that each partition had to go on without.
    pub(crate) fn gaps(&self) -> Vec<(PartitionId, Arc<Vec<LogGap>>)> {
        self.inner.partitions.iter().map(|(&partition, held)| (partition, held.reader.gaps())).collect()
    }

    /// The partitions of a request that can be scanned, and those that cannot.
    fn divide(&self, request: &ScanRequest) -> (Vec<&Partition>, Vec<(PartitionId, Unavailable)>) {
        let (mut ready, mut unavailable) = (Vec::new(), Vec::new());
        for &partition in &request.partitions {
            match self.inner.partitions.get(&partition) {
                None => unavailable.push((partition, Unavailable::Unreachable)),
                Some(held) if !*held.recovered.borrow() => unavailable.push((partition, Unavailable::Recovering)),
                Some(held) => ready.push(held),
            }
        }
        (ready, unavailable)
    }
}

/// Waits until the partitions hold what must be applied.
async fn wait(ready: &[&Partition], request: &ScanRequest) -> Result<(), ApiError> {
    for held in ready {
        let partition = held.reader.partition();
        for &(_, offset) in request.after.iter().filter(|(wanted, _)| *wanted == partition) {
            let mut applied = held.applied.clone();
            let reached = applied.wait_for(|next| *next >= offset);
            match tokio::time::timeout_at(request.deadline.into(), reached).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(ApiError::unavailable(format!("partition {partition} is closed"))),
                Err(_) => return Err(not_covered(partition, offset)),
            }
        }
    }
    Ok(())
}

fn not_covered(partition: PartitionId, offset: Offset) -> ApiError {
    let message = format!("partition {partition} did not reach offset {offset} in time; the data is safe, ask again");
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("after")
}

#[async_trait]
impl HotTier for Node {
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
        let (ready, unavailable) = self.divide(&request);
        wait(&ready, &request).await?;
        let readers = ready.iter().map(|held| held.reader.clone()).collect();
        let stop = StopOnDrop(Arc::new(Stop::at(request.deadline)));
        let outcome = Prepare::submit(self.inner.pool.queue(), request.plan, readers, Arc::clone(&stop.0));
        // The reply is dropped unsent only by a panic, which the pool has logged.
        let lost = |_| Err(ApiError::internal("the scan failed; the server's log says why"));
        Ok(NodeScan { scans: outcome.await.unwrap_or_else(lost)?, unavailable })
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
