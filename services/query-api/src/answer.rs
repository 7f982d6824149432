//! One question from its JSON to the answer's JSON: parse, find the tables, plan, have it computed, receipt.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use codec::{Token, TokenKey};
use event_log::EventLog;
use futures_util::future::try_join_all;
use proto::{catalog::Catalog, progress::Progress};
use query::{Query, QueryLimits};
use serde::Serialize;
use types::{ApiError, ErrorCode, Offset, PartitionId, Table, TableName, TenantId, Timestamp};

use crate::{
    compute::{Computed, Question},
    fleet::Fleet,
    flights::{Flights, Terms},
    held::{Held, Share, Unsent},
    places::Places,
    receipt::{self, Receipt},
    results::{self, Results},
};

/// Queries up to this many bytes are parsed where they arrive.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// How long after its deadline a query is ended from outside.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// Answers questions; shared by HTTP and gRPC.
pub(crate) struct Answers {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) progress: Arc<dyn Progress>,
    /// The nodes of the hot tier.
    pub(crate) fleet: Fleet,
    /// Where the ids of raw events are.
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) token_key: TokenKey,
    pub(crate) limits: QueryLimits,
    pub(crate) places: Places,
    pub(crate) unsent: Unsent,
    /// Results of earlier questions.
    pub(crate) results: Results,
    /// Questions that are being computed.
    pub(crate) flights: Flights<Arc<Computed>>,
}

/// The answer to a question, in the parts of its JSON.
pub(crate) struct Answered {
    /// The list of rows, as JSON text without white space between rows.
    pub(crate) rows: String,
    /// The list of the aggregates' descriptions, as JSON text.
    pub(crate) columns: String,
    pub(crate) receipt: Receipt,
    pub(crate) stats: Stats,
}

#[derive(Serialize)]
pub(crate) struct Stats {
    elapsed_us: u64,
    rows_scanned: u64,
    segments: u64,
    segments_skipped: u64,
    segments_cached: u64,
    rollup_buckets: u64,
    cached: bool,
}

impl Answers {
    /// The answer to the JSON of a query, as JSON in pieces, and until when it waits for who asked.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        tenant: TenantId,
        json: Bytes,
    ) -> Result<([String; 3], Held), ApiError> {
        let (answered, held) = self.answered(tenant, json).await?;
        Ok((answered.into_json()?, held))
    }

    /// The answer to the JSON of a query, in parts, and until when it waits for who asked.
    ///
    /// # Errors
    /// Those of the contract.
    pub(crate) async fn answered(
        self: &Arc<Self>,
        tenant: TenantId,
        json: Bytes,
    ) -> Result<(Answered, Held), ApiError> {
        let began = Instant::now();
        let query = self.parse(json).await?;
        let timeout = query.timeout;
        // The steps inside know the deadline and say what they waited for; this one catches what does not.
        let last = began + timeout + DEADLINE_GRACE;
        match tokio::time::timeout_at(last.into(), self.answer_query(tenant, query, began)).await {
            Ok(answer) => {
                answer.map(|(answered, share)| (answered, Held { until: last, timeout, share: Arc::new(share) }))
            }
            Err(_) => Err(timed_out(timeout)),
        }
    }

    pub(crate) async fn parse(&self, json: Bytes) -> Result<Query, ApiError> {
        if json.len() <= INLINE_BYTES_MAX {
            return query::parse(&json, &self.limits);
        }
        let limits = self.limits.clone();
        let parsed = tokio::task::spawn_blocking(move || query::parse(&json, &limits)).await;
        parsed.map_err(|error| ApiError::internal(format!("reading the query failed: {error}")))?
    }

    async fn answer_query(
        self: &Arc<Self>,
        tenant: TenantId,
        query: Query,
        began: Instant,
    ) -> Result<(Answered, Share), ApiError> {
        let tokens = self.tokens(tenant, &query)?;
        let tables = try_join_all(query.tables.iter().map(|name| self.table(tenant, name))).await?;
        let after = greatest(offsets_of(&tokens, &tables)?);
        let plan = Arc::new(query::plan(&query, &tables)?);
        let terms = Terms { after, deadline: began + query.timeout, timeout: query.timeout };
        // Each waits for what it is to cover itself, so that nobody waits for what another one asked for.
        self.fleet.applied(&terms.after, &self.catalog.placement(), terms.deadline).await?;
        let key = results::key(tenant, &tables, &plan, query.allow_partial);
        let question = Question { tenant, query, tables, plan, key: key.clone() };
        let tables = question.tables.clone();
        let answers = Arc::clone(self);
        let compute = move |terms| async move { answers.compute(&question, terms).await.map(Arc::new) };
        let computed = self.flights.answer(key, terms, compute).await?;
        Ok(self.reply(tenant, &tables, computed.own(&self.unsent)?, began))
    }

    /// What one who asked is told of what was computed for all who did.
    fn reply(&self, tenant: TenantId, tables: &[Arc<Table>], computed: Computed, began: Instant) -> (Answered, Share) {
        let stats = Stats {
            elapsed_us: micros(began.elapsed()),
            rows_scanned: computed.stats.rows_scanned,
            segments: computed.stats.segments_scanned,
            segments_skipped: computed.stats.segments_skipped,
            segments_cached: computed.stats.segments_cached,
            rollup_buckets: computed.stats.rollup_buckets,
            cached: computed.cached,
        };
        let receipt = Receipt {
            complete: computed.missing.is_empty(),
            missing: computed.missing,
            truncated: computed.truncated,
            as_of_us: computed.as_of.0,
            watermark_us: computed.watermark.0,
            freshness_us: computed.freshness_us,
            covers: receipt::covers(tenant, tables, &computed.covered, &self.token_key),
            offsets: receipt::offsets(&computed.covered),
        };
        (Answered { rows: computed.rows, columns: computed.columns, receipt, stats }, computed.share)
    }

    /// The table of that name; as this process knows it, if it does.
    pub(crate) async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        match self.catalog.cached(tenant, name) {
            Some(table) => Ok(table),
            None => self.catalog.table(tenant, name).await,
        }
    }

    /// A table that was deleted during the scan may have gone from some partitions before others.
    pub(crate) async fn still_there(&self, tenant: TenantId, tables: &[Arc<Table>]) -> Result<(), ApiError> {
        for table in tables {
            if self.table(tenant, &table.name).await?.key != table.key {
                let message = format!("table {} was deleted and created again meanwhile; ask again", table.name);
                return Err(ApiError::new(ErrorCode::NotFound, message).with_field("table"));
            }
        }
        Ok(())
    }

    /// The tokens that the query presents, checked.
    pub(crate) fn tokens(&self, tenant: TenantId, query: &Query) -> Result<Vec<Token>, ApiError> {
        let decode = |text: &String| Token::decode(&self.token_key, text).ok().filter(|token| token.tenant == tenant);
        let bad =
            || ApiError::invalid("after", "after is not a token of this server; pass one as an ingest reply gave it");
        query.after.iter().map(|text| decode(text).ok_or_else(bad)).collect()
    }
}

