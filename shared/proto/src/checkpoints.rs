//! Checkpoints on their way from one node of the hot tier to another: the files of one partition, in parts.
//!
//! Each part of a file carries a checksum of its bytes and its place, and the end is said: what was lost, doubled or cut off on
//! the way is noticed before any of it is used.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};
use types::{ApiError, LogIdentity, Offset, PartitionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    internal::{
        CopyBytes, CopyEnd, CopyFile, CopyHead, CopyPart as Message, CopyRequest as RequestMessage, checkpoints_client,
        checkpoints_server, copy_part::Part as Kind,
    },
    wire::{Signed, error_of, status_of},
};

/// Longest message that is read, bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a file in one part.
pub const COPY_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(COPY_BYTES_MAX * 2 < MESSAGE_BYTES_MAX);

/// Which checkpoint is asked for: the newest of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRequest {
    /// The partition.
    pub partition: PartitionId,
    /// The log that its offsets are of.
    pub log: LogIdentity,
    /// Where the newest that the caller has goes on; only a newer one is of use.
    pub has: Option<Offset>,
}

/// Some of a checkpoint. First comes the head; the bytes of a file follow its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPart {
    /// What comes.
    Head {
        /// Where the checkpoint goes on.
        next_offset: Offset,
        /// Bytes of all its files.
        bytes: u64,
    },
    /// A file begins.
    File {
        /// Whether it is a run of ids; else it is of the checkpoint.
        ids: bool,
        /// Its name.
        name: String,
    },
    /// The next bytes of the file, at most [`COPY_BYTES_MAX`].
    Bytes(Bytes),
}

/// The parts of a checkpoint; whole only where the stream ends without an error.
pub type CopyStream = BoxStream<'static, Result<CopyPart, ApiError>>;

/// Who has checkpoints.
#[async_trait]
pub trait Checkpoints: Send + Sync + 'static {
    /// The newest checkpoint of a partition.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is none, or none newer than what the caller has; `FAILED_PRECONDITION` where it is of another log;
    /// `RESOURCE_EXHAUSTED` where others copy; `UNAVAILABLE`.
    async fn copy(&self, request: CopyRequest) -> Result<CopyStream, ApiError>;
}

/// Checkpoints for other processes.
pub struct CheckpointsService<C>(C);

impl<C: Checkpoints> CheckpointsService<C> {
    /// The service to put on a port.
    pub fn server(checkpoints: C) -> checkpoints_server::CheckpointsServer<Self> {
        checkpoints_server::CheckpointsServer::new(Self(checkpoints))
    }
}

#[tonic::async_trait]
impl<C: Checkpoints> checkpoints_server::Checkpoints for CheckpointsService<C> {
    type CopyStream = BoxStream<'static, Result<Message, Status>>;

    async fn copy(&self, request: Request<RequestMessage>) -> Result<Response<Self::CopyStream>, Status> {
        let message = request.into_inner();
        let request = CopyRequest {
            partition: PartitionId(message.partition),
            log: LogIdentity(u128::from(message.log_high) << 64 | u128::from(message.log_low)),
            has: message.has.map(Offset),
        };
        let parts = self.0.copy(request).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(messages(parts).boxed()))
    }
}

/// Parts as messages, and the end behind them; nothing comes behind an error.
fn messages(parts: impl Stream<Item = Result<CopyPart, ApiError>>) -> impl Stream<Item = Result<Message, Status>> {
    let end = futures_util::stream::once(async { Ok(None) });
    let all = parts.map(|part| part.map(Some)).chain(end);
    all.scan((0, false), |(sent, failed), part| {
        let message = match part {
            _ if *failed => return std::future::ready(None),
            Ok(part) => Ok(message(part, sent)),
            Err(error) => {
                *failed = true;
                Err(status_of(&error))
            }
        };
        std::future::ready(Some(message))
    })
}

/// The message of a part, `None` being the end; `sent`: bytes of files before.
fn message(part: Option<CopyPart>, sent: &mut u64) -> Message {
    let kind = match part {
        Some(CopyPart::Head { next_offset, bytes }) => Kind::Head(CopyHead { next_offset: next_offset.0, bytes }),
        Some(CopyPart::File { ids, name }) => Kind::File(CopyFile { ids, name }),
        Some(CopyPart::Bytes(bytes)) => {
            let checksum = xxh3_64_with_seed(&bytes, *sent);
            *sent += bytes.len() as u64;
            Kind::Bytes(CopyBytes { bytes, checksum })
        }
        None => Kind::End(CopyEnd {}),
    };
    Message { part: Some(kind) }
}

/// Reads the messages of one checkpoint.
#[derive(Default)]
struct Receiving {
    /// Bytes of files so far.
    received: u64,
    /// Bytes that there are to be.
    bytes: Option<u64>,
    ended: bool,
}

