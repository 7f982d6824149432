//! HyperLogLog with 2^14 registers: how many distinct items came, from their hashes.
//!
//! 1. Up to 1,536 distinct items are kept as coupons, a table of 32 bits an item with 26 bits of index: there two items
//!    meet once in 57 sketches of that size, so the count of coupons is the estimate. Then registers of 8 bits take over.
//! 2. A coupon holds all that its register needs, so that registers are the same whenever the change came.
//! 3. The registers' estimate is Ertl's improved raw estimator ("New cardinality estimation algorithms for HyperLogLog
//!    sketches", 2017, algorithm 6): a function of how many registers have which value, without tables of corrections.

mod coupons;
mod estimate;

use coupons::Coupons;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, Reader, Writer},
};

/// Bits of a hash that choose the register.
const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// The largest rank: all bits of the hash that do not choose the register are 0.
const RANK_MAX: u8 = (64 - PRECISION + 1) as u8;
/// Words of marks whose items are listed together: a list that stays in the first cache.
const WORDS_AT_ONCE: usize = 64;
const COUPONS: u8 = 0;
const DENSE: u8 = 1;

type Registers = Box<[u8; REGISTERS]>;

/// All that a sketch needs to know of an item. Whoever has many sketches of the same items keeps these instead of hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coupon(u32);

impl Coupon {
    /// Of an item's hash, [`crate::hash_str`] for strings.
    #[must_use]
    #[inline]
    pub fn of(hash: u64) -> Self {
        Self(coupons::of(hash))
    }
}

/// What many items do to the registers of a sketch that has many already: for each which one, and how far it is raised.
#[derive(Debug, Clone, Default)]
pub struct Raises(Vec<u32>);

impl Raises {
    /// Appends those of some coupons.
    pub fn extend(&mut self, coupons: &[Coupon]) {
        self.0.extend(coupons.iter().map(|&Coupon(coupon)| coupons::raise(coupon)));
    }
}

/// The approximate number of distinct items; see the module's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Hll(State);

#[derive(Debug, Clone, PartialEq)]
enum State {
    Coupons(Coupons),
    Dense(Registers),
}

impl Default for Hll {
    fn default() -> Self {
        Self(State::Coupons(Coupons::default()))
    }
}

impl Hll {
    /// The relative error at 4 standard errors, 1.04 / sqrt(2^14) each, and its probability for a normal distribution.
    pub const BOUND: Bound = Bound::relative(4.0 * 1.04 / 128.0, 0.999_936);

    /// Takes an item by its hash, [`crate::hash_str`] for strings.
    #[inline]
    pub fn insert(&mut self, hash: u64) {
        match &mut self.0 {
            State::Dense(registers) => raise(registers, hash),
            State::Coupons(coupons) => {
                if coupons.insert(coupons::of(hash)).is_err() {
                    raise(self.densify(), hash);
                }
            }
        }
    }

    /// Takes many items by their hashes.
    pub fn extend(&mut self, hashes: &[u64]) {
        for (at, &hash) in hashes.iter().enumerate() {
            if let State::Dense(registers) = &mut self.0 {
                return hashes[at..].iter().for_each(|&hash| raise(registers, hash));
            }
            self.insert(hash);
        }
    }

    /// Takes an item by its coupon.
    #[inline]
    pub fn insert_coupon(&mut self, Coupon(coupon): Coupon) {
        match &mut self.0 {
            State::Dense(registers) => raise_to(registers, coupons::register(coupon)),
            State::Coupons(coupons) => {
                if coupons.insert(coupon).is_err() {
                    raise_to(self.densify(), coupons::register(coupon));
                }
            }
        }
    }

    /// A sketch of items of which many are marked: bit `b` of word `w` marks the item whose register is raised by number
    /// `64 * w + b` of `raises`. `None`: it may have so few that they are coupons.
    ///
    /// # Panics
    /// A bit has no item.
    #[must_use]
    pub fn of_marked(marks: &[u64], Raises(raises): &Raises) -> Option<Self> {
        let (mut registers, mut listed) = (empty(), Vec::new());
        for (at, words) in marks.chunks(WORDS_AT_ONCE).enumerate() {
            let first = (at * WORDS_AT_ONCE * u64::BITS as usize).min(raises.len());
            kernels::list_marked_items(words, &raises[first..], &mut listed);
            for &raise in &listed {
                raise_to(&mut registers, coupons::raised(raise));
            }
        }
        // So many registers are of as many coupons at least.
        let filled = registers.iter().filter(|rank| **rank > 0).count();
        (filled > coupons::COUPONS_MAX).then_some(Self(State::Dense(registers)))
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        match &other.0 {
            State::Coupons(coupons) => coupons.iter().for_each(|coupon| self.insert_coupon(Coupon(coupon))),
            State::Dense(more) => {
                for (register, &rank) in self.densify().iter_mut().zip(more.iter()) {
                    *register = rank.max(*register);
                }
            }
        }
    }

    /// The number of distinct items, to the nearest whole one. It does not depend on how the items were split and merged.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        match &self.0 {
            State::Coupons(coupons) => coupons.len() as u64,
            State::Dense(registers) => estimate::of(registers.as_slice()).round() as u64,
        }
    }

    /// Whether no item came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, State::Coupons(coupons) if coupons.len() == 0)
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.0 {
                State::Coupons(coupons) => coupons.bytes(),
                State::Dense(_) => REGISTERS,
            }
    }

    /// The sketch as bytes: equal sketches have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            State::Coupons(coupons) => {
                let sorted = coupons.sorted();
                let mut writer = Writer::new(Kind::Hll, 1 + sorted.len() * size_of::<u32>());
                writer.u8(COUPONS);
                sorted.iter().for_each(|&coupon| writer.u32(coupon));
                writer.finish()
            }
            State::Dense(registers) => {
                let mut writer = Writer::new(Kind::Hll, 1 + REGISTERS);
                writer.u8(DENSE);
                writer.slice(registers.as_slice());
                writer.finish()
            }
        }
    }

    /// The sketch that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No sketch is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Kind::Hll, bytes)?;
        match reader.u8()? {
            COUPONS => Ok(Self(State::Coupons(Coupons::read(reader)?))),
            DENSE => {
                let registers = reader.slice(REGISTERS)?;
                reader.finish()?;
                if registers.iter().any(|&rank| rank > RANK_MAX) {
                    return Err(DecodeError::Invalid("a register is larger than any rank"));
                }
                let mut own = empty();
                own.copy_from_slice(registers);
                Ok(Self(State::Dense(own)))
            }
            _ => Err(DecodeError::Invalid("a HyperLogLog is neither coupons nor registers")),
        }
    }

    fn densify(&mut self) -> &mut Registers {
        if let State::Coupons(coupons) = &self.0 {
            let mut registers = empty();
            coupons.iter().for_each(|coupon| raise_to(&mut registers, coupons::register(coupon)));
            self.0 = State::Dense(registers);
        }
        match &mut self.0 {
            State::Dense(registers) => registers,
            State::Coupons(_) => unreachable!("coupons were replaced above"),
        }
    }
}

fn empty() -> Registers {
    Box::new([0; REGISTERS])
}

#[inline]
fn raise(registers: &mut Registers, hash: u64) {
    let guard = 1 << (PRECISION - 1);
    let rank = (hash << PRECISION | guard).leading_zeros() as u8 + 1;
    raise_to(registers, ((hash >> (64 - PRECISION)) as usize, rank));
}

#[inline]
fn raise_to(registers: &mut Registers, (register, rank): (usize, u8)) {
    let register = &mut registers[register];
    *register = rank.max(*register);
}
