//! Opening a log on Kafka: topics, what was counted before, what has to be counted yet, threads.

use std::{
    sync::{Arc, atomic::AtomicBool},
    thread::{Builder, JoinHandle},
    time::Instant,
};

use rdkafka::message::Message;
use tokio::sync::watch;
use types::{Offset, PartitionId, limits::PARTITIONS_MAX};

use super::{
    KafkaLog, Threads,
    appender::Appender,
    client::{self, Quiet},
    config::{KafkaConfig, KafkaOpenError},
    fetch::{ASK_TIMEOUT, Source, offset_of},
    follower::Follower,
    keeper::{Keeper, Stop},
    notes::Notes,
    queue::Queue,
    record::{block_of, fingerprint},
    stand::Stand,
    store::Store,
    topic::Admin,
};

/// How long the last records of all partitions may take to come.
const LOOK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

impl KafkaLog {
    /// Opens the log of a topic, or makes the topic. Blocks until all that the topic holds is counted, most of which a life
    /// before has stored.
    ///
    /// # Errors
    /// The brokers are away, the topic has settings that lose records, or it is not the one that was read before.
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaOpenError> {
        check(config)?;
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let client = client::admin(config).create_with_context(Quiet).map_err(KafkaOpenError::at("make a client"))?;
        let admin = Admin { client, runtime };
        let found = admin.ensure(config)?;
        let source = Source { settings: client::consumer(config), topic: config.topic.clone() };
        let mut notes = Notes::read(config, &source)?;
        let stands = (0..found.partitions).map(|n| notes.stand(PartitionId(n))).collect();
        let partitions = stand_by(config, &source, stands)?;
        let next: Vec<_> = partitions.iter().map(|(stand, ..)| stand.next).collect();

        let store = Arc::new(Store::new(partitions, config.tail_bytes_max));
        let queue = Arc::new(Queue::new(config.queue_bytes_max));
        let (settings, topic) = (client::producer(config), config.topic.clone());
        let appender = Appender::new(settings, topic, found.partitions, store.clone(), queue.clone())?;
        let appender = Arc::new(appender);
        let mut threads = Threads::default();
        let taker = appender.clone();
        let end = threads.end_appender.clone();
        threads.appender = Some(start("log-acks", move || taker.run(&end))?);
        let identity = notes.identity(config, &source, &appender)?;

        let places = next.iter().zip(0..).map(|(next, n)| (PartitionId(n), *next));
        let consumer = source.reader(places).map_err(KafkaOpenError::at("read the topic"))?;
        let stop = threads.end_follower.clone();
        let next: Vec<_> = next.into_iter().map(Some).collect();
        let stored = next.iter().map(|next| next.unwrap_or_default()).collect();
        let notes = {
            let (config, source) = (config.clone(), source.clone());
            Box::new(move || Notes::read(&config, &source))
        };
        let asked_again = vec![0; next.len()];
        let mut follower =
            Follower { store: store.clone(), source: source.clone(), consumer, next, asked_again, notes, stop };
        follower.catch_up();
        threads.follower = Some(start("log-follow", move || follower.run())?);

        let (ended, has_ended) = watch::channel(false);
        let keeper = Keeper {
            store: store.clone(),
            appender: appender.clone(),
            admin,
            consumer: source.consumer().map_err(KafkaOpenError::at("make a client"))?,
            source: source.clone(),
            stands_topic: config.stands_topic(),
            delete_released: config.delete_released,
            interval: config.keep_interval,
            stored,
            stop: threads.end_keeper.clone(),
            ended,
        };
        threads.keeper = Some(start("log-keep", move || keeper.run())?);
        let took = began.elapsed();
        tracing::info!(topic = config.topic, partitions = found.partitions, ?took, "event log: open on kafka");
        let (partitions, durability) = (found.partitions, found.durability);
        Ok(Self { store, queue, appender, source, partitions, durability, identity, has_ended, threads })
    }
}

