//! The receipt: what an answer covers, how fresh it is, and what is missing from it.

use std::{collections::BTreeMap, sync::Arc};

use codec::{TableToken, Token, TokenKey};
use proto::hot_tier::Unavailable;
use serde::Serialize;
use types::{ApiError, ErrorCode, PartitionId, Table, TenantId, TimeRange, Timestamp};

use crate::fanout::Gathered;

/// Something that an answer lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Missing {
    /// A partition of which nothing came.
    Partition { partition: u32, why: &'static str },
    /// Rows before a time.
    Before { before_us: i64, why: &'static str },
}

/// The receipt as it goes to the client.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    pub(crate) complete: bool,
    pub(crate) missing: Vec<Missing>,
    pub(crate) truncated: bool,
    pub(crate) as_of_us: i64,
    pub(crate) watermark_us: i64,
    pub(crate) freshness_us: i64,
    pub(crate) covers: String,
    pub(crate) offsets: BTreeMap<String, u64>,
}

/// What an answer over `range` lacks, most important first.
pub(crate) fn missing(
    range: TimeRange,
    unavailable: &[(PartitionId, Unavailable)],
    evicted_before: Option<Timestamp>,
) -> Vec<Missing> {
    let away = unavailable.iter().map(|(p, why)| Missing::Partition { partition: p.0, why: why.name() });
    let evicted = evicted_before
        .filter(|&before| range.start() < before)
        .map(|before| Missing::Before { before_us: before.0, why: "evicted" });
    away.chain(evicted).collect()
}

/// The error of an answer that may not be partial, if anything is missing.
pub(crate) fn refuse_partial(missing: &[Missing]) -> Result<(), ApiError> {
    let away: Vec<_> = missing
        .iter()
        .filter_map(|m| match m {
            Missing::Partition { partition, why } => Some(format!("{partition} ({why})")),
            Missing::Before { .. } => None,
        })
        .collect();
    if !away.is_empty() {
        let message = format!(
            "partition {} does not answer now; try again, or set allow_partial to get what the others have",
            away.join(", ")
        );
        return Err(ApiError::unavailable(message));
    }
    match missing.first() {
        Some(Missing::Before { before_us, .. }) => {
            let message = format!(
                "rows before {before_us} have left memory: the earliest covered time is {before_us}; ask from there, or \
                 set allow_partial to get what is left"
            );
            Err(ApiError::new(ErrorCode::OutOfRange, message).with_field("start_time"))
        }
        _ => Ok(()),
    }
}

/// What an answer covers, as a token and by partition.
pub(crate) fn covers(tenant: TenantId, tables: &[Arc<Table>], gathered: &Gathered, key: &TokenKey) -> String {
    let mut token = Token::new(tenant);
    for table in tables {
        let scans = gathered.scans.iter().filter(|scan| table.partitions.contains(&scan.partition));
        token.cover(&TableToken {
            table: table.key.table,
            generation: table.key.generation,
            schema_version: table.schema.version(),
            offsets: scans.map(|scan| (scan.partition, scan.next_offset)).collect(),
        });
    }
    token.encode(key)
}

/// The offsets that an answer covers, by partition: every record before them.
pub(crate) fn offsets(gathered: &Gathered) -> BTreeMap<String, u64> {
    gathered.scans.iter().map(|scan| (scan.partition.to_string(), scan.next_offset.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an answer is refused exactly when something of its range is gone or away, by name.
    #[test]
    fn what_is_missing_is_named() {
        let range = TimeRange::new(Timestamp(100), Timestamp(200)).unwrap();
        assert_eq!(missing(range, &[], None), []);
        assert_eq!(missing(range, &[], Some(Timestamp(100))), []);
        let evicted = missing(range, &[], Some(Timestamp(101)));
        assert_eq!(evicted, [Missing::Before { before_us: 101, why: "evicted" }]);
        let error = refuse_partial(&evicted).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::OutOfRange, Some("start_time")));
        assert!(error.message.contains("101"));
        let error = refuse_partial(&missing(range, &[(PartitionId(3), Unavailable::Recovering)], Some(Timestamp(101))))
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("3 (recovering)"));
        assert_eq!(refuse_partial(&[]), Ok(()));
    }
}
