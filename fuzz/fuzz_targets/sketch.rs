//! Sketches from bytes: what is accepted is written again as the same bytes, merges, and answers with finite numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sketch::{CountMin, HeavyHitters, Hll, QuantileSketch, TDigest};

const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.999, 1.0];

fuzz_target!(|bytes: &[u8]| {
    // The first byte names the kind, so at most one of them accepts.
    if let Ok(sketch) = QuantileSketch::from_bytes(bytes) {
        assert_eq!(sketch.to_bytes(), bytes);
        let mut merged = sketch.clone();
        merged.merge(&sketch);
        merged.extend(&[0.0, 1.0, f64::MAX, f64::MIN]);
        assert_eq!(merged.count(), 2 * sketch.count() + 4);
        assert!(SHARES.iter().all(|&q| merged.quantile(q).is_some_and(f64::is_finite)));
    }
    if let Ok(digest) = TDigest::from_bytes(bytes) {
        assert_eq!(digest.to_bytes(), bytes);
        let mut merged = digest.clone();
        merged.merge(&digest);
        merged.add(f64::MAX);
        assert!(SHARES.iter().all(|&q| merged.quantile(q).is_some_and(f64::is_finite)));
    }
    if let Ok(sketch) = Hll::from_bytes(bytes) {
        assert_eq!(sketch.to_bytes(), bytes);
        let mut merged = Hll::default();
        merged.merge(&sketch);
        assert_eq!(merged, sketch);
        merged.insert(u64::MAX);
        assert!(merged.estimate() >= sketch.estimate());
    }
    if let Ok(sketch) = CountMin::from_bytes(bytes) {
        assert_eq!(sketch.to_bytes(), bytes);
        let mut merged = sketch.clone();
        merged.merge(&sketch);
        assert!(merged.estimate(7) >= sketch.estimate(7) && merged.total() == 2 * sketch.total());
    }
    if let Ok(summary) = HeavyHitters::from_bytes(bytes) {
        assert_eq!(summary.to_bytes(), bytes);
        let mut merged = summary.clone();
        merged.merge(&summary);
        assert!(merged.bound().value <= 1.0 / 1_025.0 && merged.top(20).len() <= 20);
    }
});
