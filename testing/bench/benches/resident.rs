//! What rows take once they are resident, and what scanning them costs: a quarter of the workload of the side-by-side
//! comparison (a partition of four), with its distributions. Bytes are those that the budget counts; times are of the
//! processor, on one thread.
#![allow(clippy::print_stdout, reason = "its report")]

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

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
const USERS: usize = 1_000_000;
const REGIONS: [(&str, f64); 8] = [
    ("us-east", 0.25),
    ("us-west", 0.2),
    ("eu-west", 0.15),
    ("eu-central", 0.12),
    ("ap-south", 0.1),
    ("ap-northeast", 0.08),
    ("sa-east", 0.06),
    ("af-south", 0.04),
];
const KINDS: [(&str, f64); 9] = [
    ("page_view", 0.35),
    ("click", 0.25),
    ("search", 0.15),
    ("add_to_cart", 0.1),
    ("checkout", 0.05),
    ("purchase", 0.04),
    ("login", 0.03),
    ("signup", 0.02),
    ("refund", 0.01),
];
const DIMENSIONS: [&str; 5] = ["region", "event_type", "product", "user_id", "tenant"];
const METRICS: [&str; 3] = ["revenue", "latency_ms", "quantity"];
const RUNS: usize = 7;
const GIB: f64 = (1_u64 << 30) as f64;

/// A sequence of well spread numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index by cumulated weights.
    fn choose(&mut self, cumulated: &[f64]) -> usize {
        let at = self.unit() * cumulated[cumulated.len() - 1];
        cumulated.partition_point(|weight| *weight <= at).min(cumulated.len() - 1)
    }

    fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (mean + deviation * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }
}

fn cumulated(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

fn zipf(values: usize, exponent: f64) -> Vec<f64> {
    cumulated((1..=values).map(|rank| (rank as f64).powf(-exponent)))
}

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
    let (products, users, tenants) = (names("product", 4, 1_000), names("user", 7, USERS), names("tenant", 3, 100));
    let (by_product, by_user, by_tenant) = (zipf(1_000, 1.0), zipf(USERS, 0.8), zipf(100, 1.0));
    let (by_region, by_kind) = (cumulated(REGIONS.iter().map(|r| r.1)), cumulated(KINDS.iter().map(|k| k.1)));
    let mut random = Random(42);
    let mut builder = BodyBuilder::default();
    let mut applying = Duration::ZERO;
    for block in 0..ROWS / BLOCK_ROWS {
        for index in 0..BLOCK_ROWS {
            let row = block * BLOCK_ROWS + index;
            let values = [
                REGIONS[random.choose(&by_region)].0,
                KINDS[random.choose(&by_kind)].0,
                &products[random.choose(&by_product)],
                &users[random.choose(&by_user)],
                &tenants[random.choose(&by_tenant)],
            ];
            let cents = (random.log_normal(3.0, 1.0) * 100.0).round();
            let numbers = [cents / 100.0, random.log_normal(3.5, 0.8), (1 + random.next() % 9) as f64];
            let dimensions: Vec<_> = DIMENSIONS.into_iter().zip(values).collect();
            let metrics: Vec<_> = METRICS.into_iter().zip(numbers).collect();
            let event = EventRef {
                namespace: "shop",
                table: "events",
                event_time: Some((START_US + row * SPAN_US / ROWS + random.next() % DISORDER_US) as i64),
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
    let whole = format!(r#""namespace":"shop","table":"events","start_time":{START_US},"end_time":{end}"#);
    let cut = format!(
        r#""namespace":"shop","table":"events","start_time":{},"end_time":{}"#,
        START_US + 240_000_123,
        START_US + 300_000_456
    );
    let sum = r#""aggregate":"sum","metric":"revenue""#;
    vec![
        ("count of a minute", format!("{{{cut}}}")),
        ("sum of revenue", format!("{{{whole},{sum}}}")),
        ("sum of quantity", format!(r#"{{{whole},"aggregate":"sum","metric":"quantity"}}"#)),
        ("sum of latency", format!(r#"{{{whole},"aggregate":"sum","metric":"latency_ms"}}"#)),
        ("sum of revenue by region", format!(r#"{{{whole},{sum},"group_by":["region"]}}"#)),
        (
            "sum of revenue by product, two filters",
            format!(
                r#"{{{whole},{sum},"group_by":["product"],"filters":{{"region":"eu-west","event_type":"click"}}}}"#
            ),
        ),
        (
            "count and sum by second",
            format!(
                r#"{{{whole},"interval_us":1000000,"aggregates":[{{"fn":"count"}},{{"fn":"sum","metric":"revenue"}}]}}"#
            ),
        ),
        ("p99 of revenue, sketch", format!(r#"{{{whole},"aggregate":"p99","metric":"revenue"}}"#)),
        ("revenue above 100", format!(r#"{{{whole},"filters":{{"revenue":{{"gt":100}}}}}}"#)),
        (
            "sum of revenue above 100 by region",
            format!(r#"{{{whole},{sum},"group_by":["region"],"filters":{{"revenue":{{"gt":100}}}}}}"#),
        ),
        ("one user", format!(r#"{{{whole},{sum},"filters":{{"user_id":"user_0012345"}}}}"#)),
        (
            "sum by three dimensions",
            format!(r#"{{{whole},{sum},"group_by":["region","event_type","product"],"limit":1000000}}"#),
        ),
    ]
}

fn main() {
    let table = Arc::new(table());
    let budget = Arc::new(MemoryBudget::new(64 << 30));
    let (_writer, reader) = filled(&table, &budget);
    let per_event = budget.used() as f64 / ROWS as f64;
    println!("resident: {per_event:.2} bytes per event, {:.1}M events per GiB", GIB / per_event / 1e6);
    for (name, json) in cases() {
        let times = (0..RUNS).map(|_| {
            let start = thread_time();
            ask(&table, &reader, &json);
            thread_time() - start
        });
        let best = times.min().expect("it ran");
        println!("{name}: {:.3} ns per row", best.as_nanos() as f64 / ROWS as f64);
    }
}
