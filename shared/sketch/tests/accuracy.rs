//! Every sketch against exact computation, within the bound that it states.

mod draws;

use std::collections::HashMap;

use draws::Draws;
use sketch::{CountMin, HeavyHitters, Hll, QuantileSketch, TDigest, hash_str, nearest_rank};

type Draw = fn(&mut Draws) -> f64;

/// What quantiles are tried on.
const DISTRIBUTIONS: [(&str, Draw); 6] = [
    ("lognormal", Draws::lognormal),
    ("pareto", Draws::pareto),
    ("uniform", Draws::unit),
    ("zipf", |draws| draws.zipf(10_000) as f64),
    ("both signs", |draws| draws.lognormal() - draws.lognormal()),
    ("any finite double", |draws| {
        loop {
            let value = f64::from_bits(draws.bits());
            if value.is_finite() {
                return value;
            }
        }
    }),
];

const QUANTILES: [f64; 11] = [0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];

/// Goal: a quantile is within the stated relative bound of the exact nearest rank, of whatever distribution, and exact at
/// both ends.
#[test]
fn quantiles_keep_their_guarantee() {
    for (name, draw) in DISTRIBUTIONS {
        for count in [1, 2, 10, 1_000, 200_000] {
            let mut draws = Draws(count);
            let mut values: Vec<f64> = (0..count).map(|_| draw(&mut draws)).collect();
            let mut sketch = QuantileSketch::default();
            sketch.extend(&values);
            values.sort_by(f64::total_cmp);
            let bound = sketch.bound();
            for q in QUANTILES {
                let want = values[nearest_rank(q, count).expect("there are values") as usize];
                let got = sketch.quantile(q).expect("there are values");
                let off = (got - want).abs();
                assert!(off <= bound.value * want.abs(), "{name}, {count} values, q {q}: {got} instead of {want}");
            }
            assert_eq!((sketch.quantile(0.0), sketch.quantile(1.0)), (Some(values[0]), values.last().copied()));
            let collapses = name == "any finite double" && count >= 1_000;
            assert_eq!(bound.value > QuantileSketch::RELATIVE_ERROR, collapses, "{name}, {count} values: {bound:?}");
        }
    }
}

/// Goal: the bin of a rank holds the value of that rank, and says exactly how many values lie below: what an exact
/// percentile selects by.
#[test]
fn bins_locate_ranks_exactly() {
    for (name, draw) in DISTRIBUTIONS {
        let mut draws = Draws(7);
        let mut values: Vec<f64> = (0..20_000).map(|_| draw(&mut draws)).collect();
        let mut sketch = QuantileSketch::default();
        sketch.extend(&values);
        values.sort_by(f64::total_cmp);
        for rank in (0..values.len()).step_by(97) {
            let bin = sketch.bin(rank as u64).expect("the rank is one of a value");
            let inside = (bin.low..=bin.high).contains(&values[rank]);
            let below = values.partition_point(|&value| value < bin.low) as u64;
            let within = values.partition_point(|&value| value <= bin.high) as u64 - below;
            assert!(inside && (below, within) == (bin.below, bin.count), "{name}, rank {rank}: {bin:?}");
        }
        assert_eq!(sketch.bin(values.len() as u64), None);
    }
}

/// Goal: a t-digest is near in rank, exact while values are few, and stays between the least and the greatest value, also
/// where values span all doubles and neighbours have nothing in common.
#[test]
fn tdigests_are_near_in_rank() {
    for (name, draw) in DISTRIBUTIONS {
        for count in [1, 2, 100, 100_000] {
            let mut draws = Draws(count);
            let mut values: Vec<f64> = (0..count).map(|_| draw(&mut draws)).collect();
            let mut digest = TDigest::default();
            values.iter().for_each(|&value| digest.add(value));
            values.sort_by(f64::total_cmp);
            for q in QUANTILES {
                let rank = nearest_rank(q, count).expect("there are values");
                let got = digest.quantile(q).expect("there are values");
                if count <= 100 {
                    assert_eq!(got, values[rank as usize], "{name}, {count} values, q {q}");
                }
                let below = values.partition_point(|&value| value < got) as f64;
                let upto = values.partition_point(|&value| value <= got) as f64;
                assert!(
                    (values[0]..=values[count as usize - 1]).contains(&got),
                    "{name}, {count} values, q {q}: {got}"
                );
                let slack = if name == "any finite double" { 1.0 } else { 0.002 } * count as f64 + 1.0;
                assert!(
                    (below - slack..=upto + slack).contains(&(rank as f64)),
                    "{name}, {count} values, q {q}: {got}"
                );
            }
        }
    }
}

