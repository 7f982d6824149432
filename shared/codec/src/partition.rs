//! Which partition an event belongs to: one function for the gateway, the client library and the check of their blocks.
//!
//! xxh3-64, seeded with the table's `partition_seed`, over the key's bytes gives `h`; the event goes to the table's
//! partition number `(h · n) >> 64` of `n`. The key is the value of `partition_by`; where that is absent or undeclared
//! the event id; else the batch's identity (producer, then sequence, 24 bytes little-endian), so that such a batch is one
//! block per table; else any partition will do, and the caller chooses.

use types::{PartitionId, Table};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{BatchIdentity, BodyView, EventRef};

/// What decides an event's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKey<'a> {
    /// The value of the table's `partition_by`.
    Value(&'a str),
    /// The event's own id.
    EventId(&'a [u8]),
    /// The identity of its batch.
    Batch(&'a BatchIdentity),
    /// Nothing: any partition will do. The number is the caller's, counted up from request to request.
    Any(u64),
}

impl<'a> PartitionKey<'a> {
    /// The key of an event of `table`. `any` counts for events without value, id and batch identity.
    #[must_use]
    pub fn of(table: &Table, event: &EventRef<'a>, batch: Option<&'a BatchIdentity>, any: u64) -> Self {
        let value = table.partition_by.as_deref().and_then(|by| event.dimensions.iter().find(|(name, _)| *name == by));
        match value {
            Some((_, value)) => Self::Value(value),
            None => Self::without_value(event.event_id, batch, any),
        }
    }

    fn without_value(event_id: Option<&'a [u8]>, batch: Option<&'a BatchIdentity>, any: u64) -> Self {
        match (event_id, batch) {
            (Some(id), _) => Self::EventId(id),
            (None, Some(batch)) => Self::Batch(batch),
            (None, None) => Self::Any(any),
        }
    }
}

/// The partition of events with this key.
#[must_use]
pub fn partition_of(table: &Table, key: PartitionKey<'_>) -> PartitionId {
    let hash = match key {
        PartitionKey::Value(value) => xxh3_64_with_seed(value.as_bytes(), table.partition_seed),
        PartitionKey::EventId(id) => xxh3_64_with_seed(id, table.partition_seed),
        PartitionKey::Batch(batch) => {
            let mut key = [0; 24];
            key[..16].copy_from_slice(&batch.producer.to_le_bytes());
            key[16..].copy_from_slice(&batch.sequence.to_le_bytes());
            xxh3_64_with_seed(&key, table.partition_seed)
        }
        PartitionKey::Any(number) => return table.partitions[(number % table.partitions.len() as u64) as usize],
    };
    table.partitions[((u128::from(hash) * table.partitions.len() as u128) >> 64) as usize]
}

/// Replaces `into` by the partition of each row of a body, in row order.
pub fn partitions_of_rows(
    table: &Table,
    view: &BodyView<'_>,
    batch: Option<&BatchIdentity>,
    any: u64,
    into: &mut Vec<PartitionId>,
) {
    into.clear();
    into.reserve(view.rows());
    each_row(table, view, batch, any, |partition| {
        into.push(partition);
        true
    });
}

/// Whether every row of a body belongs to `partition` of the table; rows that may go anywhere belong to each.
#[must_use]
pub fn verify_partition(
    table: &Table,
    view: &BodyView<'_>,
    batch: Option<&BatchIdentity>,
    partition: PartitionId,
) -> bool {
    let Ok(place) = table.partitions.binary_search(&partition) else { return false };
    each_row(table, view, batch, place as u64, |found| found == partition)
}

/// The one partition that every row of a body belongs to, if there is one. Rows that may go anywhere go where `any` says.
#[must_use]
pub fn sole_partition(
    table: &Table,
    view: &BodyView<'_>,
    batch: Option<&BatchIdentity>,
    any: u64,
) -> Option<PartitionId> {
    let mut sole = None;
    let all_alike = each_row(table, view, batch, any, |partition| *sole.get_or_insert(partition) == partition);
    sole.filter(|_| all_alike)
}

/// Calls `visit` with the partition of each row in order, until it says false; returns whether it never did. Values of a
/// dimension are hashed once per dictionary entry.
fn each_row(
    table: &Table,
    view: &BodyView<'_>,
    batch: Option<&BatchIdentity>,
    any: u64,
    mut visit: impl FnMut(PartitionId) -> bool,
) -> bool {
    let by = table.partition_by.as_deref();
    let dimension = view.dimensions().iter().find(|dimension| Some(dimension.name()) == by);
    let of_entries: Vec<PartitionId> = dimension.map_or_else(Vec::new, |dimension| {
        (0..dimension.entries()).map(|k| partition_of(table, PartitionKey::Value(dimension.entry(k)))).collect()
    });
    let without_id = partition_of(table, PartitionKey::without_value(None, batch, any));
    let ids = view.ids();
    (0..view.rows()).all(|row| {
        let code = dimension.map_or(0, |dimension| dimension.codes().get(row));
        visit(match (code, ids.and_then(|ids| ids.get(row))) {
            (0, None) => without_id,
            (0, Some(id)) => partition_of(table, PartitionKey::EventId(id)),
            (code, _) => of_entries[code as usize - 1],
        })
    })
}