impl Receiving {
    /// The part that a message is; `None`: the end of a whole checkpoint.
    fn read(&mut self, message: Message) -> Result<Option<CopyPart>, ApiError> {
        let broken = |what: &str| Err(ApiError::unavailable(format!("a checkpoint did not arrive whole: {what}")));
        match message.part {
            _ if self.ended => broken("there is more behind its end"),
            Some(Kind::Head(head)) if self.bytes.is_none() => {
                self.bytes = Some(head.bytes);
                Ok(Some(CopyPart::Head { next_offset: Offset(head.next_offset), bytes: head.bytes }))
            }
            Some(Kind::File(file)) if self.bytes.is_some() => {
                Ok(Some(CopyPart::File { ids: file.ids, name: file.name }))
            }
            Some(Kind::Bytes(CopyBytes { bytes, checksum })) if self.bytes.is_some() => {
                if xxh3_64_with_seed(&bytes, self.received) != checksum {
                    return broken("a checksum is not that of its bytes");
                }
                self.received += bytes.len() as u64;
                Ok(Some(CopyPart::Bytes(bytes)))
            }
            Some(Kind::End(_)) if self.bytes == Some(self.received) => {
                self.ended = true;
                Ok(None)
            }
            Some(Kind::End(_)) => broken("bytes are missing"),
            _ => broken("a part is not in its place"),
        }
    }
}

/// The checkpoints of a node in another process.
#[derive(Clone)]
pub struct CheckpointsClient {
    client: checkpoints_client::CheckpointsClient<Signed>,
}

impl CheckpointsClient {
    /// Those behind a connection.
    #[must_use]
    pub fn new(connection: Signed) -> Self {
        let client = checkpoints_client::CheckpointsClient::new(connection);
        Self { client: client.max_decoding_message_size(MESSAGE_BYTES_MAX) }
    }
}

#[async_trait]
impl Checkpoints for CheckpointsClient {
    async fn copy(&self, request: CopyRequest) -> Result<CopyStream, ApiError> {
        let CopyRequest { partition, log, has } = request;
        let message = RequestMessage {
            partition: partition.0,
            log_high: (log.0 >> 64) as u64,
            log_low: log.0 as u64,
            has: has.map(|has| has.0),
        };
        let mut client = self.client.clone();
        let messages = client.copy(message).await.map_err(|status| error_of(&status))?.into_inner();
        let state = Some((messages, Receiving::default()));
        let parts = futures_util::stream::unfold(state, |state| async move {
            let (mut messages, mut receiving) = state?;
            let part = match messages.message().await {
                Ok(Some(message)) => receiving.read(message),
                Ok(None) => Err(ApiError::unavailable("a checkpoint did not arrive whole: its end is missing")),
                Err(status) => Err(error_of(&status)),
            };
            match part {
                Ok(Some(part)) => Some((Ok(part), Some((messages, receiving)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(parts.boxed())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    use super::*;

    /// What arrives of some messages: the parts, and whether they are whole.
    fn receive(messages: Vec<Message>) -> (Vec<CopyPart>, bool) {
        let (mut receiving, mut parts) = (Receiving::default(), Vec::new());
        for message in messages {
            match receiving.read(message) {
                Ok(Some(part)) => parts.push(part),
                Ok(None) => {}
                Err(_) => return (parts, false),
            }
        }
        (parts, receiving.ended)
    }

    fn sent(parts: &[CopyPart]) -> Vec<Message> {
        let parts = stream::iter(parts.to_vec()).map(Ok);
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(messages(parts).map(Result::unwrap).collect())
    }

    fn checkpoint(files: &[Vec<u8>]) -> Vec<CopyPart> {
        let bytes = files.iter().map(|file| file.len() as u64).sum();
        let mut parts = vec![CopyPart::Head { next_offset: Offset(7), bytes }];
        for (number, file) in files.iter().enumerate() {
            parts.push(CopyPart::File { ids: number % 2 == 0, name: number.to_string() });
            parts.extend(file.chunks(3).map(|bytes| CopyPart::Bytes(Bytes::copy_from_slice(bytes))));
        }
        parts
    }

    proptest! {
        /// Goal: what is sent arrives; where one message is lost, comes twice, or has a byte changed, that is not taken for whole.
        #[test]
        fn only_whole_checkpoints_arrive(
            files in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 1..4),
            at: prop::sample::Index,
            fault in 0..3,
        ) {
            let parts = checkpoint(&files);
            let messages = sent(&parts);
            prop_assert_eq!(receive(messages.clone()), (parts.clone(), true));
            let (mut damaged, at) = (messages.clone(), at.index(messages.len()));
            let is_name = matches!(messages[at].part, Some(Kind::File(_)));
            if fault == 0 {
                damaged.remove(at);
            } else if fault == 1 {
                damaged.insert(at, messages[at].clone());
            } else if let Some(Kind::Bytes(part)) = &mut damaged[at].part {
                let mut bytes = part.bytes.to_vec();
                bytes[0] ^= 1;
                part.bytes = bytes.into();
            } else {
                return Ok(());
            }
            // The names of files are checked by whoever opens the checkpoint: a file that is not there is missed by its name.
            prop_assert!(is_name || !receive(damaged).1);
        }
    }
}
