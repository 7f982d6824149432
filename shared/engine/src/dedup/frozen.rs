//! Ids that wait to be written: tables that take no more of them.

use super::{
    identity::NONE,
    memory_run::{MemoryRun, find_all},
};

/// Places that are gone through in one step. Few in tests, so that runs of a few ids are entered in several steps.
const STEP_PLACES: usize = if cfg!(test) { 4 } else { 512 };
/// Ids that are sorted at a time, about: they and what is needed to sort them stay in the processor's nearest cache.
const SORTED_AT_ONCE: usize = 96;

/// Tables that take no more ids, no id in two of them: they are looked into where they are until their ids lie sorted elsewhere.
#[derive(Debug)]
pub struct FrozenIds {
    tables: Vec<MemoryRun>,
    len: usize,
}

impl FrozenIds {
    pub(super) fn new(tables: Vec<MemoryRun>) -> Self {
        let len = tables.iter().map(MemoryRun::len).sum();
        Self { tables, len }
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(MemoryRun::bytes).sum()
    }

    /// The content of an id that is here.
    #[must_use]
    #[inline]
    pub fn find(&self, id: u128) -> Option<u32> {
        self.tables.iter().rev().find_map(|table| table.find(id)).filter(|_| id != NONE)
    }

    /// Looks for suspects; puts the content of each that is here to its place in `found`, where there is nothing yet.
    pub fn confirm(&self, suspects: &[u128], found: &mut [Option<u32>]) {
        let mut open: Vec<(u128, usize)> = Vec::with_capacity(suspects.len());
        open.extend(suspects.iter().copied().zip(0..).filter(|(id, at)| *id != NONE && found[*at].is_none()));
        self.tables.iter().rev().for_each(|table| {
            find_all(table, &mut open, |(id, _)| *id, |(_, at), content| found[at] = Some(content));
        });
    }

    /// Shows all ids to `each` with their contents, ascending, until it fails.
    ///
    /// Ids that begin alike are found in one stretch of each table, and sorted by what the index has of them, eight bytes each;
    /// only what is equal so far is compared as a whole.
    ///
    /// # Errors
    /// That of `each`.
    pub fn each_sorted<E>(&self, mut each: impl FnMut(u128, u32) -> Result<(), E>) -> Result<(), E> {
        let tables: Vec<_> = self.tables.iter().filter(|table| table.len() > 0).collect();
        let Some(least) = tables.iter().map(|table| table.places()).min() else { return Ok(()) };
        // As many buckets by the ids' first bits as each table can tell apart.
        let bits = (self.len / SORTED_AT_ONCE).max(1).ilog2().min(least.ilog2());
        let (mut found, mut keys, mut alike) = (Vec::new(), Vec::new(), Vec::new());
        for prefix in 0..1_u32 << bits {
            found.clear();
            for table in &tables {
                table.find_prefix(prefix, bits, &mut found);
            }
            keys.clear();
            keys.extend(found.iter().zip(0_u64..).map(|((top, _), at)| u64::from(*top) << u32::BITS | at));
            keys.sort_unstable();
            let ids = |key: &u64| found[*key as u32 as usize].1.get();
            for alike_keys in keys.chunk_by(|a, b| a >> u32::BITS == b >> u32::BITS) {
                if let [key] = alike_keys {
                    let (id, content) = ids(key);
                    each(id, content)?;
                    continue;
                }
                alike.clear();
                alike.extend(alike_keys.iter().map(ids));
                alike.sort_unstable();
                alike.iter().try_for_each(|(id, content)| each(*id, *content))?;
            }
        }
        Ok(())
    }

    /// Some of the ids; those of step 0 and so on are all of them, nearly ascending within each table.
    pub(super) fn step(&self, at: usize, mut each: impl FnMut(u128)) {
        let mut before = 0;
        for table in &self.tables {
            let steps = table.places().div_ceil(STEP_PLACES);
            if at < before + steps {
                let start = (at - before) * STEP_PLACES;
                table.in_places(start..(start + STEP_PLACES).min(table.places()), |id, _| each(id));
                return;
            }
            before += steps;
        }
    }

    /// The tables, to be asked.
    pub(super) fn tables(&self) -> &[MemoryRun] {
        &self.tables
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
        Self::new(vec![table])
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = u128> {
        // Ids of any kind, some that crowd the last place, and some the first.
        prop_oneof![4 => 1..=u128::MAX, 1 => (0_u128..40).prop_map(|n| u128::MAX - n), 1 => 1_u128..40]
    }

    fn sorted(ids: &FrozenIds) -> Vec<(u128, u32)> {
        let mut sorted = Vec::new();
        let Ok(()) = ids.each_sorted(|id, content| {
            sorted.push((id, content));
            Ok::<_, Infallible>(())
        });
        sorted
    }

    proptest! {
        /// Goal: however ids lie in tables, each is found with its content, alone and among others, no other is, and all come
        /// out in order, also where clusters go round.
        #[test]
        fn frozen_ids_match_a_map(tables in prop::collection::vec(prop::collection::vec(id(), 0..600), 0..4), lookups in prop::collection::vec(id(), 0..50)) {
            let mut oracle = BTreeMap::new();
            let (mut content, mut runs) = (0, Vec::new());
            for ids in &tables {
                let mut run = MemoryRun::default();
                for id in ids {
                    content += 1;
                    if !oracle.contains_key(id) {
                        oracle.insert(*id, content);
                        run.reserve(1);
                        run.find_or_insert(*id, content);
                    }
                }
                runs.push(run);
            }
            let frozen = FrozenIds::new(runs);
            prop_assert_eq!(sorted(&frozen), oracle.iter().map(|(id, content)| (*id, *content)).collect::<Vec<_>>());
            let asked: Vec<u128> = tables.iter().flatten().chain(&lookups).copied().chain([NONE]).collect();
            let expected: Vec<_> = asked.iter().map(|id| oracle.get(id).copied()).collect();
            prop_assert_eq!(asked.iter().map(|id| frozen.find(*id)).collect::<Vec<_>>(), expected.clone());
            let mut found = vec![None; asked.len()];
            frozen.confirm(&asked, &mut found);
            prop_assert_eq!(&found, &expected);
            let mut known: Vec<_> = expected.iter().map(|_| Some(7)).collect();
            frozen.confirm(&asked, &mut known);
            prop_assert!(known.iter().all(|content| *content == Some(7)), "what is known already stays");
            let (mut stepped, mut at) = (Vec::new(), 0);
            while stepped.len() < frozen.len() {
                frozen.step(at, |id| stepped.push(id));
                at += 1;
            }
            stepped.sort_unstable();
            prop_assert!(stepped.iter().eq(oracle.keys()), "steps go through all of them once");
        }
    }

    /// Goal: what `each` says ends the walk.
    #[test]
    fn a_walk_ends_where_it_fails() {
        let ids: FrozenIds = (1..=10_u32).map(|n| (u128::from(n) << 90, n)).collect();
        let mut seen = 0;
        let outcome = ids.each_sorted(|_, content| {
            seen += 1;
            if content == 4 { Err(content) } else { Ok(()) }
        });
        assert_eq!((outcome, seen), (Err(4), 4));
    }
}
