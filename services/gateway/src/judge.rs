//! Holding the events of a request against JSON Schemas, for as long as a request may take up a decode thread with that.
//!
//! What one event may be held against is bounded, but that bound times the events of a request is hours: patterns and
//! properties of a thousand columns, a hundred thousand times. Schemas of everyday use judge as many events in a second.

use std::{cell::Cell, time::Duration};

use codec::EventRef;
use event_schema::EventSchema;
use types::{ApiError, ErrorCode};

use crate::clock::Clock;

/// How long a request may be judged. An event that has begun is finished.
const JUDGING_MAX: Duration = Duration::from_secs(5);

/// Judges the events of one request.
pub(crate) struct Judge<'a> {
    clock: &'a dyn Clock,
    began: Duration,
    /// Events were passed over, as the time was up.
    passed_over: Cell<bool>,
}

impl<'a> Judge<'a> {
    /// A judge whose time begins now.
    pub(crate) fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, began: clock.monotonic(), passed_over: Cell::new(false) }
    }

    /// Holds an event against a schema. When the time is up it takes any event, and [`Judge::finish`] refuses the request.
    ///
    /// # Errors
    /// Its first fault.
    pub(crate) fn check(&self, schema: &EventSchema, event: &EventRef<'_>) -> Result<(), String> {
        if self.passed_over.get() || self.clock.monotonic().saturating_sub(self.began) > JUDGING_MAX {
            self.passed_over.set(true);
            return Ok(());
        }
        schema.check(&event_schema::json_of(event))
    }

    /// Ends the request.
    ///
    /// # Errors
    /// `TOO_LARGE` where events were passed over.
    pub(crate) fn finish(&self) -> Result<(), ApiError> {
        if !self.passed_over.get() {
            return Ok(());
        }
        let message = format!(
            "holding the request's events against the table's json_schema took longer than {} s; send fewer of them at a time, \
             or make the schema simpler",
            JUDGING_MAX.as_secs()
        );
        Err(ApiError::new(ErrorCode::TooLarge, message).with_field("json_schema"))
    }
}
