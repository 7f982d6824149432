//! The log's topics: made at the start where they are not there, checked where they are. Never on the path of an event.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::runtime::Runtime;

use super::{
    client::{BATCH_BYTES_CEILING, Quiet},
    config::{KafkaConfig, KafkaOpenError},
};
use crate::api::Durability;

/// How long the brokers have for a request of administration.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new topic may take to get leaders.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(30);
/// The wait between two looks for them.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The client of administration, for callers that wait.
pub(crate) struct Admin {
    pub(crate) client: AdminClient<Quiet>,
    pub(crate) runtime: Runtime,
}

/// What the topic of records is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) partitions: u32,
    pub(crate) durability: Durability,
}

impl Admin {
    pub(crate) fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT))
    }

    /// Makes the topics that are not there, and checks the others.
    ///
    /// # Errors
    /// The brokers are away or refuse, or a topic has settings that lose records.
    pub(crate) fn ensure(&self, config: &KafkaConfig) -> Result<Found, KafkaOpenError> {
        let ceiling = BATCH_BYTES_CEILING.to_string();
        let min_insync = config.min_insync.to_string();
        let replication = || TopicReplication::Fixed(i32::from(config.replication));
        let partitions = i32::try_from(config.partitions).expect("checked to be at most 1,024");
        let stands_topic = config.stands_topic();
        let records = NewTopic::new(&config.topic, partitions, replication())
            // Times are the log's: the clock of a client is not asked.
            .set("message.timestamp.type", "LogAppendTime")
            .set("cleanup.policy", "delete")
            // Records leave when they are released, not when they are old.
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("min.insync.replicas", &min_insync)
            .set("unclean.leader.election.enable", "false")
            .set("max.message.bytes", &ceiling);
        let stands = NewTopic::new(&stands_topic, 1, replication())
            .set("cleanup.policy", "compact")
            // Which of two identities was first can be told for so long.
            .set("min.compaction.lag.ms", "60000")
            .set("segment.bytes", "16777216")
            .set("min.insync.replicas", &min_insync)
            .set("unclean.leader.election.enable", "false")
            .set("max.message.bytes", &ceiling);
        self.create(&[records, stands])?;
        self.leaders(&stands_topic)?;
        let (partitions, replicas) = self.leaders(&config.topic)?;
        let min_insync = self.check(&config.topic)?;
        let durability = if min_insync >= 2 && replicas >= 2 { Durability::Replicated } else { Durability::Broker };
        Ok(Found { partitions, durability })
    }

    fn create(&self, topics: &[NewTopic<'_>]) -> Result<(), KafkaOpenError> {
        let doing = || "make the topics of the log";
        let made = self.runtime.block_on(self.client.create_topics(topics, &Self::options()));
        for made in made.map_err(KafkaOpenError::at(doing()))? {
            match made {
                Ok(topic) => tracing::info!(topic, "event log: made a topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(KafkaOpenError::at(format!("make topic {topic}"))(KafkaError::AdminOp(code)));
                }
            }
        }
        Ok(())
    }

    /// Waits until all partitions of a topic have leaders. Gives their number and the least number of their replicas.
    fn leaders(&self, topic: &str) -> Result<(u32, usize), KafkaOpenError> {
        let began = Instant::now();
        loop {
            let doing = || format!("look topic {topic} up");
            let metadata = self.client.inner().fetch_metadata(Some(topic), ADMIN_TIMEOUT);
            let metadata = metadata.map_err(KafkaOpenError::at(doing()))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let partitions = found.map(|found| found.partitions()).unwrap_or_default();
            if !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0) {
                let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
                let count = u32::try_from(partitions.len()).expect("a number of partitions");
                return Ok((count, replicas.unwrap_or_default()));
            }
            if began.elapsed() > LEADERS_TIMEOUT {
                let why = KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable);
                return Err(KafkaOpenError::at(doing())(why));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Checks the settings of the topic of records; gives how many replicas must have a record before it is acked.
    fn check(&self, topic: &str) -> Result<u32, KafkaOpenError> {
        let doing = || format!("read the settings of topic {topic}");
        let asked = [ResourceSpecifier::Topic(topic)];
        let described = self.runtime.block_on(self.client.describe_configs(&asked, &Self::options()));
        let described = described.map_err(KafkaOpenError::at(doing()))?.into_iter().next();
        let described = described.unwrap_or(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
        let settings = described.map_err(|code| KafkaOpenError::at(doing())(KafkaError::AdminOp(code)))?;
        let must = [
            (
                "message.timestamp.type",
                "LogAppendTime",
                "set it with kafka-configs: the clocks of clients must not be that of the log",
            ),
            ("cleanup.policy", "delete", "set it with kafka-configs: compaction removes records that were acked"),
            (
                "unclean.leader.election.enable",
                "false",
                "set it with kafka-configs: a replica that lags behind could become the truth",
            ),
        ];
        for (setting, must, mend) in must {
            let found = value(&settings, setting);
            if found != must {
                return Err(KafkaOpenError::Topic { topic: topic.into(), setting, found, must: must.into(), mend });
            }
        }
        let largest = value(&settings, "max.message.bytes");
        if largest.parse::<usize>().is_ok_and(|bytes| bytes < BATCH_BYTES_CEILING) {
            return Err(KafkaOpenError::Topic {
                topic: topic.into(),
                setting: "max.message.bytes",
                found: largest,
                must: format!("at least {BATCH_BYTES_CEILING}"),
                mend: "set it with kafka-configs: a large block would be refused for ever",
            });
        }
        Ok(value(&settings, "min.insync.replicas").parse().unwrap_or(1))
    }
}

fn value(settings: &ConfigResource, name: &str) -> String {
    settings.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
}
