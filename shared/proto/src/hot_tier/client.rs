//! A node in another process.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use query::Plan;
use tokio::sync::mpsc;
use tonic::{Request, Status};
use types::{ApiError, ErrorCode, Offset, PartitionId, TableKey};

use super::{
    ChecksumRequest, EventsRequest, HotTier, NodeEvents, NodeExplanation, NodeScan, PartitionScan, PartitionStatus,
    ScanRequest, TableChecksum, TablePartitionStatus, Unavailable, event_parts, messages, nobody_takes, scan_parts,
    scan_whole, service::REQUEST_BYTES_MAX,
};
use crate::{
    internal::{self, hot_tier_client},
    wire::{Signed, call, error_of, timed},
};

/// How much longer than the node the caller waits, so that what the node says of the time still arrives.
const GRACE: Duration = Duration::from_millis(200);
/// How long a node may take to say how far its partitions are.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest message that is read, bytes: a part of an answer, or what a node explains.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Results of partitions that are read while the next ones come.
const READ_AHEAD: usize = 2;

/// A node of the hot tier in another process. Cloning shares the connection. Dropping the future of a call ends its work
/// there.
#[derive(Clone)]
pub struct HotTierClient {
    client: hot_tier_client::HotTierClient<Signed>,
}

impl HotTierClient {
    /// The node behind a connection.
    #[must_use]
    pub fn new(connection: Signed) -> Self {
        Self { client: hot_tier_client::HotTierClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX) }
    }
}

/// A request that tells the other side when it may stop.
fn asking<T>(message: T, deadline: Instant) -> Request<T> {
    timed(message, deadline.saturating_duration_since(Instant::now()) + GRACE)
}

/// Does a call until its deadline and a little longer.
async fn until<R>(deadline: Instant, call: impl Future<Output = Result<R, ApiError>>) -> Result<R, ApiError> {
    match tokio::time::timeout_at((deadline + GRACE).into(), call).await {
        Ok(answered) => answered,
        Err(_) => {
            let error = ApiError::new(ErrorCode::DeadlineExceeded, "a node of the hot tier did not answer in time");
            Err(error.with_field("timeout_ms"))
        }
    }
}

async fn answered<R>(call: impl Future<Output = Result<tonic::Response<R>, Status>>) -> Result<R, ApiError> {
    Ok(call.await.map_err(|status| error_of(&status))?.into_inner())
}

/// The plan as bytes; that of a further round, which may be long, on a thread for such work.
async fn bytes_of(plan: &Arc<Plan>) -> Result<Vec<u8>, ApiError> {
    if !plan.is_further_round() {
        return Ok(plan.to_bytes());
    }
    let plan = Arc::clone(plan);
    let bytes = tokio::task::spawn_blocking(move || plan.to_bytes()).await;
    let bytes = bytes.map_err(|error| ApiError::internal(format!("writing a plan failed: {error}")))?;
    if bytes.len() >= REQUEST_BYTES_MAX {
        let message = "the groups of an exact percentile take too long a request; ask for fewer groups or a sketch";
        return Err(ApiError::new(ErrorCode::TooLarge, message).with_field("group_by"));
    }
    Ok(bytes)
}

#[async_trait]
impl HotTier for HotTierClient {
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError> {
        scan_whole(self, request).await
    }

    async fn scan_each(
        &self,
        request: ScanRequest,
        found: mpsc::Sender<PartitionScan>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        let message = internal::ScanRequest::of(&request, bytes_of(&request.plan).await?);
        let (mut client, message) = (self.client.clone(), asking(message, request.deadline));
        until(request.deadline, async move {
            let mut parts = answered(client.scan(message)).await?;
            let mut gathering = scan_parts::Gathering::new(request.plan, &request.partitions);
            let mut more = true;
            while more {
                let Some(part) = parts.message().await.map_err(|status| error_of(&status))? else { break };
                more = gathering.take(part)?;
                // Some are read while the next ones come; beyond these the node has to wait.
                let ahead = if more { READ_AHEAD } else { 0 };
                while let Some(scan) = gathering.next(ahead).await? {
                    found.send(scan).await.map_err(|_| nobody_takes())?;
                }
            }
            gathering.finish()
        })
        .await
    }

    async fn applied(&self, after: Vec<(PartitionId, Offset)>, deadline: Instant) -> Result<(), ApiError> {
        let message = asking(internal::AppliedRequest::of(&after, deadline), deadline);
        let mut client = self.client.clone();
        until(deadline, answered(client.applied(message))).await.map(drop)
    }

    async fn events(&self, request: EventsRequest) -> Result<NodeEvents, ApiError> {
        let message = internal::EventsRequest::of(&request, bytes_of(&request.plan).await?);
        let (mut client, message) = (self.client.clone(), asking(message, request.deadline));
        until(request.deadline, async move {
            let mut parts = answered(client.events(message)).await?;
            let mut gathering = event_parts::Gathering::default();
            while let Some(part) = parts.message().await.map_err(|status| error_of(&status))? {
                if !gathering.take(part, request.limit)? {
                    break;
                }
            }
            gathering.finish()
        })
        .await
    }

    async fn explain(&self, request: ScanRequest) -> Result<NodeExplanation, ApiError> {
        let message = internal::ScanRequest::of(&request, bytes_of(&request.plan).await?);
        let (mut client, message) = (self.client.clone(), asking(message, request.deadline));
        Ok(until(request.deadline, answered(client.explain(message))).await?.try_into()?)
    }

    async fn checksum(&self, request: ChecksumRequest) -> Result<TableChecksum, ApiError> {
        let mut client = self.client.clone();
        let message = asking(internal::ChecksumRequest::of(&request), request.deadline);
        until(request.deadline, answered(client.checksum(message))).await.map(Into::into)
    }

    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError> {
        let mut client = self.client.clone();
        let status =
            call(internal::StatusRequest {}, STATUS_TIMEOUT, |request| async move { client.status(request).await });
        Ok(status.await?.partitions.into_iter().map(Into::into).collect())
    }

    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError> {
        let mut client = self.client.clone();
        let request = internal::TableStatusRequest { key: Some(messages::key(key)) };
        let status = call(request, STATUS_TIMEOUT, |request| async move { client.table_status(request).await });
        Ok(status.await?.partitions.into_iter().map(Into::into).collect())
    }
}
