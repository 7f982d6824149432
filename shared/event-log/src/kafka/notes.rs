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
    /// The first identity that was written.
    identity: Option<u128>,
    stands: HashMap<PartitionId, Stand>,
}

impl Notes {
    /// Reads all notes.
    ///
    /// # Errors
    /// The brokers are away, or what is there is not what this program writes.
    pub(crate) fn read(config: &KafkaConfig, source: &Source) -> Result<Self, KafkaOpenError> {
        let topic = config.stands_topic();
        let damaged = |what: String| KafkaOpenError::Damaged { topic: topic.clone(), what };
        let mut notes = Self::default();
        let stored = stored(source, &topic).map_err(KafkaOpenError::at(format!("read topic {topic}")))?;
        for (key, value) in stored {
            if key == IDENTITY {
                let identity = u128::from_str_radix(&value_text(&value), 16);
                let identity = identity.map_err(|error| damaged(format!("its identity is no number: {error}")))?;
                notes.identity.get_or_insert(identity);
                continue;
            }
            let number = key.parse().map_err(|_| damaged(format!("key {key:?} is neither a partition nor known")))?;
            let stand = Stand::decode(&value).map_err(|error| damaged(format!("partition {key}: {error}")))?;
            notes.stands.insert(PartitionId(number), stand);
        }
        Ok(notes)
    }

    /// Where a partition stands.
    pub(crate) fn stand(&mut self, partition: PartitionId) -> Stand {
        self.stands.remove(&partition).unwrap_or_else(Stand::empty)
    }

    /// Which log this is; drawn by the first who asks. Where several ask at one time, the first note counts, and is written
    /// again so that it is also the one that compaction keeps.
    ///
    /// # Errors
    /// The brokers are away, or there are no random numbers.
    pub(crate) fn identity(
        &self,
        config: &KafkaConfig,
        source: &Source,
        by: &Appender,
    ) -> Result<u128, KafkaOpenError> {
        if let Some(identity) = self.identity {
            return Ok(identity);
        }
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn)?;
        let drawn = u128::from_le_bytes(drawn);
        let topic = config.stands_topic();
        let note = |identity: u128| {
            let written = by.note(&topic, IDENTITY, format!("{identity:032x}").as_bytes(), NOTE_TIMEOUT);
            written.map_err(KafkaOpenError::at(format!("write to topic {topic}")))
        };
        note(drawn)?;
        let first = Self::read(config, source)?.identity.unwrap_or(drawn);
        if first != drawn {
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
