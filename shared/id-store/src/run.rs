//! A run, shared by the writer that asks it, the worker that writes it, and checkpoints that keep it.
//!
//! Its file is removed when it is no longer wanted (*forgotten*: its set was dropped, or it was merged with others) and the
//! last that holds it lets go: a capture of the partition's state, or a checkpoint that is kept, may still name it.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::ErrorKind,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::Sender;
use engine::{RunFault, RunId};

use crate::run_file::RunOnDisk;

/// See the module.
pub(crate) struct Run {
    pub(crate) id: RunId,
    /// Ids in it.
    pub(crate) ids: usize,
    /// Set once, by the worker or at the start; a fault is that of a merge, or of a file that the start could not read, and
    /// final for this life.
    outcome: OnceLock<Result<RunOnDisk, RunFault>>,
    /// Writing it failed, and is tried again.
    refused: AtomicBool,
    forgotten: AtomicBool,
    /// Its bytes and its name are durable.
    synced: AtomicBool,
    /// Making it durable failed: what the system holds of it may be lost, whatever a second try says.
    unsyncable: AtomicBool,
    registry: Arc<Registry>,
}

impl Run {
    pub(crate) fn on_disk(&self) -> Option<&RunOnDisk> {
        self.outcome.get()?.as_ref().ok()
    }

    /// Whether it was written; `None` while that is not known.
    pub(crate) fn outcome(&self) -> Option<Result<(), RunFault>> {
        self.outcome.get().map(|outcome| outcome.as_ref().map(drop).map_err(|fault| *fault))
    }

    pub(crate) fn set_outcome(&self, outcome: Result<RunOnDisk, RunFault>) {
        assert!(self.outcome.set(outcome).is_ok(), "a run is written once");
    }

    // Relaxed, here and below: each flag is a word by itself. What `forgotten` says is seen by whoever drops the last
    // reference, as the counts of `Arc` order that after this.
    pub(crate) fn set_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && self.outcome.get().is_none()
    }

    /// Its file may go when nobody holds it any more.
    pub(crate) fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_synced(&self) {
        self.synced.store(true, Ordering::Relaxed);
    }

    /// Makes its bytes durable.
    pub(crate) fn sync(&self) -> Result<(), RunFault> {
        let disk = self.on_disk().ok_or(RunFault::Io(ErrorKind::StorageFull))?;
        if self.unsyncable.load(Ordering::Relaxed) {
            return Err(RunFault::Io(ErrorKind::Other));
        }
        disk.sync().inspect_err(|_| self.unsyncable.store(true, Ordering::Relaxed))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.registry.leave(self.id);
        if *self.forgotten.get_mut() {
            // Without a worker the store is closed; what is in nobody's list is removed when it is opened again.
            let _ = self.registry.removals.send(self.id);
        }
    }
}

/// Finds runs by their number, for threads other than the writer's, and holds those that checkpoints name.
pub(crate) struct Registry {
    runs: Mutex<HashMap<RunId, Weak<Run>>>,
    retained: Mutex<HashMap<u64, Vec<Arc<Run>>>>,
    removals: Sender<RunId>,
}

impl Registry {
    pub(crate) fn new(removals: Sender<RunId>) -> Self {
        Self { runs: Mutex::default(), retained: Mutex::default(), removals }
    }

    /// A new run.
    pub(crate) fn enter(self: &Arc<Self>, id: RunId, ids: usize) -> Arc<Run> {
        let run = Arc::new(Run {
            id,
            ids,
            outcome: OnceLock::new(),
            refused: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            unsyncable: AtomicBool::new(false),
            registry: Arc::clone(self),
        });
        self.runs().insert(id, Arc::downgrade(&run));
        run
    }

    /// Takes notice that a run has gone. Another that was entered under its number meanwhile stays.
    fn leave(&self, run: RunId) {
        if let Entry::Occupied(entry) = self.runs().entry(run)
            && entry.get().strong_count() == 0
        {
            entry.remove();
        }
    }

    pub(crate) fn find(&self, run: RunId) -> Result<Arc<Run>, RunFault> {
        self.runs().get(&run).and_then(Weak::upgrade).ok_or(RunFault::Unknown(run))
    }

    pub(crate) fn retain(&self, generation: u64, runs: Vec<Arc<Run>>) {
        let before = self.retained().insert(generation, runs);
        // Outside the lock: the last of a run enters the other one.
        drop(before);
    }

    pub(crate) fn release(&self, generation: u64) {
        let released = self.retained().remove(&generation);
        drop(released);
    }

    pub(crate) fn release_all(&self) {
        let released = std::mem::take(&mut *self.retained());
        drop(released);
    }

    // No code panics while it holds one of the locks, so a poisoned one is as good as another.
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Weak<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<Run>>>> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a run that goes takes only itself out of the list, and not another of its number.
    #[test]
    fn a_run_that_goes_leaves_its_namesake() {
        let (removals, _to_remove) = crossbeam_channel::unbounded();
        let registry = Arc::new(Registry::new(removals));
        let first = registry.enter(RunId(1), 10);
        let second = registry.enter(RunId(1), 20);
        drop(first);
        assert_eq!(registry.find(RunId(1)).map(|run| run.ids), Ok(20));
        drop(second);
        assert_eq!(registry.find(RunId(1)).err(), Some(RunFault::Unknown(RunId(1))));
        assert!(registry.runs().is_empty());
    }
}
