//! Sorted runs of ids outside the partition's tables. The trait is the seam to the disk.

use std::{any::Any, collections::HashMap, fmt, sync::Arc};

use super::frozen::FrozenIds;

/// A run: no other has its number, in this life of the process or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The runs of one slice, among all that one [`IdRuns`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunSet(pub u64);

/// Why runs cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunFault {
    /// The system has it so.
    #[error("the ids of earlier events cannot be read or written: {0}")]
    Io(std::io::ErrorKind),
    /// The bytes are not those that were written.
    #[error("run {0} of the ids of earlier events is damaged")]
    Damaged(RunId),
    /// Never written here, or dropped.
    #[error("there is no run {0} of ids")]
    Unknown(RunId),
}

/// A run that stays where it is while this lives, although its set is dropped or it is merged with others.
#[derive(Clone)]
pub struct PinnedRun {
    /// The run.
    pub run: RunId,
    /// What keeps it.
    pub pin: Arc<dyn Any + Send + Sync>,
}

/// What a set takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetUsage {
    /// Bytes of memory.
    pub bytes: usize,
    /// Runs that are still in memory although writing them was tried.
    pub unwritten: usize,
}

/// Keeps the ids that have left a partition's tables, in sets of sorted runs. Belongs to the partition's writer.
///
/// What was added can be asked for from then on; when it is written, and how runs of a set become fewer, is the
/// implementation's matter, and happens beside the writer.
pub trait IdRuns: Send {
    /// A new set, without runs.
    fn new_set(&mut self) -> RunSet;

    /// Adds a run to a set. None of its ids is in the set.
    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>);

    /// Says that nothing more is added to a set: it is time to make one run of its runs.
    fn seal(&mut self, set: RunSet);

    /// Looks for `suspects`, which ascend (perhaps not strictly); puts the content of each that is in the set to its place
    /// in `found`, where there is nothing yet.
    ///
    /// # Errors
    /// It is not known what the set holds; some of `found` may be filled in.
    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault>;

    /// Forgets a set with its runs.
    fn drop_set(&mut self, set: RunSet);

    /// What a set takes now.
    fn usage(&mut self, set: RunSet) -> SetUsage;

    /// The runs that a set has now, oldest first.
    fn pin(&self, set: RunSet) -> Vec<PinnedRun>;

    /// Makes a set of runs that are there from an earlier life, oldest first. Returns it, and how many ids it has.
    ///
    /// # Errors
    /// A run is not there, or is not what was written. There is no such set then.
    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault>;

    /// Shows all ids of a set to `each`, run by run and ascending in each, some at a time.
    ///
    /// # Errors
    /// A run cannot be read to its end as it was written; `each` may have seen some of it.
    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault>;
}

/// Runs on the heap: for tests, and where there is no disk.
#[derive(Debug, Default)]
pub struct HeapRuns {
    sets: HashMap<RunSet, Vec<RunId>>,
    runs: HashMap<RunId, Arc<FrozenIds>>,
    next: u64,
}

impl HeapRuns {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of(&self, set: RunSet) -> &[RunId] {
        self.sets.get(&set).map_or(&[], Vec::as_slice)
    }
}

impl IdRuns for HeapRuns {
    fn new_set(&mut self) -> RunSet {
        let set = RunSet(self.next());
        self.sets.insert(set, Vec::new());
        set
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        let run = RunId(self.next());
        self.runs.insert(run, ids);
        self.sets.entry(set).or_default().push(run);
    }

    fn seal(&mut self, _set: RunSet) {}

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        for run in self.of(set) {
            self.runs[run].confirm(suspects, found);
        }
        Ok(())
    }

    fn drop_set(&mut self, set: RunSet) {
        self.sets.remove(&set).into_iter().flatten().for_each(|run| drop(self.runs.remove(&run)));
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        SetUsage { bytes: self.of(set).iter().map(|run| self.runs[run].bytes()).sum(), unwritten: 0 }
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        self.of(set).iter().map(|run| PinnedRun { run: *run, pin: Arc::clone(&self.runs[run]) as _ }).collect()
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        let counts = runs.iter().map(|run| self.runs.get(run).map(|ids| ids.len()).ok_or(RunFault::Unknown(*run)));
        let ids = counts.sum::<Result<usize, _>>()?;
        let set = self.new_set();
        self.sets.insert(set, runs.to_vec());
        Ok((set, ids))
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        let mut sorted = Vec::new();
        for run in self.of(set) {
            sorted.clear();
            self.runs[run].each_sorted(|id, _| {
                sorted.push(id);
                Ok(())
            })?;
            each(&sorted);
        }
        Ok(())
    }
}
