//! Counts of letters for other services.

use std::{io, sync::Arc};

use async_trait::async_trait;
use proto::dead_letters::DeadLetterCounts;
use types::{ApiError, TableName, TenantId};

use super::{DeadLetterError, DeadLetters, Drawer};

/// The counts of one store.
pub struct Counts(pub Arc<DeadLetters>);

#[async_trait]
impl DeadLetterCounts for Counts {
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError> {
        let Some(drawer) = Drawer::new(tenant, table.clone()) else { return Ok(0) };
        let letters = Arc::clone(&self.0);
        let counted = tokio::task::spawn_blocking(move || letters.count(&drawer)).await;
        counted.map_err(|error| DeadLetterError::Io(Arc::new(io::Error::other(error))).into())
    }
}
