//! Ranks of quantiles.

/// The nearest rank of the quantile `q` among `count` sorted values, counted from 0: `max(0, ceil(q·count) − 1)`. A `q`
/// outside of 0 to 1 is taken as the nearer end. `None` where there is no value.
///
/// `q` is the decimal number that was written: 0.07 of 100 values is the seventh, although the double nearest to 0.07 makes
/// the product a little larger than 7.
#[must_use]
pub fn nearest_rank(q: f64, count: u64) -> Option<u64> {
    let last = count.checked_sub(1)?;
    let product = q.clamp(0.0, 1.0) * count as f64;
    // A double is within 2^-53 of the number written, and so is their product of the true one.
    let whole = product.round();
    let above = if (product - whole).abs() <= product * 2f64.powi(-51) { whole } else { product.ceil() };
    Some((above as u64).saturating_sub(1).min(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::nearest_rank;

    proptest! {
        /// Goal: quantiles written with up to four digits have the rank that whole numbers give.
        #[test]
        fn ranks_are_those_of_whole_numbers(parts in 0..=10_000u64, count in 1..=1u64 << 36) {
            let product = u128::from(parts) * u128::from(count);
            let want = (product.div_ceil(10_000) as u64).saturating_sub(1);
            prop_assert_eq!(nearest_rank(parts as f64 / 10_000.0, count), Some(want));
        }
    }

    /// Goal: no values have no rank, and quantiles beyond the ends are the ends.
    #[test]
    fn ends_are_kept() {
        assert_eq!(nearest_rank(0.5, 0), None);
        assert_eq!((nearest_rank(-1.0, 9), nearest_rank(2.0, 9)), (Some(0), Some(8)));
        assert_eq!(nearest_rank(1.0, u64::MAX), Some(u64::MAX - 1));
    }
}
