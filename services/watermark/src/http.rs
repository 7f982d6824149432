//! `GET /v1/watermarks/{namespace}/{table}`.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use placement::PlacementMap;
use proto::{
    catalog::Catalog,
    progress::{PartitionProgress, Progress, TableProgress},
};
use serde::Serialize;
use service::ApiResult;
use types::{Table, TableName, TenantId};

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) progress: Arc<dyn Progress>,
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new().route("/v1/watermarks/{namespace}/{table}", get(read)).with_state(shared)
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

async fn read(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
) -> ApiResult<Response> {
    let table = shared.catalog.table(tenant, &TableName::new(namespace, table)).await?;
    let progress = shared.progress.table(&table).await?;
    Ok(Json(view(&table, &progress, &shared.catalog.placement())).into_response())
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
