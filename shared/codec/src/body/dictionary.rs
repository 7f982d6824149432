//! The dictionary of one dimension while a block is built: values to codes, in order of first appearance.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Distinct values and their codes. Code `k` is value `k - 1`, 0 stands for absence and is never given.
#[derive(Debug)]
pub(super) struct Dictionary {
    codes: HashTable<u32>,
    values: Values,
    // Seeded per instance, so that nobody can send values that all fall into one place.
    hash: DefaultHashBuilder,
    last: u32,
}

/// Values back to back, with their offsets; the first offset is 0.
#[derive(Debug)]
struct Values {
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Values {
    fn of_code(&self, code: u32) -> &[u8] {
        let at = code as usize;
        &self.bytes[self.offsets[at - 1] as usize..self.offsets[at] as usize]
    }
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self {
            codes: HashTable::new(),
            values: Values { offsets: vec![0], bytes: Vec::new() },
            hash: DefaultHashBuilder::default(),
            last: 0,
        }
    }

    /// The code of a value, which is added if it is new. The caller keeps the bytes of all values below 2^32.
    #[inline]
    pub(super) fn code_of(&mut self, value: &[u8]) -> u32 {
        // Neighbouring events often agree; a compare costs less than a hash.
        if self.last != 0 && self.values.of_code(self.last) == value {
            return self.last;
        }
        let hash = hash_of(&self.hash, value);
        self.last = match self.codes.find(hash, |&code| self.values.of_code(code) == value) {
            Some(&code) => code,
            None => self.insert(hash, value),
        };
        self.last
    }

    fn insert(&mut self, hash: u64, value: &[u8]) -> u32 {
        let code = self.values.offsets.len() as u32;
        self.values.bytes.extend_from_slice(value);
        self.values.offsets.push(self.values.bytes.len() as u32);
        let (values, build) = (&self.values, &self.hash);
        self.codes.insert_unique(hash, code, |&code| hash_of(build, values.of_code(code)));
        code
    }

    /// Offsets of the values, one more than there are.
    pub(super) fn offsets(&self) -> &[u32] {
        &self.values.offsets
    }

    /// The values, back to back.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.values.bytes
    }

    /// Bytes of memory that it holds, used or not.
    pub(super) fn memory_bytes(&self) -> usize {
        let values = self.values.offsets.capacity() * size_of::<u32>() + self.values.bytes.capacity();
        self.codes.allocation_size() + values
    }

    /// Forgets all values and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.codes.clear();
        self.values.offsets.truncate(1);
        self.values.bytes.clear();
        self.last = 0;
    }
}

fn hash_of(build: &DefaultHashBuilder, value: &[u8]) -> u64 {
    let mut hasher = build.build_hasher();
    hasher.write(value);
    hasher.finish()
}
