//! The newest records of each partition, in memory for readers, bounded by bytes over all partitions.
//!
//! A partition's part has no gap and ends with its newest record; the oldest records of all partitions leave first.

use std::collections::VecDeque;

use types::{Offset, PartitionId};

use crate::api::Record;

/// The newest records.
pub(crate) struct Tail {
    partitions: Vec<VecDeque<Record>>,
    /// Whose record came, oldest first.
    order: VecDeque<PartitionId>,
    bytes: u64,
    bytes_max: u64,
}

impl Tail {
    pub(crate) fn new(partitions: usize, bytes_max: u64) -> Self {
        Self { partitions: vec![VecDeque::new(); partitions], order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a partition's next record.
    pub(crate) fn push(&mut self, partition: PartitionId, record: Record) {
        self.bytes += cost(&record);
        self.partitions[partition.0 as usize].push_back(record);
        self.order.push_back(partition);
    }

    /// Lets the oldest go until what stays is within the bound.
    pub(crate) fn trim(&mut self) {
        while self.bytes > self.bytes_max {
            let oldest = self.order.pop_front().expect("every record of a tail is in the order");
            let record = self.partitions[oldest.0 as usize].pop_front();
            self.bytes -= cost(&record.expect("every record in the order is in a tail"));
        }
    }

    /// Forgets a partition's records: those that come are not next to them.
    pub(crate) fn forget(&mut self, partition: PartitionId) {
        let gone = std::mem::take(&mut self.partitions[partition.0 as usize]);
        self.bytes -= gone.iter().map(cost).sum::<u64>();
        self.order.retain(|of| *of != partition);
    }

    /// A partition's records from `offset` on, oldest first, where it ends at `end`; `None` where they begin behind that.
    pub(crate) fn from(
        &self,
        partition: PartitionId,
        end: Offset,
        offset: Offset,
    ) -> Option<impl Iterator<Item = &Record>> {
        let records = &self.partitions[partition.0 as usize];
        let first = end.0 - records.len() as u64;
        let skip = usize::try_from(offset.0.checked_sub(first)?).unwrap_or(usize::MAX);
        Some(records.range(skip.min(records.len())..))
    }

    /// Copies a partition's records from `offset` on, about `bytes_max` of them; returns how many.
    pub(crate) fn copy(
        &self,
        partition: PartitionId,
        end: Offset,
        offset: Offset,
        bytes_max: usize,
        into: &mut Vec<Record>,
    ) -> usize {
        let Some(records) = self.from(partition, end, offset) else {
            return 0;
        };
        let (mut count, mut bytes) = (0, 0);
        for record in records {
            bytes += record.body.len();
            if count > 0 && bytes > bytes_max {
                break;
            }
            into.push(record.clone());
            count += 1;
        }
        count
    }
}

/// Bytes of memory of a record.
fn cost(record: &Record) -> u64 {
    u64::from(record.header.body_len) + size_of::<Record>() as u64
}
