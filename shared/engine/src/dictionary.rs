//! The strings of one dimension, numbered in the order in which they came. Code 0 is "absent", the first string has 1.
//!
//! 1. One writer appends. It writes a string's bytes, its place and its slot in the lookup, then stores `published` with
//!    Release; a block's rows are published after that, so no reader meets a code whose string it cannot see.
//! 2. Readers load `published` with Acquire and look only at entries below it. Those never change.
//! 3. The lookup is a table of codes that only fills up. A reader that finds a code beyond its own count passes over it:
//!    whatever was published before that count is in the table that it sees, further along the same chain at the latest.
//! 4. Beside each string stands its coupon for sketches of distinct strings, published as the string is: a question that
//!    sketches many groups would hash every string again each time.
//! 5. A string lies behind its length, which takes one byte for most, so that its place takes four. Both lie in one chunk.
//! 6. A dictionary is one epoch: when it is full the writer begins another, and segments keep theirs alive.

use std::fmt;

use sketch::Coupon;
use types::limits::DIMENSION_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    Limits, MemoryBudget,
    chunked::{CHUNKS_MAX, Chunked},
    lookup::Lookup,
    sync::{Arc, AtomicUsize, ENTRIES_OBSERVE, ENTRIES_PUBLISH, Published},
};

/// Bytes of strings in one epoch, beyond which another begins.
pub(crate) const EPOCH_BYTES_MAX: usize = 256 << 20;
/// Log2 of the bytes of the first chunk of strings; later chunks are larger than any string.
const FIRST_BYTES_LOG2: u32 = if cfg!(loom) { 3 } else { 10 };
/// Log2 of the entries of the first chunk.
const FIRST_ENTRIES_LOG2: u32 = if cfg!(loom) { 1 } else { 6 };
/// Strings of a block that are looked up together, in steps: while one group is compared, the strings of the next are on their way
/// to the processor, the places of those of the one after it, and the slots of a fourth.
const TOGETHER: usize = 16;
/// A chunk of strings that a long value skips is lost, as is what a block adds beyond the limit.
const BYTES_END: usize = 2 * EPOCH_BYTES_MAX + (1 << 30);
/// What strings skip of chunks that are too small for them: at each chunk less than the longest string.
const SKIPPED_BYTES_MAX: usize = CHUNKS_MAX * (DIMENSION_BYTES_MAX + LENGTH_BYTES_MAX);
/// Bytes of the length before a string, where it is longer than [`SHORT_MAX`].
const LENGTH_BYTES_MAX: usize = 2;
/// What is asked for of a string before its length is known.
const SHORT_BYTES: usize = 16;
/// Bytes of the longest string whose length takes one byte.
const SHORT_MAX: usize = 0x7f;
const _: () = assert!(DIMENSION_BYTES_MAX >> 8 <= SHORT_MAX); // lengths are 15 bits
/// Entries, with those of the block that crosses the limit of an epoch.
const ENTRIES_END: usize = 1 << 30;
const _: () = assert!(BYTES_END <= u32::MAX as usize); // places are u32
const _: () = assert!(DIMENSION_BYTES_MAX < EPOCH_BYTES_MAX);

