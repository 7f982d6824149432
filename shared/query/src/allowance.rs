//! What the end of a query may take: its share of memory, and time until its client has left or its deadline has come.

use types::ApiError;

use crate::{cancel::Cancel, plan::Plan};

/// Steps and bytes after which the clock is looked at again: some 100 µs of work.
const STEPS: usize = 1 << 10;
const BYTES: usize = 1 << 18;

/// Memory that is taken and not given back, beside what a query holds already.
pub(crate) struct Allowance<'a> {
    plan: &'a Plan,
    cancel: &'a Cancel<'a>,
    bytes: usize,
    steps: usize,
    /// Bytes at the last look.
    looked: usize,
}

impl<'a> Allowance<'a> {
    /// For a query that holds so many bytes.
    pub(crate) fn new(plan: &'a Plan, cancel: &'a Cancel<'a>, held: usize) -> Self {
        Self { plan, cancel, bytes: held, steps: 0, looked: held }
    }

    /// Takes memory for so many things of a size, before they are made.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where the plan does not allow it; `CANCELLED`, `DEADLINE_EXCEEDED`.
    pub(crate) fn take(&mut self, count: usize, size: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(count.saturating_mul(size));
        self.plan.allow_bytes(self.bytes)?;
        self.cancel.check()
    }

    /// One of many steps, for which memory was taken: the clock is looked at now and then.
    ///
    /// # Errors
    /// As [`Allowance::take`].
    #[inline]
    pub(crate) fn step(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.steps += 1;
        if self.steps >= STEPS || self.bytes - self.looked >= BYTES {
            (self.steps, self.looked) = (0, self.bytes);
            self.plan.allow_bytes(self.bytes)?;
            self.cancel.check()?;
        }
        Ok(())
    }
}
