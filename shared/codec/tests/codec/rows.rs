//! Rows from protobuf and from JSON: they agree with each other, and no bytes do harm.

use crate::support::{Plain, events, field, protobuf_batch};
use codec::{DecodeError, EventChecker, JsonForm, ProtobufBatch, TimeLimits, decode_json, raw_json_events};
use proptest::prelude::*;
use types::Timestamp;

/// Events or rejects, by index.
fn from_protobuf(bytes: &[u8]) -> Result<Vec<Result<Plain, String>>, DecodeError> {
    let mut out = Vec::new();
    let batch = ProtobufBatch::parse(bytes, 100)?;
    batch.for_each(|decoded| {
        assert_eq!(decoded.index as usize, out.len());
        out.push(decoded.event.map(|event| Plain::of_ref(&event)).map_err(|refused| refused.reject.message));
    });
    assert_eq!(batch.events() as usize, out.len());
    Ok(out)
}

fn from_json(body: &str, form: JsonForm) -> Result<Vec<Result<Plain, String>>, DecodeError> {
    let mut out = Vec::new();
    decode_json(body.as_bytes(), form, 100, |decoded| {
        out.push(decoded.event.map(|event| Plain::of_ref(&event)).map_err(|refused| refused.reject.message));
    })?;
    Ok(out)
}

proptest! {
    /// Goal: the same events come out of protobuf, of NDJSON and of an array as went in.
    #[test]
    fn protobuf_and_json_agree(events in events(30)) {
        let wanted = Ok(events.iter().cloned().map(Ok).collect::<Vec<_>>());
        prop_assert_eq!(from_protobuf(&protobuf_batch(&events)), wanted.clone());
        let texts: Vec<String> = events.iter().map(|event| event.with_ref(|event| event.to_json())).collect();
        prop_assert_eq!(from_json(&texts.join("\n"), JsonForm::Lines), wanted.clone());
        prop_assert_eq!(from_json(&format!("[{}]", texts.join(",")), JsonForm::Document), wanted);
    }

    /// Goal: no bytes make a decoder panic; what is accepted was counted before.
    #[test]
    fn no_bytes_panic(
        events in events(6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        noise: Vec<u8>,
    ) {
        let json = events.iter().map(|event| event.with_ref(|event| event.to_json())).collect::<Vec<_>>();
        let array = format!("[{}]", json.join(","));
        for mut bytes in [protobuf_batch(&events), json.join("\n").into_bytes(), array.into_bytes(), noise] {
            for (at, byte) in changes.iter().filter(|_| !bytes.is_empty()).map(|(at, byte)| (at.index(bytes.len()), byte)).collect::<Vec<_>>() {
                bytes[at] = *byte;
            }
            decode_all_ways(&bytes);
            decode_all_ways(&bytes[..cut.index(bytes.len() + 1)]);
        }
    }

    /// Goal: JSON made of the characters that matter is decoded without a panic, and a document that serde_json refuses
    /// is refused here.
    #[test]
    fn json_like_text_does_no_harm(text in r#"[\[\]{}",:0-9eE.\-\\ud8ntf a\n]{0,60}"#) {
        decode_all_ways(text.as_bytes());
        if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
            prop_assert!(decode_json(text.as_bytes(), JsonForm::Document, 100, |_| ()).is_err());
        }
    }
}

fn decode_all_ways(bytes: &[u8]) {
    let mut checker = EventChecker::default();
    let times = TimeLimits::default_at(Timestamp(0));
    if let Ok(batch) = ProtobufBatch::parse(bytes, 4) {
        assert!(batch.events() <= 4);
        batch.for_each(|decoded| drop(decoded.event.map(|event| checker.check(&event, 0, &times))));
    }
    for form in [JsonForm::Document, JsonForm::Lines] {
        let count = decode_json(bytes, form, 4, |decoded| {
            drop(decoded.event.map(|event| checker.check(&event, 0, &times)));
        });
        assert!(count.is_err() || count.is_ok_and(|count| count <= 4));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        raw_json_events(text, |_, _| ());
    }
}

