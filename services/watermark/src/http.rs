//! `GET /v1/watermarks/{namespace}/{table}` and `GET /v1/ledger/{namespace}/{table}`.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use codec::TokenKey;
use placement::PlacementMap;
use proto::{
    catalog::Catalog,
    dead_letters::DeadLetterCounts,
    progress::{PartitionProgress, Progress, TableProgress},
};
use serde::{Deserialize, Serialize};
use service::ApiResult;
use types::{ApiError, Table, TableName, TenantId};

use crate::{
    after,
    ledger::LedgerView,
    ledgers::{Count, Ledgers},
};

/// Records that may wait in the partitions of a table whose ledger is asked for: their heads are read one by one, in
/// about a microsecond each.
const LEDGER_RECORDS_MAX: u64 = 1_000_000;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) ledgers: Ledgers,
    pub(crate) dead_letters: Arc<dyn DeadLetterCounts>,
    pub(crate) token_key: TokenKey,
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/watermarks/{namespace}/{table}", get(read_watermarks))
        .route("/v1/ledger/{namespace}/{table}", get(read_ledger))
        .with_state(shared)
}

#[derive(Serialize)]
struct WatermarksView<'a> {
    namespace: &'a str,
    table: &'a str,
    generation: u32,
    /// The low watermark; null where there never was an event.
    watermark_us: Option<i64>,
    /// The greatest of the partitions.
    freshness_us: i64,
    partitions: Vec<PartitionView>,
}

#[derive(Serialize)]
struct PartitionView {
    partition: u32,
    /// The offset after the newest durable record.
    log_end: u64,
    /// Every record before this offset is applied.
    applied: u64,
    lag_records: u64,
    event_time_max_us: Option<i64>,
    freshness_us: i64,
    /// Nodes that hold the partition, the primary first.
    replicas: Vec<u64>,
}

async fn read_watermarks(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
) -> ApiResult<Response> {
    let table = shared.catalog.table(tenant, &TableName::new(namespace, table)).await?;
    let progress = shared.progress.table(&table).await?;
    Ok(Json(view(&table, &progress, &shared.catalog.placement())).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    /// A token that must be covered.
    after: Option<String>,
}

async fn read_ledger(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
    Query(query): Query<LedgerQuery>,
) -> ApiResult<Json<LedgerView>> {
    let table = shared.catalog.table(tenant, &TableName::new(namespace, table)).await?;
    if let Some(token) = &query.after {
        let offsets = after::offsets(&shared.token_key, tenant, &table, token)?;
        after::wait(shared.progress.as_ref(), &table, &offsets).await?;
    }
    let ledger = match shared.ledgers.count(&table, LEDGER_RECORDS_MAX).await? {
        Count::Counted(ledger) => ledger,
        Count::TooFarBehind { records } => {
            let message = format!(
                "{records} records of the table's partitions wait to be applied, of at most {LEDGER_RECORDS_MAX} the \
                 ledger is counted; try again when they are"
            );
            return Err(ApiError::unavailable(message).into());
        }
    };
    let dead_lettered = shared.dead_letters.dead_letters(tenant, &table.name).await?;
    Ok(Json(LedgerView::new(&ledger, dead_lettered)))
}

fn view<'a>(table: &'a Table, progress: &TableProgress, map: &PlacementMap) -> WatermarksView<'a> {
    let partition = |progress: &PartitionProgress| PartitionView {
        partition: progress.partition.0,
        log_end: progress.log_end.0,
        applied: progress.next_offset.0,
        lag_records: progress.log_end.0 - progress.next_offset.0,
        event_time_max_us: progress.event_time_max.map(|time| time.0),
        freshness_us: progress.freshness_us,
        replicas: map.replicas.get(&progress.partition).into_iter().flatten().map(|node| node.0).collect(),
    };
    WatermarksView {
        namespace: &table.name.namespace,
        table: &table.name.table,
        generation: table.key.generation.0,
        watermark_us: progress.watermark.map(|time| time.0),
        freshness_us: progress.freshness_us,
        partitions: progress.partitions.iter().map(partition).collect(),
    }
}
