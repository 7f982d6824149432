//! The strings of one group column of a result: each once, numbered from 1; number 0 is "absent".

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use types::ApiError;

use crate::{cancel::Cancel, sorting::sort_by};

/// Strings by number, in one allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    text: String,
    ends: Vec<usize>,
}

impl Values {
    /// Numbers in use, "absent" included.
    pub(crate) fn numbers(&self) -> usize {
        self.ends.len() + 1
    }

    /// The string of a number; `None` for 0.
    pub(crate) fn get(&self, number: u32) -> Option<&str> {
        let at = (number as usize).checked_sub(1)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..self.ends[at]])
    }

    /// For each number its place among all in ascending order of bytes, "absent" first.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`.
    pub(crate) fn ranks(&self, cancel: &Cancel<'_>) -> Result<Vec<u32>, ApiError> {
        let mut numbers: Vec<u32> = (0..self.numbers() as u32).collect();
        sort_by(&mut numbers, cancel, |&a, &b| self.get(a).cmp(&self.get(b)))?;
        let mut ranks = vec![0; numbers.len()];
        for (rank, &number) in numbers.iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        Ok(ranks)
    }

    /// All strings one behind the other, and where each ends.
    pub(crate) fn parts(&self) -> (&str, &[usize]) {
        (&self.text, &self.ends)
    }

    /// Of strings one behind the other, each once, and where each ends: ascending, at characters.
    pub(crate) fn of_parts(text: String, ends: Vec<usize>) -> Self {
        Self { text, ends }
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends)
    }

    fn push(&mut self, value: &str) -> u32 {
        self.text.push_str(value);
        self.ends.push(self.text.len());
        self.ends.len() as u32
    }
}

/// Gives numbers to the strings of several sources, the same to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interner {
    values: Values,
    sources: usize,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
}

impl Interner {
    /// Of strings that have their numbers.
    pub(crate) fn of_values(values: Values) -> Self {
        // They are a first source, unless there are none.
        Self { sources: usize::from(!values.ends.is_empty()), values, ..Self::default() }
    }

    /// The strings so far.
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + self.index.capacity() * (size_of::<u32>() + 1)
    }

    pub(crate) fn into_values(self) -> Values {
        self.values
    }

    /// The numbers of another source's strings, each of which it has once: for its number `n`, `result[n]`. Only those in
    /// `used` get one.
    pub(crate) fn absorb<'a>(
        &mut self,
        numbers: usize,
        used: impl Iterator<Item = u32>,
        string: impl Fn(u32) -> &'a str,
    ) -> Vec<u32> {
        const UNSEEN: u32 = u32::MAX;
        let mut map = vec![UNSEEN; numbers];
        map[0] = 0;
        self.sources += 1;
        // The strings of a first source are all new: most results have but one, and pay for no hash.
        if self.sources == 2 {
            let (values, hasher) = (&self.values, &self.hasher);
            let hash = |&number: &u32| hasher.hash_one(values.get(number).expect("numbers from 1 have strings"));
            self.index.reserve(values.ends.len(), hash);
            for number in 1..=values.ends.len() as u32 {
                self.index.insert_unique(hash(&number), number, hash);
            }
        }
        for number in used {
            let mapped = &mut map[number as usize];
            if *mapped == UNSEEN {
                let value = string(number);
                *mapped = if self.sources == 1 { self.values.push(value) } else { self.intern(value) };
            }
        }
        map
    }

    fn intern(&mut self, value: &str) -> u32 {
        let hash = self.hasher.hash_one(value);
        if let Some(&number) = self.index.find(hash, |&number| self.values.get(number) == Some(value)) {
            return number;
        }
        let number = self.values.push(value);
        let (values, hasher) = (&self.values, &self.hasher);
        self.index.insert_unique(hash, number, |&number| {
            hasher.hash_one(values.get(number).expect("numbers from 1 have strings"))
        });
        number
    }
}
