//! What each stage costs alone: the benchmarks of this package, run by cargo, and what criterion leaves of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bench::{
    Failure,
    report::{Part, Table, short},
};
use serde_json::Value;

use crate::context::Context;

/// Benchmarks whose unit is an event.
const BENCHES: [&str; 3] = ["codec", "event_log", "engine"];

/// The stages.
///
/// # Errors
/// Cargo fails, or leaves no estimates.
pub(crate) fn run(context: &Context) -> Result<Part, Failure> {
    let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let estimates = target.join("criterion");
    let mut table = Table::new("", &["stage", "ns/event", "million events/s"]);
    for bench in BENCHES {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["bench", "-q", "-p", "bench", "--bench", bench, "--", "--noplot"]);
        if context.quick {
            cargo.args(["--warm-up-time", "0.2", "--measurement-time", "0.5", "--sample-size", "10"]);
        }
        // Estimates of benchmarks that are no longer there would be shown as of now.
        let group = estimates.join(bench);
        if group.exists() {
            fs::remove_dir_all(&group)?;
        }
        let status = cargo.stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("cargo bench --bench {bench} ended with {status}").into());
        }
        let mut stages = read(&group)?;
        stages.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, ns) in stages {
            context.keep(&serde_json::json!({"stage": name, "ns_per_event": ns}))?;
            table.rows.push(vec![name, short(ns), short(1e3 / ns)]);
        }
    }
    Ok(Part {
        title: "What each stage costs alone".to_owned(),
        method: "Benchmarks of the stages by criterion on one thread (`cargo bench -p bench`), medians, per event of five dimensions \
                 and three metrics. `codec`: bytes to events, and to a finished block with all limits checked. `event_log`: append \
                 to a synced log by batches. `engine`: a block into the hot tier. The judge of ids has a report of its own \
                 (`cargo bench -p bench --bench dedup`)."
            .to_owned(),
        tables: vec![table],
        ..Part::default()
    })
}

/// Name and median per event of every benchmark below a directory whose unit is an element.
fn read(dir: &Path) -> Result<Vec<(String, f64)>, Failure> {
    let mut stages = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "new") {
            let json = |name: &str| Ok::<Value, Failure>(serde_json::from_slice(&fs::read(path.join(name))?)?);
            let (benchmark, estimates) = (json("benchmark.json")?, json("estimates.json")?);
            let elements = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
            let ns = estimates["median"]["point_estimate"].as_f64().ok_or("an estimate without its median")?;
            stages.push((benchmark["full_id"].as_str().unwrap_or_default().to_owned(), ns / elements));
        } else {
            stages.extend(read(&path)?);
        }
    }
    Ok(stages)
}
