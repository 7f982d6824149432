//! What this gateway has acked, per table and partition: the contents of the tokens that it gives.
//!
//! A token covers its own batch and all that was acked here before for the same tables, so that a client which writes
//! through one gateway needs to keep only its newest token. Offsets only rise. A table's next life replaces its last.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use codec::{TableToken, Token, TokenKey};
use types::{Generation, Offset, PartitionId, Table, TableId, TenantId};

/// Acked offsets of all tables, and the key that tokens are made with.
pub(crate) struct Acked {
    key: TokenKey,
    tables: papaya::HashMap<(TenantId, TableId), Arc<Life>>,
}

/// One life of one table.
struct Life {
    generation: Generation,
    /// Per partition of the table the offset after the last acked record; 0: none.
    ///
    /// Release (`note`) pairs with Acquire (`token`): who sees an ack's offset may tell others of it.
    next: Vec<(PartitionId, AtomicU64)>,
}

impl Acked {
    /// Nothing acked yet.
    pub(crate) fn new(key: TokenKey) -> Self {
        Self { key, tables: papaya::HashMap::new() }
    }

    /// Notes that every record before `next` of a partition of `table` that this gateway appended is durable.
    pub(crate) fn note(&self, table: &Table, partition: PartitionId, next: Offset) {
        let life = self.life(table);
        // An append to a life that has ended meanwhile is covered by no token: nobody can query it.
        if life.generation == table.key.generation
            && let Ok(at) = life.next.binary_search_by_key(&partition, |(id, _)| *id)
        {
            life.next[at].1.fetch_max(next.0, Ordering::Release);
        }
    }

    /// The token of what was acked for these tables of one tenant.
    pub(crate) fn token<'t>(&self, tenant: TenantId, tables: impl Iterator<Item = &'t Table>) -> String {
        let mut token = Token::new(tenant);
        for table in tables {
            let life = self.life(table);
            let acked = |(partition, next): &(PartitionId, AtomicU64)| match next.load(Ordering::Acquire) {
                0 => None,
                next => Some((*partition, Offset(next))),
            };
            token.cover(&TableToken {
                table: table.key.table,
                generation: life.generation,
                schema_version: table.schema.version(),
                offsets: life.next.iter().filter_map(acked).collect(),
            });
        }
        token.encode(&self.key)
    }

    /// The table's newest life that is known here.
    fn life(&self, table: &Table) -> Arc<Life> {
        let tables = self.tables.pin();
        let key = (table.key.tenant, table.key.table);
        if let Some(life) = tables.get(&key)
            && life.generation >= table.key.generation
        {
            return Arc::clone(life);
        }
        let next = table.partitions.iter().map(|&partition| (partition, AtomicU64::new(0))).collect();
        let new = Arc::new(Life { generation: table.key.generation, next });
        let newest = |known: &Arc<Life>| if known.generation >= new.generation { known } else { &new }.clone();
        Arc::clone(tables.update_or_insert(key, newest, Arc::clone(&new)))
    }
}

#[cfg(test)]
mod tests {
    use types::{Schema, TableKey, TableName, TableSettings};

    use super::*;

    fn table(generation: u32) -> Table {
        Table {
            key: TableKey { tenant: TenantId(1), table: TableId(7), generation: Generation(generation) },
            name: TableName::new("shop", "events"),
            partitions: vec![PartitionId(1), PartitionId(3)],
            partition_by: None,
            partition_seed: 0,
            identity_seed: 0,
            schema: Schema::default(),
            settings: TableSettings::default(),
        }
    }

    /// Goal: tokens cover all that was acked, never less than before, and nothing of a table's former life.
    #[test]
    fn tokens_cover_what_was_acked() {
        let key = TokenKey::new([7; 32]);
        let acked = Acked::new(TokenKey::new([7; 32]));
        let read = |table: &Table| {
            let text = acked.token(TenantId(1), std::iter::once(table));
            let token = Token::decode(&key, &text).unwrap();
            let offsets = token.table(TableId(7)).map(|table| table.offsets.clone()).unwrap_or_default();
            offsets.into_iter().map(|(partition, next)| (partition.0, next.0)).collect::<Vec<_>>()
        };
        acked.note(&table(1), PartitionId(3), Offset(5));
        assert_eq!(read(&table(1)), [(3, 5)]);
        acked.note(&table(1), PartitionId(3), Offset(4));
        acked.note(&table(1), PartitionId(1), Offset(9));
        acked.note(&table(1), PartitionId(2), Offset(9));
        assert_eq!(read(&table(1)), [(1, 9), (3, 5)]);
        acked.note(&table(2), PartitionId(1), Offset(12));
        assert_eq!(read(&table(2)), [(1, 12)]);
        acked.note(&table(1), PartitionId(3), Offset(99));
        assert_eq!(read(&table(2)), [(1, 12)]);
    }
}
