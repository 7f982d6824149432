//! The dedup of one table in one partition: judges the rows of a block, then remembers those that are new.

use codec::{BlockHeader, BodyView};
use sketch::Look;
use types::Timestamp;

use super::{
    content::{ContentScratch, contents, differ},
    identity::{IdentityKey, NONE, identities},
    memory_run::{MemoryRun, find_all},
    runs::{IdRuns, RunFault},
    slice::{Slice, Suspect, filter_item},
    window::Window,
};
use crate::{Limits, MemoryBudget, budget::IdentityCharge, sync::Arc, table::Means};

/// Rows between asking for memory and looking at it.
const AHEAD: usize = 48;
/// For each row so many ids of a run enter filters: all are there long before the next run comes.
const FILLED_PER_ROW: usize = if cfg!(test) { 1 } else { 8 };
/// So many where the writer comes by without rows.
const FILLED_AT_REST: usize = 4_096;
/// A table with fewer ids in memory than this keeps them there although all tables together have too many.
const SPILL_MIN: usize = 4_096;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Verdict {
    /// Applied for the first time, or without an identity.
    #[default]
    New,
    /// Applied before.
    Duplicate,
    /// Applied before, with other content.
    Conflict,
}

/// Memory that is used again from block to block, and what passes from [`Dedup::judge`] to [`Dedup::remember`].
#[derive(Default)]
pub(crate) struct DedupScratch {
    ids: Vec<u128>,
    contents: Vec<u32>,
    verdicts: Vec<Verdict>,
    suspects: Vec<Suspect>,
    /// Rows whose second bucket in a filter is still to be looked at.
    open: Vec<Suspect>,
    /// What filters are to know of the rows that are new.
    items: Vec<u64>,
    bytes: Vec<u8>,
    content: ContentScratch,
}

/// What a block's rows became: how many are duplicates, and how many of these conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, more: Self) {
        self.duplicate += more.duplicate;
        self.conflict += more.conflict;
    }
}

/// What a table in a partition remembers of its events' identities.
pub(crate) struct Dedup {
    pub(super) key: IdentityKey,
    pub(super) window: Window,
    /// Oldest first; the last one is the current one.
    pub(super) slices: Vec<Slice>,
    /// Bytes of all slices, in the budget; `None` before there are any.
    charge: Option<IdentityCharge>,
}

impl Dedup {
    pub(crate) fn new() -> Self {
        Self {
            key: IdentityKey::default(),
            window: Window::of_micros(types::limits::DEDUP_WINDOW_US_DEFAULT),
            slices: Vec::new(),
            charge: None,
        }
    }

    /// Takes over a table's settings. A new window is that of ids from now on; those that are there keep theirs.
    pub(crate) fn configure(&mut self, key: IdentityKey, window_us: i64, append_time: Timestamp) {
        self.key = key;
        let window = Window::of_micros(window_us);
        if window == self.window {
            return;
        }
        self.window = window;
        if self.slices.last().is_some_and(Slice::is_empty) {
            self.slices.pop();
        } else if let Some(current) = self.slices.last_mut() {
            current.times.until = current.times.until.min(append_time);
        }
    }

    /// Drops the slices whose time is over, and takes notice of what became of runs beside the writer.
    pub(crate) fn look_after(&mut self, append_time: Timestamp, runs: &mut dyn IdRuns, budget: &Arc<MemoryBudget>) {
        self.forget(append_time, runs, budget);
        if self.slices.iter().any(Slice::has_runs) {
            for slice in &mut self.slices {
                slice.fill(FILLED_AT_REST);
                slice.look_after_runs(runs);
            }
            self.account(budget);
        }
    }

    /// Drops the slices whose time is over.
    fn forget(&mut self, append_time: Timestamp, runs: &mut dyn IdRuns, budget: &Arc<MemoryBudget>) {
        if !self.slices.iter().any(|slice| slice.is_forgotten_at(append_time)) {
            return;
        }
        self.slices.retain_mut(|slice| {
            let stays = !slice.is_forgotten_at(append_time);
            if !stays {
                slice.drop_runs(runs);
            }
            stays
        });
        self.account(budget);
    }

    /// Drops everything, as the table is gone.
    pub(crate) fn forget_all(&mut self, runs: &mut dyn IdRuns) {
        self.slices.iter_mut().for_each(|slice| slice.drop_runs(runs));
        self.slices.clear();
        self.charge = None;
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.slices.iter().map(Slice::bytes).sum::<usize>() as u64
    }

