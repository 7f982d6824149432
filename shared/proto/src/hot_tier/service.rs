//! A node's side of the boundary: any [`HotTier`] as a gRPC service.

use std::sync::Arc;

use bytes::Bytes;
use query::{Partial, Plan};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use types::ApiError;

use super::{
    HotTier, NodeScan, event_parts,
    messages::{INLINE_BYTES_MAX, key_of, unread},
    scan_parts,
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
    type ScanStream = ReceiverStream<Result<ScanPart, Status>>;
    type EventsStream = ReceiverStream<Result<EventsPart, Status>>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let mut request = request.into_inner();
        let found = async {
            let plan = plan_of(std::mem::take(&mut request.plan)).await?;
            // Awaited here, so that a caller that leaves drops the scan.
            let found = self.node.scan(request.with(Arc::clone(&plan))).await?;
            Ok::<_, ApiError>((plan, found))
        };
        let (plan, found) = found.await.map_err(|error| status_of(&error))?;
        Ok(Response::new(ReceiverStream::new(parts_of(plan, found))))
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

/// The parts of a scan. Results that may take a millisecond to put into bytes are, on a thread for such work, as fast as the
/// caller takes them; it ends when the caller has left.
fn parts_of(plan: Arc<Plan>, scan: NodeScan) -> mpsc::Receiver<Result<ScanPart, Status>> {
    let bytes: usize = scan.scans.iter().filter_map(|scan| scan.partial.as_ref()).map(Partial::bytes).sum();
    if bytes <= INLINE_BYTES_MAX {
        // So few bytes are one part, two at most: there is room.
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        scan_parts::cut(&plan, scan, |part| sender.try_send(Ok(part)).is_ok());
        return receiver;
    }
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    tokio::task::spawn_blocking(move || {
        scan_parts::cut(&plan, scan, |part| sender.blocking_send(Ok(part)).is_ok());
    });
    receiver
}
