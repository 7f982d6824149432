//! All state from the log alone, with everything on.

use std::time::{Duration, Instant};

use bench::{
    Failure,
    report::{Goal, Part, Table, rate, short},
};
use serde_json::json;

use crate::{
    context::Context,
    fill::{self, NAMESPACE, TABLE},
};

const SECONDS: u64 = 10;
const WANTED: f64 = 3e6;
/// A rebuild may take so long.
const WAIT_MAX: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The time from a start without a checkpoint to complete answers.
///
/// # Errors
/// A server or the generator fails, or not all is there again.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    // Without checkpoints all of the log is read.
    let mut server = context.start(&[("TRUENOW_HOT_TIER_CHECKPOINT_INTERVAL_MS", "0")]).await?;
    let rollups = json!([{"interval_us": 1_000_000, "group_by": ["region", "event_type"]}]);
    fill::declare(&server, &json!({"partition_by": "user_id", "rollups": rollups})).await?;
    let options = format!(
        "--mode columns --ids --connections 2 --batch 1000 --window 4 --table {TABLE} --seconds {}",
        context.seconds(SECONDS)
    );
    let driven = context.drive(&server, &options).await?;
    let all = json!({"namespace": NAMESPACE, "table": TABLE, "start_time": 0, "end_time": i64::MAX / 2, "timeout_ms": 60_000});
    let before = applied(&server, driven.number("events") as u64).await?;
    let counted = fill::count(&server, &all).await?;
    server.restart().await?;
    let began = Instant::now();
    server.healthy_gateway().await?;
    let (mut first, mut done) = (None, 0.0);
    while done < before {
        if began.elapsed() > WAIT_MAX {
            return Err(format!("{done} of {before} events were applied within {WAIT_MAX:?}").into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        done = fill::metric(&server, "truenow_ingester_rows_applied_total").await?;
        if first.is_none() && done > 0.0 {
            first = Some((Instant::now(), done));
        }
    }
    let took = began.elapsed();
    let again = fill::count(&server, &all).await?;
    server.stop().await?;
    if again != counted {
        return Err(format!("{counted} events were counted before, {again} after").into());
    }
    let (from, at_first) = first.ok_or("nothing was read again")?;
    let per_second = (done - at_first) / (began + took - from).as_secs_f64();
    context.keep(&json!({"events": done, "seconds": took.as_secs_f64(), "events_per_s": per_second}))?;
    let mut table = Table::new("", &["events", "from the start to all, s", "while it reads, events/s"]);
    table.rows.push(vec![format!("{done:.0}"), short(took.as_secs_f64()), rate(per_second)]);
    Ok(Part {
        title: "Rebuild from the log".to_owned(),
        method: "Columns with ids come for some seconds into a table with a rollup by second, region and type; then the server is \
                 stopped and started again without any checkpoint, so that it reads all of the log, decides on duplicates and makes \
                 rollups anew. The same count has to come out. The log is in the page cache."
            .to_owned(),
        goals: vec![Goal {
            what: "rebuild from the log with deduplication and a rollup".to_owned(),
            wanted: format!("{} events/s", rate(WANTED)),
            found: format!("{} events/s", rate(per_second)),
            met: per_second >= WANTED,
        }],
        tables: vec![table],
        ..Part::default()
    })
}

/// Waits until all that was acked is applied; how many events that are.
async fn applied(server: &bench::Server, events: u64) -> Result<f64, Failure> {
    let began = Instant::now();
    while began.elapsed() < WAIT_MAX {
        let applied = fill::metric(server, "truenow_ingester_rows_applied_total").await?;
        if applied >= events as f64 {
            return Ok(applied);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!("the server did not apply {events} events in {WAIT_MAX:?}").into())
}
