//! Rows in plain form, and how they become blocks and come back from snapshots.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;

use codec::{BlockHeader, BodyBuilder, BodyView, EventRef};
use engine::{Codes, TableSnapshot};
use types::{ColumnKind, Generation, Offset, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

/// The partition of the tests.
pub(crate) const PARTITION: PartitionId = PartitionId(0);

/// An event without its identity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Event time.
    pub(crate) time: i64,
    /// Those present.
    pub(crate) dimensions: BTreeMap<String, String>,
    /// Those present.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// A table of the tests.
pub(crate) fn table_key(table: u64, generation: u32) -> TableKey {
    TableKey { tenant: TenantId(1), table: TableId(table), generation: Generation(generation) }
}

/// A block's header and body; there is at least one row.
pub(crate) fn block(key: TableKey, rows: &[Row]) -> (BlockHeader, Vec<u8>) {
    block_of(key, rows.iter().map(|row| (row, None)))
}

/// As [`block`], of events with ids.
pub(crate) fn block_with_ids(key: TableKey, rows: &[(Row, Option<u8>)]) -> (BlockHeader, Vec<u8>) {
    block_of(key, rows.iter().map(|(row, id)| (row, *id)))
}

fn block_of<'a>(key: TableKey, rows: impl Iterator<Item = (&'a Row, Option<u8>)>) -> (BlockHeader, Vec<u8>) {
    let mut builder = BodyBuilder::default();
    for (index, (row, id)) in rows.enumerate() {
        let id = id.map(|id| [id]);
        let dimensions: Vec<_> = row.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let metrics: Vec<_> = row.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let event = EventRef {
            namespace: "n",
            table: "t",
            event_time: Some(row.time),
            event_id: id.as_ref().map(<[u8; 1]>::as_slice),
            dimensions: &dimensions,
            metrics: &metrics,
        };
        builder.push(&event, Timestamp(0), index as u32).expect("a small block");
    }
    let body = builder.finish(false).expect("not empty");
    (body.header(key, SchemaVersion(1), PARTITION, None), body.bytes.to_vec())
}

/// Applies rows as one block.
pub(crate) fn apply(writer: &mut engine::Writer, append_time: i64, key: TableKey, rows: &[Row]) -> engine::Applied {
    let (header, body) = block(key, rows);
    let view = BodyView::parse(&body).expect("a good body");
    writer.apply(writer.next_offset(), Timestamp(append_time), &header, &view).expect("a good block")
}

/// All rows of a snapshot by origin, in canonical order.
pub(crate) fn decode(snapshot: &TableSnapshot) -> Vec<((Offset, u32), Row)> {
    let mut rows = Vec::new();
    for segment in snapshot.segments() {
        for row in 0..segment.rows() {
            let mut decoded =
                Row { time: segment.times().get(row), dimensions: BTreeMap::new(), metrics: BTreeMap::new() };
            for def in snapshot.columns() {
                let column = snapshot.column(&def.name, def.kind).expect("it is listed");
                match def.kind {
                    ColumnKind::Dimension => {
                        let code = segment.codes(column).map_or(0, |codes: Codes<'_>| codes.get(row));
                        let value = segment.dictionary(column).and_then(|dictionary| {
                            let value = dictionary.get(code)?;
                            assert_eq!(dictionary.find(value), Some(code));
                            Some(value)
                        });
                        decoded.dimensions.extend(value.map(|value| (def.name.clone(), value.to_owned())));
                    }
                    ColumnKind::Metric => {
                        let value =
                            segment.metric(column).map(|values| values.get(row)).filter(|value| !value.is_nan());
                        if let (Some(value), Some((min, max))) = (value, segment.metric_range(column)) {
                            assert!((min..=max).contains(&value), "{value} lies in the segment's range");
                        }
                        decoded.metrics.extend(value.map(|value| (def.name.clone(), value)));
                    }
                }
            }
            let time = Timestamp(decoded.time);
            let zone = segment.chunk_zone(row / engine::CHUNK_ROWS);
            assert!(zone.min <= time && time <= zone.max, "{time:?} lies in its chunk's zone");
            assert!(segment.zone().min <= zone.min && zone.max <= segment.zone().max);
            rows.push((segment.origin(row), decoded));
        }
    }
    rows
}
