//! What goes wrong on the way to the server, and whether sending again may help.

use std::time::Duration;

use proto::v1::Refusal;
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

/// The metadata that says when to try again, in seconds.
const RETRY_AFTER_METADATA: &str = "retry-after";
/// The same in milliseconds, where a refusal said it so.
const RETRY_AFTER_MS_METADATA: &str = "retry-after-ms";

/// Why batches did not reach the server. Those that were not acked may have been stored; sending them again with the same
/// options is safe.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{address:?} is not an address such as http://127.0.0.1:9088")]
    Address {
        /// As it was given.
        address: String,
    },
    /// The API key cannot be sent.
    #[error("the API key must be visible ASCII")]
    ApiKey,
    /// Nobody answers.
    #[error("connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server refuses for good.
    #[error("the server refuses: {}", .0.message())]
    Refused(Box<Status>),
    /// The server did not take a batch in all the time that the retry policy gives it.
    #[error("gave up after {attempts} attempts in {waited:?}: {}", .last.message())]
    GaveUp {
        /// How often it was sent.
        attempts: u32,
        /// Time that was waited between attempts.
        waited: Duration,
        /// The last answer.
        last: Box<Status>,
    },
    /// The server describes a table that cannot be.
    #[error("the server's description of the table is not usable: {0}")]
    Description(&'static str),
    /// A batch was refused before, so nothing more is sent.
    #[error("an earlier batch failed")]
    Stopped,
}

/// Why a row was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The row itself; the writer goes on with the next.
    #[error("{0}")]
    Row(String),
    /// The way to the server; the writer has stopped.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The refusal of one batch of a stream, as the status that a unary call would have got.
pub(crate) fn refused_status(refused: Refusal) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(RETRY_AFTER_MS_METADATA, AsciiMetadataValue::from(refused.retry_after_ms));
    Status::with_metadata(Code::ResourceExhausted, refused.message, metadata)
}

/// What a failed attempt says about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Sending again cannot help.
    Final,
    /// Sending again may help, not before this.
    Again {
        /// What the server asked for.
        after: Duration,
    },
}

/// Reads a status. `RESOURCE_EXHAUSTED` is a limit that passes only where it says when; else the request is too large.
pub(crate) fn verdict(status: &Status) -> Verdict {
    let number = |name| status.metadata().get(name).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = number(RETRY_AFTER_MS_METADATA).map(Duration::from_millis);
    let after = after.or_else(|| number(RETRY_AFTER_METADATA).map(Duration::from_secs));
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::Unknown => {
            Verdict::Again { after: after.unwrap_or_default() }
        }
        Code::ResourceExhausted => after.map_or(Verdict::Final, |after| Verdict::Again { after }),
        _ => Verdict::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what may pass is tried again, not before the server's time; what is too large or wrong is not.
    #[test]
    fn statuses_are_told_apart() {
        let mut metadata = MetadataMap::new();
        metadata.insert(RETRY_AFTER_METADATA, "3".parse().unwrap());
        let limited = Status::with_metadata(Code::ResourceExhausted, "later", metadata);
        assert_eq!(verdict(&limited), Verdict::Again { after: Duration::from_secs(3) });
        assert_eq!(verdict(&Status::resource_exhausted("too large")), Verdict::Final);
        let refused = refused_status(Refusal { retry_after_ms: 1_300, ..Refusal::default() });
        assert_eq!(verdict(&refused), Verdict::Again { after: Duration::from_millis(1_300) });
        assert_eq!(verdict(&Status::unavailable("log")), Verdict::Again { after: Duration::ZERO });
        assert_eq!(verdict(&Status::invalid_argument("no")), Verdict::Final);
        assert_eq!(verdict(&Status::unauthenticated("no")), Verdict::Final);
    }
}
