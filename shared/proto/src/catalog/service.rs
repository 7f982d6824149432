//! The control plane's side of the boundary: any [`CatalogFeed`] as a gRPC service.

use std::{pin::pin, sync::Arc, time::Duration};

use placement::PlacementMap;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::{ApiError, TenantId};

use super::{CatalogFeed, NewTable, TableChange, TablePatch, WatchedTables, messages};
use crate::{
    internal::{
        CatalogPart, CreateTableRequest, EnsureColumnsRequest, Life, Member, Nothing, PatchTableRequest, Table,
        TableList, TableRef, TenantList, TenantRef, catalog_part::Part, catalog_server,
    },
    members::{self, Members},
    wire::{in_time, status_of},
};

/// At least so often a watcher hears something.
pub(super) const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Parts that are made before a watcher has taken those before.
const PARTS_AHEAD: usize = 64;
/// Longest message that is read, bytes: a JSON Schema may come with a table.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A control plane for other processes.
pub struct CatalogService {
    feed: Arc<dyn CatalogFeed>,
    ends: watch::Receiver<bool>,
}

impl CatalogService {
    /// The service to put on a port. Watches end when `ends` turns true.
    pub fn server(feed: Arc<dyn CatalogFeed>, ends: watch::Receiver<bool>) -> catalog_server::CatalogServer<Self> {
        catalog_server::CatalogServer::new(Self { feed, ends }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl catalog_server::Catalog for CatalogService {
    type WatchStream = ReceiverStream<Result<CatalogPart, Status>>;

    async fn read_table(&self, request: Request<TableRef>) -> Result<Response<Table>, Status> {
        let (metadata, _, table) = request.into_parts();
        let (tenant, name) = table.into();
        in_time(&metadata, async { Ok(self.feed.table(tenant, &name).await?.as_ref().into()) }).await
    }

    async fn list_tables(&self, request: Request<TenantRef>) -> Result<Response<TableList>, Status> {
        let (metadata, _, TenantRef { tenant }) = request.into_parts();
        let tables = async {
            let tables = self.feed.tables(TenantId(tenant)).await?;
            Ok(TableList { tables: tables.iter().map(|table| table.as_ref().into()).collect() })
        };
        in_time(&metadata, tables).await
    }

    async fn create_table(&self, request: Request<CreateTableRequest>) -> Result<Response<Table>, Status> {
        let (metadata, _, request) = request.into_parts();
        let created = async {
            let (tenant, new) = <(TenantId, NewTable)>::try_from(request)?;
            Ok(self.feed.create(tenant, new).await?.as_ref().into())
        };
        in_time(&metadata, created).await
    }

    async fn ensure_table(&self, request: Request<TableRef>) -> Result<Response<Table>, Status> {
        let (metadata, _, table) = request.into_parts();
        let (tenant, name) = table.into();
        in_time(&metadata, async { Ok(self.feed.ensure_table(tenant, &name).await?.as_ref().into()) }).await
    }

    async fn ensure_columns(&self, request: Request<EnsureColumnsRequest>) -> Result<Response<Table>, Status> {
        let (metadata, _, request) = request.into_parts();
        let grown = async {
            let key = request.key.ok_or(crate::wire::Malformed("columns without a table"))?.into();
            let columns = messages::columns(request.columns)?;
            Ok(self.feed.ensure_columns(key, &columns).await?.as_ref().into())
        };
        in_time(&metadata, grown).await
    }

    async fn patch_table(&self, request: Request<PatchTableRequest>) -> Result<Response<Table>, Status> {
        let (metadata, _, request) = request.into_parts();
        let changed = async {
            let (tenant, name, patch) = <(_, _, TablePatch)>::try_from(request)?;
            Ok(self.feed.patch(tenant, &name, patch).await?.as_ref().into())
        };
        in_time(&metadata, changed).await
    }

    async fn delete_table(&self, request: Request<TableRef>) -> Result<Response<Nothing>, Status> {
        let (metadata, _, table) = request.into_parts();
        let (tenant, name) = table.into();
        in_time(&metadata, async { self.feed.delete(tenant, &name).await.map(|()| Nothing {}) }).await
    }

    async fn list_tenants(&self, request: Request<Nothing>) -> Result<Response<TenantList>, Status> {
        let tenants = async {
            let tenants = self.feed.tenants().await?;
            Ok(TenantList { tenants: tenants.into_iter().map(|tenant| tenant.0).collect() })
        };
        in_time(request.metadata(), tenants).await
    }

    async fn watch(&self, _: Request<Nothing>) -> Result<Response<Self::WatchStream>, Status> {
        let (parts, stream) = mpsc::channel(PARTS_AHEAD);
        let watcher = Watcher::new(Arc::clone(&self.feed), parts, self.ends.clone());
        tokio::spawn(watcher.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn register(&self, request: Request<Member>) -> Result<Response<Life>, Status> {
        let (metadata, _, member) = request.into_parts();
        let registration = member.registration;
        in_time(&metadata, async { self.feed.register(&member.into(), registration).await.map(Life::from) }).await
    }

    async fn heartbeat(&self, request: Request<Life>) -> Result<Response<Nothing>, Status> {
        let (metadata, _, life) = request.into_parts();
        in_time(&metadata, async { self.feed.heartbeat(life.into()).await.map(|()| Nothing {}) }).await
    }

    async fn leave(&self, request: Request<Life>) -> Result<Response<Nothing>, Status> {
        let (metadata, _, life) = request.into_parts();
        in_time(&metadata, async { self.feed.leave(life.into()).await.map(|()| Nothing {}) }).await
    }
}

/// The watcher has left.
struct Left;

/// One who follows the catalog.
struct Watcher {
    feed: Arc<dyn CatalogFeed>,
    parts: mpsc::Sender<Result<CatalogPart, Status>>,
    placement: watch::Receiver<Arc<PlacementMap>>,
    members: watch::Receiver<Members>,
    ends: watch::Receiver<bool>,
}

impl Watcher {
    fn new(
        feed: Arc<dyn CatalogFeed>,
        parts: mpsc::Sender<Result<CatalogPart, Status>>,
        ends: watch::Receiver<bool>,
    ) -> Self {
        let (placement, members) = (feed.watch_placement(), feed.members());
        Self { feed, parts, placement, members, ends }
    }

    async fn run(mut self) {
        // Nobody is told that a watcher left.
        let _ = self.follow().await;
    }

    async fn follow(&mut self) -> Result<(), Left> {
        let WatchedTables { tables, mut changes } = self.feed.watch_tables();
        for table in tables {
            self.send(Part::Table(table.as_ref().into())).await?;
        }
        self.send_placement().await?;
        self.send_members().await?;
        self.send(Part::Whole(Nothing {})).await?;
        let mut ticks = interval(ALIVE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = self.ends.clone();
        // Also where nobody is left to say so.
        let mut ending = pin!(async move { drop(ends.wait_for(|ends| *ends).await) });
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(TableChange::Now(table)) => self.send(Part::Table(table.as_ref().into())).await?,
                    Ok(TableChange::Ended(key)) => self.send(Part::Ended(key.into())).await?,
                    Err(RecvError::Lagged(_)) => return self.fail("changes came faster than they were taken").await,
                    Err(RecvError::Closed) => return self.fail("the control plane stops").await,
                },
                Ok(()) = self.placement.changed() => self.send_placement().await?,
                Ok(()) = self.members.changed() => self.send_members().await?,
                () = &mut ending => return self.fail("the control plane stops").await,
                _ = ticks.tick() => self.send(Part::Alive(Nothing {})).await?,
            }
        }
    }

    async fn send_placement(&mut self) -> Result<(), Left> {
        let map = Arc::clone(&self.placement.borrow_and_update());
        self.send(Part::Placement(map.as_ref().into())).await
    }

    async fn send_members(&mut self) -> Result<(), Left> {
        let known = Arc::clone(&self.members.borrow_and_update());
        self.send(Part::Members(members::list(&known))).await
    }

    async fn send(&self, part: Part) -> Result<(), Left> {
        self.parts.send(Ok(CatalogPart { part: Some(part) })).await.map_err(|_| Left)
    }

    async fn fail(&self, why: &str) -> Result<(), Left> {
        self.parts.send(Err(status_of(&ApiError::unavailable(why)))).await.map_err(|_| Left)
    }
}
