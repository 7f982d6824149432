//! Ledgers of tables, asked from the hot tier and the log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use event_log::{EventLog, ReadError};
use proto::hot_tier::{HotTier, TablePartitionStatus};
use types::{ApiError, Offset, PartitionId, Table, TableKey};

use crate::ledger::{Ledger, Terms};

/// A partition publishes its counters and its offset one after the other; a look in between shows them apart by one
/// record. What stays apart over so many looks is an imbalance.
const LOOKS_MAX: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Counts ledgers.
#[derive(Clone)]
pub(crate) struct Ledgers {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) hot_tier: Arc<dyn HotTier>,
}

/// What a count found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Counted(Ledger),
    /// More records wait than were to be looked at.
    TooFarBehind {
        records: u64,
    },
}

/// A partition of the table, as the hot tier has it.
struct Applied {
    partition: PartitionId,
    next_offset: Offset,
    status: Option<TablePartitionStatus>,
}

impl Ledgers {
    /// The ledger of a table, unless more than `records_max` records wait in its partitions.
    ///
    /// # Errors
    /// `UNAVAILABLE` where a partition's node or the log cannot be asked.
    pub(crate) async fn count(&self, table: &Table, records_max: u64) -> Result<Count, ApiError> {
        let mut count = self.look(table, records_max).await?;
        for _ in 1..LOOKS_MAX {
            if !matches!(count, Count::Counted(Ledger { balanced: false, .. })) {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            count = self.look(table, records_max).await?;
        }
        Ok(count)
    }

    async fn look(&self, table: &Table, records_max: u64) -> Result<Count, ApiError> {
        let applied = self.applied(table).await?;
        let waits = |applied: &Applied| {
            let end = self.log.bounds(applied.partition).end;
            end.0.saturating_sub(applied.next_offset.0)
        };
        let records: u64 = applied.iter().map(waits).sum();
        if records > records_max {
            return Ok(Count::TooFarBehind { records });
        }
        let (log, key) = (Arc::clone(&self.log), table.key);
        let counted = tokio::task::spawn_blocking(move || {
            applied.iter().map(|applied| terms(log.as_ref(), key, applied)).collect::<Result<Vec<_>, _>>()
        });
        let counted =
            counted.await.map_err(|error| ApiError::internal(format!("counting the ledger failed: {error}")))?;
        let terms = counted.map_err(|error| ApiError::unavailable(format!("the log cannot be counted: {error}")))?;
        Ok(Count::Counted(Ledger::over(&terms)))
    }

    async fn applied(&self, table: &Table) -> Result<Vec<Applied>, ApiError> {
        // First the offsets, then the tables: a partition that does not know the table after that had no event of it
        // before the offset either.
        let offsets: BTreeMap<PartitionId, Offset> =
            self.hot_tier.status().await?.into_iter().map(|status| (status.partition, status.next_offset)).collect();
        let mut known: BTreeMap<PartitionId, TablePartitionStatus> =
            self.hot_tier.table_status(table.key).await?.into_iter().map(|status| (status.partition, status)).collect();
        let applied = |&partition: &PartitionId| {
            let status = known.remove(&partition);
            let next_offset = status.map(|status| status.next_offset).or_else(|| offsets.get(&partition).copied());
            let away = || ApiError::unavailable(format!("partition {partition} is on no node that answers"));
            Ok(Applied { partition, next_offset: next_offset.ok_or_else(away)?, status })
        };
        table.partitions.iter().map(applied).collect()
    }
}

fn terms(log: &dyn EventLog, key: TableKey, applied: &Applied) -> Result<Terms, ReadError> {
    let ledger = log.ledger(applied.partition, key, applied.next_offset)?;
    Ok(Terms::of_partition(&ledger, applied.status.as_ref()))
}
