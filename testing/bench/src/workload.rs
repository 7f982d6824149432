//! Events with the distributions of the side-by-side comparison: five dimensions, of which a few values make up most of the events, and
//! three metrics.

/// Shares of the regions.
pub const REGIONS: [f64; 8] = [0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04];
/// Shares of the types of events.
pub const TYPES: [f64; 9] = [0.35, 0.25, 0.15, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01];
/// Products, by Zipf's law.
pub const PRODUCTS: usize = 1_000;
/// Users, by Zipf's law with exponent 0.8.
pub const USERS: usize = 1_000_000;
/// Tenants, by Zipf's law.
pub const TENANTS: usize = 100;

/// Well spread numbers (splitmix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `bound`, all alike.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    /// A number whose logarithm is normal, of this mean and deviation.
    fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (mean + deviation * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }
}

/// How often the values of one dimension come.
#[derive(Debug)]
pub struct Weights {
    /// Of the first values together, up to each.
    cumulated: Vec<f64>,
}

impl Weights {
    fn of(weights: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let cumulated = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    fn zipf(values: usize, exponent: f64) -> Self {
        Self::of((1..=values).map(|rank| (rank as f64).powf(-exponent)))
    }

    /// One of the values, by its number.
    pub fn draw(&self, random: &mut Random) -> usize {
        let last = self.cumulated.len() - 1;
        let at = random.unit() * self.cumulated[last];
        self.cumulated.partition_point(|weight| *weight <= at).min(last)
    }
}

/// Draws events.
#[derive(Debug)]
pub struct Workload {
    /// Region, type, product, user and tenant.
    pub dimensions: [Weights; 5],
}

/// One event: its values by number, and its metrics.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    /// Region, type, product, user and tenant.
    pub values: [usize; 5],
    /// Revenue (in cents), latency (any double) and quantity (1 to 9).
    pub metrics: [f64; 3],
}

impl Default for Workload {
    fn default() -> Self {
        let (regions, types) = (Weights::of(REGIONS.into_iter()), Weights::of(TYPES.into_iter()));
        let (products, tenants) = (Weights::zipf(PRODUCTS, 1.0), Weights::zipf(TENANTS, 1.0));
        Self { dimensions: [regions, types, products, Weights::zipf(USERS, 0.8), tenants] }
    }
}

impl Workload {
    /// The next event.
    pub fn draw(&self, random: &mut Random) -> Drawn {
        let values = self.dimensions.each_ref().map(|weights| weights.draw(random));
        let cents = (random.log_normal(3.0, 1.0) * 100.0).round();
        let metrics = [cents / 100.0, random.log_normal(3.5, 0.8), (1 + random.below(9)) as f64];
        Drawn { values, metrics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: values come as often as their weights say, and the same for the same seed.
    #[test]
    fn values_come_by_their_weights() {
        let (workload, mut random, mut again) = (Workload::default(), Random(1), Random(1));
        let (mut regions, mut firsts) = ([0_u32; REGIONS.len()], 0);
        for _ in 0..100_000 {
            let drawn = workload.draw(&mut random);
            assert_eq!(workload.draw(&mut again).values, drawn.values);
            assert!(drawn.values[3] < USERS && (1.0..=9.0).contains(&drawn.metrics[2]) && drawn.metrics[1] > 0.0);
            regions[drawn.values[0]] += 1;
            firsts += u32::from(drawn.values[4] == 0);
        }
        for (share, count) in REGIONS.into_iter().zip(regions) {
            assert!((f64::from(count) / 1e5 - share).abs() < 0.01, "{share}: {count}");
        }
        // One over the sum of 1/n up to 100.
        assert!((f64::from(firsts) / 1e5 - 0.1928).abs() < 0.01, "{firsts}");
    }
}
