//! The table of results.

use bench::line;

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
            let of = row.peers.iter().filter_map(|name| times.get(*name).map(|time| (*name, *time)));
            match of.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0)) {
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
