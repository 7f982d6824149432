//! The catalog in a process without a control plane.
//!
//! 1. It follows the control plane: all tables, the placement map and the members, then each change. What it knows answers
//!    [`Catalog::cached`] and [`Catalog::placement`] without waiting, and goes on doing so while the control plane is away;
//!    then tables and columns that it does not know are `UNAVAILABLE` by name.
//! 2. After each interruption everything is read anew. A table that was known before and is not among what there is now is
//!    forgotten, and an answer to a call from before that is not kept: whoever is told of a table knows it lives.
//! 3. Of several control planes it follows one, and the next where that fails. The placement map never goes back by that: what has
//!    a lower version than the known one is left out.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use placement::PlacementMap;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tonic::{Request, Response, Status};
use types::{ApiError, ColumnDef, ErrorCode, Table, TableKey, TableName, TenantId};

use super::{Catalog, NewTable, TableCache, TablePatch, Tenants, messages, service::ALIVE_INTERVAL};
use crate::{
    internal::{self, CatalogPart, EnsureColumnsRequest, Nothing, TenantRef, catalog_client, catalog_part::Part},
    members::{self, Life, Member, Members, Membership},
    wire::{Connector, Signed, call, error_of},
};

/// How long a read may take before what is known counts.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a change may take: it is durable in metadata and in the log then.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the control plane may say nothing before it counts as away.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const _: () = assert!(SILENCE_MAX.as_millis() > 2 * ALIVE_INTERVAL.as_millis());
/// How long to wait before the control plane is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Longest message that is read, bytes: all tables of a tenant.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

type Client = catalog_client::CatalogClient<Signed>;

/// The catalog of a control plane elsewhere. Cloning gives another handle; the last one ends the following.
#[derive(Clone)]
pub struct CatalogClient {
    inner: Arc<Inner>,
    _following: Arc<Following>,
}

struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Inner {
    addresses: Vec<String>,
    connector: Connector,
    /// Which address is followed. A hint, ordered with nothing, hence relaxed.
    current: AtomicUsize,
    /// Which address answered last of those that are asked one after the other. Likewise.
    answered: AtomicUsize,
    tables: TableCache,
    /// Rises when all has been read anew, under the lock under which what is gone is forgotten and answers are kept.
    session: Mutex<u64>,
    placement: watch::Sender<Arc<PlacementMap>>,
    members: watch::Sender<Members>,
    /// Whether all that there is was read and the control plane has been heard of since.
    follows: watch::Sender<bool>,
}

impl CatalogClient {
    /// Follows the control plane at one of `addresses` (`host:port` of its gRPC), now or as soon as it is there.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: there is no address, or one is none.
    pub fn connect(addresses: Vec<String>, connector: Connector) -> Result<Self, ApiError> {
        if addresses.is_empty() {
            return Err(ApiError::invalid("address", "no address of a control plane is given"));
        }
        for address in &addresses {
            connector.to(address)?;
        }
        let inner = Arc::new(Inner {
            addresses,
            connector,
            current: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            tables: TableCache::default(),
            session: Mutex::new(0),
            placement: watch::Sender::default(),
            members: watch::Sender::default(),
            follows: watch::Sender::new(false),
        });
        let task: JoinHandle<()> = tokio::spawn(Arc::clone(&inner).follow());
        Ok(Self { inner, _following: Arc::new(Following(task.abort_handle())) })
    }

    /// Waits until all that there is has been read.
    pub async fn followed(&self) {
        let mut follows = self.inner.follows.subscribe();
        follows.wait_for(|follows| *follows).await.map(|_| ()).expect("the sender lives as long as self");
    }

    /// Whether the control plane is followed now; else what is known is what was known last.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        *self.inner.follows.borrow()
    }

    /// The placement map, and each change.
    #[must_use]
    pub fn watch_placement(&self) -> watch::Receiver<Arc<PlacementMap>> {
        self.inner.placement.subscribe()
    }
}

impl Inner {
    fn address(&self) -> &str {
        &self.addresses[self.current.load(Relaxed) % self.addresses.len()]
    }

    fn client(&self) -> Result<Client, ApiError> {
        Ok(Client::new(self.connector.to(self.address())?).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Asks the control planes one after the other, the one first that answered last, until one is not away: a word that is late may
    /// cost a node its partitions.
    async fn ask_any<T: Clone, R, F>(
        &self,
        message: T,
        timeout: Duration,
        ask: impl Fn(Client, Request<T>) -> F,
    ) -> Result<R, ApiError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let first = self.answered.load(Relaxed);
        let mut away = ApiError::unavailable("no control plane is known");
        for at in first..first + self.addresses.len() {
            let address = &self.addresses[at % self.addresses.len()];
            let client = Client::new(self.connector.to(address)?);
            match call(message.clone(), timeout, |request| ask(client, request)).await {
                Err(error) if is_away(&error) => away = error,
                answer => {
                    self.answered.store(at % self.addresses.len(), Relaxed);
                    return answer;
                }
            }
        }
        away.message = format!("membership: {}", away.message);
        Err(away)
    }

    /// Asks the control plane. `what` names what is asked about.
    async fn ask<T, R, F>(
        &self,
        what: &str,
        message: T,
        timeout: Duration,
        ask: impl FnOnce(Client, Request<T>) -> F,
    ) -> Result<R, ApiError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let client = self.client()?;
        call(message, timeout, |request| ask(client, request)).await.map_err(|mut error| {
            if is_away(&error) {
                error.message = format!("{what}: the control plane at {}: {}", self.address(), error.message);
            }
            error
        })
    }