impl Default for Threads {
    fn default() -> Self {
        Self {
            end_appender: Arc::new(AtomicBool::new(false)),
            end_follower: Arc::new(AtomicBool::new(false)),
            end_keeper: Arc::new(Stop::default()),
            appender: None,
            follower: None,
            keeper: None,
        }
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).spawn(run)
}

fn check(config: &KafkaConfig) -> Result<(), KafkaOpenError> {
    let refuse = |field, value, must: String| Err(KafkaOpenError::Config { field, value, must });
    if !(1..=PARTITIONS_MAX).contains(&config.partitions) {
        return refuse("partitions", u64::from(config.partitions), format!("1 to {PARTITIONS_MAX}"));
    }
    if config.replication == 0 {
        return refuse("replication", 0, "at least 1".into());
    }
    if !(1..=config.replication).contains(&config.min_insync) {
        let must = format!("1 to the {} replicas", config.replication);
        return refuse("min_insync", u64::from(config.min_insync), must);
    }
    Ok(())
}

/// Where the partitions stand, with the bounds of what the topic holds of them. What was stored is believed if the topic still
/// ends behind it, and its last record is the one that was counted, where that is still there.
fn stand_by(
    config: &KafkaConfig,
    source: &Source,
    stands: Vec<Stand>,
) -> Result<Vec<(Stand, Offset, Offset)>, KafkaOpenError> {
    let consumer = source.consumer().map_err(KafkaOpenError::at("make a client"))?;
    let mut partitions = Vec::with_capacity(stands.len());
    let mut looked_at = Vec::new();
    for (mut stand, n) in stands.into_iter().zip(0..) {
        let bounds = source.bounds(&consumer, PartitionId(n));
        let (start, end) = bounds.map_err(KafkaOpenError::at(format!("ask what partition {n} holds")))?;
        if end < stand.next {
            let what = format!("{} records were counted, it ends at {end}", stand.next);
            return Err(KafkaOpenError::Another { topic: config.topic.clone(), partition: n, what });
        }
        if stand.next < start {
            tracing::error!(
                partition = n,
                from = stand.next.0,
                to = start.0,
                "event log: records left before they were counted"
            );
            stand.pass_over(start, None);
        }
        if start < stand.next && stand.fingerprint != 0 {
            looked_at.push((PartitionId(n), Offset(stand.next.0 - 1), stand.fingerprint));
        }
        partitions.push((stand, start, end));
    }
    compare(config, source, &looked_at)?;
    Ok(partitions)
}

/// Reads one record of each of some partitions and compares it with the one that was counted there.
fn compare(
    config: &KafkaConfig,
    source: &Source,
    looked_at: &[(PartitionId, Offset, u64)],
) -> Result<(), KafkaOpenError> {
    if looked_at.is_empty() {
        return Ok(());
    }
    let mut waiting: Vec<_> = looked_at.to_vec();
    let places = looked_at.iter().map(|(partition, offset, _)| (*partition, *offset));
    let consumer = source.reader(places).map_err(KafkaOpenError::at("read the topic"))?;
    let began = Instant::now();
    while !waiting.is_empty() {
        if began.elapsed() > LOOK_TIMEOUT {
            let why = rdkafka::error::KafkaError::NoMessageReceived;
            return Err(KafkaOpenError::at("read the last record that was counted")(why));
        }
        let Some(Ok(message)) = consumer.poll(ASK_TIMEOUT) else { continue };
        let of =
            |(partition, ..): &(PartitionId, Offset, u64)| i64::from(partition.0) == i64::from(message.partition());
        let Some(at) = waiting.iter().position(of) else { continue };
        let (partition, offset, counted) = waiting.swap_remove(at);
        let found = block_of(&message, partition).ok().map(|(header, _)| fingerprint(&header));
        if offset_of(message.offset()) != offset || found != Some(counted) {
            let what = format!("record {offset} is not the one that was counted");
            return Err(KafkaOpenError::Another { topic: config.topic.clone(), partition: partition.0, what });
        }
    }
    Ok(())
}
