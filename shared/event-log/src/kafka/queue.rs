//! What is on its way to the brokers, bounded by bytes, and the calls that wait for it.
//!
//! 1. An append is taken whole or refused whole; it is refused once the queue holds its bound, unless it is empty.
//! 2. Bytes count until their record is acked or failed.
//! 3. After `close` nothing is taken; what was before still goes its way.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use crate::api::{AppendError, Appended, Load};

/// When to try again after a refusal: about what a full queue takes.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The bytes on their way.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    drained: Notify,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: u64,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { inner: Mutex::default(), drained: Notify::new(), bytes_max }
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// The queue is full or closed.
    pub(crate) fn enter(&self, bytes: u64) -> Result<(), AppendError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(AppendError::Closed);
        }
        if inner.bytes > 0 && inner.bytes + bytes > self.bytes_max {
            return Err(AppendError::Overloaded { retry_after: RETRY_AFTER });
        }
        inner.bytes += bytes;
        Ok(())
    }

    /// Lets bytes go that were taken in.
    pub(crate) fn leave(&self, bytes: u64) {
        let mut inner = self.lock();
        inner.bytes -= bytes;
        if inner.bytes == 0 {
            self.drained.notify_waiters();
        }
    }

    /// Refuses all that comes from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until nothing is on its way. Each append has its time, so this ends.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.lock().bytes == 0 {
                return;
            }
            drained.await;
        }
    }

    /// How full it is.
    pub(crate) fn load(&self) -> Load {
        Load { queued_bytes: self.lock().bytes, queued_bytes_max: self.bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of `Inner` is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call of `append`: answered when the last of its blocks is acked or failed.
pub(crate) struct Call {
    places: Mutex<Places>,
}

struct Places {
    waiting: usize,
    acked: Vec<Option<Appended>>,
    failed: Option<io::Error>,
    answer: Option<oneshot::Sender<Result<Vec<Appended>, AppendError>>>,
}

impl Call {
    /// A call of some blocks, and where its answer comes.
    pub(crate) fn new(blocks: usize) -> (Arc<Self>, oneshot::Receiver<Result<Vec<Appended>, AppendError>>) {
        let (answer, answered) = oneshot::channel();
        let places = Places { waiting: blocks, acked: vec![None; blocks], failed: None, answer: Some(answer) };
        (Arc::new(Self { places: Mutex::new(places) }), answered)
    }

    /// What became of one of its blocks. Where several failed, the first is named.
    pub(crate) fn done(&self, block: usize, became: io::Result<Appended>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.waiting -= 1;
        match became {
            Ok(appended) => places.acked[block] = Some(appended),
            Err(error) => drop(places.failed.get_or_insert(error)),
        }
        if places.waiting > 0 {
            return;
        }
        let answer = match places.failed.take() {
            Some(error) => Err(AppendError::Unavailable(Arc::new(error))),
            None => Ok(places.acked.drain(..).flatten().collect()),
        };
        // A caller that left knows nothing of its append, which stands all the same.
        drop(places.answer.take().map(|caller| caller.send(answer)));
    }
}

#[cfg(test)]
mod tests {
    use types::{Offset, PartitionId, Timestamp};

    use super::*;

    /// Goal: what passes the bound is refused, but one append always fits, and all that entered leaves.
    #[tokio::test]
    async fn bytes_are_bounded() {
        let queue = Queue::new(100);
        queue.enter(500).unwrap();
        assert!(matches!(queue.enter(1), Err(AppendError::Overloaded { .. })));
        queue.leave(500);
        queue.enter(60).unwrap();
        queue.enter(40).unwrap();
        assert!(matches!(queue.enter(1), Err(AppendError::Overloaded { .. })));
        queue.close();
        assert!(matches!(queue.enter(1), Err(AppendError::Closed)));
        assert_eq!(queue.load(), Load { queued_bytes: 100, queued_bytes_max: 100 });
        let queue = Arc::new(queue);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.drained().await }
        });
        queue.leave(60);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        queue.leave(40);
        waiting.await.unwrap();
    }

    /// Goal: a call is answered once, after its last block, with its places in order; one failure makes its outcome unknown.
    #[test]
    fn a_call_is_answered_by_its_last_block() {
        let at = |offset| Appended { partition: PartitionId(0), offset: Offset(offset), append_time: Timestamp(1) };
        let (call, mut answered) = Call::new(3);
        for block in [2, 0] {
            call.done(block, Ok(at(block as u64)));
            assert!(answered.try_recv().is_err());
        }
        call.done(1, Ok(at(1)));
        assert_eq!(answered.try_recv().unwrap().unwrap(), [at(0), at(1), at(2)]);

        let (call, mut answered) = Call::new(3);
        call.done(0, Err(io::Error::other("first")));
        call.done(1, Ok(at(1)));
        call.done(2, Err(io::Error::other("second")));
        let unknown = answered.try_recv().unwrap();
        assert!(matches!(unknown, Err(AppendError::Unavailable(error)) if error.to_string() == "first"));
    }
}
