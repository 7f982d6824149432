//! The order of an answer's rows.

use std::cmp::Ordering;

use types::ApiError;

use crate::{
    cancel::Cancel,
    finish::OutputColumn,
    groups::Groups,
    plan::{OrderKey, Plan, RowColumn},
    sorting::sort_by,
    values::Values,
};

/// Keys that there can be per group, up to which each group is put into its place among them.
const PLACES_PER_GROUP: u64 = 8;

/// The groups of the answer in their order, the limit applied.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`.
pub(crate) fn order(
    plan: &Plan,
    values: &[Values],
    groups: &Groups,
    outputs: &[OutputColumn],
    cancel: &Cancel<'_>,
) -> Result<Vec<u32>, ApiError> {
    // Where an output leads, few ties reach the strings; otherwise every comparison would, so they are ranked before.
    let ranks = match plan.order.first() {
        Some(OrderKey { column: RowColumn::Output(_), .. }) => None,
        _ => Some(values.iter().map(|values| values.ranks(cancel)).collect::<Result<Vec<_>, _>>()?),
    };
    if let (true, Some(ranks)) = (plan.order.is_empty() && plan.limit >= groups.len(), &ranks)
        && let Some(kept) = by_place(groups, ranks)
    {
        return Ok(kept);
    }
    let by_column = |column: RowColumn, a: u32, b: u32| match column {
        RowColumn::Time => groups.buckets[a as usize].cmp(&groups.buckets[b as usize]),
        RowColumn::Group(at) => {
            let (a, b) = (groups.keys[at][a as usize], groups.keys[at][b as usize]);
            match &ranks {
                Some(ranks) => ranks[at][a as usize].cmp(&ranks[at][b as usize]),
                None => values[at].get(a).cmp(&values[at].get(b)),
            }
        }
        RowColumn::Output(at) => outputs[at].cells[a as usize].order(&outputs[at].cells[b as usize]),
    };
    let canonical = std::iter::once(RowColumn::Time).chain((0..plan.groups.len()).map(RowColumn::Group));
    let canonical: Vec<_> = canonical.collect();
    let compare = |&a: &u32, &b: &u32| {
        let asked = plan.order.iter().map(|key| {
            let order = by_column(key.column, a, b);
            if key.descending { order.reverse() } else { order }
        });
        let rest = canonical.iter().map(|&column| by_column(column, a, b));
        asked.chain(rest).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut kept: Vec<u32> = (0..groups.len() as u32).collect();
    if plan.limit < kept.len() {
        kept.select_nth_unstable_by(plan.limit, compare);
        kept.truncate(plan.limit);
    }
    // Keys differ, so no two groups are equal and any sort has one result.
    sort_by(&mut kept, cancel, compare)?;
    Ok(kept)
}

/// All groups in canonical order, each put into its place among all keys that there can be; `None` where these are far more
/// than there are groups, so that sorting costs less.
fn by_place(groups: &Groups, ranks: &[Vec<u32>]) -> Option<Vec<u32>> {
    const FREE: u32 = u32::MAX;
    let first = groups.buckets.iter().min().copied()?;
    let buckets = groups.buckets.iter().max()?.abs_diff(first).checked_add(1)?;
    let radices = ranks.iter().map(|ranks| ranks.len() as u64);
    let places = radices.clone().try_fold(buckets, |places, radix| places.checked_mul(radix))?;
    if places > groups.len() as u64 * PLACES_PER_GROUP {
        return None;
    }
    let mut place: Vec<usize> = groups.buckets.iter().map(|bucket| bucket.abs_diff(first) as usize).collect();
    for (ranks, keys) in ranks.iter().zip(&groups.keys) {
        place
            .iter_mut()
            .zip(keys)
            .for_each(|(place, &key)| *place = *place * ranks.len() + ranks[key as usize] as usize);
    }
    let mut by_place = vec![FREE; places as usize];
    (0..).zip(place).for_each(|(group, place)| by_place[place] = group);
    by_place.retain(|&group| group != FREE);
    Some(by_place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: groups that are put into their places stand in the order of their keys.
        #[test]
        fn places_are_in_order(keys in prop::collection::btree_set((-3_i64..3, 0_u32..4, 0_u32..3), 1..60), shift: i32, mix: u64) {
            let mut keys: Vec<_> = keys.into_iter().map(|(bucket, a, b)| (bucket + i64::from(shift), a, b)).collect();
            keys.sort_by_key(|&(bucket, a, b)| (bucket.cast_unsigned() ^ u64::from(a * 7 + b)).wrapping_mul(mix | 1));
            let groups = Groups {
                buckets: keys.iter().map(|key| key.0).collect(),
                keys: vec![keys.iter().map(|key| key.1).collect(), keys.iter().map(|key| key.2).collect()],
                rows: vec![1; keys.len()],
                states: Vec::new(),
            };
            let ranks = [vec![0, 3, 1, 2], vec![2, 0, 1]];
            let key = |&group: &u32| {
                let (bucket, a, b) = keys[group as usize];
                (bucket, ranks[0][a as usize], ranks[1][b as usize])
            };
            match by_place(&groups, &ranks) {
                Some(order) => {
                    prop_assert_eq!(order.len(), keys.len());
                    prop_assert!(order.is_sorted_by_key(key) && order.windows(2).all(|pair| pair[0] != pair[1]));
                }
                None => prop_assert!(keys.len() as u64 * PLACES_PER_GROUP < 72),
            }
        }
    }
}
