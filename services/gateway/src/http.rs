//! The gateway over HTTP: events in, dead letters and limits out.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use codec::{BatchIdentity, Encoding, Reject};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use service::{ApiErrorResponse, ApiResult};
use types::{ApiError, ErrorCode, TableName, TenantId};

use crate::{
    dead_letters::Drawer,
    identity,
    in_flight::InFlight,
    ingest::{Ack, Ingest, RowsRequest},
    rows::Format,
};

/// Letters of one page where the request does not say.
const LETTERS_DEFAULT: usize = 100;
/// Letters of one page, at most.
const LETTERS_MAX: usize = 1_000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Http {
    /// The way in.
    pub ingest: Arc<Ingest>,
    /// The bound on bytes of bodies.
    pub in_flight: Arc<InFlight>,
    /// How long a body may take.
    pub body_timeout: Duration,
}

/// The routes.
pub(crate) fn router(http: Http) -> Router {
    Router::new()
        .route("/v1/events", post(post_events))
        .route("/v1/dead-letters/{namespace}/{table}", get(get_dead_letters))
        .route("/v1/limits", get(get_limits))
        .with_state(http)
}

async fn post_events(
    State(http): State<Http>,
    Extension(tenant): Extension<TenantId>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    // All that the headers say is judged before a byte of the body is read.
    let format = format_of(&headers)?;
    let encoding = encoding_of(&headers)?;
    let batch = batch_of(&headers)?;
    http.ingest.open(tenant).await?;
    http.in_flight.enter().await?;
    let share = http.in_flight.share();
    let metered = Body::new(share.meter(body));
    let body = service::read_body(metered, http.ingest.request_bytes_max(), http.body_timeout).await;
    let body = body.map_err(|error| share.refused().unwrap_or(error))?;
    let ack = http.ingest.rows(RowsRequest { tenant, format, encoding, body, batch, share }).await?;
    Ok(reply(&ack))
}

/// 200 where at least one event was accepted; else 400, with the error beside the rejects.
fn reply(ack: &Ack) -> Response {
    #[derive(Serialize)]
    struct Rejected<'a> {
        index: u32,
        code: &'static str,
        message: &'a str,
    }
    let shown = |reject: &'_ Reject| {
        json!(Rejected { index: reject.index, code: reject.code.name(), message: &reject.message })
    };
    let rejected: Vec<_> = ack.rejected.iter().map(shown).collect();
    match &ack.token {
        Some(token) => {
            let durability = ack.durability.name();
            let body =
                json!({"accepted": ack.accepted, "rejected": rejected, "durability": durability, "token": token});
            (StatusCode::OK, Json(body)).into_response()
        }
        None => {
            let message = match &ack.rejected[..] {
                [only] => only.message.clone(),
                [first, ..] => format!("no event was accepted; the first: {}", first.message),
                [] => "no event was accepted".to_owned(),
            };
            let error = json!({"code": ErrorCode::InvalidArgument.name(), "message": message});
            let body = json!({"error": error, "accepted": 0, "rejected": rejected});
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LettersQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct LettersReply {
    letters: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

async fn get_dead_letters(
    State(http): State<Http>,
    Extension(tenant): Extension<TenantId>,
    Path((namespace, table)): Path<(String, String)>,
    Query(query): Query<LettersQuery>,
) -> ApiResult<Json<LettersReply>> {
    let limit = query.limit.unwrap_or(LETTERS_DEFAULT);
    if !(1..=LETTERS_MAX).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("limit is {limit}, 1 to {LETTERS_MAX} are allowed")).into());
    }
    let drawer = Drawer::new(tenant, TableName::new(namespace, table));
    let drawer = drawer.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "no table can have this name"))?;
    let letters = Arc::clone(&http.ingest.letters);
    let page = tokio::task::spawn_blocking(move || letters.page(&drawer, query.cursor.as_deref(), limit)).await;
    let page = page.map_err(|_| ApiError::internal("reading dead letters failed; this is a defect of the server"))?;
    let page = page.map_err(ApiError::from)?;
    Ok(Json(LettersReply { letters: page.letters, cursor: page.cursor }))
}

async fn get_limits(State(http): State<Http>, Extension(tenant): Extension<TenantId>) -> Json<serde_json::Value> {
    Json(http.ingest.limits_of(tenant))
}

fn format_of(headers: &HeaderMap) -> Result<Format, ApiErrorResponse> {
    let Some(kind) = single(headers, &header::CONTENT_TYPE)? else { return Ok(Format::Json) };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        // What curl says of `-d` unless told otherwise; nobody sends events as a form.
        "application/json" | "application/x-www-form-urlencoded" => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" => Ok(Format::Ndjson),
        _ => {
            let message =
                format!("the media type {kind:?} is not spoken, application/json and application/x-ndjson are");
            Err(ApiError::new(ErrorCode::Unimplemented, message).with_field("Content-Type").into())
        }
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, ApiErrorResponse> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = given.next() else { return Ok(Encoding::Identity) };
    let spoken = value.to_str().ok().and_then(Encoding::from_name).filter(|_| given.next().is_none());
    let unspoken = || {
        let message = "this Content-Encoding is not spoken; gzip, zstd or identity, applied once, are";
        ApiError::new(ErrorCode::Unimplemented, message).with_field("Content-Encoding").into()
    };
    spoken.ok_or_else(unspoken)
}

fn batch_of(headers: &HeaderMap) -> Result<Option<BatchIdentity>, ApiErrorResponse> {
    let key = single(headers, &IDEMPOTENCY_KEY)?;
    Ok(key.map(|key| identity::of_key(key.as_bytes())).transpose()?)
}

/// A header's value; a header that comes twice, or is no text, means nothing that could be relied on.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(ApiError::invalid(name.as_str(), format!("the header {name} must be given once, as visible ASCII"))),
    }
}
