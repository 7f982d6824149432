//! The ids of one slice of append time: the newest in tables, older ones in runs, all that are many behind filters.
//!
//! A slice begins without filters: its ids are looked for in the one table that has them. Filters come with its first run; where
//! the slice before had runs, when there are as many ids as one table takes, as then so much is known as to make a filter of
//! the right size. From there on each id enters the filters as it comes, with the look that finds it new still in the
//! processor's cache, and no table is asked about an id that filters do not suspect.

use std::sync::Arc;

use sketch::CuckooFilter;
use types::Timestamp;

use super::{
    capture::SliceCapture,
    frozen::FrozenIds,
    memory_run::MemoryRun,
    newest::Newest,
    runs::{IdRuns, RunFault, RunId, RunSet, SetUsage},
    window::SliceTimes,
};

/// The first filter of a table that has no slice to go by has room for so many runs like its first.
const FIRST_FILTER_RUNS: usize = 4;

/// One slice's ids.
pub(super) struct Slice {
    pub(super) times: SliceTimes,
    pub(super) recent: Newest,
    /// Over all ids in runs, but for those of `filling`, and over the newest where these are divided among tables. More than one
    /// where they were more than foreseen.
    pub(super) filters: Vec<CuckooFilter>,
    filling: Option<Filling>,
    /// Its runs, once it has some.
    set: Option<RunSet>,
    /// What they took when that was last asked.
    usage: SetUsage,
    /// Ids in runs.
    spilled: usize,
    /// Ids in the runs of the slice before, as the best guess for this one.
    expected: usize,
}

/// A run whose ids are on their way into the filters, some with each block, as all at once would keep the writer for long.
/// It is asked as the table that it was until all are there.
struct Filling {
    ids: Arc<FrozenIds>,
    /// Steps through it that are done.
    steps: usize,
    /// Ids that no filter has yet.
    left: usize,
}

/// A row that filters suspect, by its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspect {
    pub(super) id: u128,
    pub(super) row: u32,
}

impl Slice {
    pub(super) fn new(times: SliceTimes, before: Option<&Self>) -> Self {
        let seen = |before: &Self| if before.has_runs() { before.spilled + before.recent.len() } else { 0 };
        let expected = before.map_or(0, |before| seen(before).max(before.expected / 2));
        let (recent, filters, usage) = (Newest::default(), Vec::new(), SetUsage::default());
        Self { times, recent, filters, filling: None, set: None, usage, spilled: 0, expected }
    }

    /// Takes over runs of an earlier life, and fills a filter with what is in them.
    pub(super) fn restore_runs(&mut self, ids: &[RunId], runs: &mut dyn IdRuns) -> Result<(), RunFault> {
        let (set, count) = runs.restore_set(ids)?;
        let expected = self.expected;
        self.expected = expected.max(count);
        let mut left = count;
        runs.scan(set, &mut |ids| {
            let items: Vec<u64> = ids.iter().copied().map(filter_item).collect();
            self.filter_in(&items, left);
            left -= items.len();
        })?;
        (self.set, self.spilled, self.expected) = (Some(set), count, expected);
        self.look_after_runs(runs);
        Ok(())
    }

    pub(super) fn capture(&self, runs: &dyn IdRuns) -> SliceCapture {
        let pinned = self.set.map_or_else(Vec::new, |set| runs.pin(set));
        SliceCapture { times: self.times, runs: pinned, recent: self.recent.arrivals() }
    }

    pub(super) fn has_runs(&self) -> bool {
        self.spilled > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.len() == 0 && self.spilled == 0
    }

    pub(super) fn bytes(&self) -> usize {
        // For as long as the runs hold it as well, it is counted there.
        let filling = self.filling.as_ref().filter(|filling| Arc::strong_count(&filling.ids) == 1);
        let filling = filling.map_or(0, |filling| filling.ids.bytes());
        let filters = self.filters.iter().map(CuckooFilter::bytes).sum::<usize>();
        self.recent.bytes() + filling + filters + self.usage.bytes
    }

    /// The tables with ids that no filter has: the newest, unless they are divided, and the run that is on its way into the
    /// filters.
    pub(super) fn unfiltered(&self) -> impl Iterator<Item = &MemoryRun> {
        let newest = self.recent.tables().filter(|_| !self.recent.is_divided());
        self.filling_tables().iter().chain(newest)
    }

    pub(super) fn filling_tables(&self) -> &[MemoryRun] {
        self.filling.as_ref().map_or(&[], |filling| filling.ids.tables())
    }