    /// The append time at which the next slice is forgotten.
    pub(crate) fn due_at(&self) -> Option<Timestamp> {
        self.slices.iter().map(|slice| slice.times.forget_at).min()
    }

    /// Runs that could not be written and are kept in memory.
    pub(crate) fn unwritten(&self) -> usize {
        self.slices.iter().map(Slice::unwritten).sum()
    }

    /// Judges a block's rows by what came before it. Nothing is remembered yet; the same block can be judged again.
    pub(crate) fn judge(
        &mut self,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &BodyView<'_>,
        means: &mut Means,
    ) -> Result<(), RunFault> {
        let Means { limits, budget, runs, dedup: scratch, .. } = means;
        let runs = runs.as_mut();
        self.forget(append_time, runs, budget);
        scratch.verdicts.clear();
        if !identities(&self.key, header.batch.as_ref(), body, &mut scratch.ids, &mut scratch.bytes) {
            return Ok(());
        }
        contents(body, header.times_given, &mut scratch.content, &mut scratch.contents);
        scratch.verdicts.resize(body.rows(), Verdict::New);
        self.slices.iter_mut().for_each(|slice| slice.fill(body.rows() * FILLED_PER_ROW));
        self.begin_slice(append_time, runs);
        self.make_room(body.rows(), limits, budget, runs);
        let (current, older) = self.slices.split_last().expect("begun above");
        // Those that no filter has are looked for where they are remembered.
        current.filling_tables().iter().for_each(|table| judge_by_table(table, scratch));
        judge_by_filters(current, scratch);
        // Newest first: what is sent again was mostly sent a moment ago.
        scratch.confirm(current, runs)?;
        for slice in older.iter().rev().filter(|slice| !slice.is_empty()) {
            slice.unfiltered().for_each(|table| judge_by_table(table, scratch));
            judge_by_filters(slice, scratch);
            scratch.confirm(slice, runs)?;
        }
        Ok(())
    }

    /// Remembers the rows of the block judged last that are new, and finds those that are equal to one before them in the
    /// block. Returns the counts; which rows are which, [`DedupScratch::duplicates`] says.
    pub(crate) fn remember(
        &mut self,
        limits: &Limits,
        budget: &Arc<MemoryBudget>,
        scratch: &mut DedupScratch,
    ) -> Counts {
        if scratch.verdicts.is_empty() {
            return Counts::default();
        }
        let slice = self.slices.last_mut().expect("the block was judged");
        let new = scratch.verdicts.iter().filter(|verdict| **verdict == Verdict::New).count();
        slice.recent.reserve(new, limits.recent_ids_max);
        let filtered = slice.recent.is_divided();
        // Of the rows that are new by what came before the block, those that are equal come to lie in this table.
        let table = slice.recent.last();
        let mut counts = Counts::default();
        scratch.items.clear();
        scratch.ids.iter().take(AHEAD).for_each(|id| table.prefetch(*id));
        for row in 0..scratch.ids.len() {
            if let Some(id) = scratch.ids.get(row + AHEAD) {
                table.prefetch(*id);
            }
            let (id, content) = (scratch.ids[row], scratch.contents[row]);
            if id != NONE && scratch.verdicts[row] == Verdict::New {
                match table.find_or_insert(id, content) {
                    Some(first) => scratch.convict(row, first),
                    None if filtered => scratch.items.push(filter_item(id)),
                    None => {}
                }
            }
            counts.duplicate += u64::from(scratch.verdicts[row] != Verdict::New);
            counts.conflict += u64::from(scratch.verdicts[row] == Verdict::Conflict);
        }
        slice.enter(&scratch.items, limits.recent_ids_max);
        self.account(budget);
        counts
    }

    /// Sees to it that the last slice is that of `append_time`.
    fn begin_slice(&mut self, append_time: Timestamp, runs: &mut dyn IdRuns) {
        if self.slices.last().is_some_and(|slice| append_time < slice.times.until) {
            return;
        }
        let slice = Slice::new(self.window.slice_at(append_time), self.slices.last());
        if self.slices.last().is_some_and(Slice::is_empty) {
            self.slices.pop();
        }
        if let Some(before) = self.slices.last_mut().filter(|before| before.has_runs()) {
            // Filters are asked about it anyway: with all of its ids in runs, they can be merged into one.
            before.spill(runs);
            before.seal(runs);
        }
        self.slices.push(slice);
    }

