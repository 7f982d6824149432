//! What went wrong, as the person at the terminal reads it.

use std::fmt;

/// A failed command: what is wrong, and what would be right where that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    what: String,
    hints: Vec<String>,
}

impl Failure {
    /// A failure; `what` is lower case and without a full stop.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hints: Vec::new() }
    }

    /// Says what would be right, after what was said of it before.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl std::error::Error for Failure {}
