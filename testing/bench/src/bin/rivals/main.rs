//! The ten queries over resident rows, side by side: TrueNow over HTTP, and engines in process on the same machine in the
//! same run. Answers are held against the exact ones before anything is timed.
//!
//! 1. The workload is a directory `raw/` of column files (`ts`, `region`, …: little endian, no header) and the same rows as
//!    `hot.parquet`, which the peers read. A generator of it and the peers' runner live beside the repository.
//! 2. Rows go the way of any client: columns over gRPC, acked as synced, deduplicated. Then the server is left to come to rest.
//! 3. One connection asks one query after the other, without a result cache, and without rollups unless some are
//!    declared. Wall time is that of the client, its reading of the whole answer included; CPU time is that of all threads of
//!    the server, beside what `POST /v1/explain` says that it takes.

mod compare;
mod load;
mod measure;
mod oracle;
mod peers;
mod queries;
mod report;

use std::{path::PathBuf, process::ExitCode};

use bench::{Failure, Server, ServerArgs};
use clap::Parser;
use serde_json::Value;

/// The ten queries over resident rows, beside other engines.
#[derive(Debug, Parser)]
#[command(name = "rivals", max_term_width = 110)]
struct Cli {
    /// The workload: a directory with raw/*.bin and hot.parquet.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Rows of it to load; the peers and the exact answers take all, so fewer are for a look at TrueNow alone.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, conflicts_with = "peer", hide_default_value = true)]
    rows: usize,
    /// Dimension by which the table is partitioned [default: none].
    #[arg(long, value_name = "COLUMN")]
    partition_by: Option<String>,
    /// Rollups of the table, as the control plane takes them.
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = json)]
    rollups: Value,
    /// How often each query is asked.
    #[arg(long, value_name = "N", default_value_t = 15)]
    runs: usize,
    /// Queries to ask, by the beginning of their names [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Peers to run: duckdb, duckdb-enum, chdb-memory, chdb-mergetree, polars, datafusion [default: none].
    #[arg(long, value_name = "ENGINE", value_delimiter = ',')]
    peer: Vec<String>,
    /// The peers' runner.
    #[arg(long, value_name = "FILE", default_value = "../shared/bench/peers/run_peers.py")]
    peers: PathBuf,
    /// A Python that has the peers.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Where the results go as JSON as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a loop of events");
    match runtime.block_on(run(&cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            bench::line(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// `false`: an answer was wrong.
async fn run(cli: &Cli) -> Result<bool, Failure> {
    let workload = load::Workload::read(&cli.data, cli.rows)?;
    let wanted = |name: &str| cli.only.is_empty() || cli.only.iter().any(|only| name.starts_with(only.as_str()));
    let queries: Vec<_> = queries::all().into_iter().filter(|query| wanted(query.name)).collect();
    let mut server = Server::start(&cli.server)?;
    server.healthy().await?;
    load::load(&server, &workload, cli.partition_by.as_deref(), &cli.rollups).await?;
    server.at_rest().await?;
    bench::line(&format!("{} rows, {:.2} GiB resident", workload.rows(), server.resident_gib()?));
    let mut right = true;
    let mut rows = Vec::new();
    for query in &queries {
        let (answer, timing) = measure::measure(&server, query, cli.runs).await?;
        let verdict = compare::compare(&answer, &(query.exact)(&workload));
        right &= verdict.is_ok();
        rows.push(report::Row { query: query.name, peers: query.peers, timing, verdict });
    }
    server.stop().await?;
    let peers = peers::run(cli, &queries)?;
    report::table(&rows, &peers);
    if let Some(file) = &cli.json {
        std::fs::write(file, report::json(workload.rows(), &rows, &peers).to_string())?;
    }
    Ok(right)
}
