//! The appender: hands blocks to the producer of librdkafka, and answers their calls when the brokers have acked them. A thread of
//! its own takes the acks.
//!
//! 1. A call is answered by delivery reports alone: acked, or unknown.
//! 2. Blocks of one partition are numbered and handed over under that partition's lock, so that the rows in their headers are
//!    counted in the order of the log.
//! 3. A *life* of the appender is one producer with one appender id. A producer that can never again be used, as it says
//!    itself, is replaced by another life; what the old one still held is unknown.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Message},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig},
};
use tokio::sync::oneshot;
use types::{AppenderId, PartitionId, TableKey};

use super::{
    client::Quiet,
    fetch::{offset_of, partition_number},
    queue::{Call, Queue},
    record,
    store::Store,
};
use crate::api::{Append, AppendError, Appended};

/// How often to look whether the log ends, or the producer has; acks are taken as they come. The client waits for whole milliseconds
/// and asks again and again through the rest of the time: a tenth of one, which waking up takes, costs nothing, a whole one a
/// fiftieth of a core.
const POLL_WAIT: Duration = Duration::from_micros(100_100);
/// The wait for another producer, where one could not be made.
const RENEW_WAIT: Duration = Duration::from_secs(1);

/// The one that appends.
pub(crate) struct Appender {
    settings: ClientConfig,
    topic: String,
    partitions: u32,
    store: Arc<Store>,
    queue: Arc<Queue>,
    life: RwLock<Arc<Life>>,
}

/// One producer.
struct Life {
    producer: BaseProducer<Deliveries>,
    id: AppenderId,
    /// Rows handed over, by table; one per partition.
    rows: Box<[Mutex<HashMap<TableKey, u64>>]>,
}

/// Gets the delivery reports.
struct Deliveries {
    store: Arc<Store>,
    queue: Arc<Queue>,
}

/// Whose report it is.
pub(crate) enum Delivery {
    Block {
        call: Arc<Call>,
        at: usize,
        partition: PartitionId,
        bytes: u64,
    },
    /// Something that the log keeps for itself.
    Note(mpsc::Sender<Result<(), KafkaError>>),
}

impl Appender {
    /// An appender to a topic.
    ///
    /// # Errors
    /// The producer cannot be made.
    pub(crate) fn new(
        settings: ClientConfig,
        topic: String,
        partitions: u32,
        store: Arc<Store>,
        queue: Arc<Queue>,
    ) -> io::Result<Self> {
        let life = Life::begin(&settings, partitions, &store, &queue)?;
        Ok(Self { settings, topic, partitions, store, queue, life: RwLock::new(Arc::new(life)) })
    }

    /// The id under which it appends now.
    pub(crate) fn id(&self) -> AppenderId {
        self.life().id
    }

    /// Hands blocks over; the answer comes where it says.
    ///
    /// # Errors
    /// The queue is full or closed: nothing was appended.
    pub(crate) fn append(
        &self,
        blocks: &[Append],
    ) -> Result<oneshot::Receiver<Result<Vec<Appended>, AppendError>>, AppendError> {
        let bytes = |block: &Append| record::queued_bytes(block.body.len());
        self.queue.enter(blocks.iter().map(bytes).sum())?;
        let (call, answered) = Call::new(blocks.len());
        let life = self.life();
        for (at, block) in blocks.iter().enumerate() {
            let (partition, bytes) = (block.header.partition, bytes(block));
            if let Err(error) =
                life.send(&self.topic, block, Delivery::Block { call: call.clone(), at, partition, bytes })
            {
                self.queue.leave(bytes);
                call.done(at, Err(io::Error::other(error)));
            }
        }
        Ok(answered)
    }

    /// Writes a note of the log's own to a topic of one partition, and waits for its ack.
    ///
    /// # Errors
    /// It was not acked.
    pub(crate) fn note(&self, topic: &str, key: &str, value: &[u8], wait: Duration) -> Result<(), KafkaError> {
        let (acked, ack) = mpsc::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(Delivery::Note(acked)));
        self.life().producer.send(record.partition(0).key(key).payload(value)).map_err(|(error, _)| error)?;
        ack.recv_timeout(wait).unwrap_or(Err(KafkaError::Canceled))
    }

    /// Takes acks until it is told to stop, which is when nothing is on its way any more.
    pub(crate) fn run(&self, stop: &AtomicBool) {
        // Relaxed: it orders nothing, and is seen within a poll.
        while !stop.load(Relaxed) {
            let life = self.life();
            life.producer.poll(POLL_WAIT);
            if let Some((code, why)) = life.producer.client().fatal_error() {
                tracing::error!(%code, why, "event log: the producer has ended, another takes its place");
                self.renew(&life);
            }
        }
    }

    fn renew(&self, old: &Life) {
        match Life::begin(&self.settings, self.partitions, &self.store, &self.queue) {
            Ok(life) => *self.life.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(life),
            Err(error) => {
                tracing::error!(%error, "event log: make another producer");
                std::thread::sleep(RENEW_WAIT);
            }
        }
        old.producer.purge(PurgeConfig::default().queue().inflight());
        while old.producer.in_flight_count() > 0 {
            old.producer.poll(POLL_WAIT);
        }
    }

    fn life(&self) -> Arc<Life> {
        self.life.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Life {
    fn begin(settings: &ClientConfig, partitions: u32, store: &Arc<Store>, queue: &Arc<Queue>) -> io::Result<Self> {
        let deliveries = Deliveries { store: store.clone(), queue: queue.clone() };
        let producer = settings.create_with_context(deliveries).map_err(io::Error::other)?;
        // Drawn, so that no appender of any process has that of another.
        let id = AppenderId(getrandom::u64()?);
        Ok(Self { producer, id, rows: (0..partitions).map(|_| Mutex::default()).collect() })
    }

    fn send(&self, topic: &str, block: &Append, delivery: Delivery) -> Result<(), KafkaError> {
        let mut header = block.header;
        let rows = &self.rows[header.partition.0 as usize];
        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = rows.entry(header.key).or_default();
        header.appender = self.id;
        header.appender_rows = *appended + u64::from(header.rows);
        let key = record::key(&header);
        let record = BaseRecord::with_opaque_to(topic, Box::new(delivery))
            .partition(partition_number(header.partition))
            .key(&key)
            .payload(&*block.body)
            .headers(record::headers(&header));
        self.producer.send(record).map_err(|(error, _)| error)?;
        *appended = header.appender_rows;
        Ok(())
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        match *delivery {
            Delivery::Note(ack) => {
                let acked = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
                // Who asked may have given up.
                let _ = ack.send(acked);
            }
            Delivery::Block { call, at, partition, bytes } => {
                self.queue.leave(bytes);
                call.done(at, self.became(partition, result));
            }
        }
    }
}

impl Deliveries {
    /// What became of a block. Acked, it is shown as the end before its caller hears of it.
    fn became(&self, partition: PartitionId, result: &DeliveryResult<'_>) -> io::Result<Appended> {
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                let kind = match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageTimedOut) => io::ErrorKind::TimedOut,
                    _ => io::ErrorKind::Other,
                };
                return Err(io::Error::new(kind, error.clone()));
            }
        };
        if message.offset() < 0 {
            // A retry of what the brokers had already: it is there, but nobody says where.
            return Err(io::Error::other("acked at an offset that the brokers do not know any more"));
        }
        let (offset, append_time) = (offset_of(message.offset()), record::time_of(message));
        self.store.acked(partition, offset, append_time);
        Ok(Appended { partition, offset, append_time })
    }
}
