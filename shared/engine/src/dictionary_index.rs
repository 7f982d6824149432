//! The writer's own way from a string to its code: one cache line half per string, asked in batches.
//!
//! 1. A slot is 32 bytes and holds short strings whole, so that a lookup that hits touches one cache line and no string.
//! 2. The hashes of a batch are known before its first lookup, so slots are prefetched [`DictionaryIndex::PREFETCH_AHEAD`]
//!    lookups ahead. Against `hashbrown` this takes a third of the time once the table outgrows the cache.
//! 3. The hash is kept, so that growing reads no string.

use crate::{MemoryBudget, sync::Arc};

/// Strings up to this length are told apart by their key alone.
const KEY_BYTES_MAX: usize = 22;
const FIRST_SLOTS: usize = 64;

/// A string's slot; `code` 0 is free.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(32))]
struct Slot {
    code: u32,
    hash: u32,
    key: Key,
}

/// Length and up to 22 bytes of a string as three words, so that comparing takes no call and no loop: the first eight
/// bytes, the last eight, and the length with the six bytes from the ninth on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Key([u64; 3]);

impl Key {
    fn of(value: &str) -> Self {
        let bytes = value.as_bytes();
        let len = (bytes.len() as u64) << 48;
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes are left"));
        Self(match bytes.len() {
            0..8 => [short(bytes), 0, len],
            // Both ends overlap or meet.
            8..17 => [word(0), word(bytes.len() - 8), len],
            _ => [word(0), word(bytes.len() - 8), len | (word(8) & ((1 << 48) - 1))],
        })
    }
}

/// Fewer than eight bytes as one word.
fn short(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32,
        _ => bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

const _: () = assert!(size_of::<Slot>() == 32);
const _: () = assert!(types::limits::DIMENSION_BYTES_MAX <= u16::MAX as usize);

/// Open addressing with linear probing, at most two thirds full.
pub(crate) struct DictionaryIndex {
    slots: Box<[Slot]>,
    used: usize,
    budget: Arc<MemoryBudget>,
}

impl DictionaryIndex {
    /// How many lookups ahead a slot is worth prefetching: about a memory latency of work.
    pub(crate) const PREFETCH_AHEAD: usize = 12;

    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { slots: Self::allocate(FIRST_SLOTS, &budget), used: 0, budget }
    }

    fn allocate(slots: usize, budget: &MemoryBudget) -> Box<[Slot]> {
        budget.add((slots * size_of::<Slot>()) as u64);
        vec![Slot::default(); slots].into_boxed_slice()
    }

    fn grow(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, Self::allocate(slots, &self.budget));
        for slot in old.iter().filter(|slot| slot.code != 0) {
            let free = self.free_slot(slot.hash);
            self.slots[free] = *slot;
        }
        self.budget.sub((old.len() * size_of::<Slot>()) as u64);
    }

    /// Asks for the cache line where a hash's chain starts.
    pub(crate) fn prefetch(&self, hash: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let slot = &raw const self.slots[hash as usize & (self.slots.len() - 1)];
            // SAFETY: a hint; the address is that of a slot.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(slot.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// The code of a string. `string` gives that of a code, for strings that their key does not tell apart.
    pub(crate) fn find<'s>(&self, hash: u32, value: &str, string: impl Fn(u32) -> &'s str) -> Option<u32> {
        let (mask, key) = (self.slots.len() - 1, Key::of(value));
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at & mask];
            if slot.code == 0 {
                return None;
            }
            let alike = slot.hash == hash && slot.key == key;
            if alike && (value.len() <= KEY_BYTES_MAX || string(slot.code) == value) {
                return Some(slot.code);
            }
            at += 1;
        }
    }

    /// Enters a string that is not there.
    pub(crate) fn insert(&mut self, hash: u32, value: &str, code: u32) {
        if self.used * 3 >= self.slots.len() * 2 {
            self.grow(self.slots.len() * 2);
        }
        let free = self.free_slot(hash);
        self.slots[free] = Slot { code, hash, key: Key::of(value) };
        self.used += 1;
    }

    fn free_slot(&self, hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].code != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        size_of_val(&*self.slots) as u64
    }

    /// All hashes with their codes.
    pub(crate) fn for_each(&self, mut f: impl FnMut(u32, u32)) {
        self.slots.iter().filter(|slot| slot.code != 0).for_each(|slot| f(slot.hash, slot.code));
    }
}

impl Drop for DictionaryIndex {
    fn drop(&mut self) {
        self.budget.sub((self.slots.len() * size_of::<Slot>()) as u64);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: two strings of up to 22 bytes have one key only if they are equal: each byte and the length count.
    #[test]
    fn keys_tell_short_strings_apart() {
        for len in 0..=KEY_BYTES_MAX {
            let value = "a".repeat(len);
            assert_ne!(Key::of(&value), Key::of(&format!("{value}a")), "length {len}");
            for at in 0..len {
                let mut other = value.clone().into_bytes();
                other[at] = b'b';
                let other = String::from_utf8(other).expect("letters");
                assert_ne!(Key::of(&value), Key::of(&other), "byte {at} of {len}");
            }
        }
    }
}
