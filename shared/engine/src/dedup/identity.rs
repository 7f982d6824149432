//! What makes an event itself: 128 bits per row, hashed with a secret of its table, so that nobody can choose ids that
//! collide.
//!
//! - With an `event_id`: that and the value of `partition_by`, where the table has it and the row too (length first, so
//!   that no part of one runs into the other).
//! - Else, in a batch with an identity: the batch's producer, its sequence, and the row's index in the batch.
//! - Else nothing: [`NONE`], and never a duplicate.
//!
//! Each of the three forms is hashed with a seed of its own; ids of two forms agree as seldom as any two do.

use codec::{BatchIdentity, BodyView, Ids};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A row without an identity. No identity has this value.
pub(super) const NONE: u128 = 0;

const KEYED: u64 = 0x517c_c1b7_2722_0a95;
const IN_BATCH: u64 = 0x2545_f491_4f6c_dd1d;

/// What a table contributes to identities; fixed for its life.
#[derive(Debug, Default, Clone)]
pub(crate) struct IdentityKey {
    pub(crate) seed: u64,
    pub(crate) partition_by: Option<String>,
}

/// Replaces `into` by the identity of each row; `bytes` is memory to work with. `false`: no row has one, and `into` is
/// empty.
pub(super) fn identities(
    key: &IdentityKey,
    batch: Option<&BatchIdentity>,
    body: &BodyView<'_>,
    into: &mut Vec<u128>,
    bytes: &mut Vec<u8>,
) -> bool {
    into.clear();
    let keyed = |column: &&codec::DimensionView<'_>| key.partition_by.as_deref() == Some(column.name());
    let column = body.dimensions().iter().find(keyed);
    match (body.ids(), column) {
        (None, _) => {}
        (Some(Ids::Fixed(ids)), None) => into.extend(ids.iter().map(|id| hash(id, key.seed))),
        (Some(ids), column) => into.extend((0..body.rows()).map(|row| match ids.get(row) {
            None => NONE,
            Some(id) => match column.and_then(|column| column.value(row)) {
                None => hash(id, key.seed),
                Some(value) => {
                    bytes.clear();
                    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(value.as_bytes());
                    bytes.extend_from_slice(id);
                    hash(bytes, key.seed ^ KEYED)
                }
            },
        })),
    }
    if let Some(batch) = batch {
        into.resize(body.rows(), NONE);
        identify_by_batch(key.seed, batch, body, into);
    }
    !into.is_empty()
}

fn identify_by_batch(seed: u64, batch: &BatchIdentity, body: &BodyView<'_>, into: &mut [u128]) {
    let indexes = body.batch_indexes();
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(&batch.producer.to_le_bytes());
    bytes[16..24].copy_from_slice(&batch.sequence.to_le_bytes());
    for (row, identity) in into.iter_mut().enumerate().filter(|(_, identity)| **identity == NONE) {
        let index = indexes.map_or(row as u32, |indexes| indexes.get(row));
        bytes[24..].copy_from_slice(&index.to_le_bytes());
        *identity = hash(&bytes, seed ^ IN_BATCH);
    }
}

#[inline]
fn hash(bytes: &[u8], seed: u64) -> u128 {
    xxh3_128_with_seed(bytes, seed).max(NONE + 1)
}
