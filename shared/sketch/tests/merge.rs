//! Sketches of parts, merged, against the sketch of the whole.

#[allow(dead_code, reason = "each test binary draws from some of the distributions")]
mod draws;

use std::collections::HashMap;

use draws::Draws;
use proptest::prelude::*;
use sketch::{CountMin, Coupon, HeavyHitters, Hll, QuantileSketch, Raises, TDigest, hash_str};

/// Values around everything that is special about doubles.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        4 => any::<f64>(),
        2 => -1e3..1e3,
        1 => (0..1u64 << 52).prop_map(f64::from_bits),
        1 => proptest::sample::select(vec![0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, 1.0]),
    ];
    prop::collection::vec(value, 0..900)
}

/// How the values are split: one part each.
fn parts() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..4u8, 900)
}

/// Deals `items` out to four sketches, merges them last to first, and also makes one of all.
fn split_and_whole<S: Default, T: Copy>(
    items: &[T],
    parts: &[u8],
    add: impl Fn(&mut S, T),
    merge: impl Fn(&mut S, &S),
) -> (S, S) {
    let (mut sketches, mut whole) = ([S::default(), S::default(), S::default(), S::default()], S::default());
    for (&item, &part) in items.iter().zip(parts.iter().cycle()) {
        add(&mut sketches[usize::from(part)], item);
        add(&mut whole, item);
    }
    let mut merged = S::default();
    sketches.iter().rev().for_each(|sketch| merge(&mut merged, sketch));
    (merged, whole)
}

