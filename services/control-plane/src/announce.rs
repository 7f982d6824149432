//! Control records: how a table's partitions learn of its changes, in the order of their log.

use std::sync::Arc;

use codec::ControlRecord;
use event_log::{Append, AppendError, EventLog};
use types::{ApiError, ErrorCode, Table};

/// Appends the whole state of a table to each of its partitions. Doing so twice does no harm: a partition passes over a version
/// that it has.
pub(crate) async fn announce_table(log: &Arc<dyn EventLog>, table: &Arc<Table>) -> Result<(), ApiError> {
    append(log, table, &ControlRecord::TableConfigured(Arc::clone(table))).await
}

/// Appends the end of a life of a table to each of its partitions.
pub(crate) async fn announce_end(log: &Arc<dyn EventLog>, table: &Table) -> Result<(), ApiError> {
    append(log, table, &ControlRecord::TableDropped(table.key)).await
}

async fn append(log: &Arc<dyn EventLog>, table: &Table, record: &ControlRecord) -> Result<(), ApiError> {
    let block = |&partition| {
        let (header, body) = record.block(table.schema.version(), partition);
        Append { header, body }
    };
    log.append(table.partitions.iter().map(block).collect()).await.map(drop).map_err(|error| append_error(&error))
}

fn append_error(error: &AppendError) -> ApiError {
    match error {
        AppendError::Overloaded { retry_after } => {
            ApiError::new(ErrorCode::ResourceExhausted, error.to_string()).with_retry_after(*retry_after)
        }
        AppendError::Unavailable(_) | AppendError::Closed => ApiError::unavailable(error.to_string()),
    }
}
