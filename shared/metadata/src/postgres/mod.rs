//! The store in PostgreSQL, shared by the processes of a cluster: pooled connections, statements and waits that are bounded.

/// The clock of the store, microseconds since the epoch. That of the statement, not of the transaction, which may have waited.
macro_rules! now_us {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

/// The rows of a JSON list of pairs of a tenant and what is wanted.
macro_rules! wants {
    ($parameter:literal) => {
        concat!(
            "SELECT CAST(value ->> 0 AS BIGINT) AS tenant, CAST(value ->> 1 AS BIGINT) AS want FROM json_array_elements(CAST(",
            $parameter,
            " AS JSON)) AS listed (value)"
        )
    };
}

#[path = "../sql/budgets.rs"]
mod budgets;
#[path = "../sql/cluster.rs"]
mod cluster;
mod guard;
#[path = "../sql/leases.rs"]
mod leases;
mod schema;
#[path = "../sql/tables.rs"]
mod tables;

use std::{str::FromStr as _, time::Duration};

use async_trait::async_trait;
use placement::PlacementMap;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use types::{NodeId, SchemaVersion, Table, TableKey, TableName, TenantId};

use crate::{
    Changes, Claim, Coordination, Lease, MetadataError, MetadataStore, NodeDescription, NodeRecord, Reservation,
    SECRET_BYTES, Share, StoredTable, Tenant, Want,
};
use guard::Guard;

type Pool = PgPool;
type Connection = sqlx::PgConnection;
type DatabaseRow = sqlx::postgres::PgRow;
type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;
type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// Connections of a process.
const CONNECTIONS_MAX: u32 = 8;
/// How long a call waits for a connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(2);
/// What the database itself ends, so that neither a slow statement nor a process that stands still holds others up for longer.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "4s"), ("lock_timeout", "3s"), ("idle_in_transaction_session_timeout", "5s")];

/// Metadata in a PostgreSQL database of its own.
pub struct PostgresStore {
    pool: PgPool,
    guard: Guard,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The options of the pool hold the password.
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Opens the store at `url`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, creating or migrating it.
    ///
    /// # Errors
    /// [`MetadataError::Address`] where the URL is none; [`MetadataError::Newer`] where a newer program wrote the store; the
    /// database cannot be reached or refuses.
    pub async fn open(url: &str) -> Result<Self, MetadataError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| MetadataError::Address)?;
        let options = options.application_name("truenow").options(LIMITS);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_MAX);
        let pool = pool.connect_with(options).await?;
        schema::migrate(&pool).await?;
        Ok(Self { pool, guard: Guard::new() })
    }
}

