//! Tables that are durable in metadata and in the log, by name and by key. Readers never wait.
//!
//! 1. Only announced states are put here, so that no event is written for a table of which its partitions do not know.
//! 2. A state never replaces a newer one of the same life or of a later life, in whatever order writers come.
//! 3. A life that has ended leaves its generation behind, so that nobody who read it before it ended puts it back: events
//!    would be acked for a table whose partitions pass them over. A name keeps its table id for ever, as metadata does, so
//!    the names and what ended grow only with the names that ever were.

use std::sync::Arc;

use papaya::{Compute, HashMap, Operation};
use types::{Generation, Table, TableId, TableKey, TableName, TenantId};

/// The tables that a process knows.
#[derive(Default)]
pub struct TableCache {
    ids: HashMap<TenantId, HashMap<TableName, TableId>>,
    lives: HashMap<(TenantId, TableId), Life>,
}

/// The last life of a table that is known here.
#[derive(Debug, Clone)]
enum Life {
    /// It lives, and this is its newest state.
    Now(Arc<Table>),
    /// It has ended, and so have all before it.
    Ended(Generation),
}

impl TableCache {
    /// The living table of a name.
    pub fn by_name(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>> {
        let id = *self.ids.pin().get(&tenant)?.pin().get(name)?;
        self.living(tenant, id)
    }

    /// The table of a key, if that life goes on.
    pub fn by_key(&self, key: TableKey) -> Option<Arc<Table>> {
        self.living(key.tenant, key.table).filter(|table| table.key == key)
    }

    /// The living tables of a tenant, by name.
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<Arc<Table>> {
        let ids = self.ids.pin();
        let Some(names) = ids.get(&tenant) else { return Vec::new() };
        let names = names.pin();
        let mut tables: Vec<_> = names.values().filter_map(|&id| self.living(tenant, id)).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }

    /// Keeps `table` unless a newer state is here; gives the newest. `None`: this life has ended, and no later one is here.
    pub fn put(&self, table: impl Into<Arc<Table>>) -> Option<Arc<Table>> {
        let table = table.into();
        self.ids
            .pin()
            .get_or_insert_with(table.key.tenant, HashMap::new)
            .pin()
            .get_or_insert_with(table.name.clone(), || table.key.table);
        let age = |table: &Table| (table.key.generation, table.schema.version());
        let lives = self.lives.pin();
        let outcome = lives.compute((table.key.tenant, table.key.table), |found| match found.map(|(_, life)| life) {
            Some(Life::Now(found)) if age(found) >= age(&table) => Operation::Abort(Some(Arc::clone(found))),
            Some(Life::Ended(last)) if *last >= table.key.generation => Operation::Abort(None),
            _ => Operation::Insert(Life::Now(Arc::clone(&table))),
        });
        match outcome {
            Compute::Aborted(newest) => newest,
            _ => Some(table),
        }
    }

    /// Forgets this life of a table, for good; a later life may be here already and stays.
    pub fn remove(&self, key: TableKey) {
        self.lives.pin().compute((key.tenant, key.table), |found| match found.map(|(_, life)| life) {
            Some(Life::Now(found)) if found.key.generation > key.generation => Operation::Abort(()),
            Some(Life::Ended(last)) if *last >= key.generation => Operation::Abort(()),
            _ => Operation::Insert(Life::Ended(key.generation)),
        });
    }

    /// All living tables, in no order.
    pub fn all(&self) -> Vec<Arc<Table>> {
        let living = |life: &Life| match life {
            Life::Now(table) => Some(Arc::clone(table)),
            Life::Ended(_) => None,
        };
        self.lives.pin().values().filter_map(living).collect()
    }

    /// Forgets a life without a word on whether it has ended: it may be put back.
    pub(crate) fn forget(&self, key: TableKey) {
        self.lives.pin().compute((key.tenant, key.table), |found| match found.map(|(_, life)| life) {
            Some(Life::Now(found)) if found.key.generation == key.generation => Operation::Remove,
            _ => Operation::Abort(()),
        });
    }

    fn living(&self, tenant: TenantId, id: TableId) -> Option<Arc<Table>> {
        match self.lives.pin().get(&(tenant, id))? {
            Life::Now(table) => Some(Arc::clone(table)),
            Life::Ended(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{PartitionId, Schema, SchemaVersion, TableSettings};

    use super::*;

    fn table(generation: u32, version: u32) -> Table {
        Table {
            key: TableKey { tenant: TenantId::DEFAULT, table: TableId(1), generation: Generation(generation) },
            name: TableName::new("n", "t"),
            partitions: vec![PartitionId(0)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema: Schema::from_parts(SchemaVersion(version), Vec::new()),
            settings: TableSettings::default(),
        }
    }

    /// Goal: a late writer never puts an older state over a newer one, and forgetting a life spares the next.
    #[test]
    fn the_newest_state_stays() {
        let cache = TableCache::default();
        let seen = |cache: &TableCache| {
            let table = cache.by_name(TenantId::DEFAULT, &TableName::new("n", "t"))?;
            Some((table.key.generation.0, table.schema.version().0))
        };
        cache.put(table(1, 2));
        assert_eq!(cache.put(table(1, 1)).unwrap().schema.version(), SchemaVersion(2));
        assert_eq!(seen(&cache), Some((1, 2)));
        cache.put(table(2, 1));
        cache.put(table(1, 3));
        assert_eq!(seen(&cache), Some((2, 1)));
        cache.remove(table(1, 3).key);
        assert_eq!(seen(&cache), Some((2, 1)));
        cache.remove(table(2, 1).key);
        assert_eq!(seen(&cache), None);
        assert!(cache.by_key(table(2, 1).key).is_none());
        assert!(cache.by_name(TenantId(9), &TableName::new("n", "t")).is_none());
    }
    /// Goal: who read a life before it ended cannot bring it back, whether the cache knew it or not; the next life comes.
    #[test]
    fn an_ended_life_never_comes_back() {
        for known in [true, false] {
            let cache = TableCache::default();
            if known {
                cache.put(table(2, 1));
            }
            cache.remove(table(2, 1).key);
            cache.remove(table(1, 1).key);
            for late in [table(2, 1), table(2, 9), table(1, 1)] {
                assert_eq!(cache.put(late.clone()), None);
                assert_eq!(cache.by_key(late.key), None);
                assert_eq!(cache.by_name(TenantId::DEFAULT, &late.name), None);
            }
            let next = cache.put(table(3, 1));
            assert_eq!(next.as_deref(), Some(&table(3, 1)));
            assert_eq!(cache.put(table(2, 9)), next);
            assert_eq!(cache.by_key(table(2, 9).key), None);
            assert_eq!(cache.by_name(TenantId::DEFAULT, &table(3, 1).name), next);
        }
    }
}
