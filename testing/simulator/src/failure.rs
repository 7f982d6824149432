//! What a run found.

use std::fmt;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) String);

/// Returns with what is wrong unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Wrong(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// A run that failed: its seed tells it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What must not be.
    pub what: String,
    /// What happened last, oldest first.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {} failed: {}", self.seed, self.what)?;
        write!(f, "again: cargo run -p simulator -- --seed {}", self.seed)
    }
}
