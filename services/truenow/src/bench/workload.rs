//! The events of the load generator: five dimensions (8 regions, 9 types, 1,000 products, 1M users of which few are
//! frequent, 100 tenants) and three metrics. The same seed gives the same events.

/// Regions and how often each comes, per hundred.
const REGIONS: [(&str, u32); 8] = [
    ("us-east", 25),
    ("us-west", 20),
    ("eu-west", 15),
    ("eu-central", 12),
    ("ap-south", 10),
    ("ap-northeast", 8),
    ("sa-east", 6),
    ("af-south", 4),
];
/// Types and how often each comes, per hundred.
const TYPES: [(&str, u32); 9] = [
    ("page_view", 35),
    ("click", 25),
    ("search", 15),
    ("add_to_cart", 10),
    ("checkout", 5),
    ("purchase", 4),
    ("login", 3),
    ("signup", 2),
    ("refund", 1),
];
const PRODUCTS: usize = 1_000;
const USERS: usize = 1_000_000;
const TENANTS: usize = 100;

/// Names of the dimensions, in the order of [`Row::dimensions`].
pub(crate) const DIMENSIONS: [&str; 5] = ["region", "event_type", "product", "user_id", "tenant"];
/// Names of the metrics, in the order of [`Row::metrics`].
pub(crate) const METRICS: [&str; 3] = ["revenue", "latency_ms", "quantity"];

/// An event, without its time and id, which each sending gives anew.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Values of [`DIMENSIONS`].
    pub(crate) dimensions: [String; 5],
    /// Values of [`METRICS`].
    pub(crate) metrics: [f64; 3],
}

/// An endless source of rows.
#[derive(Debug)]
pub(crate) struct Workload {
    random: Random,
    products: Zipf,
    users: Zipf,
    tenants: Zipf,
}

impl Workload {
    /// The workload of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            products: Zipf::new(PRODUCTS, 1.0),
            users: Zipf::new(USERS, 0.8),
            tenants: Zipf::new(TENANTS, 1.0),
        }
    }

    /// The next row.
    pub(crate) fn row(&mut self) -> Row {
        let random = &mut self.random;
        let dimensions = [
            weighted(&REGIONS, random).to_owned(),
            weighted(&TYPES, random).to_owned(),
            format!("product_{:04}", self.products.pick(random)),
            format!("user_{:07}", self.users.pick(random)),
            format!("tenant_{:03}", self.tenants.pick(random)),
        ];
        let revenue = (random.log_normal(3.0, 1.0) * 100.0).round() / 100.0;
        let quantity = 1.0 + (random.unit() * 9.0).floor();
        Row { dimensions, metrics: [revenue, random.log_normal(3.5, 0.8), quantity] }
    }
}

fn weighted<'a>(values: &[(&'a str, u32)], random: &mut Random) -> &'a str {
    let mut at = (random.unit() * 100.0) as u32;
    for &(value, weight) in values {
        if at < weight {
            return value;
        }
        at -= weight;
    }
    values[0].0
}

/// Ranks 0, 1, 2 … where rank k comes in proportion to 1 / (k + 1)^s.
#[derive(Debug)]
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks).map(|rank| {
            sum += (rank as f64).powf(-s);
            sum
        });
        Self(sums.collect())
    }

    fn pick(&self, random: &mut Random) -> usize {
        let total = self.0[self.0.len() - 1];
        let at = random.unit() * total;
        self.0.partition_point(|&sum| sum <= at).min(self.0.len() - 1)
    }
}

/// SplitMix64: small, fast, and good enough for a workload.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        // Box and Muller; one minus, so that the logarithm is never of zero.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        (mean + deviation * normal).exp()
    }
}

/// One to one on 64-bit numbers, and well mixed: different counters give different ids that look random.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Goal: the same seed gives the same rows, and frequencies are those of the workload.
    #[test]
    fn workload_is_repeatable_and_skewed() {
        let (mut first, mut second) = (Workload::new(7), Workload::new(7));
        let mut regions: HashMap<String, u32> = HashMap::new();
        let mut frequent = 0;
        for _ in 0..20_000 {
            let row = first.row();
            assert_eq!(row, second.row());
            assert!(row.metrics.iter().all(|value| value.is_finite() && *value >= 0.0));
            frequent += u32::from(row.dimensions[3].as_str() < "user_0001000");
            *regions.entry(row.dimensions[0].clone()).or_default() += 1;
        }
        assert_eq!(regions.len(), REGIONS.len());
        assert!((4_500..5_500).contains(&regions["us-east"]), "{regions:?}");
        // Of a zipf 0.8 over a million, the first thousand ranks have about a fifth.
        assert!((3_000..6_000).contains(&frequent), "{frequent}");
    }
}
