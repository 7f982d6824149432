//! The ids of one slice of append time: the newest in a table, older ones in runs behind filters.

use sketch::CuckooFilter;
use types::Timestamp;

use super::{
    memory_run::{MemoryRun, SortedIds},
    runs::{IdRuns, RunFault, RunId},
    window::SliceTimes,
};

/// The first filter of a table that has no slice to go by has room for so many runs like its first.
const FIRST_FILTER_RUNS: usize = 4;

/// A run of the slice.
enum Run {
    Written(RunId),
    /// Could not be written: kept in memory rather than lost.
    Kept(SortedIds),
}

/// One slice's ids.
pub(super) struct Slice {
    pub(super) times: SliceTimes,
    pub(super) recent: MemoryRun,
    /// Over all ids in runs. More than one where they were more than foreseen.
    pub(super) filters: Vec<CuckooFilter>,
    /// Oldest first.
    runs: Vec<Run>,
    /// Ids in runs.
    spilled: usize,
    /// Ids in the runs of the slice before, as the best guess for this one.
    expected: usize,
}

/// A row that filters suspect, by its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspect {
    pub(super) id: u128,
    pub(super) row: u32,
}

impl Slice {
    pub(super) fn new(times: SliceTimes, before: Option<&Self>) -> Self {
        Self {
            times,
            recent: MemoryRun::default(),
            filters: Vec::new(),
            runs: Vec::new(),
            spilled: 0,
            expected: before.map_or(0, |before| before.spilled.max(before.expected / 2)),
        }
    }

    pub(super) fn has_runs(&self) -> bool {
        self.spilled > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.len() == 0 && self.spilled == 0
    }

    pub(super) fn bytes(&self) -> usize {
        let kept = self.runs.iter().map(|run| match run {
            Run::Written(_) => 0,
            Run::Kept(ids) => ids.bytes(),
        });
        self.recent.bytes() + self.filters.iter().map(CuckooFilter::bytes).sum::<usize>() + kept.sum::<usize>()
    }

    /// Runs that could not be written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run, Run::Kept(_))).count()
    }

    pub(super) fn is_forgotten_at(&self, append_time: Timestamp) -> bool {
        self.times.forget_at <= append_time
    }

    /// Makes a run of the newest ids. Where it cannot be written it stays in memory, and is tried again at the next one.
    pub(super) fn spill(&mut self, runs: &mut dyn IdRuns) {
        if self.recent.len() == 0 {
            return;
        }
        let ids = self.recent.take_sorted();
        self.filter_in(&ids.ids);
        self.spilled += ids.ids.len();
        self.runs.push(Run::Kept(ids));
        self.write_kept(runs);
    }

    /// Writes what could not be written before, until that fails again.
    pub(super) fn write_kept(&mut self, runs: &mut dyn IdRuns) {
        for run in &mut self.runs {
            if let Run::Kept(ids) = run {
                match runs.write_run(&ids.ids, &ids.contents) {
                    Ok(written) => *run = Run::Written(written),
                    Err(_) => return,
                }
            }
        }
    }

    /// Enters ascending ids into the filters, adding filters as they fill up.
    fn filter_in(&mut self, ids: &[u128]) {
        for (at, &id) in ids.iter().enumerate() {
            let placed = self.filters.last_mut().is_some_and(|filter| filter.insert(filter_item(id)).is_ok());
            if placed {
                continue;
            }
            let left = ids.len() - at;
            let capacity = match (self.filters.is_empty(), self.expected) {
                (true, 0) => left * FIRST_FILTER_RUNS,
                // A steady stream's next slice is about as large; a little room spares it a second filter.
                (true, expected) => (expected + expected / 16).max(left),
                (false, 0) => (self.spilled / 2).max(left),
                (false, _) => (self.spilled / 4).max(left),
            };
            let mut filter = CuckooFilter::with_capacity(capacity);
            filter.insert(filter_item(id)).expect("an empty filter has places");
            self.filters.push(filter);
        }
    }

    /// Confirms sorted suspects against the runs, the newest first; calls `convict` for each that is there, and takes it
    /// out of the list.
    pub(super) fn confirm(
        &self,
        runs: &mut dyn IdRuns,
        suspects: &mut Vec<Suspect>,
        mut convict: impl FnMut(u32, u32),
    ) -> Result<(), RunFault> {
        let (mut ids, mut found) = (Vec::new(), Vec::new());
        for run in self.runs.iter().rev() {
            if suspects.is_empty() {
                return Ok(());
            }
            ids.clear();
            ids.extend(suspects.iter().map(|suspect| suspect.id));
            found.clear();
            found.resize(ids.len(), None);
            match run {
                Run::Written(run) => runs.confirm(*run, &ids, &mut found)?,
                Run::Kept(kept) => ids.iter().zip(&mut found).for_each(|(id, found)| *found = kept.find(*id)),
            }
            let mut found = found.iter();
            suspects.retain(|suspect| {
                let content = found.next().expect("one per suspect");
                content.inspect(|content| convict(suspect.row, *content)).is_none()
            });
        }
        Ok(())
    }

    /// Gives up its runs.
    pub(super) fn drop_runs(&mut self, runs: &mut dyn IdRuns) {
        for run in self.runs.drain(..) {
            if let Run::Written(run) = run {
                runs.drop_run(run);
            }
        }
    }
}

/// What filters know of an id: its high half, so that ascending ids lie in ascending buckets.
#[inline]
pub(super) fn filter_item(id: u128) -> u64 {
    (id >> 64) as u64
}
