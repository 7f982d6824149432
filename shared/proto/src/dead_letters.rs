//! The dead letters as other services see them: how many there are.

use async_trait::async_trait;
use types::{ApiError, TableName, TenantId};

/// Counts of dead letters, kept where the letters are.
#[async_trait]
pub trait DeadLetterCounts: Send + Sync + 'static {
    /// Letters kept of the events that named a table, whether it exists or not.
    ///
    /// # Errors
    /// `UNAVAILABLE` where they cannot be counted.
    async fn dead_letters(&self, tenant: TenantId, table: &TableName) -> Result<u64, ApiError>;
}
