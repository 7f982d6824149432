//! What rows take once they are resident, and what scanning them costs: a quarter of the workload of the side-by-side
//! comparison (a partition of four), with its distributions. Bytes are those that the budget counts; times are of the
//! processor, on one thread: the least of all runs and their median. `-- 100 sum distinct` asks what has one of these words in
//! its name, so often.
#![allow(clippy::print_stdout, reason = "its report")]

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bench::workload::{self, Drawn, Random, Workload};
use codec::{BodyBuilder, BodyView, EventRef};
use engine::{Limits, MemoryBudget, Reader};
use query::{Cancel, Finishing, Plan, QueryLimits, Source};
use types::{
    ColumnDef, ColumnKind, Generation, Offset, PartitionId, Schema, SchemaVersion, Table, TableId, TableKey, TableName,
    TableSettings, TenantId, Timestamp,
};

const ROWS: u64 = 5_000_000;
const BLOCK_ROWS: u64 = 1_000;
/// Events come over ten minutes, up to 3 ms out of order.
const SPAN_US: u64 = 600_000_000;
const START_US: u64 = 1_760_000_000_000_000;
const DISORDER_US: u64 = 3_000;
const REGIONS: [&str; 8] =
    ["us-east", "us-west", "eu-west", "eu-central", "ap-south", "ap-northeast", "sa-east", "af-south"];
const KINDS: [&str; 9] =
    ["page_view", "click", "search", "add_to_cart", "checkout", "purchase", "login", "signup", "refund"];
const DIMENSIONS: [&str; 5] = ["region", "event_type", "product", "user_id", "tenant"];
const METRICS: [&str; 3] = ["revenue", "latency_ms", "quantity"];
const RUNS: usize = 15;
const GIB: f64 = (1_u64 << 30) as f64;

fn table() -> Table {
    let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
    let dimensions = DIMENSIONS.map(|name| column(name, ColumnKind::Dimension));
    let metrics = METRICS.map(|name| column(name, ColumnKind::Metric));
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

/// A partition with all rows. Says what applying took, ns per event.
fn filled(table: &Table, budget: &Arc<MemoryBudget>) -> (engine::Writer, Reader) {
    let (mut writer, reader) = engine::partition(PartitionId(0), Offset::ZERO, Limits::default(), Arc::clone(budget));
    let names = |name: &str, digits: usize, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("{name}_{n:0digits$}")).collect()
    };
    let (products, users, tenants) = (
        names("product", 4, workload::PRODUCTS),
        names("user", 7, workload::USERS),
        names("tenant", 3, workload::TENANTS),
    );
    let (events, mut random) = (Workload::default(), Random(42));
    let mut builder = BodyBuilder::default();
    let mut applying = Duration::ZERO;
    for block in 0..ROWS / BLOCK_ROWS {
        for index in 0..BLOCK_ROWS {
            let row = block * BLOCK_ROWS + index;
            let Drawn { values: [region, kind, product, user, tenant], metrics } = events.draw(&mut random);
            let values = [REGIONS[region], KINDS[kind], &products[product], &users[user], &tenants[tenant]];
            let dimensions: Vec<_> = DIMENSIONS.into_iter().zip(values).collect();
            let metrics: Vec<_> = METRICS.into_iter().zip(metrics).collect();
            let event = EventRef {
                namespace: "shop",
                table: "events",
                event_time: Some((START_US + row * SPAN_US / ROWS + random.draw() % DISORDER_US) as i64),
                event_id: None,
                dimensions: &dimensions,
                metrics: &metrics,
            };
            builder.push(&event, Timestamp(0), index as u32).expect("a small block");
        }
        let body = builder.finish(false).expect("not empty");
        let header = body.header(table.key, SchemaVersion(1), PartitionId(0), None);
        let view = BodyView::parse_trusted(&body.bytes).expect("a good body");
        let start = thread_time();
        writer.apply(Offset(block), header.time_max, &header, &view).expect("a good block");
        if block % 50 == 0 {
            writer.housekeep();
        }
        applying += thread_time() - start;
    }
    writer.housekeep();
    println!("applied: {:.1} ns per event", applying.as_nanos() as f64 / ROWS as f64);
    (writer, reader)
}

/// Time of the processor that this thread has had.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

/// Asks, and says how many groups the answer has.
fn ask(table: &Arc<Table>, reader: &Reader, json: &str) {
    let query = query::parse(json.as_bytes(), &QueryLimits::default()).expect("a good query");
    let plan = query::plan(&query, std::slice::from_ref(table)).expect("a good plan");
    let left = AtomicBool::new(false);
    let cancel = Cancel::new(&left, &|| false);
    let scan = |plan: &Plan| {
        let snapshot = reader.snapshot(table.key).expect("the table has rows");
        let tasks = query::tasks(plan, vec![Source { table: 0, partition: PartitionId(0), snapshot }]);
        let results = tasks.iter().map(|task| query::run(plan, task, &cancel)).collect::<Result<_, _>>();
        query::merge(plan, PartitionId(0), results.expect("nobody cancels"), &cancel).expect("few groups")
    };
    let mut finishing = Finishing::new(&plan, vec![scan(&plan)], &cancel).expect("few groups");
    while let Some(round) = finishing.next_round(&plan, &cancel).expect("nobody cancels") {
        finishing.absorb(&round, vec![scan(&round)], &cancel).expect("few groups");
    }
    std::hint::black_box(finishing.answer(&plan, &cancel).expect("nobody cancels"));
}

