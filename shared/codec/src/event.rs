//! The one row form: what JSON, protobuf and files become before they become columns.

use std::fmt::Write;

use types::ErrorCode;

/// One event, borrowed from its input or from its decoder. Its type checks nothing: [`crate::EventChecker`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventRef<'a> {
    /// The namespace of its table.
    pub namespace: &'a str,
    /// Its table.
    pub table: &'a str,
    /// µs since the Unix epoch; `None`: the time of receipt.
    pub event_time: Option<i64>,
    /// Its identity, where it has one of its own.
    pub event_id: Option<&'a [u8]>,
    /// Name and value of each dimension that it has.
    pub dimensions: &'a [(&'a str, &'a str)],
    /// Name and value of each metric that it has.
    pub metrics: &'a [(&'a str, f64)],
}

/// Why an event of a request was refused; the others of the request are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The event's index in its request.
    pub index: u32,
    /// The code, almost always [`ErrorCode::InvalidArgument`].
    pub code: ErrorCode,
    /// What was wrong, the field at fault named: `metrics.revenue is not a number`.
    pub message: String,
}

/// What a decoder makes of one event of a request.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The event's index in its request.
    pub index: u32,
    /// The event as sent, for dead letters; `None` in a JSON array: [`crate::raw_json_events`] finds it.
    pub raw: Option<&'a [u8]>,
    /// The event, not yet held against limits, or why it is none.
    pub event: Result<EventRef<'a>, Refused<'a>>,
}

/// An event that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Why.
    pub reject: Reject,
    /// Its namespace, if that could be read.
    pub namespace: Option<&'a str>,
    /// Its table, if that could be read.
    pub table: Option<&'a str>,
}

impl Reject {
    /// An event that is not as events must be.
    pub fn invalid(index: u32, message: impl Into<String>) -> Self {
        Self { index, code: ErrorCode::InvalidArgument, message: message.into() }
    }
}

impl EventRef<'_> {
    /// The event in the form of `POST /v1/events`, for dead letters of events that came in another form. What JSON has
    /// no number for becomes a string (`"NaN"`), an id that is not UTF-8 is shown with replacement characters.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"namespace\":");
        push_string(&mut out, self.namespace);
        out.push_str(",\"table\":");
        push_string(&mut out, self.table);
        if let Some(time) = self.event_time {
            let _ = write!(out, ",\"event_time\":{time}");
        }
        if let Some(id) = self.event_id {
            out.push_str(",\"event_id\":");
            push_string(&mut out, &String::from_utf8_lossy(id));
        }
        out.push_str(",\"dimensions\":{");
        for (place, (name, value)) in self.dimensions.iter().enumerate() {
            push_key(&mut out, place, name);
            push_string(&mut out, value);
        }
        out.push_str("},\"metrics\":{");
        for (place, (name, value)) in self.metrics.iter().enumerate() {
            push_key(&mut out, place, name);
            let _ = if value.is_finite() { write!(out, "{value:?}") } else { write!(out, "\"{value}\"") };
        }
        out.push_str("}}");
        out
    }
}

fn push_key(out: &mut String, place: usize, name: &str) {
    if place > 0 {
        out.push(',');
    }
    push_string(out, name);
    out.push(':');
}

fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("strings have a JSON form"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an event of any content is shown as JSON that says the same.
    #[test]
    fn events_are_shown_as_json() {
        let event = EventRef {
            namespace: "shop",
            table: "events",
            event_time: Some(-1),
            event_id: Some(b"\xff\""),
            dimensions: &[("a", "x\n"), ("b", "")],
            metrics: &[("m", 1e300), ("n", f64::NAN), ("o", f64::NEG_INFINITY)],
        };
        let shown: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
        let expected = serde_json::json!({
            "namespace": "shop", "table": "events", "event_time": -1, "event_id": "\u{fffd}\"",
            "dimensions": {"a": "x\n", "b": ""}, "metrics": {"m": 1e300, "n": "NaN", "o": "-inf"},
        });
        assert_eq!(shown, expected);
    }
}
