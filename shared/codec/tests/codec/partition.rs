//! One function says where an event belongs, for rows and for columns alike.

use crate::support::{Plain, body_of, events};
use codec::{
    BatchIdentity, BodyBuilder, BodyView, PartitionKey, partition_of, partitions_of_rows, sole_partition,
    verify_partition,
};
use proptest::prelude::*;
use types::{Generation, PartitionId, Schema, Table, TableId, TableKey, TableName, TableSettings, TenantId};

fn table(partitions: &[u32], by: Option<&str>, seed: u64) -> Table {
    Table {
        key: TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) },
        name: TableName::new("shop", "events"),
        partitions: partitions.iter().copied().map(PartitionId).collect(),
        partition_by: by.map(Into::into),
        partition_seed: seed,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings::default(),
    }
}

proptest! {
    /// Goal: rows of a block go where the same events go one by one, and the checks of a block agree with that.
    #[test]
    fn rows_and_columns_agree(
        events in events(30), seed: u64, by in prop::option::of("d[0-3]"), batched: bool, any in 0_u64..9, partitions in 1_u32..5,
    ) {
        let ids: Vec<u32> = (0..partitions).map(|n| 2 * n + 1).collect();
        let table = table(&ids, by.as_deref(), seed);
        let identity = BatchIdentity { producer: u128::from(seed) << 3, sequence: any };
        let batch = batched.then_some(&identity);
        let Some(body) = body_of(&mut BodyBuilder::default(), &events, 0) else { return Ok(()) };
        let view = BodyView::parse(&body.bytes).unwrap();
        let wanted: Vec<PartitionId> = events
            .iter()
            .map(|event| event.with_ref(|event| partition_of(&table, PartitionKey::of(&table, event, batch, any))))
            .collect();
        let mut found = Vec::new();
        partitions_of_rows(&table, &view, batch, any, &mut found);
        prop_assert_eq!(&found, &wanted);
        let sole = wanted.iter().all(|partition| *partition == wanted[0]).then_some(wanted[0]);
        prop_assert_eq!(sole_partition(&table, &view, batch, any), sole);
        // Rows without a key belong to every partition, the others to one.
        let free = |event: &Plain| {
            event.id.is_none() && batch.is_none() && by.as_ref().is_none_or(|by| !event.dimensions.contains_key(by))
        };
        for partition in (0..12).map(PartitionId) {
            let belongs = table.partitions.contains(&partition)
                && events.iter().zip(&wanted).all(|(event, wanted)| free(event) || *wanted == partition);
            prop_assert_eq!(verify_partition(&table, &view, batch, partition), belongs);
        }
    }
}

/// Goal: the choice is pinned: it must never change in the life of a table, nor differ between gateway and client.
#[test]
fn the_choice_is_pinned() {
    let table = table(&[0, 1, 2, 3, 4, 5, 6, 7], Some("user_id"), 42);
    let batch = BatchIdentity { producer: 1, sequence: 2 };
    let of = |key| partition_of(&table, key).0;
    let found = [
        of(PartitionKey::Value("u1")),
        of(PartitionKey::Value("")),
        of(PartitionKey::EventId(b"u1")),
        of(PartitionKey::EventId(b"0123456789abcdef")),
        of(PartitionKey::Batch(&batch)),
        of(PartitionKey::Any(11)),
    ];
    assert_eq!(found, [4, 5, 4, 7, 3, 3]);
}

/// Goal: keys spread evenly: no partition is off its share by more than a tenth.
#[test]
fn keys_spread_evenly() {
    let table = table(&[0, 1, 2, 3, 4], None, 7);
    let mut counts = [0_i32; 5];
    for n in 0..50_000_u32 {
        counts[partition_of(&table, PartitionKey::EventId(n.to_string().as_bytes())).0 as usize] += 1;
    }
    assert!(counts.iter().all(|count| (count - 10_000).abs() < 1_000), "{counts:?}");
}
