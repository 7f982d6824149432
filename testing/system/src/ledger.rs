//! What the server says of the events of a table.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::Value;

use crate::{Failure, http::Http, server::Site};

const PAUSE: Duration = Duration::from_millis(20);

/// The terms of a ledger that proofs here look at, in events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ledger {
    pub(crate) acked: u64,
    pub(crate) live: u64,
    pub(crate) evicted: u64,
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
}

/// The ledger of a table once nothing is in flight, and how long that took.
///
/// # Errors
/// It is not answered, does not balance, or events are still in flight after `at_most`.
pub(crate) async fn at_rest(
    site: &Site,
    http: &Http,
    table: &str,
    at_most: Duration,
) -> Result<(Ledger, Duration), Failure> {
    let url = format!("{}/v1/ledger/{table}", site.url(8084));
    let began = Instant::now();
    loop {
        let reply = http.get(&url).await.ok_or("the ledger is not answered")?;
        if reply.status != StatusCode::OK {
            return Err(format!("the ledger of {table}: {}", reply.text()).into());
        }
        let ledger = reply.json();
        if ledger["balanced"] != Value::Bool(true) {
            return Err(format!("the ledger of {table} does not balance: {ledger}").into());
        }
        let term = |name: &str| ledger[name].as_u64().ok_or_else(|| format!("the ledger has no {name}: {ledger}"));
        if term("in_flight")? == 0 {
            let read = Ledger {
                acked: term("acked")?,
                live: term("live")?,
                evicted: term("evicted")?,
                duplicate: term("duplicate")?,
                conflict: term("conflict")?,
            };
            return Ok((read, began.elapsed()));
        }
        if began.elapsed() > at_most {
            return Err(format!("events of {table} are in flight after {at_most:?}: {ledger}").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
