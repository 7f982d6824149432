//! What a run measured, for people and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{drive::Measured, probe::Freshness};
use crate::{args::BenchArgs, table_text::thousands};

/// Processor time and memory of the two sides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time of this process, s.
    pub(crate) client_cpu: f64,
    /// Processor time of the server, s; `None` where it does not say.
    pub(crate) server_cpu: Option<f64>,
    /// Memory of the server at the end, bytes.
    pub(crate) server_bytes: Option<f64>,
}

/// The figures of a run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// How it was asked for.
    pub(crate) args: &'a BenchArgs,
    /// The table that it sent to.
    pub(crate) table: &'a str,
    /// The number behind that of the last batch.
    pub(crate) batches: u64,
    /// What all workers measured together.
    pub(crate) measured: &'a Measured,
    /// When the first batch could go, µs since 1970.
    pub(crate) began_us: i64,
    /// From the begin to the last ack.
    pub(crate) took: Duration,
    /// What the probes found.
    pub(crate) freshness: &'a Freshness,
    /// What it cost.
    pub(crate) usage: Usage,
}

impl Report<'_> {
    /// The report as JSON.
    pub(crate) fn json(&self) -> Value {
        let (args, seconds) = (self.args, self.seconds());
        json!({
            "machine": machine(),
            "mode": args.mode.name(), "connections": args.connections, "window": args.window, "batch": args.batch,
            "ids": args.ids, "duplicates": args.duplicates, "rate": args.rate, "open_loop": args.open_loop,
            "table": self.table, "batches": self.batches, "began_us": self.began_us, "seconds": seconds,
            "events": self.measured.events, "events_per_s": self.measured.events as f64 / seconds,
            "bytes_per_s": self.measured.bytes as f64 / seconds, "refusals": self.measured.refusals, "unsent": self.measured.unsent,
            "ack_us": quantiles(&self.measured.latency_us),
            "latency": if args.rate.is_some() { "from the due time" } else { "closed loop" },
            "ack_to_answer_us": quantiles(&self.freshness.ack_to_answer_us),
            "probe_misses": self.freshness.misses, "probe_failures": self.freshness.failures,
            "client_cpu_s": self.usage.client_cpu, "server_cpu_s": self.usage.server_cpu,
            "server_ns_per_event": self.usage.server_cpu.map(|cpu| cpu * 1e9 / self.measured.events.max(1) as f64),
            "server_resident_bytes": self.usage.server_bytes,
        })
    }

    /// The report as lines.
    pub(crate) fn text(&self) -> String {
        let (args, seconds, events) = (self.args, self.seconds(), self.measured.events);
        let per_event =
            |cpu: f64| format!("{:.0} ns/event, {:.2} cores", cpu * 1e9 / events.max(1) as f64, cpu / seconds);
        let pace =
            args.rate.map_or("as fast as acks come".to_owned(), |rate| format!("{} events/s offered", thousands(rate)));
        let mut lines = vec![
            format!("machine    {}", machine()),
            format!(
                "workload   {}, {} connections, {} batches of {} under way on each, {pace}{}",
                args.mode.name(),
                args.connections,
                args.window,
                args.batch,
                if args.ids { ", with ids" } else { "" },
            ),
            format!(
                "rate       {} events/s, {:.1} MB/s: {} events in {seconds:.2} s, {} sendings refused for now{}",
                thousands((events as f64 / seconds) as u64),
                self.measured.bytes as f64 / seconds / 1e6,
                thousands(events),
                thousands(self.measured.refusals),
                if args.open_loop {
                    format!(", {} batches unsent", thousands(self.measured.unsent))
                } else {
                    String::new()
                },
            ),
            format!(
                "ack        {} ({})",
                spread(&self.measured.latency_us),
                if args.rate.is_some() { "from the time it was due" } else { "closed loop: service time" },
            ),
            format!(
                "freshness  {} from ack to the answer that counts it; {} probes, {} missed, {} not answered",
                spread(&self.freshness.ack_to_answer_us),
                thousands(self.freshness.ack_to_answer_us.len()),
                self.freshness.misses,
                self.freshness.failures,
            ),
            format!("client     {}", per_event(self.usage.client_cpu)),
        ];
        if let Some(cpu) = self.usage.server_cpu {
            let memory =
                self.usage.server_bytes.map_or(String::new(), |bytes| format!(", {:.2} GB resident", bytes / 1e9));
            lines.push(format!("server     {}{memory}", per_event(cpu)));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn seconds(&self) -> f64 {
        self.took.as_secs_f64().max(1e-6)
    }
}

/// Latencies from 1 µs to an hour, to three digits. What saturates must do so there, not at a size that grows.
pub(crate) fn latencies() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 3).expect("the bounds and digits are allowed")
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let at = |q| histogram.value_at_quantile(q);
    json!({"count": histogram.len(), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": histogram.max()})
}

fn spread(histogram: &Histogram<u64>) -> String {
    let millis = |micros: u64| format!("{:.2} ms", micros as f64 / 1e3);
    let at = |q| millis(histogram.value_at_quantile(q));
    format!("p50 {}, p95 {}, p99 {}, max {}", at(0.5), at(0.95), at(0.99), millis(histogram.max()))
}

/// Processor and memory, as far as the system tells.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let value = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = value("/proc/meminfo", "MemTotal")
        .and_then(|total| total.trim_end_matches(" kB").parse::<f64>().ok())
        .map_or(String::new(), |kilobytes| format!(", {:.0} GB", kilobytes / 1e6));
    format!("{cores} cores of {model}{memory}, {}", std::env::consts::OS)
}
