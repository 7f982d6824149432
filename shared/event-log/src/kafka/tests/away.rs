//! Brokers that are away, by librdkafka's mock of them.

use rdkafka::mocking::MockCluster;

use super::*;
use crate::kafka::stand::Stand;

pub(super) const TOPIC: &str = "away";

/// An appender to a mock of one broker, with a thread that takes its acks.
pub(super) struct World {
    pub(super) broker: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    pub(super) appender: Arc<Appender>,
    store: Arc<Store>,
    pub(super) queue: Arc<Queue>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    pub(super) fn new() -> Self {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic(TOPIC, 2, 1).unwrap();
        let config = KafkaConfig {
            delivery_timeout: Duration::from_secs(2),
            // The mock counts the bytes that it gets.
            compression: Compression::None,
            ..KafkaConfig::new(broker.bootstrap_servers(), TOPIC, 2)
        };
        let nothing = || (Stand::empty(), Offset::ZERO, Offset::ZERO);
        let store = Arc::new(Store::new(vec![nothing(), nothing()], 1 << 20));
        let queue = Arc::new(Queue::new(100_000));
        let settings = client::producer(&config);
        let appender = Appender::new(settings, TOPIC.into(), 2, store.clone(), queue.clone()).unwrap();
        let (appender, stop) = (Arc::new(appender), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (appender, stop) = (appender.clone(), stop.clone());
            move || appender.run(&stop)
        });
        Self { broker, appender, store, queue, stop, thread: Some(thread) }
    }

    pub(super) async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.appender.append(&blocks)?.await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Goal: while the broker is away appends end as unknown in their time, hold no place in the queue after, and what comes later is
/// acked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_away_broker_makes_appends_unknown() {
    let world = World::new();
    let first = world.append(vec![block(0, 1, 1, 0, 100), block(1, 1, 1, 1, 100)]).await.unwrap();
    assert_eq!([first[0].offset, first[1].offset], [Offset::ZERO; 2]);
    world.broker.broker_down(1).unwrap();
    let unknown = world.append(vec![block(0, 1, 1, 2, 100)]).await.unwrap_err();
    assert!(
        matches!(&unknown, AppendError::Unavailable(error) if error.kind() == io::ErrorKind::TimedOut),
        "{unknown}"
    );
    assert_eq!(world.queue.load().queued_bytes, 0);
    assert_eq!(world.store.lock().bounds(PartitionId(0)).end, Offset(1));
    world.broker.broker_up(1).unwrap();
    let later = loop {
        match world.append(vec![block(0, 1, 1, 3, 100)]).await {
            Ok(later) => break later,
            Err(AppendError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert!(later[0].offset >= Offset(1));
    assert_eq!(world.store.lock().bounds(PartitionId(0)).end, later[0].offset.next());
}

/// Goal: what waits for an away broker is bounded; beyond that appends are refused at once, with nothing appended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_broker_is_bounded() {
    let world = World::new();
    world.append(vec![block(0, 1, 1, 0, 100)]).await.unwrap();
    world.broker.broker_down(1).unwrap();
    let waiting: Vec<_> = (0..3).map(|n| world.appender.append(&[block(0, 1, 1, n, 30_000)]).unwrap()).collect();
    let refused = world.appender.append(&[block(0, 1, 1, 9, 30_000)]).map(drop);
    assert!(matches!(refused, Err(AppendError::Overloaded { .. })), "{refused:?}");
    world.queue.close();
    let refused = world.appender.append(&[block(0, 1, 1, 9, 1)]).map(drop);
    assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
    world.queue.drained().await;
    for waited in waiting {
        assert!(matches!(waited.await.unwrap(), Err(AppendError::Unavailable(_))));
    }
}
