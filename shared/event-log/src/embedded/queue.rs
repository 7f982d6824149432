//! The way into the log: a queue of appends, bounded by bytes, between any number of callers and the appender.
//!
//! 1. An append is queued whole or refused whole; it is refused once the queue holds its bound, unless it is empty.
//! 2. Bytes count until their group is durable or failed.
//! 3. While a group is synced the next one is taken only if it is large: few bytes gain nothing from being written early,
//!    and what comes with them until the sync is done shares their write and their sync.
//! 4. Who takes is woken where there is something to take, and once: waking costs a call of the system, whoever waits.
//! 5. After `close` nothing is queued; what was before is still taken.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::frame::stored_bytes;
use crate::api::{Append, AppendError, Appended, Load};

/// When to try again after a refusal: about what the largest group takes on a slow disk.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// One call of `append`.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) blocks: Vec<Append>,
    pub(crate) ack: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
}

impl Request {
    /// Bytes that its records take in a file.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| stored_bytes(block.header.body_len)).sum()
    }
}

/// What there is to do for the appender.
#[derive(Debug)]
pub(crate) enum Work {
    /// Make these durable.
    Group(Vec<Request>),
    /// Look after released files.
    Release,
    /// Nothing any more: closed and empty.
    Closed,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    bytes_max: u64,
    overlap_bytes_min: u64,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    /// Of `requests`.
    waiting_bytes: u64,
    /// Of the groups taken that are neither durable nor failed.
    taken_bytes: u64,
    /// A group is being synced.
    syncing: bool,
    /// Who takes waits, and was not woken yet.
    asleep: bool,
    released: bool,
    closed: bool,
}

impl Queue {
    /// A queue of at most `bytes_max`, of which `overlap_bytes_min` are taken during a sync.
    pub(crate) fn new(bytes_max: u64, overlap_bytes_min: u64) -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), bytes_max, overlap_bytes_min }
    }

    /// Queues a call.
    ///
    /// # Errors
    /// The queue is full or closed.
    pub(crate) fn push(&self, request: Request) -> Result<(), AppendError> {
        let bytes = request.stored_bytes();
        let mut inner = self.lock();
        if inner.closed {
            return Err(AppendError::Closed);
        }
        let queued = inner.waiting_bytes + inner.taken_bytes;
        if queued > 0 && queued + bytes > self.bytes_max {
            return Err(AppendError::Overloaded { retry_after: RETRY_AFTER });
        }
        inner.waiting_bytes += bytes;
        inner.requests.push_back(request);
        self.wake(inner);
        Ok(())
    }

    /// The next thing to do; waits for it. A group is at least one call and at
    /// most `bytes_max`; one that is smaller waits `linger` for more.
    pub(crate) fn take(&self, bytes_max: u64, linger: Duration) -> Work {
        let mut inner = self.lock();
        while inner.is_idle(self.overlap_bytes_min) {
            inner.asleep = true;
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.asleep = false;
        if std::mem::take(&mut inner.released) {
            return Work::Release;
        }
        if !linger.is_zero() && !inner.requests.is_empty() {
            inner = self.linger(inner, bytes_max, linger);
        }
        inner.take_group(bytes_max)
    }

    /// As [`Queue::take`], but waits for nothing: `None` where nothing is to be done.
    pub(crate) fn try_take(&self, bytes_max: u64) -> Option<Work> {
        let mut inner = self.lock();
        if inner.is_idle(self.overlap_bytes_min) {
            return None;
        }
        let release = std::mem::take(&mut inner.released);
        Some(if release { Work::Release } else { inner.take_group(bytes_max) })
    }

    fn linger<'a>(&self, inner: MutexGuard<'a, Inner>, bytes_max: u64, linger: Duration) -> MutexGuard<'a, Inner> {
        let until = Instant::now() + linger;
        let more = |inner: &mut Inner| {
            inner.asleep = inner.waiting_bytes < bytes_max && !inner.closed && Instant::now() < until;
            inner.asleep
        };
        let waited = self.changed.wait_timeout_while(inner, linger, more);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.asleep = false;
        inner
    }

    /// Wakes who takes, if there is something to take.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.asleep && !inner.is_idle(self.overlap_bytes_min) {
            inner.asleep = false;
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// A group of that many bytes is durable or failed.
    pub(crate) fn done(&self, bytes: u64) {
        self.lock().taken_bytes -= bytes;
    }

    /// A group is being synced until what this returns is dropped.
    pub(crate) fn syncing(&self) -> impl Drop + '_ {
        struct Syncing<'a>(&'a Queue);
        impl Drop for Syncing<'_> {
            fn drop(&mut self) {
                let mut inner = self.0.lock();
                inner.syncing = false;
                self.0.wake(inner);
            }
        }
        self.lock().syncing = true;
        Syncing(self)
    }

    /// Tells the appender that files may have become free.
    pub(crate) fn release(&self) {
        let mut inner = self.lock();
        inner.released = true;
        self.wake(inner);
    }

    /// Refuses all that comes from now on.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.wake(inner);
    }

    /// Drops what waits; its callers see that the log is closed. For an appender that ends.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.waiting_bytes = 0;
        inner.requests.clear();
    }

    /// How full it is.
    pub(crate) fn load(&self) -> Load {
        let inner = self.lock();
        Load { queued_bytes: inner.waiting_bytes + inner.taken_bytes, queued_bytes_max: self.bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of `Inner` is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_idle(&self, overlap_bytes_min: u64) -> bool {
        let awaits_sync = self.syncing && self.waiting_bytes < overlap_bytes_min;
        (self.requests.is_empty() || awaits_sync) && !self.closed && !self.released
    }

    /// The next group; [`Work::Closed`] where nothing waits.
    fn take_group(&mut self, bytes_max: u64) -> Work {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.requests.front().map(Request::stored_bytes) {
            if !group.is_empty() && bytes + next > bytes_max {
                break;
            }
            bytes += next;
            group.extend(self.requests.pop_front());
        }
        self.waiting_bytes -= bytes;
        self.taken_bytes += bytes;
        if group.is_empty() { Work::Closed } else { Work::Group(group) }
    }
}
