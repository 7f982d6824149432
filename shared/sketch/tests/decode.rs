//! Decoders against bytes that no encoder wrote. Alone in its process, so that the allocator's figures are of this test.

#[allow(dead_code, reason = "each test binary draws from some of the distributions")]
mod draws;

use draws::Draws;
use peak_alloc::PeakAlloc;
use sketch::{CountMin, DecodeError, HeavyHitters, Hll, QuantileSketch, TDigest, hash_str};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MUTANTS: usize = 60_000;
/// Most that a decoder may allocate beyond a multiple of its input: what the largest sketch of a fixed size takes, while
/// its tables double.
const FIXED_BYTES_MAX: usize = 1 << 19;

/// One kind of sketch: some as bytes, and a check of any bytes that says whether they were accepted.
struct Subject {
    name: &'static str,
    samples: Vec<Vec<u8>>,
    check: fn(&[u8]) -> Result<(), DecodeError>,
}

fn subjects() -> Vec<Subject> {
    let sizes = [0usize, 1, 5, 300, 5_000];
    let mut draws = Draws(1);
    let mut values = |count: usize| -> Vec<f64> { (0..count).map(|_| draws.lognormal() - 20.0).collect() };
    let quantiles = sizes.map(|size| {
        let mut sketch = QuantileSketch::default();
        sketch.extend(&values(size));
        sketch.extend(&[0.0, f64::MIN_POSITIVE / 3.0]);
        sketch.to_bytes()
    });
    let digests = sizes.map(|size| {
        let mut digest = TDigest::default();
        values(size).into_iter().for_each(|value| digest.add(value));
        digest.to_bytes()
    });
    let distinct = sizes.map(|size| {
        let mut sketch = Hll::default();
        (0..size as u64).for_each(|item| sketch.insert(Draws(item).bits()));
        sketch.to_bytes()
    });
    let counts = sizes.map(|size| {
        let mut sketch = CountMin::default();
        (0..size as u64).for_each(|item| sketch.add(Draws(item).bits(), item + 1));
        sketch.to_bytes()
    });
    let hitters = sizes.map(|size| {
        let mut summary = HeavyHitters::default();
        (0..size as u64).for_each(|item| summary.add(&format!("Ünïcode {item}"), item + 1));
        summary.to_bytes()
    });
    vec![
        Subject { name: "quantile", samples: quantiles.into(), check: check_quantile },
        Subject { name: "t-digest", samples: digests.into(), check: check_digest },
        Subject { name: "HyperLogLog", samples: distinct.into(), check: check_hll },
        Subject { name: "count-min", samples: counts.into(), check: check_count_min },
        Subject { name: "heavy hitters", samples: hitters.into(), check: check_hitters },
    ]
}

fn check_quantile(bytes: &[u8]) -> Result<(), DecodeError> {
    let sketch = QuantileSketch::from_bytes(bytes)?;
    let mut merged = sketch.clone();
    merged.merge(&sketch);
    merged.add(1.0);
    assert_eq!(merged.count(), 2 * sketch.count() + 1);
    for q in [0.0, 0.3, 0.99, 1.0] {
        assert!(sketch.quantile(q).is_none_or(f64::is_finite) && merged.quantile(q).is_some_and(f64::is_finite));
    }
    assert_eq!(sketch.to_bytes(), bytes);
    Ok(())
}

fn check_digest(bytes: &[u8]) -> Result<(), DecodeError> {
    let digest = TDigest::from_bytes(bytes)?;
    let mut merged = digest.clone();
    merged.merge(&digest);
    merged.add(1.0);
    assert_eq!(merged.count(), 2 * digest.count() + 1);
    for q in [0.0, 0.3, 0.99, 1.0] {
        assert!(merged.quantile(q).is_some_and(f64::is_finite));
    }
    assert_eq!(digest.to_bytes(), bytes);
    Ok(())
}

fn check_hll(bytes: &[u8]) -> Result<(), DecodeError> {
    let sketch = Hll::from_bytes(bytes)?;
    let mut merged = sketch.clone();
    merged.merge(&sketch);
    assert_eq!(merged, sketch);
    merged.insert(hash_str("one more"));
    assert!(merged.estimate() >= sketch.estimate());
    assert_eq!(sketch.to_bytes(), bytes);
    Ok(())
}

fn check_count_min(bytes: &[u8]) -> Result<(), DecodeError> {
    let sketch = CountMin::from_bytes(bytes)?;
    let mut merged = sketch.clone();
    merged.merge(&sketch);
    merged.add(7, 1);
    assert!(merged.estimate(7) <= merged.total() && merged.total() == 2 * sketch.total() + 1);
    assert_eq!(sketch.to_bytes(), bytes);
    Ok(())
}

fn check_hitters(bytes: &[u8]) -> Result<(), DecodeError> {
    let summary = HeavyHitters::from_bytes(bytes)?;
    let mut merged = summary.clone();
    merged.merge(&summary);
    merged.add("one more", 1);
    assert!(merged.bound().value <= 1.0 / 1_025.0 && merged.total() == 2 * summary.total() + 1);
    assert!(summary.top(9).len() <= 9);
    assert_eq!(summary.to_bytes(), bytes);
    Ok(())
}

/// Changes bytes in one to four places: a bit, a byte, a long number, an end, a part of another sample.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], draws: &mut Draws) {
    for _ in 0..=draws.bits() % 4 {
        let at = (draws.bits() % (bytes.len() as u64 + 1)) as usize;
        // Headers are where lengths are: half of the changes go there.
        let at = if draws.bits().is_multiple_of(2) { at % 32 } else { at }.min(bytes.len());
        match draws.bits() % 6 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (draws.bits() % 8),
            1 if at < bytes.len() => bytes[at] = draws.bits() as u8,
            2 => bytes.truncate(at),
            3 => bytes.splice(at..at, [0xff; 9].into_iter().chain([1])).for_each(drop),
            4 => {
                let end = (at + (draws.bits() % 9) as usize).min(bytes.len());
                bytes.splice(at..end, draws.bits().to_le_bytes()).for_each(drop);
            }
            _ => {
                let from = (draws.bits() % (other.len() as u64 + 1)) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// Goal: whatever the bytes, a decoder neither panics nor allocates for a length that it only was told; what it accepts can
/// be used and merged, answers are finite, and it is written again as the same bytes.
#[test]
fn decoders_trust_nothing() {
    let mut draws = Draws(20);
    for subject in subjects() {
        let (mut accepted, mut bytes) = (0, Vec::new());
        for sample in &subject.samples {
            (subject.check)(sample).expect("what was written is read");
        }
        for _ in 0..MUTANTS {
            let pick = |draws: &mut Draws| &subject.samples[(draws.bits() % subject.samples.len() as u64) as usize];
            bytes.clone_from(pick(&mut draws));
            mutate(&mut bytes, pick(&mut draws), &mut draws);
            ALLOCATOR.reset_peak_usage();
            let before = ALLOCATOR.current_usage();
            accepted += usize::from((subject.check)(&bytes).is_ok());
            let peak = ALLOCATOR.peak_usage() - before;
            assert!(peak <= 64 * bytes.len() + FIXED_BYTES_MAX, "{}: {peak} bytes for {}", subject.name, bytes.len());
        }
        // Some changes must get past the first checks, or later ones were not tried.
        assert!(accepted > MUTANTS / 200, "{}: only {accepted} of {MUTANTS} accepted", subject.name);
    }
}
