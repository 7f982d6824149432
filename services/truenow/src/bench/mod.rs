//! `truenow bench`: generates load, measures rate, latency, freshness and cost.
//!
//! All data is made and encoded before the clock starts; while it runs, a sending is a copy with times and ids stamped in.

mod child;
mod drive;
mod open;
mod probe;
mod raw_codec;
mod report;
mod stream;
mod template;
mod workload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use proto::v1::{DescribeTableRequest, ingest_client::IngestClient};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;
use types::{Generation, PartitionId, Schema, Table, TableId, TableKey, TableName, TableSettings, TenantId, Timestamp};

use self::{
    child::Server,
    drive::{Connection, Measured, Plan},
    probe::Freshness,
    report::{Report, Usage},
    template::{Repeats, Template},
    workload::{DIMENSIONS, METRICS, Row, Workload},
};
use crate::{
    addresses::Addresses,
    args::{BenchArgs, Mode},
    failure::Failure,
    http::Http,
    metrics_text::Samples,
    outcome::{Outcome, answer, note, runtime},
};

/// Namespace of the tables of benchmarks.
const NAMESPACE: &str = "bench";
/// Events made before the clock starts, at least one batch of them.
const POOL_EVENTS: usize = 400_000;
const SEED: u64 = 42;

/// Runs a benchmark and reports.
///
/// # Errors
/// There is no server, or it refuses a batch for good.
pub(crate) fn run(args: &BenchArgs) -> Result<Outcome, Failure> {
    runtime(args.threads as usize)?.block_on(async {
        if !args.serve {
            return measure(args, &args.addresses).await;
        }
        let base = args.serve_dir.clone().unwrap_or_else(std::env::temp_dir);
        let server = Server::start(&base).await?;
        let outcome = measure(args, &server.addresses()).await;
        server.stop()?;
        outcome
    })
}

async fn measure(args: &BenchArgs, addresses: &Addresses) -> Result<Outcome, Failure> {
    let http = Http::new(addresses)?;
    if args.open_loop && args.mode == Mode::Rows {
        return Err(Failure::new("--open-loop goes with single calls: on a stream a refusal is the end"));
    }
    let table = create_table(&http, addresses, args).await?;
    note(&format!("preparing {POOL_EVENTS} events for {NAMESPACE}.{table}"));
    let templates = templates(args, addresses, &table).await?;
    let before = usage(&http, addresses).await;
    let (begin, began_us) = (Instant::now(), now_us());
    let end = begin + Duration::from_secs(args.seconds.into());
    let workers = args.connections * if args.mode == Mode::Rows || args.open_loop { 1 } else { args.window };
    let interval = args.rate.map(|rate| {
        let batches_per_second = rate.max(1) as f64 / f64::from(args.batch) / f64::from(workers);
        Duration::from_secs_f64(1.0 / batches_per_second)
    });
    let repeats = args.duplicates.zip(args.back).map(|(percent, back)| Repeats {
        percent,
        back: back.next_multiple_of(templates.len() as u64),
        first: args.first,
    });
    if repeats.is_some_and(|repeats| repeats.percent == 100 && (1..repeats.back).contains(&repeats.first)) {
        return Err(Failure::new(format!("--back reaches further than the {} batches before --first", args.first)));
    }
    let plan = Plan {
        mode: args.mode,
        templates,
        repeats,
        begin,
        end,
        interval,
        producer: format!("{NAMESPACE}-{table}"),
        batches: AtomicU64::new(args.first),
    };
    let plan = Arc::new(plan);
    let probes = tokio::spawn(probe::run(addresses.clone(), table.clone(), end));
    let measured = drive_all(args, addresses, Arc::clone(&plan), workers).await?;
    let freshness = probes.await.map_err(|_panic| Failure::new("the probes broke off"))??;
    let after = usage(&http, addresses).await;
    let usage = Usage {
        client_cpu: after.client_cpu - before.client_cpu,
        server_cpu: after.server_cpu.zip(before.server_cpu).map(|(after, before)| after - before),
        server_bytes: after.server_bytes,
    };
    let took = measured.last_ack - begin;
    // Relaxed: all who counted have ended.
    let batches = plan.batches.load(Relaxed);
    let report =
        Report { args, table: &table, batches, measured: &measured, began_us, took, freshness: &freshness, usage };
    answer(&if args.json { format!("{}\n", report.json()) } else { report.text() })?;
    Ok(verdict(&freshness))
}

fn now_us() -> i64 {
    Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()).0
}

/// A token that was not honoured is a defect, however fast the rest was.
fn verdict(freshness: &Freshness) -> Outcome {
    if freshness.misses == 0 { Outcome::Well } else { Outcome::NotAllWell }
}

