//! The newest ids of a slice, in tables: exact.
//!
//! A slice without filters has one table, in which every id is looked for as it comes, and which grows. Once filters know an id
//! as soon as it comes, most are never looked for, and all that a table has to do is to take them. Then it does not grow: it is
//! followed by another, so that the one which takes ids stays in the processor's caches however many ids there are. What
//! filters suspect is looked for in each.

use super::{
    frozen::FrozenIds,
    memory_run::{Arrivals, MemoryRun},
};

/// The tables that ids are divided among, about, before they leave memory.
const TABLES: usize = 16;

/// Tables of ids, no id in two of them.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// Those that take no more ids, oldest first.
    full: Vec<MemoryRun>,
    last: MemoryRun,
    /// Whether the last one is followed by another instead of growing beyond [`Newest::table_ids`].
    divided: bool,
    /// How many ids there were when they last left memory.
    before: usize,
}

impl Newest {
    /// One table with these ids.
    pub(super) fn of(table: MemoryRun) -> Self {
        Self { last: table, ..Self::default() }
    }

    /// How many ids a table has that does not grow, where `ids_max` may be in memory.
    pub(super) fn table_ids(ids_max: usize) -> usize {
        (ids_max / TABLES).max(1)
    }

    pub(super) fn len(&self) -> usize {
        self.full.iter().map(MemoryRun::len).sum::<usize>() + self.last.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables().map(MemoryRun::bytes).sum()
    }

    /// Whether ids are divided among tables.
    pub(super) fn is_divided(&self) -> bool {
        self.divided
    }

    /// From now on the last table does not grow. Filters know all ids of the tables, and will know those to come.
    pub(super) fn divide(&mut self) {
        self.divided = true;
        self.before = self.before.max(self.len());
    }

    /// Bytes by which the tables grow where `more` ids come.
    pub(super) fn growth(&self, more: usize, ids_max: usize) -> usize {
        if self.is_followed(more, ids_max) {
            return MemoryRun::default().bytes_with(self.room(0, more, ids_max));
        }
        self.last.bytes_with(self.room(self.last.len(), more, ids_max)) - self.last.bytes()
    }

    /// Makes room for `more` ids.
    pub(super) fn reserve(&mut self, more: usize, ids_max: usize) {
        if self.is_followed(more, ids_max) {
            let mut full = std::mem::take(&mut self.last);
            full.end();
            self.full.push(full);
        }
        self.last.reserve(self.room(self.last.len(), more, ids_max));
    }

    /// The room to make for `more` ids in a table of `len`: where ids are divided, for all that it is likely to take, as ids
    /// that move when it grows cost more than places that stay empty.
    fn room(&self, len: usize, more: usize, ids_max: usize) -> usize {
        let likely = if self.divided { Self::table_ids(ids_max).min(self.before) } else { 0 };
        more.max(likely.saturating_sub(len))
    }

    /// Whether `more` ids go to a table that is not there yet.
    fn is_followed(&self, more: usize, ids_max: usize) -> bool {
        self.divided && self.last.len() > 0 && self.last.len() + more > Self::table_ids(ids_max)
    }

    /// All tables, newest first.
    pub(super) fn tables(&self) -> impl Iterator<Item = &MemoryRun> {
        std::iter::once(&self.last).chain(self.full.iter().rev())
    }

    /// The table that takes ids.
    pub(super) fn last(&mut self) -> &mut MemoryRun {
        &mut self.last
    }

    /// What a capture has of the tables: all ids.
    pub(super) fn arrivals(&self) -> Vec<Arrivals> {
        self.tables().filter(|table| table.len() > 0).map(|table| table.arrivals().clone()).collect()
    }

    /// Takes all ids out; what is left has no memory.
    pub(super) fn freeze(&mut self) -> FrozenIds {
        let mut tables = std::mem::take(&mut self.full);
        tables.push(std::mem::take(&mut self.last));
        let frozen = FrozenIds::new(tables);
        self.before = frozen.len();
        frozen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: however many ids come at a time, tables hold each of them once, divided or not, a table that is divided takes
        /// more than its share only of what comes at once, and all are frozen together.
        #[test]
        fn ids_are_divided_among_tables(blocks in prop::collection::vec(1_u32..30, 1..40), ids_max in 1_usize..200, divided_from in 0_usize..40) {
            let (mut newest, mut next) = (Newest::default(), 0);
            let id = |n: u32| u128::from(n + 1) << 97;
            for (at, rows) in blocks.iter().enumerate() {
                if at == divided_from {
                    newest.divide();
                }
                newest.reserve(*rows as usize, ids_max);
                for n in next..next + rows {
                    prop_assert_eq!(newest.last().find_or_insert(id(n), n), None);
                }
                next += rows;
                if newest.is_divided() {
                    let share = Newest::table_ids(ids_max).max(*rows as usize);
                    prop_assert!(newest.last.len() <= share, "{} of {share}", newest.last.len());
                }
            }
            let holders = |n| newest.tables().filter(|table| table.find(id(n)) == Some(n)).count();
            prop_assert!((0..next).all(|n| holders(n) == 1));
            let captured: usize = newest.arrivals().iter().map(Arrivals::len).sum();
            prop_assert_eq!((newest.len(), captured), (next as usize, next as usize));
            let frozen = newest.freeze();
            prop_assert_eq!((frozen.len(), newest.len(), newest.bytes()), (next as usize, 0, 0));
            prop_assert!((0..next).all(|n| frozen.find(id(n)) == Some(n)));
        }
    }
}
