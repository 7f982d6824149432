//! A node's side of the boundary: any [`HotTier`] as a gRPC service.

use std::{future::ready, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use query::{Partial, Plan};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::ApiError;

use super::{
    HotTier, PartitionScan, event_parts,
    messages::{INLINE_BYTES_MAX, key_of, unread},
    nobody_takes,
    scan_parts::Cutter,
};
use crate::{
    internal::{
        AppliedReply, AppliedRequest, ChecksumReply, ChecksumRequest, EventsPart, EventsRequest, Explanation, ScanPart,
        ScanRequest, StatusReply, StatusRequest, TableStatusReply, TableStatusRequest, hot_tier_server,
    },
    wire::status_of,
};

/// Longest request that is read, bytes: the plan of a further round names groups and ranges of values.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Parts that are made before the caller has taken those before.
const PARTS_AHEAD: usize = 2;

/// A node for other processes.
pub struct HotTierService {
    node: Arc<dyn HotTier>,
}

impl HotTierService {
    /// The service to put on a port.
    pub fn server(node: Arc<dyn HotTier>) -> hot_tier_server::HotTierServer<Self> {
        hot_tier_server::HotTierServer::new(Self { node }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

/// The plan of a request.
async fn plan_of(bytes: Bytes) -> Result<Arc<Plan>, ApiError> {
    let read = if bytes.len() <= INLINE_BYTES_MAX {
        Plan::from_bytes(&bytes)
    } else {
        let read = tokio::task::spawn_blocking(move || Plan::from_bytes(&bytes)).await;
        read.map_err(|error| ApiError::internal(format!("reading a plan failed: {error}")))?
    };
    read.map(Arc::new).map_err(|error| unread("the plan", error))
}

#[tonic::async_trait]
impl hot_tier_server::HotTier for HotTierService {
    type ScanStream = BoxStream<'static, Result<ScanPart, Status>>;
    type EventsStream = ReceiverStream<Result<EventsPart, Status>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let mut request = request.into_inner();
        let plan = plan_of(std::mem::take(&mut request.plan)).await.map_err(|error| status_of(&error))?;
        let (sender, mut parts) = mpsc::channel(PARTS_AHEAD);
        let scanning = send_parts(Arc::clone(&self.node), request.with(plan), sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                // A caller that leaves drops the stream of parts, and with it the scan.
                () = sender.closed() => {}
                () = scanning => {}
            }
        });
        // An error that comes before all parts is the call's.
        let first = parts.recv().await.ok_or_else(|| Status::internal("a scan ended without a word"))??;
        Ok(Response::new(stream::once(ready(Ok(first))).chain(ReceiverStream::new(parts)).boxed()))
    }

    async fn applied(&self, request: Request<AppliedRequest>) -> Result<Response<AppliedReply>, Status> {
        let (after, deadline) = request.into_inner().into_parts();
        self.node.applied(after, deadline).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(AppliedReply {}))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let mut request = request.into_inner();
        let page = async {
            let plan = plan_of(std::mem::take(&mut request.plan)).await?;
            self.node.events(request.with(plan)).await
        };
        let mut parts = event_parts::Parts::new(page.await.map_err(|error| status_of(&error))?);
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        tokio::task::spawn_blocking(move || parts.all(|part| sender.blocking_send(Ok(part)).is_ok()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn explain(&self, request: Request<ScanRequest>) -> Result<Response<Explanation>, Status> {
        let mut request = request.into_inner();
        let explained = async {
            let plan = plan_of(std::mem::take(&mut request.plan)).await?;
            self.node.explain(request.with(plan)).await
        };
        Ok(Response::new(explained.await.map_err(|error| status_of(&error))?.into()))
    }

    async fn checksum(&self, request: Request<ChecksumRequest>) -> Result<Response<ChecksumReply>, Status> {
        let sum = async { self.node.checksum(request.into_inner().read()?).await };
        Ok(Response::new(sum.await.map_err(|error| status_of(&error))?.into()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let partitions = self.node.status().await.map_err(|error| status_of(&error))?;
        Ok(Response::new(StatusReply { partitions: partitions.into_iter().map(Into::into).collect() }))
    }

    async fn table_status(&self, request: Request<TableStatusRequest>) -> Result<Response<TableStatusReply>, Status> {
        let key = request.into_inner().key.ok_or_else(|| Status::invalid_argument("a status of no table"))?;
        let partitions = self.node.table_status(key_of(key)).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(TableStatusReply { partitions: partitions.into_iter().map(Into::into).collect() }))
    }
}

/// Scans, and sends parts as partitions are done: no more than the caller takes.
async fn send_parts(
    node: Arc<dyn HotTier>,
    request: super::ScanRequest,
    sender: mpsc::Sender<Result<ScanPart, Status>>,
) {
    let (plan, (found, each)) = (Arc::clone(&request.plan), mpsc::channel(1));
    let cutting = async {
        // Dropped with an error, so that the scan ends, too.
        let (mut each, mut cutter) = (each, Cutter::default());
        while let Some(scan) = each.recv().await {
            for part in cut(&mut cutter, &plan, scan).await? {
                sender.send(Ok(part)).await.map_err(|_| nobody_takes())?;
            }
        }
        Ok::<_, ApiError>(cutter)
    };
    let (scanned, cut) = tokio::join!(node.scan_each(request, found), cutting);
    let last = scanned.and_then(|unavailable| Ok(cut?.finish(&unavailable)));
    // Whoever has left is told nothing.
    let _ = sender.send(last.map_err(|error| status_of(&error))).await;
}

/// Adds a partition. A result that may take a millisecond to put into bytes is put on a thread for such work.
async fn cut(cutter: &mut Cutter, plan: &Arc<Plan>, scan: PartitionScan) -> Result<Vec<ScanPart>, ApiError> {
    if scan.partial.as_ref().map_or(0, Partial::bytes) <= INLINE_BYTES_MAX {
        return Ok(cutter.add(plan, scan));
    }
    let (mut taken, plan) = (std::mem::take(cutter), Arc::clone(plan));
    let cut = tokio::task::spawn_blocking(move || {
        let parts = taken.add(&plan, scan);
        (taken, parts)
    });
    let (taken, parts) = cut.await.map_err(|error| ApiError::internal(format!("writing a result failed: {error}")))?;
    *cutter = taken;
    Ok(parts)
}
