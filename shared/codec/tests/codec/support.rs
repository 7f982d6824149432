//! Events as plain values, how to make them, and how to write them as protobuf.

use std::collections::BTreeMap;

use codec::{BodyBuilder, BodyView, EventRef, is_absent};
use proptest::prelude::*;
use types::Timestamp;

/// An event as plain collections hold it: the oracle's form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plain {
    pub(crate) time: Option<i64>,
    pub(crate) id: Option<String>,
    pub(crate) dimensions: BTreeMap<String, String>,
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl Plain {
    /// Calls `with` with the event as decoders hand it out.
    pub(crate) fn with_ref<T>(&self, with: impl FnOnce(&EventRef<'_>) -> T) -> T {
        let dimensions: Vec<_> = self.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let metrics: Vec<_> = self.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        with(&EventRef {
            namespace: "shop",
            table: "events",
            event_time: self.time,
            event_id: self.id.as_deref().map(str::as_bytes),
            dimensions: &dimensions,
            metrics: &metrics,
        })
    }

    /// The event that a decoder handed out.
    pub(crate) fn of_ref(event: &EventRef<'_>) -> Self {
        assert_eq!((event.namespace, event.table), ("shop", "events"));
        Self {
            time: event.event_time,
            id: event.event_id.map(|id| String::from_utf8(id.to_vec()).unwrap()),
            dimensions: event.dimensions.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            metrics: event.metrics.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
        }
    }

    /// A row of a body.
    pub(crate) fn of_row(view: &BodyView<'_>, row: usize) -> Self {
        let dimensions = view.dimensions().iter().filter_map(|d| Some((d.name().into(), d.value(row)?.into())));
        let metrics = view.metrics().iter().map(|m| (m.name().into(), m.values().get(row)));
        let id = view.ids().and_then(|ids| ids.get(row));
        Self {
            time: Some(view.times().get(row)),
            id: id.map(|id| String::from_utf8(id.to_vec()).unwrap()),
            dimensions: dimensions.collect(),
            metrics: metrics.filter(|(_, value)| !is_absent(*value)).collect(),
        }
    }

    /// The event as a protobuf `Event`.
    pub(crate) fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        field(&mut out, 1, b"shop");
        field(&mut out, 2, b"events");
        if let Some(time) = self.time {
            out.push(3 << 3);
            put_varint(&mut out, time as u64);
        }
        if let Some(id) = &self.id {
            field(&mut out, 4, id.as_bytes());
        }
        for (name, value) in &self.dimensions {
            let mut entry = Vec::new();
            field(&mut entry, 1, name.as_bytes());
            field(&mut entry, 2, value.as_bytes());
            field(&mut out, 5, &entry);
        }
        for (name, value) in &self.metrics {
            let mut entry = Vec::new();
            field(&mut entry, 1, name.as_bytes());
            entry.push(2 << 3 | 1);
            entry.extend_from_slice(&value.to_le_bytes());
            field(&mut out, 6, &entry);
        }
        out
    }
}

/// Appends a length-delimited field.
pub(crate) fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The batch of these events as protobuf.
pub(crate) fn protobuf_batch(events: &[Plain]) -> Vec<u8> {
    let mut out = Vec::new();
    events.iter().for_each(|event| field(&mut out, 1, &event.to_protobuf()));
    out
}

/// The body of these events; `None` if there are none.
pub(crate) fn body_of(builder: &mut BodyBuilder, events: &[Plain], received: i64) -> Option<codec::Body> {
    for (index, event) in events.iter().enumerate() {
        event.with_ref(|event| builder.push(event, Timestamp(received), index as u32)).unwrap();
    }
    builder.finish(true)
}

/// Events of few and many columns and values, with and without time, id and columns.
pub(crate) fn events(max: usize) -> impl Strategy<Value = Vec<Plain>> {
    let ids = prop_oneof![
        3 => prop::collection::vec("[a-z]{16}".prop_map(Some), max),
        3 => prop::collection::vec(prop::option::of("[^\\x00]{1,20}"), max),
        1 => prop::collection::vec(Just(None), max),
    ];
    (prop::collection::vec(columns(), 0..max), ids).prop_map(|(columns, ids)| {
        let event = |((time, dimensions, metrics), id)| Plain { time, id, dimensions, metrics };
        columns.into_iter().zip(ids).map(event).collect()
    })
}

type Columns = (Option<i64>, BTreeMap<String, String>, BTreeMap<String, f64>);

fn columns() -> impl Strategy<Value = Columns> {
    let value = prop_oneof![4 => "[a-c]", 2 => "\\PC{0,12}", 1 => any::<String>()];
    let number =
        prop_oneof![Just(0.0), Just(-1.5), prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,];
    (
        prop::option::of(any::<i64>()),
        prop::collection::btree_map("d[0-9]|größe", value, 0..5),
        // -0 becomes 0 on the way in.
        prop::collection::btree_map("m[0-9]|表", number.prop_map(|value| value + 0.0), 0..5),
    )
}
