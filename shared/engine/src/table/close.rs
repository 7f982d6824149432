//! Segments of a table that get no more rows.

use types::Timestamp;

use super::{Means, OpenSegment, OpenSlot, TableWriter};
use crate::{
    seal::{SealedSegment, seal},
    sync::Arc,
};

/// How long stragglers share one segment, µs of append time. Bounds for how long they hold back the log's release.
const STRAGGLERS_OPEN_US_MAX: i64 = 600_000_000;
/// A segment is large that has at least this share of the rows of the largest.
const LARGE_SHARE: usize = 8;

impl TableWriter {
    /// Closes the slot of a number: its segment is sealed.
    pub(super) fn close(&mut self, at: usize, means: &mut Means) {
        if let Some(mut slot) = self.open[at].take() {
            self.seal_open(&mut slot, means);
        }
    }

    /// Seals the segment of a slot that became idle, if it is a large one: mostly its time is over, and what it has not used is
    /// given back. Rows that come all the same begin as in a new slot, so that a few late ones take little.
    pub(super) fn rest(&mut self, at: usize, means: &mut Means) {
        let large = means.limits.segment_rows_max / LARGE_SHARE;
        let is_large = |open: &OpenSegment| open.writer.shared().layout().capacity >= large;
        let is_due = |slot: &&mut OpenSlot| slot.segment.as_ref().is_some_and(is_large);
        let Some(slot) = self.open[at].as_mut().filter(is_due) else { return };
        let Some(open) = slot.segment.take() else { return };
        slot.rows = 0;
        self.seal_segment(&open, means);
    }

    pub(super) fn close_old_stragglers(&mut self, append_time: Timestamp, means: &mut Means) {
        let old = |open: &OpenSegment| append_time.micros_since(open.opened_at) >= STRAGGLERS_OPEN_US_MAX;
        if self.stragglers.segment.as_ref().is_some_and(old) {
            let mut stragglers = std::mem::replace(&mut self.stragglers, OpenSlot::stragglers());
            self.seal_open(&mut stragglers, means);
        }
    }

    /// Seals a slot's segment, if it has one.
    pub(super) fn seal_open(&mut self, slot: &mut OpenSlot, means: &mut Means) {
        if let Some(open) = slot.segment.take() {
            self.seal_segment(&open, means);
        }
    }

    fn seal_segment(&mut self, open: &OpenSegment, means: &mut Means) {
        let SealedSegment { segment, sealed, replaced } = seal(&open.writer, &mut means.pool, &means.budget);
        let at = self.segments.binary_search_by_key(&open.order, |entry| entry.order);
        let entry = &mut self.segments[at.expect("an open segment is in the list")];
        (entry.segment, entry.sealed) = (segment, Some(Arc::new(sealed)));
        self.removed.extend(replaced);
        if self.has_rollups() {
            self.unfolded.push_back(open.order);
        }
        self.changed = true;
    }
}
