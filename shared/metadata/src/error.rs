//! What can go wrong in the store, by what the caller can do about it.

use std::time::Duration;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A table of that name lives.
    #[error("a table of that name exists")]
    AlreadyExists,
    /// There is no such table, or this life of it has ended.
    #[error("no such table")]
    NotFound,
    /// Another writer was faster: read again, then decide again.
    #[error("another writer changed it in between")]
    Conflict,
    /// The store was written by a newer version of this program; nothing was touched.
    #[error("the metadata has format {found}, this program knows up to {known}")]
    Newer {
        /// The format found.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
    /// What is stored cannot be what this program wrote.
    #[error("stored {what} is damaged")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// Another took over what the caller held: stop doing it.
    #[error("another has taken over since")]
    Fenced,
    /// The store has failed several times in a row and is not asked for now.
    #[error("the metadata store is away, it is tried again in {retry_after:?}")]
    Away {
        /// When it is tried again.
        retry_after: Duration,
    },
    /// The store did not answer in time. Whether a change was made is unknown.
    #[error("the metadata store did not answer in {0:?}")]
    TimedOut(Duration),
    /// The address of the store cannot be read. It is not shown, for it may hold a password.
    #[error("the address of the metadata store is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Address,
    /// The database failed; trying again may help.
    #[error("access the metadata")]
    Database(#[from] sqlx::Error),
}
