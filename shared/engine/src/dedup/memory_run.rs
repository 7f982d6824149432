//! The newest ids of a slice: exact.
//!
//! 1. Ids lie in the order in which they came ([`Arrivals`]), in chunks. A full chunk never changes, so a capture of the table
//!    shares it, and copies the last chunk alone, however many ids there are.
//! 2. An index finds them, with linear probing by the top bits of the id. A place has 32 bits of the id, so that growing is
//!    one pass over the index, and a look for another id hardly ever goes on to the ids.
//! 3. The order of places is nearly that of ids: a pass over the index gives them sorted up to small clusters.

use std::ops::Range;

use kernels::{LargeTable, prefetch};

use super::identity::NONE;
use crate::sync::Arc;

/// Places of the smallest index, as a power of two.
const BITS_MIN: u32 = 4;
/// An index is at most three quarters full: probes stay within a cache line or two.
const LOAD_QUARTERS_MAX: usize = 3;
/// Ids of a chunk, 80 KiB: what a capture copies at most.
const CHUNK_IDS: usize = 4_096;
/// Places between asking for the memory of an id and looking at it.
const AHEAD: usize = 16;
/// Places that are gone through in one step. Few in tests, so that runs of a few ids are entered in several steps.
const STEP_PLACES: usize = if cfg!(test) { 4 } else { 512 };
/// So many moves per id are a local sort; more of them, and the ids were chosen to lie badly.
const MOVES_PER_ID_MAX: usize = 16;

/// Ids with the content of the row that brought each.
#[derive(Debug, Default)]
pub(super) struct MemoryRun {
    /// Their number is a power of two, or 0.
    places: LargeTable<Place>,
    ids: Arrivals,
}

/// In the high half the top bits of an id, in the low half one more than its number among the arrivals; 0: an empty place.
type Place = u64;

/// Ids in the order in which they came. A clone shares all but the last of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Arrivals {
    /// Of [`CHUNK_IDS`] ids each.
    full: Vec<Arc<Vec<Arrival>>>,
    last: Vec<Arrival>,
}

/// An id and its content side by side, mostly in one cache line. Packed, for the content would else take as much as the id.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Arrival {
    id: u128,
    content: u32,
}

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

    /// Some of the ids; those of step 0 and so on are all of them, nearly ascending.
    pub(super) fn step(&self, at: usize, mut each: impl FnMut(u128)) {
        let end = ((at + 1) * STEP_PLACES).min(self.0.places.len());
        self.0.in_places(at * STEP_PLACES..end, |id, _| each(id));
    }

    /// The table, to be asked.
    pub(super) fn table(&self) -> &MemoryRun {
        &self.0
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
        self.ids.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.len() * size_of::<Place>() + self.ids.bytes()
    }

    /// Bytes that the table would have with room for `more` ids.
    pub(super) fn bytes_with(&self, more: usize) -> usize {
        let ids = self.ids.bytes().max((self.len() + more) * size_of::<Arrival>());
        self.places_for(more) * size_of::<Place>() + ids
    }

    fn places_for(&self, more: usize) -> usize {
        let places = ((self.len() + more) * 4).div_ceil(LOAD_QUARTERS_MAX).next_power_of_two().max(1 << BITS_MIN);
        places.max(self.places.len())
    }

    /// Makes room for `more` ids.
    pub(super) fn reserve(&mut self, more: usize) {
        let places = self.places_for(more);
        if places == self.places.len() {
            return;
        }
        let before = std::mem::replace(&mut self.places, LargeTable::zeroed(places));
        for place in before.iter().copied().filter(|place| *place != 0) {
            let mut at = self.home(top_of(place));
            while self.places[at] != 0 {
                at = self.after(at);
            }
            self.places[at] = place;
        }
    }

    /// Starts to load what a look for `id` touches.
    #[inline]
    pub(super) fn prefetch(&self, id: u128) {
        if !self.places.is_empty() {
            prefetch(&self.places, self.home(top(id)));
        }
    }

    /// The content of an id that is here.
    #[inline]
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        if self.len() == 0 { None } else { self.seek(id).ok() }
    }

    /// The content of an id that was here already; else it is inserted. There is room for it.
    #[inline]
    pub(super) fn find_or_insert(&mut self, id: u128, content: u32) -> Option<u32> {
        match self.seek(id) {
            Ok(content) => Some(content),
            Err(at) => {
                self.ids.push(Arrival { id, content });
                self.places[at] = u64::from(top(id)) << u32::BITS | self.len() as u64;
                None
            }
        }
    }

    /// The place where a search for these top bits begins. There are places, at most 2^32.
    #[inline]
    fn home(&self, top: u32) -> usize {
        (u64::from(top) >> (u32::BITS - self.places.len().trailing_zeros())) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// The content of `id`, or the empty place where it would be. There is one, as the index is never full.
    #[inline]
    fn seek(&self, id: u128) -> Result<u32, usize> {
        let mut at = self.home(top(id));
        loop {
            let place = self.places[at];
            if place == 0 {
                return Err(at);
            }
            if top_of(place) == top(id) {
                let arrival = self.ids.get(number_of(place));
                if arrival.id == id {
                    return Ok(arrival.content);
                }
            }
            at = self.after(at);
        }
    }

    /// What a capture has of the table: all ids.
    pub(super) fn arrivals(&self) -> &Arrivals {
        &self.ids
    }

    /// Takes all ids out; what is left has no memory.
    pub(super) fn freeze(&mut self) -> FrozenIds {
        FrozenIds(std::mem::take(self))
    }

    /// Takes all ids out, and makes another table of the same size for those to come.
    pub(super) fn freeze_and_go_on(&mut self) -> FrozenIds {
        let next = Self { places: LargeTable::zeroed(self.places.len()), ids: Arrivals::default() };
        FrozenIds(std::mem::replace(self, next))
    }

    /// The ids of some places, with their contents, in the order of places.
    fn in_places(&self, range: Range<usize>, mut each: impl FnMut(u128, u32)) {
        let places = &self.places[range];
        for (at, place) in places.iter().enumerate() {
            if let Some(next) = places.get(at + AHEAD).filter(|next| **next != 0) {
                self.ids.prefetch(number_of(*next));
            }
            if *place != 0 {
                let Arrival { id, content } = self.ids.get(number_of(*place));
                each(id, content);
            }
        }
    }

    fn sorted(&self) -> SortedIds {
        let mut sorted = SortedIds { ids: Vec::with_capacity(self.len()), contents: Vec::with_capacity(self.len()) };
        // Ids at the front may have come round from the end: those before the first whose home is not behind them.
        let wraps = |at: usize| self.places[at] != 0 && self.home(top_of(self.places[at])) > at;
        let start = (0..self.places.len()).find(|&at| !wraps(at)).unwrap_or_default();
        for range in [start..self.places.len(), 0..start] {
            self.in_places(range, |id, content| {
                sorted.ids.push(id);
                sorted.contents.push(content);
            });
        }
        sort_nearly_sorted(&mut sorted);
        sorted
    }
}

