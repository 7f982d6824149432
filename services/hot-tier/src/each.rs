//! A function applied to some items on the scan threads, in any order; the results come in the items' order.

use std::sync::{
    Arc, Mutex,
    atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Relaxed},
    },
};

use tokio::sync::oneshot;
use types::ApiError;

use crate::{
    pool::{Job, Queue},
    scan::lock,
};

type Work<T, R> = Box<dyn Fn(&T) -> Result<R, ApiError> + Send + Sync>;

/// Results with the indexes of their items, in whichever order they came.
type Done<R> = Vec<(usize, Result<R, ApiError>)>;

/// Items under way.
struct Each<T, R> {
    items: Vec<T>,
    work: Work<T, R>,
    /// The first item that nobody has taken. Relaxed: the number is all that it says; items were published by the queue.
    next: AtomicUsize,
    /// Items that are not done. AcqRel: whoever takes it to zero sees what all others stored in `results`.
    left: AtomicUsize,
    results: Mutex<Done<R>>,
    reply: Mutex<Option<oneshot::Sender<Done<R>>>>,
}

/// Applies `work` to each of `items` on the threads of `queue`.
///
/// # Errors
/// The first item's that failed, in the items' order; `INTERNAL` where the work panicked.
pub(crate) async fn for_each<T, R>(
    queue: &Queue,
    items: Vec<T>,
    work: impl Fn(&T) -> Result<R, ApiError> + Send + Sync + 'static,
) -> Result<Vec<R>, ApiError>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
{
    let tasks = items.len();
    if tasks == 0 {
        return Ok(Vec::new());
    }
    let (reply, outcome) = oneshot::channel();
    let each = Each {
        items,
        work: Box::new(work),
        next: AtomicUsize::new(0),
        left: AtomicUsize::new(tasks),
        results: Mutex::new(Vec::with_capacity(tasks)),
        reply: Mutex::new(Some(reply)),
    };
    queue.submit(&(Arc::new(each) as Arc<dyn Job>), tasks);
    // The reply is dropped unsent only by a panic, which the pool has logged.
    let lost = |_| ApiError::internal("the scan failed; the server's log says why");
    let mut results = outcome.await.map_err(lost)?;
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

impl<T: Send + Sync, R: Send> Job for Each<T, R> {
    fn run_next(&self) -> bool {
        let at = self.next.fetch_add(1, Relaxed);
        let Some(item) = self.items.get(at) else { return false };
        let result = (self.work)(item);
        lock(&self.results).push((at, result));
        if self.left.fetch_sub(1, AcqRel) == 1
            && let Some(reply) = lock(&self.reply).take()
        {
            // Nobody waits any more if the client has left.
            let _ = reply.send(std::mem::take(&mut *lock(&self.results)));
        }
        at + 1 < self.items.len()
    }
}

#[cfg(test)]
mod tests {
    use types::ErrorCode;

    use super::*;
    use crate::pool::ScanPool;

    /// Goal: results come in the items' order; a failure is the outcome, and so is a panic, after which the threads go on.
    #[tokio::test]
    async fn results_come_in_order() {
        let pool = ScanPool::start(3).unwrap();
        let work = |item: &u32| match *item {
            700 => Err(ApiError::unavailable("700")),
            701 => panic!("701"),
            item => Ok(item * 2),
        };
        let run = |items: Vec<u32>| for_each(pool.queue(), items, work);
        assert_eq!(run((0..500).collect()).await, Ok((0..500).map(|item| item * 2).collect()));
        assert_eq!(run(vec![]).await, Ok(vec![]));
        assert_eq!(run(vec![1, 700, 2]).await.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(run(vec![1, 701, 2]).await.unwrap_err().code, ErrorCode::Internal);
        assert_eq!(run(vec![3]).await, Ok(vec![6]));
    }
}
