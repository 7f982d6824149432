//! `--wait`: an ack means durable; this waits until queries see the events too.

use std::time::Instant;

use hyper::StatusCode;
use serde_json::json;

use super::table_of;
use crate::{args::IngestArgs, failure::Failure, http::Http, outcome::note};

/// The longest wait that a query allows, ms.
const WAIT_MS: u64 = types::limits::QUERY_TIMEOUT_MS_MAX;

/// Asks a query that answers when it covers the tokens; what it finds does not matter.
///
/// # Errors
/// It is not covered in time, or the query API is away.
pub(crate) async fn wait(args: &IngestArgs, tokens: &[String]) -> Result<(), Failure> {
    if tokens.is_empty() {
        return Ok(());
    }
    let (namespace, table) = table_of(args)?;
    let query = json!({
        "namespace": namespace, "table": table, "start_time": 0, "end_time": 1,
        "after": tokens, "timeout_ms": WAIT_MS, "allow_partial": true,
    });
    let began = Instant::now();
    let url = format!("{}/v1/query", args.addresses.query_api());
    let reply = Http::new(&args.addresses)?.post_json(&url, query.to_string()).await?;
    if reply.status != StatusCode::OK {
        return Err(reply.refusal());
    }
    note(&format!("queries see all of it {:.1} ms after the last ack", began.elapsed().as_secs_f64() * 1e3));
    Ok(())
}
