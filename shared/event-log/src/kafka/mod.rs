//! The log on Kafka: one topic whose partitions are the log's, a block per record.
//!
//! ```text
//! append ─▶ queue ─▶ producer ─▶ brokers ─▶ follower (own thread): counts, shows ─▶ store ─▶ readers
//!           bounded  idempotent  acks=all   one client for all partitions       tail in memory, else brokers
//! ```
//!
//! 1. What brokers acked is durable; what they gave out is, too: they give nothing that not all in-sync replicas have.
//! 2. Offsets are Kafka's. They are dense, as nothing is compacted and there are no transactions; a hole is reported.
//! 3. Rows are counted from the records alone, by each process for itself; *where a partition stands* ([`stand`]) is stored
//!    beside the topic before records are deleted, so that counts outlive them.
//! 4. The append time of a record is the greatest LogAppendTime of the records up to it. Brokers whose clocks differ may step
//!    back when a leader changes; the greatest so far is a function of the log, and part of every state that is made of it.
//! 5. Brokers that are away make appends unknown after a bounded time and readers wait; nothing else.

mod appender;
mod client;
mod config;
mod fetch;
mod follower;
mod keeper;
mod notes;
mod open;
mod queue;
mod reader;
mod record;
mod stand;
mod store;
#[cfg(test)]
mod tests;
mod times;
mod topic;

