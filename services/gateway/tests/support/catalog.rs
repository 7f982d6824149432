//! Tables in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use placement::PlacementMap;
use proto::catalog::{Catalog, NewTable, TablePatch};
use types::{
    ApiError, ColumnDef, ErrorCode, Generation, PartitionId, Schema, Table, TableId, TableKey, TableName,
    TableSettings, TenantId,
};

pub struct MemoryCatalog {
    partitions: u32,
    tables: Mutex<BTreeMap<(TenantId, TableName), Arc<Table>>>,
    /// Tables may be created by events.
    pub auto_create: AtomicBool,
    /// Nobody answers.
    pub away: AtomicBool,
    /// Calls that had to ask: the hot path makes none.
    pub calls: AtomicUsize,
}

impl MemoryCatalog {
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            tables: Mutex::default(),
            auto_create: AtomicBool::new(true),
            away: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        }
    }

    /// Puts a table of the default tenant.
    pub fn put(&self, name: &TableName, change: impl FnOnce(&mut Table)) -> Arc<Table> {
        let mut tables = self.tables.lock().unwrap();
        let mut table = Table {
            key: TableKey {
                tenant: TenantId::DEFAULT,
                table: TableId(tables.len() as u64 + 1),
                generation: Generation(1),
            },
            name: name.clone(),
            partitions: (0..self.partitions).map(PartitionId).collect(),
            partition_by: None,
            partition_seed: 42,
            identity_seed: 0,
            schema: Schema::default(),
            settings: TableSettings::default(),
        };
        change(&mut table);
        let table = Arc::new(table);
        tables.insert((table.key.tenant, name.clone()), table.clone());
        table
    }

    pub fn find(&self, name: &TableName) -> Option<Arc<Table>> {
        self.tables.lock().unwrap().get(&(TenantId::DEFAULT, name.clone())).cloned()
    }

    fn ask(&self) -> Result<(), ApiError> {
        self.calls.fetch_add(1, Relaxed);
        if self.away.load(Relaxed) { Err(ApiError::unavailable("metadata is away")) } else { Ok(()) }
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    fn cached(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>> {
        self.tables.lock().unwrap().get(&(tenant, name.clone())).cloned()
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        self.ask()?;
        self.cached(tenant, name).ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no table {name}")))
    }

    async fn tables(&self, _: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        Ok(self.tables.lock().unwrap().values().cloned().collect())
    }

    async fn create(&self, _: TenantId, table: NewTable) -> Result<Arc<Table>, ApiError> {
        Ok(self.put(&table.name, |_| {}))
    }

    async fn ensure_table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        match self.table(tenant, name).await {
            Err(error) if error.code == ErrorCode::NotFound && self.auto_create.load(Relaxed) => {
                Ok(self.put(name, |_| {}))
            }
            found => found,
        }
    }

    async fn ensure_columns(&self, key: TableKey, columns: &[ColumnDef]) -> Result<Arc<Table>, ApiError> {
        self.ask()?;
        let mut tables = self.tables.lock().unwrap();
        let found = tables.values_mut().find(|table| table.key == key);
        let table = found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "this table has gone"))?;
        let grown = table.schema.with_columns(columns);
        if let Some(schema) = grown.map_err(|conflict| ApiError::invalid("columns", conflict.to_string()))? {
            *table = Arc::new(Table { schema, ..Table::clone(table) });
        }
        Ok(table.clone())
    }

    async fn patch(&self, _: TenantId, _: &TableName, _: TablePatch) -> Result<Arc<Table>, ApiError> {
        Err(ApiError::unavailable("not in this fake"))
    }

    async fn delete(&self, tenant: TenantId, name: &TableName) -> Result<(), ApiError> {
        self.tables.lock().unwrap().remove(&(tenant, name.clone()));
        Ok(())
    }

    fn placement(&self) -> Arc<PlacementMap> {
        Arc::default()
    }
}
