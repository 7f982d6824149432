//! The catalog: tables in metadata, in the log and in memory, in this order.
//!
//! 1. A change is committed to metadata, then appended to the table's log partitions, then shown. A reader of
//!    [`Catalog::cached`] therefore never sees a state that a restart could lose or that a partition does not know.
//! 2. A crash or a failing log between the first two leaves a table unannounced; [`ControlPlane::repair`] announces it again,
//!    at start and whenever an announcement failed. Announcing twice does no harm.
//! 3. While metadata is away nothing changes, and what is shown goes on being read from memory.
//! 4. Changes of one name run one at a time (striped locks), each to its end even if its caller leaves. Those who waited for a
//!    change that another made find it made: a stampede of first events costs one creation.

mod following;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use event_log::EventLog;
use metadata::{MetadataError, MetadataStore, StoredTable, Tenant};
use placement::{PlacementMap, partitions_of_table};
use proto::catalog::{Catalog, NewTable, TableCache, TableChange, TablePatch, Tenants};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use types::{ApiError, ColumnDef, ErrorCode, Table, TableKey, TableName, TenantId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    announce,
    creation_rate::CreationRate,
    errors,
    members::{Nodes, Registry},
    rules,
};

/// Changes of different names that run at once, about.
const LOCKS: usize = 256;
/// How often a change is tried again after another process was faster.
const CONFLICTS_MAX: usize = 16;
/// Seeds stay below 2^53, so that every JSON reader keeps their bits.
const SEED_BITS: u32 = 53;
/// Changes of tables that a follower may be behind before it has to read all tables anew.
const CHANGES_KEPT: usize = 4_096;

/// What the catalog is told at its start.
#[derive(Debug, Clone)]
pub struct CatalogSettings {
    /// On which nodes partitions are placed.
    pub nodes: Nodes,
    /// Whether the first event of an unknown table creates it.
    pub auto_create_tables: bool,
    /// Tables of one tenant, at most.
    pub tables_max: u32,
    /// Tables that events of one tenant may create in a minute, at most.
    pub auto_create_per_minute: u32,
}

/// The control plane's state and the [`Catalog`] over it. Cloning gives another handle.
#[derive(Clone)]
pub struct ControlPlane {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) settings: CatalogSettings,
    pub(crate) cache: TableCache,
    /// What is shown anew, for those who follow.
    pub(crate) changes: broadcast::Sender<TableChange>,
    pub(crate) placement: watch::Sender<Arc<PlacementMap>>,
    pub(crate) registry: Registry,
    /// The tenants as they were read last.
    tenants: ArcSwap<Vec<TenantId>>,
    /// Up to which version changes of metadata were taken in.
    followed: tokio::sync::Mutex<u64>,
    locks: Vec<tokio::sync::Mutex<()>>,
    creation_rate: Mutex<CreationRate>,
    started: Instant,
    /// Whether an announcement failed since the last repair. A hint for the repairing task alone, so relaxed is enough.
    repair_due: AtomicBool,
}

