//! Sorting that stops when nobody waits for it any more.

use std::cmp::Ordering;

use types::ApiError;

use crate::cancel::Cancel;

/// Items that are sorted, or merged, between two looks at the clock: some 1 ms of comparing strings.
const RUN: usize = 1 << 13;

/// Sorts; equal items come in any order. Runs are sorted one by one and merged from the bottom up (Knuth, TAOCP 3, 5.2.4): a
/// comparison cannot stop a sort of the standard library.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`.
pub(crate) fn sort_by(
    items: &mut Vec<u32>,
    cancel: &Cancel<'_>,
    mut compare: impl FnMut(&u32, &u32) -> Ordering,
) -> Result<(), ApiError> {
    for run in items.chunks_mut(RUN) {
        cancel.check()?;
        run.sort_unstable_by(&mut compare);
    }
    let mut width = RUN;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let (Some((l, rest_left)), Some((r, rest_right))) = (left.split_first(), right.split_first()) {
                if merged.len() % RUN == 0 {
                    cancel.check()?;
                }
                if compare(r, l).is_lt() {
                    merged.push(*r);
                    right = rest_right;
                } else {
                    merged.push(*l);
                    left = rest_left;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        *items = merged;
        width *= 2;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use proptest::prelude::*;
    use types::ErrorCode;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        /// Goal: whatever the length, all items come in order.
        #[test]
        fn items_come_in_order(length in 0..RUN * 7, seed: u32) {
            let mut items: Vec<u32> = (0..length as u32).map(|at| (at ^ seed).wrapping_mul(0x9e37_79b9) >> 8).collect();
            let mut expected = items.clone();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            let left = AtomicBool::new(false);
            sort_by(&mut items, &Cancel::new(&left, &|| false), |a, b| b.cmp(a)).unwrap();
            prop_assert_eq!(items, expected);
        }
    }

    /// Goal: whenever the time is up, within a run's work the sort ends.
    #[test]
    fn a_sort_ends_with_its_time() {
        let items: Vec<u32> = (0..RUN as u32 * 16).map(|at| at.wrapping_mul(0x9e37_79b9)).collect();
        let (left, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
        for allowed in 0..60 {
            looks.store(0, Relaxed);
            let expired = || looks.fetch_add(1, Relaxed) >= allowed;
            let (mut compared, mut last) = (0, 0);
            let outcome = sort_by(&mut items.clone(), &Cancel::new(&left, &expired), |a, b| {
                compared += 1;
                if looks.load(Relaxed) == allowed {
                    last += 1;
                }
                a.cmp(b)
            });
            assert_eq!(outcome.unwrap_err().code, ErrorCode::DeadlineExceeded, "{allowed}");
            assert!(last <= RUN * 16, "{last} comparisons after look {allowed} of {compared}");
        }
    }
}
