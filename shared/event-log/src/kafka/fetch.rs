//! Records of one partition from a named offset on, straight from the brokers.
//!
//! Offsets of a partition are dense: nothing is compacted, and there are no transactions. A client of Kafka passes over what it
//! cannot give, so whether the next record is the one that was asked for is looked at here.

use std::{
    io,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
};
use types::{Offset, PartitionId, Timestamp};

use super::{
    client::{Quiet, Trouble},
    record::{block_of, time_of},
};
use crate::api::{ReadError, Record};

/// How long the brokers have to say what a partition holds.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait between two questions, where the answer is not known yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Makes clients that read a topic.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) settings: ClientConfig,
    pub(crate) topic: String,
}

/// Reads one partition.
pub(crate) struct Fetch {
    source: Source,
    consumer: BaseConsumer<Quiet>,
    partition: PartitionId,
    next: Offset,
    last_time: Timestamp,
    /// The client said that it passed over a batch for its checksum.
    damage: bool,
    /// What comes next is an error, and the client has gone past it.
    spent: bool,
}

impl Source {
    /// A client that reads nothing yet.
    pub(crate) fn consumer(&self) -> Result<BaseConsumer<Quiet>, KafkaError> {
        self.settings.create_with_context(Quiet)
    }

    /// A client that reads partitions from offsets.
    pub(crate) fn reader(
        &self,
        from: impl IntoIterator<Item = (PartitionId, Offset)>,
    ) -> Result<BaseConsumer<Quiet>, KafkaError> {
        let consumer = self.consumer()?;
        self.assign(&consumer, from)?;
        Ok(consumer)
    }

    /// Has a client read partitions from offsets: one that reads nothing yet. To read from elsewhere takes another client, as
    /// librdkafka (2.12, up to 2.15) aborts the process where a client ends, or is assigned again, before it has heard that all it was
    /// told to leave has stopped: <https://github.com/confluentinc/librdkafka/issues/5573>.
    pub(crate) fn assign(
        &self,
        consumer: &BaseConsumer<Quiet>,
        from: impl IntoIterator<Item = (PartitionId, Offset)>,
    ) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            let offset = rdkafka::Offset::Offset(offset.0.cast_signed());
            list.add_partition_offset(&self.topic, partition_number(partition), offset)?;
        }
        consumer.assign(&list)
    }

    /// The oldest offset of a partition and the one behind its newest durable record.
    pub(crate) fn bounds(
        &self,
        consumer: &BaseConsumer<Quiet>,
        partition: PartitionId,
    ) -> Result<(Offset, Offset), KafkaError> {
        let began = Instant::now();
        loop {
            match consumer.fetch_watermarks(&self.topic, partition_number(partition), ASK_TIMEOUT) {
                Ok((low, high)) => return Ok((offset_of(low), offset_of(high))),
                // A topic that is new, or whose leader changes, has none for a moment.
                Err(error) if is_settling(&error) && began.elapsed() < ASK_TIMEOUT => std::thread::sleep(LOOK_INTERVAL),
                Err(error) => return Err(error),
            }
        }
    }

    /// A reader of a partition.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(crate) fn fetch(&self, partition: PartitionId, from: Offset) -> io::Result<Fetch> {
        let consumer = self.reader([(partition, from)]).map_err(io::Error::other)?;
        let source = self.clone();
        Ok(Fetch { source, consumer, partition, next: from, last_time: Timestamp::MIN, damage: false, spent: false })
    }
}

impl Fetch {
    /// The offset of the next record.
    pub(crate) fn position(&self) -> Offset {
        self.next
    }

    /// Whether it can go on from an offset.
    pub(crate) fn is_at(&self, offset: Offset) -> bool {
        !self.spent && self.next == offset
    }

