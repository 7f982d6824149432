//! The rows: those of the last hour, and those that come.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bench::{Connection, Failure, Server};
use serde_json::{Value, json};
use truenow_client::{Client, ColumnsWriter, Options, Row};

/// Namespace and table of the rows.
pub(crate) const NAMESPACE: &str = "bench";
/// See [`NAMESPACE`].
pub(crate) const TABLE: &str = "dashboard";
/// What there is before anything is asked.
pub(crate) const HOUR_US: i64 = 3_600_000_000;
/// Rows of a batch at most.
const BATCH_ROWS: usize = 10_000;
/// Between two sendings of what comes.
const TICK: Duration = Duration::from_millis(50);

/// The time, µs.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Declares the table and sends the rows of the last hour; returns when that began, once all of them are counted.
///
/// # Errors
/// The server refuses the table or a row, or is not done in time.
pub(crate) async fn fill(server: &Server, rows: u64) -> Result<i64, Failure> {
    let table = json!({
        "namespace": NAMESPACE, "table": TABLE,
        "dimensions": ["region", "event_type", "product", "user_id"], "metrics": ["revenue", "latency_ms"],
    });
    Connection::open(&server.address(8001)).await?.post("/v1/tables", &table).await?;
    let begin = now() - HOUR_US;
    let mut writer = writer(&server.address(9088), "past").await?;
    for number in 0..rows {
        let time = begin + (u128::from(number) * HOUR_US.unsigned_abs() as u128 / u128::from(rows)) as i64;
        push(&mut writer, number, time).await?;
    }
    let summary = writer.finish().await?;
    let question = json!({
        "namespace": NAMESPACE, "table": TABLE, "start_time": 0, "end_time": i64::MAX / 2,
        "after": summary.tokens, "timeout_ms": 60_000,
    });
    let reply = Connection::open(&server.address(8081)).await?.post("/v1/query", &question).await?;
    let answer: Value = serde_json::from_slice(&reply)?;
    if answer["rows"][0]["count"] != rows {
        return Err(format!("{rows} rows were sent, {} are there: {:?}", answer["rows"], summary.rejects).into());
    }
    Ok(begin)
}

/// Events of now come, so many a second, for so long.
///
/// # Errors
/// The server refuses one.
pub(crate) async fn go_on(address: String, rate: u64, time: Duration) -> Result<(), Failure> {
    let mut writer = writer(&address, "present").await?;
    let mut ticks = tokio::time::interval(TICK);
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < time {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while number < due {
            push(&mut writer, number, now()).await?;
            number += 1;
        }
        writer.flush().await?;
    }
    let summary = writer.finish().await?;
    if summary.accepted == number { Ok(()) } else { Err(format!("{:?}", summary.rejects).into()) }
}

async fn writer(address: &str, producer: &str) -> Result<ColumnsWriter, Failure> {
    let client = Client::connect(&format!("http://{address}"), None).await?;
    let options = Options { batch_rows_max: BATCH_ROWS, ..Options::new(producer) };
    Ok(client.columns(NAMESPACE, TABLE, options).await?)
}

async fn push(writer: &mut ColumnsWriter, number: u64, time: i64) -> Result<(), Failure> {
    let random = mixed(number);
    let text = |name: &str, values: u64, shift: u32| format!("{name}_{}", (random >> shift) % values);
    let (region, event_type) = (text("region", 8, 0), text("type", 9, 8));
    let (product, user) = (text("product", 1_000, 16), text("user", 100_000, 24));
    let dimensions = [
        ("region", region.as_str()),
        ("event_type", event_type.as_str()),
        ("product", product.as_str()),
        ("user_id", user.as_str()),
    ];
    let metrics = [("revenue", (random >> 32) as f64 / 1e6), ("latency_ms", 1.0 + (random >> 44) as f64 / 1e3)];
    writer.push(&Row { event_time: time, event_id: None, dimensions: &dimensions, metrics: &metrics }).await?;
    Ok(())
}

/// Well spread numbers (splitmix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
