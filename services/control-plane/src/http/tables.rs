//! `/v1/tables`.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use proto::catalog::Catalog as _;
use serde::Serialize;
use service::{ApiResult, read_body};
use types::{TableName, TenantId};

use super::{
    Shared,
    forms::{self, TableView},
};

/// Bytes of a table's description, at most: 1,024 columns and 64 rollups over them fit.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Serialize)]
struct TablesView<'a> {
    tables: Vec<TableView<'a>>,
}

pub(super) async fn create(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    body: Body,
) -> ApiResult<Response> {
    let body = read_body(body, BODY_BYTES_MAX, shared.body_timeout).await?;
    let table = shared.plane.create(tenant, forms::new_table(&body)?).await?;
    tracing::info!(table = %table.name, key = ?table.key, "table created");
    Ok((StatusCode::CREATED, Json(TableView::from(&*table))).into_response())
}

pub(super) async fn list(State(shared): State<Shared>, Extension(tenant): Extension<TenantId>) -> ApiResult<Response> {
    let tables = shared.plane.tables(tenant).await?;
    let tables = tables.iter().map(|table| TableView::from(&**table)).collect();
    Ok(Json(TablesView { tables }).into_response())
}

pub(super) async fn read(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
) -> ApiResult<Response> {
    let table = shared.plane.table(tenant, &TableName::new(namespace, table)).await?;
    Ok(Json(TableView::from(&*table)).into_response())
}

pub(super) async fn patch(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
    body: Body,
) -> ApiResult<Response> {
    let body = read_body(body, BODY_BYTES_MAX, shared.body_timeout).await?;
    let name = TableName::new(namespace, table);
    let now = shared.plane.table(tenant, &name).await?;
    let patch = forms::patch(&body, &now)?;
    let table = shared.plane.patch(tenant, &name, patch).await?;
    tracing::info!(table = %table.name, version = %table.schema.version(), "table changed");
    Ok(Json(TableView::from(&*table)).into_response())
}

pub(super) async fn delete(
    State(shared): State<Shared>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
) -> ApiResult<Response> {
    let name = TableName::new(namespace, table);
    shared.plane.delete(tenant, &name).await?;
    tracing::info!(table = %name, "table deleted");
    Ok(StatusCode::NO_CONTENT.into_response())
}
