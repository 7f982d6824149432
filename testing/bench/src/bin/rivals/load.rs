//! The workload, and its way into the server.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bench::{Connection, Failure, Server};
use serde_json::{Value, json};
use truenow_client::{Client, Options, Row};

/// Namespace and table of the rows.
pub(crate) const NAMESPACE: &str = "bench";
/// See [`NAMESPACE`].
pub(crate) const TABLE: &str = "hot";
/// What the generator calls its codes.
pub(crate) const REGIONS: [&str; 8] =
    ["us-east", "us-west", "eu-west", "eu-central", "ap-south", "ap-northeast", "sa-east", "af-south"];
/// See [`REGIONS`].
pub(crate) const EVENT_TYPES: [&str; 9] =
    ["page_view", "click", "search", "add_to_cart", "checkout", "purchase", "login", "signup", "refund"];
/// Rows of a batch.
const BATCH_ROWS: usize = 10_000;

/// The columns of the workload, rows in the order of their arrival.
pub(crate) struct Workload {
    pub(crate) times: Vec<i64>,
    pub(crate) regions: Vec<u8>,
    pub(crate) event_types: Vec<u8>,
    pub(crate) products: Vec<u16>,
    pub(crate) users: Vec<u32>,
    pub(crate) tenants: Vec<u8>,
    pub(crate) revenue: Vec<f64>,
    pub(crate) latency: Vec<f64>,
}

impl Workload {
    /// Reads at most so many rows.
    ///
    /// # Errors
    /// A file is missing, or shorter than another.
    pub(crate) fn read(dir: &Path, rows: usize) -> Result<Self, Failure> {
        let raw = dir.join("raw");
        let workload = Self {
            times: column(&raw, "ts", rows, i64::from_le_bytes)?,
            regions: column(&raw, "region", rows, u8::from_le_bytes)?,
            event_types: column(&raw, "etype", rows, u8::from_le_bytes)?,
            products: column(&raw, "product", rows, u16::from_le_bytes)?,
            users: column(&raw, "user", rows, u32::from_le_bytes)?,
            tenants: column(&raw, "tenant", rows, u8::from_le_bytes)?,
            revenue: column(&raw, "revenue", rows, f64::from_le_bytes)?,
            latency: column(&raw, "latency", rows, f64::from_le_bytes)?,
        };
        let lengths = [workload.regions.len(), workload.users.len(), workload.revenue.len(), workload.latency.len()];
        if lengths.iter().any(|&rows| rows != workload.rows()) {
            return Err(format!("the columns in {} differ in length", raw.display()).into());
        }
        Ok(workload)
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.times.len()
    }
}

fn column<T, const N: usize>(
    dir: &Path,
    name: &str,
    rows: usize,
    item: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Failure> {
    let path = dir.join(format!("{name}.bin"));
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes.as_chunks::<N>().0.iter().take(rows).map(|bytes| item(*bytes)).collect())
}

/// Declares the table, sends all rows, and waits until they can be asked for.
///
/// # Errors
/// The server refuses the table or a row, or is not done in time.
pub(crate) async fn load(
    server: &Server,
    workload: &Workload,
    partition_by: Option<&str>,
    rollups: &Value,
) -> Result<(), Failure> {
    let mut table = json!({
        "namespace": NAMESPACE, "table": TABLE,
        "dimensions": ["tenant_name", "region", "event_type", "product", "user_id"],
        "metrics": ["revenue", "latency_ms"],
        "rollups": rollups,
    });
    if let Some(column) = partition_by {
        table["partition_by"] = column.into();
    }
    Connection::open(&server.address(8001)).await?.post("/v1/tables", &table).await?;
    let began = Instant::now();
    let client = Client::connect(&format!("http://{}", server.address(9088)), None).await?;
    let options = Options { batch_rows_max: BATCH_ROWS, ..Options::new("rivals") };
    let mut writer = client.columns(NAMESPACE, TABLE, options).await?;
    let name = |prefix: &'static str, digits: usize| move |n: usize| format!("{prefix}_{n:0digits$}");
    let products: Vec<String> = (0..1_000).map(name("product", 4)).collect();
    let tenants: Vec<String> = (0..256).map(name("tenant", 3)).collect();
    let mut user = String::new();
    for row in 0..workload.rows() {
        user.clear();
        std::fmt::Write::write_fmt(&mut user, format_args!("user_{:07}", workload.users[row]))?;
        let dimensions = [
            ("tenant_name", tenants[usize::from(workload.tenants[row])].as_str()),
            ("region", REGIONS[usize::from(workload.regions[row])]),
            ("event_type", EVENT_TYPES[usize::from(workload.event_types[row])]),
            ("product", products[usize::from(workload.products[row])].as_str()),
            ("user_id", user.as_str()),
        ];
        let metrics = [("revenue", workload.revenue[row]), ("latency_ms", workload.latency[row])];
        let row = Row { event_time: workload.times[row], event_id: None, dimensions: &dimensions, metrics: &metrics };
        writer.push(&row).await?;
    }
    let summary = writer.finish().await?;
    if summary.accepted != workload.rows() as u64 {
        return Err(format!("{} rows were accepted: {:?}", summary.accepted, summary.rejects).into());
    }
    let took = began.elapsed();
    bench::line(&format!("loaded in {:.1} s, one client that makes columns of rows", took.as_secs_f64()));
    visible(server, workload.rows() as u64, &summary.tokens).await
}

/// Waits until all rows are counted.
async fn visible(server: &Server, rows: u64, tokens: &[String]) -> Result<(), Failure> {
    let question = json!({
        "namespace": NAMESPACE, "table": TABLE, "start_time": 0, "end_time": i64::MAX / 2,
        "after": tokens, "timeout_ms": Duration::from_secs(60).as_millis() as u64,
    });
    let reply = Connection::open(&server.address(8081)).await?.post("/v1/query", &question).await?;
    let answer: Value = serde_json::from_slice(&reply)?;
    match answer["rows"][0]["count"].as_u64() {
        Some(count) if count == rows => Ok(()),
        other => Err(format!("{rows} rows were sent, {other:?} are there").into()),
    }
}
