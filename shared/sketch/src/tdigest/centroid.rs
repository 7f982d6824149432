//! What a t-digest keeps of neighbouring values.

use std::cmp::Ordering;

use crate::DecodeError;

/// The mean of some values and how many they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Centroid {
    pub(super) mean: f64,
    /// Twice the number of values, and one more where they are unlike.
    weight: u64,
}

impl Centroid {
    /// `count` values that are all the same.
    fn tie(value: f64, count: u64) -> Self {
        Self { mean: value, weight: 2 * count }
    }

    pub(super) fn decoded(mean: f64, weight: u64) -> Result<Self, DecodeError> {
        let decoded = Self { mean, weight };
        if !mean.is_finite() || decoded.weight() == 0 || decoded.weight() == 1 && !decoded.is_tie() {
            return Err(DecodeError::Invalid("no centroid of values"));
        }
        Ok(decoded)
    }

    pub(super) fn encoded_weight(&self) -> u64 {
        self.weight
    }

    /// How many values it stands for.
    pub(super) fn weight(&self) -> u64 {
        self.weight / 2
    }

    /// Whether all of its values are its mean.
    pub(super) fn is_tie(&self) -> bool {
        self.weight.is_multiple_of(2)
    }

    /// Whether both are ties of one value.
    fn is_same_tie(&self, other: &Self) -> bool {
        self.is_tie() && other.is_tie() && self.mean == other.mean
    }

    /// Takes the values of a centroid that does not lie below it.
    pub(super) fn join(&mut self, next: Self) {
        let (own, others) = (self.weight() as f64, next.weight() as f64);
        let count = self.weight() + next.weight();
        let alike = self.is_same_tie(&next);
        if !alike {
            // Not a sum that is divided, which could overflow.
            let part = others / (own + others);
            self.mean = (self.mean * (1.0 - part) + next.mean * part).clamp(self.mean, next.mean);
        }
        self.weight = 2 * count + u64::from(!alike);
    }

    /// Ties come before others of the same mean, so that ties of one value meet.
    fn order(&self, other: &Self) -> Ordering {
        self.mean.total_cmp(&other.mean).then(other.is_tie().cmp(&self.is_tie()))
    }
}

/// The ties of sorted values.
pub(super) fn fold_ties(sorted: &[f64]) -> Vec<Centroid> {
    sorted.chunk_by(|a, b| a == b).map(|run| Centroid::tie(run[0], run.len() as u64)).collect()
}

/// Both, in order, ties of one value joined.
pub(super) fn merge_sorted(left: &[Centroid], right: &[Centroid]) -> Vec<Centroid> {
    let mut merged: Vec<Centroid> = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.order(b) != Ordering::Greater,
            (a, _) => a.is_some(),
        };
        let Some(&next) = (if from_left { left.next() } else { right.next() }) else { return merged };
        match merged.last_mut() {
            Some(last) if last.is_same_tie(&next) => last.join(next),
            _ => merged.push(next),
        }
    }
}
