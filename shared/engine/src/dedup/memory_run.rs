//! The newest ids of a slice: exact, in a table with linear probing by the top bits of the id.
//!
//! The order of places is nearly that of ids: a scan gives them sorted up to small clusters, and growing is a scan too.

use sketch::prefetch;

use super::identity::NONE;

/// Places of the smallest table, as a power of two.
const BITS_MIN: u32 = 4;
/// A table is at most three quarters full: probes stay within a cache line or two.
const LOAD_QUARTERS_MAX: usize = 3;
/// So many moves per id are a local sort; more of them, and the ids were chosen to lie badly.
const MOVES_PER_ID_MAX: usize = 16;

/// Ids with the content of the row that brought each.
#[derive(Debug, Default)]
pub(super) struct MemoryRun {
    /// `NONE`: an empty place. Their number is a power of two, or 0.
    ids: Vec<u128>,
    contents: Vec<u32>,
    len: usize,
}

/// Ids in ascending order, each with its content.
#[derive(Debug, Default)]
pub(super) struct SortedIds {
    pub(super) ids: Vec<u128>,
    pub(super) contents: Vec<u32>,
}

impl SortedIds {
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|at| self.contents[at])
    }

    pub(super) fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u128>() + self.contents.capacity() * size_of::<u32>()
    }
}

impl MemoryRun {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.ids.len() * (size_of::<u128>() + size_of::<u32>())
    }

    /// Bytes that the table would have with room for `more` ids.
    pub(super) fn bytes_with(&self, more: usize) -> usize {
        self.places_for(more) * (size_of::<u128>() + size_of::<u32>())
    }

    fn places_for(&self, more: usize) -> usize {
        let places = ((self.len + more) * 4).div_ceil(LOAD_QUARTERS_MAX).next_power_of_two().max(1 << BITS_MIN);
        places.max(self.ids.len())
    }

    /// Makes room for `more` ids.
    pub(super) fn reserve(&mut self, more: usize) {
        let places = self.places_for(more);
        if places == self.ids.len() {
            return;
        }
        let ids = std::mem::replace(&mut self.ids, vec![NONE; places]);
        let contents = std::mem::replace(&mut self.contents, vec![0; places]);
        self.len = 0;
        for (id, content) in ids.into_iter().zip(contents).filter(|(id, _)| *id != NONE) {
            self.find_or_insert(id, content);
        }
    }

    /// Starts to load what a look for `id` touches.
    #[inline]
    pub(super) fn prefetch(&self, id: u128) {
        if !self.ids.is_empty() {
            let home = self.home(id);
            prefetch(&self.ids, home);
            prefetch(&self.contents, home);
        }
    }

    /// The content of an id that is here.
    #[inline]
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let at = self.place_of(id);
        (self.ids[at] == id).then(|| self.contents[at])
    }

    /// The content of an id that was here already; else it is inserted. There is room for it.
    #[inline]
    pub(super) fn find_or_insert(&mut self, id: u128, content: u32) -> Option<u32> {
        let at = self.place_of(id);
        if self.ids[at] == id {
            return Some(self.contents[at]);
        }
        self.ids[at] = id;
        self.contents[at] = content;
        self.len += 1;
        None
    }

    #[inline]
    fn home(&self, id: u128) -> usize {
        // The table is not empty, so the shift is less than all bits.
        (id >> (u128::BITS - self.ids.len().trailing_zeros())) as usize
    }

    /// Where `id` is, or the empty place where it would be. There is one, as the table is never full.
    #[inline]
    fn place_of(&self, id: u128) -> usize {
        let mut at = self.home(id);
        while self.ids[at] != NONE && self.ids[at] != id {
            at = (at + 1) & (self.ids.len() - 1);
        }
        at
    }

    /// Empties the table, and frees it: all ids, sorted.
    pub(super) fn take_sorted(&mut self) -> SortedIds {
        let table = std::mem::take(self);
        let mut sorted = SortedIds { ids: Vec::with_capacity(table.len), contents: Vec::with_capacity(table.len) };
        // Ids at the front may have come round from the end: those before the first whose home is not behind them.
        let wraps = |at: usize| table.ids[at] != NONE && table.home(table.ids[at]) > at;
        let start = (0..table.ids.len()).find(|&at| !wraps(at)).unwrap_or_default();
        for at in (start..table.ids.len()).chain(0..start).filter(|&at| table.ids[at] != NONE) {
            sorted.ids.push(table.ids[at]);
            sorted.contents.push(table.contents[at]);
        }
        sort_nearly_sorted(&mut sorted);
        sorted
    }
}

/// Insertion by insertion, which is one pass where ids are at most a cluster away from their place.
fn sort_nearly_sorted(sorted: &mut SortedIds) {
    let SortedIds { ids, contents } = sorted;
    let mut moves = 0;
    for next in 1..ids.len() {
        let (id, content) = (ids[next], contents[next]);
        let mut at = next;
        while at > 0 && ids[at - 1] > id {
            (ids[at], contents[at]) = (ids[at - 1], contents[at - 1]);
            at -= 1;
        }
        (ids[at], contents[at]) = (id, content);
        moves += next - at;
        if moves > ids.len() * MOVES_PER_ID_MAX {
            let mut both: Vec<_> = ids.iter().copied().zip(contents.iter().copied()).collect();
            both.sort_unstable();
            (*ids, *contents) = both.into_iter().unzip();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = u128> {
        // Ids of any kind, some that crowd the last place, and some the first.
        prop_oneof![1..=u128::MAX, (0_u128..40).prop_map(|n| u128::MAX - n), 1_u128..40]
    }

    proptest! {
        /// Goal: the table answers like a map after any history, and comes out sorted, also where clusters go round.
        #[test]
        fn tables_match_a_map(ids in prop::collection::vec(id(), 0..300), lookups in prop::collection::vec(id(), 0..50)) {
            let (mut run, mut oracle) = (MemoryRun::default(), BTreeMap::new());
            for (content, &id) in (0..).zip(&ids) {
                run.reserve(1);
                let before = run.find_or_insert(id, content);
                prop_assert_eq!(before, oracle.get(&id).copied());
                oracle.entry(id).or_insert(content);
            }
            for id in ids.iter().chain(&lookups) {
                prop_assert_eq!(run.find(*id), oracle.get(id).copied());
            }
            prop_assert_eq!(run.len(), oracle.len());
            let sorted = run.take_sorted();
            prop_assert_eq!(sorted.ids.iter().copied().zip(sorted.contents.iter().copied()).collect::<Vec<_>>(), oracle.clone().into_iter().collect::<Vec<_>>());
            for id in ids.iter().chain(&lookups) {
                prop_assert_eq!(sorted.find(*id), oracle.get(id).copied());
            }
            prop_assert_eq!((run.len(), run.bytes()), (0, 0));
        }
    }

    /// Goal: a table with few ids is small.
    #[test]
    fn small_tables_are_small() {
        let mut run = MemoryRun::default();
        assert_eq!(run.bytes(), 0);
        run.reserve(10);
        assert_eq!(run.bytes(), 320);
        assert_eq!(run.bytes_with(13), 640);
    }
}
