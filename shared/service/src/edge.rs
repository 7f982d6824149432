//! What every request passes on its way to a handler, and every answer on its way back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use metrics::counter;
use tracing::{Instrument as _, info_span};
use types::{ApiError, TenantId};

use crate::{
    Authenticator, Protocol,
    auth::INTERNAL_PREFIX,
    error::{ApiErrorResponse, in_contract_shape, to_status, unknown_method, unknown_route},
    request_id::{REQUEST_ID, RequestId},
    request_metrics::{Recording, RequestMetrics},
    timed_body::TimedBody,
};

/// Endpoints that need no credential: orchestrators and Prometheus have none.
const OPEN_ENDPOINTS: [&str; 5] = ["/health", "/live", "/metrics", "/openapi.json", "/grpc.health.v1.Health/{*rest}"];

/// What a port's requests are measured and judged by.
pub(crate) struct Edge {
    pub(crate) service: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) authenticator: Authenticator,
    pub(crate) body_timeout: Duration,
    pub(crate) metrics: Arc<RequestMetrics>,
}

/// Puts the edge around a port's routes.
pub(crate) fn behind_edge(router: Router, edge: Edge) -> Router {
    let router = match edge.protocol {
        Protocol::Http => router.fallback(unknown_route).method_not_allowed_fallback(unknown_method),
        // The routes of gRPC bring their own answer for what they do not know.
        Protocol::Grpc => router,
    };
    router.layer(from_fn_with_state(Arc::new(edge), pass))
}

async fn pass(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = RequestId::accept_or_make(request.headers());
    let is_open = route.as_ref().is_some_and(|route| OPEN_ENDPOINTS.contains(&route.as_str()));
    let recording = Recording::start(edge.metrics.clone(), edge.protocol, route, request.uri().clone());
    let tenant = match request.uri().path() {
        _ if is_open => Ok(TenantId::DEFAULT),
        // Such a call names its tenant itself.
        path if edge.protocol == Protocol::Grpc && path.starts_with(INTERNAL_PREFIX) => {
            edge.authenticator.internal(path, request.headers()).map(|()| TenantId::DEFAULT)
        }
        _ => edge.authenticator.tenant(request.headers()),
    };
    // All fields at once: to add one later is to read and write anew, as JSON, those that are there.
    let known = tenant.as_ref().ok().map(|tenant| tenant.0);
    let span = info_span!("request", service = edge.service, request_id = id.as_str(), tenant = known);
    let answer = match tenant {
        Ok(tenant) => {
            request.extensions_mut().insert(tenant);
            request.extensions_mut().insert(id.clone());
            let request = request.map(|body| edge.timed(body));
            handle(&edge, request, next).instrument(span.clone()).await
        }
        Err(error) => edge.error(error),
    };
    let mut response = match edge.protocol {
        Protocol::Http => in_contract_shape(answer).await,
        Protocol::Grpc => answer,
    };
    response.headers_mut().insert(REQUEST_ID, id.header_value());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    match edge.protocol {
        Protocol::Http => {
            recording.http(response.status());
            response
        }
        Protocol::Grpc => observe(response, recording, &edge),
    }
}

/// Runs the handler. A panic ends this request alone; the hook has logged it by then.
async fn handle(edge: &Edge, request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            count_panic(edge.service);
            edge.error(ApiError::internal("a defect of the server ended this request; it is logged"))
        }
    }
}

/// Counts a panic of a handler.
pub(crate) fn count_panic(service: &'static str) {
    counter!("truenow_panics_total", "service" => service).increment(1);
}

impl Edge {
    /// An error in the shape of the protocol.
    fn error(&self, error: ApiError) -> Response {
        match self.protocol {
            Protocol::Http => ApiErrorResponse(error).into_response(),
            Protocol::Grpc => to_status(&error).into_http(),
        }
    }

    fn timed(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        match self.protocol {
            Protocol::Http => Body::new(TimedBody::whole(body, self.body_timeout)),
            Protocol::Grpc => Body::new(TimedBody::per_message(body, self.body_timeout)),
        }
    }
}

/// Records a gRPC answer when its trailers pass, and contains panics of what streams it.
fn observe(response: Response, mut recording: Recording, edge: &Edge) -> Response {
    if recording.grpc_headers(response.headers()) {
        return response;
    }
    let service = edge.service;
    response.map(|inner| Body::new(ObservedBody { inner, recording, service, has_panicked: false }))
}

/// The body of a gRPC answer.
struct ObservedBody {
    inner: Body,
    recording: Recording,
    service: &'static str,
    has_panicked: bool,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.has_panicked {
            return Poll::Ready(None);
        }
        // A body that has panicked is not polled again, so nothing sees what the panic may have left half done.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.inner).poll_frame(cx)));
        let Ok(polled) = polled else {
            this.has_panicked = true;
            count_panic(this.service);
            let status = tonic::Status::internal("a defect of the server ended this stream; it is logged");
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers).expect("the message is plain ASCII");
            this.recording.grpc_trailers(&trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.recording.grpc_trailers(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.has_panicked || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
