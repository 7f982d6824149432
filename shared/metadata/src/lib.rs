//! Tables, schemas, placement and what processes agree on, kept in SQLite (one machine) or PostgreSQL (a cluster).
//!
//! 1. Ids are never reused: a name keeps its table id for ever, each creation under it is one more generation.
//! 2. A change of a table states the version that it changes; of two writers that read the same version one gets
//!    [`MetadataError::Conflict`] and reads again.
//! 3. What a method returns is on disk. A table's change is announced in the log after that; the store remembers which
//!    version was announced, so that a crash between the two is found and repaired.
//! 4. Processes that keep tables in memory follow [`MetadataStore::changes`] by its version: transactions that change tables
//!    take turns, so versions become visible in their order and a reader that asks for what came after the last one that it
//!    saw misses nothing, however long it was away.
//! 5. Randomness is an argument. Time is the store's where processes have to agree on it ([`Coordination`]), else an argument.
//! 6. Both stores run the same statements (`sql/`), compiled for each, and pass one suite.

#![allow(clippy::duplicate_mod, reason = "what stands in `sql/` is compiled for each database")]

mod coordination;
mod error;
mod liveness;
mod postgres;
mod sqlite;
mod stored;

use async_trait::async_trait;
use types::{Generation, SchemaVersion, Table, TableId, TableKey, TableName, TenantId, Timestamp};

pub use coordination::{
    ALL_TENANTS, Claim, Coordination, Lease, NodeDescription, NodeRecord, SHARE_WHOLE, Share, Want,
};
pub use error::MetadataError;
pub use liveness::Liveness;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// A table and how far its changes are known to be in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTable {
    /// The table; its last state where it has ended.
    pub table: Table,
    /// The newest version whose control record is durable in all of its log partitions; 0 where none is.
    pub announced: SchemaVersion,
    /// Whether this life has ended.
    pub ended: bool,
}

impl StoredTable {
    /// Whether the newest state of a living table is durable in its log partitions.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        !self.ended && self.announced == self.table.schema.version()
    }
}

/// The key that the next life of a name will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The table's id, the same for every life of the name.
    pub table: TableId,
    /// One more than that of the last life; 1 where there was none.
    pub generation: Generation,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, for people.
    pub name: String,
    /// When it was first seen.
    pub created_at: Timestamp,
}

/// What changed since a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// From which version on to ask next. It rises with every change of tables and of the placement map, and is never 0.
    pub version: u64,
    /// The newest state of each life that changed, in the order of their last changes.
    pub tables: Vec<StoredTable>,
}

/// What the control plane keeps. Every method is atomic, and durable when it returns.
#[async_trait]
pub trait MetadataStore: Coordination {
    /// Notes a tenant; one that is known stays as it is.
    ///
    /// # Errors
    /// The store failed.
    async fn ensure_tenant(&self, tenant: &Tenant) -> Result<(), MetadataError>;

    /// All tenants, by id.
    ///
    /// # Errors
    /// The store failed.
    async fn tenants(&self) -> Result<Vec<Tenant>, MetadataError>;

    /// The key of the next life of a name. Gives the name its id if it has none; asking twice gives the same.
    ///
    /// # Errors
    /// The store failed.
    async fn reserve_table(&self, tenant: TenantId, name: &TableName) -> Result<Reservation, MetadataError>;

    /// Stores a new life of a table under its reserved key, not yet announced.
    ///
    /// # Errors
    /// [`MetadataError::AlreadyExists`] where a table of that name lives; [`MetadataError::Conflict`] where the key is no
    /// longer the reserved one; the store failed.
    async fn create_table(&self, table: &Table) -> Result<(), MetadataError>;

    /// The living table of a name.
    ///
    /// # Errors
    /// The store failed.
    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Option<StoredTable>, MetadataError>;

    /// The table of a key, also one that has ended.
    ///
    /// # Errors
    /// The store failed.
    async fn table_by_key(&self, key: TableKey) -> Result<Option<StoredTable>, MetadataError>;

    /// The living tables of a tenant, or of all (`None`), by tenant and name.
    ///
    /// # Errors
    /// The store failed.
    async fn tables(&self, tenant: Option<TenantId>) -> Result<Vec<StoredTable>, MetadataError>;

    /// Replaces a living table's settings and adds the columns that `table` has beyond the stored ones.
    ///
    /// # Errors
    /// [`MetadataError::Conflict`] where the stored version is not `expected`; [`MetadataError::NotFound`] where this life has
    /// ended; the store failed.
    async fn update_table(&self, table: &Table, expected: SchemaVersion) -> Result<(), MetadataError>;

    /// Ends a life, not yet announced.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`] where it is not living; the store failed.
    async fn end_table(&self, key: TableKey) -> Result<(), MetadataError>;

    /// Notes that the control record of `version` is durable in all log partitions of the table. Never goes back.
    ///
    /// # Errors
    /// The store failed.
    async fn mark_announced(&self, key: TableKey, version: SchemaVersion) -> Result<(), MetadataError>;

    /// Notes that the end of a life is durable in all log partitions of the table.
    ///
    /// # Errors
    /// The store failed.
    async fn mark_end_announced(&self, key: TableKey) -> Result<(), MetadataError>;

    /// Tables whose newest state, or whose end, is not known to be in the log; ends first, then by id and generation.
    ///
    /// # Errors
    /// The store failed.
    async fn unannounced(&self) -> Result<Vec<StoredTable>, MetadataError>;

    /// What changed after version `since`, which an earlier call gave; 0: all that lives. A version that the store has not
    /// reached (it was restored from a backup) counts as 0.
    ///
    /// # Errors
    /// The store failed.
    async fn changes(&self, since: u64) -> Result<Changes, MetadataError>;

    /// The secret of a name: the stored one, else `fresh`, which is stored. The caller draws `fresh` from a secure source.
    ///
    /// # Errors
    /// The store failed.
    async fn secret(&self, name: &str, fresh: [u8; SECRET_BYTES]) -> Result<[u8; SECRET_BYTES], MetadataError>;

    /// Waits for what runs and closes the store; later calls fail.
    async fn close(&self);
}
