//! `POST /v1/query`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::post,
};
use service::{ApiErrorResponse, read_body};
use types::TenantId;

use crate::answer::Answers;

/// Bytes of a query: lists of values may be long, but a query is no upload.
const QUERY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
struct Handler {
    answers: Arc<Answers>,
    body_timeout: Duration,
}

pub(crate) fn routes(answers: Arc<Answers>, body_timeout: Duration) -> Router {
    Router::new().route("/v1/query", post(query)).with_state(Handler { answers, body_timeout })
}

async fn query(
    State(handler): State<Handler>,
    Extension(tenant): Extension<TenantId>,
    body: Body,
) -> Result<Response, ApiErrorResponse> {
    let body = read_body(body, QUERY_BYTES_MAX, handler.body_timeout).await?;
    let answer = handler.answers.answer(tenant, &body).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], answer).into_response())
}