impl Arrivals {
    pub(super) fn len(&self) -> usize {
        self.full.len() * CHUNK_IDS + self.last.len()
    }

    fn bytes(&self) -> usize {
        (self.full.len() * CHUNK_IDS + self.last.capacity()) * size_of::<Arrival>()
    }

    /// Bytes of the chunks that nobody else shares, and of the last, which is never shared.
    pub(super) fn bytes_alone(&self) -> usize {
        let alone = self.full.iter().filter(|chunk| Arc::strong_count(chunk) == 1).count();
        (alone * CHUNK_IDS + self.last.capacity()) * size_of::<Arrival>()
    }

    /// All ids with their contents.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u32)> {
        let full = self.full.iter().flat_map(|chunk| chunk.iter());
        full.chain(&self.last).map(|arrival| (arrival.id, arrival.content))
    }

    #[inline]
    fn push(&mut self, arrival: Arrival) {
        if self.last.len() == CHUNK_IDS {
            self.full.push(Arc::new(std::mem::replace(&mut self.last, Vec::with_capacity(CHUNK_IDS))));
        }
        self.last.push(arrival);
    }

    /// The chunk of an id, and where it lies there.
    #[inline]
    fn locate(&self, number: usize) -> (&[Arrival], usize) {
        let chunk = self.full.get(number / CHUNK_IDS).map_or(self.last.as_slice(), |chunk| chunk.as_slice());
        (chunk, number % CHUNK_IDS)
    }

    #[inline]
    fn get(&self, number: usize) -> Arrival {
        let (chunk, at) = self.locate(number);
        chunk[at]
    }

    #[inline]
    fn prefetch(&self, number: usize) {
        let (chunk, at) = self.locate(number);
        prefetch(chunk, at);
    }
}

#[inline]
fn top(id: u128) -> u32 {
    (id >> (u128::BITS - u32::BITS)) as u32
}

#[inline]
fn top_of(place: Place) -> u32 {
    (place >> u32::BITS) as u32
}

/// The number of an id among the arrivals.
#[inline]
fn number_of(place: Place) -> usize {
    place as u32 as usize - 1
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

    /// Goal: a capture alone holds its copy of the last ids, and the others once the table has let go of them.
    #[test]
    fn a_capture_knows_what_it_holds_alone() {
        let mut run = MemoryRun::default();
        for n in 0..2 * CHUNK_IDS as u32 + 10 {
            run.reserve(1);
            run.find_or_insert(u128::from(n + 1) << 96, n);
        }
        let captured = run.arrivals().clone();
        let copied = captured.last.capacity() * size_of::<Arrival>();
        assert!((10 * size_of::<Arrival>()..captured.bytes() / 2).contains(&copied), "{copied}");
        assert_eq!(captured.bytes_alone(), copied);
        let frozen = run.freeze();
        assert_eq!(captured.bytes_alone(), copied, "they wait for being written");
        drop(frozen);
        assert_eq!(captured.bytes_alone(), captured.bytes());
    }

    /// Goal: what was captured stays as it was, in the order in which it came, whatever comes afterwards.
    #[test]
    fn captured_ids_stay_as_they_were() {
        let (mut run, mut captures) = (MemoryRun::default(), Vec::new());
        for n in 0..3 * CHUNK_IDS as u32 {
            if n % 777 == 0 || n as usize % CHUNK_IDS < 2 {
                captures.push((n, run.arrivals().clone()));
            }
            run.reserve(1);
            run.find_or_insert(u128::from(n + 1) << 96, n);
        }
        for (len, captured) in captures {
            assert_eq!(captured.len(), len as usize);
            assert!(captured.iter().eq((0..len).map(|n| (u128::from(n + 1) << 96, n))), "{len}");
        }
    }

    /// Goal: a table with few ids is small.
    #[test]
    fn small_tables_are_small() {
        let mut run = MemoryRun::default();
        assert_eq!(run.bytes(), 0);
        run.reserve(10);
        assert_eq!((run.bytes(), run.bytes_with(10)), (128, 328));
        (1..=10).for_each(|id| assert_eq!(run.find_or_insert(id, 0), None));
        assert!(run.bytes() <= 448, "{}", run.bytes());
        assert_eq!(run.bytes_with(13), 256 + 23 * 20);
    }
}
