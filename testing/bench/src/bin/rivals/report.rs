//! The table of results.

use std::collections::BTreeMap;

use bench::line;
use serde_json::{Map, Value, json};

use crate::{measure::Timing, peers::Times};

/// A query's result.
pub(crate) struct Row {
    pub(crate) query: &'static str,
    pub(crate) peers: &'static [&'static str],
    pub(crate) timing: Timing,
    pub(crate) verdict: Result<(), String>,
}

/// Prints the results, in Markdown: milliseconds, CPU time in brackets.
pub(crate) fn table(rows: &[Row], peers: &Times) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line(&format!("load of the machine at the end: {}", load.trim()));
    let mut head = "| query | TrueNow, median | min | CPU | explained | answer, bytes |".to_owned();
    peers.keys().for_each(|engine| head += &format!(" {engine} |"));
    line(&format!("{head} times faster |"));
    line(&format!("|{}", "---|".repeat(7 + peers.len())));
    for row in rows {
        let Timing { median_ms, min_ms, cpu_ms, explained_ms, bytes } = row.timing;
        let mut text =
            format!("| {} | {median_ms:.2} | {min_ms:.2} | {cpu_ms:.2} | {explained_ms:.2} | {bytes} |", row.query);
        let mut fastest = f64::INFINITY;
        for times in peers.values() {
            match best(row, times) {
                Some((name, (ms, cpu))) => {
                    fastest = fastest.min(ms);
                    text += &format!(" {ms:.1} ({cpu:.0}) {name} |");
                }
                None => text += " - |",
            }
        }
        match fastest.is_finite() {
            true => line(&format!("{text} {:.1} |", fastest / median_ms)),
            false => line(&format!("{text} - |")),
        }
    }
    for row in rows {
        if let Err(why) = &row.verdict {
            line(&format!("WRONG: {}: {why}", row.query));
        }
    }
}

/// Name and times of what a peer answers a query with the fastest.
fn best<'t>(row: &Row, times: &'t BTreeMap<String, (f64, f64)>) -> Option<(&'t str, (f64, f64))> {
    let of = row.peers.iter().filter_map(|name| times.get_key_value(*name));
    of.map(|(name, time)| (name.as_str(), *time)).min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0))
}

/// The results as JSON, milliseconds.
pub(crate) fn json(workload_rows: usize, rows: &[Row], peers: &Times) -> Value {
    let of = |row: &Row| {
        let Timing { median_ms, min_ms, cpu_ms, explained_ms, bytes } = row.timing;
        let peers: Map<String, Value> =
            peers.iter().filter_map(|(engine, times)| Some((engine.clone(), best(row, times)?.1.0.into()))).collect();
        json!({"query": row.query, "median_ms": median_ms, "min_ms": min_ms, "cpu_ms": cpu_ms,
            "explained_ms": explained_ms, "answer_bytes": bytes, "peers": peers, "wrong": row.verdict.as_ref().err()})
    };
    json!({"rows": workload_rows, "queries": rows.iter().map(of).collect::<Vec<_>>()})
}
