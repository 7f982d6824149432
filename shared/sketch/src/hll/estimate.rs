//! Ertl's improved raw estimator: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
//! arXiv 1702.01284, algorithms 5 and 6. Only sums, products and square roots of doubles: the same on every machine.

/// One more than the largest rank that six bits hold.
const RANKS: usize = 64;

/// The estimate from registers, a power of two of them, at least eight.
pub(super) fn of(registers: &[u8]) -> f64 {
    /// Tables that count side by side: neighbours often have the same rank, and one count would wait for the other.
    const LANES: usize = 8;
    let mut lanes = [[0u32; RANKS]; LANES];
    for chunk in registers.as_chunks::<LANES>().0 {
        for (counts, &rank) in lanes.iter_mut().zip(chunk) {
            counts[usize::from(rank) % RANKS] += 1;
        }
    }
    let counts = std::array::from_fn(|rank| lanes.iter().map(|counts| counts[rank]).sum());
    from_counts(&counts, registers.len())
}

fn from_counts(counts: &[u32; RANKS], registers: usize) -> f64 {
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

#[cfg(test)]
mod tests {
    /// Where the registers of a HyperLogLog of Apache DataSketches lie, one byte each.
    const REGISTERS_AT: usize = 40;

    /// Goal: registers that other implementations filled, with another hash, are estimated within four standard errors.
    #[test]
    fn registers_of_other_implementations_are_estimated() {
        let images: [(f64, &[u8]); 5] = [
            (1e3, include_bytes!("../../tests/data/hll8_n1000_cpp.sk")),
            (1e4, include_bytes!("../../tests/data/hll8_n10000_cpp.sk")),
            (1e5, include_bytes!("../../tests/data/hll8_n100000_cpp.sk")),
            (1e6, include_bytes!("../../tests/data/hll8_n1000000_cpp.sk")),
            (1e6, include_bytes!("../../tests/data/hll8_n1000000_java.sk")),
        ];
        for (want, image) in images {
            let registers = &image[REGISTERS_AT..];
            assert_eq!(registers.len(), 4_096);
            let off = super::of(registers) / want - 1.0;
            assert!(off.abs() <= 4.0 * 1.04 / 64.0, "{want}: off by {off}");
        }
    }

    /// Goal: no registers give anything but a number: none filled is nothing, all at the largest rank is beyond all.
    #[test]
    fn extremes_are_numbers() {
        assert_eq!(super::of(&[0; 1 << 14]), 0.0);
        assert_eq!(super::of(&[51; 1 << 14]).round() as u64, u64::MAX);
        assert!(super::of(&[50; 1 << 14]) > 1e18);
    }
}
