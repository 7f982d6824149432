//! How many queries run at once, and how many may wait: what they hold in memory is bounded by their number.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{ApiError, ErrorCode};

use crate::answer::timed_out;

/// Queries that run at once.
const RUNNING_MAX: usize = 64;
/// Queries that wait for a place.
const WAITING_MAX: usize = 4_096;

/// Places for queries.
pub(crate) struct Places {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING_MAX)), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// A place, which is given back when it is dropped; those who wait get theirs in the order in which they came. Work that
    /// may outlast its request has a share of the place.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where too many wait already, `DEADLINE_EXCEEDED` where none was free in time.
    pub(crate) async fn take(
        &self,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Arc<OwnedSemaphorePermit>, ApiError> {
        if let Ok(place) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Arc::new(place));
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "too many queries wait; try again later");
            return Err(error.with_field("queries").with_retry_after(Duration::from_secs(1)));
        };
        match tokio::time::timeout_at(deadline.into(), Arc::clone(&self.running).acquire_owned()).await {
            Ok(place) => Ok(Arc::new(place.expect("the semaphore is never closed"))),
            Err(_) => Err(timed_out(timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no more than the limit run at once, one that waits gets the next free place, and no wait is for ever.
    #[tokio::test(start_paused = true)]
    async fn places_are_bounded() {
        let places = Places::new();
        let soon = Duration::from_millis(10);
        let deadline = || tokio::time::Instant::now().into_std() + soon;
        let mut taken = Vec::new();
        for _ in 0..RUNNING_MAX {
            taken.push(places.take(deadline(), soon).await.unwrap());
        }
        assert_eq!(places.take(deadline(), soon).await.unwrap_err().code, ErrorCode::DeadlineExceeded);
        let (next, ()) = tokio::join!(places.take(deadline(), soon), async { drop(taken.pop()) });
        assert!(next.is_ok());
    }
}
