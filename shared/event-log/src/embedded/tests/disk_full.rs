//! A disk without room, a queue without room: refused by name, and over when it is over.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use types::{Offset, PartitionId, Timestamp};

use super::{DIR, EmbeddedConfig, config, open, ticking_clock};
use crate::{
    AppendError, EmbeddedLog, EventLog,
    conformance::{block, read_all},
    faults::MemoryFiles,
};

/// Goal: on a full disk appends fail as unavailable and nothing acked is lost, over and over without a trace on the
/// disk; with room again they succeed; a start needs no room.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let mut files = MemoryFiles::new(1);
    files.set_room(400 << 10);
    let log = open(&files).unwrap();
    let mut acked = 0;
    let full = loop {
        match log.append(vec![block(0, 1, 1, acked, 20_000)]).await {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&full, AppendError::Unavailable(error) if error.kind() == io::ErrorKind::StorageFull), "{full}");
    for _ in 0..10 {
        assert!(log.append(vec![block(0, 1, 1, 0, 90_000)]).await.is_err());
    }
    assert_eq!(read_all(&log, 0, Offset::ZERO).len() as u64, acked);
    files.kill();
    drop(log);
    let log = open(&files).unwrap();
    assert_eq!(read_all(&log, 0, Offset::ZERO).len() as u64, acked);
    assert!(log.append(vec![block(0, 1, 1, 0, 90_000)]).await.is_err());
    // Room comes from the log itself too: what is released goes, on a full disk as on any.
    for partition in 0..3 {
        log.release_before(PartitionId(partition), log.bounds(PartitionId(partition)).end);
    }
    let at = loop {
        match log.append(vec![block(0, 1, 1, 7, 20_000)]).await {
            Ok(at) => break at[0],
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(at.offset, Offset(acked));
    assert_eq!(read_all(&log, 0, at.offset)[0].body, block(0, 1, 1, 7, 20_000).body);
}

/// Goal: past its bound the queue refuses, its load says so, and what it took before is kept. The clock, which the
/// appender asks once a group, holds it up meanwhile.
#[tokio::test]
async fn a_full_queue_refuses() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let clock = move || {
        let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
        Timestamp(1)
    };
    let config = EmbeddedConfig { queue_bytes_max: 100_000, ..config(DIR.as_ref()) };
    let log = Arc::new(EmbeddedLog::open(config, Arc::new(MemoryFiles::new(1)), Arc::new(clock)).unwrap());
    let mut calls = Vec::new();
    for n in 0..4 {
        let log = log.clone();
        calls.push(tokio::spawn(async move { log.append(vec![block(0, 1, 1, n, 24_000)]).await }));
        tokio::task::yield_now().await;
    }
    let load = log.load();
    assert!(load.queued_bytes > 96_000 && load.queued_bytes <= load.queued_bytes_max, "{load:?}");
    let refused = log.append(vec![block(0, 1, 1, 9, 24_000)]).await;
    assert!(matches!(refused, Err(AppendError::Overloaded { .. })), "{refused:?}");
    drop(let_go);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(log.bounds(PartitionId(0)).end, Offset(4));
    log.append(vec![block(0, 1, 1, 9, 240_000)]).await.expect("one call beyond the bound passes an empty queue");
}

/// Goal: a group that lingers takes what comes meanwhile along, with one sync.
#[tokio::test]
async fn lingering_shares_a_sync() {
    let files = MemoryFiles::new(1);
    let config = EmbeddedConfig { linger: Duration::from_secs(60), group_bytes_max: 5 * 1_176, ..config(DIR.as_ref()) };
    let log = Arc::new(EmbeddedLog::open(config, Arc::new(files.clone()), Arc::new(ticking_clock())).unwrap());
    let before = files.calls();
    let calls: Vec<_> = (0..5)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![block(0, 1, 1, n, 1_000)]).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // Five calls for the new file (open, allocate, write, sync, sync of the directory), then one write and one sync.
    assert_eq!(files.calls() - before, 7);
}
