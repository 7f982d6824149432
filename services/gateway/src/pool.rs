//! The threads that decode: as many as the machine has cores, fed by one bounded queue.
//!
//! 1. Nothing that can take a millisecond runs on a tokio worker; a large body takes longer than that.
//! 2. A job that has waited for longer than [`WAIT_MAX`] is given up when its turn comes, as CoDel drops a packet
//!    (RFC 8289): what comes behind it is still in time then, and would not be if the late were served first.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use admission::overload::spread;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;
use types::{ApiError, ErrorCode};

use crate::{admission::RETRY_AFTER_LEAST, clock::Clock, in_flight::WAIT_MAX};

/// Jobs that wait for a thread.
const QUEUE_JOBS_MAX: usize = 1_024;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs in the order in which they come.
pub(crate) struct Pool {
    queue: Option<Sender<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
    /// Spreads the times to come back. Relaxed: it orders nothing.
    refusals: AtomicU64,
}

impl Pool {
    /// Starts `threads` threads, at least one. `salt` spreads the times to come back.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(threads: usize, clock: Arc<dyn Clock>, salt: u64) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::bounded::<Job>(QUEUE_JOBS_MAX);
        let start = |n| {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("decode-{n}")).spawn(move || jobs.iter().for_each(|job| job()))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { queue: Some(queue), threads: Mutex::new(threads), clock, refusals: AtomicU64::new(salt) })
    }

    /// Runs a job on one of the threads. Dropping the future does not stop a job that has begun.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where too many jobs wait, or this one waited for too long; `INTERNAL` where the job panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let (done, result) = oneshot::channel();
        let (clock, queued_at) = (Arc::clone(&self.clock), self.clock.monotonic());
        let job = Box::new(move || {
            if done.is_closed() {
                return;
            }
            let in_time = clock.monotonic().saturating_sub(queued_at) <= WAIT_MAX;
            // Nobody sees what a job that panicked left half done: it owns what it works on.
            if let Ok(value) = catch_unwind(AssertUnwindSafe(|| in_time.then(job))) {
                // Nobody waits where the request was given up.
                let _ = done.send(value);
            }
        });
        match self.queue.as_ref().expect("taken in drop alone").try_send(job) {
            Ok(()) => {
                let done = result.await;
                done.map_err(|_| ApiError::internal("decoding failed; this is a defect of the server"))?
                    .ok_or_else(|| self.refusal("this request waited too long to be decoded"))
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Err(self.refusal("too many requests wait to be decoded"))
            }
        }
    }

    fn refusal(&self, message: &str) -> ApiError {
        metrics::counter!("truenow_ingest_limited_total", "limit" => "decode_queue").increment(1);
        ApiError::new(ErrorCode::ResourceExhausted, message)
            .with_field("decode_queue")
            .with_retry_after(spread(RETRY_AFTER_LEAST, self.refusals.fetch_add(1, Relaxed)))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.queue.take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // A job may hold the last reference to its pool; then this thread ends by itself.
        let this = thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            // Jobs catch their panics, so a thread ends in order.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use futures_util::FutureExt as _;
    use types::Timestamp;

    use super::*;

    /// A clock that a test sets.
    #[derive(Default)]
    struct TestClock(Mutex<Duration>);

    impl TestClock {
        fn advance(&self, by: Duration) {
            *self.0.lock().unwrap() += by;
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    fn pool(clock: &Arc<TestClock>) -> Pool {
        Pool::start(1, Arc::clone(clock) as Arc<dyn Clock>, 1).unwrap()
    }

    /// Goal: a job's panic is that job's error, and the threads go on.
    #[tokio::test]
    async fn panics_are_contained() {
        let pool = pool(&Arc::default());
        let panicked = pool.run(|| panic!("on purpose")).await;
        assert_eq!(panicked.map(|()| 0).unwrap_err().code, ErrorCode::Internal);
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    /// Goal: the queue is bounded: what does not fit is refused at once.
    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = pool(&Arc::default());
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let mut jobs: Vec<_> = Vec::new();
        for _ in 0..QUEUE_JOBS_MAX + 2 {
            let gate = gate.clone();
            jobs.push(Box::pin(pool.run(move || gate.recv().is_err())));
        }
        let mut refused = 0;
        for job in &mut jobs {
            if let Some(done) = job.now_or_never() {
                assert_eq!(done.unwrap_err().code, ErrorCode::ResourceExhausted);
                refused += 1;
            }
        }
        assert!((1..=2).contains(&refused), "{refused}");
        drop(open);
    }

    /// Goal: a job whose turn comes too late is refused and not run, one that is just in time is run, and one that nobody
    /// waits for any more is not.
    #[tokio::test]
    async fn late_jobs_are_given_up() {
        let clock = Arc::new(TestClock::default());
        let pool = pool(&clock);
        let (begin, begun) = crossbeam_channel::bounded::<()>(1);
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let ran = Arc::new(AtomicU64::new(0));
        let job = |number: u64| {
            let ran = Arc::clone(&ran);
            Box::pin(pool.run(move || ran.fetch_add(number, Relaxed)))
        };
        let mut first = Box::pin(pool.run(move || begin.send(()).is_err() || gate.recv().is_err()));
        let (mut late, mut forsaken) = (job(1), job(10));
        assert!((&mut first).now_or_never().is_none() && (&mut late).now_or_never().is_none());
        begun.recv().unwrap();
        clock.advance(Duration::from_nanos(1));
        let mut in_time = job(100);
        assert!((&mut in_time).now_or_never().is_none() && (&mut forsaken).now_or_never().is_none());
        drop(forsaken);
        clock.advance(WAIT_MAX);
        open.send(()).unwrap();
        assert_eq!(first.await, Ok(false));
        let refused = late.await.unwrap_err();
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::ResourceExhausted, Some("decode_queue")));
        assert!(refused.retry_after.is_some());
        in_time.await.unwrap();
        assert_eq!(ran.load(Relaxed), 100);
    }
}