impl ControlPlane {
    /// Reads metadata, places the log's partitions where this node stands alone, and announces what a crash left unannounced.
    /// Where the log refuses that, the repair stays due and the affected tables stay hidden.
    ///
    /// # Errors
    /// Metadata cannot be read or written.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        log: Arc<dyn EventLog>,
        settings: CatalogSettings,
        now: Timestamp,
    ) -> Result<Self, MetadataError> {
        store.ensure_tenant(&Tenant { id: TenantId::DEFAULT, name: "default".into(), created_at: now }).await?;
        let tenants = store.tenants().await?.into_iter().map(|tenant| tenant.id).collect();
        let registry = Registry::open(store.as_ref(), log.partitions(), &settings.nodes).await?;
        let inner = Inner {
            cache: TableCache::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            placement: watch::Sender::default(),
            registry,
            tenants: ArcSwap::from_pointee(tenants),
            followed: tokio::sync::Mutex::new(0),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            creation_rate: Mutex::new(CreationRate::new(settings.auto_create_per_minute)),
            started: Instant::now(),
            repair_due: AtomicBool::new(true),
            store,
            log,
            settings,
        };
        let plane = Self { inner: Arc::new(inner) };
        plane.repair().await;
        plane.take_in_changes().await?;
        plane.look_at_nodes().await?;
        Ok(plane)
    }

    /// Announces tables and ends of tables that are not known to be in the log, if an announcement failed before. Returns
    /// whether nothing is left to repair.
    pub async fn repair(&self) -> bool {
        if !self.inner.repair_due.swap(false, Relaxed) {
            return true;
        }
        let result = self.inner.announce_pending().await;
        if let Err(error) = &result {
            self.inner.repair_due.store(true, Relaxed);
            tracing::warn!(%error, "tables wait to be announced in the log");
        }
        result.is_ok()
    }

    /// Runs a change to its end even if the caller leaves: half of it would wait for a repair.
    async fn to_the_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        tokio::spawn(change).await.map_err(|_| ApiError::internal("a change of a table failed half-way"))?
    }
}

impl Inner {
    fn lock(&self, tenant: TenantId, name: &TableName) -> &tokio::sync::Mutex<()> {
        let hash = xxh3_64(name.namespace.as_bytes()) ^ xxh3_64(name.table.as_bytes()).rotate_left(1) ^ tenant.0;
        &self.locks[hash as usize % LOCKS]
    }

    async fn stored(&self, tenant: TenantId, name: &TableName) -> Result<Option<StoredTable>, ApiError> {
        self.store.table(tenant, name).await.map_err(|error| errors::from_metadata(&error))
    }

