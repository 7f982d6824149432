//! One thread per partition: reads the log in offset order and drives the partition's writer.
//!
//! 1. The writer is the only authority on what has been applied; the reader starts at its next offset.
//! 2. A record is applied exactly once per life of the writer, in offset order; none is skipped in silence.
//! 3. A record that cannot be applied is passed over by the writer, counted and logged here (it can only come from a
//!    defect or a rogue writer: the gateway checks what it appends).
//! 4. A gap, damage or a panic stops the partition and shows in health and as growing lag; answers that need it say so.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use event_log::{EventLog, LogReader, ReadError, Record};
use proto::hot_tier::PartitionWriter;
use types::{Offset, PartitionId};

use crate::progress::PartitionProgress;

/// Bytes of records taken from the log at a time; bounds what a partition holds beside its columns.
const POLL_BYTES: usize = 4 << 20;
/// Longest wait for a record: how often an idle partition does its housekeeping.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Waits between tries while the disk fails, doubling.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why a partition's thread ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// The log was closed: an ordered shutdown.
    #[error("the log was closed")]
    Closed,
    /// The log cannot give the next record.
    #[error("read the log: {0}")]
    Read(ReadError),
    /// A record made the writer panic.
    #[error("applying offset {0} panicked")]
    Panicked(Offset),
}

/// A partition's thread, as a value.
pub(crate) struct Worker {
    log: Arc<dyn EventLog>,
    writer: Box<dyn PartitionWriter>,
    progress: Arc<PartitionProgress>,
    /// Records between two rounds of housekeeping.
    batch_records: usize,
    /// What was durable when the worker started; `None` once it has been applied.
    recover_to: Option<Offset>,
}

impl Worker {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        writer: Box<dyn PartitionWriter>,
        progress: Arc<PartitionProgress>,
        batch_records: usize,
    ) -> Self {
        let bounds = log.bounds(writer.partition());
        progress.started(writer.next_offset(), bounds.end);
        Self { log, writer, progress, batch_records: batch_records.max(1), recover_to: Some(bounds.end) }
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.writer.partition()
    }

    /// Runs until the log is closed or the partition cannot go on.
    pub(crate) fn run(mut self) -> Stopped {
        let mut reader = match self.open() {
            Ok(reader) => reader,
            Err(error) => return Stopped::Read(error),
        };
        let mut records = Vec::new();
        let mut retry = RETRY_MIN;
        loop {
            self.finish_recovery();
            match reader.poll(POLL_BYTES, POLL_WAIT, &mut records) {
                Ok(_) => retry = RETRY_MIN,
                Err(ReadError::Closed) => return Stopped::Closed,
                Err(ReadError::Io(error)) => {
                    tracing::error!(partition = self.partition().0, %error, "the log cannot be read; trying again");
                    std::thread::sleep(retry);
                    retry = (retry * 2).min(RETRY_MAX);
                    continue;
                }
                Err(error) => return Stopped::Read(error),
            }
            for batch in records.chunks(self.batch_records) {
                if let Err(stopped) = self.apply(batch) {
                    return stopped;
                }
                self.writer.housekeep();
            }
            if records.is_empty() {
                self.writer.housekeep();
            }
            records.clear();
            self.log.release_before(self.partition(), self.writer.needed_from());
        }
    }

    fn open(&self) -> Result<Box<dyn LogReader>, ReadError> {
        self.log.reader(self.partition(), self.writer.next_offset())
    }

    fn apply(&mut self, records: &[Record]) -> Result<(), Stopped> {
        for record in records {
            let writer = &mut self.writer;
            let applied = catch_unwind(AssertUnwindSafe(|| {
                writer.apply(record.offset, record.append_time, &record.header, &record.body)
            }));
            match applied {
                Ok(Ok(())) => self.progress.applied(record.offset.next(), u64::from(record.header.rows)),
                Ok(Err(error)) => {
                    self.progress.refused(record.offset.next());
                    let (partition, offset) = (self.partition().0, record.offset.0);
                    tracing::error!(partition, offset, %error, "a record cannot be applied and is passed over");
                }
                // The writer may be half-way through the record: nothing may be applied on top of that.
                Err(_) => return Err(Stopped::Panicked(record.offset)),
            }
        }
        Ok(())
    }

    fn finish_recovery(&mut self) {
        if self.recover_to.is_some_and(|end| self.writer.next_offset() >= end) {
            self.recover_to = None;
            self.writer.recovered();
            self.progress.recovered();
        }
    }
}
