//! The ten queries over the workload, beside other engines: what the program `rivals` measures.

use std::process::Command;

use bench::{
    Failure,
    report::{Chart, Goal, Kind, Part, Series, Table, short},
};
use serde_json::Value;

use crate::context::Context;

/// How often each is asked.
const RUNS: u64 = 15;
/// How many times faster than the fastest of the others, by query; a time in ms that is enough as well.
const WANTED: [(&str, f64, f64); 11] = [
    ("Q1", 10.0, 0.3),
    ("Q2", 3.5, 0.0),
    ("Q3", 3.0, 0.0),
    ("Q4", 3.0, 0.0),
    ("Q5", 5.0, 0.0),
    ("Q5 exact", 40.0, 0.0),
    ("Q6", 3.5, 0.0),
    ("Q7", 13.0, 0.0),
    ("Q8", 9.0, 0.0),
    ("Q9", 6.0, 0.0),
    ("Q10", 10.0, 0.3),
];
const MEAN_WANTED: f64 = 7.0;

/// A query as `rivals` reports it.
struct Row {
    name: String,
    median: f64,
    cpu: f64,
    /// Each engine and what it took, ms.
    peers: Vec<(String, f64)>,
}

impl Row {
    fn read(value: &Value) -> Self {
        let number = |name: &str| value[name].as_f64().unwrap_or(f64::NAN);
        let peers = value["peers"].as_object().into_iter().flatten();
        Self {
            name: value["query"].as_str().unwrap_or_default().to_owned(),
            median: number("median_ms"),
            cpu: number("cpu_ms"),
            peers: peers.filter_map(|(engine, ms)| Some((engine.clone(), ms.as_f64()?))).collect(),
        }
    }

    fn fastest(&self) -> Option<f64> {
        self.peers.iter().map(|(_, ms)| *ms).min_by(f64::total_cmp)
    }

    /// How many times faster than the fastest of the others.
    fn times(&self) -> Option<f64> {
        Some(self.fastest()? / self.median)
    }
}

/// The ten queries.
///
/// # Errors
/// The program fails, or an answer is wrong.
pub(crate) fn run(context: &Context) -> Result<Part, Failure> {
    let Some(data) = &context.data else {
        let why = "LEFT OUT: the workload is not at hand. `--data DIR` names its directory; `--peer` and `--python` the other engines.";
        return Ok(Part { title: "The ten queries".to_owned(), notes: vec![why.to_owned()], ..Part::default() });
    };
    let out = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?.with_file_name("rivals"));
    let runs = if context.quick { RUNS / 3 } else { RUNS };
    command.arg("--data").arg(data).arg("--json").arg(out.path()).args(["--runs", &runs.to_string()]);
    command.args(context.server.options()).arg("--python").arg(&context.python);
    if !context.peer.is_empty() {
        command.args(["--peer", &context.peer.join(",")]);
    }
    if let Some(runner) = &context.peers {
        command.arg("--peers").arg(runner);
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!("rivals ended with {status}; what stands above says why").into());
    }
    let found: Value = serde_json::from_slice(&std::fs::read(out.path())?)?;
    context.keep(&found)?;
    let rows: Vec<Row> = found["queries"].as_array().into_iter().flatten().map(Row::read).collect();
    Ok(part(&found, &rows))
}

fn part(found: &Value, rows: &[Row]) -> Part {
    let mut engines: Vec<String> = rows.iter().flat_map(|row| &row.peers).map(|(engine, _)| engine.clone()).collect();
    engines.sort_unstable();
    engines.dedup();
    let mut columns = vec!["query", "TrueNow, ms", "its CPU time, ms"];
    columns.extend(engines.iter().map(String::as_str));
    columns.push("times faster than the fastest");
    let mut table = Table::new("Medians over HTTP, other engines in process:", &columns);
    let mut series = vec![Series { name: "TrueNow over HTTP".to_owned(), points: Vec::new() }];
    series.extend(engines.iter().map(|engine| Series { name: engine.clone(), points: Vec::new() }));
    for (at, row) in rows.iter().enumerate() {
        let mut cells = vec![row.name.clone(), short(row.median), short(row.cpu)];
        series[0].points.push((at as f64, row.median));
        for (nth, engine) in engines.iter().enumerate() {
            let ms = row.peers.iter().find(|(name, _)| name == engine).map(|(_, ms)| *ms);
            cells.push(ms.map_or_else(|| "-".to_owned(), short));
            series[nth + 1].points.extend(ms.map(|ms| (at as f64, ms)));
        }
        cells.push(row.times().map_or_else(|| "-".to_owned(), short));
        table.rows.push(cells);
    }
    let chart = Chart {
        name: "queries".to_owned(),
        title: "The ten queries over 20M rows".to_owned(),
        kind: Kind::BarsLogY,
        x: String::new(),
        y: "ms".to_owned(),
        labels: rows.iter().map(|row| row.name.clone()).collect(),
        series,
    };
    let mut notes = Vec::new();
    if engines.is_empty() {
        notes.push("LEFT OUT: no other engine was at hand (`--peer`, `--python`).".to_owned());
    }
    Part {
        title: "The ten queries".to_owned(),
        method: format!(
            "{} rows are resident; one connection asks one query after the other over HTTP, without rollups and without any \
             result kept. Answers are held against exact ones before they count. Other engines run in process in the same run, in \
             their favour: no wire, no server.",
            found["rows"]
        ),
        goals: goals(rows),
        tables: vec![table],
        charts: vec![chart],
        notes,
        ..Part::default()
    }
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut logs = Vec::new();
    for (name, wanted, enough_ms) in WANTED {
        let Some((row, times)) = rows.iter().find(|row| row.name == name).and_then(|row| Some((row, row.times()?)))
        else {
            continue;
        };
        // Of both forms of a question the mean has the exact one, where there is one.
        if name != "Q5" || rows.iter().all(|row| row.name != "Q5 exact") {
            logs.push(times.ln());
        }
        let or = if enough_ms > 0.0 { format!(" or under {enough_ms} ms") } else { String::new() };
        goals.push(Goal {
            what: format!("{name}, times faster than the fastest other engine"),
            wanted: format!("{}{or}", short(wanted)),
            found: format!("{} ({} ms)", short(times), short(row.median)),
            met: times >= wanted || row.median < enough_ms,
        });
    }
    if !logs.is_empty() {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        goals.push(Goal {
            what: "the geometric mean of these".to_owned(),
            wanted: short(MEAN_WANTED),
            found: short(mean),
            met: mean >= MEAN_WANTED,
        });
    }
    goals
}
