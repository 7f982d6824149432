//! What can go wrong in the store, by what the caller can do about it.

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
    /// The database failed; trying again may help.
    #[error("access the metadata")]
    Database(#[from] sqlx::Error),
}
