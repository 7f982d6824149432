//! How far the application is behind what came in since the start, looked at ten times a second, for those who admit events.
//!
//! What the log held at the start counts for nothing: a node that reads its checkpoints or catches up takes events, as long as
//! what it takes stays within the same limits as at any other time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use event_log::EventLog;
use proto::progress::{ApplyLag, Lag, PartitionLag, PartitionLags};
use tokio::time::MissedTickBehavior;
use types::Timestamp;

use crate::{PartitionProgress, Partitions};

/// How often to look.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The lag at the last look. Relaxed: two figures that order nothing, and need not be of the same look.
#[derive(Debug, Default)]
pub(crate) struct LagGauge {
    bytes: AtomicU64,
    age_us: AtomicU64,
    by_partition: ArcSwap<Vec<PartitionLag>>,
}

impl LagGauge {
    fn set(&self, lags: Vec<PartitionLag>) {
        let lag = total(&lags);
        self.by_partition.store(Arc::new(lags));
        self.bytes.store(lag.bytes, Relaxed);
        self.age_us.store(u64::try_from(lag.age.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl ApplyLag for LagGauge {
    fn lag(&self) -> Lag {
        Lag { bytes: self.bytes.load(Relaxed), age: Duration::from_micros(self.age_us.load(Relaxed)) }
    }
}

impl PartitionLags for LagGauge {
    fn lags(&self) -> Arc<Vec<PartitionLag>> {
        self.by_partition.load_full()
    }
}

/// Keeps the gauge up to date.
pub(crate) async fn follow(gauge: Arc<LagGauge>, log: Arc<dyn EventLog>, partitions: Partitions) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (log, partitions) = (Arc::clone(&log), partitions.progress());
        // The time of a record that left the log's memory is looked up on disk.
        match tokio::task::spawn_blocking(move || lags_at(log.as_ref(), &partitions, now())).await {
            Ok(looked) => gauge.set(looked),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => return,
        }
    }
}

/// The lag of all partitions together.
fn total(lags: &[PartitionLag]) -> Lag {
    let all = lags.iter().map(|partition| partition.lag);
    all.fold(Lag::default(), |all, lag| Lag { bytes: all.bytes + lag.bytes, age: all.age.max(lag.age) })
}

/// The lag of each partition at a time.
fn lags_at(log: &dyn EventLog, partitions: &[Arc<PartitionProgress>], now: Timestamp) -> Vec<PartitionLag> {
    let lag = |progress: &Arc<PartitionProgress>| {
        // The first record that waits and came since the start.
        let (partition, next) = (progress.partition(), progress.next_offset().max(progress.recover_to()));
        // What is applied is asked for first: it only grows, so the difference is never too small.
        let applied_bytes = progress.applied_bytes();
        let bounds = log.bounds(partition);
        if next >= bounds.end {
            return PartitionLag { partition, lag: Lag::default() };
        }
        let bytes = log.appended_bytes(partition).saturating_sub(applied_bytes);
        let waiting_since = log.append_time_of(partition, next).unwrap_or(bounds.last_append_time);
        let age_us = u64::try_from(now.micros_since(waiting_since)).unwrap_or(0);
        PartitionLag { partition, lag: Lag { bytes, age: Duration::from_micros(age_us) } }
    };
    partitions.iter().map(lag).collect()
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use codec::{BlockHeader, BodyBuilder, EventRef};
    use event_log::{Append, EmbeddedConfig, EmbeddedLog, faults::MemoryFiles};
    use proto::hot_tier::{NotApplied, PartitionWriter};
    use service::{Health, Shutdown};
    use types::{GapReason, Generation, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId};

    use super::*;
    use crate::worker::{Means, Worker};

    /// Applies so many records, and waits with the next.
    struct Slow {
        next: Offset,
        until: Arc<Mutex<u64>>,
        /// The offset of a record that it passes over.
        refuses: u64,
    }

    impl PartitionWriter for Slow {
        fn partition(&self) -> PartitionId {
            PartitionId(0)
        }

        fn next_offset(&self) -> Offset {
            self.next
        }

        fn apply(&mut self, _: Offset, _: Timestamp, _: &BlockHeader, _: &[u8]) -> Result<(), NotApplied> {
            if self.next.0 == *self.until.lock().unwrap() {
                return Err(NotApplied::TryAgain(types::ApiError::unavailable("slow")));
            }
            self.next = self.next.next();
            if self.next.0 == self.refuses + 1 {
                return Err(NotApplied::PassedOver(types::ApiError::internal("refused")));
            }
            Ok(())
        }

        fn pass_over(&mut self, end: Offset, _: GapReason, _: Option<&BlockHeader>) -> Result<(), NotApplied> {
            self.next = end;
            Ok(())
        }

        fn housekeep(&mut self) {}

        fn due_at(&self) -> Option<Timestamp> {
            None
        }

        fn needed_from(&self) -> Offset {
            Offset::ZERO
        }

        fn recovered(&mut self) {}
    }

    fn block() -> Append {
        let event =
            EventRef { namespace: "n", table: "t", event_time: Some(1), event_id: None, dimensions: &[], metrics: &[] };
        let mut builder = BodyBuilder::default();
        builder.push(&event, Timestamp(0), 0).unwrap();
        let body = builder.finish(false).unwrap();
        let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
        Append { header: body.header(key, SchemaVersion(1), PartitionId(0), None), body: body.bytes }
    }

    struct World {
        log: Arc<EmbeddedLog>,
        worker: Worker,
        progress: Arc<PartitionProgress>,
        until: Arc<Mutex<u64>>,
    }

    impl World {
        async fn append(&self, blocks: usize) {
            self.log.append(vec![block(); blocks]).await.unwrap();
        }

        /// Applies up to a record, and gives the lag at a time.
        fn lag(&mut self, until: u64, now: i64) -> Lag {
            *self.until.lock().unwrap() = until;
            for _ in 0..20 {
                let _ = self.worker.step(Duration::ZERO);
            }
            total(&lags_at(self.log.as_ref(), &[Arc::clone(&self.progress)], Timestamp(now)))
        }
    }

    /// A log of one partition that is appended to at the time given, with three records from before the start.
    async fn world(clock: Arc<Mutex<i64>>) -> World {
        let clock = move || Timestamp(*clock.lock().unwrap());
        let config = EmbeddedConfig::new("/log", 1);
        let files = Arc::new(MemoryFiles::new(1));
        let log = Arc::new(EmbeddedLog::open(config, files, Arc::new(clock)).unwrap());
        log.append(vec![block(); 3]).await.unwrap();
        let progress = Arc::new(PartitionProgress::of(log.as_ref(), PartitionId(0)));
        let until = Arc::new(Mutex::new(0));
        let writer = Slow { next: Offset::ZERO, until: Arc::clone(&until), refuses: 5 };
        let means = Means {
            log: log.clone(),
            progress: Arc::clone(&progress),
            health: Health::starting("test", "0"),
            stop: Shutdown::new(),
        };
        World { worker: Worker::new(means, Box::new(writer), 1), log, progress, until }
    }

    /// Goal: the lag is the bytes that came since the start and wait, and the age of the oldest record among them; what was
    /// passed over waits no more; nothing waits, no lag.
    #[tokio::test]
    async fn lag_is_what_waits() {
        let clock = Arc::new(Mutex::new(5));
        let bytes = block().body.len() as u64;
        let mut world = world(Arc::clone(&clock)).await;
        let us = |us| Duration::from_micros(us);
        assert_eq!(world.lag(0, 1_500), Lag::default());
        *clock.lock().unwrap() = 2_000;
        world.append(4).await;
        assert_eq!(world.lag(2, 2_100), Lag { bytes: 4 * bytes, age: us(100) });
        assert_eq!(world.lag(3, 2_100), Lag { bytes: 4 * bytes, age: us(100) });
        assert_eq!(world.lag(6, 2_200), Lag { bytes, age: us(200) });
        assert_eq!(world.lag(7, 9_000), Lag::default());
        *clock.lock().unwrap() = 10_000;
        world.append(1).await;
        assert_eq!(world.lag(7, 10_001), Lag { bytes, age: us(1) });
    }

    /// Goal: what comes while there is no writer yet waits like anything else, and is part of what recovering does not wait
    /// for.
    #[tokio::test]
    async fn events_without_a_writer_wait() {
        let clock = Arc::new(Mutex::new(5));
        let bytes = block().body.len() as u64;
        let World { log, progress, .. } = world(Arc::clone(&clock)).await;
        let lag = |now| total(&lags_at(log.as_ref(), &[Arc::clone(&progress)], Timestamp(now)));
        assert_eq!(lag(9_000), Lag::default());
        *clock.lock().unwrap() = 2_000;
        log.append(vec![block(); 2]).await.unwrap();
        assert_eq!(lag(2_100), Lag { bytes: 2 * bytes, age: Duration::from_micros(100) });
        let means = Means {
            log: log.clone(),
            progress: Arc::clone(&progress),
            health: Health::starting("test", "0"),
            stop: Shutdown::new(),
        };
        let writer = Slow { next: Offset::ZERO, until: Arc::new(Mutex::new(4)), refuses: u64::MAX - 1 };
        let mut worker = Worker::new(means, Box::new(writer), 1);
        (0..20).for_each(|_| drop(worker.step(Duration::ZERO)));
        assert_eq!(lag(2_200), Lag { bytes, age: Duration::from_micros(200) });
        assert_eq!(progress.snapshot().records_recovered, 3);
    }
}
