//! What the log keeps for itself in the topic `<topic>.stands`: where partitions stand, and which log this is.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
};
use types::PartitionId;

use super::{
    appender::Appender,
    config::{KafkaConfig, KafkaOpenError},
    fetch::{ASK_TIMEOUT, Source, offset_of},
    stand::Stand,
};

/// The key of the log's identity.
const IDENTITY: &str = "identity";
/// How long the notes may take to be read: there are few.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a note may take to be acked.
pub(crate) const NOTE_TIMEOUT: Duration = Duration::from_secs(15);

/// What stood in the topic.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The first identity that was written, and the last, which is the one that compaction keeps.
    identity: Option<(u128, u128)>,
    stands: HashMap<PartitionId, Stand>,
}

impl Notes {
    /// Reads all notes.
    ///
    /// # Errors
    /// The brokers are away, or what is there is not what this program writes.
    pub(crate) fn read(config: &KafkaConfig, source: &Source) -> Result<Self, KafkaOpenError> {
        let topic = config.stands_topic();
        let stored = stored(source, &topic).map_err(KafkaOpenError::at(format!("read topic {topic}")))?;
        Self::of(stored).map_err(|what| KafkaOpenError::Damaged { topic, what })
    }

    /// What keys and values say, oldest first. Of the stands of a partition the one that has come furthest counts: a process that is
    /// slow may store its own last.
    ///
    /// # Errors
    /// What is not of this program.
    pub(crate) fn of(stored: Vec<(String, Vec<u8>)>) -> Result<Self, String> {
        let mut notes = Self::default();
        for (key, value) in stored {
            if key == IDENTITY {
                let identity = u128::from_str_radix(&value_text(&value), 16);
                let identity = identity.map_err(|error| format!("its identity is no number: {error}"))?;
                notes.identity = Some((notes.identity.map_or(identity, |(first, _)| first), identity));
                continue;
            }
            let number = key.parse().map_err(|_| format!("key {key:?} is neither a partition nor known"))?;
            let stand = Stand::decode(&value).map_err(|error| format!("partition {key}: {error}"))?;
            let furthest = notes.stands.entry(PartitionId(number)).or_insert_with(Stand::empty);
            if stand.next >= furthest.next {
                *furthest = stand;
            }
        }
        Ok(notes)
    }

    /// Where a partition stands.
    pub(crate) fn stand(&mut self, partition: PartitionId) -> Stand {
        self.stands.remove(&partition).unwrap_or_else(Stand::empty)
    }

    /// Which log this is; drawn by the first who asks. Where several ask at one time, the first note counts, and whoever sees that it
    /// is not the last one writes it again, so that it is also the one that compaction keeps.
    ///
    /// # Errors
    /// The brokers are away, or there are no random numbers.
    pub(crate) fn identity(
        &self,
        config: &KafkaConfig,
        source: &Source,
        by: &Appender,
    ) -> Result<u128, KafkaOpenError> {
        let topic = config.stands_topic();
        let note = |identity: u128| {
            let written = by.note(&topic, IDENTITY, format!("{identity:032x}").as_bytes(), NOTE_TIMEOUT);
            written.map_err(KafkaOpenError::at(format!("write to topic {topic}")))
        };
        let (first, last) = match self.identity {
            Some(written) => written,
            None => {
                let mut drawn = [0; 16];
                getrandom::fill(&mut drawn)?;
                let drawn = u128::from_le_bytes(drawn);
                note(drawn)?;
                Self::read(config, source)?.identity.unwrap_or((drawn, drawn))
            }
        };
        if first != last {
            note(first)?;
        }
        Ok(first)
    }
}

/// Stores where a partition stands.
///
/// # Errors
/// It was not acked.
pub(crate) fn store_stand(by: &Appender, topic: &str, partition: PartitionId, stand: &[u8]) -> Result<(), KafkaError> {
    by.note(topic, &partition.0.to_string(), stand, NOTE_TIMEOUT)
}

/// Keys and values of all that lies in a topic of one partition, oldest first.
fn stored(source: &Source, topic: &str) -> Result<Vec<(String, Vec<u8>)>, KafkaError> {
    let mut source = Source { topic: topic.to_owned(), ..source.clone() };
    // The last offset may be of a note that compaction removed: then the end is heard of, and not the note.
    source.settings.set("enable.partition.eof", "true");
    let consumer = source.consumer()?;
    let (low, high) = source.bounds(&consumer, PartitionId(0))?;
    let mut stored = Vec::new();
    if low == high {
        return Ok(stored);
    }
    source.assign(&consumer, [(PartitionId(0), low)])?;
    let began = Instant::now();
    while began.elapsed() < READ_TIMEOUT {
        let message = match consumer.poll(ASK_TIMEOUT) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(stored),
            Some(Err(error)) => {
                tracing::debug!(%error, topic, "event log: read from kafka");
                continue;
            }
            Some(Ok(message)) => message,
        };
        if let (Some(key), Some(value)) = (message.key(), message.payload()) {
            stored.push((String::from_utf8_lossy(key).into_owned(), value.to_vec()));
        }
        if offset_of(message.offset()).next() >= high {
            return Ok(stored);
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

fn value_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use types::Offset;

    use super::*;

    fn stand(partition: u32, next: u64) -> (String, Vec<u8>) {
        let mut stand = Stand::empty();
        stand.next = Offset(next);
        (partition.to_string(), stand.encode())
    }

    fn identity(identity: u128) -> (String, Vec<u8>) {
        (IDENTITY.to_owned(), format!("{identity:032x}").into_bytes())
    }

    /// Goal: of several stands of a partition the furthest counts, whoever stored last; the first identity counts, and that another
    /// one lies behind it is seen by whoever reads.
    #[test]
    fn what_counts_is_not_what_came_last() {
        let stored = vec![identity(7), stand(0, 5), identity(9), stand(1, 3), stand(0, 8), stand(0, 6)];
        let mut notes = Notes::of(stored).unwrap();
        assert_eq!(notes.identity, Some((7, 9)));
        let next = [0, 1, 2].map(|partition| notes.stand(PartitionId(partition)).next);
        assert_eq!(next, [Offset(8), Offset(3), Offset::ZERO]);
        assert_eq!(Notes::of(vec![identity(7)]).unwrap().identity, Some((7, 7)));
        let foreign = Notes::of(vec![("x".to_owned(), Vec::new())]).unwrap_err();
        assert!(foreign.contains("neither a partition nor known"), "{foreign}");
    }
}
