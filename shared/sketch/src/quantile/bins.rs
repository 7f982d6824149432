//! Which bin a double belongs to, and what a bin holds.
//!
//! The key of a double is its power of two ("octave"), counted from that of the least subnormal, then six bits that say
//! where between this power and the next it lies. The bin is the key without its lowest bits, as many as pairs were joined.

/// Bits of a key within an octave.
pub(super) const OCTAVE_BITS: u32 = 6;
/// How often pairs may be joined: then all doubles fit.
pub(super) const SHIFT_MAX: u32 = 4;
/// How many pages of bins a sketch holds, both signs together.
pub(super) const PAGES_MAX: usize = 264;

const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
const KEY_SHIFT: u32 = MANTISSA_BITS - OCTAVE_BITS;
const SIGN: u64 = 1 << 63;
/// The octave of the least normal double.
const OCTAVE_NORMAL: u32 = MANTISSA_BITS;
/// What is added to the leading bits of a normal double, whose exponents begin at 1.
const KEY_BIAS: u32 = (OCTAVE_NORMAL - 1) << OCTAVE_BITS;
/// Octaves of subnormal and of normal doubles.
const OCTAVES: u32 = OCTAVE_NORMAL + 2_046;
/// One more than the largest key.
pub(super) const KEYS: u32 = OCTAVES << OCTAVE_BITS;

// Bins of all doubles of both signs fit once pairs were joined as often as they may be. A page is 2^OCTAVE_BITS bins.
const _: () = assert!(2 * OCTAVES.div_ceil(1 << SHIFT_MAX) as usize <= PAGES_MAX);

/// The key of a normal double's magnitude, `None` for others.
#[inline]
pub(super) fn key_of_normal(value: f64) -> Option<u32> {
    let magnitude = value.to_bits() & !SIGN;
    // Exponents 1 to 2,046 are those of normal doubles.
    let leading = (magnitude >> KEY_SHIFT) as u32;
    let normal = 1 << OCTAVE_BITS..2_047 << OCTAVE_BITS;
    normal.contains(&leading).then_some(leading + KEY_BIAS)
}

/// The least and the greatest value; `None` where there is none, or one is not a normal double.
pub(super) fn ends_of_normals(values: &[f64]) -> Option<(f64, f64)> {
    /// Values that are looked at side by side, for the compiler to make vectors of.
    const LANES: usize = 8;
    let (&first, _) = values.split_first()?;
    let (mut low, mut high, mut normal) = ([first; LANES], [first; LANES], [true; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    let padded = std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(first));
    for chunk in chunks.iter().chain([&padded]) {
        for lane in 0..LANES {
            let value = chunk[lane];
            low[lane] = if value < low[lane] { value } else { low[lane] };
            high[lane] = if value > high[lane] { value } else { high[lane] };
            normal[lane] &= value.abs() >= f64::MIN_POSITIVE && value.abs() <= f64::MAX;
        }
    }
    let ends = || Some((low.into_iter().reduce(f64::min)?, high.into_iter().reduce(f64::max)?));
    normal.into_iter().all(|normal| normal).then(ends)?
}

/// The key of a finite double's magnitude, `None` for zero.
pub(super) fn key_of(value: f64) -> Option<u32> {
    key_of_normal(value).or_else(|| {
        let mantissa = value.to_bits() & !SIGN;
        let octave = mantissa.checked_ilog2()?;
        // The leading one moves to where a normal double has it, and off.
        let fraction = mantissa << (MANTISSA_BITS - octave) & ((1 << MANTISSA_BITS) - 1);
        Some(octave << OCTAVE_BITS | (fraction >> KEY_SHIFT) as u32)
    })
}

/// The least magnitude whose key is `key` or more; for [`KEYS`] that is infinity.
fn least_of(key: u32) -> f64 {
    let octave = key >> OCTAVE_BITS;
    if octave >= OCTAVE_NORMAL {
        return f64::from_bits(u64::from(key - KEY_BIAS) << KEY_SHIFT);
    }
    let leading = u64::from(1 << OCTAVE_BITS | key & ((1 << OCTAVE_BITS) - 1));
    f64::from_bits((leading << octave).div_ceil(1 << OCTAVE_BITS))
}

/// The harmonic mean of two doubles of one sign, which is as far from either, relatively: `(high - low) / (high + low)`.
pub(super) fn between(low: f64, high: f64) -> f64 {
    // The harmonic mean lies nearer to the smaller magnitude.
    if low == high { low } else { low * (2.0 / (1.0 + low / high)) }
}

/// The width of the bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bins {
    /// How often pairs were joined.
    shift: u32,
}

impl Bins {
    pub(super) fn with_shift(shift: u32) -> Option<Self> {
        (shift <= SHIFT_MAX).then_some(Self { shift })
    }

    pub(super) fn joined(self) -> Self {
        Self::with_shift(self.shift + 1).expect("pairs are joined as often as it takes to fit all doubles, not more")
    }

    pub(super) fn shift(self) -> u32 {
        self.shift
    }

    #[inline]
    pub(super) fn of(self, key: u32) -> u32 {
        key >> self.shift
    }

    /// The bin of a normal double.
    #[inline]
    pub(super) fn of_normal(self, value: f64) -> u32 {
        self.of(((value.to_bits() & !SIGN) >> KEY_SHIFT) as u32 + KEY_BIAS)
    }

    /// One more than the largest bin.
    pub(super) fn end(self) -> u32 {
        self.of(KEYS - 1) + 1
    }

    /// The least magnitude in a bin.
    pub(super) fn low(self, bin: u32) -> f64 {
        least_of(bin << self.shift)
    }

    /// The greatest magnitude in a bin.
    pub(super) fn high(self, bin: u32) -> f64 {
        least_of(((bin + 1) << self.shift).min(KEYS)).next_down()
    }

    /// How far the answer for a bin can be off, as a share of the value.
    pub(super) fn relative_error(self) -> f64 {
        /// For bins from 2^e (1 + s / 2^m), the first of an octave is relatively the widest: half of 2^-m of their middle.
        fn of(shift: u32) -> f64 {
            1.0 / f64::from((2 << (OCTAVE_BITS - shift)) + 1)
        }
        match self.shift {
            0 => super::QuantileSketch::RELATIVE_ERROR,
            shift => of(shift),
        }
    }
}

const _: () = assert!(super::QuantileSketch::RELATIVE_ERROR >= 1.0 / ((2 << OCTAVE_BITS) + 1) as f64);