fn event(fields: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, b"shop");
    field(&mut message, 2, b"events");
    message.extend(fields.concat());
    let mut out = Vec::new();
    field(&mut out, 1, &message);
    out
}

/// Goal: what is wrong inside an event refuses that event by name, and the next one is read.
#[test]
fn faults_inside_an_event_refuse_that_event() {
    let good = event(&[]);
    for (bytes, message) in [
        (&[0x18_u8][..], "event is cut off"),
        (&[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "event holds a varint of more than 64 bits"),
        (&[0x1a, 0], "event has event_time of wire type 2, 0 would be right"),
        (&[0x22, 1, 0xff], "event has event_id that is not UTF-8"),
        (&[0x22, 5, 0], "event is cut off"),
        (&[0x2b], "event holds the unsupported wire type 3"),
        (&[0x38, 0], "event has the unknown field 7"),
        (&[0x2a, 2, 0x18, 0], "event has the unknown field 3"),
        (&[0x32, 3, 0x12, 1, b'7'], "event has the value of a metric of wire type 2, 1 would be right"),
    ] {
        let out = from_protobuf(&[event(&[bytes]), good.clone()].concat()).unwrap();
        assert_eq!(out[0].as_ref().unwrap_err(), message, "{bytes:?}");
        assert!(out[1].is_ok());
    }
}

/// Goal: what is wrong with the batch refuses the batch; events are counted before any is read.
#[test]
fn faults_of_the_batch_refuse_it() {
    let good = event(&[]);
    for (bytes, message) in [
        (&[0x0a, 5][..], "request is cut off"),
        (&[0x20, 0], "request has the unknown field 4"),
        (&[0x08, 0], "request has events of wire type 0, 2 would be right"),
        (&[0x0b], "request holds the unsupported wire type 3"),
        (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "request is cut off"),
    ] {
        let error = from_protobuf(&[&good[..], bytes].concat()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let many = [0x0a, 0].repeat(101);
    assert_eq!(from_protobuf(&many), Err(DecodeError::TooManyEvents { max: 100 }));
    assert_eq!(ProtobufBatch::parse(&many[2..], 100).unwrap().events(), 100);
}

/// Goal: of duplicate scalar fields and map keys the last counts; the batch's identity may stand anywhere.
#[test]
fn the_last_of_duplicates_counts() {
    let dimension = |name: &[u8], value: &[u8]| {
        let (mut entry, mut out) = (Vec::new(), Vec::new());
        field(&mut entry, 2, b"first");
        field(&mut entry, 1, name);
        field(&mut entry, 2, value);
        field(&mut out, 5, &entry);
        out
    };
    let event =
        event(&[&dimension(b"d", b"x"), &dimension(b"e", b"y"), &dimension(b"d", b"z"), &[0x18, 1], &[0x18, 2]]);
    let bytes = [&[0x12, 1, b'p'][..], &event, &[0x12, 1, b'q', 0x18, 9]].concat();
    let batch = ProtobufBatch::parse(&bytes, 1).unwrap();
    assert_eq!((batch.producer_id(), batch.sequence()), ("q", 9));
    let out = from_protobuf(&bytes).unwrap().remove(0).unwrap();
    assert_eq!(out.time, Some(2));
    let dimensions: Vec<_> = out.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(dimensions, [("d", "z"), ("e", "y")]);
}

/// Goal: an event of more than 64 entries is refused before they pile up.
#[test]
fn columns_are_counted_while_they_come() {
    let entries = |count: usize| [0x2a, 0].repeat(count);
    assert!(from_protobuf(&event(&[&entries(64)])).unwrap()[0].is_ok());
    let refused = from_protobuf(&event(&[&entries(65)])).unwrap().remove(0);
    assert_eq!(refused, Err("event has more than 64 columns".to_owned()));
}
