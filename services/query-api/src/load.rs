//! How busy a node is and how long it takes, by what this process sees of it; and how many requests may be made twice.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;
use types::{Offset, PartitionId};

/// The share of the newest time in the average of all.
const NEWEST_SHARE: f64 = 0.1;
/// Times below this do not tell nodes apart: between equals the placement map decides, so that what a node keeps of earlier
/// scans is used again.
const TIME_MIN: Duration = Duration::from_millis(1);
/// Requests of which a node's percentile comes, and how many there must be at least.
const WINDOW: u64 = 512;
const TIMES_MIN: u64 = 32;
/// The percentile after which a second node is asked, and the bounds of the wait.
const HEDGE_QUANTILE: f64 = 0.95;
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(2);
/// The longest time that is told from longer ones, µs: that of the longest query.
const TIME_US_MAX: u64 = 60_000_000;
/// How long a node that failed is asked only where there is no other.
const PENALTY: Duration = Duration::from_secs(1);
/// How long a partition that was far behind is asked only where there is no other. The answer after that tells whether it still is.
const BEHIND_PENALTY: Duration = Duration::from_secs(10);

/// What is known of one node. All of it is a hint: it decides who is asked, never what is answered.
pub(crate) struct Load {
    /// Requests under way. Relaxed, as nothing hangs on it.
    outstanding: AtomicU64,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Average of the times of requests, µs, newer ones weighing more; 0 before the first.
    average_us: f64,
    /// Times of this window and of the one before, µs.
    now: Histogram<u32>,
    before: Histogram<u32>,
    failed_at: Option<Instant>,
    /// What its partitions are known to have applied.
    applied: BTreeMap<PartitionId, Offset>,
    /// When its partitions were last found far behind the log.
    behind_at: BTreeMap<PartitionId, Instant>,
}

impl Default for Load {
    fn default() -> Self {
        let times = || Histogram::new_with_bounds(1, TIME_US_MAX, 2).expect("the bounds are a histogram's");
        let seen = Seen {
            average_us: 0.0,
            now: times(),
            before: times(),
            failed_at: None,
            applied: BTreeMap::new(),
            behind_at: BTreeMap::new(),
        };
        Self { outstanding: AtomicU64::new(0), seen: Mutex::new(seen) }
    }
}

/// A request under way. Dropped before its end (another node was faster, or nobody waits any more), it took at least so long.
pub(crate) struct UnderWay<'a> {
    load: &'a Load,
    began: Instant,
    ended: bool,
}

impl Load {
    /// A request begins.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.outstanding.fetch_add(1, Relaxed);
        UnderWay { load: self, began: Instant::now(), ended: false }
    }

    /// About how long one more request would take, in units that compare: requests that wait times the time of one.
    pub(crate) fn score(&self) -> u64 {
        let average = Duration::from_micros(self.seen().average_us as u64).max(TIME_MIN);
        let millis = u64::try_from(average.as_millis()).unwrap_or(u64::MAX);
        (self.outstanding.load(Relaxed) + 1).saturating_mul(millis)
    }

    /// Whether it failed a moment ago.
    pub(crate) fn failed_lately(&self) -> bool {
        self.seen().failed_at.is_some_and(|at| at.elapsed() < PENALTY)
    }

    /// How long to wait for it before another is asked, too; `None` while nothing is known of its times.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        self.seen().slow_us().map(|us| Duration::from_micros(us).max(HEDGE_AFTER_MIN))
    }

    /// Whether a partition is known to have applied everything before an offset.
    pub(crate) fn has_applied(&self, partition: PartitionId, offset: Offset) -> bool {
        self.seen().applied.get(&partition).is_some_and(|next| *next >= offset)
    }

    /// A partition has applied everything before an offset.
    pub(crate) fn applied(&self, partition: PartitionId, offset: Offset) {
        let mut seen = self.seen();
        let next = seen.applied.entry(partition).or_insert(offset);
        *next = offset.max(*next);
    }

    /// A partition answered of its newest state, and was far behind the log or was not.
    pub(crate) fn answered_of(&self, partition: PartitionId, far_behind: bool) {
        let mut seen = self.seen();
        if far_behind {
            seen.behind_at.insert(partition, Instant::now());
        } else {
            seen.behind_at.remove(&partition);
        }
    }

    /// The partitions that were far behind the log a moment ago.
    pub(crate) fn far_behind(&self) -> Vec<PartitionId> {
        let seen = self.seen();
        let lately = seen.behind_at.iter().filter(|(_, at)| at.elapsed() < BEHIND_PENALTY);
        lately.map(|(partition, _)| *partition).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Its holders change numbers alone.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// The percentile of its times, µs; `None` while too few are known.
    fn slow_us(&self) -> Option<u64> {
        let times = if self.before.is_empty() { &self.now } else { &self.before };
        (times.len() >= TIMES_MIN).then(|| times.value_at_quantile(HEDGE_QUANTILE))
    }

    fn record(&mut self, us: u64) {
        self.now.saturating_record(us);
        if self.now.len() >= WINDOW {
            mem::swap(&mut self.now, &mut self.before);
            self.now.reset();
        }
    }
}

