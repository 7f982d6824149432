//! What the budget is charged with is what the allocator gives.

use std::sync::Arc;

use codec::{BodyBuilder, BodyView, EventRef};
use engine::{Limits, MemoryBudget, partition};
use peak_alloc::PeakAlloc;
use types::{
    Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName, TableSettings,
    TenantId, Timestamp,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
const ROWS: u64 = 1_000;
const BEGIN: i64 = 1_700_000_000_000_000;
/// How far the account may be from the allocator: a share of what that gave, and a fixed part for what every partition has.
const APART_SHARE: f64 = 0.05;
const APART_BYTES: f64 = (256 << 10) as f64;

fn table() -> Table {
    Table {
        key: KEY,
        name: TableName::new("n", "t"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings::default(),
    }
}

/// The block of a number: five dimensions of 8 to `users` values, three metrics, rows 10 ms apart.
fn block(builder: &mut BodyBuilder, number: u64, users: u64, ids: bool) -> codec::Body {
    for row in 0..ROWS {
        let n = number * ROWS + row;
        let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let values = [("region", 8), ("type", 9), ("product", 1_000), ("user", users), ("campaign", 100)]
            .map(|(name, count)| (name, format!("{name}-{}", (scattered >> 20) % count)));
        let dimensions = values.each_ref().map(|(name, value)| (*name, value.as_str()));
        let id = format!("{scattered:016x}");
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(BEGIN + n as i64 * 10_000),
            event_id: ids.then_some(id.as_bytes()),
            dimensions: &dimensions,
            metrics: &[("revenue", n as f64), ("latency_ms", (n % 977) as f64), ("bytes", (n % 65_537) as f64)],
        };
        builder.push(&event, Timestamp(0), row as u32).expect("a small block");
    }
    builder.finish(false).expect("not empty")
}

/// Bytes by the account and by the allocator after so many blocks.
fn used_and_allocated(blocks: u64, users: u64, ids: bool) -> (f64, f64) {
    let before = PeakAlloc.current_usage();
    let budget = Arc::new(MemoryBudget::new(4 << 30));
    let (mut writer, reader) = partition(PartitionId(0), Offset::ZERO, Limits::default(), Arc::clone(&budget));
    writer.configure(Offset::ZERO, Timestamp(0), &table()).expect("the first record");
    let mut builder = BodyBuilder::default();
    for number in 0..blocks {
        let body = block(&mut builder, number, users, ids);
        let header = body.header(KEY, SchemaVersion(1), PartitionId(0), None);
        let view = BodyView::parse(&body.bytes).expect("a good body");
        let append_time = Timestamp(header.time_max.0 + 1);
        writer.apply(writer.next_offset(), append_time, &header, &view).expect("a good block");
        writer.housekeep();
    }
    drop(builder);
    let allocated = (PeakAlloc.current_usage() - before) as f64;
    let used = budget.used() as f64;
    drop((writer, reader));
    (used, allocated)
}

/// Goal: what is accounted for is what the allocator gives, within 5 percent, few values or many, one segment or hundreds, with
/// ids or without. One test: the allocator counts for the whole process.
#[test]
fn the_account_is_the_allocators() {
    for (blocks, users, ids) in [(50, 100, false), (400, 1_000_000, false), (1_000, 1_000, false), (400, 100_000, true)]
    {
        let (used, allocated) = used_and_allocated(blocks, users, ids);
        let near = (used - allocated).abs() <= allocated * APART_SHARE + APART_BYTES;
        assert!(near, "{blocks} blocks, {users} users, ids {ids}: {used} accounted, {allocated} allocated");
    }
}