    /// Spills tables of newest ids until `rows` more have room in memory.
    fn make_room(&mut self, rows: usize, limits: &Limits, budget: &Arc<MemoryBudget>, runs: &mut dyn IdRuns) {
        let current = self.slices.last().expect("begun before");
        let growth = current.recent.growth(rows, limits.recent_ids_max);
        let crowded = growth > 0 && !budget.has_room_for_recent_ids(growth as u64);
        loop {
            let in_memory: usize = self.slices.iter().map(|slice| slice.recent.len()).sum();
            let spill_at = if crowded { SPILL_MIN.min(limits.recent_ids_max) } else { limits.recent_ids_max };
            if in_memory == 0 || in_memory + rows <= spill_at {
                break;
            }
            // Of the largest, the oldest: it is the least likely to be asked for.
            let largest = (0..self.slices.len()).rev().max_by_key(|at| self.slices[*at].recent.len());
            let at = largest.expect("there is a current slice");
            let is_current = at + 1 == self.slices.len();
            self.slices[at].spill(runs);
            if !is_current {
                self.slices[at].seal(runs);
            }
        }
        self.account(budget);
    }

    /// Brings the budget up to date.
    pub(super) fn account(&mut self, budget: &Arc<MemoryBudget>) {
        let bytes = self.bytes();
        let recent = self.slices.iter().map(|slice| slice.recent.bytes()).sum::<usize>() as u64;
        self.charge.get_or_insert_with(|| IdentityCharge::new(budget)).set(bytes, recent);
    }
}

/// Rows that the filters of a slice suspect become suspects.
fn judge_by_filters(slice: &Slice, scratch: &mut DedupScratch) {
    let DedupScratch { ids, verdicts, suspects, open, .. } = scratch;
    suspects.clear();
    for filter in &slice.filters {
        open.clear();
        ids.iter().take(AHEAD).for_each(|id| filter.prefetch(filter_item(*id)));
        for (row, (&id, verdict)) in ids.iter().zip(verdicts.iter()).enumerate() {
            if let Some(id) = ids.get(row + AHEAD) {
                filter.prefetch(filter_item(*id));
            }
            if *verdict != Verdict::New || id == NONE {
                continue;
            }
            match filter.look(filter_item(id)) {
                Look::Absent => {}
                Look::Perhaps => suspects.push(Suspect { id, row: row as u32 }),
                Look::Open => open.push(Suspect { id, row: row as u32 }),
            }
        }
        suspects.extend(open.iter().filter(|suspect| filter.look_again(filter_item(suspect.id))));
    }
}

/// Rows that are in a table are convicted.
fn judge_by_table(table: &MemoryRun, scratch: &mut DedupScratch) {
    if table.len() == 0 {
        return;
    }
    scratch.ids.iter().take(AHEAD).for_each(|id| table.prefetch(*id));
    for row in 0..scratch.ids.len() {
        if let Some(id) = scratch.ids.get(row + AHEAD) {
            table.prefetch(*id);
        }
        if scratch.verdicts[row] == Verdict::New
            && scratch.ids[row] != NONE
            && let Some(first) = table.find(scratch.ids[row])
        {
            scratch.convict(row, first);
        }
    }
}

impl DedupScratch {
    /// By row of the block judged last: what it is. `None`: all are new.
    pub(crate) fn duplicates(&self, counts: Counts) -> Option<&[Verdict]> {
        (counts.duplicate > 0).then_some(self.verdicts.as_slice())
    }

    fn convict(&mut self, row: usize, first: u32) {
        let conflicts = differ(first, self.contents[row]);
        self.verdicts[row] = if conflicts { Verdict::Conflict } else { Verdict::Duplicate };
    }

    /// Convicts the suspects that are in tables or runs of a slice.
    fn confirm(&mut self, slice: &Slice, runs: &mut dyn IdRuns) -> Result<(), RunFault> {
        let mut suspects = std::mem::take(&mut self.suspects);
        slice.recent.tables().for_each(|table| {
            let convict = |suspect: Suspect, first| self.convict(suspect.row as usize, first);
            find_all(table, &mut suspects, |suspect| suspect.id, convict);
        });
        suspects.sort_unstable();
        // Two filters may suspect the same row.
        suspects.dedup();
        let outcome = slice.confirm(runs, &mut suspects, |row, first| self.convict(row as usize, first));
        self.suspects = suspects;
        outcome
    }
}