impl UnderWay<'_> {
    /// It was answered.
    pub(crate) fn answered(mut self) {
        self.ended = true;
        let us = micros(self.began);
        let mut seen = self.load.seen();
        seen.average_us +=
            if seen.average_us == 0.0 { us as f64 } else { (us as f64 - seen.average_us) * NEWEST_SHARE };
        seen.failed_at = None;
        seen.record(us);
    }

    /// The node did not answer it, or not as one that is there.
    pub(crate) fn failed(mut self) {
        self.ended = true;
        let mut seen = self.load.seen();
        seen.failed_at = Some(Instant::now());
        // It may be another process by now.
        seen.applied.clear();
        seen.behind_at.clear();
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.load.outstanding.fetch_sub(1, Relaxed);
        if !self.ended {
            let us = micros(self.began);
            let mut seen = self.load.seen();
            seen.average_us += (us as f64 - seen.average_us).max(0.0) * NEWEST_SHARE;
            // Without the slow ones that another node was faster than, the percentile would fall from window to window, and
            // second requests would go where none is needed.
            if seen.slow_us().is_some_and(|slow_us| us > slow_us) {
                seen.record(us);
            }
        }
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Second requests that may be made: one for every [`Budget::REQUESTS_PER_HEDGE`] first ones, saved up to some.
pub(crate) struct Budget {
    /// Requests that count for it, less those spent. Relaxed: a bound on extra work, which nothing else hangs on.
    saved: AtomicI64,
}

impl Budget {
    /// At most 5 % of the requests are made twice.
    pub(crate) const REQUESTS_PER_HEDGE: i64 = 20;
    const HEDGES_SAVED_MAX: i64 = 10;

    /// Nothing saved yet.
    pub(crate) fn new() -> Self {
        Self { saved: AtomicI64::new(0) }
    }

    /// A first request was made.
    pub(crate) fn earn(&self) {
        let most = Self::REQUESTS_PER_HEDGE * Self::HEDGES_SAVED_MAX;
        let _ = self.saved.fetch_update(Relaxed, Relaxed, |saved| (saved < most).then_some(saved + 1));
    }

    /// Takes a second request, where there is one left.
    pub(crate) fn take(&self) -> bool {
        let left = |saved: i64| saved.checked_sub(Self::REQUESTS_PER_HEDGE).filter(|left| *left >= 0);
        self.saved.fetch_update(Relaxed, Relaxed, left).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer_in(load: &Load, millis: u64) {
        let request = load.begin();
        tokio::time::advance(Duration::from_millis(millis)).await;
        request.answered();
    }

    /// Goal: a node's score rises with what it has to do and with its times, those that nobody waited for to the end among
    /// them; times below a millisecond do not count.
    #[tokio::test(start_paused = true)]
    async fn scores_follow_load_and_time() {
        let load = Load::default();
        assert_eq!(load.score(), 1);
        answer_in(&load, 0).await;
        assert_eq!(load.score(), 1);
        let (first, second) = (load.begin(), load.begin());
        assert_eq!(load.score(), 3);
        drop((first, second));
        for _ in 0..60 {
            answer_in(&load, 30).await;
        }
        assert!((29..=30).contains(&load.score()), "{}", load.score());
        let stuck = load.begin();
        tokio::time::advance(Duration::from_secs(10)).await;
        drop(stuck);
        assert!(load.score() > 900, "{}", load.score());
    }

    /// Goal: the wait before a second request is the 95th percentile of a node's times, and none before enough are known; old
    /// times are forgotten.
    #[tokio::test(start_paused = true)]
    async fn waits_are_percentiles() {
        let load = Load::default();
        for number in 0..TIMES_MIN {
            assert_eq!(load.hedge_after(), None);
            answer_in(&load, number % 20 + 10).await;
        }
        let after = load.hedge_after().unwrap().as_millis();
        assert!((27..=30).contains(&after), "{after}");
        for _ in 0..2 * WINDOW {
            answer_in(&load, 1).await;
        }
        assert_eq!(load.hedge_after(), Some(HEDGE_AFTER_MIN));
    }

    /// Goal: the percentile stays what it is where all that take longer are left for another node that is faster, and one that is
    /// left early says nothing.
    #[tokio::test(start_paused = true)]
    async fn those_left_for_others_count() {
        let load = Load::default();
        for number in 0..20 * WINDOW {
            let takes = Duration::from_millis(number % 20 + 10);
            let request = load.begin();
            match load.hedge_after() {
                Some(after) if takes > after => {
                    tokio::time::advance(after + Duration::from_millis(1)).await;
                    drop(request);
                }
                _ => {
                    tokio::time::advance(takes).await;
                    request.answered();
                }
            }
            drop(load.begin());
        }
        let after = load.hedge_after().unwrap().as_millis();
        assert!((27..=30).contains(&after), "{after}");
    }

    /// Goal: a failure counts for a while, and until the node answers again.
    #[tokio::test(start_paused = true)]
    async fn failures_are_forgiven() {
        let load = Load::default();
        load.applied(PartitionId(1), Offset(7));
        assert!(load.has_applied(PartitionId(1), Offset(7)) && !load.has_applied(PartitionId(1), Offset(8)));
        load.begin().failed();
        assert!(load.failed_lately() && !load.has_applied(PartitionId(1), Offset(7)));
        tokio::time::advance(PENALTY).await;
        assert!(!load.failed_lately());
        load.begin().failed();
        answer_in(&load, 1).await;
        assert!(!load.failed_lately());
    }

    /// Goal: no more than one request in twenty is made twice, however long none was.
    #[test]
    fn second_requests_are_few() {
        let budget = Budget::new();
        let mut taken = 0;
        for _ in 0..10_000 {
            budget.earn();
            taken += i64::from(budget.take());
        }
        assert_eq!(taken, 10_000 / Budget::REQUESTS_PER_HEDGE);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.take()).count() as i64, Budget::HEDGES_SAVED_MAX);
    }
}