/// Goal: while each value has a centroid of its own, every rank is answered by its very value, whatever rounding does to the
/// rank on its way.
#[test]
fn few_values_of_a_t_digest_are_exact() {
    for count in 1..=100u64 {
        let mut digest = TDigest::default();
        (0..count).for_each(|value| digest.add(value as f64));
        for rank in 0..count {
            assert_eq!(digest.quantile((rank + 1) as f64 / count as f64), Some(rank as f64), "{count} values");
        }
    }
}

/// Goal: the number of distinct items is exact while few, and within four standard errors from one item to millions.
#[test]
fn distinct_counts_are_within_their_bound() {
    for seed in 0..4 {
        let (mut draws, mut sketch, mut count) = (Draws(seed), Hll::default(), 0u64);
        for target in [0, 1, 10, 1_000, 1_536, 1_537, 2_000, 5_000, 10_000, 20_000, 40_000, 60_000, 100_000, 1_000_000]
        {
            while count < target {
                let hash = draws.bits();
                sketch.insert(hash);
                sketch.insert(hash);
                count += 1;
            }
            let got = sketch.estimate();
            let off = got.abs_diff(count) as f64;
            assert!(off <= Hll::BOUND.value * count as f64, "{got} instead of {count}");
            assert!(count > 1_000 || got == count, "{got} instead of {count}");
        }
    }
}

/// Goal: count-min is never too low, exact for few items, and too high by more than its bound for hardly any item.
#[test]
fn frequencies_are_within_their_bound() {
    for items in [1_000, 100_000] {
        let (mut draws, mut sketch, mut exact) = (Draws(items as u64), CountMin::default(), HashMap::new());
        for _ in 0..400_000 {
            let item = draws.zipf(items);
            sketch.add(hash_str(&item.to_string()), 1);
            *exact.entry(item).or_insert(0u64) += 1;
        }
        assert_eq!(sketch.total(), 400_000);
        let excess = |item: usize| {
            let want = exact.get(&item).copied().unwrap_or(0);
            sketch.estimate(hash_str(&item.to_string())).checked_sub(want).expect("never too low")
        };
        let slack = (CountMin::BOUND.value * sketch.total() as f64) as u64;
        let beyond = (0..2 * items).filter(|&item| excess(item) > slack).count();
        assert!(beyond as f64 <= 4.0 * (1.0 - CountMin::BOUND.confidence) * 2.0 * items as f64, "{beyond} of {items}");
        assert!(items > 1_000 || (0..2 * items).all(|item| excess(item) == 0));
    }
}

/// Goal: heavy hitters are exact below their cap; above it each true count is within the guaranteed bound, also of items
/// that are not listed, and the bound is at most 1/1025 of what came.
#[test]
fn heavy_hitters_keep_their_guarantee() {
    for (items, exactly) in [(2_000, true), (200_000, false)] {
        let (mut draws, mut summary, mut exact) = (Draws(items as u64), HeavyHitters::default(), HashMap::new());
        for _ in 0..400_000 {
            let item = draws.zipf(items).to_string();
            summary.add(&item, 1);
            *exact.entry(item).or_insert(0u64) += 1;
        }
        assert_eq!(summary.is_exact(), exactly);
        assert!(summary.undercount() <= summary.total() / 1_025 && summary.bound().value <= 1.0 / 1_025.0);
        for (item, &count) in &exact {
            let counter = summary.count(item);
            assert!((counter..=counter + summary.undercount()).contains(&count), "{item}: {counter}, not {count}");
        }
        let top = summary.top(20);
        let mut want: Vec<u64> = exact.values().copied().collect();
        want.sort_unstable_by(|a, b| b.cmp(a));
        assert!(top.is_sorted_by(|a, b| (b.count, a.item) < (a.count, b.item)) && top.len() == 20);
        for hitter in top {
            assert!(exact[hitter.item] + summary.undercount() >= want[19], "{hitter:?} is none of the 20");
        }
    }
}
