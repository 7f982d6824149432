//! A process that is behind what others have seen of the topic, or ahead of what the topic has left.

use super::{away::World, *};

impl World {
    /// A log of this process that nobody follows the topic for, unless a test does.
    pub(super) fn log(&self) -> KafkaLog {
        let nothing = || (stand::Stand::empty(), Offset::ZERO, Offset::ZERO);
        let store = Arc::new(Store::new(vec![nothing(), nothing()], 1 << 20));
        let config = KafkaConfig::new(self.broker.bootstrap_servers(), away::TOPIC, 2);
        KafkaLog {
            store,
            queue: self.queue.clone(),
            appender: self.appender.clone(),
            source: Source { settings: client::consumer(&config), topic: away::TOPIC.into() },
            partitions: 2,
            durability: Durability::Broker,
            identity: 1,
            has_ended: watch::channel(true).1,
            threads: Threads::default(),
        }
    }
}

/// Goal: an offset that another process has seen is waited for, as long as the brokers have it; what they have not is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_other_processes_are_waited_for() {
    let (world, partition) = (World::new(), PartitionId(0));
    let own = block(0, 1, 3, 0, 100);
    world.append(vec![own.clone()]).await.unwrap();
    let log = world.log();
    assert_eq!(log.bounds(partition).end, Offset::ZERO, "it has not read the record");
    let beyond = log.reader(partition, Offset(2)).map(drop).unwrap_err();
    assert!(matches!(beyond, ReadError::NoSuchOffset { wanted: Offset(2), .. }), "{beyond}");
    let refused = log.ledger(partition, own.header.key, Offset(2)).unwrap_err();
    assert!(matches!(refused, ReadError::NoSuchOffset { .. }), "{refused}");
    let mut reader = log.reader(partition, Offset(1)).unwrap();
    assert_eq!(reader.poll(1, Duration::ZERO, &mut Vec::new()).unwrap(), 0);

    let ledger = std::thread::scope(|scope| {
        let asks = scope.spawn(|| log.ledger(partition, own.header.key, Offset(1)));
        std::thread::sleep(Duration::from_millis(100));
        let record =
            Record { offset: Offset::ZERO, append_time: Timestamp(7), header: own.header, body: own.body.clone() };
        log.store.follow(partition, [store::Followed::Record(record)]);
        asks.join().unwrap().unwrap()
    });
    assert_eq!((ledger.acked_rows, ledger.in_flight_rows, ledger.end), (3, 0, Offset(1)));
}

/// Goal: nothing is acked into a partition of which the topic lost what was read; others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_partition_takes_nothing() {
    let world = World::new();
    let log = world.log();
    log.append(vec![block(0, 1, 1, 0, 100)]).await.unwrap();
    log.store.truncated(PartitionId(0));
    let refused = log.append(vec![block(1, 1, 1, 1, 100), block(0, 1, 1, 2, 100)]).await.unwrap_err();
    assert!(refused.to_string().contains("partition 0"), "{refused}");
    assert!(matches!(refused, AppendError::Unavailable(_)));
    log.append(vec![block(1, 1, 1, 3, 100)]).await.unwrap();
}
