//! The receipt: what an answer covers, how fresh it is, and what is missing from it.

use std::{collections::BTreeMap, sync::Arc};

use codec::{TableToken, Token, TokenKey};
use proto::hot_tier::Unavailable;
use serde::Serialize;
use types::{ApiError, ErrorCode, LogGap, Offset, PartitionId, Table, TenantId, TimeRange, Timestamp};

/// Something that an answer lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Missing {
    /// A partition of which nothing came.
    Partition { partition: u32, why: &'static str },
    /// Rows before a time.
    Before { before_us: i64, why: &'static str },
    /// Records of a partition's log that could not be read or applied, of which some may belong to the answer.
    Records { partition: u32, offset: u64, records: u64, why: &'static str },
}

/// Why a later page lacks a partition: the first one did, and all show one state.
pub(crate) const NOT_IN_FIRST_PAGE: &str = "not_in_first_page";
/// Why records are missing.
const LOG_GAP: &str = "log_gap";
/// Gaps that the message of an error names; of more only their number.
const GAPS_NAMED_MAX: usize = 4;

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
    gaps: &[(PartitionId, LogGap)],
    lacks_before: Option<Timestamp>,
) -> Vec<Missing> {
    let away = unavailable.iter().map(|(p, why)| Missing::Partition { partition: p.0, why: why.name() });
    let gaps = gaps.iter().filter(|(_, gap)| gap.may_reach(&range)).map(|(partition, gap)| {
        let records = gap.end.0 - gap.first.0;
        Missing::Records { partition: partition.0, offset: gap.first.0, records, why: LOG_GAP }
    });
    let evicted = lacks_before
        .filter(|&before| range.start() < before)
        .map(|before| Missing::Before { before_us: before.0, why: "evicted" });
    away.chain(gaps).chain(evicted).collect()
}

/// The error of an answer that may not be partial, if anything is missing.
pub(crate) fn refuse_partial(missing: &[Missing]) -> Result<(), ApiError> {
    let away: Vec<_> = missing
        .iter()
        .filter_map(|m| match m {
            Missing::Partition { partition, why } => Some(format!("{partition} ({why})")),
            Missing::Before { .. } | Missing::Records { .. } => None,
        })
        .collect();
    if !away.is_empty() {
        let away = away.join(", ");
        let of_cursor = |m: &Missing| matches!(m, Missing::Partition { why: NOT_IN_FIRST_PAGE, .. });
        if missing.iter().any(of_cursor) {
            let message = format!(
                "partition {away} is not in the state that the cursor shows, and will not be; begin again without the \
                 cursor, or set allow_partial to get what the others have"
            );
            return Err(ApiError::unavailable(message).with_field("cursor"));
        }
        let message = format!(
            "partition {away} does not answer now; try again, or set allow_partial to get what the others have"
        );
        return Err(ApiError::unavailable(message));
    }
    match missing.first() {
        Some(Missing::Records { .. }) => Err(lost(missing)),
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

/// The error of an answer that may lack records of the log.
fn lost(missing: &[Missing]) -> ApiError {
    let gaps = missing.iter().filter_map(|m| match m {
        Missing::Records { partition, offset, .. } => Some(format!("partition {partition} offset {offset}")),
        Missing::Partition { .. } | Missing::Before { .. } => None,
    });
    let mut named: Vec<_> = gaps.collect();
    let more = named.len().saturating_sub(GAPS_NAMED_MAX);
    named.truncate(GAPS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    ApiError::unavailable(format!(
        "records of the log that may belong to the answer could not be read (log_gap: {}{more}); set allow_partial to get \
         what is there",
        named.join(", ")
    ))
}

/// What an answer covers, as a token.
pub(crate) fn covers(
    tenant: TenantId,
    tables: &[Arc<Table>],
    covered: &[(PartitionId, Offset)],
    key: &TokenKey,
) -> String {
    let mut token = Token::new(tenant);
    for table in tables {
        let of_table = covered.iter().filter(|(partition, _)| table.partitions.contains(partition));
        token.cover(&TableToken {
            table: table.key.table,
            generation: table.key.generation,
            schema_version: table.schema.version(),
            offsets: of_table.copied().collect(),
        });
    }
    token.encode(key)
}

/// What an answer covers, by partition: every record before the offset.
pub(crate) fn offsets(covered: &[(PartitionId, Offset)]) -> BTreeMap<String, u64> {
    covered.iter().map(|(partition, next)| (partition.to_string(), next.0)).collect()
}

#[cfg(test)]
mod tests {
    use types::GapReason;

    use super::*;

    fn range() -> TimeRange {
        TimeRange::new(Timestamp(100), Timestamp(200)).unwrap()
    }

    /// Goal: an answer is refused exactly when something of its range is gone or away, by name.
    #[test]
    fn what_is_missing_is_named() {
        let missing =
            |unavailable: &[_], evicted: Option<i64>| missing(range(), unavailable, &[], evicted.map(Timestamp));
        assert_eq!(missing(&[], None), []);
        assert_eq!(missing(&[], Some(100)), []);
        let evicted = missing(&[], Some(101));
        assert_eq!(evicted, [Missing::Before { before_us: 101, why: "evicted" }]);
        let error = refuse_partial(&evicted).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::OutOfRange, Some("start_time")));
        assert!(error.message.contains("101"));
        let error = refuse_partial(&missing(&[(PartitionId(3), Unavailable::Recovering)], Some(101))).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("3 (recovering)"));
        assert_eq!(refuse_partial(&[]), Ok(()));
    }

    /// Goal: whoever pages through a state without a partition is told what helps: a new beginning, not the same again.
    #[test]
    fn a_cursor_without_a_partition_is_not_tried_again() {
        let away = |partition, why| Missing::Partition { partition, why };
        let error = refuse_partial(&[away(1, "recovering")]).unwrap_err();
        assert!(error.message.contains("try again") && error.field.is_none(), "{error:?}");
        let error = refuse_partial(&[away(1, "recovering"), away(2, NOT_IN_FIRST_PAGE)]).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Unavailable, Some("cursor")));
        assert!(error.message.contains("without the cursor") && !error.message.contains("try again"), "{error:?}");
    }

    /// Goal: records that the log could not give make every answer incomplete that they may belong to, and no other; by
    /// partition and offset.
    #[test]
    fn gaps_of_the_log_are_named() {
        let gap = |first, times| LogGap {
            first: Offset(first),
            end: Offset(first + 2),
            table: None,
            times,
            reason: GapReason::Damaged,
        };
        let elsewhere = gap(1, Some((Timestamp(0), Timestamp(99))));
        let gaps = [(PartitionId(2), elsewhere), (PartitionId(2), gap(5, None))];
        let found = missing(range(), &[], &gaps, Some(Timestamp(150)));
        let expected = [
            serde_json::json!({"why": "log_gap", "partition": 2, "offset": 5, "records": 2}),
            serde_json::json!({"why": "evicted", "before_us": 150}),
        ];
        assert_eq!(serde_json::to_value(&found).unwrap(), serde_json::json!(expected));
        let error = refuse_partial(&found).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains("log_gap: partition 2 offset 5)"), "{}", error.message);
        assert_eq!(missing(range(), &[], &gaps[..1], None), []);
    }
}
