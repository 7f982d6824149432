//! When to stop working on a query: its client has left, or its time is up.

use std::sync::atomic::{AtomicBool, Ordering};

use types::{ApiError, ErrorCode};

/// Looked at between chunks of rows. The clock stays the caller's.
#[derive(Clone, Copy)]
pub struct Cancel<'a> {
    left: &'a AtomicBool,
    expired: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Cancel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("left", self.left).finish_non_exhaustive()
    }
}

impl<'a> Cancel<'a> {
    /// Stops once `left` is set or `expired` says so.
    pub fn new(left: &'a AtomicBool, expired: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { left, expired }
    }

    /// Looks at both.
    ///
    /// # Errors
    /// `CANCELLED` or `DEADLINE_EXCEEDED`.
    pub fn check(&self) -> Result<(), ApiError> {
        self.check_left()?;
        if (self.expired)() {
            let error = ApiError::new(ErrorCode::DeadlineExceeded, "the query did not end within timeout_ms");
            return Err(error.with_field("timeout_ms"));
        }
        Ok(())
    }

    /// Looks at the flag alone, which costs next to nothing.
    pub(crate) fn check_left(&self) -> Result<(), ApiError> {
        // Relaxed: the flag publishes nothing; seeing it a little later only stops the work a little later.
        if self.left.load(Ordering::Relaxed) {
            return Err(ApiError::new(ErrorCode::Cancelled, "the client left before the answer was there"));
        }
        Ok(())
    }
}
