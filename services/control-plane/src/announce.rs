//! Control records: how a table's partitions learn of its changes, in the order of their log.

use std::sync::Arc;

use bytes::Bytes;
use codec::{BlockHeader, BlockKind, ControlRecord};
use event_log::{Append, AppendError, EventLog};
use types::{ApiError, AppenderId, ErrorCode, Table, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

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
    let body = Bytes::from(record.encode());
    let body_len = u32::try_from(body.len()).map_err(|_| ApiError::internal("control record is too large"))?;
    let body_checksum = xxh3_64(&body);
    let blocks = table.partitions.iter().map(|&partition| Append {
        header: BlockHeader {
            kind: BlockKind::Control,
            key: table.key,
            schema_version: table.schema.version(),
            partition,
            rows: 0,
            body_len,
            body_checksum,
            // The log's to fill.
            appender: AppenderId(0),
            appender_rows: 0,
            time_min: Timestamp(0),
            time_max: Timestamp(0),
            batch: None,
            times_given: false,
        },
        body: body.clone(),
    });
    log.append(blocks.collect()).await.map(drop).map_err(|error| append_error(&error))
}

fn append_error(error: &AppendError) -> ApiError {
    match error {
        AppendError::Overloaded { retry_after } => {
            ApiError::new(ErrorCode::ResourceExhausted, error.to_string()).with_retry_after(*retry_after)
        }
        AppendError::Unavailable(_) | AppendError::Closed => ApiError::unavailable(error.to_string()),
    }
}
