//! The checksum of a table's rows in one partition, for those who compare replicas.

use engine::Reader;
use proto::hot_tier::{ChecksumRequest, TableChecksum};
use query::{Cancel, RowsChecksum};
use types::ApiError;

use crate::scan::behind;

/// The checksum that was asked for. The partition has applied what it is to cover.
pub(crate) fn of_rows(
    request: &ChecksumRequest,
    reader: &Reader,
    cancel: &Cancel<'_>,
) -> Result<TableChecksum, ApiError> {
    let ChecksumRequest { key, partition, at, range, .. } = *request;
    let snapshots = reader.snapshots_at(&[key], at).ok_or_else(|| behind(partition, at))?;
    // A table that the partition does not know has no rows there.
    let Some(table) = snapshots.into_iter().flatten().next() else {
        return Ok(TableChecksum { evicted_before: None, found: RowsChecksum::default() });
    };
    let found = query::checksum(&table, range, cancel)?;
    Ok(TableChecksum { evicted_before: table.evicted_before(), found })
}
