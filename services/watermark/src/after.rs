//! `after`: a ledger that is asked with a token waits until what the token names is applied.

use std::time::Duration;

use codec::{Token, TokenKey};
use proto::progress::Progress;
use tokio::time::Instant;
use types::{ApiError, ErrorCode, Offset, PartitionId, Table, TenantId};

/// As long as a query waits by default.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The offsets of a table that a token names, by partition; a token of other tables names none.
///
/// # Errors
/// `INVALID_ARGUMENT` for a text that is no token, another tenant's, or one of a life of the table that ended.
pub(crate) fn offsets(
    key: &TokenKey,
    tenant: TenantId,
    table: &Table,
    text: &str,
) -> Result<Vec<(PartitionId, Offset)>, ApiError> {
    let foreign =
        || ApiError::invalid("after", "after is not a token of this server; pass one as an ingest reply gave it");
    let token = Token::decode(key, text).ok().filter(|token| token.tenant == tenant).ok_or_else(foreign)?;
    match token.table(table.key.table) {
        Some(named) if named.generation == table.key.generation => Ok(named.offsets.clone()),
        Some(_) => Err(ApiError::invalid("after", "after is a token of a table that was deleted")),
        None => Ok(Vec::new()),
    }
}

/// Waits until every record before the offsets is applied.
///
/// # Errors
/// `DEADLINE_EXCEEDED` where that takes longer than [`WAIT_MAX`]; as [`Progress::table`].
pub(crate) async fn wait(
    progress: &dyn Progress,
    table: &Table,
    offsets: &[(PartitionId, Offset)],
) -> Result<(), ApiError> {
    if offsets.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let now = progress.table(table).await?;
        let behind = offsets.iter().find(|(partition, offset)| {
            !now.partitions.iter().any(|at| at.partition == *partition && at.next_offset >= *offset)
        });
        let Some((partition, offset)) = behind else { return Ok(()) };
        if Instant::now() >= deadline {
            let message =
                format!("partition {partition} did not reach offset {offset} in time; the data is safe, ask again");
            return Err(ApiError::new(ErrorCode::DeadlineExceeded, message).with_field("after"));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use async_trait::async_trait;
    use codec::TableToken;
    use proto::progress::{PartitionProgress, TableProgress};
    use types::{Generation, Schema, SchemaVersion, TableId, TableKey, TableName, TableSettings, Timestamp};

    use super::*;

    /// A partition that applies one record more at each look, as far as it comes.
    struct Steps {
        looks: AtomicU64,
        end: u64,
    }

    #[async_trait]
    impl Progress for Steps {
        async fn table(&self, _: &Table) -> Result<TableProgress, ApiError> {
            let next_offset = Offset(self.looks.fetch_add(1, SeqCst).min(self.end));
            let partition = PartitionProgress {
                partition: PartitionId(2),
                log_end: Offset(self.end),
                next_offset,
                event_time_max: None,
                freshness_us: 0,
            };
            Ok(TableProgress { partitions: vec![partition], watermark: None, freshness_us: 0 })
        }

        async fn watermark(&self, _: &[Arc<Table>]) -> Result<Option<Timestamp>, ApiError> {
            Ok(None)
        }

        async fn freshness_us(&self, _: Vec<(PartitionId, Offset)>, _: Timestamp) -> Result<i64, ApiError> {
            Ok(0)
        }
    }

    fn table() -> Table {
        Table {
            key: TableKey { tenant: TenantId(1), table: TableId(5), generation: Generation(3) },
            name: TableName::new("shop", "events"),
            partitions: vec![PartitionId(2)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 2,
            schema: Schema::default(),
            settings: TableSettings::default(),
        }
    }

    fn named(table: u64, generation: u32) -> TableToken {
        let offsets = vec![(PartitionId(2), Offset(7))];
        let (generation, schema_version) = (Generation(generation), SchemaVersion(1));
        TableToken { table: TableId(table), generation, schema_version, offsets }
    }

    /// Goal: only a token that this server gave this tenant for this life of the table is waited for.
    #[test]
    fn tokens_are_distrusted() {
        let key = TokenKey::new([7; 32]);
        let offsets_of = |tenant, named: &[TableToken], key_of_token: &TokenKey| {
            let mut token = Token::new(TenantId(tenant));
            named.iter().for_each(|named| token.cover(named));
            offsets(&key, TenantId(1), &table(), &token.encode(key_of_token))
        };
        let expected = Ok(vec![(PartitionId(2), Offset(7))]);
        assert_eq!(offsets_of(1, &[named(4, 1), named(5, 3)], &key), expected);
        assert_eq!(offsets_of(1, &[named(4, 1)], &key), Ok(Vec::new()), "of another table alone");
        for refused in [
            offsets_of(2, &[named(5, 3)], &key),
            offsets_of(1, &[named(5, 2)], &key),
            offsets_of(1, &[named(5, 3)], &TokenKey::new([8; 32])),
            offsets(&key, TenantId(1), &table(), "forged"),
        ] {
            let error = refused.unwrap_err();
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some("after")));
        }
    }

    /// Goal: the wait ends when the last offset is reached, and by name when it is not in time.
    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let steps = |end| Steps { looks: AtomicU64::new(0), end };
        let reached = steps(9);
        wait(&reached, &table(), &[(PartitionId(2), Offset(5)), (PartitionId(2), Offset(7))]).await.unwrap();
        assert_eq!(reached.looks.load(SeqCst), 8, "looks up to the one that found offset 7");
        wait(&steps(0), &table(), &[]).await.unwrap();

        let began = Instant::now();
        let late = wait(&steps(6), &table(), &[(PartitionId(2), Offset(7))]).await.unwrap_err();
        assert_eq!((late.code, late.field.as_deref()), (ErrorCode::DeadlineExceeded, Some("after")));
        assert!((WAIT_MAX..WAIT_MAX * 2).contains(&began.elapsed()));
    }
}