#[async_trait]
impl MetadataStore for PostgresStore {
    async fn ensure_tenant(&self, tenant: &Tenant) -> Result<(), MetadataError> {
        self.guard.call(cluster::ensure_tenant(&self.pool, tenant)).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, MetadataError> {
        self.guard.call(cluster::tenants(&self.pool)).await
    }

    async fn reserve_table(&self, tenant: TenantId, name: &TableName) -> Result<Reservation, MetadataError> {
        self.guard.call(tables::reserve(&self.pool, tenant, name)).await
    }

    async fn create_table(&self, table: &Table) -> Result<(), MetadataError> {
        self.guard.call(tables::create(&self.pool, table)).await
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Option<StoredTable>, MetadataError> {
        self.guard.call(tables::by_name(&self.pool, tenant, name)).await
    }

    async fn table_by_key(&self, key: TableKey) -> Result<Option<StoredTable>, MetadataError> {
        self.guard.call(tables::by_key(&self.pool, key)).await
    }

    async fn tables(&self, tenant: Option<TenantId>) -> Result<Vec<StoredTable>, MetadataError> {
        self.guard.call(tables::living(&self.pool, tenant)).await
    }

    async fn update_table(&self, table: &Table, expected: SchemaVersion) -> Result<(), MetadataError> {
        self.guard.call(tables::update(&self.pool, table, expected)).await
    }

    async fn end_table(&self, key: TableKey) -> Result<(), MetadataError> {
        self.guard.call(tables::end(&self.pool, key)).await
    }

    async fn mark_announced(&self, key: TableKey, version: SchemaVersion) -> Result<(), MetadataError> {
        self.guard.call(tables::mark_announced(&self.pool, key, version)).await
    }

    async fn mark_end_announced(&self, key: TableKey) -> Result<(), MetadataError> {
        self.guard.call(tables::mark_end_announced(&self.pool, key)).await
    }

    async fn unannounced(&self) -> Result<Vec<StoredTable>, MetadataError> {
        self.guard.call(tables::unannounced(&self.pool)).await
    }

    async fn changes(&self, since: u64) -> Result<Changes, MetadataError> {
        self.guard.call(tables::changes(&self.pool, since)).await
    }

    async fn secret(&self, name: &str, fresh: [u8; SECRET_BYTES]) -> Result<[u8; SECRET_BYTES], MetadataError> {
        self.guard.call(cluster::secret(&self.pool, name, fresh)).await
    }

    async fn close(&self) {
        // Connections that do not answer are left to themselves.
        let _ = tokio::time::timeout(guard::CALL_MAX, self.pool.close()).await;
    }
}

#[async_trait]
impl Coordination for PostgresStore {
    async fn take_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Claim, MetadataError> {
        self.guard.attempt(leases::take(&self.pool, name, holder, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<(), MetadataError> {
        self.guard.attempt(leases::renew(&self.pool, lease, ttl)).await
    }

    async fn give_up_lease(&self, lease: &Lease) -> Result<(), MetadataError> {
        self.guard.attempt(leases::give_up(&self.pool, lease)).await
    }

    async fn register_node(&self, node: &NodeDescription, registration: u64) -> Result<u64, MetadataError> {
        self.guard.attempt(cluster::register_node(&self.pool, node, registration)).await
    }

    async fn heartbeat(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
        self.guard.attempt(cluster::heartbeat(&self.pool, node, epoch)).await
    }

    async fn remove_node(&self, node: NodeId, epoch: u64) -> Result<(), MetadataError> {
        self.guard.call(cluster::remove_node(&self.pool, node, epoch)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, MetadataError> {
        self.guard.attempt(cluster::nodes(&self.pool)).await
    }

    async fn placement(&self) -> Result<PlacementMap, MetadataError> {
        self.guard.call(cluster::placement(&self.pool)).await
    }

    async fn store_placement(
        &self,
        map: &PlacementMap,
        expected: u64,
        guard: Option<&Lease>,
    ) -> Result<(), MetadataError> {
        self.guard.call(cluster::store_placement(&self.pool, map, expected, guard)).await
    }

    async fn renew_shares(&self, gateway: &str, wants: &[Want], ttl: Duration) -> Result<Vec<Share>, MetadataError> {
        self.guard.attempt(budgets::renew(&self.pool, gateway, wants, ttl)).await
    }
}

/// Begins a change of tables or of the placement map; gives its version. The row of the version stays locked until the change is
/// committed: changes take turns, and become visible in the order of their versions.
async fn begin_write(pool: &Pool) -> Result<(Transaction, i64), MetadataError> {
    let mut transaction = pool.begin().await?;
    let version = sqlx::query_scalar("UPDATE changes SET version = version + 1 RETURNING version");
    let version = version.fetch_one(&mut *transaction).await?;
    Ok((transaction, version))
}

/// Begins to read from one snapshot.
async fn begin_read(pool: &Pool) -> Result<Transaction, MetadataError> {
    Ok(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
}

/// Begins a change of shares, one at a time.
async fn begin_budgets(pool: &Pool) -> Result<Transaction, MetadataError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("LOCK TABLE budget_shares IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    Ok(transaction)
}