fn cases() -> Vec<(&'static str, String)> {
    let end = START_US + SPAN_US + DISORDER_US;
    let asked = |start: u64, end: u64, more: &str| {
        format!(r#"{{"namespace":"shop","table":"events","start_time":{start},"end_time":{end}{more}}}"#)
    };
    let (minute, late) = (START_US + 240_000_123, START_US + SPAN_US - 5_000_000);
    let mut cases = vec![
        ("count of a minute", asked(minute, minute + 60_000_333, "")),
        ("count by tenant, last 5 s", asked(late, end, r#","group_by":["tenant"]"#)),
    ];
    cases.extend(questions().into_iter().map(|(name, more)| (name, asked(START_US, end, &more))));
    cases
}

/// Questions about all rows: what is asked.
fn questions() -> Vec<(&'static str, String)> {
    let sum = |metric: &str, more: &str| format!(r#","aggregate":"sum","metric":"{metric}"{more}"#);
    let of = |functions: &[&str], metric: &str, more: &str| {
        let one = |function: &&str| format!(r#"{{"fn":"{function}","metric":"{metric}"}}"#);
        format!(r#","aggregates":[{}]{more}"#, functions.iter().map(one).collect::<Vec<_>>().join(","))
    };
    let (region, above) = (r#","group_by":["region"]"#, r#","filters":{"revenue":{"gt":100}}"#);
    let two_filters = r#","group_by":["product"],"filters":{"region":"eu-west","event_type":"click"}"#;
    let three = r#","group_by":["region","event_type","product"],"limit":1000000"#;
    let users = |what: &str, more: &str| format!(r#","aggregate":"{what}","dimension":"user_id"{more}"#);
    vec![
        ("sum of revenue", sum("revenue", "")),
        ("sum of quantity", sum("quantity", "")),
        ("sum of latency", sum("latency_ms", "")),
        ("sum of revenue by region", sum("revenue", region)),
        ("sum of latency by region", sum("latency_ms", region)),
        ("sum of quantity by tenant", sum("quantity", r#","group_by":["tenant"]"#)),
        ("sum of revenue by product, two filters", sum("revenue", two_filters)),
        (
            "count and sum by second",
            r#","interval_us":1000000,"aggregates":[{"fn":"count"},{"fn":"sum","metric":"revenue"}]"#.to_owned(),
        ),
        ("sum, average, least and greatest of revenue by region", of(&["sum", "avg", "min", "max"], "revenue", region)),
        ("least and greatest of revenue", of(&["min", "max"], "revenue", "")),
        ("percentiles of latency by region", of(&["p50", "p95", "p99"], "latency_ms", region)),
        ("p99 of revenue, sketch", of(&["p99"], "revenue", "")),
        ("distinct users by event type", users("distinct", r#","group_by":["event_type"]"#)),
        ("distinct users", users("distinct", "")),
        ("top 20 users", users("top", r#","k":20"#)),
        ("revenue above 100", above.to_owned()),
        ("sum of revenue above 100 by region", sum("revenue", &format!("{region}{above}"))),
        ("one user", sum("revenue", r#","filters":{"user_id":"user_0012345"}"#)),
        ("sum by three dimensions", sum("revenue", three)),
    ]
}

fn main() {
    let table = Arc::new(table());
    let budget = Arc::new(MemoryBudget::new(64 << 30));
    let (_writer, reader) = filled(&table, &budget);
    let per_event = budget.used() as f64 / ROWS as f64;
    println!("resident: {per_event:.2} bytes per event, {:.1}M events per GiB", GIB / per_event / 1e6);
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (numbers, words): (Vec<String>, Vec<String>) = words.partition(|word| word.parse::<usize>().is_ok());
    let runs = numbers.first().map_or(RUNS, |runs| runs.parse().expect("it is a number")).max(1);
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    for (name, json) in cases().into_iter().filter(|(name, _)| wanted(name)) {
        let mut times: Vec<Duration> = (0..runs)
            .map(|_| {
                let start = thread_time();
                ask(&table, &reader, &json);
                thread_time() - start
            })
            .collect();
        times.sort_unstable();
        let per_row = |time: Duration| time.as_nanos() as f64 / ROWS as f64;
        println!("{name}: {:.3} ns per row (median {:.3})", per_row(times[0]), per_row(times[runs / 2]));
    }
}
