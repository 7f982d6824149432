//! One thread per partition: reads the log in offset order and drives the partition's writer.
//!
//! 1. The writer is the only authority on what has been applied; the reader starts at its next offset.
//! 2. A record is applied exactly once per life of the writer, in offset order; none is skipped in silence.
//! 3. A record that cannot be applied (a defect or a rogue writer: the gateway checks what it appends), is damaged, or left
//!    the log before it was read, becomes a gap of the writer's state: logged and counted here, and named by every answer
//!    that may lack its events. The partition goes on behind it. A change of a table is never passed over: it stops.
//! 4. A record that cannot be applied now, as something that it needs is away, is tried again until it can, or the service
//!    stops; until then nothing after it is applied, and health and the growing lag say so.
//! 5. A stop is looked for between batches and while waiting. Nothing has to be finished: what the log holds is durable,
//!    and what was applied of it since the last checkpoint is applied again.
//! 6. A panic, a change of a table that cannot be read, ids of earlier events that are damaged or lost, or a log that is
//!    shorter than the state, stops the partition and shows in health and as growing lag.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use codec::BlockHeader;
use event_log::{EventLog, LogReader, ReadError, Record};
use proto::hot_tier::{NotApplied, PartitionWriter};
use service::{Health, Shutdown};
use types::{ApiError, GapReason, Offset, PartitionId};

use crate::progress::PartitionProgress;

/// Bytes of records taken from the log at a time; bounds what a partition holds beside its columns.
const POLL_BYTES: usize = 4 << 20;
/// Longest wait for a record: how often an idle partition does its housekeeping.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Waits between tries while the disk fails, doubling.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The name of a record's waiting in health.
pub(crate) const WAITING: &str = "partition-waiting";

/// Why a partition's thread ended.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The log was closed, or the service stops: an ordered shutdown.
    #[error("the service stops")]
    Closed,
    /// The log cannot give the next record.
    #[error("read the log: {0}")]
    Read(ReadError),
    /// A change of a table cannot be read, or the ids that a record is to be judged by are damaged.
    #[error("{0}")]
    Unreadable(ApiError),
    /// A record made the writer panic.
    #[error("applying offset {0} panicked")]
    Panicked(Offset),
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// A batch was applied; there may be more.
    Worked,
    /// No record came in the time given.
    Idle,
    /// Something that the next step needs is away: it is to be tried again after this long.
    Away(Duration),
    /// The end; no step may follow.
    Stopped(Stopped),
}

/// What a worker works with.
pub struct Means {
    /// The log to read.
    pub log: Arc<dyn EventLog>,
    /// Where the worker says how far it is.
    pub progress: Arc<PartitionProgress>,
    /// Where it says what it waits for.
    pub health: Health,
    /// Ends it.
    pub stop: Shutdown,
}

/// A partition's thread, as a value: [`Worker::run`] is all that the thread does, and [`Worker::step`] a part of it that
/// takes no time of its own, for those who have another clock.
pub struct Worker {
    means: Means,
    writer: Box<dyn PartitionWriter>,
    reader: Option<Box<dyn LogReader>>,
    /// Records between two rounds of housekeeping.
    batch_records: usize,
    /// Taken from the log; those from `applied` on are still to be applied.
    records: Vec<Record>,
    applied: usize,
    /// How long to wait if the next try fails.
    retry: Duration,
    /// What was durable when the node started; `None` once it has been applied.
    recover_to: Option<Offset>,
}

impl Worker {
    /// A worker that applies what lies from the writer's next offset on; `batch_records` between two rounds of housekeeping.
    #[must_use]
    pub fn new(means: Means, writer: Box<dyn PartitionWriter>, batch_records: usize) -> Self {
        means.progress.started(writer.next_offset());
        let recover_to = Some(means.progress.recover_to());
        Self {
            means,
            writer,
            reader: None,
            batch_records: batch_records.max(1),
            records: Vec::new(),
            applied: 0,
            retry: RETRY_MIN,
            recover_to,
        }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.writer.partition()
    }