proptest! {
    /// Goal: quantile sketches of parts add up to exactly that of the whole, bytes included, also where bins were joined.
    #[test]
    fn quantile_sketches_add_up(values in values(), parts in parts()) {
        let (merged, whole) = split_and_whole(&values, &parts, QuantileSketch::add, QuantileSketch::merge);
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
        prop_assert_eq!(QuantileSketch::from_bytes(&whole.to_bytes()), Ok(whole.clone()));
        prop_assert_eq!(whole.count(), values.iter().filter(|value| value.is_finite()).count() as u64);
    }

    /// Goal: a sketch of marked items is that of each taken in turn by its coupon, or there is none; and where there are many
    /// items there is one, of any hashes.
    #[test]
    fn marked_items_are_those_taken_in_turn(
        marks in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 0..150),
        last in 1..=64_usize,
        hashes in prop_oneof![Just(None), (0..50_u32).prop_map(Some)],
    ) {
        let items = (marks.len() * 64).saturating_sub(64 - last);
        // Some have so many zeros behind the bits of their index that these alone do not say the rank.
        let hash = |item: u64| hashes.map_or(hash_str(&item.to_string()), |shift| item << 50 | 1 << shift);
        let coupons: Vec<Coupon> = (0..items as u64).map(|item| Coupon::of(hash(item))).collect();
        let marked = |at: usize| marks[at / 64] >> (at % 64) & 1 == 1;
        let mut in_turn = Hll::default();
        (0..items).filter(|&at| marked(at)).for_each(|at| in_turn.insert_coupon(coupons[at]));
        let words: Vec<u64> = marks.iter().enumerate().map(|(at, &word)| match items - (at * 64).min(items) {
            left if left < 64 => word & ((1 << left) - 1),
            _ => word,
        }).collect();
        let mut raises = Raises::default();
        let (first, rest) = coupons.split_at(items / 3);
        [first, rest].into_iter().for_each(|coupons| raises.extend(coupons));
        let together = Hll::of_marked(&words, &raises);
        let count = words.iter().map(|word| word.count_ones()).sum::<u32>();
        prop_assert!(together.is_some() || count < 3_000, "{count}");
        together.into_iter().try_for_each(|together| { prop_assert_eq!(&together, &in_turn); Ok(()) })?;
    }

    /// Goal: many values taken together are the same as each taken in turn, of both signs, of one, and with values between
    /// that are none.
    #[test]
    fn values_taken_together_are_those_taken_in_turn(values in values(), keep in 0..4) {
        let kept: Vec<f64> = values.iter().copied().filter(|&value| match keep {
            0 => true,
            1 => value > 0.0 && value.is_normal(),
            2 => value < 0.0 && value.is_normal(),
            _ => value.is_normal(),
        }).cycle().take(3 * values.len()).collect();
        let (mut together, mut in_turn) = (QuantileSketch::default(), QuantileSketch::default());
        together.extend(&kept);
        kept.iter().for_each(|&value| in_turn.add(value));
        prop_assert_eq!(together.to_bytes(), in_turn.to_bytes());
        prop_assert_eq!(together, in_turn);
    }

    /// Goal: whatever the double, also a subnormal one, its bin answers within the stated bound.
    #[test]
    fn every_double_has_a_bin(values in values()) {
        for value in values.into_iter().filter(|value| value.is_finite()) {
            let mut sketch = QuantileSketch::default();
            // The ends are kept exactly, so the value is put between them.
            sketch.extend(&[f64::MIN, value, f64::MAX]);
            let got = sketch.quantile(0.5).unwrap();
            prop_assert!((got - value).abs() <= sketch.bound().value * value.abs(), "{got:e} instead of {value:e}");
        }
    }

    /// Goal: HyperLogLogs of parts merge to exactly that of the whole, bytes included, before and after the change from
    /// coupons to registers.
    #[test]
    fn hyperloglogs_add_up(seed: u64, count in 0..4_000usize, parts in parts()) {
        let mut draws = Draws(seed);
        let hashes: Vec<u64> = (0..count).map(|_| draws.bits()).collect();
        let (merged, whole) = split_and_whole(&hashes, &parts, Hll::insert, Hll::merge);
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
        prop_assert_eq!(merged.estimate(), whole.estimate());
        prop_assert_eq!(Hll::from_bytes(&whole.to_bytes()), Ok(whole.clone()));
        let mut again = Hll::default();
        again.extend(&hashes);
        again.extend(&hashes);
        prop_assert_eq!(again, whole);
    }

    /// Goal: count-min sketches of parts add up to exactly that of the whole, bytes included.
    #[test]
    fn frequencies_add_up(seed: u64, items in 1..3_000usize, parts in parts()) {
        let mut draws = Draws(seed);
        let hashes: Vec<u64> = (0..2 * items).map(|_| Draws(draws.bits() % items as u64).bits()).collect();
        let add = |sketch: &mut CountMin, hash: u64| sketch.add(hash, hash >> 60);
        let (merged, whole) = split_and_whole(&hashes, &parts, add, CountMin::merge);
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
        prop_assert_eq!(CountMin::from_bytes(&whole.to_bytes()), Ok(whole));
    }

    /// Goal: merged heavy hitters keep every true count within their guaranteed bound, and the same calls give the same
    /// bytes.
    #[test]
    fn heavy_hitters_keep_their_guarantee_through_merges(seed: u64, items in 1..9_000usize, parts in parts()) {
        let mut draws = Draws(seed);
        let drawn: Vec<usize> = (0..3 * items).map(|_| draws.zipf(items)).collect();
        let mut exact = HashMap::new();
        drawn.iter().for_each(|&item| *exact.entry(item).or_insert(0u64) += 3);
        let add = |summary: &mut HeavyHitters, item: usize| summary.add(&item.to_string(), 3);
        let (merged, whole) = split_and_whole(&drawn, &parts, add, HeavyHitters::merge);
        prop_assert_eq!(merged.total(), whole.total());
        for summary in [&merged, &whole] {
            prop_assert!(summary.undercount() <= summary.total() / 1_025);
            for (item, &count) in &exact {
                let counter = summary.count(&item.to_string());
                prop_assert!((counter..=counter + summary.undercount()).contains(&count), "{item}: {counter}, not {count}");
            }
        }
        let (again, _) = split_and_whole(&drawn, &parts, add, HeavyHitters::merge);
        prop_assert_eq!(again.to_bytes(), merged.to_bytes());
        let decoded = HeavyHitters::from_bytes(&merged.to_bytes());
        prop_assert_eq!(decoded.as_ref(), Ok(&merged));
        prop_assert_eq!(decoded.unwrap().bytes().cmp(&size_of::<HeavyHitters>()), std::cmp::Ordering::Greater);
    }

    /// Goal: merged t-digests keep their count and their ends, answer near the exact rank, and give the same bytes for the
    /// same calls.
    #[test]
    fn t_digests_keep_count_and_ends_through_merges(seed: u64, count in 1..4_000usize, parts in parts()) {
        let mut draws = Draws(seed);
        let mut values: Vec<f64> = (0..count).map(|_| draws.lognormal()).collect();
        let (merged, whole) = split_and_whole(&values, &parts, TDigest::add, TDigest::merge);
        let (again, _) = split_and_whole(&values, &parts, TDigest::add, TDigest::merge);
        prop_assert_eq!(again.to_bytes(), merged.to_bytes());
        let decoded = TDigest::from_bytes(&merged.to_bytes());
        prop_assert_eq!(decoded.as_ref(), Ok(&merged));
        values.sort_by(f64::total_cmp);
        for mut digest in [merged, whole, decoded.unwrap()] {
            prop_assert_eq!(digest.count(), count as u64);
            prop_assert_eq!((digest.quantile(0.0), digest.quantile(1.0)), (Some(values[0]), values.last().copied()));
            let middle = digest.quantile(0.5).unwrap();
            let rank = values.partition_point(|&value| value <= middle) as f64 / count as f64;
            prop_assert!((rank - 0.5).abs() <= 0.02 + 1.0 / count as f64, "the median has rank {rank}");
        }
    }
}

/// Goal: a sketch that saw nothing answers nothing, and merges as nothing.
#[test]
fn nothing_is_nothing() {
    let (mut quantiles, mut digest) = (QuantileSketch::default(), TDigest::default());
    assert_eq!((quantiles.quantile(0.5), digest.quantile(0.5)), (None, None));
    quantiles.extend(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    digest.add(f64::NAN);
    assert_eq!((quantiles.quantile(0.5), digest.quantile(0.5)), (None, None));
    assert_eq!(quantiles, QuantileSketch::default());
    quantiles.add(-0.0);
    quantiles.merge(&QuantileSketch::default());
    assert_eq!(quantiles.quantile(0.5).map(f64::to_bits), Some(0));
    assert_eq!((Hll::default().estimate(), CountMin::default().estimate(7)), (0, 0));
    assert!(Hll::default().is_empty() && HeavyHitters::default().top(3).is_empty());
}
