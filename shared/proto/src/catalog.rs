//! The control plane as other services see it: which tables there are and what is in them.

mod cache;
mod client;
mod messages;
mod service;

use std::sync::Arc;

use async_trait::async_trait;
use placement::PlacementMap;
use tokio::sync::{broadcast, watch};
use types::{ApiError, ColumnDef, Rollup, Table, TableKey, TableName, TableSettings, TenantId};

use crate::members::Membership;

pub use cache::TableCache;
pub use client::CatalogClient;
pub(crate) use messages::table_ref;
pub use service::CatalogService;

/// A table to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    /// Its name.
    pub name: TableName,
    /// How many log partitions it uses; `None`: all.
    pub partitions: Option<u32>,
    /// The dimension whose value chooses an event's partition.
    pub partition_by: Option<String>,
    /// Columns that it has from the start.
    pub columns: Vec<ColumnDef>,
    /// Its settings.
    pub settings: TableSettings,
}

impl NewTable {
    /// A table as its first event creates it: all defaults.
    #[must_use]
    pub fn auto(name: TableName) -> Self {
        Self { name, partitions: None, partition_by: None, columns: Vec::new(), settings: TableSettings::default() }
    }
}

/// Changes of a table; `None` leaves a setting as it is, `Some(None)` sets it to null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePatch {
    /// Columns to add; those that exist are no error if their kind agrees.
    pub add_columns: Vec<ColumnDef>,
    /// See [`TableSettings::hot_window_us`].
    pub hot_window_us: Option<Option<i64>>,
    /// See [`TableSettings::max_age_us`].
    pub max_age_us: Option<Option<i64>>,
    /// See [`TableSettings::max_future_us`].
    pub max_future_us: Option<i64>,
    /// See [`TableSettings::dedup_window_us`].
    pub dedup_window_us: Option<i64>,
    /// See [`TableSettings::lateness_us`].
    pub lateness_us: Option<i64>,
    /// The whole list of rollups.
    pub rollups: Option<Vec<Rollup>>,
    /// See [`TableSettings::json_schema`].
    pub json_schema: Option<Option<Arc<str>>>,
}

/// Tables, schemas and placement. Every method speaks for one tenant and shows nothing of another's.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The table of that name as this process knows it, without waiting. `None`: ask [`Catalog::table`].
    fn cached(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>>;

    /// The table of that name, as committed now; where metadata cannot be read, as it is known here.
    ///
    /// # Errors
    /// `NOT_FOUND`; `UNAVAILABLE` where metadata cannot be read and the table is not known.
    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError>;

    /// All tables of the tenant, by name; where metadata cannot be read, those that are known here.
    ///
    /// # Errors
    /// `UNAVAILABLE`.
    async fn tables(&self, tenant: TenantId) -> Result<Vec<Arc<Table>>, ApiError>;

    /// Creates a table. When this returns, its creation is durable in metadata and in its log partitions.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`; `INVALID_ARGUMENT`; `UNAVAILABLE`.
    async fn create(&self, tenant: TenantId, table: NewTable) -> Result<Arc<Table>, ApiError>;

    /// The table of that name, created with defaults if it does not exist and the tenant may do so.
    ///
    /// # Errors
    /// `NOT_FOUND` where tables are not created by events; `UNAVAILABLE`.
    async fn ensure_table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError>;

    /// Adds the columns that the table lacks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the column as its field where its kind differs or there are too many; `NOT_FOUND` where this
    /// life of the table has ended; `UNAVAILABLE`.
    async fn ensure_columns(&self, key: TableKey, columns: &[ColumnDef]) -> Result<Arc<Table>, ApiError>;

    /// Changes a table.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_ARGUMENT`; `UNAVAILABLE`.
    async fn patch(&self, tenant: TenantId, name: &TableName, patch: TablePatch) -> Result<Arc<Table>, ApiError>;

    /// Ends this life of a table: its rows leave, its name is free.
    ///
    /// # Errors
    /// `NOT_FOUND`; `UNAVAILABLE`.
    async fn delete(&self, tenant: TenantId, name: &TableName) -> Result<(), ApiError>;

    /// The placement map as this process knows it.
    fn placement(&self) -> Arc<PlacementMap>;
}

/// The tenants that there are: for services that look after what all of them have, never for a tenant's request.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// All of them, ascending.
    ///
    /// # Errors
    /// `UNAVAILABLE` where metadata cannot be read.
    async fn tenants(&self) -> Result<Vec<TenantId>, ApiError>;
}

/// A change of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// The table as it is now.
    Now(Arc<Table>),
    /// This life of it has ended.
    Ended(TableKey),
}

/// All tables at one moment, and each change from then on.
pub struct WatchedTables {
    /// What there is, in no order.
    pub tables: Vec<Arc<Table>>,
    /// What changes; a change may be among `tables` already. Where it says that changes were missed, watch again.
    pub changes: broadcast::Receiver<TableChange>,
}

/// The control plane as the other processes of a cluster follow it.
pub trait CatalogFeed: Catalog + Tenants + Membership {
    /// All tables of all tenants.
    fn watch_tables(&self) -> WatchedTables;

    /// The placement map.
    fn watch_placement(&self) -> watch::Receiver<Arc<PlacementMap>>;
}