/// What must be applied, by partition, for the tokens to be covered. A batch may go to several tables, of which the query
/// asks for some; a token of none of them was meant for another query.
pub(crate) fn offsets_of(tokens: &[Token], tables: &[Arc<Table>]) -> Result<Vec<(PartitionId, Offset)>, ApiError> {
    let mut after = Vec::new();
    for token in tokens {
        let mut of_these = false;
        for entry in token.tables() {
            match tables.iter().find(|table| table.key.table == entry.table) {
                Some(table) if table.key.generation == entry.generation => {
                    after.extend(entry.offsets.iter().copied());
                    of_these = true;
                }
                Some(_) => return Err(ApiError::invalid("after", "after is a token of a table that was deleted")),
                None => {}
            }
        }
        if !of_these {
            return Err(ApiError::invalid("after", "after is a token of other tables than those of the query"));
        }
    }
    Ok(after)
}

/// Of several offsets of a partition the greatest.
fn greatest(offsets: Vec<(PartitionId, Offset)>) -> BTreeMap<PartitionId, Offset> {
    let mut greatest = BTreeMap::new();
    for (partition, offset) in offsets {
        let least = greatest.entry(partition).or_insert(offset);
        *least = offset.max(*least);
    }
    greatest
}

impl Answered {
    /// Its JSON, one piece behind the other: the list of rows, which may be long, is not copied.
    fn into_json(self) -> Result<[String; 3], ApiError> {
        let written = |json: serde_json::Result<String>| json.map_err(|error| unwritable(&error));
        let receipt = written(serde_json::to_string(&self.receipt))?;
        let stats = written(serde_json::to_string(&self.stats))?;
        // Rows and columns are JSON already, and may be long.
        let Self { rows, columns, .. } = self;
        let rest = [",\"columns\":", &columns, ",\"receipt\":", &receipt, ",\"stats\":", &stats, "}"].concat();
        Ok(["{\"rows\":".to_owned(), rows, rest])
    }
}

/// What became of an answer that is no JSON.
pub(crate) fn unwritable(error: &serde_json::Error) -> ApiError {
    ApiError::internal(format!("writing the answer failed: {error}"))
}

pub(crate) fn timed_out(timeout: Duration) -> ApiError {
    let message = format!(
        "the query took longer than its timeout_ms of {}; raise it, or ask for a shorter range or fewer groups",
        timeout.as_millis()
    );
    ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("timeout_ms")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
