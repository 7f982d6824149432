//! Whether the replicas of partitions hold the same rows, as the query API compares them.

use hyper::{Method, StatusCode, body::Bytes};
use serde::Deserialize;

use super::parsed;
use crate::{
    addresses::Addresses,
    failure::Failure,
    http::Http,
    outcome::{answer, note},
    table_text::{self, thousands},
};

/// What the replicas of one partition have of a table.
#[derive(Debug, Deserialize)]
struct Compared {
    partition: u32,
    offset: u64,
    /// `None`: there were not two of them.
    agree: Option<bool>,
    replicas: Vec<Replica>,
    away: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    node: u64,
    rows: u64,
    checksum: String,
}

impl Compared {
    /// The rows of the text: one for each replica, so that one sees which of them differ.
    fn cells<'a>(&'a self, table: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
        let agree = if self.agree == Some(true) { "yes" } else { "NO" };
        self.replicas.iter().map(move |replica| {
            let (partition, offset, node) =
                (self.partition.to_string(), thousands(self.offset), replica.node.to_string());
            vec![
                table.to_owned(),
                partition,
                offset,
                node,
                thousands(replica.rows),
                replica.checksum.clone(),
                agree.to_owned(),
            ]
        })
    }
}

/// Compares the replicas of each partition of a table and shows those that differ; `false`: some do, or cannot be compared.
/// `path` is the table's as routes have it. Where no partition has several replicas, there is nothing to say.
///
/// # Errors
/// The query API is away, or answers something else than a comparison.
pub(super) async fn verify(
    http: &Http,
    addresses: &Addresses,
    table: &str,
    path: &str,
    partitions: &[u32],
) -> Result<bool, Failure> {
    let (mut rows, mut compared, mut all_well) = (Vec::new(), 0, true);
    for partition in partitions {
        let url = format!("{}/v1/replicas/{path}/{partition}", addresses.query_api());
        let reply = http.exchange(Method::GET, &url, &[], Bytes::new()).await?;
        if reply.status != StatusCode::OK {
            all_well = false;
            note(&format!("{table}: the replicas of partition {partition}: {}", reply.refusal()));
            continue;
        }
        let found: Compared = parsed(&url, &reply)?;
        if !found.away.is_empty() {
            all_well = false;
            let nodes = found.away.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            note(&format!("{table}: nodes that should have partition {partition} are away: {nodes}"));
        }
        compared += usize::from(found.agree.is_some());
        if found.agree == Some(false) {
            all_well = false;
            rows.extend(found.cells(table));
        }
    }
    if !rows.is_empty() {
        let head = ["table", "partition", "offset", "node", "rows", "checksum", "agree"];
        answer(&table_text::render(&head.map(str::to_owned), &rows))?;
    }
    if compared > 0 {
        let verdict = if rows.is_empty() { "all agree" } else { "NOT ALL AGREE" };
        note(&format!("{table}: the replicas of {compared} of {} partitions compared; {verdict}", partitions.len()));
    }
    Ok(all_well)
}
