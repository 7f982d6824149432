//! The checkpoint of a partition from another node, put where this node looks for its own.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use id_store::{Arriving, FileOf};
use metrics::counter;
use proto::checkpoints::{Checkpoints, CopyPart, CopyRequest};
use service::Shutdown;
use tokio::sync::mpsc;
use types::{ApiError, ErrorCode, Offset};

/// Parts that arrived and are not written yet.
const PARTS_AHEAD: usize = 2;
/// For so long a source may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the thread that writes is told.
enum Told {
    Part(CopyPart),
    /// All has arrived.
    Whole,
}

/// A checkpoint that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Where it goes on.
    pub next_offset: Offset,
    /// Its bytes.
    pub bytes: u64,
}

/// Copies the newest checkpoint of a partition that is not open, and puts it in the place of what lies below `dir`. When this
/// returns nothing of it is written any more.
///
/// # Errors
/// Those of [`Checkpoints::copy`]; `CANCELLED` where `stop` ends it; `UNAVAILABLE` where it did not arrive whole or cannot be
/// written. What was there has not changed, unless the disk failed at the very end.
pub async fn fetch(
    source: &dyn Checkpoints,
    request: CopyRequest,
    dir: PathBuf,
    stop: &Shutdown,
) -> Result<Fetched, ApiError> {
    let fetched = copy(source, request, dir, stop).await;
    let outcome = match &fetched {
        Ok(_) => "copied",
        Err(error) if error.code == ErrorCode::NotFound => "none",
        Err(error) if error.code == ErrorCode::Cancelled => "cancelled",
        Err(_) => "failed",
    };
    counter!("truenow_checkpoint_copies_total", "outcome" => outcome).increment(1);
    fetched
}

async fn copy(
    source: &dyn Checkpoints,
    request: CopyRequest,
    dir: PathBuf,
    stop: &Shutdown,
) -> Result<Fetched, ApiError> {
    let cancelled = || ApiError::new(ErrorCode::Cancelled, "the partition is not wanted here any more");
    let mut parts = tokio::select! {
        biased;
        () = stop.wait() => return Err(cancelled()),
        parts = source.copy(request) => parts?,
    };
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    let writing = tokio::task::spawn_blocking(move || write(&dir, request, receiver));
    let sent = loop {
        let part = tokio::select! {
            biased;
            () = stop.wait() => break Err(cancelled()),
            part = tokio::time::timeout(SILENCE_MAX, parts.next()) => part,
        };
        let told = match part {
            Ok(Some(Ok(part))) => Told::Part(part),
            Ok(Some(Err(error))) => break Err(error),
            Ok(None) => break sender.send(Told::Whole).await.map_err(|_| not_written()),
            Err(_) => break Err(ApiError::unavailable("the source of a checkpoint sends nothing")),
        };
        if sender.send(told).await.is_err() {
            break Err(not_written());
        }
    };
    drop(sender);
    // Also where it was given up: whoever asks again finds nothing half done.
    let written = writing.await.map_err(|error| ApiError::internal(format!("writing a checkpoint failed: {error}")))?;
    match (sent, written) {
        (_, Err(error)) => Err(ApiError::unavailable(format!("write a checkpoint that arrives: {error}"))),
        (Err(error), Ok(_)) => Err(error),
        (Ok(()), Ok(fetched)) => fetched.ok_or_else(not_written),
    }
}

fn not_written() -> ApiError {
    ApiError::unavailable("a checkpoint that arrives is not written")
}

/// Writes what arrives; `None` where not all came.
fn write(dir: &Path, request: CopyRequest, mut parts: mpsc::Receiver<Told>) -> io::Result<Option<Fetched>> {
    let mut arriving = Arriving::begin(dir, request.partition)?;
    let mut fetched = Fetched { next_offset: Offset::ZERO, bytes: 0 };
    while let Some(told) = parts.blocking_recv() {
        match told {
            Told::Part(CopyPart::Head { next_offset, .. }) => fetched.next_offset = next_offset,
            Told::Part(CopyPart::File { ids, name }) => {
                arriving.begin_file(if ids { FileOf::Ids } else { FileOf::Checkpoint }, &name)?;
            }
            Told::Part(CopyPart::Bytes(more)) => {
                arriving.append(&more)?;
                fetched.bytes += more.len() as u64;
                counter!("truenow_checkpoint_received_bytes_total").increment(more.len() as u64);
            }
            Told::Whole => {
                arriving.finish()?;
                return Ok(Some(fetched));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
