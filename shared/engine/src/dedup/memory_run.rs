//! A table of ids in memory: exact.
//!
//! 1. Ids lie in the order in which they came ([`Arrivals`]), in chunks. A full chunk never changes, so a capture of the table
//!    shares it, and copies the last chunk alone, however many ids there are.
//! 2. An index finds them, with linear probing by the top bits of the id. A place has 32 bits of the id, so that growing is
//!    one pass over the index, and a look for another id hardly ever goes on to the ids.
//! 3. The order of places is nearly that of ids: those that begin with the same bits lie in one stretch, or in the cluster
//!    that runs over its end.

use std::ops::Range;

use kernels::{LargeTable, prefetch};

use crate::sync::Arc;

/// Places of the smallest index, as a power of two.
const BITS_MIN: u32 = 4;
/// An index is at most three quarters full: probes stay within a cache line or two.
const LOAD_QUARTERS_MAX: usize = 3;
/// Ids of a chunk, 80 KiB: what a capture copies at most.
const CHUNK_IDS: usize = 4_096;
/// Places between asking for the memory of an id and looking at it.
const AHEAD: usize = 16;
/// Ids between asking for the place of one and looking at it.
const ASKED_AHEAD: usize = 48;

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
    /// Of [`CHUNK_IDS`] ids each, but for the last one once no more come.
    full: Vec<Arc<Vec<Arrival>>>,
    last: Vec<Arrival>,
    len: usize,
}

/// An id and its content side by side, mostly in one cache line. Packed, for the content would else take as much as the id.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
pub(super) struct Arrival {
    id: u128,
    content: u32,
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

    /// Says that no more ids come, so that captures share all of them.
    pub(super) fn end(&mut self) {
        self.ids.end();
    }

    /// Places, of which some are taken.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// The ids of some places, with their contents, in the order of places.
    pub(super) fn in_places(&self, range: Range<usize>, mut each: impl FnMut(u128, u32)) {
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

    /// Appends the ids whose first `bits` bits are `prefix`, each behind its first 32 bits, in no order, and starts to load them.
    /// There are at least `2^bits` places, or none, and fewer than `2^32`.
    pub(super) fn find_prefix<'a>(&'a self, prefix: u32, bits: u32, into: &mut Vec<(u32, &'a Arrival)>) {
        let places = self.places.len();
        if places == 0 {
            return;
        }
        let width = places >> bits;
        let (first, end) = (prefix as usize * width, (prefix as usize + 1) * width);
        // Each place once at most, also where no cluster ends behind the stretch.
        for at in first..first + places {
            let place = self.places[at & (places - 1)];
            if place == 0 {
                if at >= end {
                    break;
                }
            } else if u64::from(top_of(place)) >> (u32::BITS - bits) == u64::from(prefix) {
                let (chunk, at) = self.ids.locate(number_of(place));
                prefetch(chunk, at);
                into.push((top_of(place), &chunk[at]));
            }
        }
    }
}

impl Arrival {
    /// The id, with its content.
    #[inline]
    pub(super) fn get(&self) -> (u128, u32) {
        (self.id, self.content)
    }
}

impl Arrivals {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        (self.len - self.last.len() + self.last.capacity()) * size_of::<Arrival>()
    }

    /// Bytes of the chunks that nobody else shares, and of the last, which is never shared.
    pub(super) fn bytes_alone(&self) -> usize {
        let alone = self.full.iter().filter(|chunk| Arc::strong_count(chunk) == 1);
        (alone.map(|chunk| chunk.len()).sum::<usize>() + self.last.capacity()) * size_of::<Arrival>()
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
        self.len += 1;
    }

    /// Makes the last chunk one that captures share; no more ids come.
    fn end(&mut self) {
        if !self.last.is_empty() {
            let mut last = std::mem::take(&mut self.last);
            last.shrink_to_fit();
            self.full.push(Arc::new(last));
        }
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

/// Looks for all that is left, each by its id; calls `found` for those that are in the table, and takes them out.
pub(super) fn find_all<T: Copy>(
    table: &MemoryRun,
    left: &mut Vec<T>,
    id_of: impl Fn(&T) -> u128,
    mut found: impl FnMut(T, u32),
) {
    if table.len() == 0 || left.is_empty() {
        return;
    }
    left.iter().take(ASKED_AHEAD).for_each(|item| table.prefetch(id_of(item)));
    let mut stays = 0;
    for at in 0..left.len() {
        if let Some(next) = left.get(at + ASKED_AHEAD) {
            table.prefetch(id_of(next));
        }
        let item = left[at];
        match table.find(id_of(&item)) {
            Some(content) => found(item, content),
            None => {
                left[stays] = item;
                stays += 1;
            }
        }
    }
    left.truncate(stays);
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
        /// Goal: the table answers like a map after any history, one by one and for many at once.
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
            run.end();
            let (mut left, mut found) = (ids.iter().chain(&lookups).copied().collect::<Vec<_>>(), BTreeMap::new());
            find_all(&run, &mut left, |id| *id, |id, content| { found.insert(id, content); });
            prop_assert!(left.iter().all(|id| !oracle.contains_key(id)));
            prop_assert_eq!(found, oracle);
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
        run.end();
        assert_eq!(captured.bytes_alone(), copied, "they wait for being written");
        drop(run);
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
