//! The store in one SQLite file: a write-ahead log, an fsync per commit, one connection that writes and a few that read.

mod cluster;
mod schema;
mod tables;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use placement::PlacementMap;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use types::{SchemaVersion, Table, TableKey, TableName, TenantId};

use crate::{MetadataError, MetadataStore, NodeRecord, Reservation, SECRET_BYTES, StoredTable, Tenant};

/// Connections that read at once; more wait.
const READERS_MAX: u32 = 4;
/// How long a call waits for a connection, and a connection for another process's lock.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Metadata in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection: SQLite has one writer at a time, and waiting in the pool is fairer than retrying for its lock.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the store in `file`, creating or migrating it. The directory must exist.
    ///
    /// # Errors
    /// [`MetadataError::Newer`] where a newer program wrote it; the file cannot be opened or is no database.
    pub async fn open(file: &Path) -> Result<Self, MetadataError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT_MAX);
        let pool =
            |connections_max| SqlitePoolOptions::new().max_connections(connections_max).acquire_timeout(WAIT_MAX);
        let writer = pool(1).connect_with(options.clone()).await?;
        schema::migrate(&writer).await?;
        let readers = pool(READERS_MAX).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers })
    }

    /// The journal mode and `synchronous` setting that the writing connection runs with; 2 is FULL: an fsync per commit.
    ///
    /// # Errors
    /// The store failed.
    pub async fn durability(&self) -> Result<(String, i64), MetadataError> {
        let journal = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.writer).await?;
        let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&self.writer).await?;
        Ok((journal, synchronous))
    }
}

#[async_trait]
impl MetadataStore for SqliteStore {
    async fn ensure_tenant(&self, tenant: &Tenant) -> Result<(), MetadataError> {
        cluster::ensure_tenant(&self.writer, tenant).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, MetadataError> {
        cluster::tenants(&self.readers).await
    }

    async fn reserve_table(&self, tenant: TenantId, name: &TableName) -> Result<Reservation, MetadataError> {
        tables::reserve(&self.writer, tenant, name).await
    }

    async fn create_table(&self, table: &Table) -> Result<(), MetadataError> {
        tables::create(&self.writer, table).await
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Option<StoredTable>, MetadataError> {
        tables::by_name(&self.readers, tenant, name).await
    }

    async fn table_by_key(&self, key: TableKey) -> Result<Option<StoredTable>, MetadataError> {
        tables::by_key(&self.readers, key).await
    }

    async fn tables(&self, tenant: Option<TenantId>) -> Result<Vec<StoredTable>, MetadataError> {
        tables::living(&self.readers, tenant).await
    }

    async fn update_table(&self, table: &Table, expected: SchemaVersion) -> Result<(), MetadataError> {
        tables::update(&self.writer, table, expected).await
    }

    async fn end_table(&self, key: TableKey) -> Result<(), MetadataError> {
        tables::end(&self.writer, key).await
    }

    async fn mark_announced(&self, key: TableKey, version: SchemaVersion) -> Result<(), MetadataError> {
        tables::mark_announced(&self.writer, key, version).await
    }

    async fn mark_end_announced(&self, key: TableKey) -> Result<(), MetadataError> {
        tables::mark_end_announced(&self.writer, key).await
    }

    async fn unannounced(&self) -> Result<Vec<StoredTable>, MetadataError> {
        tables::unannounced(&self.readers).await
    }

    async fn register_node(&self, node: &NodeRecord) -> Result<(), MetadataError> {
        cluster::register_node(&self.writer, node).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetadataError> {
        cluster::nodes(&self.readers).await
    }

    async fn placement(&self) -> Result<PlacementMap, MetadataError> {
        cluster::placement(&self.readers).await
    }

    async fn store_placement(&self, map: &PlacementMap, expected: u64) -> Result<(), MetadataError> {
        cluster::store_placement(&self.writer, map, expected).await
    }

    async fn secret(&self, name: &str, fresh: [u8; SECRET_BYTES]) -> Result<[u8; SECRET_BYTES], MetadataError> {
        cluster::secret(&self.writer, name, fresh).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// SQLite has signed integers alone: ids keep their bits.
fn to_stored(id: u64) -> i64 {
    id.cast_signed()
}

fn from_stored(id: i64) -> u64 {
    id.cast_unsigned()
}