    /// Runs that could not be written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.usage.unwritten
    }

    pub(super) fn is_forgotten_at(&self, append_time: Timestamp) -> bool {
        self.times.forget_at <= append_time
    }

    /// Makes a run of the newest ids. The tables' memory goes with them.
    pub(super) fn spill(&mut self, runs: &mut dyn IdRuns) {
        if self.recent.len() == 0 {
            return;
        }
        let filtered = self.recent.is_divided();
        let ids = Arc::new(self.recent.freeze());
        self.spilled += ids.len();
        let set = *self.set.get_or_insert_with(|| runs.new_set());
        runs.add(set, Arc::clone(&ids));
        if !filtered {
            self.fill(usize::MAX);
            self.filling = Some(Filling { left: ids.len(), ids, steps: 0 });
            if self.filters.is_empty() {
                // Sized by this run, and not by the first of its ids, or of those that come meanwhile.
                self.add_filter(self.spilled);
            }
            self.recent.divide();
        }
        self.look_after_runs(runs);
    }

    /// Enters ids that were just remembered into the filters, where these have the newest; else sees whether they should.
    pub(super) fn enter(&mut self, items: &[u64], ids_max: usize) {
        if self.recent.is_divided() {
            self.filter_in(items, items.len());
            return;
        }
        let sized = self.expected > 0 || !self.filters.is_empty();
        if sized && self.recent.len() >= Newest::table_ids(ids_max) {
            let mut items = Vec::with_capacity(self.recent.len());
            for table in self.recent.tables() {
                table.in_places(0..table.places(), |id, _| items.push(filter_item(id)));
            }
            self.filter_in(&items, items.len());
            self.recent.divide();
        }
    }

    /// Enters ids of the run that is on its way into the filters: about `count`, or those that are left.
    pub(super) fn fill(&mut self, count: usize) {
        let Some(mut filling) = self.filling.take() else { return };
        let (mut items, until) = (Vec::new(), filling.left.saturating_sub(count));
        while filling.left > until {
            items.clear();
            filling.ids.step(filling.steps, |id| items.push(filter_item(id)));
            self.filter_in(&items, filling.left);
            filling.steps += 1;
            filling.left -= items.len();
        }
        self.filling = Some(filling).filter(|filling| filling.left > 0);
    }

    /// Says that no more runs come.
    pub(super) fn seal(&self, runs: &mut dyn IdRuns) {
        self.set.into_iter().for_each(|set| runs.seal(set));
    }

    /// Notes what its runs take by now.
    pub(super) fn look_after_runs(&mut self, runs: &mut dyn IdRuns) {
        self.usage = self.set.map_or_else(SetUsage::default, |set| runs.usage(set));
    }

    /// Enters items into the filters, adding filters as they fill up; with those to come they are `left`. That they ascend,
    /// or nearly, makes it fast.
    fn filter_in(&mut self, items: &[u64], left: usize) {
        let mut entered = 0;
        while entered < items.len() {
            if let Some(filter) = self.filters.last_mut() {
                entered += filter.insert_all(&items[entered..]);
            }
            if entered < items.len() {
                self.add_filter(left - entered);
            }
        }
    }

    /// Adds a filter for `left` ids and those to come.
    #[cold]
    fn add_filter(&mut self, left: usize) {
        let capacity = match (self.filters.is_empty(), self.expected) {
            (true, 0) => left * FIRST_FILTER_RUNS,
            // A steady stream's next slice is about as large; a little room spares it a second filter.
            (true, expected) => (expected + expected / 16).max(left),
            (false, 0) => (self.filtered() / 2).max(left),
            (false, _) => (self.filtered() / 4).max(left),
        };
        self.filters.push(CuckooFilter::with_capacity(capacity));
    }

    /// Ids that filters have.
    fn filtered(&self) -> usize {
        self.filters.iter().map(CuckooFilter::len).sum()
    }

    /// Confirms sorted suspects against the runs; calls `convict` for each that is there, and takes it out of the list.
    pub(super) fn confirm(
        &self,
        runs: &mut dyn IdRuns,
        suspects: &mut Vec<Suspect>,
        mut convict: impl FnMut(u32, u32),
    ) -> Result<(), RunFault> {
        let Some(set) = self.set.filter(|_| !suspects.is_empty()) else { return Ok(()) };
        let ids: Vec<u128> = suspects.iter().map(|suspect| suspect.id).collect();
        let mut found = vec![None; ids.len()];
        runs.confirm(set, &ids, &mut found)?;
        let mut found = found.into_iter();
        suspects.retain(|suspect| {
            let content = found.next().expect("one per suspect");
            content.inspect(|content| convict(suspect.row, *content)).is_none()
        });
        Ok(())
    }

    /// Gives up its runs.
    pub(super) fn drop_runs(&mut self, runs: &mut dyn IdRuns) {
        self.set.take().into_iter().for_each(|set| runs.drop_set(set));
    }
}

/// What filters know of an id: its high half, so that ascending ids lie in ascending buckets.
#[inline]
pub(super) fn filter_item(id: u128) -> u64 {
    (id >> 64) as u64
}
