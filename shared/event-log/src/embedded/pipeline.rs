//! The way to disk in two turns, writing and syncing, so that a group is written while the one before it is synced.
//!
//! ```text
//! thread 1: take, write │ sync, show, ack      │ take, write │ sync ...
//! thread 2:             │ take, write          │ sync, show, ack ...
//! ```
//!
//! 1. A thread has the turn to write from before it takes a group until it has the turn to sync. So groups are synced and
//!    shown in the order in which they were written, and at most one waits that was written.
//! 2. Who has both turns is alone: nothing is in between. That is when files begin and end and failures are mended.
//! 3. One thread alone does the same, one group after the other.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    appender::Appender,
    driver::Step,
    group::RowCounts,
    queue::{Queue, Request, Work},
    store::Store,
};
use crate::api::AppendError;

/// The appender and what is durable of what it wrote.
pub(crate) struct Pipeline {
    pub(crate) store: Arc<Store>,
    pub(crate) queue: Arc<Queue>,
    /// The turn to write.
    appender: Mutex<Appender>,
    /// The turn to sync; taken after the turn to write, never before.
    durable: Mutex<Durable>,
}

/// What is durable, beside what the store shows.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    /// Up to where the active file is.
    pub(crate) end: u64,
    /// Rows of this appender.
    pub(crate) rows: RowCounts,
    /// A sync failed, and the appender does not know yet: what was written since is not to be synced.
    pub(crate) failed: bool,
}

impl Pipeline {
    /// A pipeline of an appender that has written nothing.
    pub(crate) fn new(appender: Appender, queue: Arc<Queue>) -> Self {
        let store = appender.store.clone();
        Self { store, queue, appender: Mutex::new(appender), durable: Mutex::default() }
    }

    /// Takes what is to be done next and does it; waits for it if `wait`.
    pub(crate) fn turn(&self, wait: bool) -> Step {
        let mut appender = lock(&self.appender);
        let (bytes_max, linger) = (appender.config.group_bytes_max, appender.config.linger);
        let taken = if wait { Some(self.queue.take(bytes_max, linger)) } else { self.queue.try_take(bytes_max) };
        match taken {
            None => return Step::Idle,
            Some(Work::Closed) => {
                appender.finish(&mut lock(&self.durable));
                return Step::Closed;
            }
            Some(Work::Release) => appender.drop_released(),
            Some(Work::Group(requests)) => self.commit(appender, requests),
        }
        Step::Worked
    }

    fn commit(&self, mut appender: MutexGuard<'_, Appender>, requests: Vec<Request>) {
        let bytes = requests.iter().map(Request::stored_bytes).sum();
        let written = appender.write(&requests, &self.durable);
        let mut durable = lock(&self.durable);
        let written = if durable.failed { Err(io::Error::other("the group before it failed")) } else { written };
        let group = match written {
            Ok(group) => group,
            Err(error) => {
                appender.start_over(&mut durable);
                drop((durable, appender));
                return self.refuse(requests, bytes, error);
            }
        };
        let syncing = self.queue.syncing();
        let file = appender.active_file();
        // The next group may be written before this one's sync is done.
        appender.durable_to = durable.end;
        drop(appender);
        if let Err(error) = file.sync_data() {
            durable.failed = true;
            drop((syncing, durable));
            return self.refuse(requests, bytes, error);
        }
        durable.end += group.bytes;
        durable.rows.extend(&group.rows);
        let mut appended: Vec<_> = group.appended().collect();
        self.store.publish(group.into_records());
        drop((syncing, durable));
        self.queue.done(bytes);
        for request in requests {
            let rest = appended.split_off(request.blocks.len());
            // A caller that left knows nothing of its append, which stands all the same.
            let _ = request.ack.send(Ok(std::mem::replace(&mut appended, rest)));
        }
    }

    fn refuse(&self, requests: Vec<Request>, bytes: u64, error: io::Error) {
        tracing::error!(%error, calls = requests.len(), "event log: a group could not be made durable");
        self.queue.done(bytes);
        let error = Arc::new(error);
        for request in requests {
            let _ = request.ack.send(Err(AppendError::Unavailable(error.clone())));
        }
    }
}

/// A turn. One whose thread panicked is taken by nobody: its state may be anything, and the log ends.
pub(crate) fn lock<T>(turn: &Mutex<T>) -> MutexGuard<'_, T> {
    turn.lock().expect("the log ends with the thread that panicked")
}
