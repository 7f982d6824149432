//! Who drives the pipeline: two threads of its own, or a caller who decides when it does what.

use std::{any::Any, io, thread};

use tokio::sync::watch;

use super::pipeline::Pipeline;

/// Drives the pipeline of a log that was opened without a thread. Until it is driven nothing that was appended becomes
/// durable. Dropped before it said [`Step::Closed`], it does nothing more to the files, like a process that dies; its log
/// is closed then.
pub struct Driver {
    pipeline: Pipeline,
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
    pub(crate) fn new(pipeline: Pipeline, lock: Box<dyn Any + Send + Sync>) -> (Self, watch::Receiver<bool>) {
        let (ended, watched) = watch::channel(false);
        (Self { pipeline, lock: Some(lock), ended }, watched)
    }

    /// Does what waits to be done first, if anything does. Blocks while the disk works.
    pub fn step(&mut self) -> Step {
        if *self.ended.borrow() {
            return Step::Closed;
        }
        let step = self.pipeline.turn(false);
        if step == Step::Closed {
            self.end();
        }
        step
    }

    /// Works on threads of its own until the log is closed: one writes while the other syncs.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(self) -> io::Result<thread::JoinHandle<()>> {
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("event-log").spawn(move || {
            thread::scope(|scope| {
                // Without it the log works as well, one group after the other.
                let second = named("event-log-2").spawn_scoped(scope, || self.work());
                if let Err(error) = second {
                    tracing::warn!(%error, "event log: groups are not written while others are synced");
                }
                self.work();
            });
        })
    }

    fn work(&self) {
        let _others = EndsOthers(&self.pipeline);
        while self.pipeline.turn(true) != Step::Closed {}
    }

    /// However this ends, nobody is left waiting, and the directory is free before anybody is told.
    fn end(&mut self) {
        self.pipeline.queue.abandon();
        self.pipeline.store.close();
        self.lock = None;
        self.ended.send_replace(true);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends the other threads where this one panics, so that nobody waits for what nobody does.
struct EndsOthers<'a>(&'a Pipeline);

impl Drop for EndsOthers<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.queue.close();
        }
    }
}
