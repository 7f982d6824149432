//! How far each partition's thread is, for health and metrics. Counters only: the writer alone knows what is applied.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use event_log::EventLog;
use types::{Offset, PartitionId, Timestamp};

/// One partition's progress. All fields are statistics: written by the partition's thread, read by health, metrics
/// and ticks, ordered with nothing, hence Relaxed.
#[derive(Debug)]
pub struct PartitionProgress {
    partition: PartitionId,
    /// What was durable when the node started; see [`PartitionProgress::of`].
    recover_to: Offset,
    started_at: AtomicU64,
    next_offset: AtomicU64,
    rows: AtomicU64,
    /// Of what [`EventLog::appended_bytes`](event_log::EventLog::appended_bytes) counts of the partition, what is applied.
    applied_bytes: AtomicU64,
    refused: AtomicU64,
    /// See [`PartitionWriter::due_at`](proto::hot_tier::PartitionWriter::due_at); the end of time where there is none.
    due_at: AtomicI64,
    recovered: AtomicBool,
    stopped: AtomicBool,
}

impl PartitionProgress {
    /// That of a partition whose thread has not started: all that the log holds now is to be recovered, and what is appended
    /// from now on came since the start.
    #[must_use]
    pub fn of(log: &dyn EventLog, partition: PartitionId) -> Self {
        // In this order: what comes between is taken for older than the start, not for applied.
        let appended_bytes = log.appended_bytes(partition);
        Self::new(partition, log.bounds(partition).end, appended_bytes)
    }

    fn new(partition: PartitionId, recover_to: Offset, appended_bytes: u64) -> Self {
        Self {
            partition,
            recover_to,
            started_at: AtomicU64::new(0),
            next_offset: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            applied_bytes: AtomicU64::new(appended_bytes),
            refused: AtomicU64::new(0),
            due_at: AtomicI64::new(i64::MAX),
            recovered: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn started(&self, at: Offset) {
        self.started_at.store(at.0, Relaxed);
        self.next_offset.store(at.0, Relaxed);
    }

    pub(crate) fn applied(&self, next: Offset, rows: u64) {
        self.next_offset.store(next.0, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
    }

    /// Bytes of records applied that came since the start.
    pub(crate) fn bytes_applied(&self, bytes: u64) {
        self.applied_bytes.fetch_add(bytes, Relaxed);
    }

    /// All that the log had appended when it had appended so much is applied; what was passed over has left no other trace.
    pub(crate) fn caught_up(&self, appended_bytes: u64) {
        self.applied_bytes.store(appended_bytes, Relaxed);
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    /// What lies before this offset was durable when the node started.
    pub(crate) fn recover_to(&self) -> Offset {
        self.recover_to
    }

    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.next_offset.load(Relaxed))
    }

    pub(crate) fn applied_bytes(&self) -> u64 {
        self.applied_bytes.load(Relaxed)
    }

    pub(crate) fn refused(&self, next: Offset) {
        self.next_offset.store(next.0, Relaxed);
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn due(&self, at: Option<Timestamp>) {
        self.due_at.store(at.unwrap_or(Timestamp::MAX).0, Relaxed);
    }

    pub(crate) fn due_at(&self) -> Timestamp {
        Timestamp(self.due_at.load(Relaxed))
    }

    pub(crate) fn recovered(&self) {
        self.recovered.store(true, Relaxed);
    }

    pub(crate) fn stopped(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let (from, to) = (self.started_at.load(Relaxed), self.recover_to.0);
        let next = self.next_offset.load(Relaxed);
        Snapshot {
            partition: self.partition,
            next_offset: Offset(next),
            rows: self.rows.load(Relaxed),
            refused: self.refused.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            stopped: self.stopped.load(Relaxed),
            records_to_recover: to.saturating_sub(from),
            records_recovered: next.min(to).saturating_sub(from),
        }
    }
}

/// One partition's progress at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) partition: PartitionId,
    pub(crate) next_offset: Offset,
    pub(crate) rows: u64,
    pub(crate) refused: u64,
    pub(crate) recovered: bool,
    pub(crate) stopped: bool,
    pub(crate) records_to_recover: u64,
    pub(crate) records_recovered: u64,
}

/// What part of the records to recover has been applied, 0 to 1; 1 where there were none.
pub(crate) fn recovery(partitions: &[Snapshot]) -> f64 {
    let to: u64 = partitions.iter().map(|p| p.records_to_recover).sum();
    let done: u64 = partitions.iter().map(|p| p.records_recovered).sum();
    if to == 0 { 1.0 } else { done as f64 / to as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: recovery runs from 0, while the thread waits for its writer, to 1, and does not count records that came after
    /// the start.
    #[test]
    fn recovery_counts_what_was_there_at_the_start() {
        let empty = PartitionProgress::new(PartitionId(0), Offset::ZERO, 0);
        assert!((recovery(&[empty.snapshot()]) - 1.0).abs() < f64::EPSILON);
        let partition = PartitionProgress::new(PartitionId(0), Offset(20), 0);
        assert!(recovery(&[partition.snapshot()]).abs() < f64::EPSILON);
        partition.started(Offset(10));
        assert!(recovery(&[partition.snapshot()]).abs() < f64::EPSILON);
        partition.applied(Offset(15), 1);
        assert!((recovery(&[partition.snapshot()]) - 0.5).abs() < f64::EPSILON);
        partition.applied(Offset(40), 1);
        assert!((recovery(&[partition.snapshot()]) - 1.0).abs() < f64::EPSILON);
    }
}
