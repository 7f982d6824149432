//! The few items of a young sketch: a set of coupons, in a table that doubles.
//!
//! A coupon is 26 bits of index, then 6 bits of rank: one more than the zeros that follow the index in the hash. The rank is
//! never 0, so 0 is an empty place.

use super::PRECISION;
use crate::{DecodeError, bytes::Reader};

const INDEX_BITS: u32 = 26;
const RANK_BITS: u32 = 6;
const RANK_MAX: u32 = 64 - INDEX_BITS + 1;
/// Bits of the index beyond those that choose the register.
const MIDDLE_BITS: u32 = INDEX_BITS - PRECISION;

const PLACES_MIN: usize = 8;
const PLACES_MAX: usize = 2_048;
/// How many coupons a sketch keeps.
pub(super) const COUPONS_MAX: usize = filled(PLACES_MAX);

const _: () = assert!(RANK_MAX < 1 << RANK_BITS && INDEX_BITS + RANK_BITS == u32::BITS);

/// How many places of a table may be taken.
const fn filled(places: usize) -> usize {
    places / 4 * 3
}

/// The coupon of a hash.
#[inline]
pub(super) fn of(hash: u64) -> u32 {
    let guard = 1 << (INDEX_BITS - 1);
    let rank = (hash << INDEX_BITS | guard).leading_zeros() + 1;
    ((hash >> (64 - INDEX_BITS)) as u32) << RANK_BITS | rank
}

/// The register that the coupon's item belongs to, and its rank there.
#[inline]
pub(super) fn register(coupon: u32) -> (usize, u8) {
    let middle = coupon >> RANK_BITS & ((1 << MIDDLE_BITS) - 1);
    let rank = match middle {
        0 => MIDDLE_BITS + (coupon & ((1 << RANK_BITS) - 1)),
        _ => middle.leading_zeros() - (u32::BITS - MIDDLE_BITS) + 1,
    };
    ((coupon >> (RANK_BITS + MIDDLE_BITS)) as usize, rank as u8)
}

/// What the coupon's item does to a register, as [`raised`] reads it. As [`register`], without what keeps a loop from being
/// made of wide instructions: the bits of a number are counted by the exponent of a float.
#[inline(always)]
pub(super) fn raise(coupon: u32) -> u32 {
    const EXPONENT_OF_ONE: u32 = 127;
    let middle = coupon >> RANK_BITS & ((1 << MIDDLE_BITS) - 1);
    let exponent = (middle.cast_signed() as f32).to_bits() >> (f32::MANTISSA_DIGITS - 1);
    let few = MIDDLE_BITS + EXPONENT_OF_ONE - exponent;
    let many = MIDDLE_BITS + (coupon & ((1 << RANK_BITS) - 1));
    coupon >> (RANK_BITS + MIDDLE_BITS) << u8::BITS | if middle == 0 { many } else { few }
}

/// The register that is raised, and to which rank.
#[inline(always)]
pub(super) fn raised(raise: u32) -> (usize, u8) {
    ((raise >> u8::BITS) as usize, raise as u8)
}

/// There is no place for another coupon.
#[derive(Debug)]
pub(super) struct Full;

/// A set of at most [`COUPONS_MAX`] coupons.
#[derive(Debug, Clone, Default)]
pub(super) struct Coupons {
    /// A power of two of places, or none. A coupon lies behind its first place without a gap.
    places: Vec<u32>,
    len: usize,
}

impl PartialEq for Coupons {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.sorted() == other.sorted()
    }
}

impl Coupons {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.places.iter().copied().filter(|&coupon| coupon != 0)
    }

    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut coupons = Vec::with_capacity(self.len);
        coupons.extend(self.iter());
        coupons.sort_unstable();
        coupons
    }

    pub(super) fn insert(&mut self, coupon: u32) -> Result<(), Full> {
        if self.len < filled(self.places.len()) {
            self.len += usize::from(place(&mut self.places, coupon));
            return Ok(());
        }
        if self.contains(coupon) {
            return Ok(());
        }
        if self.len == COUPONS_MAX {
            return Err(Full);
        }
        let mut places = vec![0; (self.places.len() * 2).max(PLACES_MIN)];
        for coupon in self.iter().chain([coupon]) {
            place(&mut places, coupon);
        }
        self.places = places;
        self.len += 1;
        Ok(())
    }

    /// Reads what lies in the rest of the bytes: coupons in ascending order.
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let len = reader.remaining() / size_of::<u32>();
        if len > COUPONS_MAX {
            return Err(DecodeError::Invalid("more coupons than a sketch keeps"));
        }
        let (mut coupons, mut last) = (Self::default(), 0);
        for _ in 0..len {
            let coupon = reader.u32()?;
            let rank = coupon & ((1 << RANK_BITS) - 1);
            if coupon <= last || rank == 0 || rank > RANK_MAX {
                return Err(DecodeError::Invalid("a coupon is out of order or of no hash"));
            }
            last = coupon;
            coupons.insert(coupon).expect("a sketch has places for the coupons that it keeps");
        }
        reader.finish()?;
        Ok(coupons)
    }

    fn contains(&self, coupon: u32) -> bool {
        !self.places.is_empty() && self.places[find(&self.places, coupon)] == coupon
    }
}

/// Puts a coupon into a table with an empty place, and says whether it is new there.
#[inline]
fn place(places: &mut [u32], coupon: u32) -> bool {
    let at = find(places, coupon);
    let new = places[at] == 0;
    places[at] = coupon;
    new
}

/// Where the coupon lies or belongs: linear probing from the index's low bits, which are a hash's. A quarter of the places is
/// empty, so the search ends.
#[inline]
fn find(places: &[u32], coupon: u32) -> usize {
    let mask = places.len() - 1;
    let mut at = (coupon >> RANK_BITS) as usize & mask;
    while places[at] != 0 && places[at] != coupon {
        at = (at + 1) & mask;
    }
    at
}
