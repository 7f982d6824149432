//! Calls of one small message that is answered with one, past the router.
//!
//! A router finds a route, clones its service, boxes its future and its bodies, and each layer does so again; around a call that
//! does next to nothing all that costs more than the call. A service that has such a method names it, and gets its calls here: with
//! the same credential, the same containment of panics, the same metrics and request id, and answers of the same form. Only calls
//! as all libraries send them come this way; others (compressed, with another method of HTTP) and, while each answer is logged, all
//! of them go to the router, which must know the method too.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::CatchUnwind};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::Service,
};
use tonic::{Code, Status, metadata::GRPC_CONTENT_TYPE};
use tower::Service as _;
use tracing::{Span, info_span};
use types::{ApiError, TenantId};

use crate::{
    Protocol,
    edge::{Edge, count_panic},
    error::to_status,
    request_id::{REQUEST_ID, RequestId},
    request_metrics::RequestMetrics,
};

// As constants they need not be read for each call.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What answers a call.
pub type Answering = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// Methods that are called past the router.
pub trait Direct: Send + Sync + 'static {
    /// The path of a method as it stands in metrics, if this answers it.
    fn method(&self, path: &str) -> Option<&'static str>;

    /// Answers a call with a message that has its prefix.
    fn call(&self, call: DirectCall) -> Answering;
}

/// A call whose caller is known.
#[derive(Debug)]
pub struct DirectCall {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its message with its prefix, as the network delivers it; without a limit of time.
    pub body: Incoming,
    service: &'static str,
    id: RequestId,
}

impl DirectCall {
    /// For what may log on behalf of the call. Making it costs more than many a call.
    pub fn span(&self) -> impl Fn() -> Span + Send + use<> {
        let (service, id, tenant) = (self.service, self.id.clone(), self.tenant.0);
        move || info_span!("request", service, request_id = id.as_str(), tenant)
    }
}

/// Methods behind an edge of their own.
pub(crate) struct DirectPort {
    pub(crate) methods: Arc<dyn Direct>,
    pub(crate) edge: Edge,
}

/// What answers the requests of a port.
#[derive(Clone)]
pub(crate) struct PortService {
    router: Router,
    direct: Option<Arc<DirectPort>>,
}

impl PortService {
    /// `direct` first, if there is any, then `router`, which has its edge.
    pub(crate) fn new(router: Router, direct: Option<DirectPort>) -> Self {
        Self { router, direct: direct.map(Arc::new) }
    }

    fn direct(&self, request: &Request<Incoming>) -> Option<(&DirectPort, &'static str)> {
        let direct = self.direct.as_deref()?;
        let method = direct.methods.method(request.uri().path())?;
        let headers = request.headers();
        let plain = request.method() == Method::POST
            && !headers.contains_key(GRPC_ENCODING)
            && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == GRPC_CONTENT_TYPE);
        (plain && !tracing::enabled!(tracing::Level::DEBUG)).then_some((direct, method))
    }
}

impl Service<Request<Incoming>> for PortService {
    type Response = Response<PortBody>;
    type Error = Infallible;
    type Future = PortFuture;

    fn call(&self, request: Request<Incoming>) -> PortFuture {
        if let Some((direct, method)) = self.direct(&request) {
            return PortFuture::Direct(DirectFuture::start(direct, method, request));
        }
        let answer = self.router.clone().call(request);
        PortFuture::Router(Box::pin(async move { Ok(answer.await?.map(PortBody::Any)) }))
    }
}

/// The answer of a port on its way.
pub(crate) enum PortFuture {
    Router(Pin<Box<dyn Future<Output = Result<Response<PortBody>, Infallible>> + Send>>),
    Direct(DirectFuture),
}

impl Future for PortFuture {
    type Output = Result<Response<PortBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Router(answer) => answer.as_mut().poll(cx),
            Self::Direct(answer) => Pin::new(answer).poll(cx),
        }
    }
}

/// A direct call until it is answered; recorded once, also when its client leaves before.
pub(crate) struct DirectFuture {
    /// `Err`: it is refused, and nobody is asked.
    answer: Result<CatchUnwind<AssertUnwindSafe<Answering>>, Option<Status>>,
    id: RequestId,
    service: &'static str,
    metrics: Arc<RequestMetrics>,
    method: &'static str,
    started: Instant,
    is_recorded: bool,
}

impl DirectFuture {
    fn start(direct: &DirectPort, method: &'static str, request: Request<Incoming>) -> Self {
        let DirectPort { methods, edge } = direct;
        let started = Instant::now();
        let id = RequestId::accept_or_make(request.headers());
        let answer = match edge.authenticator.tenant(request.headers()) {
            Ok(tenant) => {
                let call = DirectCall { tenant, body: request.into_body(), service: edge.service, id: id.clone() };
                Ok(AssertUnwindSafe(methods.call(call)).catch_unwind())
            }
            Err(error) => Err(Some(to_status(&error))),
        };
        let metrics = edge.metrics.clone();
        Self { answer, id, service: edge.service, metrics, method, started, is_recorded: false }
    }

    fn record(&mut self, code: Code) {
        if !std::mem::replace(&mut self.is_recorded, true) {
            let seconds = self.started.elapsed().as_secs_f64();
            self.metrics.record(self.method, code as u16, Protocol::Grpc, seconds);
        }
    }
}

impl Future for DirectFuture {
    type Output = Result<Response<PortBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.answer {
            Err(refused) => Err(refused.take().unwrap_or_else(|| Status::internal("polled after its end"))),
            Ok(answer) => match ready!(answer.poll_unpin(cx)) {
                Ok(answer) => answer,
                Err(_panic) => {
                    count_panic(self.service);
                    Err(to_status(&ApiError::internal("a defect of the server ended this request; it is logged")))
                }
            },
        };
        self.record(answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        let mut response = match answer {
            Ok(message) => {
                let mut response = Response::new(PortBody::Message(Some(message)));
                response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
                response
            }
            Err(status) => status.into_http::<Body>().map(PortBody::Any),
        };
        response.headers_mut().insert(REQUEST_ID, self.id.header_value());
        Poll::Ready(Ok(response))
    }
}

impl Drop for DirectFuture {
    /// A call that ends without an answer was left by its client.
    fn drop(&mut self) {
        self.record(Code::Cancelled);
    }
}

/// The body of an answer.
pub(crate) enum PortBody {
    /// The router's.
    Any(Body),
    /// One gRPC message, then the trailers of success; `None`: the trailers are next.
    Message(Option<Bytes>),
    /// Nothing more.
    Ended,
}

impl HttpBody for PortBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let message = match &mut *self {
            Self::Any(body) => return Pin::new(body).poll_frame(cx),
            Self::Ended => return Poll::Ready(None),
            Self::Message(message) => message.take(),
        };
        if let Some(message) = message {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        *self = Self::Ended;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Any(body) => body.is_end_stream(),
            Self::Message(_) => false,
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Any(body) => body.size_hint(),
            Self::Message(_) | Self::Ended => SizeHint::default(),
        }
    }
}