    async fn follow(self: Arc<Self>) {
        let mut told = false;
        loop {
            let why = self.watch_once().await;
            let followed = self.follows.send_replace(false);
            if followed || !told {
                let address = self.address();
                tracing::warn!(address, %why, "the control plane is not followed; what is known goes on");
                told = true;
            }
            self.current.fetch_add(1, Relaxed);
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Follows the control plane until that ends, and says why it did.
    async fn watch_once(&self) -> ApiError {
        let before = self.tables.all().iter().map(|table| table.key).collect();
        match self.try_watch(before).await {
            Ok(()) => ApiError::unavailable("it ended the watch"),
            Err(error) => error,
        }
    }

    async fn try_watch(&self, before: HashSet<TableKey>) -> Result<(), ApiError> {
        let silent = |_| ApiError::unavailable("it said nothing for too long");
        let mut client = self.client()?;
        let watching = client.watch(Nothing {});
        let watching = timeout(SILENCE_MAX, watching).await.map_err(silent)?;
        let mut parts = watching.map_err(|status| error_of(&status))?.into_inner();
        let mut gone = Some(before);
        while let Some(part) =
            timeout(SILENCE_MAX, parts.message()).await.map_err(silent)?.map_err(|status| error_of(&status))?
        {
            self.take(part, &mut gone)?;
        }
        Ok(())
    }

    /// `gone`: what was known before and has not been named since; `None` once all was.
    fn take(&self, part: CatalogPart, gone: &mut Option<HashSet<TableKey>>) -> Result<(), ApiError> {
        match part.part {
            Some(Part::Table(table)) => {
                let table = Table::try_from(table)?;
                gone.as_mut().map(|gone| gone.remove(&table.key));
                self.tables.put(table);
            }
            Some(Part::Ended(key)) => self.tables.remove(key.into()),
            Some(Part::Placement(map)) => {
                let map = PlacementMap::from(map);
                // Another control plane may not have seen the newest map yet.
                self.placement.send_if_modified(|known| {
                    let newer = map.version > known.version;
                    if newer {
                        *known = Arc::new(map);
                    }
                    newer
                });
            }
            Some(Part::Members(list)) => drop(self.members.send_replace(members::of_list(list))),
            Some(Part::Whole(_)) => {
                let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                gone.take().into_iter().flatten().for_each(|key| self.tables.forget(key));
                *session += 1;
                drop(session);
                self.follows.send_replace(true);
                tracing::info!(address = self.address(), "follows the control plane");
            }
            // A part of a newer control plane, which does without an answer.
            Some(Part::Alive(_)) | None => {}
        }
        Ok(())
    }

    fn session(&self) -> u64 {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a table that a call of `session` was told of; gives the newest state.
    fn keep(&self, table: internal::Table, session: u64) -> Result<Arc<Table>, ApiError> {
        let table = Arc::new(Table::try_from(table)?);
        let now = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != session {
            return Ok(table);
        }
        let ended = || ApiError::new(ErrorCode::NotFound, "this life of the table has ended");
        self.tables.put(table).ok_or_else(ended)
    }
}

/// Whether the control plane, or what it needs, is away.
fn is_away(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded)
}

#[async_trait]
impl Catalog for CatalogClient {
    fn cached(&self, tenant: TenantId, name: &TableName) -> Option<Arc<Table>> {
        self.inner.tables.by_name(tenant, name)
    }

    async fn table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        let inner = &self.inner;
        if !self.is_followed()
            && let Some(known) = self.cached(tenant, name)
        {
            return Ok(known);
        }
        let (what, session) = (format!("table {name}"), inner.session());
        let message = messages::table_ref(tenant, name);
        let read = inner.ask(&what, message, READ_TIMEOUT, |mut c, r| async move { c.read_table(r).await }).await;
        match read {
            Ok(table) => inner.keep(table, session),
            Err(error) if is_away(&error) => self.cached(tenant, name).ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn tables(&self, tenant: TenantId) -> Result<Vec<Arc<Table>>, ApiError> {
        let inner = &self.inner;
        let (message, session) = (TenantRef { tenant: tenant.0 }, inner.session());
        let list = inner.ask("tables", message, READ_TIMEOUT, |mut c, r| async move { c.list_tables(r).await }).await;
        match list {
            Ok(list) => list.tables.into_iter().map(|table| inner.keep(table, session)).collect(),
            Err(error) if is_away(&error) && inner.session() > 0 => Ok(inner.tables.of_tenant(tenant)),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, tenant: TenantId, table: NewTable) -> Result<Arc<Table>, ApiError> {
        let (what, session) = (format!("table {}", table.name), self.inner.session());
        let message = messages::create_request(tenant, &table);
        let ask = |mut c: Client, r| async move { c.create_table(r).await };
        self.inner.keep(self.inner.ask(&what, message, CHANGE_TIMEOUT, ask).await?, session)
    }

    async fn ensure_table(&self, tenant: TenantId, name: &TableName) -> Result<Arc<Table>, ApiError> {
        if let Some(table) = self.cached(tenant, name) {
            return Ok(table);
        }
        let (what, session) = (format!("table {name}"), self.inner.session());
        let message = messages::table_ref(tenant, name);
        let ask = |mut c: Client, r| async move { c.ensure_table(r).await };
        self.inner.keep(self.inner.ask(&what, message, CHANGE_TIMEOUT, ask).await?, session)
    }

    async fn ensure_columns(&self, key: TableKey, columns: &[ColumnDef]) -> Result<Arc<Table>, ApiError> {
        let known = self.inner.tables.by_key(key);
        if let Some(table) = &known
            && matches!(table.schema.with_columns(columns), Ok(None))
        {
            return Ok(Arc::clone(table));
        }
        let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let name = known.map_or_else(|| key.table.to_string(), |table| table.name.to_string());
        let (what, session) = (format!("columns {names} of table {name}"), self.inner.session());
        let columns = columns.iter().map(internal::Column::from).collect();
        let message = EnsureColumnsRequest { key: Some(key.into()), columns };
        let ask = |mut c: Client, r| async move { c.ensure_columns(r).await };
        self.inner.keep(self.inner.ask(&what, message, CHANGE_TIMEOUT, ask).await?, session)
    }

    async fn patch(&self, tenant: TenantId, name: &TableName, patch: TablePatch) -> Result<Arc<Table>, ApiError> {
        let (what, session) = (format!("table {name}"), self.inner.session());
        let message = messages::patch_request(tenant, name, &patch);
        let ask = |mut c: Client, r| async move { c.patch_table(r).await };
        self.inner.keep(self.inner.ask(&what, message, CHANGE_TIMEOUT, ask).await?, session)
    }

    async fn delete(&self, tenant: TenantId, name: &TableName) -> Result<(), ApiError> {
        let (what, message) = (format!("table {name}"), messages::table_ref(tenant, name));
        let ask = |mut c: Client, r| async move { c.delete_table(r).await };
        self.inner.ask(&what, message, CHANGE_TIMEOUT, ask).await.map(|Nothing {}| ())
    }

    fn placement(&self) -> Arc<PlacementMap> {
        Arc::clone(&self.inner.placement.borrow())
    }
}

#[async_trait]
impl Tenants for CatalogClient {
    async fn tenants(&self) -> Result<Vec<TenantId>, ApiError> {
        let ask = |mut c: Client, r| async move { c.list_tenants(r).await };
        let list = self.inner.ask("tenants", Nothing {}, READ_TIMEOUT, ask).await?;
        Ok(list.tenants.into_iter().map(TenantId).collect())
    }
}

#[async_trait]
impl Membership for CatalogClient {
    async fn register(&self, member: &Member, registration: u64) -> Result<Life, ApiError> {
        let ask = |mut c: Client, r| async move { c.register(r).await };
        let message = internal::Member { registration, ..internal::Member::from(member) };
        Ok(self.inner.ask_any(message, CHANGE_TIMEOUT, ask).await?.into())
    }

    async fn heartbeat(&self, life: Life) -> Result<(), ApiError> {
        let ask = |mut c: Client, r| async move { c.heartbeat(r).await };
        self.inner.ask_any(internal::Life::from(life), READ_TIMEOUT, ask).await.map(|Nothing {}| ())
    }

    async fn leave(&self, life: Life) -> Result<(), ApiError> {
        let ask = |mut c: Client, r| async move { c.leave(r).await };
        self.inner.ask_any(internal::Life::from(life), READ_TIMEOUT, ask).await.map(|Nothing {}| ())
    }

    fn members(&self) -> watch::Receiver<Members> {
        self.inner.members.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use types::{NodeId, PartitionId};

    use super::*;

    /// Goal: a control plane that has not seen the newest map takes nobody back to an older one, and wakes nobody for it.
    #[tokio::test]
    async fn a_map_never_goes_back() {
        let client = CatalogClient::connect(vec!["127.0.0.1:1".into()], Connector::new(None)).unwrap();
        let mut watched = client.watch_placement();
        for (version, known) in [(3, 3), (2, 3), (3, 3), (4, 4)] {
            let before = client.placement().version;
            let map = PlacementMap {
                version,
                replicas: [(PartitionId(0), vec![NodeId(version)])].into(),
                ..PlacementMap::default()
            };
            let part = CatalogPart { part: Some(Part::Placement((&map).into())) };
            client.inner.take(part, &mut None).unwrap();
            assert_eq!(client.placement().replicas[&PartitionId(0)], [NodeId(known)]);
            assert_eq!(watched.has_changed().unwrap(), known > before, "version {version}");
            watched.mark_unchanged();
        }
    }
}
