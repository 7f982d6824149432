//! `truenow tail`: a line each second about what happens: rates, latencies, freshness, and a table's watermark.

use std::time::{Duration, Instant, SystemTime};

use hyper::{Method, StatusCode, body::Bytes};
use serde_json::{Value, json};
use types::Timestamp;

use crate::{
    args::TailArgs,
    failure::Failure,
    http::{Http, Reply},
    metrics_text::Samples,
    outcome::{Outcome, answer, runtime},
    table_text::thousands,
};

/// Lines come this often.
const EVERY: Duration = Duration::from_secs(1);
/// The head is repeated after so many lines.
const HEAD_EVERY: u64 = 20;
/// The query that measures the way of a question asks about this much time, µs.
const ASKED_US: i64 = 60_000_000;

/// Endpoints of which a request is one batch. Not `IngestStream`, which is recorded when the whole stream ends.
const INGEST_ENDPOINTS: [&str; 3] = [
    "endpoint=\"/v1/events\"",
    "endpoint=\"/truenow.v1.Ingest/IngestBatch\"",
    "endpoint=\"/truenow.v1.Ingest/IngestColumns\"",
];

/// Shows lines until Ctrl-C.
///
/// # Errors
/// A service does not answer.
pub(crate) fn run(args: &TailArgs) -> Result<Outcome, Failure> {
    runtime(1)?.block_on(async {
        tokio::select! {
            result = show(args) => result.map(|()| Outcome::Well),
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| Failure::new(format!("cannot wait for Ctrl-C: {error}")))?;
                Ok(Outcome::Well)
            }
        }
    })
}

async fn show(args: &TailArgs) -> Result<(), Failure> {
    let http = Http::new(&args.addresses)?;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.tick().await;
    let mut before = State::read(&http, args).await?;
    let mut lines = 0;
    while args.lines.is_none_or(|max| lines < max) {
        ticks.tick().await;
        let now = State::read(&http, args).await?;
        if lines % HEAD_EVERY == 0 {
            answer(&head(args))?;
        }
        let mut line = now.line(&before);
        if let (Some(namespace), Some(table)) = (&args.namespace, &args.table) {
            line.push_str(&table_part(&http, args, namespace, table).await?);
        }
        answer(&format!("{line}\n"))?;
        lines += 1;
        before = now;
    }
    Ok(())
}

/// What the services' metrics said at one moment.
#[derive(Debug, Clone, Copy)]
struct State {
    at: Instant,
    accepted: f64,
    rejected: f64,
    queries: f64,
    ingest_p99: Option<f64>,
    query_p99: Option<f64>,
    freshness: Option<f64>,
    lag: Option<f64>,
}

impl State {
    async fn read(http: &Http, args: &TailArgs) -> Result<Self, Failure> {
        // In one process the three are the same page; apart, each service knows its own.
        let gateway = http.get_text(&format!("{}/metrics", args.addresses.gateway())).await?;
        let query = http.get_text(&format!("{}/metrics", args.addresses.query_api())).await?;
        let watermark = http.get_text(&format!("{}/metrics", args.addresses.watermark())).await?;
        Ok(Self::of(&Samples::parse(&gateway), &Samples::parse(&query), &Samples::parse(&watermark), Instant::now()))
    }

    fn of(gateway: &Samples<'_>, query: &Samples<'_>, watermark: &Samples<'_>, at: Instant) -> Self {
        let events = |result| gateway.sum("truenow_ingest_events_total", &[result]).unwrap_or_default();
        let p99 = |samples: &Samples<'_>, service, endpoint| {
            samples.max("truenow_request_seconds", &[service, endpoint, "quantile=\"0.99\""])
        };
        Self {
            at,
            accepted: events("result=\"accepted\""),
            rejected: events("result=\"rejected\""),
            queries: query
                .sum("truenow_http_requests_total", &["service=\"query-api\"", "endpoint=\"/v1/query\""])
                .unwrap_or_default(),
            ingest_p99: INGEST_ENDPOINTS
                .iter()
                .filter_map(|endpoint| p99(gateway, "service=\"gateway\"", endpoint))
                .reduce(f64::max),
            query_p99: p99(query, "service=\"query-api\"", "endpoint=\"/v1/query\""),
            freshness: watermark.max("truenow_freshness_seconds", &[]),
            lag: watermark.sum("truenow_partition_lag_records", &[]),
        }
    }

    fn line(&self, before: &Self) -> String {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let rate = |now: f64, before: f64| thousands(((now - before).max(0.0) / seconds).round() as u64);
        let millis = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{:.2}", seconds * 1e3));
        format!(
            "{:>12} {:>10} {:>14} {:>10} {:>13} {:>13} {:>8}",
            rate(self.accepted, before.accepted),
            rate(self.rejected, before.rejected),
            millis(self.ingest_p99),
            rate(self.queries, before.queries),
            millis(self.query_p99),
            millis(self.freshness),
            self.lag.map_or("-".to_owned(), |lag| thousands(lag as u64)),
        )
    }
}

