//! What is wrong with a topic is named, and never skipped.

use rdkafka::{
    admin::{NewTopic, TopicReplication},
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::*;

/// Goal: a topic whose settings lose records or their times is refused with the setting and what it must be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn unsafe_topics_are_refused() {
    let safe = [("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "delete")];
    let unsafe_ones = [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000000"),
    ];
    for (setting, value) in unsafe_ones {
        let config = config();
        let (admin, options) = admin(&config);
        let mut topic =
            NewTopic::new(&config.topic, 3, TopicReplication::Fixed(1)).set("max.message.bytes", "99999999");
        for (key, value) in safe.into_iter().chain([(setting, value)]) {
            topic.config.retain(|(known, _)| *known != key);
            topic = topic.set(key, value);
        }
        admin.create_topics(&[topic], &options).await.unwrap()[0].as_ref().unwrap();
        let refused = try_open(&config).await.map(drop).unwrap_err();
        assert!(
            matches!(&refused, KafkaOpenError::Topic { setting: named, found, .. } if *named == setting && found == value),
            "{refused}"
        );
    }
}

/// Goal: a topic that exists keeps its partitions, whatever is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn the_number_of_partitions_is_fixed() {
    let config = config();
    end(open(&config).await).await;
    let again = open(&KafkaConfig { partitions: 7, ..config }).await;
    assert_eq!((again.partitions(), again.durability()), (3, Durability::Broker));
    end(again).await;
}

/// Goal: a topic of the same name that was made anew is not taken for the one that was read, neither while it is shorter nor when
/// it has grown past that; without what was counted it is a new log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn a_topic_made_anew_is_another() {
    let config = config();
    let log = open(&config).await;
    let first = log.identity();
    log.append((0..3).map(|n| block(0, 1, 1, n, 100)).collect()).await.unwrap();
    end(log).await;
    let (admin, options) = admin(&config);
    let delete = async |topics: &[&str]| {
        for deleted in admin.delete_topics(topics, &options).await.unwrap() {
            deleted.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    delete(&[&config.topic]).await;
    let refused = try_open(&config).await.map(drop).unwrap_err();
    assert!(matches!(refused, KafkaOpenError::Another { partition: 0, .. }), "{refused}");

    // Another log of that name, with its own stands, has gone further.
    let stands = config.stands_topic();
    let stranger: BaseProducer = client::producer(&config).create().unwrap();
    for n in 0..5 {
        let block = block(0, 9, 1, n, 50);
        let record = BaseRecord::to(&config.topic).partition(0).key("").payload(&*block.body);
        stranger.send(record.headers(record::headers(&block.header))).map_err(|(error, _)| error).unwrap();
    }
    stranger.flush(Duration::from_secs(10)).unwrap();
    let refused = try_open(&config).await.map(drop).unwrap_err();
    assert!(
        matches!(&refused, KafkaOpenError::Another { what, .. } if what.contains("not the one that was counted")),
        "{refused}"
    );
    delete(&[&stands]).await;
    let log = open(&config).await;
    assert_ne!(log.identity(), first);
    assert_eq!(log.bounds(PartitionId(0)).end, Offset(5));
    end(log).await;
}

/// Goal: a record that is no block is damage of that record alone, for a reader that waits as for one that comes later, and the
/// rows around it are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn a_foreign_record_is_named() {
    let config = config();
    let log = open(&config).await;
    log.append(vec![block(0, 1, 1, 0, 100)]).await.unwrap();
    let stranger: BaseProducer = client::producer(&config).create().unwrap();
    let record: BaseRecord<'_, str, str> = BaseRecord::to(&config.topic).partition(0).payload("hello");
    stranger.send(record).map_err(|(error, _)| error).unwrap();
    stranger.flush(Duration::from_secs(10)).unwrap();
    log.append(vec![block(0, 1, 1, 1, 100)]).await.unwrap();
    for _ in 0..2 {
        let mut records = Vec::new();
        let mut reader = log.reader(PartitionId(0), Offset::ZERO).unwrap();
        assert_eq!(reader.poll(1 << 20, FOLLOW_TIMEOUT, &mut records).unwrap(), 1);
        let damaged = reader.poll(1 << 20, FOLLOW_TIMEOUT, &mut records);
        assert!(matches!(damaged, Err(ReadError::Corrupt { offset: Offset(1), .. })), "{damaged:?}");
        let mut reader = log.reader(PartitionId(0), Offset(2)).unwrap();
        assert_eq!(reader.poll(1 << 20, FOLLOW_TIMEOUT, &mut records).unwrap(), 1);
    }
    let key = block(0, 1, 0, 0, 0).header.key;
    assert_eq!(log.ledger(PartitionId(0), key, Offset(2)).unwrap().acked_rows, 2);
    end(log).await;
}

/// Goal: records that the topic itself dropped are a gap, for readers in the middle too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn what_retention_took_is_a_gap() {
    let config = KafkaConfig { delete_released: false, tail_bytes_max: 0, ..config() };
    let log = open(&config).await;
    for n in 0..10 {
        log.append(vec![block(0, 1, 1, n, 100)]).await.unwrap();
    }
    let mut reader = log.reader(PartitionId(0), Offset::ZERO).unwrap();
    let (admin, options) = admin(&config);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&config.topic, 0, rdkafka::Offset::Offset(6)).unwrap();
    admin.delete_records(&list, &options).await.unwrap();
    let gone = reader.poll(1 << 20, FOLLOW_TIMEOUT, &mut Vec::new());
    assert!(matches!(gone, Err(ReadError::Gap { start: Offset(6), .. })), "{gone:?}");
    while log.bounds(PartitionId(0)).start < Offset(6) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(read_all(&log, 0, Offset(6)).len(), 4);
    end(log).await;
}
