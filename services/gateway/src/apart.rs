//! What takes longer than the calls of a connection should wait for one of them.

use std::{future::Future, panic::resume_unwind};

use tokio::task::JoinSet;
use tracing::Instrument as _;
use types::ApiError;

/// Messages up to this many bytes are worked on in the task of their connection: some ten events, and some microseconds, so that all
/// that a read brings are done within a millisecond or so.
const APART_BYTES_MIN: usize = 2 << 10;

/// Does the work of a call with a message of `bytes`: here, in the task of its connection, or in a task of its own where it is so
/// large that another processor may as well begin with it. Dropped, it ends the work.
///
/// # Errors
/// Those of the work; `UNAVAILABLE` where the server ends.
pub(crate) async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= APART_BYTES_MIN {
        return work.await;
    }
    let mut task = JoinSet::new();
    task.spawn(work.in_current_span());
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(ended)) if ended.is_panic() => resume_unwind(ended.into_panic()),
        _ => Err(ApiError::unavailable("the server is shutting down")),
    }
}
