//! Every figure of docs/performance.md, and the page itself.
//!
//! 1. Each part can be run alone: it prints its table and leaves its report in the directory of results, with the raw output of
//!    what it ran beside it. `page` makes the page and its graphs of the reports that lie there, whenever they were made.
//! 2. Server and generator share the machine; a server is started anew for each point, with no result of one left for the next.
//! 3. Where a part has what it needs not at hand (the workload, other engines), it says so in its report, and so does the page.

mod clients;
mod context;
mod cores;
mod empty_call;
mod fill;
mod ingest;
mod latency;
mod machine;
mod meanwhile;
mod memory;
mod page;
mod queries;
mod questions;
mod rebuild;
mod stages;
mod unary;
mod ways;

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use bench::{Failure, ServerArgs, line, report::Part};
use clap::{Parser, ValueEnum};
use context::Context;

/// Measures, and makes docs/performance.md of what was measured.
#[derive(Debug, Parser)]
#[command(name = "performance", max_term_width = 110)]
struct Cli {
    /// What to do, in this order.
    #[arg(value_name = "PART", required = true, value_enum)]
    parts: Vec<Todo>,
    /// Shorter runs over fewer rows: for a look, not for figures.
    #[arg(long)]
    quick: bool,
    /// Directory of results.
    #[arg(long, value_name = "DIR", default_value = "target/performance")]
    out: PathBuf,
    /// Where the page and its graphs go.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    docs: PathBuf,
    /// The workload of `queries`: a directory with raw/*.bin and hot.parquet [default: that part is left out].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Engines to run beside, for `queries`: duckdb, duckdb-enum, chdb-memory, chdb-mergetree, polars, datafusion.
    #[arg(long, value_name = "ENGINE", value_delimiter = ',')]
    peer: Vec<String>,
    /// Their runner [default: where `rivals` looks for it].
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// A Python that has them.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

/// A part, all of them, or the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Todo {
    /// All parts, then the page.
    All,
    /// The ways in: columns, rows, NDJSON, single events.
    Ways,
    /// Throughput by events per batch.
    Batches,
    /// Throughput by partitions.
    Partitions,
    /// Ack and freshness by load.
    Latency,
    /// What each stage costs alone.
    Stages,
    /// The ten queries, beside other engines where they are at hand.
    Queries,
    /// Queries while events come.
    Meanwhile,
    /// A thousand clients.
    Clients,
    /// All state from the log alone.
    Rebuild,
    /// Bytes of an event, and whether they are accounted for.
    Memory,
    /// From one core to all.
    Cores,
    /// docs/performance.md.
    Page,
}

impl Todo {
    const PARTS: [Self; 11] = [
        Self::Ways,
        Self::Batches,
        Self::Partitions,
        Self::Latency,
        Self::Stages,
        Self::Queries,
        Self::Meanwhile,
        Self::Clients,
        Self::Rebuild,
        Self::Memory,
        Self::Cores,
    ];

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a loop of events");
    match runtime.block_on(run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            line(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    fs::create_dir_all(cli.out.join("raw"))?;
    let mut failed = Vec::new();
    for &todo in &cli.parts {
        let parts = if todo == Todo::All { &Todo::PARTS[..] } else { std::slice::from_ref(&todo) };
        for &part in parts.iter().filter(|part| **part != Todo::Page) {
            line(&format!("{} …", part.name()));
            // One part that fails keeps no other from its figures.
            if let Err(error) = measure(cli, part).await {
                line(&format!("{} failed: {error}", part.name()));
                failed.push(part.name());
            }
        }
        if matches!(todo, Todo::All | Todo::Page) {
            page::write(cli, &Todo::PARTS.map(Todo::name))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("these parts: {}", failed.join(", ")).into()) }
}

async fn measure(cli: &Cli, todo: Todo) -> Result<(), Failure> {
    let context = Context::new(cli, &todo.name())?;
    let (others, before, began) = (machine::taken(), machine::load(), Instant::now());
    let part = match todo {
        Todo::Ways => ways::run(&context).await?,
        Todo::Batches => ingest::batches(&context).await?,
        Todo::Partitions => ingest::partitions(&context).await?,
        Todo::Latency => latency::run(&context).await?,
        Todo::Stages => stages::run(&context)?,
        Todo::Queries => queries::run(&context)?,
        Todo::Meanwhile => meanwhile::run(&context).await?,
        Todo::Clients => clients::run(&context).await?,
        Todo::Rebuild => rebuild::run(&context).await?,
        Todo::Memory => memory::run(&context).await?,
        Todo::Cores => cores::run(&context).await?,
        Todo::All | Todo::Page => return Ok(()),
    };
    let part = Part {
        name: todo.name(),
        load: [before, machine::load()],
        others,
        seconds: began.elapsed().as_secs_f64(),
        quick: cli.quick,
        ..part
    };
    line(&part.text());
    let file = cli.out.join(format!("{}.json", part.name));
    Ok(fs::write(file, serde_json::to_vec_pretty(&part)?)?)
}
