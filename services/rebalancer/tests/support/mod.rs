//! Nodes that stand in for the real ones.

// Each test uses a part of it.
#![allow(dead_code)]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Instant,
};

use async_trait::async_trait;
use proto::hot_tier::{
    ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, NodeScan, PartitionStatus, ScanRequest,
    TableChecksum, TablePartitionStatus,
};
use types::{ApiError, Offset, PartitionId, TableKey, Timestamp};

/// A node that shows the first partitions as held and up to date.
pub(crate) struct Shows {
    partitions: u32,
    /// Whether they hold all.
    pub(crate) whole: AtomicBool,
    /// The map that it says it has taken up.
    pub(crate) map_version: AtomicU64,
    /// How often somebody looked.
    pub(crate) looks: AtomicU64,
}

impl Shows {
    pub(crate) fn partitions(partitions: u32) -> Self {
        Self { partitions, whole: true.into(), map_version: 0.into(), looks: 0.into() }
    }
}

fn not_here<T>() -> Result<T, ApiError> {
    Err(ApiError::unavailable("not here"))
}

#[async_trait]
impl HotTier for Shows {
    async fn scan(&self, _: ScanRequest) -> Result<NodeScan, ApiError> {
        not_here()
    }

    async fn events(&self, _: EventsRequest) -> Result<NodeEvents, ApiError> {
        not_here()
    }

    async fn applied(&self, _: Vec<(PartitionId, Offset)>, _: Instant) -> Result<(), ApiError> {
        not_here()
    }

    async fn explain(&self, _: ScanRequest) -> Result<NodeExplanation, ApiError> {
        not_here()
    }

    async fn checksum(&self, _: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        not_here()
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        self.looks.fetch_add(1, SeqCst);
        let status = |partition| PartitionStatus {
            partition: PartitionId(partition),
            next_offset: Offset(5),
            append_time: Timestamp(1),
            rows: 5,
            bytes: 50,
            events: 5,
            scan_us: 0,
            map_version: self.map_version.load(SeqCst),
            whole: self.whole.load(SeqCst),
        };
        Ok((0..self.partitions).map(status).collect())
    }

    async fn table_status(&self, _: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        Ok(Vec::new())
    }
}
