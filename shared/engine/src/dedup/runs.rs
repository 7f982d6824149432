//! Sorted runs of ids outside the partition's memory. The trait is the seam to the disk.

use std::{collections::HashMap, fmt};

/// A run, among all that one [`IdRuns`] ever made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a run cannot be written or read.
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

/// Keeps sorted runs of 128-bit ids, each with 32 bits of content. Belongs to one partition's writer.
pub trait IdRuns: Send {
    /// Writes a run: `ids` ascend strictly, and there is a content for each.
    ///
    /// # Errors
    /// Nothing was kept of it.
    fn write_run(&mut self, ids: &[u128], contents: &[u32]) -> Result<RunId, RunFault>;

    /// Looks for `suspects`, which ascend (perhaps not strictly), in one pass; puts the content of each that is in the run
    /// to its place in `found`, and leaves the others.
    ///
    /// # Errors
    /// It is not known what the run holds; some of `found` may be filled in.
    fn confirm(&mut self, run: RunId, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault>;

    /// Forgets a run.
    fn drop_run(&mut self, run: RunId);
}

/// Runs on the heap: for tests, and where there is no disk.
#[derive(Debug, Default)]
pub struct HeapRuns {
    runs: HashMap<RunId, Vec<(u128, u32)>>,
    next: u64,
}

impl IdRuns for HeapRuns {
    fn write_run(&mut self, ids: &[u128], contents: &[u32]) -> Result<RunId, RunFault> {
        let run = RunId(self.next);
        self.next += 1;
        self.runs.insert(run, ids.iter().copied().zip(contents.iter().copied()).collect());
        Ok(run)
    }

    fn confirm(&mut self, run: RunId, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        let ids = self.runs.get(&run).ok_or(RunFault::Unknown(run))?;
        for (suspect, found) in suspects.iter().zip(found) {
            if let Ok(at) = ids.binary_search_by_key(suspect, |(id, _)| *id) {
                *found = Some(ids[at].1);
            }
        }
        Ok(())
    }

    fn drop_run(&mut self, run: RunId) {
        self.runs.remove(&run);
    }
}