use std::{
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{TopicPartitionList, consumer::Consumer};
use tokio::sync::watch;
use types::{AppenderId, LogIdentity, Offset, PartitionId, TableKey, Timestamp};

pub use self::config::{Compression, KafkaConfig, KafkaOpenError};
use self::{
    appender::Appender,
    client::RECORD_BYTES_MAX,
    fetch::{ASK_TIMEOUT, Source, offset_of, partition_number},
    keeper::Stop,
    queue::Queue,
    reader::Reader,
    store::Store,
};
use crate::api::{
    Append, AppendError, Appended, Bounds, Durability, EventLog, Load, LogLedger, LogReader, ReadError, Record,
};

/// How long records that were acked may take to be read back, where somebody asks about them.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);
/// Records that are looked at under the lock at one time.
const RECORDS_MAX: usize = 4_096;
/// Bytes of records that are read at one time to count those that are not in memory.
const COUNT_BYTES: usize = 4 << 20;

/// A log whose records lie on the brokers of Kafka.
pub struct KafkaLog {
    store: Arc<Store>,
    queue: Arc<Queue>,
    appender: Arc<Appender>,
    source: Source,
    partitions: u32,
    durability: Durability,
    identity: u128,
    has_ended: watch::Receiver<bool>,
    threads: Threads,
}

/// The log's threads, and what ends them.
struct Threads {
    end_appender: Arc<AtomicBool>,
    end_follower: Arc<AtomicBool>,
    end_keeper: Arc<Stop>,
    appender: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl KafkaLog {
    /// The id under which this process appends now.
    #[must_use]
    pub fn appender(&self) -> AppenderId {
        self.appender.id()
    }

    fn knows(&self, partition: PartitionId) -> bool {
        partition.0 < self.partitions
    }

    fn check_offset(&self, partition: PartitionId, wanted: Offset) -> Result<Bounds, ReadError> {
        let bounds = self.bounds(partition);
        if !self.knows(partition) || self.store.lock().of(partition).truncated {
            return Err(ReadError::NoSuchOffset { partition, wanted });
        }
        if wanted < bounds.start {
            return Err(ReadError::Gap { partition, wanted, start: bounds.start });
        }
        if wanted > bounds.end && wanted > self.end_at_brokers(partition)? {
            return Err(ReadError::NoSuchOffset { partition, wanted });
        }
        Ok(bounds)
    }

    /// Where a partition ends by its broker: other processes may know of records that this one has not read yet.
    fn end_at_brokers(&self, partition: PartitionId) -> Result<Offset, ReadError> {
        let consumer = self.source.consumer().map_err(io::Error::other)?;
        let (_, end) = self.source.bounds(&consumer, partition).map_err(io::Error::other)?;
        Ok(end)
    }

    fn check_blocks(&self, blocks: &[Append]) -> Result<(), AppendError> {
        let fits = |block: &Append| {
            self.knows(block.header.partition)
                && block.header.body_len as usize == block.body.len()
                && block.body.len() <= RECORD_BYTES_MAX
        };
        if blocks.iter().all(fits) {
            // What would be acked there nobody reads: offsets begin anew, and readers are beyond them.
            return match self.store.first_truncated(blocks.iter().map(|block| block.header.partition)) {
                None => Ok(()),
                Some(partition) => {
                    let what =
                        format!("the topic lost records of partition {partition} that were read: nothing is appended");
                    Err(AppendError::Unavailable(Arc::new(io::Error::other(what))))
                }
            };
        }
        let what = "a block for no partition of the log, with another body than its header says, or larger than 64 MiB";
        Err(AppendError::Unavailable(Arc::new(io::Error::new(io::ErrorKind::InvalidInput, what))))
    }

    /// Waits until a partition has been followed to an offset, and looks at it.
    fn followed<T>(
        &self,
        partition: PartitionId,
        to: Offset,
        look: impl FnOnce(&store::State) -> T,
    ) -> Result<T, ReadError> {
        let (began, mut state) = (Instant::now(), self.store.lock());
        while state.of(partition).stand.next < to {
            let Some(left) = FOLLOW_TIMEOUT.checked_sub(began.elapsed()) else {
                let what = format!("partition {partition} could not be read up to {to}: its broker is away");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what).into());
            };
            let waited = self.store.grown(partition).wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(look(&state))
    }

    /// Rows of a table in the records of a partition between two offsets, all of which were followed.
    fn rows_between(&self, partition: PartitionId, key: TableKey, from: Offset, to: Offset) -> Result<u64, ReadError> {
        let (mut next, mut rows) = (from, 0);
        let count = |record: &Record| if record.header.key == key { u64::from(record.header.rows) } else { 0 };
        let mut behind = None;
        while next < to {
            let piece = usize::try_from(to.0 - next.0).unwrap_or(usize::MAX).min(RECORDS_MAX);
            {
                let state = self.store.lock();
                if let Some(tail) = state.tail.from(partition, state.of(partition).stand.next, next) {
                    for record in tail.take(piece) {
                        rows += count(record);
                        next = record.offset.next();
                    }
                    continue;
                }
            }
            // Elsewhere, if records left the tail meanwhile.
            behind.take_if(|reader: &mut fetch::Fetch| !reader.is_at(next));
            let reader = match &mut behind {
                Some(reader) => reader,
                none => none.insert(self.source.fetch(partition, next)?),
            };
            let mut records = Vec::new();
            reader.poll(COUNT_BYTES, FOLLOW_TIMEOUT, &mut records)?;
            rows += records.iter().take_while(|record| record.offset < to).map(count).sum::<u64>();
            next = reader.position();
        }
        Ok(rows)
    }

    /// Append time of a record that is not in memory, which is that of its broker: what lies before it is not looked at.
    fn stored_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Timestamp, ReadError> {
        let mut record = Vec::new();
        self.source.fetch(partition, offset)?.poll(1, FOLLOW_TIMEOUT, &mut record)?;
        Ok(record.first().map_or(Timestamp::MIN, |record| record.append_time))
    }

    /// The first record whose broker gave it at least a time, ms: the same as the first whose append time is that.
    fn offset_of_millis(
        &self,
        partition: PartitionId,
        millis: i64,
    ) -> Result<Option<Offset>, rdkafka::error::KafkaError> {
        let mut list = TopicPartitionList::new();
        let number = partition_number(partition);
        list.add_partition_offset(&self.source.topic, number, rdkafka::Offset::Offset(millis))?;
        let found = self.source.consumer()?.offsets_for_times(list, ASK_TIMEOUT)?;
        let found = found.find_partition(&self.source.topic, number).map(|element| element.offset());
        Ok(match found {
            Some(rdkafka::Offset::Offset(offset)) => Some(offset_of(offset)),
            _ => None,
        })
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.queue.close();
        self.store.close();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Self { end_appender, end_follower, end_keeper, appender, follower, keeper } = self;
        // The keeper stores once more, by way of the other two.
        end_keeper.stop();
        // A panic of a thread has been reported by itself.
        let _ = keeper.take().map(JoinHandle::join);
        for end in [end_follower, end_appender] {
            end.store(true, Relaxed);
        }
        let _ = follower.take().map(JoinHandle::join);
        let _ = appender.take().map(JoinHandle::join);
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    /// No other topic has it, nor has one of the same name that was made anew with its stands.
    fn identity(&self) -> LogIdentity {
        LogIdentity(self.identity)
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        self.check_blocks(&blocks)?;
        let answered = self.appender.append(&blocks)?;
        let died = |_| AppendError::Unavailable(Arc::new(io::Error::other("the log's appender has ended")));
        answered.await.map_err(died)?
    }

    fn reader(&self, partition: PartitionId, from: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        self.check_offset(partition, from)?;
        let (store, source) = (self.store.clone(), self.source.clone());
        Ok(Box::new(Reader { store, source, partition, next: from, behind: None }))
    }

    fn bounds(&self, partition: PartitionId) -> Bounds {
        if !self.knows(partition) {
            return Bounds { start: Offset::ZERO, end: Offset::ZERO, last_append_time: Timestamp::MIN };
        }
        self.store.lock().bounds(partition)
    }

    fn append_time_of(&self, partition: PartitionId, offset: Offset) -> Option<Timestamp> {
        if !self.knows(partition) {
            return None;
        }
        let bounds = self.bounds(partition);
        if offset < bounds.start || bounds.end <= offset {
            return None;
        }
        let known = self.followed(partition, offset.next(), |state| state.of(partition).times.of(offset));
        let time = known.and_then(|known| known.map_or_else(|| self.stored_time_of(partition, offset), Ok));
        time.inspect_err(|error| tracing::warn!(%error, "event log: look up when a record was appended")).ok()
    }

    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Offset {
        let bounds = self.bounds(partition);
        if !self.knows(partition) || bounds.start == bounds.end || bounds.last_append_time < time {
            return bounds.end;
        }
        // Brokers count in milliseconds; times before 1970 mean something else to them.
        let millis = time.0.div_euclid(1_000).saturating_add(i64::from(time.0.rem_euclid(1_000) > 0));
        if millis <= 0 {
            return bounds.start;
        }
        match self.offset_of_millis(partition, millis) {
            Ok(found) => found.unwrap_or(bounds.end).clamp(bounds.start, bounds.end),
            Err(error) => {
                tracing::warn!(%error, "event log: look up a time");
                // The safe answer: too early, never too late.
                bounds.start
            }
        }
    }

    fn ledger(&self, partition: PartitionId, key: TableKey, applied: Offset) -> Result<LogLedger, ReadError> {
        let Bounds { end, .. } = self.check_offset(partition, applied)?;
        let look = |state: &store::State| {
            let stand = &state.of(partition).stand;
            (stand.rows(key), stand.next)
        };
        let (acked_rows, end) = self.followed(partition, end.max(applied), look)?;
        let in_flight_rows = self.rows_between(partition, key, applied, end)?;
        Ok(LogLedger { acked_rows, in_flight_rows, end })
    }

    fn appended_bytes(&self, partition: PartitionId) -> u64 {
        self.store.appended_bytes(partition)
    }

    fn load(&self) -> Load {
        self.queue.load()
    }

    fn release_before(&self, partition: PartitionId, offset: Offset) {
        if self.knows(partition) {
            let mut state = self.store.lock();
            let released = &mut state.partitions[partition.0 as usize].released;
            *released = offset.max(*released);
        }
    }

    async fn close(&self) {
        self.queue.close();
        self.queue.drained().await;
        self.store.close();
        self.threads.end_keeper.stop();
        // An error means that the thread is gone, which is what is waited for.
        let _ = self.has_ended.clone().wait_for(|ended| *ended).await;
    }
}