fn head(args: &TailArgs) -> String {
    let mut head = format!(
        "{:>12} {:>10} {:>14} {:>10} {:>13} {:>13} {:>8}",
        "events/s", "rejected/s", "ingest p99 ms", "queries/s", "query p99 ms", "freshness ms", "lag"
    );
    if args.table.is_some() {
        head.push_str(&format!(" {:>27} {:>14} {:>9}", "watermark", "last minute", "asked ms"));
    }
    head.push('\n');
    head
}

/// The table's watermark, and how many of its events lie in the last minute as the query API answers it; `-` for what
/// cannot be had now.
async fn table_part(http: &Http, args: &TailArgs, namespace: &str, table: &str) -> Result<String, Failure> {
    let url = format!("{}/v1/watermarks/{namespace}/{table}", args.addresses.watermark());
    let progress = probed(&http.exchange(Method::GET, &url, &[], Bytes::new()).await?)?;
    let watermark = progress["watermark_us"]
        .as_i64()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or("-".to_owned(), |time| time.to_string());
    let now = Timestamp::from_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()).0;
    let query = json!({"namespace": namespace, "table": table, "start_time": now - ASKED_US, "end_time": now});
    let began = Instant::now();
    let reply = http.post_json(&format!("{}/v1/query", args.addresses.query_api()), query.to_string()).await?;
    let asked = match probed(&reply)? {
        Value::Null => "-".to_owned(),
        _ => format!("{:.2}", began.elapsed().as_secs_f64() * 1e3),
    };
    Ok(format!(" {watermark:>27} {:>14} {asked:>9}", count(&reply.json())))
}

/// What a probe was answered; null where it was refused for a reason that may pass while the lines go on: the table does not
/// exist yet or its events left, the service recovers or has too much to do.
///
/// # Errors
/// It was refused for another reason.
fn probed(reply: &Reply) -> Result<Value, Failure> {
    let json = reply.json();
    match reply.status {
        StatusCode::OK => Ok(json),
        StatusCode::NOT_FOUND
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Ok(Value::Null),
        _ if json["error"]["code"] == "OUT_OF_RANGE" => Ok(Value::Null),
        _ => Err(reply.refusal()),
    }
}

fn count(answer: &Value) -> String {
    answer["rows"][0]["count"].as_u64().map_or("-".to_owned(), thousands)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: rates are differences over the time between, latencies and freshness the last word of the metrics; how long a
    /// stream was open is no latency.
    #[test]
    fn lines_show_rates() {
        let page = |accepted: u32| {
            format!(
                "truenow_ingest_events_total{{result=\"accepted\"}} {accepted}\n\
                 truenow_request_seconds{{service=\"gateway\",endpoint=\"/v1/events\",quantile=\"0.99\"}} 0.004\n\
                 truenow_request_seconds{{service=\"gateway\",endpoint=\"/v1/events\",quantile=\"0.5\"}} 9\n\
                 truenow_request_seconds{{service=\"gateway\",endpoint=\"/truenow.v1.Ingest/IngestStream\",quantile=\"0.99\"}} 7\n\
                 truenow_request_seconds{{service=\"gateway\",endpoint=\"/truenow.v1.Ingest/IngestColumns\",quantile=\"0.99\"}} 0.006\n\
                 truenow_freshness_seconds{{partition=\"0\"}} 0.001\n\
                 truenow_freshness_seconds{{partition=\"1\"}} 0.0025\n"
            )
        };
        let at = Instant::now();
        let state = |accepted, at| {
            let page = page(accepted);
            let samples = Samples::parse(&page);
            State::of(&samples, &samples, &samples, at)
        };
        let line = state(5_000, at + Duration::from_secs(2)).line(&state(1_000, at));
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells, ["2,000", "0", "6.00", "0", "-", "2.50", "-"]);
    }

    /// Goal: what may pass is no end of the lines, a mistake in the command is.
    #[test]
    fn refused_probes_are_passed_over() {
        let reply = |status, body: &'static str| Reply { status, retry_after: None, body: body.into() };
        let passes = |status| matches!(probed(&reply(status, "{}")), Ok(Value::Null));
        assert!(passes(StatusCode::SERVICE_UNAVAILABLE) && passes(StatusCode::NOT_FOUND));
        assert!(probed(&reply(StatusCode::BAD_REQUEST, r#"{"error":{"code":"OUT_OF_RANGE"}}"#)).is_ok());
        assert!(probed(&reply(StatusCode::UNAUTHORIZED, "{}")).is_err());
        assert!(probed(&reply(StatusCode::BAD_REQUEST, r#"{"error":{"code":"INVALID_ARGUMENT"}}"#)).is_err());
        assert_eq!(probed(&reply(StatusCode::OK, r#"{"watermark_us":1}"#)).unwrap()["watermark_us"], 1);
    }
}
