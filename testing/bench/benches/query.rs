//! Queries over resident rows on one thread: nanoseconds per row of plan, tasks, run, merge and finish together; the same with
//! the results of all tasks kept from before (`query_again`).

use std::{
    cell::RefCell,
    collections::HashMap,
    hint::black_box,
    sync::{Arc, atomic::AtomicBool},
};

use codec::{BodyBuilder, BodyView, EventRef};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{Limits, MemoryBudget, Reader};
use query::{Answer, Cancel, Finishing, KeptTask, Plan, QueryLimits, Source, Task, TaskKey};
use types::{
    ColumnDef, ColumnKind, Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName,
    TableSettings, TenantId, Timestamp,
};

const ROWS: u64 = 2_000_000;
const BLOCK_ROWS: u64 = 1_000;
/// Events come over ten minutes.
const SPAN_US: u64 = 600_000_000;
const REGIONS: [&str; 8] = ["us-east", "us-west", "eu-west", "eu-north", "ap-south", "ap-east", "sa-east", "af-south"];
const KINDS: [&str; 9] = ["view", "click", "cart", "buy", "refund", "search", "login", "logout", "share"];

fn table() -> Table {
    let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
    let dimensions = ["region", "event_type", "product", "user_id"].map(|name| column(name, ColumnKind::Dimension));
    let metrics = ["revenue", "latency_ms"].map(|name| column(name, ColumnKind::Metric));
    Table {
        key: TableKey { tenant: TenantId(1), table: TableId(1), generation: Generation(1) },
        name: TableName::new("shop", "events"),
        partitions: vec![PartitionId(0)],
        partition_by: None,
        partition_seed: 0,
        identity_seed: 0,
        schema: Schema::from_parts(SchemaVersion(1), dimensions.into_iter().chain(metrics).collect()),
        settings: TableSettings::default(),
    }
}

/// Well spread numbers (splitmix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn filled(table: &Table) -> Reader {
    let budget = Arc::new(MemoryBudget::new(u64::MAX));
    let (mut writer, reader) = engine::partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
    let products: Vec<String> = (0..1_000).map(|n| format!("product_{n:04}")).collect();
    let mut builder = BodyBuilder::default();
    for block in 0..ROWS / BLOCK_ROWS {
        for index in 0..BLOCK_ROWS {
            let row = block * BLOCK_ROWS + index;
            let random = mixed(row);
            let user = format!("user_{:07}", mixed(random) % 1_000_000);
            let dimensions = [
                ("region", REGIONS[(random % 8) as usize]),
                ("event_type", KINDS[(random >> 8) as usize % 9]),
                ("product", products[(random >> 16) as usize % 1_000].as_str()),
                ("user_id", user.as_str()),
            ];
            let metrics = [("revenue", (random >> 32) as f64 / 1e6), ("latency_ms", (random >> 40) as f64 / 1e3)];
            let event = EventRef {
                namespace: "shop",
                table: "events",
                event_time: Some((row * SPAN_US / ROWS) as i64),
                event_id: None,
                dimensions: &dimensions,
                metrics: &metrics,
            };
            builder.push(&event, Timestamp(0), index as u32).expect("a small block");
        }
        let body = builder.finish(false).expect("not empty");
        let header = body.header(table.key, SchemaVersion(1), PartitionId(0), None);
        let view = BodyView::parse(&body.bytes).expect("a good body");
        writer.apply(Offset(block), Timestamp(0), &header, &view).expect("a good block");
    }
    reader
}

/// Results of tasks, as a node keeps them.
type Kept = RefCell<HashMap<TaskKey, KeptTask>>;

