//! A table of rows that are there before anything is asked.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use bench::{
    Connection, Failure, Server,
    workload::{Random, Workload},
};
use serde_json::{Value, json};
use truenow_client::{Client, Options, Row};

/// Namespace and table of the rows; the load generator adds to them.
pub(crate) const NAMESPACE: &str = "bench";
/// See [`NAMESPACE`].
pub(crate) const TABLE: &str = "hot";
/// The rows lie evenly in so much time before now.
pub(crate) const SPAN_US: i64 = 600 * SECOND_US;
/// A second, µs.
pub(crate) const SECOND_US: i64 = 1_000_000;

const BATCH_ROWS: usize = 10_000;
const DIMENSIONS: [&str; 5] = ["region", "event_type", "product", "user_id", "tenant"];
const METRICS: [&str; 3] = ["revenue", "latency_ms", "quantity"];
/// The time, µs.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The table as the control plane takes it; `more` are further fields.
pub(crate) fn table(more: &Value) -> Value {
    let mut table = json!({
        "namespace": NAMESPACE, "table": TABLE,
        "dimensions": ["region", "event_type", "product", "user_id", "tenant", "probe"],
        "metrics": ["revenue", "latency_ms", "quantity"],
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        table[name] = value.clone();
    }
    table
}

/// Declares the table.
///
/// # Errors
/// The server refuses it.
pub(crate) async fn declare(server: &Server, more: &Value) -> Result<(), Failure> {
    Connection::open(&server.address(8001)).await?.post("/v1/tables", &table(more)).await?;
    Ok(())
}

/// Declares the table and sends so many rows of the time before now; returns when they begin, once all are counted.
///
/// # Errors
/// The server refuses the table or a row, or is not done in time.
pub(crate) async fn fill(server: &Server, rows: u64) -> Result<i64, Failure> {
    declare(server, &Value::Null).await?;
    let client = Client::connect(&format!("http://{}", server.address(9088)), None).await?;
    let options = Options { batch_rows_max: BATCH_ROWS, ..Options::new("fill") };
    let mut writer = client.columns(NAMESPACE, TABLE, options).await?;
    let (begin, workload, mut random) = (now() - SPAN_US, Workload::default(), Random(42));
    let mut texts: [String; 5] = Default::default();
    for number in 0..rows {
        let time = begin + (u128::from(number) * SPAN_US.unsigned_abs() as u128 / u128::from(rows)) as i64;
        let drawn = workload.draw(&mut random);
        for (text, (name, value)) in texts.iter_mut().zip(DIMENSIONS.into_iter().zip(drawn.values)) {
            text.clear();
            write!(text, "{name}_{value}")?;
        }
        let dimensions: [_; 5] = std::array::from_fn(|at| (DIMENSIONS[at], texts[at].as_str()));
        let metrics: [_; 3] = std::array::from_fn(|at| (METRICS[at], drawn.metrics[at]));
        writer.push(&Row { event_time: time, event_id: None, dimensions: &dimensions, metrics: &metrics }).await?;
    }
    let summary = writer.finish().await?;
    let all = json!({
        "namespace": NAMESPACE, "table": TABLE, "start_time": 0, "end_time": i64::MAX / 2,
        "after": summary.tokens, "timeout_ms": 60_000,
    });
    match count(server, &all).await? {
        found if found == rows => Ok(begin),
        found => Err(format!("{rows} rows were sent, {found} are there: {:?}", summary.rejects).into()),
    }
}

/// The count that answers a question.
///
/// # Errors
/// The server refuses it.
pub(crate) async fn count(server: &Server, question: &Value) -> Result<u64, Failure> {
    let reply = Connection::open(&server.address(8081)).await?.post("/v1/query", question).await?;
    let answer: Value = serde_json::from_slice(&reply)?;
    // Of no rows there is a count of 0, or no row.
    Ok(answer["rows"][0]["count"].as_u64().unwrap_or_default())
}

/// The sum of a metric of the server over all its labels.
///
/// # Errors
/// The server does not answer.
pub(crate) async fn metric(server: &Server, name: &str) -> Result<f64, Failure> {
    let text = Connection::open(&server.address(8088)).await?.get("/metrics").await?;
    let text = String::from_utf8_lossy(&text);
    let of_line = |line: &str| {
        let (left, value) = line.rsplit_once(' ')?;
        let named = left == name || left.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        named.then(|| value.parse::<f64>().ok())?
    };
    Ok(text.lines().filter_map(of_line).sum())
}
