//! The largest sketches that are written, and those that are one item larger.

use sketch::{CountMin, DecodeError, HeavyHitters, Hll, QuantileSketch, TDigest};

/// Goal: sketches larger than any that is written are refused, one item over the limit, and the largest are not.
#[test]
fn decoders_know_the_limits() {
    let hitters = |count: u64| {
        let items = (0..count).flat_map(|item| [&[1, 5][..], format!("{item:05}").as_bytes()].concat());
        // 4,000 rows and an undercount of 1, which the rows that are missing from the counters pay for.
        [5u8, 1, 0xa0, 0x1f, 1].into_iter().chain(items).collect::<Vec<u8>>()
    };
    assert!(HeavyHitters::from_bytes(&hitters(2_048)).is_ok());
    assert!(matches!(HeavyHitters::from_bytes(&hitters(2_049)), Err(DecodeError::Invalid(_))));
    let items = |count: u64| {
        let items = (0..count).flat_map(|hash| [&hash.to_le_bytes()[..], &[1]].concat());
        [4u8, 1, 0].into_iter().chain(items).collect::<Vec<u8>>()
    };
    assert!(CountMin::from_bytes(&items(1_024)).is_ok());
    assert!(matches!(CountMin::from_bytes(&items(1_025)), Err(DecodeError::Invalid(_))));
    let coupons = |count: u32| {
        let coupons = (0..count).flat_map(|index| (index << 6 | 1).to_le_bytes());
        [1u8, 1, 0].into_iter().chain(coupons).collect::<Vec<u8>>()
    };
    assert!(Hll::from_bytes(&coupons(1_536)).is_ok());
    assert!(matches!(Hll::from_bytes(&coupons(1_537)), Err(DecodeError::Invalid(_))));
    // Single values in order: of weight 1, and like one another.
    let digest = |count: u64| {
        let ties = (0..count).flat_map(|value| [&(value as f64).to_le_bytes()[..], &[2]].concat());
        [6u8, 1].into_iter().chain(varint(count)).chain(ties).collect::<Vec<u8>>()
    };
    assert!(TDigest::from_bytes(&digest(1_400)).is_ok());
    assert!(matches!(TDigest::from_bytes(&digest(1_401)), Err(DecodeError::Invalid(_))));
    // One value in each of so many powers of two, from 1.0 on, whose bin is that of 52 octaves of subnormal doubles and 1,022
    // of normal ones; each next bin is 63 beyond the one behind the last.
    let quantiles = |count: u64| {
        let ends = [1.0, 2f64.powi(count as i32 - 1)].into_iter().flat_map(f64::to_le_bytes);
        let bins = varint((52 + 1_022) * 64).into_iter().chain([1]).chain((1..count).flat_map(|_| [63, 1]));
        [2u8, 1, 0, 0].into_iter().chain(ends).chain([0]).chain(varint(count)).chain(bins).collect::<Vec<u8>>()
    };
    let largest = QuantileSketch::from_bytes(&quantiles(264)).expect("as many pages as a sketch holds");
    assert_eq!((largest.count(), largest.bound().value), (264, QuantileSketch::RELATIVE_ERROR));
    assert!(matches!(QuantileSketch::from_bytes(&quantiles(265)), Err(DecodeError::Invalid(_))));
}

/// Goal: ranks that no hash has are refused, of coupons and of registers; those that one has are not.
#[test]
fn decoders_know_the_ranks() {
    let coupon = |rank: u32| Hll::from_bytes(&[&[1u8, 1, 0][..], &(9 << 6 | rank).to_le_bytes()].concat());
    assert!([1, 39].map(coupon).iter().all(Result::is_ok));
    assert!([0, 40].map(coupon).iter().all(Result::is_err));
    let register = |rank: u8| Hll::from_bytes(&[&[1u8, 1, 1, rank][..], &[7; (1 << 14) - 1]].concat());
    assert!([0, 51].map(register).iter().all(Result::is_ok));
    assert!([52, 255].map(register).iter().all(Result::is_err));
}

/// A number as it is written in a sketch.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
