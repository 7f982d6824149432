//! The rollups that tables of a run declare, and what these say against the rows that they are made of.

use std::{collections::BTreeMap, ops::Range};

use engine::{RollupPart, RollupSnapshot, TableSnapshot};
use types::{ColumnKind, Interval, Rollup, Timestamp};

use crate::{
    failure::{Wrong, ensure},
    oracle::Expected,
    random::Random,
};

/// All buckets.
const ALL: Range<i64> = i64::MIN..i64::MAX;

/// By bucket and key: how many rows, and the sum of their names.
type Groups = BTreeMap<(i64, Option<String>), (u64, u64)>;

/// Some rollups: for as long as the rows, for a while, and longer than any run.
pub(crate) fn some(random: &mut Random) -> Vec<Rollup> {
    let mut rollup = |group_by: &[&str]| Rollup {
        interval: Interval::from_micros(random.pick(&[700, 100_000, 3_000_000])).expect("not 0"),
        group_by: group_by.iter().map(|name| (*name).to_owned()).collect(),
        distinct: Vec::new(),
        percentiles: Vec::new(),
        top: Vec::new(),
        keep_us: random.pick(&[None, Some(2_000_000), Some(i64::MAX / 4), Some(i64::MAX / 4)]),
    };
    let all = vec![rollup(&["key"]), rollup(&[])];
    all.into_iter().take(random.index(3)).collect()
}

/// What rollups say of each bucket that they cover is what the rows that were ever counted come to, each once.
pub(crate) fn check(snapshot: &TableSnapshot, expected: &Expected<'_>) -> Result<(), Wrong> {
    for rollup in snapshot.rollups() {
        let from = rollup.covered_from();
        ensure!(from.is_some(), "a rollup has no past at the newest offset");
        let from = from.unwrap_or(Timestamp::MAX);
        let (interval, by_key) = (rollup.rollup().interval, !rollup.rollup().group_by.is_empty());
        let mut right = Groups::new();
        for row in expected.rows.values().filter(|row| row.time >= from.0) {
            let key = if by_key { row.event.key_value() } else { None };
            let group = right.entry((interval.bucket_of(Timestamp(row.time)), key)).or_default();
            *group = (group.0 + 1, group.1 + row.event.n);
        }
        let mut said = said(snapshot, rollup);
        said.retain(|(bucket, _), _| *bucket >= interval.bucket_of(from));
        ensure!(said == right, "from {from:?} on {:?} says {said:?}, not {right:?}", rollup.rollup());
    }
    Ok(())
}

/// Rows that a table's rollups keep and that have left.
pub(crate) fn kept(snapshot: &TableSnapshot) -> u64 {
    snapshot.rollups().iter().flat_map(|rollup| rollup.history(ALL)).flat_map(|part| part.rows()).sum()
}

/// All that a rollup says: what is kept of rows that have left, parts beside segments, and rows
/// that no part has.
fn said(snapshot: &TableSnapshot, rollup: &RollupSnapshot) -> Groups {
    let mut groups = Groups::new();
    let mut add = |part: &RollupPart| {
        let n = snapshot.column("n", ColumnKind::Metric).and_then(|column| part.metric(column));
        for at in 0..part.groups() {
            let key = rollup.rollup().group_by.first().and_then(|_| part.string(0, part.key(0)[at]));
            let group = groups.entry((part.buckets()[at], key.map(str::to_owned))).or_default();
            *group = (group.0 + part.rows()[at], group.1 + n.map_or(0, |cells| cells[at].sum() as u64));
        }
    };
    rollup.history(ALL).for_each(|part| add(part));
    for segment in snapshot.segments() {
        let (parts, rows) = rollup.of_segment(segment);
        parts.iter().for_each(|part| add(part));
        let rest = rollup.of_rows(snapshot, segment, rows..segment.rows(), &(Timestamp::MIN..Timestamp::MAX));
        rest.iter().for_each(&mut add);
    }
    groups
}