/// One epoch of a dimension's strings, shared by its writer, its segments and their readers.
pub(crate) struct Dictionary {
    id: u64,
    seed: u64,
    /// Where each string's length lies among the bytes, by code.
    places: Chunked<u32>,
    bytes: Chunked<u8>,
    coupons: Chunked<Coupon>,
    lookup: Published<Lookup>,
    published: AtomicUsize,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Dictionary {
    /// Names this epoch among all dictionaries under one budget.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the memory for strings.
    pub(crate) fn string_bytes(&self) -> u64 {
        self.bytes.bytes()
    }

    /// How many strings a reader may look at.
    pub(crate) fn observe(&self) -> u32 {
        self.published.load(ENTRIES_OBSERVE) as u32
    }

    /// The string of a code.
    ///
    /// # Safety
    /// `code` is at least 1, and at most a count that [`Dictionary::observe`] gave, or that the writer holds.
    unsafe fn string(&self, code: u32) -> &str {
        // SAFETY: passed on to the caller.
        let at = unsafe { self.places.get(code as usize - 1) } as usize;
        // SAFETY: a string and the length before it are written before its place, and published with it.
        let (len, from) = match unsafe { self.bytes.get(at) } {
            len @ ..=0x7f => (usize::from(len), at + 1),
            // SAFETY: likewise.
            high => (usize::from(high & 0x7f) << 8 | usize::from(unsafe { self.bytes.get(at + 1) }), at + 2),
        };
        // SAFETY: likewise.
        let bytes = unsafe { self.bytes.slice(from..from + len) };
        // SAFETY: copied from a `&str`.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

/// A dictionary as it was at one moment.
#[derive(Debug, Clone, Copy)]
pub struct DictionaryView<'a> {
    dictionary: &'a Dictionary,
    len: u32,
}

impl<'a> DictionaryView<'a> {
    /// # Safety
    /// `len` is at most a count that `dictionary.observe()` gave.
    pub(crate) unsafe fn new(dictionary: &'a Dictionary, len: u32) -> Self {
        Self { dictionary, len }
    }

    /// Names the dictionary: segments whose dictionaries have one epoch share their codes.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.dictionary.id
    }

    /// How many strings there are; their codes are `1..=len`, and no row has a greater one.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The string of a code; `None` for 0, which is "absent".
    ///
    /// # Panics
    /// The code is greater than [`DictionaryView::len`].
    #[must_use]
    pub fn get(&self, code: u32) -> Option<&'a str> {
        assert!(code <= self.len, "code {code} of {} strings", self.len);
        // SAFETY: at least 1, and at most an observed count.
        (code != 0).then(|| unsafe { self.dictionary.string(code) })
    }

    /// Calls `take` with the strings' coupons, run by run, in the order of their codes; that of code 0 stands for no string.
    pub fn each_coupons(&self, mut take: impl FnMut(&[Coupon])) {
        take(&[Coupon::default()]);
        let (mut at, end) = (0, self.len as usize);
        while at < end {
            let next = end.min(at + self.dictionary.coupons.room_at(at));
            // SAFETY: below an observed count, and they lie together.
            take(unsafe { self.dictionary.coupons.slice(at..next) });
            at = next;
        }
    }

    /// The strings with their codes, ascending by code.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a str)> + use<'a> {
        let view = *self;
        // SAFETY: as in `get`.
        (1..=view.len).map(move |code| (code, unsafe { view.dictionary.string(code) }))
    }

    /// The code of a string, if it has one. A hash lookup: no lock, no scan.
    #[must_use]
    pub fn find(&self, value: &str) -> Option<u32> {
        let lookup = self.dictionary.lookup.load();
        // Codes in the lookup are at least 1, and `get` is asked only for those up to the observed count.
        lookup.find(hash_of(value, self.dictionary.seed), |code| code <= self.len && self.get(code) == Some(value))
    }
}

/// The hash by which a string is found. Seeded by the process, so that nobody can choose colliding strings.
fn hash_of(value: &str, seed: u64) -> u32 {
    (xxh3_64_with_seed(value.as_bytes(), seed) >> 32) as u32
}

/// Whether two strings are equal. Most are so short that a call takes longer than comparing them.
#[inline]
fn are_alike(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(first), Some(other_first), Some(last), Some(other_last)) if a.len() <= 16 => {
            a.len() == b.len() && first == other_first && last == other_last
        }
        _ => a == b,
    }
}

/// The one writer of an epoch.
pub(crate) struct DictionaryWriter {
    shared: Arc<Dictionary>,
    /// The lookup that is published.
    lookup: Arc<Lookup>,
    len: usize,
    bytes: usize,
    hashes: Vec<u32>,
}

impl DictionaryWriter {
    /// An empty epoch.
    pub(crate) fn new(seed: u64, budget: &Arc<MemoryBudget>) -> Self {
        let shared = Dictionary {
            id: budget.next_id(),
            seed,
            places: Chunked::new(FIRST_ENTRIES_LOG2, ENTRIES_END, Arc::clone(budget)),
            bytes: Chunked::new(FIRST_BYTES_LOG2, BYTES_END, Arc::clone(budget)),
            coupons: Chunked::new(FIRST_ENTRIES_LOG2, ENTRIES_END, Arc::clone(budget)),
            lookup: Published::new(Lookup::new(budget)),
            published: AtomicUsize::new(0),
        };
        let lookup = shared.lookup.load();
        Self { shared: Arc::new(shared), lookup, len: 0, bytes: 0, hashes: Vec::new() }
    }

