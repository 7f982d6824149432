//! The records that a partition's state lacks, as part of that state. Their list is bounded: where it is full, gaps become
//! one that says less of its records, and so rules out less: two of one table, which reach over records of others then, as
//! long as there are two of one.

use std::collections::HashMap;

use types::{GapReason, LogGap, Offset, Timestamp};

use crate::checkpoint::{Put, RestoreError, Take, put_key, take_key};

/// Gaps that are told apart.
const GAPS_MAX: usize = if cfg!(test) { 4 } else { 1_024 };

/// Gaps by their first record, ascending. Those of different tables may overlap.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    list: Vec<LogGap>,
}

impl Gaps {
    /// All of them.
    pub(crate) fn as_slice(&self) -> &[LogGap] {
        &self.list
    }

    /// Appends gaps as bytes.
    pub(crate) fn encode(gaps: &[LogGap], out: &mut Vec<u8>) {
        out.list(gaps.iter(), |out, gap| {
            let LogGap { first, end, table, times, reason } = *gap;
            out.u64(first.0);
            out.u64(end.0);
            out.optional(table, put_key);
            out.optional(times, |out, (min, max)| {
                out.time(min);
                out.time(max);
            });
            out.u8(match reason {
                GapReason::Gone => 0,
                GapReason::Damaged => 1,
                GapReason::Inapplicable => 2,
            });
        });
    }

    /// What [`Gaps::encode`] wrote.
    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        let list = take.list(|take| {
            Ok(LogGap {
                first: Offset(take.u64()?),
                end: Offset(take.u64()?),
                table: take.optional(take_key)?,
                times: take.optional(|take| Ok((take.time()?, take.time()?)))?,
                reason: match take.u8()? {
                    0 => GapReason::Gone,
                    1 => GapReason::Damaged,
                    2 => GapReason::Inapplicable,
                    _ => return Err(RestoreError::Malformed("a gap has no known reason")),
                },
            })
        })?;
        let whole =
            list.iter().all(|gap| gap.first < gap.end) && list.windows(2).all(|pair| pair[0].first < pair[1].first);
        if whole { Ok(Self { list }) } else { Err(RestoreError::Malformed("gaps are out of order")) }
    }

    /// Adds one behind all others.
    pub(crate) fn add(&mut self, gap: LogGap) {
        debug_assert!(gap.first < gap.end && self.list.last().is_none_or(|last| last.end <= gap.first));
        if let Some(last) = self.list.last_mut()
            && (last.end, last.table, last.reason) == (gap.first, gap.table, gap.reason)
        {
            *last = joined(last, &gap);
            return;
        }
        self.list.push(gap);
        if self.list.len() > GAPS_MAX {
            // Where all are of different tables, the two oldest become one of any table.
            let (first, second) = self.closest_of_one_table().unwrap_or((0, 1));
            let second = self.list.remove(second);
            self.list[first] = joined(&self.list[first], &second);
        }
    }

    /// The two gaps of one table, or of any, that make the shortest one.
    fn closest_of_one_table(&self) -> Option<(usize, usize)> {
        let mut last = HashMap::new();
        let pairs = self.list.iter().enumerate().filter_map(|(at, gap)| Some((last.insert(gap.table, at)?, at)));
        pairs.min_by_key(|(first, second)| self.list[*second].end.0 - self.list[*first].first.0)
    }

    /// Forgets those of which nothing can be asked any more. Returns whether there were any.
    pub(crate) fn forget(&mut self, is_over: impl Fn(&LogGap) -> bool) -> bool {
        let before = self.list.len();
        self.list.retain(|gap| !is_over(gap));
        self.list.len() < before
    }
}