    /// The offset of the record to apply next.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.writer.next_offset()
    }

    /// Runs until the service stops, the log is closed, or the partition cannot go on.
    pub(crate) fn run(mut self) -> Stopped {
        loop {
            match self.step(POLL_WAIT) {
                Step::Worked | Step::Idle => {}
                Step::Away(retry) => self.wait(retry),
                Step::Stopped(stopped) => return stopped,
            }
        }
    }

    /// Applies the next batch of records, or looks for some; waits for them at most `wait`.
    pub fn step(&mut self, wait: Duration) -> Step {
        if self.means.stop.is_triggered() {
            return Step::Stopped(Stopped::Closed);
        }
        let stepped = if self.applied == self.records.len() { self.take(wait) } else { Ok(Step::Worked) };
        let stepped = match stepped {
            Ok(Step::Worked) => self.apply_batch(),
            other => other,
        };
        stepped.unwrap_or_else(Step::Stopped)
    }

    /// Takes records from the log.
    fn take(&mut self, wait: Duration) -> Result<Step, Stopped> {
        self.records.clear();
        self.applied = 0;
        if self.reader.is_none() {
            match self.means.log.reader(self.partition(), self.writer.next_offset()) {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => return self.cannot_read(error),
            }
        }
        // Not before the log has an offset to go on from: with a log that ends before the state, nothing is recovered.
        self.finish_recovery();
        let appended_bytes = self.means.log.appended_bytes(self.partition());
        let reader = self.reader.as_mut().expect("opened above");
        match reader.poll(POLL_BYTES, wait, &mut self.records) {
            Ok(0) => {
                self.not_away();
                self.means.progress.caught_up(appended_bytes);
                self.housekeep();
                self.release();
                Ok(Step::Idle)
            }
            Ok(_) => {
                self.not_away();
                Ok(Step::Worked)
            }
            Err(error) => self.cannot_read(error),
        }
    }

    /// What the log cannot give for now is waited for; what it can never give again becomes a gap.
    fn cannot_read(&mut self, error: ReadError) -> Result<Step, Stopped> {
        let partition = self.partition().0;
        let (end, reason, header) = match &error {
            ReadError::Closed => return Err(Stopped::Closed),
            ReadError::Io(error) => {
                tracing::error!(partition, %error, "the log cannot be read; trying again");
                self.means.health.degrade_part(
                    WAITING,
                    partition,
                    format!("partition {partition} waits: read the log: {error}"),
                );
                return Ok(self.away());
            }
            ReadError::NoSuchOffset { .. } => return Err(Stopped::Read(error)),
            ReadError::Gap { start, .. } => (*start, GapReason::Gone, None),
            ReadError::Corrupt { offset, header, .. } => (offset.next(), GapReason::Damaged, header.as_deref()),
        };
        let (first, why) = (self.writer.next_offset(), reason.name());
        self.writer.pass_over(end, reason, header).map_err(unreadable)?;
        tracing::error!(partition, first = first.0, end = end.0, why, %error, "records are missing from here on");
        if let Some(header) = header {
            count_bytes(&self.means, self.recover_to, first, header);
        }
        self.means.progress.refused(end);
        // The next look starts behind the gap.
        self.reader = None;
        Ok(Step::Worked)
    }

    /// Applies a batch of what was taken.
    fn apply_batch(&mut self) -> Result<Step, Stopped> {
        let end = self.records.len().min(self.applied + self.batch_records);
        while self.applied < end {
            if !self.apply_next()? {
                return Ok(self.away());
            }
            self.applied += 1;
        }
        self.housekeep();
        if self.applied == self.records.len() {
            self.release();
        }
        Ok(Step::Worked)
    }

    /// Applies a record; `false`: it has to wait.
    fn apply_next(&mut self) -> Result<bool, Stopped> {
        let (writer, record) = (&mut self.writer, &self.records[self.applied]);
        let applied = catch_unwind(AssertUnwindSafe(|| {
            writer.apply(record.offset, record.append_time, &record.header, &record.body)
        }));
        let (partition, offset) = (writer.partition().0, record.offset.0);
        match applied {
            Ok(Ok(())) => {
                count_bytes(&self.means, self.recover_to, record.offset, &record.header);
                self.means.progress.applied(record.offset.next(), u64::from(record.header.rows));
            }
            Ok(Err(NotApplied::PassedOver(error))) => {
                count_bytes(&self.means, self.recover_to, record.offset, &record.header);
                self.means.progress.refused(record.offset.next());
                tracing::error!(partition, offset, %error, "a record cannot be applied and is passed over");
            }
            Ok(Err(NotApplied::TryAgain(error))) => {
                tracing::error!(partition, offset, %error, "a record has to wait; trying again");
                self.means.health.degrade_part(WAITING, partition, format!("partition {partition} waits: {error}"));
                return Ok(false);
            }
            Ok(Err(error @ NotApplied::Stop(_))) => return Err(unreadable(error)),
            // The writer may be half-way through the record: nothing may be applied on top of that.
            Err(_) => return Err(Stopped::Panicked(record.offset)),
        }
        self.not_away();
        Ok(true)
    }

    /// A try succeeded.
    fn not_away(&mut self) {
        if self.retry > RETRY_MIN {
            self.retry = RETRY_MIN;
            self.means.health.recover_part(WAITING, self.partition().0);
        }
    }

    /// The next try comes later, and the one after it later still.
    fn away(&mut self) -> Step {
        let retry = self.retry;
        self.retry = (retry * 2).min(RETRY_MAX);
        Step::Away(retry)
    }

    /// Waits, but not beyond a stop.
    fn wait(&self, retry: Duration) {
        let started = Instant::now();
        while !self.means.stop.is_triggered() && started.elapsed() < retry {
            std::thread::sleep(POLL_WAIT);
        }
    }

    fn housekeep(&mut self) {
        self.writer.housekeep();
        self.means.progress.due(self.writer.due_at());
    }

    /// Lets the log drop what the writer needs no more.
    fn release(&self) {
        self.means.log.release_before(self.partition(), self.writer.needed_from());
    }

    fn finish_recovery(&mut self) {
        if self.recover_to.is_some_and(|end| self.writer.next_offset() >= end) {
            self.recover_to = None;
            self.writer.recovered();
            self.means.progress.recovered();
        }
    }
}

/// A record that came since the start waits no more, whatever became of it.
fn count_bytes(means: &Means, recover_to: Option<Offset>, offset: Offset, header: &BlockHeader) {
    if recover_to.is_none_or(|end| end <= offset) {
        means.progress.bytes_applied(u64::from(header.body_len));
    }
}

fn unreadable(error: NotApplied) -> Stopped {
    let (NotApplied::Stop(error) | NotApplied::PassedOver(error) | NotApplied::TryAgain(error)) = error;
    Stopped::Unreadable(error)
}

#[cfg(test)]
mod tests;
