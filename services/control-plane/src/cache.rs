//! Tables that are durable in metadata and in the log, by name and by key. Readers never wait.
//!
//! 1. Only announced states are put here, so that no event is written for a table of which its partitions do not know.
//! 2. A state never replaces a newer one of the same life or of a later life, in whatever order writers come.

use std::sync::Arc;

use papaya::{Compute, HashMap, Operation};
use types::{Table, TableKey, TableName, TenantId};

#[derive(Default)]
pub(crate) struct TableCache {
    by_name: HashMap<TenantId, HashMap<TableName, Arc<Table>>>,
    by_key: HashMap<TableKey, Arc<Table>>,
}

impl TableCache {
    pub(crate) fn by_name(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>> {
        self.by_name.pin().get(&tenant)?.pin().get(name).map(Arc::clone)
    }

    pub(crate) fn by_key(&self, key: TableKey) -> Option<Arc<Table>> {
        self.by_key.pin().get(&key).map(Arc::clone)
    }

    /// Keeps `table` unless a newer state is here; gives the newest.
    pub(crate) fn put(&self, table: impl Into<Arc<Table>>) -> Arc<Table> {
        let table = table.into();
        let names = self.by_name.pin();
        let of_tenant = names.get_or_insert_with(table.key.tenant, HashMap::new);
        let newest = put_newer(of_tenant, table.name.clone(), &table);
        put_newer(&self.by_key, table.key, &table);
        newest
    }

    /// Forgets this life of a table.
    pub(crate) fn remove(&self, key: TableKey) {
        let Some(table) = self.by_key.pin().remove(&key).map(Arc::clone) else { return };
        if let Some(of_tenant) = self.by_name.pin().get(&key.tenant) {
            // A later life may have the name already.
            let _ = of_tenant.pin().remove_if(&table.name, |_, found| found.key == key);
        }
    }
}

fn put_newer<K: std::hash::Hash + Eq>(map: &HashMap<K, Arc<Table>>, key: K, table: &Arc<Table>) -> Arc<Table> {
    let age = |table: &Table| (table.key.generation, table.schema.version());
    let map = map.pin();
    let outcome = map.compute(key, |found| match found {
        Some((_, found)) if age(found) >= age(table) => Operation::Abort(Arc::clone(found)),
        _ => Operation::Insert(Arc::clone(table)),
    });
    match outcome {
        Compute::Aborted(newest) => newest,
        _ => Arc::clone(table),
    }
}

#[cfg(test)]
mod tests {
    use types::{Generation, PartitionId, Schema, SchemaVersion, TableId, TableSettings};

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
        assert_eq!(cache.put(table(1, 1)).schema.version(), SchemaVersion(2));
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
}
