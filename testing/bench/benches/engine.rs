//! What it costs to apply a block to a partition: dictionaries, columns, zones, publication; and what a rollup adds. Printed
//! per event, in time of the processor.

use std::{hint::black_box, sync::Arc, time::Duration};

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{Limits, MemoryBudget, partition};
use types::{
    Generation, Interval, Offset, PartitionId, Rollup, Schema, SchemaVersion, Table, TableId, TableKey, TableName,
    TableSettings, TenantId, Timestamp,
};

const ROWS: u64 = 1_000;
const BLOCKS: u64 = 2_000;
/// Distinct values of the five dimensions.
const VALUES: [(&str, u64); 5] =
    [("region", 8), ("type", 9), ("product", 1_000), ("user", 1_000_000), ("campaign", 100)];
const BUDGET_BYTES: u64 = 1 << 30;
const KEY: TableKey = TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) };
/// Blocks between two rounds of housekeeping: what comes in 50 ms at a million events a second.
const HOUSEKEEPING_BLOCKS: u64 = 50;

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
    (body.header(KEY, SchemaVersion(1), PartitionId(0), None), body.bytes.to_vec())
}

/// A table with these rollups.
fn described(rollups: Vec<Rollup>) -> Table {
    Table {
        key: KEY,
        name: TableName::new("n", "t"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings { rollups, ..TableSettings::default() },
    }
}

/// A rollup by second that is kept for a day.
fn rollup(group_by: &[&str], sketches: bool) -> Rollup {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let sketched = |name: &str| if sketches { names(&[name]) } else { Vec::new() };
    Rollup {
        interval: Interval::from_micros(1_000_000).expect("a second"),
        group_by: names(group_by),
        distinct: sketched("user"),
        percentiles: sketched("latency_ms"),
        top: sketched("product"),
        keep_us: Some(86_400_000_000),
    }
}

/// Time of the processor that this thread has had.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

/// Blocks over and over, each time as later records, in a partition that stays at its budget; with housekeeping in between.
fn apply(criterion: &mut Criterion) {
    let blocks: Vec<_> = (0..BLOCKS).map(block).collect();
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(ROWS));
    let cases = [
        ("apply, 1,000 rows, 5 dimensions, 3 metrics", Vec::new()),
        ("the same, rollup by second and 72 groups", vec![rollup(&["region", "type"], false)]),
        ("the same, with sketches", vec![rollup(&["region", "type"], true)]),
        ("the same, rollup by second and 1,000 groups", vec![rollup(&["product"], false)]),
    ];
    for (name, rollups) in cases {
        let budget = Arc::new(MemoryBudget::new(BUDGET_BYTES));
        let (mut writer, _reader) = partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
        writer.configure(Offset::ZERO, Timestamp(0), &described(rollups)).expect("the first record");
        let mut next = blocks.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let start = thread_time();
                for iteration in 0..iterations {
                    let (header, body) = next.next().expect("a cycle");
                    let view = BodyView::parse_trusted(body).expect("a good body");
                    let append_time = Timestamp(header.time_max.0 + 1);
                    let applied = writer.apply(writer.next_offset(), append_time, header, &view);
                    black_box(applied.expect("a good block"));
                    if iteration % HOUSEKEEPING_BLOCKS == 0 {
                        writer.housekeep();
                    }
                }
                thread_time() - start
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