    /// What segments and readers hold.
    pub(crate) fn shared(&self) -> &Arc<Dictionary> {
        &self.shared
    }

    /// Strings so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of strings, coupons and the lookup.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.places.bytes() + self.shared.bytes.bytes() + self.shared.coupons.bytes() + self.lookup.bytes()
    }

    /// Whether `more` strings no longer belong into this epoch.
    pub(crate) fn is_full_for(&self, more: usize, limits: &Limits) -> bool {
        let too_many = self.len + more > limits.dictionary_entries_max;
        // Places in the strings are bounded whatever the limits say.
        let too_large = self.bytes > EPOCH_BYTES_MAX || self.bytes() > limits.dictionary_bytes_max;
        self.len > 0 && (too_many || too_large)
    }

    /// Whether there are places for strings that are not bounded by [`DictionaryWriter::is_full_for`].
    pub(crate) fn has_room_for(&self, strings: &[&str]) -> bool {
        let bytes = strings.iter().map(|string| string.len() + LENGTH_BYTES_MAX).sum::<usize>();
        self.len + strings.len() <= ENTRIES_END && self.bytes + bytes <= BYTES_END - SKIPPED_BYTES_MAX
    }

    /// Appends the code of each string to `codes`, giving new ones to strings that are new. Publishes them.
    pub(crate) fn intern<'s>(&mut self, count: usize, value: impl Fn(usize) -> &'s str, codes: &mut Vec<u32>) {
        self.hashes.clear();
        self.hashes.extend((0..count).map(|k| hash_of(value(k), self.shared.seed)));
        self.ask_for_slots(0);
        self.ask_for_slots(TOGETHER);
        self.ask_for_slots(2 * TOGETHER);
        let mut candidates = self.candidates(0);
        let mut next = self.candidates(TOGETHER);
        self.ask_for_strings(&candidates);
        for start in (0..count).step_by(TOGETHER) {
            self.ask_for_slots(start + 3 * TOGETHER);
            let after_next = self.candidates(start + 2 * TOGETHER);
            self.ask_for_strings(&next);
            for k in start..count.min(start + TOGETHER) {
                let (value, candidate) = (value(k), candidates[k - start]);
                // SAFETY: the lookup holds only codes that this writer has written.
                let is_it = candidate != 0 && are_alike(unsafe { self.shared.string(candidate) }, value);
                codes.push(if is_it { candidate } else { self.code_of(value, self.hashes[k]) });
            }
            (candidates, next) = (next, after_next);
        }
        // Publishes strings, places, coupons and lookup slots; pairs with `Dictionary::observe`.
        self.shared.published.store(self.len, ENTRIES_PUBLISH);
    }

    fn ask_for_slots(&self, start: usize) {
        self.hashes.iter().skip(start).take(TOGETHER).for_each(|hash| self.lookup.prefetch(*hash));
    }

    /// The first code with the hash of each string from `start` on, 0 where there is none yet. Where its string lies is on its
    /// way.
    fn candidates(&self, start: usize) -> [u32; TOGETHER] {
        let mut candidates = [0; TOGETHER];
        for (candidate, hash) in candidates.iter_mut().zip(self.hashes.iter().skip(start)) {
            *candidate = self.lookup.find(*hash, |_| true).unwrap_or(0);
            if *candidate != 0 {
                self.shared.places.prefetch(*candidate as usize - 1);
            }
        }
        candidates
    }

    fn ask_for_strings(&self, candidates: &[u32; TOGETHER]) {
        for candidate in candidates.iter().filter(|candidate| **candidate != 0) {
            // SAFETY: the lookup holds only codes that this writer has written.
            let at = unsafe { self.shared.places.get(*candidate as usize - 1) } as usize;
            self.shared.bytes.prefetch(at);
            // Most strings end here; whether they begin another cache line is not known before the first is here.
            self.shared.bytes.prefetch(at + SHORT_BYTES.min(self.shared.bytes.room_at(at)) - 1);
        }
    }

    fn code_of(&mut self, value: &str, hash: u32) -> u32 {
        let shared = &self.shared;
        // SAFETY: the lookup holds only codes that this writer has written.
        let found = self.lookup.find(hash, |code| unsafe { shared.string(code) } == value);
        found.unwrap_or_else(|| self.append(value, hash))
    }

    fn append(&mut self, value: &str, hash: u32) -> u32 {
        let length = [(value.len() >> 8) as u8 | 0x80, value.len() as u8];
        let length = &length[usize::from(value.len() <= SHORT_MAX)..];
        // A string lies in one chunk; what is left of a chunk too small for it stays unused.
        while self.shared.bytes.room_at(self.bytes) < length.len() + value.len() {
            self.bytes += self.shared.bytes.room_at(self.bytes);
        }
        // SAFETY: this is the one writer, and nothing from `self.bytes` on was published.
        unsafe { self.shared.bytes.write(self.bytes, length) };
        // SAFETY: likewise.
        unsafe { self.shared.bytes.write(self.bytes + length.len(), value.as_bytes()) };
        // SAFETY: likewise for place `self.len`.
        unsafe { self.shared.places.write(self.len, &[self.bytes as u32]) };
        // SAFETY: likewise.
        unsafe { self.shared.coupons.write(self.len, &[Coupon::of(sketch::hash_str(value))]) };
        self.bytes += length.len() + value.len();
        self.len += 1;
        let code = self.len as u32;
        if self.lookup.is_full_with(self.len) {
            self.shared.lookup.store(self.lookup.grown());
            self.lookup = self.shared.lookup.load();
        }
        self.lookup.insert(hash, code);
        code
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writer(budget: &Arc<MemoryBudget>) -> DictionaryWriter {
        DictionaryWriter::new(7, budget)
    }

    proptest! {
        /// Goal: strings get codes in order of first appearance, they are found, and only they, and all memory is
        /// accounted for.
        #[test]
        fn dictionary_matches_oracle(blocks in prop::collection::vec(prop::collection::vec("[a-c]{0,4}|[a-z]{20,40}|[a-z]{120,140}|[a-z]{8000,8192}", 0..40), 0..20)) {
            let budget = Arc::new(MemoryBudget::new(0));
            let mut writer = writer(&budget);
            let mut oracle: Vec<String> = Vec::new();
            for block in &blocks {
                let mut codes = Vec::new();
                writer.intern(block.len(), |k| &block[k], &mut codes);
                for (value, code) in block.iter().zip(codes) {
                    if !oracle.contains(value) {
                        oracle.push(value.clone());
                    }
                    prop_assert_eq!(oracle.iter().position(|known| known == value).unwrap() + 1, code as usize);
                }
                // SAFETY: the count was observed.
                let view = unsafe { DictionaryView::new(writer.shared(), writer.shared().observe()) };
                prop_assert!(view.iter().map(|(_, value)| value).eq(oracle.iter().map(String::as_str)));
                for (at, value) in oracle.iter().enumerate() {
                    prop_assert_eq!(view.find(value), Some(at as u32 + 1));
                    prop_assert_eq!(view.get(at as u32 + 1), Some(value.as_str()));
                }
                let coupons = oracle.iter().map(|value| Coupon::of(sketch::hash_str(value)));
                let mut found = Vec::new();
                view.each_coupons(|coupons| found.extend_from_slice(coupons));
                prop_assert!(found[1..].iter().copied().eq(coupons));
                prop_assert_eq!(view.find("not there"), None);
                prop_assert_eq!(view.get(0), None);
            }
            drop(writer);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    /// Goal: an older view neither shows nor finds what came after it.
    #[test]
    fn views_stay_as_they_were() {
        let mut writer = writer(&Arc::new(MemoryBudget::new(0)));
        writer.intern(1, |_| "first", &mut Vec::new());
        let shared = Arc::clone(writer.shared());
        let len = shared.observe();
        let names: Vec<String> = (0..500).map(|n| format!("later {n}")).collect();
        writer.intern(names.len(), |k| &names[k], &mut Vec::new());
        // SAFETY: the count was observed.
        let old = unsafe { DictionaryView::new(&shared, len) };
        // SAFETY: likewise.
        let new = unsafe { DictionaryView::new(&shared, shared.observe()) };
        assert_eq!((old.len(), old.find("first"), old.find("later 3")), (1, Some(1), None));
        assert_eq!((new.len(), new.find("later 3")), (501, Some(5)));
    }
}
