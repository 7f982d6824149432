//! Asking a query again and again over one connection.

use std::time::{Duration, Instant};

use bench::{Connection, Failure, Server};
use bytes::Bytes;
use serde_json::Value;

use crate::queries::Query;

/// Asked so often before anything is timed.
const WARM_UP: usize = 2;

/// What a query took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Median of the wall times, ms.
    pub(crate) median_ms: f64,
    /// The least of them, ms.
    pub(crate) min_ms: f64,
    /// Mean CPU time of the server, ms.
    pub(crate) cpu_ms: f64,
    /// CPU time as the server explains it, ms.
    pub(crate) explained_ms: f64,
    /// Bytes of the answer.
    pub(crate) bytes: usize,
}

/// Asks a query `runs` times.
///
/// # Errors
/// The server refuses it.
pub(crate) async fn measure(server: &Server, query: &Query, runs: usize) -> Result<(Value, Timing), Failure> {
    let mut connection = Connection::open(&server.address(8081)).await?;
    let mut answer = Bytes::new();
    for _ in 0..WARM_UP {
        answer = connection.post("/v1/query", &query.question).await?;
    }
    let before = server.cpu()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        answer = connection.post("/v1/query", &query.question).await?;
        times.push(began.elapsed());
    }
    let cpu = server.cpu()?.saturating_sub(before);
    let explained: Value = serde_json::from_slice(&connection.post("/v1/explain", &query.question).await?)?;
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let timing = Timing {
        median_ms: ms(times[times.len() / 2]),
        min_ms: ms(times[0]),
        cpu_ms: ms(cpu) / times.len() as f64,
        explained_ms: explained["cost"]["cpu_ms"].as_f64().ok_or("a plan without its cost")?,
        bytes: answer.len(),
    };
    Ok((serde_json::from_slice(&answer)?, timing))
}
