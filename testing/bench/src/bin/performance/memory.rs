//! Bytes of an event, and whether what the server accounts for is what the process has.

use bench::{
    Failure,
    report::{Goal, Part, Table, rate, short},
};
use serde_json::json;

use crate::{
    context::Context,
    fill::{self, metric},
};

const ROWS: u64 = 20_000_000;
const GIB: f64 = (1 << 30) as f64;
/// Events of the workload per GiB that is accounted for.
const EVENTS_WANTED: f64 = 30e6;
/// How far what is accounted for may be from what the process has more than before, beside a fixed part.
const APART_MAX: f64 = 0.05;

/// Memory by the server's account, and the process's.
///
/// # Errors
/// The server fails.
pub(crate) async fn run(context: &Context) -> Result<Part, Failure> {
    let server = context.start(&[]).await?;
    server.at_rest().await?;
    let empty = [metric(&server, "truenow_hot_tier_memory_bytes").await?, server.anonymous_bytes()?];
    let rows = context.rows(ROWS);
    fill::fill(&server, rows).await?;
    server.at_rest().await?;
    let full = [metric(&server, "truenow_hot_tier_memory_bytes").await?, server.anonymous_bytes()?];
    let resident = server.resident_gib()?;
    server.stop().await?;
    let [accounted, anonymous] = [full[0] - empty[0], full[1] - empty[1]];
    let per_gib = rows as f64 / (full[0] / GIB);
    context.keep(&json!({"rows": rows, "accounted_bytes": full[0], "anonymous_bytes": full[1],
        "empty_anonymous_bytes": empty[1], "resident_gib": resident}))?;
    let columns = [
        "events",
        "accounted, GiB",
        "bytes/event",
        "events/GiB",
        "anonymous, GiB",
        "of which empty, GiB",
        "resident, GiB",
    ];
    let mut table = Table::new("", &columns);
    table.rows.push(vec![
        rows.to_string(),
        short(full[0] / GIB),
        short(full[0] / rows as f64),
        rate(per_gib),
        short(full[1] / GIB),
        short(empty[1] / GIB),
        short(resident),
    ]);
    let apart = (anonymous - accounted) / accounted;
    let goals = vec![
        Goal {
            what: "events of the workload per GiB, without ids".to_owned(),
            wanted: rate(EVENTS_WANTED),
            found: rate(per_gib),
            met: per_gib >= EVENTS_WANTED,
        },
        Goal {
            what: "anonymous memory that the rows added, beside what was accounted for".to_owned(),
            wanted: format!("within {:.0} %", APART_MAX * 100.0),
            found: format!("{:+.1} %", apart * 100.0),
            met: apart.abs() <= APART_MAX,
        },
        Goal {
            what: "anonymous memory of the process beyond what is accounted for".to_owned(),
            wanted: "at most 1 GiB".to_owned(),
            found: format!("{} GiB", short((full[1] - full[0]) / GIB)),
            met: full[1] - full[0] <= GIB,
        },
    ];
    Ok(Part {
        title: "Memory".to_owned(),
        method: "Rows of five dimensions and three metrics without ids, of ten minutes, through the client library; then the server \
                 is left to come to rest. Accounted is what the hot tier says that it holds (`truenow_hot_tier_memory_bytes`); \
                 anonymous is what the process has that is no file (RssAnon and RssShmem); resident has mapped files too."
            .to_owned(),
        goals,
        tables: vec![table],
        ..Part::default()
    })
}