    /// Appends the next records to `into`, about `bytes_max` of them; waits at most `wait` for the first, which there is. Times
    /// are raised to those of the records that this reader gave before.
    ///
    /// # Errors
    /// No record came in time, the next one is gone or damaged, or the topic ends before it. After an error this reader is
    /// to be dropped.
    pub(crate) fn poll(
        &mut self,
        bytes_max: usize,
        wait: Duration,
        into: &mut Vec<Record>,
    ) -> Result<usize, ReadError> {
        let (began, before) = (Instant::now(), into.len());
        let mut bytes = 0;
        while into.len() == before || bytes < bytes_max {
            let left = match into.len() - before {
                0 => wait.saturating_sub(began.elapsed()),
                _ => Duration::ZERO,
            };
            match self.poll_one(left, into) {
                Ok(true) => bytes += into.last().map_or(0, |record| record.body.len()),
                Ok(false) if into.len() > before => break,
                // What was read before is handed out first; another reader meets the error again.
                Err(_) if into.len() > before => {
                    self.spent = true;
                    break;
                }
                Ok(false) if began.elapsed() < wait => {}
                Ok(false) => return Err(self.nothing_came(wait).into()),
                Err(error) => return Err(error),
            }
        }
        Ok(into.len() - before)
    }

    /// The next record, if one came.
    fn poll_one(&mut self, wait: Duration, into: &mut Vec<Record>) -> Result<bool, ReadError> {
        let message = match self.consumer.poll(wait) {
            None => return Ok(false),
            Some(Ok(message)) => message,
            Some(Err(error)) => match Trouble::of(&error) {
                Trouble::Passing => {
                    tracing::debug!(%error, partition = self.partition.0, "event log: read from kafka");
                    return Ok(false);
                }
                Trouble::Damage => {
                    self.damage = true;
                    return Ok(false);
                }
                Trouble::NotThere => return Err(self.not_there()),
            },
        };
        let (partition, offset) = (self.partition, offset_of(message.offset()));
        if offset < self.next {
            return Ok(false);
        }
        if offset > self.next {
            return Err(match self.damage {
                true => ReadError::Corrupt { partition, offset: self.next, header: None },
                false => ReadError::Gap { partition, wanted: self.next, start: offset },
            });
        }
        let (header, body) =
            block_of(&message, partition).map_err(|header| ReadError::Corrupt { partition, offset, header })?;
        self.last_time = self.last_time.max(time_of(&message));
        self.next = offset.next();
        self.damage = false;
        into.push(Record { offset, append_time: self.last_time, header, body });
        Ok(true)
    }

    fn not_there(&self) -> ReadError {
        let (partition, wanted) = (self.partition, self.next);
        match self.source.bounds(&self.consumer, partition) {
            Ok((start, _)) if wanted < start => ReadError::Gap { partition, wanted, start },
            Ok((_, end)) if end < wanted => ReadError::NoSuchOffset { partition, wanted },
            Ok(_) => io::Error::other("the brokers refused an offset that they have").into(),
            Err(error) => io::Error::other(error).into(),
        }
    }

    fn nothing_came(&self, wait: Duration) -> io::Error {
        let (partition, next) = (self.partition, self.next);
        let what = format!("no broker gave record {next} of partition {partition} within {wait:?}");
        io::Error::new(io::ErrorKind::TimedOut, what)
    }
}

fn is_settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let settling =
        [Code::NotLeaderForPartition, Code::LeaderNotAvailable, Code::UnknownTopicOrPartition, Code::UnknownPartition];
    error.rdkafka_error_code().is_some_and(|code| settling.contains(&code))
}

/// As Kafka numbers a partition.
pub(crate) fn partition_number(partition: PartitionId) -> i32 {
    i32::try_from(partition.0).expect("a log has at most 1,024 partitions")
}

/// An offset as Kafka gives it; never negative for a record or a bound.
pub(crate) fn offset_of(raw: i64) -> Offset {
    Offset(u64::try_from(raw).unwrap_or(0))
}
