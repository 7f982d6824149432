//! Sends a batch of NDJSON lines, again and again where that can help.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::Value;

use super::own_form::LineBatch;
use crate::{
    failure::Failure,
    http::{Http, Reply},
};

/// A batch is tried for so long.
const TRY_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What came of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Events appended.
    pub(crate) accepted: u64,
    /// Line and reason of each event that was not.
    pub(crate) rejected: Vec<(u64, String)>,
    /// What the ack stands for.
    pub(crate) durability: String,
    /// What a query presents to see these events.
    pub(crate) token: Option<String>,
}

/// Where batches of lines go.
#[derive(Debug, Clone)]
pub(crate) struct LineSender {
    /// The client.
    pub(crate) http: Http,
    /// `…/v1/events`.
    pub(crate) url: String,
    /// The source's identity.
    pub(crate) producer: String,
}

impl LineSender {
    /// Sends the batch of number `sequence`. Safe to repeat, because its `Idempotency-Key` stays the same.
    ///
    /// # Errors
    /// The server refuses the batch, or nobody takes it for a minute.
    pub(crate) async fn send(&self, sequence: u64, batch: LineBatch) -> Result<Sent, Failure> {
        let LineBatch { body, lines, rejected } = batch;
        if lines.is_empty() {
            return Ok(Sent { rejected, ..Sent::default() });
        }
        let body = Bytes::from(body);
        let key = format!("{}-{sequence}", self.producer);
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key.as_str())];
        let (began, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let result = self.http.exchange(Method::POST, &self.url, &headers, body.clone()).await;
            let wait = match result {
                Ok(reply) if !may_pass(reply.status) => {
                    let mut sent = taken(&reply, &lines)?;
                    sent.rejected.extend(rejected);
                    return Ok(sent);
                }
                Ok(reply) if began.elapsed() > TRY_MAX => return Err(reply.refusal()),
                Err(failure) if began.elapsed() > TRY_MAX => return Err(failure),
                Ok(reply) => reply.retry_after.unwrap_or(pause),
                Err(_no_answer) => pause,
            };
            tokio::time::sleep(wait.min(PAUSE_MAX)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether the same request may be taken later.
fn may_pass(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// What a reply says of the lines of a batch.
fn taken(reply: &Reply, lines: &[u64]) -> Result<Sent, Failure> {
    let json = reply.json();
    let Some(accepted) = json["accepted"].as_u64() else {
        // One error for a whole body of which not a line can be read is the fault of each of its lines.
        if reply.status == StatusCode::BAD_REQUEST {
            let why = reply.refusal().to_string().replace('\n', ", ");
            let rejected = lines.iter().map(|&line| (line, why.clone())).collect();
            return Ok(Sent { rejected, ..Sent::default() });
        }
        return Err(reply.refusal());
    };
    let rejects = json["rejected"].as_array().map_or(&[][..], Vec::as_slice);
    let rejected = rejects.iter().map(|reject| (line_of(reject, lines), why_of(reject))).collect();
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    Ok(Sent { accepted, rejected, durability: text("durability").unwrap_or_default(), token: text("token") })
}

fn line_of(reject: &Value, lines: &[u64]) -> u64 {
    let index = reject["index"].as_u64().and_then(|index| usize::try_from(index).ok());
    index.and_then(|index| lines.get(index)).copied().unwrap_or_default()
}

fn why_of(reject: &Value) -> String {
    format!("{}: {}", reject["code"].as_str().unwrap_or("?"), reject["message"].as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: StatusCode, body: &'static str) -> Reply {
        Reply { status, retry_after: None, body: Bytes::from_static(body.as_bytes()) }
    }

    /// Goal: an index of the server's becomes the line of the file, also where nothing was accepted.
    #[test]
    fn replies_name_lines() {
        let body = r#"{"accepted":0,"rejected":[{"index":1,"code":"INVALID_ARGUMENT","message":"m"}],"error":{}}"#;
        let sent = taken(&reply(StatusCode::BAD_REQUEST, body), &[4, 9]).unwrap();
        assert_eq!(sent.rejected, [(9, "INVALID_ARGUMENT: m".to_owned())]);
        let whole = r#"{"error":{"code":"INVALID_ARGUMENT","message":"no line is JSON"}}"#;
        let sent = taken(&reply(StatusCode::BAD_REQUEST, whole), &[4, 9]).unwrap();
        assert_eq!(sent.rejected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 9]);
        assert!(taken(&reply(StatusCode::UNAUTHORIZED, whole), &[4]).is_err());
    }
}