/// A gap that rules out nothing that one of the two does not.
fn joined(first: &LogGap, second: &LogGap) -> LogGap {
    let hull = |((a, b), (c, d)): ((Timestamp, Timestamp), (Timestamp, Timestamp))| (a.min(c), b.max(d));
    LogGap {
        first: first.first,
        end: first.end.max(second.end),
        table: first.table.filter(|_| first.table == second.table),
        times: first.times.zip(second.times).map(hull),
        reason: first.reason,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;
    use types::{GapReason, Generation, Offset, TableId, TableKey, TenantId, TimeRange};

    use super::*;

    fn key(table: u64) -> TableKey {
        TableKey { tenant: TenantId(1), table: TableId(table), generation: Generation(1) }
    }

    prop_compose! {
        /// Records passed before it, its records, its table, its times.
        fn gap()(step in 0_u64..3, records in 1_u64..3, table in prop::option::of(0_u64..3),
                 times in prop::option::of((0_i64..50, 0_i64..50)), damaged in any::<bool>()) -> (u64, u64, LogGap) {
            let times = times.map(|(a, b)| (Timestamp(a.min(b)), Timestamp(a.max(b))));
            let reason = if damaged { GapReason::Damaged } else { GapReason::Inapplicable };
            (step, records, LogGap { first: Offset(0), end: Offset(0), table: table.map(key), times, reason })
        }
    }

    proptest! {
        /// Goal: however many gaps there were, the list stays short, in order, and answers yes wherever any of them does.
        #[test]
        fn a_full_list_rules_out_no_more(gaps in prop::collection::vec(gap(), 0..40)) {
            let (mut bounded, mut all, mut next) = (Gaps::default(), Vec::new(), 0);
            for (step, records, gap) in gaps {
                let gap = LogGap { first: Offset(next + step), end: Offset(next + step + records), ..gap };
                next = gap.end.0;
                bounded.add(gap);
                all.push(gap);
            }
            let list = bounded.as_slice();
            prop_assert!(list.len() <= GAPS_MAX);
            prop_assert!(list.windows(2).all(|pair| pair[0].first < pair[1].first));
            let (any, any_at_first) = [list, &all].map(|gaps| gaps.iter().any(|gap| gap.table.is_none())).into();
            prop_assert!(!any || any_at_first, "there are fewer tables than gaps that are told apart");
            let mut bytes = Vec::new();
            Gaps::encode(list, &mut bytes);
            let mut take = Take::new(&bytes);
            let decoded = Gaps::decode(&mut take).unwrap();
            prop_assert_eq!(decoded.as_slice(), list);
            for gap in &all {
                for table in 0..3 {
                    for time in 0..50 {
                        let range = TimeRange::new(Timestamp(time), Timestamp(time + 1)).unwrap();
                        let yes = |gap: &LogGap| gap.may_hold(key(table)) && gap.may_reach(&range);
                        let covers = |of: &&LogGap| of.first <= gap.first && gap.end <= of.end;
                        prop_assert!(!yes(gap) || list.iter().filter(covers).any(yes));
                    }
                }
            }
        }
    }

    /// Goal: neighbours of one kind are one gap; what is forgotten is gone, and only that.
    #[test]
    fn neighbours_join_and_ended_ones_go() {
        let gap = |first, table| LogGap {
            first: Offset(first),
            end: Offset(first + 1),
            table: Some(key(table)),
            times: Some((Timestamp(1), Timestamp(2))),
            reason: GapReason::Damaged,
        };
        let mut gaps = Gaps::default();
        [gap(3, 1), gap(4, 1), gap(5, 2), gap(7, 2)].into_iter().for_each(|gap| gaps.add(gap));
        let bounds: Vec<_> = gaps.as_slice().iter().map(|gap| (gap.first.0, gap.end.0)).collect();
        assert_eq!(bounds, [(3, 5), (5, 6), (7, 8)]);
        assert!(gaps.forget(|gap| gap.table == Some(key(2))));
        assert!(!gaps.forget(|gap| gap.table == Some(key(2))));
        assert_eq!(gaps.as_slice().len(), 1);
    }
}
