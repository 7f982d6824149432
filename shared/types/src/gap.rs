//! Records of the log that a partition had to go on without.

use crate::{Offset, TableKey, TimeRange, Timestamp};

/// Why records have no part in a partition's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The log had them no more when they were to be read.
    Gone,
    /// What is stored of them is damaged.
    Damaged,
    /// They are intact, but cannot be applied.
    Inapplicable,
}

impl GapReason {
    /// The name in logs and health.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Damaged => "damaged",
            Self::Inapplicable => "inapplicable",
        }
    }
}

/// A run of records of one partition that are missing from its state. What is not known of them is not ruled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogGap {
    /// The first record.
    pub first: Offset,
    /// The offset after the last one.
    pub end: Offset,
    /// The table that all of them were of; `None`: any.
    pub table: Option<TableKey>,
    /// Their least and greatest event time; `None`: any.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Why they are missing.
    pub reason: GapReason,
}

impl LogGap {
    /// Whether events of a table may be among them.
    #[must_use]
    pub fn may_hold(&self, table: TableKey) -> bool {
        self.table.is_none_or(|of| of == table)
    }

    /// Whether events of a range of event time may be among them.
    #[must_use]
    pub fn may_reach(&self, range: &TimeRange) -> bool {
        self.times.is_none_or(|(min, max)| min < range.end() && range.start() <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, TableId, TenantId};

    /// Goal: a gap is ruled out only by what is known of it: another table, or times outside of the range.
    #[test]
    fn what_is_not_known_is_not_ruled_out() {
        let key = |table| TableKey { tenant: TenantId(1), table: TableId(table), generation: Generation(1) };
        let range = TimeRange::new(Timestamp(10), Timestamp(20)).unwrap();
        let unknown = LogGap { first: Offset(3), end: Offset(4), table: None, times: None, reason: GapReason::Damaged };
        assert!(unknown.may_hold(key(1)) && unknown.may_reach(&range));
        let of_table = LogGap { table: Some(key(1)), ..unknown };
        assert!(of_table.may_hold(key(1)) && !of_table.may_hold(key(2)));
        for (min, max, reaches) in [(0, 9, false), (0, 10, true), (19, 30, true), (20, 30, false), (12, 12, true)] {
            let timed = LogGap { times: Some((Timestamp(min), Timestamp(max))), ..unknown };
            assert_eq!(timed.may_reach(&range), reaches, "{min}..={max}");
        }
    }
}
