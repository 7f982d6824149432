//! Random values of known distributions, from a seed.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Lognormal (4, 1.5): latencies.
    pub(crate) fn lognormal(&mut self) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (4.0 + 1.5 * normal).exp()
    }

    /// Pareto with shape 1.2: a heavy tail.
    pub(crate) fn pareto(&mut self) -> f64 {
        self.unit().powf(-1.0 / 1.2)
    }

    /// Zipf of exponent about 1 over `items` ranks, from 0.
    pub(crate) fn zipf(&mut self, items: usize) -> usize {
        (((items as f64 + 1.0).powf(self.unit())) as usize).clamp(1, items) - 1
    }
}
