//! What it costs to apply a block to a partition: dictionaries, columns, zones, publication. Printed per event.

use std::{hint::black_box, sync::Arc};

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{Limits, MemoryBudget, partition};
use types::{Generation, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

const ROWS: u64 = 1_000;
const BLOCKS: u64 = 2_000;
/// Distinct values of the five dimensions.
const VALUES: [(&str, u64); 5] =
    [("region", 8), ("type", 9), ("product", 1_000), ("user", 1_000_000), ("campaign", 100)];
const BUDGET_BYTES: u64 = 1 << 30;

/// A cheap mix of an index into something without order.
fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ (n >> 29)
}

fn block(number: u64) -> (BlockHeader, Vec<u8>) {
    let mut builder = BodyBuilder::default();
    for row in 0..ROWS {
        let n = number * ROWS + row;
        let values: Vec<String> = VALUES
            .iter()
            .enumerate()
            .map(|(at, (name, count))| format!("{name}-{}", scatter(n * 5 + at as u64) % count))
            .collect();
        let dimensions: Vec<_> = VALUES.iter().zip(&values).map(|((name, _), value)| (*name, value.as_str())).collect();
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(1_700_000_000_000_000 + n as i64 * 10),
            event_id: None,
            dimensions: &dimensions,
            metrics: &[("revenue", n as f64), ("latency_ms", (n % 977) as f64), ("bytes", (n % 65_537) as f64)],
        };
        builder.push(&event, Timestamp(0), row as u32).expect("a small block");
    }
    let body = builder.finish(false).expect("not empty");
    let key = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
    (body.header(key, SchemaVersion(1), PartitionId(0), None), body.bytes.to_vec())
}

/// Blocks over and over, each time as later records, in a partition that stays at its budget.
fn apply(criterion: &mut Criterion) {
    let blocks: Vec<_> = (0..BLOCKS).map(block).collect();
    let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
    let (mut writer, _reader) = partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
    let mut next = blocks.iter().cycle();
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("apply, 1,000 rows, 5 dimensions, 3 metrics", |bencher| {
        bencher.iter(|| {
            let (header, body) = next.next().expect("a cycle");
            let view = BodyView::parse_trusted(body).expect("a good body");
            let append_time = Timestamp(header.time_max.0 + 1);
            let applied = writer.apply(writer.next_offset(), append_time, header, &view);
            black_box(applied.expect("a good block"));
        });
    });
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
