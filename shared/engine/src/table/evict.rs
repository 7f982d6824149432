//! What leaves a table: by its hot window, by the memory budget, or as a whole.

use types::Timestamp;

use super::{Means, OpenSlot, TableWriter};

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

    /// Evicts what holds no time after `last`: sealed segments, and open slots whose time is over. Publishes, and returns
    /// the bytes of rows that left; rollups take over what they keep of them. `last` itself leaves too, so that there is a
    /// way out for the greatest time as well.
    pub(crate) fn evict_through(&mut self, last: Timestamp, append_time: Timestamp, means: &mut Means) -> u64 {
        let mut horizon = self.evicted_before;
        let mut leaving = Vec::new();
        for slot in
            self.open.iter_mut().flatten().filter(|slot| slot.end.saturating_add(-1) <= last && slot.end <= append_time)
        {
            if let Some(open) = slot.segment.take() {
                self.left += open.writer.rows() as u64;
                horizon = horizon.max(Some(slot.end));
                slot.gone = true;
                leaving.push(open.order);
            }
        }
        let left = &mut self.left;
        let gone = self.segments.extract_if(.., |entry| {
            let old = entry.sealed.as_ref().filter(|sealed| sealed.time_max <= last);
            if let Some(sealed) = old {
                *left += sealed.rows as u64;
                horizon = horizon.max(Some(sealed.time_max.saturating_add(1)));
            }
            old.is_some() || leaving.contains(&entry.order)
        });
        for mut entry in gone.collect::<Vec<_>>() {
            self.keep_of(&mut entry, &means.budget);
            self.removed.push(entry.segment);
        }
        self.changed |= !self.removed.is_empty();
        self.evicted_before = horizon;
        self.uncover();
        self.publish(&mut means.pool)
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
