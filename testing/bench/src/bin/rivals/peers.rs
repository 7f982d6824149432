//! Other engines, run one after the other by their runner, each in a process of its own.

use std::{collections::BTreeMap, process::Command};

use bench::Failure;
use serde_json::Value;

use crate::{Cli, queries::Query};

/// Threads of a peer: as many as the machine has cores.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the peers took: by engine and query, the median wall time and the CPU time, ms.
pub(crate) type Times = BTreeMap<String, BTreeMap<String, (f64, f64)>>;

/// Runs the peers of the command line over the queries.
///
/// # Errors
/// A runner fails.
pub(crate) fn run(cli: &Cli, queries: &[Query]) -> Result<Times, Failure> {
    let names: Vec<&str> = queries.iter().flat_map(|query| query.peers).copied().collect();
    let mut times = Times::new();
    for engine in &cli.peer {
        bench::line(&format!("{engine} …"));
        let out = tempfile::NamedTempFile::new()?;
        let scratch = tempfile::tempdir()?;
        let status = Command::new(&cli.python)
            .arg(&cli.peers)
            .args([engine, &threads().to_string()])
            .arg(cli.data.join("hot.parquet"))
            .args(["--runs", &cli.runs.to_string(), "--only", &names.join(","), "--json"])
            .arg(out.path())
            .env("CHDB_DIR", scratch.path())
            .stdout(std::process::Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("{engine} ended with {status}").into());
        }
        let found: Value = serde_json::from_slice(&std::fs::read(out.path())?)?;
        let number = |kind: &str, name: &str| found[kind][name].as_f64();
        let of = |name: &&&str| Some(((**name).to_owned(), (number("ms", name)?, number("cpu_ms", name)?)));
        times.insert(engine.clone(), names.iter().filter_map(|name| of(&name)).collect());
    }
    Ok(times)
}
