//! A state that is lent to whoever writes it, and can be taken back while that one waits for the disk.
//!
//! 1. A state keeps rows that have left their tables. A disk may never come back from a write, so whoever writes looks at the
//!    state in passing alone, copies what it writes next, and holds nothing of it while it waits.
//! 2. Who lent it lets go of it when it keeps too much. The writing ends then, as soon as it wants more.
//! 3. Nobody waits for long: the lock is held for the copying of about [`super::packer::WRITE_BYTES`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};

use engine::{Capture, MemoryBudget, RunId};
use types::Offset;

use super::store::CheckpointError;

/// A state that is to be written.
pub struct Lent {
    next_offset: Offset,
    runs: Vec<RunId>,
    budget: Arc<MemoryBudget>,
    /// `None`: it was let go of.
    capture: Mutex<Option<Capture>>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("next_offset", &self.next_offset).finish_non_exhaustive()
    }
}

impl Lent {
    /// Lends a state.
    #[must_use]
    pub fn new(capture: Capture) -> Self {
        let (next_offset, runs, budget) =
            (capture.next_offset(), capture.runs().collect(), Arc::clone(capture.budget()));
        Self { next_offset, runs, budget, capture: Mutex::new(Some(capture)) }
    }

    /// The offset of the record that comes after the state.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The runs of ids that the state refers to. They stay while it was not let go of.
    #[must_use]
    pub fn runs(&self) -> &[RunId] {
        &self.runs
    }

    /// Whether it was let go of.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.look(|_| ()).is_err()
    }

    /// The budget that its memory counts in.
    pub(super) fn budget(&self) -> &Arc<MemoryBudget> {
        &self.budget
    }

    /// Counts what only the state holds by now. Never waits: where somebody copies from it, the next call counts.
    pub fn account(&self) {
        if let Some(mut capture) = self.free() {
            capture.iter_mut().for_each(Capture::account);
        }
    }

    /// Lets go of the state. Never waits: `false` where somebody copies from it, and it is to be tried again.
    #[must_use]
    pub fn let_go(&self) -> bool {
        // Outside the lock: a state is large, and whoever writes has to learn that it is gone, not to wait for it.
        let gone = self.free().map(|mut capture| capture.take());
        gone.is_some()
    }

    fn free(&self) -> Option<MutexGuard<'_, Option<Capture>>> {
        match self.capture.try_lock() {
            Ok(capture) => Some(capture),
            Err(TryLockError::WouldBlock) => None,
            // A panic of whoever copied left the state as it was.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        }
    }

    /// Looks at the state.
    ///
    /// # Errors
    /// [`CheckpointError::Stopped`]: it was let go of.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Capture) -> T) -> Result<T, CheckpointError> {
        let capture = self.capture.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        capture.as_ref().map(look).ok_or(CheckpointError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use engine::{Limits, partition};
    use types::{LogIdentity, PartitionId};

    use super::*;
    use crate::{CheckpointStore, DiskFiles};

    /// Goal: the writing of a state that was let go of ends as one that is stopped, however far it was, and leaves nothing
    /// behind; while somebody copies from the state, whoever would let go of it is not kept waiting.
    #[test]
    fn what_was_let_go_of_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(DiskFiles::open(dir.path()).unwrap());
        let mut store = CheckpointStore::open(files, PartitionId(0), LogIdentity(1)).unwrap();
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (writer, _) = partition(PartitionId(0), Offset::ZERO, Limits::default(), Arc::clone(&budget));
        let state = Lent::new(writer.capture());
        assert!(!state.look(|_| state.let_go()).unwrap(), "it is being copied from");
        assert!(state.let_go() && state.is_gone());
        assert!(matches!(store.write(&state, &mut |_| true), Err(CheckpointError::Stopped)));
        assert_eq!((store.generations(), fs::read_dir(dir.path()).unwrap().count()), (Vec::new(), 0));
        let used = budget.used();
        let mut counted = |_| budget.used() > used;
        store.write(&Lent::new(writer.capture()), &mut counted).expect("what is copied counts");
        assert_eq!((store.generations().len(), budget.used()), (1, used));
    }
}
