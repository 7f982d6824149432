//! Count and latency of requests per endpoint.
//!
//! 1. An endpoint is a route, or a gRPC method that exists; everything else shares one label, so that clients cannot
//!    make labels.
//! 2. The handles of an endpoint are looked up without a lock and made once.
//! 3. Every request is recorded once, also when its client leaves before the answer.

use std::{sync::Arc, time::Instant};

use axum::extract::MatchedPath;
use http::{HeaderMap, StatusCode, Uri};
use metrics::{Counter, Histogram, counter, histogram};
use tonic::Code;

use crate::Protocol;

/// The label of requests that no route took.
const UNKNOWN_ENDPOINT: &str = "unknown";
/// The code of an HTTP request whose client left.
const CLIENT_LEFT: u16 = 499;

/// The metrics of one service.
pub(crate) struct RequestMetrics {
    service: &'static str,
    endpoints: papaya::HashMap<Box<str>, Endpoint>,
}

struct Endpoint {
    seconds: Histogram,
    /// By HTTP status or gRPC code: the two do not overlap.
    codes: papaya::HashMap<u16, Counter>,
}

impl RequestMetrics {
    pub(crate) fn new(service: &'static str) -> Self {
        Self { service, endpoints: papaya::HashMap::new() }
    }

    /// Records a request.
    pub(crate) fn record(&self, label: &str, code: u16, protocol: Protocol, seconds: f64) {
        let endpoints = self.endpoints.pin();
        let endpoint = match endpoints.get(label) {
            Some(endpoint) => endpoint,
            None => endpoints.get_or_insert_with(label.into(), || self.endpoint(label)),
        };
        endpoint.seconds.record(seconds);
        let codes = endpoint.codes.pin();
        let total = match codes.get(&code) {
            Some(total) => total,
            None => codes.get_or_insert_with(code, || self.total(label, code, protocol)),
        };
        total.increment(1);
    }

    fn endpoint(&self, label: &str) -> Endpoint {
        let seconds = histogram!("truenow_request_seconds", "service" => self.service, "endpoint" => label.to_owned());
        Endpoint { seconds, codes: papaya::HashMap::new() }
    }

    fn total(&self, label: &str, code: u16, protocol: Protocol) -> Counter {
        let code = match protocol {
            Protocol::Http => code.to_string(),
            Protocol::Grpc => grpc_code_name(code).to_owned(),
        };
        counter!(
            "truenow_http_requests_total",
            "service" => self.service, "endpoint" => label.to_owned(), "code" => code
        )
    }
}

/// One request until it is recorded.
pub(crate) struct Recording {
    metrics: Arc<RequestMetrics>,
    protocol: Protocol,
    route: Option<MatchedPath>,
    uri: Uri,
    started: Instant,
    /// Whether a response's headers show that the method exists.
    is_known_method: bool,
    is_recorded: bool,
}

impl Recording {
    pub(crate) fn start(
        metrics: Arc<RequestMetrics>,
        protocol: Protocol,
        route: Option<MatchedPath>,
        uri: Uri,
    ) -> Self {
        Self { metrics, protocol, route, uri, started: Instant::now(), is_known_method: false, is_recorded: false }
    }

    /// Records an HTTP response.
    pub(crate) fn http(mut self, status: StatusCode) {
        self.record(status.as_u16());
    }

    /// Takes note of a gRPC response's headers; whether they are all that comes, and the request is recorded.
    pub(crate) fn grpc_headers(&mut self, headers: &HeaderMap) -> bool {
        let code = grpc_status(headers);
        self.is_known_method = code != Some(Code::Unimplemented as u16);
        code.map(|code| self.record(code)).is_some()
    }

    /// Records a gRPC response by its trailers.
    pub(crate) fn grpc_trailers(&mut self, trailers: &HeaderMap) {
        self.record(grpc_status(trailers).unwrap_or(Code::Unknown as u16));
    }

    fn record(&mut self, code: u16) {
        if !std::mem::replace(&mut self.is_recorded, true) {
            let seconds = self.started.elapsed().as_secs_f64();
            self.metrics.record(self.label(), code, self.protocol, seconds);
        }
    }

    fn label(&self) -> &str {
        match (&self.route, self.protocol) {
            (None, _) => UNKNOWN_ENDPOINT,
            (Some(_), Protocol::Grpc) if self.is_known_method => self.uri.path(),
            (Some(route), _) => route.as_str(),
        }
    }
}

impl Drop for Recording {
    /// A request that ends without an answer was left by its client.
    fn drop(&mut self) {
        let code = match self.protocol {
            Protocol::Http => CLIENT_LEFT,
            Protocol::Grpc => Code::Cancelled as u16,
        };
        self.record(code);
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn grpc_code_name(code: u16) -> &'static str {
    match Code::from_i32(code.into()) {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
