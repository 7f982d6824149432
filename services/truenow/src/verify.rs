//! `truenow verify`: whether every acked event is in one place, as the ledgers of the tables count them, and whether the replicas of
//! each partition hold the same rows.
//!
//! A ledger is to balance, and replicas are to agree at one offset, at every moment, also while events come in: one look at each
//! is enough.

mod replicas;

use hyper::{Method, StatusCode, body::Bytes};
use serde::Deserialize;

use crate::{
    args::VerifyArgs,
    failure::Failure,
    http::{Http, Reply},
    outcome::{Outcome, answer, note, runtime},
    table_text::{self, thousands},
};

/// Reads the ledgers and shows them.
///
/// # Errors
/// The control plane or the watermark service is away or answers something else, or there is no table of the names given.
pub(crate) fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    runtime(1)?.block_on(verify(args))
}

#[derive(Debug, Deserialize)]
struct Tables {
    tables: Vec<TableName>,
}

#[derive(Debug, Deserialize)]
struct TableName {
    namespace: String,
    table: String,
    /// The partitions that it uses.
    partition_ids: Vec<u32>,
}

/// A table's ledger, in events.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Ledger {
    acked: u64,
    live: u64,
    evicted: u64,
    duplicate: u64,
    erased: u64,
    in_flight: u64,
    /// What the service says: each partition of the table for itself balances.
    balanced: bool,
}

impl Ledger {
    /// Whether the service says so and the terms, whose sum could be wrong in two places that make up for each other, agree.
    fn balances(&self) -> bool {
        let places = [self.live, self.evicted, self.duplicate, self.erased, self.in_flight];
        let sum = places.iter().try_fold(0_u64, |sum, place| sum.checked_add(*place));
        self.balanced && sum == Some(self.acked)
    }

    fn cells(&self, name: String) -> Vec<String> {
        let Self { acked, live, evicted, duplicate, erased, in_flight, .. } = *self;
        let terms = [acked, live, evicted, duplicate, erased, in_flight].map(thousands);
        let balances = if self.balances() { "yes" } else { "NO" };
        [name].into_iter().chain(terms).chain([balances.to_owned()]).collect()
    }
}

async fn verify(args: &VerifyArgs) -> Result<Outcome, Failure> {
    let http = Http::new(&args.addresses)?;
    let tables = tables(&http, args).await?;
    let balanced = ledgers(&http, args, &tables).await?;
    let mut agree = true;
    for table in &tables {
        agree &=
            replicas::verify(&http, &args.addresses, &table.to_string(), &table.path(), &table.partition_ids).await?;
    }
    Ok(if balanced && agree { Outcome::Well } else { Outcome::NotAllWell })
}

/// Shows the ledgers of the tables; `false`: not all balance.
async fn ledgers(http: &Http, args: &VerifyArgs, tables: &[TableName]) -> Result<bool, Failure> {
    let (mut rows, mut all_well) = (Vec::new(), true);
    for table in tables {
        match ledger(http, args, table).await? {
            Read::Ledger(ledger) => {
                all_well &= ledger.balances();
                rows.push(ledger.cells(table.to_string()));
            }
            Read::Refused(failure) => {
                all_well = false;
                note(&format!("{table}: {failure}"));
            }
            Read::Deleted => note(&format!("{table} was deleted meanwhile")),
        }
    }
    if !rows.is_empty() {
        let head = ["table", "acked", "live", "evicted", "duplicate", "erased", "in flight", "balanced"];
        answer(&table_text::render(&head.map(str::to_owned), &rows))?;
    }
    note(&format!(
        "{} of {} ledgers read; {}",
        rows.len(),
        tables.len(),
        if all_well { "all balanced" } else { "NOT ALL BALANCED" }
    ));
    Ok(all_well)
}

/// The tables of the names given, all where none is.
async fn tables(http: &Http, args: &VerifyArgs) -> Result<Vec<TableName>, Failure> {
    let url = format!("{}/v1/tables", args.addresses.control());
    let reply = http.exchange(Method::GET, &url, &[], Bytes::new()).await?;
    if reply.status != StatusCode::OK {
        return Err(reply.refusal());
    }
    let Tables { mut tables } = parsed(&url, &reply)?;
    let is = |name: &Option<String>, of: &str| name.as_deref().is_none_or(|name| name == of);
    tables.retain(|table| is(&args.namespace, &table.namespace) && is(&args.table, &table.table));
    match (&args.namespace, &args.table) {
        (Some(namespace), Some(table)) if tables.is_empty() => {
            Err(Failure::new(format!("there is no table {namespace}.{table}")))
        }
        (Some(namespace), None) if tables.is_empty() => {
            Err(Failure::new(format!("there is no table in namespace {namespace}")))
        }
        _ => Ok(tables),
    }
}

/// What came of reading a ledger.
enum Read {
    Ledger(Ledger),
    /// The service cannot count it now.
    Refused(Failure),
    /// The table has gone since the tables were listed.
    Deleted,
}

/// # Errors
/// A service is away, or answers something else than a ledger.
async fn ledger(http: &Http, args: &VerifyArgs, table: &TableName) -> Result<Read, Failure> {
    let url = format!("{}/v1/ledger/{}", args.addresses.watermark(), table.path());
    let reply = http.exchange(Method::GET, &url, &[], Bytes::new()).await?;
    match reply.status {
        StatusCode::OK => parsed(&url, &reply).map(Read::Ledger),
        StatusCode::NOT_FOUND => {
            // Only the control plane, which decides, is believed that a table is gone.
            let url = format!("{}/v1/tables/{}", args.addresses.control(), table.path());
            let known = http.exchange(Method::GET, &url, &[], Bytes::new()).await?;
            let deleted = known.status == StatusCode::NOT_FOUND;
            Ok(if deleted { Read::Deleted } else { Read::Refused(reply.refusal()) })
        }
        _ => Ok(Read::Refused(reply.refusal())),
    }
}

fn parsed<'a, T: Deserialize<'a>>(url: &str, reply: &'a Reply) -> Result<T, Failure> {
    serde_json::from_slice(&reply.body)
        .map_err(|error| Failure::new(format!("{url} answered something else than it should: {error}")))
}

impl TableName {
    /// As routes have it.
    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.table)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Ledger =
        Ledger { acked: 31, live: 1, evicted: 2, duplicate: 4, erased: 8, in_flight: 16, balanced: true };

    /// Goal: a ledger balances only where the service says so and the terms shown add up.
    #[test]
    fn flag_and_terms_must_agree() {
        assert!(GOOD.balances());
        let wrong = [
            Ledger { balanced: false, ..GOOD },
            Ledger { acked: 32, ..GOOD },
            Ledger { live: 0, ..GOOD },
            Ledger { evicted: 3, ..GOOD },
            Ledger { duplicate: 3, ..GOOD },
            Ledger { erased: 9, ..GOOD },
            Ledger { in_flight: u64::MAX, ..GOOD },
        ];
        for ledger in wrong {
            assert!(!ledger.balances(), "{ledger:?}");
        }
    }
}