fn answer(table: &Arc<Table>, reader: &Reader, json: &str, kept: Option<&Kept>) -> Answer {
    let query = query::parse(json.as_bytes(), &QueryLimits::default()).expect("a good query");
    let plan = query::plan(&query, std::slice::from_ref(table)).expect("a good plan");
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let scan = |plan: &Plan| {
        let snapshot = reader.snapshot(table.key).expect("the table has rows");
        let tasks = query::tasks(plan, vec![Source { table: 0, partition: PartitionId(0), snapshot }]);
        let known = kept.zip(plan.task_form());
        let result = |task: &Task| {
            let Some((kept, form)) = &known else { return query::run(plan, task, &cancel) };
            let key = task.key(plan, form);
            if let Some(kept) = kept.borrow().get(&key) {
                return Ok(task.reuse(plan, kept));
            }
            let result = query::run(plan, task, &cancel)?;
            kept.borrow_mut().insert(key, result.keep().expect("the table has no rollup"));
            Ok(result)
        };
        let results = tasks.iter().map(result).collect::<Result<_, _>>();
        query::merge(plan, PartitionId(0), results.expect("nobody cancels"), &cancel).expect("few groups")
    };
    let mut finishing = Finishing::new(&plan, vec![scan(&plan)], &cancel).expect("few groups");
    while let Some(round) = finishing.next_round(&plan, &cancel).expect("nobody cancels") {
        let all = finishing.absorb(&round, vec![scan(&round)], &cancel).expect("few groups");
        assert!(all, "no row leaves");
    }
    finishing.answer(&plan, &cancel).expect("nobody cancels")
}

fn queries(criterion: &mut Criterion) {
    let table = Arc::new(table());
    let reader = filled(&table);
    let mut group = criterion.benchmark_group("query");
    group.throughput(Throughput::Elements(ROWS)).sample_size(20);
    let whole = format!(r#""namespace":"shop","table":"events","start_time":0,"end_time":{SPAN_US}"#);
    let minute = r#""namespace":"shop","table":"events","start_time":240000123,"end_time":300000456"#;
    let sum = r#""aggregate":"sum","metric":"revenue""#;
    let percentiles = |method: &str| {
        let of = |q: &str| format!(r#"{{"fn":"{q}","metric":"latency_ms","method":"{method}"}}"#);
        let aggregates = ["p50", "p95", "p99"].map(of).join(",");
        format!(r#"{{{whole},"aggregates":[{aggregates}],"group_by":["region"]}}"#)
    };
    let cases = [
        ("count_minute", format!("{{{minute}}}")),
        ("sum", format!("{{{whole},{sum}}}")),
        ("sum_by_region", format!(r#"{{{whole},{sum},"group_by":["region"]}}"#)),
        (
            "filtered_top_10_products",
            format!(
                r#"{{{whole},{sum},"group_by":["product"],"filters":{{"region":"eu-west","event_type":"click"}},"order_by":[{{"column":"sum_revenue","desc":true}}],"limit":10}}"#
            ),
        ),
        (
            "per_second",
            format!(
                r#"{{{whole},"interval_us":1000000,"aggregates":[{{"fn":"count"}},{{"fn":"sum","metric":"revenue"}}]}}"#
            ),
        ),
        ("one_user", format!(r#"{{{whole},"filters":{{"user_id":"user_0012345"}}}}"#)),
        ("percentiles_by_region", percentiles("sketch")),
        ("percentiles_by_region_exact", percentiles("exact")),
        ("percentiles_by_region_tdigest", percentiles("tdigest")),
        (
            "distinct_users_by_event_type",
            format!(r#"{{{whole},"aggregate":"distinct","dimension":"user_id","group_by":["event_type"]}}"#),
        ),
        ("top_20_users", format!(r#"{{{whole},"aggregate":"top","dimension":"user_id","k":20}}"#)),
        (
            "top_5_products_by_region",
            format!(r#"{{{whole},"aggregate":"top","dimension":"product","k":5,"group_by":["region"]}}"#),
        ),
        ("72k_groups", format!(r#"{{{whole},{sum},"group_by":["region","event_type","product"],"limit":1000000}}"#)),
    ];
    for (name, json) in &cases {
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(answer(&table, &reader, json, None))));
    }
    group.finish();
    let mut group = criterion.benchmark_group("query_again");
    group.throughput(Throughput::Elements(ROWS)).sample_size(20);
    for (name, json) in &cases {
        let kept = Kept::default();
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(answer(&table, &reader, json, Some(&kept)))));
    }
    group.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
