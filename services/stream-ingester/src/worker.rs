//! One thread per partition: reads the log in offset order and drives the partition's writer.
//!
//! 1. The writer is the only authority on what has been applied; the reader starts at its next offset.
//! 2. A record is applied exactly once per life of the writer, in offset order; none is skipped in silence.
//! 3. A record that cannot be applied is passed over by the writer, counted and logged here (it can only come from a
//!    defect or a rogue writer: the gateway checks what it appends).
//! 4. A record that cannot be applied now, as something that it needs is away, is tried again until it can, or the service
//!    stops; until then nothing after it is applied, and health and the growing lag say so.
//! 5. A stop is looked for between batches and while waiting. Nothing has to be finished: what the log holds is durable,
//!    and what was applied of it lives in memory only.
//! 6. A gap, damage or a panic stops the partition and shows in health and as growing lag; answers that need it say so.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::{EventLog, LogReader, ReadError, Record};
use proto::hot_tier::{NotApplied, PartitionWriter};
use service::{Health, Shutdown};
use types::{Offset, PartitionId};

use crate::progress::PartitionProgress;

/// Bytes of records taken from the log at a time; bounds what a partition holds beside its columns.
const POLL_BYTES: usize = 4 << 20;
/// Longest wait for a record: how often an idle partition does its housekeeping.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Waits between tries while the disk fails, doubling.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The name of a record's waiting in health.
const WAITING: &str = "partition-waiting";

/// Why a partition's thread ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// The log was closed, or the service stops: an ordered shutdown.
    #[error("the service stops")]
    Closed,
    /// The log cannot give the next record.
    #[error("read the log: {0}")]
    Read(ReadError),
    /// A record made the writer panic.
    #[error("applying offset {0} panicked")]
    Panicked(Offset),
}

/// What a partition's thread works with.
pub(crate) struct Means {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) progress: Arc<PartitionProgress>,
    pub(crate) health: Health,
    /// Ends the thread.
    pub(crate) stop: Shutdown,
}

/// A partition's thread, as a value.
pub(crate) struct Worker {
    means: Means,
    writer: Box<dyn PartitionWriter>,
    /// Records between two rounds of housekeeping.
    batch_records: usize,
    /// What was durable when the worker started; `None` once it has been applied.
    recover_to: Option<Offset>,
}

impl Worker {
    pub(crate) fn new(means: Means, writer: Box<dyn PartitionWriter>, batch_records: usize) -> Self {
        let bounds = means.log.bounds(writer.partition());
        means.progress.started(writer.next_offset(), bounds.end);
        Self { means, writer, batch_records: batch_records.max(1), recover_to: Some(bounds.end) }
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.writer.partition()
    }

    /// Runs until the service stops, the log is closed, or the partition cannot go on.
    pub(crate) fn run(mut self) -> Stopped {
        let mut reader = match self.open() {
            Ok(reader) => reader,
            Err(error) => return Stopped::Read(error),
        };
        let mut records = Vec::new();
        let mut retry = RETRY_MIN;
        loop {
            if self.means.stop.is_triggered() {
                return Stopped::Closed;
            }
            self.finish_recovery();
            match reader.poll(POLL_BYTES, POLL_WAIT, &mut records) {
                Ok(_) => retry = RETRY_MIN,
                Err(ReadError::Closed) => return Stopped::Closed,
                Err(ReadError::Io(error)) => {
                    tracing::error!(partition = self.partition().0, %error, "the log cannot be read; trying again");
                    if let Err(stopped) = self.wait(retry) {
                        return stopped;
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                    continue;
                }
                Err(error) => return Stopped::Read(error),
            }
            for batch in records.chunks(self.batch_records) {
                if self.means.stop.is_triggered() {
                    return Stopped::Closed;
                }
                if let Err(stopped) = self.apply(batch) {
                    return stopped;
                }
                self.writer.housekeep();
            }
            if records.is_empty() {
                self.writer.housekeep();
            }
            records.clear();
            self.means.log.release_before(self.partition(), self.writer.needed_from());
        }
    }

    fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        self.means.log.reader(self.partition(), self.writer.next_offset())
    }

    fn apply(&mut self, records: &[Record]) -> Result<(), Stopped> {
        records.iter().try_for_each(|record| self.apply_one(record))
    }

    /// Applies a record, however long that takes.
    fn apply_one(&mut self, record: &Record) -> Result<(), Stopped> {
        let mut retry = RETRY_MIN;
        loop {
            let writer = &mut self.writer;
            let applied = catch_unwind(AssertUnwindSafe(|| {
                writer.apply(record.offset, record.append_time, &record.header, &record.body)
            }));
            let (partition, offset) = (self.partition().0, record.offset.0);
            match applied {
                Ok(Ok(())) => self.means.progress.applied(record.offset.next(), u64::from(record.header.rows)),
                Ok(Err(NotApplied::PassedOver(error))) => {
                    self.means.progress.refused(record.offset.next());
                    tracing::error!(partition, offset, %error, "a record cannot be applied and is passed over");
                }
                Ok(Err(NotApplied::TryAgain(error))) => {
                    tracing::error!(partition, offset, %error, "a record has to wait; trying again");
                    self.means.health.degrade(WAITING, format!("partition {partition} waits: {error}"));
                    self.wait(retry)?;
                    retry = (retry * 2).min(RETRY_MAX);
                    continue;
                }
                // The writer may be half-way through the record: nothing may be applied on top of that.
                Err(_) => return Err(Stopped::Panicked(record.offset)),
            }
            if retry > RETRY_MIN {
                self.means.health.recover(WAITING);
            }
            return Ok(());
        }
    }

    /// Waits, but not beyond a stop.
    fn wait(&self, retry: Duration) -> Result<(), Stopped> {
        let started = Instant::now();
        while !self.means.stop.is_triggered() {
            if started.elapsed() >= retry {
                return Ok(());
            }
            std::thread::sleep(POLL_WAIT);
        }
        Err(Stopped::Closed)
    }

    fn finish_recovery(&mut self) {
        if self.recover_to.is_some_and(|end| self.writer.next_offset() >= end) {
            self.recover_to = None;
            self.writer.recovered();
            self.means.progress.recovered();
        }
    }
}

#[cfg(test)]
mod tests;