    async fn announce_pending(&self) -> Result<(), ApiError> {
        let pending = self.store.unannounced().await.map_err(|error| errors::from_metadata(&error))?;
        for StoredTable { table, .. } in pending {
            let _one_at_a_time = self.lock(table.key.tenant, &table.name).lock().await;
            // Read again: whoever held the lock may have done it, or gone further.
            let now = self.store.table_by_key(table.key).await.map_err(|error| errors::from_metadata(&error))?;
            match now {
                Some(stored) if stored.ended => self.announce_end(&stored.table).await?,
                Some(stored) if !stored.is_announced() => drop(self.announce(stored.table).await?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a committed state durable in the log, then shows it. The caller holds the name's lock.
    async fn announce(&self, table: Table) -> Result<Arc<Table>, ApiError> {
        let table = Arc::new(table);
        let announced = async {
            announce::announce_table(&self.log, &table).await?;
            let marked = self.store.mark_announced(table.key, table.schema.version()).await;
            marked.map_err(|error| errors::from_metadata(&error))
        };
        self.note_failure(announced.await)?;
        self.show(table).ok_or_else(life_ended)
    }

    /// Shows a state unless a newer one is shown; gives the newest. `None`: this life has ended.
    fn show(&self, table: impl Into<Arc<Table>>) -> Option<Arc<Table>> {
        let table = table.into();
        let shown = self.cache.put(Arc::clone(&table))?;
        if Arc::ptr_eq(&shown, &table) {
            self.tell(TableChange::Now(table));
        }
        Some(shown)
    }

    /// Shows this life no more.
    fn hide(&self, key: TableKey) {
        self.cache.remove(key);
        self.tell(TableChange::Ended(key));
    }

    fn tell(&self, change: TableChange) {
        // Nobody follows where there is one process.
        let _ = self.changes.send(change);
    }

    async fn announce_end(&self, table: &Table) -> Result<(), ApiError> {
        let announced = async {
            announce::announce_end(&self.log, table).await?;
            self.store.mark_end_announced(table.key).await.map_err(|error| errors::from_metadata(&error))
        };
        self.note_failure(announced.await)
    }

    fn note_failure(&self, announced: Result<(), ApiError>) -> Result<(), ApiError> {
        if announced.is_err() {
            self.repair_due.store(true, Relaxed);
        }
        announced
    }

    /// The table as committed now, announced first where that is still to be done.
    async fn read(&self, tenant: TenantId, name: &TableName) -> Result<Option<Arc<Table>>, ApiError> {
        let stored = match self.stored(tenant, name).await {
            // What is shown stays true while metadata is away: nobody can change it.
            Err(error) if error.code == ErrorCode::Unavailable => {
                return self.cache.by_name(tenant, name).map(Some).ok_or(error);
            }
            stored => stored?,
        };
        let Some(stored) = stored else { return Ok(None) };
        if stored.is_announced()
            && let Some(shown) = self.show(stored.table)
        {
            return Ok(Some(shown));
        }
        // It is to be announced, or its life ended while it was read: no change runs under the lock.
        let _one_at_a_time = self.lock(tenant, name).lock().await;
        self.read_locked(tenant, name).await
    }

    async fn read_locked(&self, tenant: TenantId, name: &TableName) -> Result<Option<Arc<Table>>, ApiError> {
        match self.stored(tenant, name).await? {
            Some(stored) if stored.is_announced() => Ok(self.show(stored.table)),
            Some(stored) => self.announce(stored.table).await.map(Some),
            None => Ok(None),
        }
    }

    async fn create(&self, tenant: TenantId, new: NewTable) -> Result<Arc<Table>, ApiError> {
        let _one_at_a_time = self.lock(tenant, &new.name).lock().await;
        self.create_locked(tenant, new).await
    }

    async fn create_locked(&self, tenant: TenantId, new: NewTable) -> Result<Arc<Table>, ApiError> {
        let (schema, partitions) = rules::check_new(&new, self.log.partitions())?;
        let reserved =
            self.store.reserve_table(tenant, &new.name).await.map_err(|error| errors::from_metadata(&error))?;
        self.settle_previous_life(reserved.table).await?;
        self.check_table_count(tenant).await?;
        let table = Table {
            key: TableKey { tenant, table: reserved.table, generation: reserved.generation },
            partitions: partitions_of_table(reserved.table, partitions, self.log.partitions()),
            partition_by: new.partition_by,
            partition_seed: draw_seed()?,
            identity_seed: draw()?,
            schema,
            settings: new.settings,
            name: new.name,
        };
        match self.store.create_table(&table).await {
            Ok(()) => self.announce(table).await,
            Err(MetadataError::AlreadyExists) => {
                let message = format!("table {} exists already", table.name);
                Err(ApiError::new(ErrorCode::AlreadyExists, message).with_field("table"))
            }
            Err(error) => Err(errors::from_metadata(&error)),
        }
    }

    /// The end of a life comes before the beginning of the next in every partition's log.
    async fn settle_previous_life(&self, id: types::TableId) -> Result<(), ApiError> {
        let pending = self.store.unannounced().await.map_err(|error| errors::from_metadata(&error))?;
        for stored in pending.iter().filter(|stored| stored.ended && stored.table.key.table == id) {
            self.announce_end(&stored.table).await?;
        }
        Ok(())
    }

    async fn check_table_count(&self, tenant: TenantId) -> Result<(), ApiError> {
        let tables = self.store.tables(Some(tenant)).await.map_err(|error| errors::from_metadata(&error))?.len();
        let tables_max = self.settings.tables_max;
        if tables < tables_max as usize {
            return Ok(());
        }
        let message = format!("the tenant has {tables} tables, at most {tables_max} are allowed: delete one first");
        Err(ApiError::new(ErrorCode::ResourceExhausted, message).with_retry_after(std::time::Duration::from_secs(60)))
    }

    async fn ensure_table(&self, tenant: TenantId, name: TableName) -> Result<Arc<Table>, ApiError> {
        rules::check_name(&name)?;
        let _one_at_a_time = self.lock(tenant, &name).lock().await;
        if let Some(table) = self.cache.by_name(tenant, &name) {
            return Ok(table);
        }
        if let Some(table) = self.read_locked(tenant, &name).await? {
            return Ok(table);
        }
        if !self.settings.auto_create_tables {
            return Err(errors::no_table(&name));
        }
        let now = self.started.elapsed();
        let taken = self.creation_rate.lock().expect("nothing panics under this lock").take(tenant, now);
        taken.map_err(|retry_after| {
            let per_minute = self.settings.auto_create_per_minute;
            let message = format!("events of a tenant create at most {per_minute} tables in a minute");
            ApiError::new(ErrorCode::ResourceExhausted, message).with_field("table").with_retry_after(retry_after)
        })?;
        self.create_locked(tenant, NewTable::auto(name)).await
    }

    async fn ensure_columns(&self, key: TableKey, columns: Vec<ColumnDef>) -> Result<Arc<Table>, ApiError> {
        let name = match self.cache.by_key(key) {
            Some(table) => table.name.clone(),
            None => {
                let stored = self.store.table_by_key(key).await.map_err(|error| errors::from_metadata(&error))?;
                stored.filter(|stored| !stored.ended).ok_or_else(life_ended)?.table.name
            }
        };
        let _one_at_a_time = self.lock(key.tenant, &name).lock().await;
        if let Some(table) = self.cache.by_key(key)
            && rules::with_columns(&table, &columns)?.is_none()
        {
            return Ok(table);
        }
        self.change(key, &|table| rules::with_columns(table, &columns)).await?.ok_or_else(life_ended)
    }

    /// Commits what `next` makes of the newest state, and announces it. `None`: this life has ended. The caller holds the
    /// name's lock; other processes are noticed by compare and swap.
    async fn change(
        &self,
        key: TableKey,
        next: &(dyn Fn(&Table) -> Result<Option<Table>, ApiError> + Sync),
    ) -> Result<Option<Arc<Table>>, ApiError> {
        for _ in 0..CONFLICTS_MAX {
            let stored = self.store.table_by_key(key).await.map_err(|error| errors::from_metadata(&error))?;
            let Some(stored) = stored.filter(|stored| !stored.ended) else { return Ok(None) };
            let Some(changed) = next(&stored.table)? else {
                let shown = if stored.is_announced() {
                    self.show(stored.table).ok_or_else(life_ended)?
                } else {
                    self.announce(stored.table).await?
                };
                return Ok(Some(shown));
            };
            match self.store.update_table(&changed, stored.table.schema.version()).await {
                Ok(()) => return self.announce(changed).await.map(Some),
                Err(MetadataError::Conflict) => {}
                Err(MetadataError::NotFound) => return Ok(None),
                Err(error) => return Err(errors::from_metadata(&error)),
            }
        }
        Err(ApiError::unavailable("others change this table without pause"))
    }

    async fn patch(&self, tenant: TenantId, name: TableName, patch: TablePatch) -> Result<Arc<Table>, ApiError> {
        let _one_at_a_time = self.lock(tenant, &name).lock().await;
        let stored = self.stored(tenant, &name).await?.ok_or_else(|| errors::no_table(&name))?;
        let changed = self.change(stored.table.key, &|table| rules::patched(table, &patch)).await?;
        changed.ok_or_else(|| errors::no_table(&name))
    }

    async fn delete(&self, tenant: TenantId, name: TableName) -> Result<(), ApiError> {
        let _one_at_a_time = self.lock(tenant, &name).lock().await;
        let Some(stored) = self.stored(tenant, &name).await? else {
            return self.finish_delete(tenant, &name).await;
        };
        match self.store.end_table(stored.table.key).await {
            Ok(()) | Err(MetadataError::NotFound) => {}
            Err(error) => return Err(errors::from_metadata(&error)),
        }
        self.hide(stored.table.key);
        self.announce_end(&stored.table).await
    }

    /// A deletion that was tried before and could not be announced is done by trying again.
    async fn finish_delete(&self, tenant: TenantId, name: &TableName) -> Result<(), ApiError> {
        let pending = self.store.unannounced().await.map_err(|error| errors::from_metadata(&error))?;
        let half_done = pending
            .into_iter()
            .find(|stored| stored.ended && stored.table.key.tenant == tenant && stored.table.name == *name)
            .ok_or_else(|| errors::no_table(name))?;
        self.announce_end(&half_done.table).await
    }
}

async fn check_json_schema(text: Option<&Arc<str>>) -> Result<(), ApiError> {
    let Some(text) = text.cloned() else { return Ok(()) };
    let checked = tokio::task::spawn_blocking(move || rules::check_json_schema(&text)).await;
    checked.map_err(|_| ApiError::internal("the check of json_schema failed; this is a defect of the server"))?
}

fn life_ended() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "this life of the table has ended")
}

fn draw_seed() -> Result<u64, ApiError> {
    Ok(draw()? >> (u64::BITS - SEED_BITS))
}

/// A random number.
fn draw() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|_| ApiError::internal("the system gives no random numbers"))
}

