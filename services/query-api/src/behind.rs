//! Which replicas are far behind the log: one whose thread stands still, or whose way to the log is cut, answers all the same, of
//! ever older rows. What it says is right of the offset that it names; whoever has the choice asks another.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use types::{Offset, PartitionId};

/// A replica that lacks what the log had so long ago is far behind. Those that follow are behind by milliseconds.
const FAR_BEHIND: Duration = Duration::from_secs(2);

/// Gives the offset behind the newest record of a partition, as far as this process knows, at once.
pub(crate) type LogEnd = Box<dyn Fn(PartitionId) -> Offset + Send + Sync>;

/// Where the log's partitions ended a while ago.
pub(crate) struct LogEnds {
    end: LogEnd,
    seen: Mutex<BTreeMap<PartitionId, Seen>>,
}

/// Two looks at an end; between them lies as much time as makes a replica far behind.
#[derive(Clone, Copy)]
struct Seen {
    older: (Instant, Offset),
    newer: (Instant, Offset),
}

impl LogEnds {
    pub(crate) fn new(end: LogEnd) -> Self {
        Self { end, seen: Mutex::default() }
    }

    /// Whether what a replica had of a partition after it was asked, every record before `next`, lacks what the log had a while
    /// before `asked_at`: a long answer says nothing of what came meanwhile. Looks at the log once for it; without an earlier look
    /// nobody is far behind.
    pub(crate) fn is_far_ahead_of(&self, partition: PartitionId, next: Offset, asked_at: Instant) -> bool {
        let now = (Instant::now(), (self.end)(partition));
        // Its holders change numbers alone.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { older, newer } = seen.entry(partition).or_insert(Seen { older: now, newer: now });
        if now.0 - newer.0 >= FAR_BEHIND {
            (*older, *newer) = (*newer, now);
        }
        asked_at.saturating_duration_since(older.0) >= FAR_BEHIND && next < older.1
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    use super::*;

    /// Goal: whoever lacks what the log had two seconds ago is far behind by the fourth second at the latest, however often it is
    /// looked at; one that is a second behind never is, and in each partition for itself.
    #[tokio::test(start_paused = true)]
    async fn who_lacks_what_is_old_is_far_behind() {
        for look_every_ms in [10_u64, 700, 1_900, 2_100, 60_000] {
            let log = Arc::new(AtomicU64::new(0));
            let of_log = Arc::clone(&log);
            let ends = LogEnds::new(Box::new(move |_| Offset(of_log.load(Relaxed))));
            let began = Instant::now();
            for _ in 0..50 {
                tokio::time::advance(Duration::from_millis(look_every_ms)).await;
                // The log grows by one record each millisecond.
                let now_ms = began.elapsed().as_millis() as u64;
                log.store(now_ms, Relaxed);
                let stands = ends.is_far_ahead_of(PartitionId(0), Offset(5), Instant::now());
                let looked_ms = now_ms - look_every_ms;
                assert!(!stands || looked_ms >= 2_000);
                assert!(stands || looked_ms < 4_000.max(2 * look_every_ms), "{now_ms} by {look_every_ms}");
                let follows = Offset(now_ms.saturating_sub(1_000));
                assert!(!ends.is_far_ahead_of(PartitionId(1), follows, Instant::now()));
            }
        }
    }

    /// Goal: a replica that follows is not far behind for a scan that takes long: it answers of when it was asked.
    #[tokio::test(start_paused = true)]
    async fn long_answers_are_no_delay() {
        let log = Arc::new(AtomicU64::new(0));
        let of_log = Arc::clone(&log);
        let ends = LogEnds::new(Box::new(move |_| Offset(of_log.load(Relaxed))));
        for asked_s in 0..20 {
            let (asked_at, next) = (Instant::now(), Offset(asked_s * 5));
            // The log grows by one record each second, of five that the scan takes.
            tokio::time::advance(Duration::from_secs(5)).await;
            log.fetch_add(5, Relaxed);
            assert!(!ends.is_far_ahead_of(PartitionId(0), next, asked_at));
        }
    }
}
