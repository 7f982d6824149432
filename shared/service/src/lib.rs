//! Lifecycle of a service: sockets, limits, logs, metrics, health, ordered shutdown.
//!
//! 1. Every port of every service is served by one accept loop ([`HttpLimits`] says within which limits), behind one
//!    middleware: request id, credential, time limit of the body, containment of panics, metrics.
//!    Calls of one small message may pass by the router, behind an edge of the same promises ([`Direct`]).
//! 2. A service hands over its routes and gets a [`Running`]; it opens no socket and installs no handler of its own.
//! 3. Whatever a client sees of a failure is a [`types::ApiError`], as JSON or as a gRPC status.
//! 4. Labels of metrics come from routes, never from what clients send.

mod auth;
mod bind;
mod body;
mod calls;
mod direct;
mod edge;
mod error;
mod health;
mod host;
mod io;
mod logs;
mod metrics_page;
mod openapi;
mod request_id;
mod request_metrics;
mod serve;
mod shutdown;
mod timed_body;
mod unread;

pub use auth::Authenticator;
pub use bind::{BindError, bind};
pub use body::read_body;
pub use calls::Calls;
pub use direct::{Answering, Direct, DirectCall};
pub use error::{ApiErrorResponse, ApiResult, FIELD_METADATA, RETRY_AFTER_METADATA, to_status};
pub use health::{Health, HealthStatus};
pub use host::{Drained, Host, Parts, Running, StartError};
pub use logs::{LogFormat, LogsError, init_logs};
pub use metrics_page::Metrics;
pub use openapi::openapi;
pub use request_id::RequestId;
pub use serve::{HttpLimits, Protocol};
pub use shutdown::Shutdown;
pub use tonic::service::Routes;
pub use tracing::level_filters::LevelFilter;
pub use unread::Unread;
