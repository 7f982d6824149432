//! The store in one SQLite file: a write-ahead log, an fsync per commit, one connection that writes and a few that read.

/// The clock of the store, microseconds since the epoch.
macro_rules! now_us {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

/// The rows of a JSON list of pairs of a tenant and what is wanted.
macro_rules! wants {
    ($parameter:literal) => {
        concat!("SELECT value ->> 0 AS tenant, value ->> 1 AS want FROM json_each(", $parameter, ")")
    };
}

#[path = "../sql/budgets.rs"]
mod budgets;
#[path = "../sql/cluster.rs"]
mod cluster;
#[path = "../sql/leases.rs"]
mod leases;
mod schema;
#[path = "../sql/tables.rs"]
mod tables;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use placement::PlacementMap;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use types::{NodeId, SchemaVersion, Table, TableKey, TableName, TenantId};

use crate::{
    Changes, Claim, Coordination, Lease, MetadataError, MetadataStore, NodeDescription, NodeRecord, Reservation,
    SECRET_BYTES, Share, StoredTable, Tenant, Want,
};

type Pool = SqlitePool;
type Connection = sqlx::SqliteConnection;
type DatabaseRow = sqlx::sqlite::SqliteRow;
type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;
type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;

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

    async fn changes(&self, since: u64) -> Result<Changes, MetadataError> {
        tables::changes(&self.readers, since).await
    }

    async fn secret(&self, name: &str, fresh: [u8; SECRET_BYTES]) -> Result<[u8; SECRET_BYTES], MetadataError> {
        cluster::secret(&self.writer, name, fresh).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Coordination for SqliteStore {
    async fn take_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Claim, MetadataError> {
        leases::take(&self.writer, name, holder, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<(), MetadataError> {
        leases::renew(&self.writer, lease, ttl).await
    }

    async fn give_up_lease(&self, lease: &Lease) -> Result<(), MetadataError> {
        leases::give_up(&self.writer, lease).await
    }

    async fn register_node(&self, node: &NodeDescription, registration: u64) -> Result<u64, MetadataError> {
        cluster::register_node(&self.writer, node, registration).await
    }

    async fn heartbeat(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
        cluster::heartbeat(&self.writer, node, epoch).await
    }

    async fn remove_node(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
        cluster::remove_node(&self.writer, node, epoch).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetadataError> {
        cluster::nodes(&self.readers).await
    }

    async fn placement(&self) -> Result<PlacementMap, MetadataError> {
        cluster::placement(&self.readers).await
    }

    async fn store_placement(
        &self,
        map: &PlacementMap,
        expected: u64,
        guard: Option<&Lease>,
    ) -> Result<(), MetadataError> {
        cluster::store_placement(&self.writer, map, expected, guard).await
    }

    async fn renew_shares(&self, gateway: &str, wants: &[Want], ttl: Duration) -> Result<Vec<Share>, MetadataError> {
        budgets::renew(&self.writer, gateway, wants, ttl).await
    }
}

/// Begins a change of tables or of the placement map; gives its version.
async fn begin_write(pool: &Pool) -> Result<(Transaction, i64), MetadataError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    let version = sqlx::query_scalar("UPDATE changes SET version = version + 1 RETURNING version");
    let version = version.fetch_one(&mut *transaction).await?;
    Ok((transaction, version))
}

/// Begins to read from one snapshot.
async fn begin_read(pool: &Pool) -> Result<Transaction, MetadataError> {
    Ok(pool.begin().await?)
}

/// Begins a change of shares, one at a time.
async fn begin_budgets(pool: &Pool) -> Result<Transaction, MetadataError> {
    Ok(pool.begin_with("BEGIN IMMEDIATE").await?)
}
