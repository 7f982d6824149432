//! How far an approximate figure can be off.

/// What a bound is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundKind {
    /// A share of the true value.
    Relative,
    /// A count, as a share of the rows that the sketch took.
    Absolute,
    /// Nothing is guaranteed.
    None,
}

/// A guarantee: the error is at most `value`, at the given confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// What `value` is a share of.
    pub kind: BoundKind,
    /// The largest error; 0 where nothing is guaranteed.
    pub value: f64,
    /// The probability that the bound holds, over the choice of the hash function: 1 where the algorithm guarantees it, 0
    /// where nothing is guaranteed.
    pub confidence: f64,
}

impl Bound {
    /// No guarantee.
    pub const NONE: Self = Self { kind: BoundKind::None, value: 0.0, confidence: 0.0 };

    pub(crate) const fn relative(value: f64, confidence: f64) -> Self {
        Self { kind: BoundKind::Relative, value, confidence }
    }

    pub(crate) const fn absolute(value: f64, confidence: f64) -> Self {
        Self { kind: BoundKind::Absolute, value, confidence }
    }
}
