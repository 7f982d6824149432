//! Who drives the appender: a thread of its own, or a caller who decides when it does what.

use std::{any::Any, io, thread};

use tokio::sync::watch;

use super::{appender::Appender, queue::Work};

/// Drives the appender of a log that was opened without a thread. Until it is driven nothing that was appended becomes
/// durable. Dropped before it said [`Step::Closed`], it does nothing more to the files, like a process that dies; its log
/// is closed then.
pub struct Driver {
    appender: Appender,
    /// On the log's directory.
    lock: Option<Box<dyn Any + Send + Sync>>,
    ended: watch::Sender<bool>,
}

/// What a step of a [`Driver`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A group became durable or failed, or released files were looked after.
    Worked,
    /// Nothing was to be done.
    Idle,
    /// The log was closed and all that came before is done. No further step does anything.
    Closed,
}

impl Driver {
    /// A driver, and what turns true when it ends.
    pub(crate) fn new(appender: Appender, lock: Box<dyn Any + Send + Sync>) -> (Self, watch::Receiver<bool>) {
        let (ended, watched) = watch::channel(false);
        (Self { appender, lock: Some(lock), ended }, watched)
    }

    /// Does what waits to be done first, if anything does. Blocks while the disk works.
    pub fn step(&mut self) -> Step {
        if *self.ended.borrow() {
            return Step::Closed;
        }
        match self.appender.try_take() {
            None => Step::Idle,
            Some(Work::Closed) => {
                self.appender.seal_active();
                self.end();
                Step::Closed
            }
            Some(work) => {
                self.appender.work(work);
                Step::Worked
            }
        }
    }

    /// Works on a thread of its own until the log is closed.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(mut self) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("event-log".into()).spawn(move || {
            loop {
                match self.appender.take() {
                    Work::Closed => break,
                    work => self.appender.work(work),
                }
            }
            self.appender.seal_active();
        })
    }

    /// However this ends, nobody is left waiting, and the directory is free before anybody is told.
    fn end(&mut self) {
        self.appender.queue.abandon();
        self.appender.store.close();
        self.lock = None;
        self.ended.send_replace(true);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
    }
}
