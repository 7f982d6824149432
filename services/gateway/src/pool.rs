//! The threads that decode: as many as the machine has cores, fed by one bounded queue.
//!
//! Nothing that can take a millisecond runs on a tokio worker; a large body takes longer than that.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;
use types::{ApiError, ErrorCode};

/// Jobs that wait for a thread.
const QUEUE_JOBS_MAX: usize = 1_024;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs in the order in which they come.
pub(crate) struct Pool {
    queue: Option<Sender<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::bounded::<Job>(QUEUE_JOBS_MAX);
        let start = |n| {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("decode-{n}")).spawn(move || jobs.iter().for_each(|job| job()))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { queue: Some(queue), threads: Mutex::new(threads) })
    }

    /// Runs a job on one of the threads. Dropping the future does not stop a job that has begun.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where too many jobs wait; `INTERNAL` where the job panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // Nobody sees what a job that panicked left half done: it owns what it works on.
            if let Ok(value) = catch_unwind(AssertUnwindSafe(job)) {
                // Nobody waits where the request was given up.
                let _ = done.send(value);
            }
        });
        match self.queue.as_ref().expect("taken in drop alone").try_send(job) {
            Ok(()) => result.await.map_err(|_| ApiError::internal("decoding failed; this is a defect of the server")),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let error = ApiError::new(ErrorCode::ResourceExhausted, "too many requests wait to be decoded");
                Err(error.with_field("decode_queue").with_retry_after(Duration::from_secs(1)))
            }
        }
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
    use super::*;

    /// Goal: a job's panic is that job's error, and the threads go on.
    #[tokio::test]
    async fn panics_are_contained() {
        let pool = Pool::start(1).unwrap();
        let panicked = pool.run(|| panic!("on purpose")).await;
        assert_eq!(panicked.map(|()| 0).unwrap_err().code, ErrorCode::Internal);
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    /// Goal: the queue is bounded: what does not fit is refused at once.
    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::start(1).unwrap();
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let mut jobs: Vec<_> = Vec::new();
        for _ in 0..QUEUE_JOBS_MAX + 2 {
            let gate = gate.clone();
            jobs.push(Box::pin(pool.run(move || gate.recv().is_err())));
        }
        let mut refused = 0;
        for job in &mut jobs {
            if let Some(done) = futures_util::FutureExt::now_or_never(job) {
                assert_eq!(done.unwrap_err().code, ErrorCode::ResourceExhausted);
                refused += 1;
            }
        }
        assert!((1..=2).contains(&refused), "{refused}");
        drop(open);
    }
}
