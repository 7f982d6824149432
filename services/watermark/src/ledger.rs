//! The ledger of one table: acked = live + evicted + duplicate + erased + in flight, to the event.
//!
//! 1. Each term is counted where it happens: acked by the log as records become durable, in flight from the headers of
//!    those that wait, the others by the partitions as they apply. None is computed from another, so the sum can fail.
//! 2. The terms of a partition are those at one applied offset and one end of the log.

use std::iter::Sum;

use event_log::LogLedger;
use proto::hot_tier::TablePartitionStatus;
use serde::Serialize;

/// The terms of a ledger, in events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Became durable.
    pub(crate) acked: u64,
    /// Are resident.
    pub(crate) live: u64,
    /// Left memory, or came too late to stay.
    pub(crate) evicted: u64,
    /// Had been applied before.
    pub(crate) duplicate: u64,
    /// Were taken back.
    pub(crate) erased: u64,
    /// Wait to be applied.
    pub(crate) in_flight: u64,
    /// Came behind the watermark of their partition less the table's lateness; counted above as well.
    pub(crate) late: u64,
    /// Were duplicates with another content than the first; counted as duplicates as well.
    pub(crate) conflict: u64,
}

impl Terms {
    /// The terms of one partition; `applied` is `None` where it has not seen the table yet.
    pub(crate) fn of_partition(log: &LogLedger, applied: Option<&TablePartitionStatus>) -> Self {
        let of_log = Self { acked: log.acked_rows, in_flight: log.in_flight_rows, ..Self::default() };
        applied.map_or(of_log, |status| Self {
            live: status.live,
            evicted: status.evicted,
            duplicate: status.duplicate,
            erased: status.erased,
            late: status.late,
            conflict: status.conflict,
            ..of_log
        })
    }

    /// Whether every event that was acked is in one place.
    pub(crate) fn balanced(&self) -> bool {
        let placed = [self.live, self.evicted, self.duplicate, self.erased, self.in_flight];
        // Wide enough for any five counters: a corrupted one must not wrap around into balance.
        u128::from(self.acked) == placed.into_iter().map(u128::from).sum()
    }
}

impl Sum for Terms {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::default(), |sum, next| Self {
            acked: sum.acked.saturating_add(next.acked),
            live: sum.live.saturating_add(next.live),
            evicted: sum.evicted.saturating_add(next.evicted),
            duplicate: sum.duplicate.saturating_add(next.duplicate),
            erased: sum.erased.saturating_add(next.erased),
            in_flight: sum.in_flight.saturating_add(next.in_flight),
            late: sum.late.saturating_add(next.late),
            conflict: sum.conflict.saturating_add(next.conflict),
        })
    }
}

/// A table's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The sums over the table's partitions.
    pub(crate) terms: Terms,
    /// Whether the terms of each partition balance. A surplus in one never makes up for a loss in another.
    pub(crate) balanced: bool,
}

impl Ledger {
    /// The ledger over a table's partitions.
    pub(crate) fn over(partitions: &[Terms]) -> Self {
        Self { terms: partitions.iter().copied().sum(), balanced: partitions.iter().all(Terms::balanced) }
    }
}

/// A ledger as clients see it.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerView {
    acked: u64,
    live: u64,
    evicted: u64,
    duplicate: u64,
    erased: u64,
    in_flight: u64,
    balanced: bool,
    late: u64,
    conflict: u64,
    dead_lettered: u64,
}

impl LedgerView {
    pub(crate) fn new(ledger: &Ledger, dead_lettered: u64) -> Self {
        let Ledger { terms, balanced } = *ledger;
        let Terms { acked, live, evicted, duplicate, erased, in_flight, late, conflict } = terms;
        Self { acked, live, evicted, duplicate, erased, in_flight, balanced, late, conflict, dead_lettered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Terms =
        Terms { acked: 31, live: 1, evicted: 2, duplicate: 4, erased: 8, in_flight: 16, late: 3, conflict: 1 };

    /// Goal: one event more or less in any one term, or a counter gone wild, turns `balanced` false; what stands beside does not.
    #[test]
    fn each_corrupted_term_shows() {
        assert!(GOOD.balanced());
        let terms: [fn(&mut Terms) -> &mut u64; 6] = [
            |terms| &mut terms.acked,
            |terms| &mut terms.live,
            |terms| &mut terms.evicted,
            |terms| &mut terms.duplicate,
            |terms| &mut terms.erased,
            |terms| &mut terms.in_flight,
        ];
        for (at, term) in terms.iter().enumerate() {
            for corrupt in [|value: u64| value + 1, |value| value - 1, |_| u64::MAX, |value| value ^ (1 << 63)] {
                let mut bad = GOOD;
                *term(&mut bad) = corrupt(*term(&mut bad));
                assert!(!bad.balanced(), "term {at}: {bad:?}");
                let ledger = Ledger::over(&[GOOD, bad]);
                assert!(!ledger.balanced, "term {at} among partitions");
                assert_eq!(ledger.terms.acked, 31_u64.saturating_add(bad.acked));
            }
        }
        assert!(Terms { late: 0, conflict: 0, ..GOOD }.balanced());
        assert!(Ledger::over(&[]).balanced && Ledger::over(&[GOOD, GOOD]).balanced);
    }

    /// Goal: what one partition has too much does not hide what another has lost.
    #[test]
    fn partitions_do_not_balance_each_other() {
        let ledger = Ledger::over(&[Terms { live: 2, ..GOOD }, Terms { live: 0, ..GOOD }]);
        assert!(ledger.terms.balanced() && !ledger.balanced);
    }

    /// Goal: every term comes from the place that counts it.
    #[test]
    fn terms_are_taken_from_where_they_are_counted() {
        use types::{Offset, PartitionId};
        let log = LogLedger { acked_rows: 31, in_flight_rows: 16, end: Offset(9) };
        let status = TablePartitionStatus {
            partition: PartitionId(0),
            next_offset: Offset(7),
            event_time_max: None,
            last_events_at: None,
            live: 1,
            evicted: 2,
            duplicate: 4,
            conflict: 1,
            erased: 8,
            late: 3,
        };
        assert_eq!(Terms::of_partition(&log, Some(&status)), GOOD);
        let unseen = Terms { acked: 31, in_flight: 16, ..Terms::default() };
        assert_eq!(Terms::of_partition(&log, None), unseen);
    }
}
