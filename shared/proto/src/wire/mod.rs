//! What all boundaries share between processes: errors that travel whole, calls that show the cluster's key, times that end.

mod connect;
mod error;
mod serve;

pub use connect::{Connector, Signed, Signer};
pub use error::{error_of, status_of};
pub use serve::{call, in_time, timed};

use types::ApiError;

/// Why a message of another process means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of another process has {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for ApiError {
    fn from(malformed: Malformed) -> Self {
        Self::internal(malformed.to_string())
    }
}
