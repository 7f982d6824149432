//! Rows are counted over all appenders, over deleted records and over lives.

use super::*;

fn key(table: u64) -> TableKey {
    block(0, table, 0, 0, 0).header.key
}

fn acked(log: &KafkaLog, table: u64) -> u64 {
    let end = log.bounds(PartitionId(0)).end;
    log.ledger(PartitionId(0), key(table), end).unwrap().acked_rows
}

/// Goal: every process comes to the same counts, whoever appended, and the counts outlive the records and the processes; a
/// start reads what was stored, not what was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn counts_are_those_of_all_appenders() {
    let config = config();
    let (one, other) = (open(&config).await, open(&config).await);
    assert_eq!(one.identity(), other.identity());
    assert_ne!(one.appender(), other.appender());
    let mut rows = [0; 2];
    for n in 0..60 {
        let (log, table) = (if n % 3 == 0 { &one } else { &other }, 1 + n % 2);
        rows[(n % 2) as usize] += n;
        log.append(vec![block(0, table, n as u32, n, 10_000)]).await.unwrap();
    }
    let end_of = |log: &KafkaLog| log.bounds(PartitionId(0)).end;
    while end_of(&one) < Offset(60) || end_of(&other) < Offset(60) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for log in [&one, &other] {
        assert_eq!([acked(log, 1), acked(log, 2)], rows);
        let times: Vec<_> = read_all(log, 0, Offset::ZERO).iter().map(|record| record.append_time).collect();
        assert!(times.is_sorted());
    }
    one.release_before(PartitionId(0), Offset(50));
    while one.bounds(PartitionId(0)).start < Offset(50) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    end(one).await;
    end(other).await;

    let again = open(&config).await;
    assert_eq!(again.bounds(PartitionId(0)).start, Offset(50));
    assert_eq!([acked(&again, 1), acked(&again, 2)], rows);
    again.append(vec![block(0, 1, 7, 0, 10)]).await.unwrap();
    let waits = again.ledger(PartitionId(0), key(1), Offset(60)).unwrap();
    assert_eq!((waits.acked_rows, waits.in_flight_rows, waits.end), (rows[0] + 7, 7, Offset(61)));
    end(again).await;
}

/// Goal: a process that ends without a word has its records counted by the next, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker: scripts/test_kafka.sh"]
async fn what_was_not_stored_is_counted_again() {
    // Nothing is stored but at the end, and that is left out.
    let config = KafkaConfig { keep_interval: Duration::from_secs(3_600), ..config() };
    let log = open(&config).await;
    for n in 0..20 {
        log.append(vec![block(0, 1, 2, n, 1_000)]).await.unwrap();
    }
    std::mem::forget(log);
    let again = open(&config).await;
    assert_eq!(acked(&again, 1), 40);
    assert_eq!(read_all(&again, 0, Offset::ZERO).len(), 20);
    end(again).await;
    let last = open(&config).await;
    assert_eq!(acked(&last, 1), 40);
    end(last).await;
}
