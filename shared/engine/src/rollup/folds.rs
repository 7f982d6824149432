//! What rollups have of a segment, beside it.

use types::ColumnDef;

use super::{
    builder::{PartBuilder, Resolved},
    page::push_part,
    part::RollupPart,
    state::RollupState,
};
use crate::{MemoryBudget, snapshot::SegmentView, sync::Arc, view::SegmentEntry};

/// What one rollup has of a segment: parts of its first rows, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    /// Of which rollup.
    pub(crate) rollup: u64,
    /// How many rows they hold.
    pub(crate) rows: usize,
    pub(crate) parts: Vec<Arc<RollupPart>>,
}

/// What all of a table's rollups have of a segment; those that have nothing are not listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folds {
    list: Arc<Vec<Folded>>,
    bytes: u64,
}

impl Folds {
    /// What a rollup has.
    pub(crate) fn of(&self, rollup: u64) -> Option<&Folded> {
        self.list.iter().find(|folded| folded.rollup == rollup)
    }

    /// How many rows a rollup has.
    pub(crate) fn rows(&self, rollup: u64) -> usize {
        self.of(rollup).map_or(0, |folded| folded.rows)
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets go of what rollups have that are not among these.
    pub(crate) fn retain(&mut self, rollups: &[u64]) {
        if self.list.iter().all(|folded| rollups.contains(&folded.rollup)) {
            return;
        }
        let (kept, gone): (Vec<Folded>, _) =
            self.list.iter().cloned().partition(|folded| rollups.contains(&folded.rollup));
        gone.iter().for_each(Folded::retire);
        self.set(kept);
    }

    fn replace(&mut self, folded: Folded) {
        let mut list: Vec<Folded> = self.list.iter().filter(|other| other.rollup != folded.rollup).cloned().collect();
        list.push(folded);
        self.set(list);
    }

    fn set(&mut self, list: Vec<Folded>) {
        self.bytes = list.iter().flat_map(|folded| &folded.parts).map(|part| part.bytes()).sum();
        self.list = Arc::new(list);
    }
}

impl Folded {
    /// The writer has no more use for it.
    pub(crate) fn retire(&self) {
        self.parts.iter().for_each(|part| part.retire());
    }
}

/// Folds rows of a segment into what a rollup has of it, `rows_max` of them at most. Returns how many.
pub(crate) fn fold(
    state: &RollupState,
    columns: &[ColumnDef],
    entry: &mut SegmentEntry,
    rows_max: usize,
    budget: &Arc<MemoryBudget>,
) -> usize {
    let id = state.view.id;
    let rows = entry.segment.observe();
    let mut folded = entry.folds.of(id).cloned().unwrap_or(Folded { rollup: id, rows: 0, parts: Vec::new() });
    let taken = folded.rows..rows.min(folded.rows.saturating_add(rows_max));
    if taken.is_empty() {
        return 0;
    }
    let view = SegmentView::whole(entry, rows);
    let resolved = Resolved::new(&state.view.rollup, columns);
    if let Some(part) = PartBuilder::of_rows(&resolved, &view, taken.clone(), None).finish(Some(budget)) {
        push_part(&mut folded.parts, Arc::new(part), budget);
    }
    folded.rows = taken.end;
    entry.folds.replace(folded);
    taken.len()
}