#[async_trait]
impl Tenants for ControlPlane {
    async fn tenants(&self) -> Result<Vec<TenantId>, ApiError> {
        match self.inner.store.tenants().await.map_err(|error| errors::from_metadata(&error)) {
            Err(error) if error.code == ErrorCode::Unavailable => Ok(self.inner.tenants.load().to_vec()),
            tenants => {
                let tenants: Vec<_> = tenants?.into_iter().map(|tenant| tenant.id).collect();
                self.inner.tenants.store(Arc::new(tenants.clone()));
                Ok(tenants)
            }
        }
    }
}

#[async_trait]
impl Catalog for ControlPlane {
    fn cached(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>> {
        self.inner.cache.by_name(tenant, name)
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        self.inner.read(tenant, name).await?.ok_or_else(|| errors::no_table(name))
    }

    async fn tables(&self, tenant: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        let stored = match self.inner.store.tables(Some(tenant)).await.map_err(|error| errors::from_metadata(&error)) {
            Err(error) if error.code == ErrorCode::Unavailable => return Ok(self.inner.cache.of_tenant(tenant)),
            stored => stored?,
        };
        // A state that is not announced yet is shown as soon as it is; until then the one before, if there was one.
        Ok(stored
            .into_iter()
            .filter_map(|stored| match stored.is_announced() {
                true => self.inner.show(stored.table),
                false => self.inner.cache.by_key(stored.table.key),
            })
            .collect())
    }

    async fn create(&self, tenant: TenantId, table: NewTable) -> Result<Arc<Table>, ApiError> {
        check_json_schema(table.settings.json_schema.as_ref()).await?;
        let inner = Arc::clone(&self.inner);
        self.to_the_end(async move { inner.create(tenant, table).await }).await
    }

    async fn ensure_table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        if let Some(table) = self.inner.cache.by_name(tenant, name) {
            return Ok(table);
        }
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        self.to_the_end(async move { inner.ensure_table(tenant, name).await }).await
    }

    async fn ensure_columns(&self, key: TableKey, columns: &[ColumnDef]) -> Result<Arc<Table>, ApiError> {
        if let Some(table) = self.inner.cache.by_key(key)
            && rules::with_columns(&table, columns)?.is_none()
        {
            return Ok(table);
        }
        let (inner, columns) = (Arc::clone(&self.inner), columns.to_vec());
        self.to_the_end(async move { inner.ensure_columns(key, columns).await }).await
    }

    async fn patch(&self, tenant: TenantId, name: &TableName, patch: TablePatch) -> Result<Arc<Table>, ApiError> {
        check_json_schema(patch.json_schema.iter().flatten().next()).await?;
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        self.to_the_end(async move { inner.patch(tenant, name, patch).await }).await
    }

    async fn delete(&self, tenant: TenantId, name: &TableName) -> Result<(), ApiError> {
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        self.to_the_end(async move { inner.delete(tenant, name).await }).await
    }

    fn placement(&self) -> Arc<PlacementMap> {
        Arc::clone(&self.inner.placement.borrow())
    }
}