async fn drive_all(
    args: &BenchArgs,
    addresses: &Addresses,
    plan: Arc<Plan>,
    workers: u32,
) -> Result<Measured, Failure> {
    let mut tasks = JoinSet::new();
    for connection in 0..args.connections {
        let opened = Connection::open(args.mode, addresses).await?;
        if args.mode == Mode::Rows {
            tasks.spawn(stream::work(Arc::clone(&plan), opened, connection, workers, args.window as usize));
            continue;
        }
        if args.open_loop {
            tasks.spawn(open::work(Arc::clone(&plan), opened, connection, workers, args.window as usize));
            continue;
        }
        for slot in 0..args.window {
            let worker = connection * args.window + slot;
            tasks.spawn(drive::work(Arc::clone(&plan), opened.clone(), worker, workers));
        }
    }
    let mut all = Measured::new(plan.begin);
    while let Some(measured) = tasks.join_next().await {
        all.add(&measured.map_err(|_panic| Failure::new("a worker broke off"))??);
    }
    Ok(all)
}

/// The table of this run: one of its own, unless one is named. With ids its key is the user, so that batches can be made for one partition each;
/// without, a batch goes where its identity says.
async fn create_table(http: &Http, addresses: &Addresses, args: &BenchArgs) -> Result<String, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Failure::new(format!("no randomness: {error}")))?;
    let new = || format!("events_{:016x}", u64::from_le_bytes(random));
    let table = args.table.clone().unwrap_or_else(new);
    let dimensions = [DIMENSIONS.as_slice(), &["probe"]].concat();
    let partition_by = args.ids.then_some("user_id");
    let body = json!({
        "namespace": NAMESPACE, "table": table, "partition_by": partition_by,
        "dimensions": dimensions, "metrics": METRICS,
    });
    let reply = http.post_json(&format!("{}/v1/tables", addresses.control()), body.to_string()).await?;
    match reply.status {
        StatusCode::CREATED => Ok(table),
        StatusCode::CONFLICT if args.table.is_some() => Ok(table),
        _ => Err(reply.refusal()),
    }
}

/// The pool of batches. Those of columns with ids hold rows of one partition each.
async fn templates(args: &BenchArgs, addresses: &Addresses, table: &str) -> Result<Vec<Template>, Failure> {
    let mut workload = Workload::new(SEED);
    let batch = args.batch as usize;
    let wanted = (POOL_EVENTS / batch).max(args.window as usize + 1);
    let template = |rows: &[Row]| Template::new(args.mode, table, rows, args.ids);
    if !(args.ids && args.mode == Mode::Columns) {
        return (0..wanted).map(|_| template(&(0..batch).map(|_| workload.row()).collect::<Vec<_>>())).collect();
    }
    let partition_of = partitioning(addresses, table).await?;
    let mut open: std::collections::HashMap<PartitionId, Vec<Row>> = std::collections::HashMap::new();
    let mut made = Vec::with_capacity(wanted);
    while made.len() < wanted {
        let row = workload.row();
        let rows = open.entry(partition_of(&row.dimensions[3])).or_default();
        rows.push(row);
        if rows.len() == batch {
            made.push(template(rows)?);
            rows.clear();
        }
    }
    Ok(made)
}

/// The function that chooses a user's partition in the table.
async fn partitioning(addresses: &Addresses, table: &str) -> Result<impl Fn(&str) -> PartitionId, Failure> {
    let url = addresses.gateway_grpc();
    let mut client = IngestClient::connect(url.clone())
        .await
        .map_err(|error| Failure::new(format!("no answer from {url}: {error}")))?;
    let authorization = addresses.key()?.map(|key| format!("Bearer {key}"));
    let request = DescribeTableRequest { namespace: NAMESPACE.to_owned(), table: table.to_owned(), create: false };
    let request = Connection::request(request, authorization.as_deref())?;
    let described = client
        .describe_table(request)
        .await
        .map_err(|status| Failure::new(format!("cannot learn the table's partitions: {}", status.message())))?
        .into_inner();
    let table = Table {
        key: TableKey {
            tenant: TenantId::DEFAULT,
            table: TableId(described.table_id),
            generation: Generation(described.generation),
        },
        name: TableName::new(NAMESPACE, table),
        partitions: described.partitions.into_iter().map(PartitionId).collect(),
        partition_by: described.partition_by,
        partition_seed: described.partition_seed,
        // Servers keep it to themselves, and a client has no use for it.
        identity_seed: 0,
        schema: Schema::default(),
        settings: TableSettings::default(),
    };
    Ok(move |user: &str| codec::partition_of(&table, codec::PartitionKey::Value(user)))
}

/// Processor time and memory of both sides so far.
async fn usage(http: &Http, addresses: &Addresses) -> Usage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let client_cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let text = http.get_text(&format!("{}/metrics", addresses.gateway())).await.unwrap_or_default();
    let samples = Samples::parse(&text);
    Usage {
        client_cpu,
        server_cpu: samples.sum("truenow_process_cpu_seconds", &[]),
        server_bytes: samples.sum("truenow_process_resident_bytes", &[]),
    }
}
