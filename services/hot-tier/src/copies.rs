//! The checkpoints of this node, for a node that is to hold one of its partitions.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use id_store::{CheckpointError, FileOf, NewestCheckpoint, open_newest};
use metrics::counter;
use proto::checkpoints::{COPY_BYTES_MAX, Checkpoints, CopyPart, CopyRequest, CopyStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use types::{ApiError, ErrorCode, LogIdentity};

/// Copies that are made at a time; others are told to come back.
const COPIES_MAX: usize = 4;
/// Parts that are read before the caller has taken those before.
const PARTS_AHEAD: usize = 2;
/// When one who was told so is to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What this node gives of its checkpoints. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Copies {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where they lie, and of which log they are; not known before the first partition is opened.
    place: OnceLock<(PathBuf, LogIdentity)>,
    places: Arc<Semaphore>,
    /// Of each copy.
    bytes_per_second: u64,
}

impl Copies {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let places = Arc::new(Semaphore::new(COPIES_MAX));
        Self { inner: Arc::new(Inner { place: OnceLock::new(), places, bytes_per_second: bytes_per_second.max(1) }) }
    }

    /// Checkpoints lie there from now on; they never lie elsewhere later.
    pub(crate) fn lie_in(&self, dir: PathBuf, log: LogIdentity) {
        let _ = self.inner.place.set((dir, log));
    }
}

#[async_trait]
impl Checkpoints for Copies {
    async fn copy(&self, request: CopyRequest) -> Result<CopyStream, ApiError> {
        let CopyRequest { partition, log, has } = request;
        let Some((dir, of)) = self.inner.place.get().cloned() else {
            return Err(ApiError::unavailable("the node has not opened a partition yet"));
        };
        if log != of {
            let message = format!("the checkpoints here are of log {of}, not of {log}");
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message));
        }
        let Ok(place) = Arc::clone(&self.inner.places).try_acquire_owned() else {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "as many checkpoints are being copied as may be");
            return Err(error.with_retry_after(RETRY_AFTER));
        };
        let opened = tokio::task::spawn_blocking(move || open_newest(&dir, partition, log)).await;
        let opened = opened.map_err(|error| ApiError::internal(format!("opening a checkpoint failed: {error}")))?;
        let newest = opened.map_err(|error| unreadable(&error))?.filter(|newest| Some(newest.next_offset) > has);
        let Some(newest) = newest else {
            let message = format!("there is no newer checkpoint of partition {partition} here");
            return Err(ApiError::new(ErrorCode::NotFound, message));
        };
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        let bytes_per_second = self.inner.bytes_per_second;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            send(newest, bytes_per_second, &sender);
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

fn unreadable(error: &CheckpointError) -> ApiError {
    ApiError::unavailable(format!("a checkpoint cannot be read: {error}"))
}

/// Sends all files, at the rate at which checkpoints are written, for they are read from the same disk; ends when the caller has
/// left.
fn send(newest: NewestCheckpoint, bytes_per_second: u64, to: &mpsc::Sender<Result<CopyPart, ApiError>>) {
    let (began, mut sent) = (Instant::now(), 0);
    let head = CopyPart::Head { next_offset: newest.next_offset, bytes: newest.bytes() };
    let give = |part| to.blocking_send(part).is_ok();
    if !give(Ok(head)) {
        return;
    }
    for mut file in newest.files {
        if !give(Ok(CopyPart::File { ids: file.of == FileOf::Ids, name: file.name.clone() })) {
            return;
        }
        loop {
            let mut buffer = vec![0; COPY_BYTES_MAX];
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => {
                    buffer.truncate(bytes);
                    sent += bytes as u64;
                    counter!("truenow_checkpoint_sent_bytes_total").increment(bytes as u64);
                    if !give(Ok(CopyPart::Bytes(buffer.into()))) {
                        return;
                    }
                }
                Err(error) => {
                    let _ = give(Err(ApiError::unavailable(format!("read {}: {error}", file.name))));
                    return;
                }
            }
            let due = Duration::from_secs_f64(sent as f64 / bytes_per_second as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
}
