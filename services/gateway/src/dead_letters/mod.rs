//! Events that were refused, kept so that their senders can look at them and send them again.
//!
//! 1. A letter is on disk, synced, before the reply that rejects its event.
//! 2. Letters lie in append-only files, a directory per table; each line carries its checksum, so a line that was cut
//!    off or damaged is noticed. What a crash cut off at the end of a file is removed when the store opens.
//! 3. The store never grows beyond its limits: when a table or the whole store is full its oldest file leaves, counted.
//! 4. One thread owns the files; letters that arrive while it syncs go along with its next sync, which takes the files of
//!    all tables side by side.

mod counts;
mod files;
mod line;
mod store;

pub use counts::Counts;
pub use files::Limits;
pub use store::{DeadLetterError, DeadLetters, Page};

use serde_json::value::RawValue;
use types::{ApiError, ErrorCode, TableName, TenantId, Timestamp};

/// A refused event.
#[derive(Debug, Clone)]
pub struct Letter {
    /// When it was received.
    pub received: Timestamp,
    /// Why it was refused, as a code.
    pub code: ErrorCode,
    /// Why it was refused, in words.
    pub message: String,
    /// The event as it was sent; what is no JSON is a JSON string.
    pub event: Box<RawValue>,
}

/// Whose letters: the directory that they lie in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Drawer {
    /// The tenant.
    pub tenant: TenantId,
    /// The table that the events named, whether it exists or not.
    pub table: TableName,
}

impl Drawer {
    /// The drawer of a table's letters; `None` where the names are none that a table can have.
    #[must_use]
    pub fn new(tenant: TenantId, table: TableName) -> Option<Self> {
        let valid = types::check_table_name(&table.namespace).is_ok() && types::check_table_name(&table.table).is_ok();
        valid.then_some(Self { tenant, table })
    }
}

impl From<DeadLetterError> for ApiError {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Cursor => Self::invalid("cursor", "cursor is not one that this table's letters gave"),
            DeadLetterError::Busy | DeadLetterError::Closed | DeadLetterError::Io(_) => {
                Self::unavailable(format!("dead letters cannot be kept: {error}"))
            }
        }
    }
}
