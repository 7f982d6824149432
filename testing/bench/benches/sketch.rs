//! Sketches: what taking a value, merging and answering cost, beside the crates that could serve, and how far off each is.
//! The accuracy table goes to standard error before the timings.

use std::{collections::HashMap, hash::RandomState, hint::black_box, time::Duration};

use criterion::{
    Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use datasketches::{
    countmin::CountMinSketch,
    frequencies::FrequentItemsSketch,
    hll::{HllSketch, HllType, HllUnion},
    tdigest::TDigestMut,
};
use probabilistic_collections::{count_min_sketch as other_count_min, hyperloglog::HyperLogLog};
use sketch::{CountMin, HeavyHitters, Hll, QuantileSketch, TDigest, hash_str, nearest_rank};
use sketches_ddsketch::{Config, DDSketch};
use tdigest::TDigest as OtherDigest;

const VALUES: usize = 1_000_000;
/// The processor time of this thread: on a machine that does other work too, what counts.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_time()
    }

    fn end(&self, start: Duration) -> Duration {
        thread_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

const QUANTILES: [f64; 4] = [0.5, 0.95, 0.99, 0.999];
const GROUPS: usize = 8;

/// SplitMix64.
fn bits(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn unit(state: &mut u64) -> f64 {
    ((bits(state) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn hashes(count: usize) -> Vec<u64> {
    let mut state = 1;
    (0..count).map(|_| bits(&mut state)).collect()
}

/// Lognormal (4, 1.5).
fn lognormal(count: usize) -> Vec<f64> {
    let mut state = 2;
    let normal = |state: &mut u64| (-2.0 * unit(state).ln()).sqrt() * (std::f64::consts::TAU * unit(state)).cos();
    (0..count).map(|_| (4.0 + 1.5 * normal(&mut state)).exp()).collect()
}

/// Pareto with shape 1.2.
fn pareto(count: usize) -> Vec<f64> {
    let mut state = 3;
    (0..count).map(|_| unit(&mut state).powf(-1.0 / 1.2)).collect()
}

/// About Zipf with exponent 1 over a million items.
fn zipf(count: usize) -> Vec<u32> {
    let mut state = 4;
    (0..count).map(|_| 1e6f64.powf(unit(&mut state)) as u32).collect()
}

fn own_quantiles(values: &[f64]) -> QuantileSketch {
    let mut sketch = QuantileSketch::default();
    sketch.extend(values);
    sketch
}

fn own_digest(values: &[f64]) -> TDigest {
    let mut digest = TDigest::default();
    values.iter().for_each(|&value| digest.add(value));
    digest
}

fn apache_digest(values: &[f64]) -> TDigestMut {
    let mut digest = TDigestMut::new(200).expect("a compression that is allowed");
    values.iter().for_each(|&value| digest.update(value));
    digest
}

fn ddsketch(values: &[f64]) -> DDSketch {
    let mut sketch = DDSketch::new(Config::defaults());
    values.iter().for_each(|&value| sketch.add(value));
    sketch
}

fn other_digest(size: usize, values: &[f64]) -> OtherDigest {
    let start = OtherDigest::new_with_size(size);
    values.chunks(1_000).fold(start, |digest, chunk| digest.merge_unsorted(chunk.to_vec()))
}

fn own_distinct(hashes: &[u64]) -> Hll {
    let mut sketch = Hll::default();
    sketch.extend(hashes);
    sketch
}

fn apache_distinct(items: &[u64]) -> HllSketch {
    let mut sketch = HllSketch::new(14, HllType::Hll8).expect("a size that is allowed");
    items.iter().for_each(|&item| sketch.update(item));
    sketch
}

fn other_distinct(items: &[u64]) -> HyperLogLog<u64> {
    let mut sketch = HyperLogLog::new(0.008);
    items.iter().for_each(|item| sketch.insert(item));
    sketch
}

/// Prints how far off, in percent of the true value, each is.
fn accuracy(_: &mut Criterion<ThreadTime>) {
    for (name, mut values) in [("lognormal", lognormal(VALUES)), ("pareto", pareto(VALUES))] {
        let (own, mut digest, dd) = (own_quantiles(&values), own_digest(&values), ddsketch(&values));
        let mut apache = apache_digest(&values);
        let (small, large) = (other_digest(100, &values), other_digest(200, &values));
        values.sort_by(f64::total_cmp);
        for q in QUANTILES {
            let want = values[nearest_rank(q, VALUES as u64).expect("there are values") as usize];
            let off = |got: Option<f64>| 100.0 * (got.expect("there are values") / want - 1.0).abs();
            eprintln!(
                "{name} q {q}: quantile sketch {:.2} %, t-digest {:.2} %, of datasketches {:.2} %, sketches-ddsketch {:.2} %, tdigest (100) {:.2} %, (200) {:.2} %",
                off(own.quantile(q)),
                off(digest.quantile(q)),
                off(apache.quantile(q).expect("a share")),
                off(dd.quantile(q).expect("a share")),
                off(small.estimate_quantile(q)),
                off(large.estimate_quantile(q)),
            );
        }
        eprintln!("{name}: quantile sketch {} bytes, {} encoded", own.bytes(), own.to_bytes().len());
        eprintln!("{name}: t-digest {} bytes, {} encoded", digest.bytes(), digest.to_bytes().len());
    }
    let items = hashes(VALUES);
    for count in [1_000, 7_000, 8_000, 100_000, VALUES] {
        eprintln!(
            "{count} distinct: own {}, datasketches {:.0}, probabilistic-collections {:.0}",
            own_distinct(&items[..count]).estimate(),
            apache_distinct(&items[..count]).composite_estimate(),
            other_distinct(&items[..count]).len(),
        );
    }
}

fn distinct(c: &mut Criterion<ThreadTime>) {
    let items = hashes(VALUES);
    let mut group = c.benchmark_group("distinct");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("own, hashes", |b| b.iter(|| own_distinct(&items)));
    group.bench_function("datasketches, u64", |b| b.iter(|| apache_distinct(&items)));
    group.bench_function("probabilistic-collections, u64", |b| b.iter(|| other_distinct(&items).is_empty()));
    group.finish();
    let mut group = c.benchmark_group("distinct, one of 16,384 registers");
    let (own, more) = (own_distinct(&items), own_distinct(&hashes(VALUES / 2)));
    let apache = apache_distinct(&items);
    let mut into = more.clone();
    group.bench_function("own, merge", |b| b.iter(|| black_box(&mut into).merge(black_box(&own))));
    let mut union = HllUnion::new(14).expect("a size that is allowed");
    union.update(&apache_distinct(&items[..VALUES / 2]));
    group.bench_function("datasketches, merge", |b| b.iter(|| black_box(&mut union).update(black_box(&apache))));
    group.bench_function("own, estimate", |b| b.iter(|| black_box(&own).estimate()));
    group.bench_function("datasketches, estimate", |b| b.iter(|| black_box(&apache).composite_estimate()));
    group.finish();
}

fn quantiles(c: &mut Criterion<ThreadTime>) {
    let values = lognormal(VALUES);
    let mut group = c.benchmark_group("quantiles");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("own", |b| b.iter(|| own_quantiles(&values)));
    group.bench_function("own, 8 groups", |b| {
        b.iter(|| {
            let mut sketches: [QuantileSketch; GROUPS] = Default::default();
            values.iter().enumerate().for_each(|(at, &value)| sketches[at % GROUPS].add(value));
            sketches
        });
    });
    group.bench_function("sketches-ddsketch", |b| b.iter(|| ddsketch(&values)));
    group.bench_function("t-digest, own", |b| b.iter(|| own_digest(&values)));
    group.bench_function("t-digest of datasketches, k 200", |b| b.iter(|| apache_digest(&values)));
    group.bench_function("tdigest, size 200, batches of 1,000", |b| b.iter(|| other_digest(200, &values)));
    group.finish();
    let mut group = c.benchmark_group("quantiles, one of a million values");
    let (own, digest, dd) = (own_quantiles(&values), own_digest(&values), ddsketch(&values));
    let mut into = own.clone();
    group.bench_function("own, merge", |b| b.iter(|| black_box(&mut into).merge(black_box(&own))));
    let mut into = ddsketch(&values);
    group.bench_function("sketches-ddsketch, merge", |b| b.iter(|| black_box(&mut into).merge(black_box(&dd))));
    group.bench_function("t-digest, own, merge", |b| {
        b.iter(|| {
            let mut into = digest.clone();
            into.merge(black_box(&digest));
            into
        });
    });
    let apache = apache_digest(&values);
    group.bench_function("t-digest of datasketches, merge", |b| {
        b.iter(|| {
            let mut into = apache.clone();
            into.merge(black_box(&apache));
            into
        });
    });
    group.bench_function("own, quantile", |b| b.iter(|| black_box(&own).quantile(0.99)));
    group.bench_function("own, to bytes", |b| b.iter(|| black_box(&own).to_bytes()));
    let bytes = own.to_bytes();
    group.bench_function("own, from bytes", |b| b.iter(|| QuantileSketch::from_bytes(black_box(&bytes))));
    group.finish();
}

fn frequencies(c: &mut Criterion<ThreadTime>) {
    let items: Vec<u64> = zipf(VALUES).into_iter().map(|item| hash_str(&item.to_string())).collect();
    let mut group = c.benchmark_group("frequencies");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("own, 5 x 4,096, hashes", |b| {
        b.iter(|| {
            let mut sketch = CountMin::default();
            items.iter().for_each(|&item| sketch.add(item, 1));
            sketch
        });
    });
    group.bench_function("datasketches, 5 x 4,096, u64", |b| {
        b.iter(|| {
            let mut sketch = CountMinSketch::<u64>::new(5, 4_096).expect("a size that is allowed");
            items.iter().for_each(|&item| sketch.update(item));
            sketch
        });
    });
    group.bench_function("probabilistic-collections, 5 x 4,096, u64", |b| {
        b.iter(|| {
            type Counts = other_count_min::CountMinSketch<other_count_min::CountMinStrategy, u64>;
            let mut sketch = Counts::new(5, 4_096);
            items.iter().for_each(|item| sketch.insert(item, 1));
            sketch.count(&items[0])
        });
    });
    group.finish();
}

fn heavy_hitters(c: &mut Criterion<ThreadTime>) {
    let items: Vec<String> = zipf(VALUES).into_iter().map(|item| format!("item-{item}")).collect();
    let exact = items.iter().fold(HashMap::<&str, u64, RandomState>::default(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    });
    let counted: Vec<(&str, u64)> = exact.into_iter().collect();
    let mut group = c.benchmark_group("heavy hitters");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("own, one by one", |b| {
        b.iter(|| {
            let mut summary = HeavyHitters::default();
            items.iter().for_each(|item| summary.add(item, 1));
            summary
        });
    });
    group.bench_function("own, counted before", |b| {
        b.iter(|| {
            let mut summary = HeavyHitters::default();
            counted.iter().for_each(|&(item, count)| summary.add(item, count));
            summary
        });
    });
    group.bench_function("datasketches FrequentItems 2,048, one by one", |b| {
        b.iter(|| {
            let mut sketch = FrequentItemsSketch::<String>::new(2_048).expect("a size that is allowed");
            items.iter().for_each(|item| sketch.update(item.clone()));
            sketch
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ThreadTime).sample_size(10);
    targets = accuracy, distinct, quantiles, frequencies, heavy_hitters
}
criterion_main!(benches);
