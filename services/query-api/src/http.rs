//! The routes: `POST /v1/query`, `GET /v1/metrics`, `GET /v1/events`, `POST /v1/explain`, and `GET /v1/replicas/…`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use service::{ApiErrorResponse, Protocol, read_body};
use types::{ApiError, ErrorCode, PartitionId, TableName, TenantId};

use crate::{
    answer::Answers,
    held::{self, Held},
    short_form,
    text::Text,
};

/// Bytes of a query; lists of values may be long.
pub(crate) const QUERY_BYTES_MAX: usize = types::limits::REQUEST_BYTES_MAX;

#[derive(Clone)]
struct Handler {
    answers: Arc<Answers>,
    body_timeout: Duration,
}

pub(crate) fn routes(answers: Arc<Answers>, body_timeout: Duration) -> Router {
    Router::new()
        .route("/v1/query", post(query))
        .route("/v1/events", get(events))
        .route("/v1/explain", post(explain))
        .route("/v1/metrics", get(metrics))
        .route("/v1/replicas/{namespace}/{table}/{partition}", get(replicas))
        .layer(map_response(|response| async { held::hold(response, Protocol::Http) }))
        .with_state(Handler { answers, body_timeout })
}

impl Handler {
    /// The JSON of a query.
    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiErrorResponse> {
        check_form(headers)?;
        Ok(read_body(body, QUERY_BYTES_MAX, self.body_timeout).await?)
    }
}

async fn query(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiErrorResponse> {
    let body = handler.body(&headers, body).await?;
    let (pieces, held) = handler.answers.answer(tenant, body).await?;
    Ok(json((Text::of(pieces), held)))
}

async fn explain(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiErrorResponse> {
    let body = handler.body(&headers, body).await?;
    Ok(json(handler.answers.explain(tenant, body).await?))
}

async fn metrics(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    Query(params): Query<Vec<(String, String)>>,
) -> Result<Response, ApiErrorResponse> {
    let query = short_form::query_json(tenant, params)?;
    let (pieces, held) = handler.answers.answer(tenant, query.into()).await?;
    Ok(json((Text::of(pieces), held)))
}

async fn events(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    Query(params): Query<Vec<(String, String)>>,
) -> Result<Response, ApiErrorResponse> {
    Ok(json(handler.answers.events(tenant, params).await?))
}

async fn replicas(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table, partition)): Path<(String, String, String)>,
) -> Result<Response, ApiErrorResponse> {
    let partition = partition.parse().map(PartitionId);
    let partition = partition.map_err(|_| ApiError::invalid("partition", "partition is the number of a partition"))?;
    Ok(json(handler.answers.replicas(tenant, TableName::new(namespace, table), partition).await?))
}

fn json((text, held): (impl Into<Body>, Held)) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (Extension(held), [kind], text.into()).into_response()
}

/// Queries are JSON, not compressed. What plain `curl -d` says of its data is taken as JSON too.
fn check_form(headers: &HeaderMap) -> Result<(), ApiError> {
    let text =
        |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let unspoken = |header: &str, message| Err(ApiError::new(ErrorCode::Unimplemented, message).with_field(header));
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(kind, "" | "application/json" | "application/x-www-form-urlencoded") {
        return unspoken("Content-Type", "queries are application/json");
    }
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unspoken("Content-Encoding", "queries are taken as they are, without an encoding");
    }
    Ok(())
}
