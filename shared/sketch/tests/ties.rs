//! t-digests of values with heavy ties, in parts and merged, by the rank of what they answer.

#[allow(dead_code, reason = "each test binary draws from some of the distributions")]
mod draws;

use draws::Draws;
use proptest::prelude::*;
use sketch::{TDigest, nearest_rank};

/// How far the rank of an answer may lie from the one asked for, as a share of the values, besides two values.
const RANK_ERROR: f64 = 0.01;

/// `count` values from a few places, each of which holds one value or many near it, in no order.
fn clustered(seed: u64, count: usize, places: &[(u16, u8, bool)]) -> Vec<f64> {
    let mut draws = Draws(seed);
    let total: u64 = places.iter().map(|place| 1 + u64::from(place.1)).sum();
    let value = |draws: &mut Draws| {
        let mut at = draws.bits() % total;
        for &(place, weight, tie) in places {
            match at.checked_sub(1 + u64::from(weight)) {
                Some(rest) => at = rest,
                None => return f64::from(place) + if tie { 0.0 } else { draws.unit() },
            }
        }
        unreachable!("the weights add up to the total")
    };
    (0..count).map(|_| value(&mut draws)).collect()
}

/// Where an answer lies among the sorted values: the ranks of a value that is there, or of the gap that it is in.
fn ranks(sorted: &[f64], answer: f64) -> (f64, f64) {
    let below = sorted.partition_point(|&value| value < answer) as f64;
    let upto = sorted.partition_point(|&value| value <= answer) as f64;
    (below, upto)
}

/// Holds the answers of `digest` against the sorted values.
fn near(digest: &mut TDigest, sorted: &[f64]) -> Result<(), TestCaseError> {
    let count = sorted.len() as u64;
    prop_assert_eq!(digest.count(), count);
    let slack = RANK_ERROR * count as f64 + 2.0;
    for parts in 0..=200 {
        let q = f64::from(parts) / 200.0;
        let rank = nearest_rank(q, count).expect("there are values") as f64;
        let got = digest.quantile(q).expect("there are values");
        let (below, upto) = ranks(sorted, got);
        prop_assert!(
            below - slack <= rank && rank <= upto + slack,
            "{} values, q {}: {} has the ranks {} to {}, not {}",
            count,
            q,
            got,
            below,
            upto,
            rank
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: beside ties of any weight at any place, and between places with nothing in common, an answer's rank is at most
    /// 1 % and two values off, of one digest and of digests of parts of any sizes that are merged in any order.
    #[test]
    fn answers_are_near_in_rank_beside_ties(
        seed in any::<u64>(),
        count in 1..30_000usize,
        copies in 1..6usize,
        places in prop::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..40),
        cuts in prop::collection::vec(0..30_000usize, 0..40),
        sorted_parts in any::<bool>(),
    ) {
        let values: Vec<f64> = clustered(seed, count, &places).repeat(copies);
        let mut whole = TDigest::default();
        values.iter().for_each(|&value| whole.add(value));
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        near(&mut whole, &sorted)?;

        // Parts are rows as they came, or ranges of values: no part looks like another then.
        let from = if sorted_parts { &sorted } else { &values };
        let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut * copies % values.len()).collect();
        bounds.extend([0, values.len()]);
        bounds.sort_unstable();
        let mut parts: Vec<&[f64]> = bounds.windows(2).map(|pair| &from[pair[0]..pair[1]]).collect();
        let turn = seed as usize % parts.len();
        parts.rotate_left(turn);
        let mut merged = TDigest::default();
        for part in parts {
            let mut digest = TDigest::default();
            part.iter().for_each(|&value| digest.add(value));
            merged.merge(&digest);
        }
        near(&mut merged, &sorted)?;
    }
}
