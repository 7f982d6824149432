//! Rows that pass the checks make a body that passes its own.
#![no_main]

use codec::{BodyBuilder, BodyView, EventChecker, ProtobufBatch, TimeLimits};
use libfuzzer_sys::fuzz_target;
use types::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    let Ok(batch) = ProtobufBatch::parse(bytes, 1_000) else { return };
    let (mut builder, mut checker) = (BodyBuilder::default(), EventChecker::default());
    batch.for_each(|decoded| {
        let Ok(event) = decoded.event else { return };
        if checker.check(&event, decoded.index, &TimeLimits::default_at(Timestamp(0))).is_ok() {
            let _ = builder.push(&event, Timestamp(0), decoded.index);
        }
    });
    let rows = builder.rows();
    if let Some(body) = builder.finish(true) {
        assert_eq!(BodyView::parse(&body.bytes).expect("checked events make a valid body").rows(), rows);
    }
});
