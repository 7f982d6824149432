//! What checkpoints need of runs, from their own thread: that runs are durable, and stay while a checkpoint names them.

use std::{io, sync::Arc};

use engine::{RunFault, RunId};

use crate::{
    run::Registry,
    worker::{Job, Jobs},
};

/// See the module. A run that a capture of the partition's state names stays while the capture lives; by then it is to be
/// retained.
#[derive(Clone)]
pub struct RunKeeper {
    registry: Arc<Registry>,
    jobs: Jobs,
}

impl RunKeeper {
    pub(crate) fn new(registry: Arc<Registry>, jobs: Jobs) -> Self {
        Self { registry, jobs }
    }

    /// Makes runs durable: their bytes and their names. Waits for the disk; what is durable already costs nothing.
    ///
    /// # Errors
    /// One is not there any more, or could not be written (a full disk), or not be made durable.
    pub fn sync(&self, runs: &[RunId]) -> Result<(), RunFault> {
        let runs = runs.iter().map(|run| self.registry.find(*run)).collect::<Result<_, _>>()?;
        let (done, outcome) = crossbeam_channel::bounded(1);
        // Without a worker, as without an answer, the store is closed.
        let _ = self.jobs.send(Job::Sync(runs, done));
        outcome.recv().unwrap_or(Err(RunFault::Io(io::ErrorKind::BrokenPipe)))
    }

    /// Keeps the files of runs, dropped or merged as they may be, until `generation` is released. Retained again, a
    /// generation keeps the new ones alone.
    ///
    /// # Errors
    /// One is not there any more. Nothing changed.
    pub fn retain(&self, generation: u64, runs: Vec<RunId>) -> Result<(), RunFault> {
        let runs = runs.into_iter().map(|run| self.registry.find(run)).collect::<Result<_, _>>()?;
        self.registry.retain(generation, runs);
        Ok(())
    }

    /// Lets go of what a generation kept.
    pub fn release(&self, generation: u64) {
        self.registry.release(generation);
        self.jobs.nudge();
    }
}
