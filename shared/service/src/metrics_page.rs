//! The metrics of the process: one recorder, whatever the number of services, and the page that shows it.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use axum::{Router, response::IntoResponse as _, routing::get};
use http::header;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustix::time::{ClockId, clock_gettime};

/// Quantiles of every latency.
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
/// How often recorded latencies are folded into their sketches; between, they take memory one by one.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The type of the page, as Prometheus asks for it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The recorder of the process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    started: Instant,
}

impl Metrics {
    /// Installs the recorder at the first call; every call returns the same one. Metrics recorded before are lost.
    #[must_use]
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        INSTALLED.get_or_init(Self::build).clone()
    }

    fn build() -> Self {
        let builder = PrometheusBuilder::new().set_quantiles(&QUANTILES).expect("the quantiles lie between 0 and 1");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("no other recorder is ever installed in this process");
        describe();
        let upkeep = handle.clone();
        let run = move || loop {
            thread::sleep(UPKEEP_INTERVAL);
            upkeep.run_upkeep();
        };
        thread::Builder::new().name("metrics".into()).spawn(run).expect("the system can start a thread at the start");
        Self { handle, started: Instant::now() }
    }

    /// All metrics as Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        gauge!("truenow_process_cpu_seconds").set(cpu_seconds());
        gauge!("truenow_process_uptime_seconds").set(self.started.elapsed().as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            gauge!("truenow_process_resident_bytes").set(bytes as f64);
        }
        self.handle.render()
    }

    /// `GET /metrics`.
    pub(crate) fn routes(&self) -> Router {
        let metrics = self.clone();
        let page =
            move || std::future::ready(([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics.render()).into_response());
        Router::new().route("/metrics", get(page))
    }
}

/// Help texts of the metrics of this crate.
fn describe() {
    describe_counter!("truenow_http_requests_total", "Requests, by service, endpoint and status code.");
    describe_histogram!("truenow_request_seconds", Unit::Seconds, "Time from a request's headers to its answer.");
    describe_counter!("truenow_panics_total", "Requests that ended in a panic; each is a defect.");
    describe_gauge!("truenow_connections", "Open connections, by service and protocol.");
    describe_counter!("truenow_connections_refused_total", "Connections closed at once because of the limit.");
    describe_counter!("truenow_network_bytes_total", Unit::Bytes, "Bytes over client sockets, by direction.");
    describe_gauge!("truenow_process_cpu_seconds", Unit::Seconds, "Processor time that the process has used.");
    describe_gauge!("truenow_process_resident_bytes", Unit::Bytes, "Physical memory of the process.");
    describe_gauge!("truenow_process_uptime_seconds", Unit::Seconds, "Time since the process started.");
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Physical memory of this process, bytes, where the system tells.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the page shows the process's own figures, and installing twice gives the same recorder.
    #[test]
    fn the_page_shows_the_process() {
        metrics::counter!("truenow_page_test_total").increment(1);
        let _ = Metrics::install();
        metrics::counter!("truenow_page_test_total").increment(2);
        let page = Metrics::install().render();
        assert!(page.contains("truenow_page_test_total 2"), "{page}");
        let resident = page.lines().find_map(|line| line.strip_prefix("truenow_process_resident_bytes ")).unwrap();
        assert!(resident.parse::<f64>().unwrap() > 1e6);
        assert!(page.contains("\ntruenow_process_cpu_seconds 0.") || page.contains("\ntruenow_process_cpu_seconds "));
    }
}
