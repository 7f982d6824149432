//! Rows that pass the checks make a body that passes its own; what serde_json refuses is refused.
#![no_main]

use codec::{BodyBuilder, BodyView, EventChecker, JsonForm, TimeLimits, decode_json, raw_json_events};
use libfuzzer_sys::fuzz_target;
use types::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    for form in [JsonForm::Document, JsonForm::Lines] {
        let (mut builder, mut checker) = (BodyBuilder::default(), EventChecker::default());
        let _ = decode_json(bytes, form, 1_000, |decoded| {
            let Ok(event) = decoded.event else { return };
            if checker.check(&event, decoded.index, &TimeLimits::default_at(Timestamp(0))).is_ok() {
                let _ = builder.push(&event, Timestamp(0), decoded.index);
            }
        });
        let rows = builder.rows();
        if let Some(body) = builder.finish(true) {
            assert_eq!(BodyView::parse(&body.bytes).expect("checked events make a valid body").rows(), rows);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        raw_json_events(text, |_, _| ());
    }
});
