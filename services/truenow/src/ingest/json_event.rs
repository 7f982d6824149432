//! An event as a line of JSON in TrueNow's own form.

use codec::EventRef;
use serde_json::{Map, Value, json};

/// The event as one line, with its end.
pub(crate) fn line(event: &EventRef<'_>) -> String {
    let dimensions: Map<String, Value> =
        event.dimensions.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
    let metrics: Map<String, Value> =
        event.metrics.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
    let mut object =
        json!({"namespace": event.namespace, "table": event.table, "dimensions": dimensions, "metrics": metrics});
    if let Some(time) = event.event_time {
        object["event_time"] = time.into();
    }
    if let Some(id) = event.event_id {
        object["event_id"] = String::from_utf8_lossy(id).into();
    }
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the line is what `POST /v1/events` takes, and what is absent is not there.
    #[test]
    fn events_are_written_in_own_form() {
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(-5),
            event_id: Some(b"f:1"),
            dimensions: &[("d", "a\"b")],
            metrics: &[("m", 1.5)],
        };
        let want = r#"{"dimensions":{"d":"a\"b"},"event_id":"f:1","event_time":-5,"metrics":{"m":1.5},"namespace":"n","table":"t"}"#;
        assert_eq!(line(&event), format!("{want}\n"));
        let bare = EventRef { event_time: None, event_id: None, ..event };
        assert!(!line(&bare).contains("event_"));
    }
}
