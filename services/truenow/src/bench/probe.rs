//! Measures how soon an acked event is in an answer: an event is sent, and when its ack is there a query with its token
//! is asked, which answers as soon as it covers the event.

use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use hyper::{Method, StatusCode};
use serde_json::json;
use types::Timestamp;

use super::{NAMESPACE, drive::micros, report::latencies};
use crate::{addresses::Addresses, failure::Failure, http::Http};

/// A probe is sent this often.
const EVERY: Duration = Duration::from_millis(100);

/// What the probes found.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// From the ack to the answer that counts the event, µs; the query's own time is in it.
    pub(crate) ack_to_answer_us: Histogram<u64>,
    /// Answers that should have counted the event and did not.
    pub(crate) misses: u64,
    /// Probes that were refused or not answered.
    pub(crate) failures: u64,
}

/// Probes a table until `end`.
pub(crate) async fn run(addresses: Addresses, table: String, end: Instant) -> Result<Freshness, Failure> {
    let http = Http::new(&addresses)?;
    let histogram = latencies();
    let mut found = Freshness { ack_to_answer_us: histogram, misses: 0, failures: 0 };
    let mut number = 0_u64;
    while Instant::now() + EVERY < end {
        tokio::time::sleep(EVERY).await;
        number += 1;
        match probe(&http, &addresses, &table, number).await {
            Ok((took, true)) => found.ack_to_answer_us.saturating_record(micros(took)),
            Ok((_, false)) => found.misses += 1,
            Err(_refused) => found.failures += 1,
        }
    }
    Ok(found)
}

/// One probe: from ack to answer, and whether the answer counts the event.
async fn probe(http: &Http, addresses: &Addresses, table: &str, number: u64) -> Result<(Duration, bool), Failure> {
    let now = Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()).0;
    let name = format!("probe_{number}");
    let event = json!({"namespace": NAMESPACE, "table": table, "event_time": now, "dimensions": {"probe": name}});
    let url = format!("{}/v1/events", addresses.gateway());
    let json_type = [("content-type", "application/json")];
    let reply = http.exchange(Method::POST, &url, &json_type, event.to_string().into()).await?;
    let acked = Instant::now();
    if reply.status != StatusCode::OK {
        return Err(reply.refusal());
    }
    let query = json!({
        "namespace": NAMESPACE, "table": table, "start_time": now, "end_time": now + 1,
        "filters": {"probe": name}, "aggregate": "count", "after": reply.json()["token"],
    });
    let reply = http.post_json(&format!("{}/v1/query", addresses.query_api()), query.to_string()).await?;
    let took = acked.elapsed();
    if reply.status != StatusCode::OK {
        return Err(reply.refusal());
    }
    Ok((took, reply.json()["rows"][0]["count"] == 1))
}
