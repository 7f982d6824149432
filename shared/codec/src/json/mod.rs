//! JSON and NDJSON to rows, without a map, a string or any other allocation per event.
//!
//! 1. What is wrong inside one event (a type, an unknown field, a number that does not fit) refuses that event, and the
//!    reader goes on behind it. What is no JSON refuses the body; in NDJSON it refuses its line.
//! 2. Scalars are taken as their raw text and judged here, so that no number is rounded before it is looked at.
//! 3. Nothing recurses by more than the parser's own limit: values that nobody wants are passed over without a stack.

mod document;
mod event;
mod lines;
mod plain;
mod row;
mod scalar;

use crate::{DecodeError, Decoded};

pub use document::raw_json_events;

/// How the events of a body stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonForm {
    /// One event, an array of events, or `{"events":[…]}`.
    Document,
    /// One event per line; blank lines do not count.
    Lines,
}

/// Hands out the events of a body in order; returns how many there were. If the result is an error, nothing that was
/// handed out counts.
///
/// # Errors
/// The body is no JSON of events, or has more than `events_max`.
pub fn decode_json(
    body: &[u8],
    form: JsonForm,
    events_max: usize,
    mut each: impl FnMut(Decoded<'_>),
) -> Result<u32, DecodeError> {
    match form {
        JsonForm::Document => document::decode(body, events_max, &mut each),
        JsonForm::Lines => lines::decode(body, events_max, &mut each),
    }
}

#[cfg(test)]
mod tests;
