//! The dead letters as other services see them: how many there are.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Request, Response, Status};
use types::{ApiError, TableName, TenantId};

use crate::{
    catalog::table_ref,
    internal::{DeadLetterCount, TableRef, dead_letters_client::DeadLettersClient, dead_letters_server},
    members::{GATEWAY, Member, Members},
    wire::{Connector, call, in_time},
};

/// How long a gateway may take to count.
const COUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts of dead letters, kept where the letters are.
#[async_trait]
pub trait DeadLetterCounts: Send + Sync + 'static {
    /// Letters kept of the events that named a table, whether it exists or not.
    ///
    /// # Errors
    /// `UNAVAILABLE` where they cannot be counted.
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError>;
}

/// The counts of a gateway for other processes.
pub struct DeadLettersService {
    counts: Arc<dyn DeadLetterCounts>,
}

impl DeadLettersService {
    /// The service to put on a port.
    pub fn server(counts: Arc<dyn DeadLetterCounts>) -> dead_letters_server::DeadLettersServer<Self> {
        dead_letters_server::DeadLettersServer::new(Self { counts })
    }
}

#[tonic::async_trait]
impl dead_letters_server::DeadLetters for DeadLettersService {
    async fn count(&self, request: Request<TableRef>) -> Result<Response<DeadLetterCount>, Status> {
        let (metadata, _, table) = request.into_parts();
        let (tenant, name) = table.into();
        let count = async { Ok(DeadLetterCount { letters: self.counts.dead_letters(tenant, &name).await? }) };
        in_time(&metadata, count).await
    }
}

/// The letters of all gateways that live. Letters lie on the disk of their gateway: those of one that is gone are not counted
/// until it is back, and one that lives and does not answer makes the count `UNAVAILABLE`, never too small.
pub struct ClusterDeadLetters {
    members: watch::Receiver<Members>,
    connector: Connector,
}

impl ClusterDeadLetters {
    /// Counts at the gateways among the members.
    #[must_use]
    pub fn new(members: watch::Receiver<Members>, connector: Connector) -> Self {
        Self { members, connector }
    }
}

#[async_trait]
impl DeadLetterCounts for ClusterDeadLetters {
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError> {
        let members = Arc::clone(&self.members.borrow());
        let mut counts = JoinSet::new();
        for address in members.values().filter_map(|member: &Member| member.address(GATEWAY)) {
            let mut client = DeadLettersClient::new(self.connector.to(address)?);
            let message = table_ref(tenant, table);
            counts.spawn(call(message, COUNT_TIMEOUT, |request| async move { client.count(request).await }));
        }
        let mut letters = 0;
        while let Some(count) = counts.join_next().await {
            let lost = |_| ApiError::internal("counting dead letters failed; the server's log says why");
            letters += count.map_err(lost)??.letters;
        }
        Ok(letters)
    }
}
