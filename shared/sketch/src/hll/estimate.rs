//! Ertl's improved raw estimator: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
//! arXiv 1702.01284, algorithms 5 and 6. Only sums, products and square roots of doubles: the same on every machine.

/// The estimate from registers, a power of two of them, each with a rank up to `RANKS - 1`.
pub(super) fn of(registers: &[u8]) -> f64 {
    /// One more than the largest rank that six bits hold.
    const RANKS: usize = 64;
    let mut counts = [0u32; RANKS];
    for &rank in registers {
        counts[usize::from(rank) % RANKS] += 1;
    }
    from_counts(&counts, registers.len())
}

fn from_counts(counts: &[u32], registers: usize) -> f64 {
    let m = registers as f64;
    // Of m registers, an index takes log2(m) bits of the hash; the rest gives ranks up to this one.
    let last = 64 - registers.trailing_zeros() as usize + 1;
    let mut sum = m * tau(1.0 - f64::from(counts[last]) / m);
    for &count in counts[1..last].iter().rev() {
        sum = 0.5 * (sum + f64::from(count));
    }
    sum += m * sigma(f64::from(counts[0]) / m);
    m / (2.0 * std::f64::consts::LN_2) * m / sum
}

/// Corrects for registers without an item, given their share.
fn sigma(mut share: f64) -> f64 {
    if share == 1.0 {
        return f64::INFINITY;
    }
    let (mut weight, mut sum) = (1.0, share);
    loop {
        share *= share;
        let before = sum;
        sum += share * weight;
        weight += weight;
        if sum == before {
            return sum;
        }
    }
}

/// Corrects for registers at the largest rank, given the share of the others.
fn tau(mut share: f64) -> f64 {
    if share == 0.0 || share == 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - share);
    loop {
        share = share.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - share) * (1.0 - share) * weight;
        if sum == before {
            return sum / 3.0;
        }
    }
}
