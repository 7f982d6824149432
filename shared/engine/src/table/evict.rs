//! What leaves a table: by its hot window, by the memory budget, or as a whole.

use std::collections::BTreeSet;

use types::Timestamp;

use super::{Means, OpenSlot, TableWriter};
use crate::view::{SegmentEntry, SegmentOrder};

impl TableWriter {
    /// What has to leave as the table keeps only so much event time: everything before this.
    pub(crate) fn hot_window_start(&self) -> Option<Timestamp> {
        let (newest, window) = (self.times.newest()?, self.hot_window_us?);
        Some(newest.saturating_add(window.saturating_neg()))
    }

    /// The greatest event time that the oldest evictable thing may hold; `None` where nothing can be evicted.
    pub(crate) fn oldest_evictable(&self, append_time: Timestamp) -> Option<Timestamp> {
        let sealed = self.segments.iter().filter_map(|entry| entry.sealed.as_ref().map(|sealed| sealed.time_max));
        let slots = self.open.iter().flatten().filter(|slot| slot.segment.is_some() && slot.end <= append_time);
        sealed.chain(slots.map(|slot| slot.end.saturating_add(-1))).min()
    }

    /// The append time at which the next slot that is open now can be evicted.
    pub(crate) fn next_evictable_at(&self, append_time: Timestamp) -> Option<Timestamp> {
        let open = self.open.iter().flatten().filter(|slot| slot.segment.is_some() && slot.end > append_time);
        open.map(|slot| slot.end).min()
    }

    /// Evicts what holds no time after `last`: sealed segments, and open slots whose time is over; but for those of which
    /// rollups that outlive them do not have all rows yet, and may not take them now. Publishes, and returns the bytes of rows
    /// that left; rollups take over what they keep of them. `last` itself leaves too, so that there is a way out for the
    /// greatest time as well.
    pub(crate) fn evict_through(&mut self, last: Timestamp, append_time: Timestamp, means: &mut Means) -> u64 {
        let leaving = self.ready_to_leave(last, append_time, means);
        let (mut horizon, left) = (self.evicted_before, &mut self.left);
        for slot in self.open.iter_mut().flatten() {
            if let Some(open) = slot.segment.take_if(|open| leaving.contains(&open.order)) {
                *left += open.writer.rows() as u64;
                horizon = horizon.max(Some(slot.end));
                slot.gone = true;
            }
        }
        for entry in self.segments.iter().filter(|entry| leaving.contains(&entry.order)) {
            if let Some(sealed) = &entry.sealed {
                *left += sealed.rows as u64;
                horizon = horizon.max(Some(sealed.time_max.saturating_add(1)));
            }
        }
        let gone = self.segments.extract_if(.., |entry| leaving.contains(&entry.order));
        for mut entry in gone.collect::<Vec<_>>() {
            self.keep_of(&mut entry, means);
            self.removed.push(entry.segment);
        }
        self.changed |= !self.removed.is_empty();
        self.evicted_before = horizon;
        self.uncover();
        self.publish(&mut means.pool)
    }

    /// The segments that hold no time after `last`, as far as rollups have all that they keep of them.
    fn ready_to_leave(&mut self, last: Timestamp, append_time: Timestamp, means: &mut Means) -> BTreeSet<SegmentOrder> {
        let slots = self.open.iter().flatten();
        let slots = slots.filter(|slot| slot.end.saturating_add(-1) <= last && slot.end <= append_time);
        let open = slots.filter_map(|slot| slot.segment.as_ref().map(|open| open.order));
        let is_old = |entry: &&SegmentEntry| entry.sealed.as_ref().is_some_and(|sealed| sealed.time_max <= last);
        let due: BTreeSet<SegmentOrder> =
            self.segments.iter().filter(is_old).map(|entry| entry.order).chain(open).collect();
        due.into_iter().filter(|order| self.fold_to_leave(*order, means)).collect()
    }

    /// Takes all segments out of the list, as the table is gone for readers.
    pub(crate) fn retire_all(mut self, means: &mut Means) {
        self.dedup.forget_all(means.runs.as_mut());
        self.retire_rollups();
        self.removed.extend(self.segments.drain(..).map(|entry| entry.segment));
        (self.open, self.stragglers) = (Vec::new(), OpenSlot::stragglers());
        self.changed = true;
        self.publish(&mut means.pool);
    }
}
