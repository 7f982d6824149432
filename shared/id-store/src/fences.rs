//! Where an id may stand in a run: the fence keys say which page, and the value of the id, a hash, nearly says which of these
//! and where in the page.

use std::ops::Range;

/// The first step away from a guess, in fence keys.
const STEP: usize = 4;

/// The page that an id with this high half is in, were all ids spread evenly. There are fence keys.
#[inline]
pub(crate) fn guess_page(fences: &[u64], high: u64) -> usize {
    ((u128::from(high) * fences.len() as u128) >> u64::BITS) as usize
}

/// The place in a page of `count` ids that an id with this high half has, were they spread evenly between fence keys.
#[inline]
pub(crate) fn guess_place(fences: &[u64], page: usize, high: u64, count: usize) -> usize {
    let Some(&start) = fences.get(page) else { return 0 };
    let end = fences.get(page + 1).copied().unwrap_or(u64::MAX);
    let share = high.saturating_sub(start) as f64 / end.saturating_sub(start) as f64;
    // Where the page has but one key the share is no number, which is as good a place as any: 0.
    ((share * count as f64) as usize).min(count.saturating_sub(1))
}

/// The pages that may hold an id with this high half: the last that begins below it, and those that begin with it.
#[inline]
pub(crate) fn pages_of(fences: &[u64], high: u64) -> Range<usize> {
    let below = below(fences, high);
    let equal = fences[below..].iter().take_while(|fence| **fence == high).count();
    below.saturating_sub(1)..below + equal
}

/// How many fence keys are below `high`: in steps that double, from where hashes would have it.
#[inline]
fn below(fences: &[u64], high: u64) -> usize {
    let guess = guess_page(fences, high);
    let (mut low, mut end, mut step) = (0, fences.len(), STEP);
    if fences.get(guess).is_some_and(|fence| *fence < high) {
        low = guess + 1;
        while let Some(fence) = fences.get(low + step) {
            if *fence >= high {
                end = low + step;
                break;
            }
            low += step + 1;
            step *= 2;
        }
    } else {
        end = guess.min(end);
        while let Some(at) = end.checked_sub(step) {
            if fences[at] < high {
                low = at + 1;
                break;
            }
            end = at;
            step *= 2;
        }
    }
    low + fences[low..end].partition_point(|fence| *fence < high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: the pages are those that a search from end to end gives, for keys that are spread evenly, crowded or equal,
        /// and for any that is sought; and a guess is always a place of the page.
        #[test]
        fn pages_are_found(
            mut fences in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..20, (0_u64..20).prop_map(|n| u64::MAX - n)], 0..300),
            others in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..20], 0..20),
            count in 1_usize..60,
        ) {
            fences.sort_unstable();
            for high in others.iter().chain(&fences).copied().chain([0, u64::MAX]) {
                let below = fences.iter().filter(|fence| **fence < high).count();
                let equal = fences.iter().filter(|fence| **fence == high).count();
                let pages = pages_of(&fences, high);
                prop_assert_eq!(&pages, &(below.saturating_sub(1)..below + equal));
                prop_assert!(pages.into_iter().all(|page| guess_place(&fences, page, high, count) < count));
            }
        }
    }
}
