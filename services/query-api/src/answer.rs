//! One question from its JSON to the answer's JSON: parse, find the tables, plan, fan out, merge, receipt.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use codec::{Token, TokenKey};
use futures_util::future::try_join_all;
use proto::{catalog::Catalog, progress::Progress};
use query::{Answer, Query, QueryLimits};
use serde::Serialize;
use serde_json::value::RawValue;
use types::{ApiError, ErrorCode, Offset, PartitionId, Table, TenantId, Timestamp};

use crate::{
    fanout::{FanOut, Gathered, Nodes},
    receipt::{self, Receipt},
};

/// Answers questions; shared by HTTP and gRPC.
pub(crate) struct Answers {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) nodes: Nodes,
    pub(crate) token_key: TokenKey,
    pub(crate) limits: QueryLimits,
}

#[derive(Serialize)]
struct Reply<'a> {
    rows: &'a RawValue,
    columns: &'a RawValue,
    receipt: Receipt,
    stats: Stats,
}

#[derive(Serialize)]
struct Stats {
    elapsed_us: u64,
    rows_scanned: u64,
    segments: u64,
    segments_skipped: u64,
    rollup_buckets: u64,
    cached: bool,
}

impl Answers {
    /// The answer to the JSON of a query, as JSON.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn answer(&self, tenant: TenantId, json: &[u8]) -> Result<String, ApiError> {
        let began = Instant::now();
        let query = query::parse(json, &self.limits)?;
        let deadline = began + query.timeout;
        let answer = self.answer_query(tenant, &query, began, deadline);
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out(query.timeout)),
        }
    }

    async fn answer_query(
        &self,
        tenant: TenantId,
        query: &Query,
        began: Instant,
        deadline: Instant,
    ) -> Result<String, ApiError> {
        let after = self.after(tenant, query)?;
        let tables = try_join_all(query.tables.iter().map(|name| self.catalog.table(tenant, name))).await?;
        let after = offsets_of(&after, &tables)?;
        let plan = Arc::new(query::plan(query, &tables)?);
        let fan_out = FanOut {
            plan: Arc::clone(&plan),
            partitions: tables.iter().flat_map(|table| table.partitions.iter().copied()).collect(),
            after,
            deadline,
        };
        let gathered = fan_out.run(&self.nodes, &self.catalog.placement()).await?;
        let missing = receipt::missing(query.range, &gathered.unreachable, gathered.evicted_before());
        if !query.allow_partial {
            receipt::refuse_partial(&missing)?;
        }
        let progress = try_join_all(tables.iter().map(|table| self.progress.table(table))).await?;
        let (watermark, freshness_us) = receipt::progress(&progress);
        let (covers, offsets) =
            (receipt::covers(tenant, &tables, &gathered, &self.token_key), receipt::offsets(&gathered));
        let answer = merge(plan, gathered).await?;
        let receipt = Receipt {
            complete: missing.is_empty(),
            missing,
            truncated: answer.truncated,
            as_of_us: now().0,
            watermark_us: watermark.0,
            freshness_us,
            covers,
            offsets,
        };
        reply(answer, receipt, began)
    }

    /// The tokens that the query presents, checked.
    fn after(&self, tenant: TenantId, query: &Query) -> Result<Vec<Token>, ApiError> {
        let bad = |why: &str| ApiError::invalid("after", format!("{why}; pass a token as an ingest reply gave it"));
        query
            .after
            .iter()
            .map(|text| {
                let token =
                    Token::decode(&self.token_key, text).map_err(|_| bad("after is not a token of this server"))?;
                if token.tenant == tenant { Ok(token) } else { Err(bad("after is not a token of this server")) }
            })
            .collect()
    }
}

/// What must be applied, by partition, for the tokens to be covered.
fn offsets_of(tokens: &[Token], tables: &[Arc<Table>]) -> Result<Vec<(PartitionId, Offset)>, ApiError> {
    let mut after = Vec::new();
    for entry in tokens.iter().flat_map(Token::tables) {
        match tables.iter().find(|table| table.key.table == entry.table) {
            Some(table) if table.key.generation == entry.generation => after.extend(entry.offsets.iter().copied()),
            Some(_) => return Err(ApiError::invalid("after", "after is a token of a table that was deleted")),
            // A batch may go to several tables, of which the query asks for some.
            None => {}
        }
    }
    Ok(after)
}

/// Merging and sorting may take milliseconds: off the network threads.
async fn merge(plan: Arc<query::Plan>, gathered: Gathered) -> Result<Answer, ApiError> {
    let partials = gathered.scans.into_iter().map(|scan| scan.partial).collect();
    let merged = tokio::task::spawn_blocking(move || query::finish(&plan, partials)).await;
    merged.map_err(|error| ApiError::internal(format!("merging the answer failed: {error}")))?
}

fn reply(answer: Answer, receipt: Receipt, began: Instant) -> Result<String, ApiError> {
    let internal = |error: serde_json::Error| ApiError::internal(format!("writing the answer failed: {error}"));
    let raw = |json: String| RawValue::from_string(json).map_err(internal);
    let (rows, columns) = (raw(answer.rows)?, raw(answer.columns)?);
    let stats = Stats {
        elapsed_us: micros(began.elapsed()),
        rows_scanned: answer.stats.rows_scanned,
        segments: answer.stats.segments_scanned,
        segments_skipped: answer.stats.segments_skipped,
        rollup_buckets: 0,
        cached: false,
    };
    serde_json::to_string(&Reply { rows: &rows, columns: &columns, receipt, stats }).map_err(internal)
}

fn timed_out(timeout: Duration) -> ApiError {
    let message = format!(
        "the query took longer than its timeout_ms of {}; raise it, or ask for a shorter range or fewer groups",
        timeout.as_millis()
    );
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("timeout_ms")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
