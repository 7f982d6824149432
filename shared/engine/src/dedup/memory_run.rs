//! The newest ids of a slice: exact, in a table with linear probing by the top bits of the id.
//!
//! The order of places is nearly that of ids: a scan gives them sorted up to small clusters, and growing is a scan too.

use kernels::{advise_huge_pages, prefetch};

use super::identity::NONE;

/// Places of the smallest table, as a power of two.
const BITS_MIN: u32 = 4;
/// A table is at most three quarters full: probes stay within a cache line or two.
const LOAD_QUARTERS_MAX: usize = 3;
/// So many moves per id are a local sort; more of them, and the ids were chosen to lie badly.
const MOVES_PER_ID_MAX: usize = 16;

/// Ids with the content of the row that brought each.
#[derive(Debug, Default, Clone)]
pub(super) struct MemoryRun {
    /// Their number is a power of two, or 0.
    places: Vec<Place>,
    len: usize,
}

/// An id and its content side by side, mostly in one cache line; `NONE`: an empty place. Packed, for the content would
/// else take as much as the id.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Place {
    id: u128,
    content: u32,
}

const _: () = assert!(NONE == 0, "zeroed memory is a table of empty places");

/// Ids in ascending order, each with its content.
#[derive(Debug, Default)]
pub struct SortedIds {
    /// The ids, ascending strictly.
    pub ids: Vec<u128>,
    /// By id: its content.
    pub contents: Vec<u32>,
}

/// A table that takes no more ids: it is looked into where it is until it lies sorted elsewhere.
#[derive(Debug)]
pub struct FrozenIds(MemoryRun);

impl FrozenIds {
    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The content of an id that is here.
    #[must_use]
    #[inline]
    pub fn find(&self, id: u128) -> Option<u32> {
        self.0.find(id).filter(|_| id != NONE)
    }

    /// All ids, sorted: a pass over the table, and local moves.
    #[must_use]
    pub fn sorted(&self) -> SortedIds {
        self.0.sorted()
    }

    /// All ids, nearly ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = u128> {
        self.0.entries().map(|(id, _)| id)
    }
}

impl FromIterator<(u128, u32)> for FrozenIds {
    /// Of several equal ids the first stays. No id is 0.
    fn from_iter<I: IntoIterator<Item = (u128, u32)>>(ids: I) -> Self {
        let mut table = MemoryRun::default();
        for (id, content) in ids {
            table.reserve(1);
            table.find_or_insert(id, content);
        }
        Self(table)
    }
}

impl MemoryRun {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.len() * size_of::<Place>()
    }

    /// Bytes that the table would have with room for `more` ids.
    pub(super) fn bytes_with(&self, more: usize) -> usize {
        self.places_for(more) * size_of::<Place>()
    }

    fn places_for(&self, more: usize) -> usize {
        let places = ((self.len + more) * 4).div_ceil(LOAD_QUARTERS_MAX).next_power_of_two().max(1 << BITS_MIN);
        places.max(self.places.len())
    }

    /// Makes room for `more` ids.
    pub(super) fn reserve(&mut self, more: usize) {
        let places = self.places_for(more);
        if places == self.places.len() {
            return;
        }
        let before = std::mem::replace(&mut self.places, empty_places(places));
        self.len = 0;
        for place in before.iter().filter(|place| place.id != NONE) {
            self.find_or_insert(place.id, place.content);
        }
    }

    /// Starts to load what a look for `id` touches.
    #[inline]
    pub(super) fn prefetch(&self, id: u128) {
        if !self.places.is_empty() {
            prefetch(&self.places, self.home(id));
        }
    }

    /// The content of an id that is here.
    #[inline]
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let place = self.places[self.place_of(id)];
        (place.id == id).then_some(place.content)
    }

    /// The content of an id that was here already; else it is inserted. There is room for it.
    #[inline]
    pub(super) fn find_or_insert(&mut self, id: u128, content: u32) -> Option<u32> {
        let at = self.place_of(id);
        if self.places[at].id == id {
            return Some(self.places[at].content);
        }
        self.places[at] = Place { id, content };
        self.len += 1;
        None
    }

    #[inline]
    fn home(&self, id: u128) -> usize {
        // The table is not empty, so the shift is less than all bits.
        (id >> (u128::BITS - self.places.len().trailing_zeros())) as usize
    }

    /// Where `id` is, or the empty place where it would be. There is one, as the table is never full.
    #[inline]
    fn place_of(&self, id: u128) -> usize {
        let mut at = self.home(id);
        loop {
            let there = self.places[at].id;
            if there == id || there == NONE {
                return at;
            }
            at = (at + 1) & (self.places.len() - 1);
        }
    }

    /// All ids with their contents, in the order of places: ascending but for small clusters.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u128, u32)> {
        self.places.iter().filter(|place| place.id != NONE).map(|place| (place.id, place.content))
    }

    /// Takes all ids out; what is left has no memory.
    pub(super) fn freeze(&mut self) -> FrozenIds {
        FrozenIds(std::mem::take(self))
    }

    /// Takes all ids out, and makes another table of the same size for those to come.
    pub(super) fn freeze_and_go_on(&mut self) -> FrozenIds {
        let next = Self { places: empty_places(self.places.len()), len: 0 };
        FrozenIds(std::mem::replace(self, next))
    }

    fn sorted(&self) -> SortedIds {
        let mut sorted = SortedIds { ids: Vec::with_capacity(self.len), contents: Vec::with_capacity(self.len) };
        // Ids at the front may have come round from the end: those before the first whose home is not behind them.
        let wraps = |at: usize| self.places[at].id != NONE && self.home(self.places[at].id) > at;
        let start = (0..self.places.len()).find(|&at| !wraps(at)).unwrap_or_default();
        let (front, others) = self.places.split_at(start);
        for place in others.iter().chain(front).filter(|place| place.id != NONE) {
            sorted.ids.push(place.id);
            sorted.contents.push(place.content);
        }
        sort_nearly_sorted(&mut sorted);
        sorted
    }
}

/// Memory that the system zeroes when it is first touched, on huge pages where it has them.
fn empty_places(count: usize) -> Vec<Place> {
    let places = Box::<[Place]>::new_zeroed_slice(count);
    // SAFETY: a place is integers without padding, for which zeroed memory is a value: the empty place.
    let mut places = unsafe { places.assume_init() };
    advise_huge_pages(&mut places);
    places.into_vec()
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
            let frozen = run.freeze();
            let sorted = frozen.sorted();
            prop_assert_eq!(sorted.ids.iter().copied().zip(sorted.contents.iter().copied()).collect::<Vec<_>>(), oracle.clone().into_iter().collect::<Vec<_>>());
            for id in ids.iter().chain(&lookups) {
                prop_assert_eq!(frozen.find(*id), oracle.get(id).copied());
            }
            prop_assert_eq!(run.len(), 0);
            prop_assert!(ids.iter().all(|id| run.find(*id).is_none()));
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
