//! A table of rows that are there before anything is asked.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use bench::{Connection, Failure, Server};
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
pub(crate) const REGIONS: u64 = 8;
pub(crate) const TYPES: u64 = 9;
pub(crate) const PRODUCTS: u64 = 1_000;
pub(crate) const USERS: u64 = 1_000_000;
pub(crate) const TENANTS: u64 = 100;

/// Well spread numbers (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    }

    /// In `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `bound`, all alike.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    /// Below `bound`, the first ones more often, as values of real events are: half of all are in the first eighth.
    pub(crate) fn skewed(&mut self, bound: u64) -> u64 {
        (self.unit().powi(3) * bound as f64) as u64
    }
}

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
    let (begin, mut random) = (now() - SPAN_US, Random(42));
    let mut texts: [String; 5] = Default::default();
    for number in 0..rows {
        let time = begin + (u128::from(number) * SPAN_US.unsigned_abs() as u128 / u128::from(rows)) as i64;
        let values = [
            ("region", random.skewed(REGIONS)),
            ("event_type", random.skewed(TYPES)),
            ("product", random.skewed(PRODUCTS)),
            ("user_id", random.skewed(USERS)),
            ("tenant", random.skewed(TENANTS)),
        ];
        for (text, (name, value)) in texts.iter_mut().zip(values) {
            text.clear();
            write!(text, "{name}_{value}")?;
        }
        let dimensions: [_; 5] = std::array::from_fn(|at| (values[at].0, texts[at].as_str()));
        let latency = 1.0 + 200.0 * random.unit().powi(4);
        let metrics = [
            ("revenue", random.below(100_000) as f64 / 100.0),
            ("latency_ms", latency),
            ("quantity", 1.0 + random.below(9) as f64),
        ];
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
