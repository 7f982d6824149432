//! Bodies of blocks against plain collections.

use std::collections::BTreeMap;

use crate::support::{Plain, body_of, events};
use codec::{BatchIdentity, BlockError, BodyBuilder, BodyView, Ids, PushError};
use proptest::prelude::*;
use types::{ColumnKind, Generation, PartitionId, SchemaVersion, TableId, TableKey, TenantId, Timestamp};

const RECEIVED: i64 = 77;

/// What the body must say: absent times filled in.
fn expected(events: &[Plain]) -> Vec<Plain> {
    events.iter().map(|event| Plain { time: Some(event.time.unwrap_or(RECEIVED)), ..event.clone() }).collect()
}

proptest! {
    /// Goal: a body holds exactly the events that were pushed, its header says what it holds, and the builder can be
    /// used again.
    #[test]
    fn bodies_hold_what_was_pushed(first in events(40), second in events(40)) {
        let mut builder = BodyBuilder::default();
        for events in [first, second] {
            let Some(body) = body_of(&mut builder, &events, RECEIVED) else {
                prop_assert!(events.is_empty());
                continue;
            };
            let view = BodyView::parse(&body.bytes).unwrap();
            let expected = expected(&events);
            let rows: Vec<Plain> = (0..view.rows()).map(|row| Plain::of_row(&view, row)).collect();
            prop_assert_eq!(&rows, &expected);
            prop_assert_eq!(body.rows as usize, events.len());
            prop_assert_eq!((body.time_min.0, body.time_max.0), view.times().min_max());
            prop_assert!(view.batch_indexes().is_none(), "0, 1, 2 … need not be written");
            let fixed = expected.iter().all(|event| event.id.as_ref().is_some_and(|id| id.len() == 16));
            prop_assert_eq!(matches!(view.ids(), Some(Ids::Fixed(_))), fixed);
            prop_assert_eq!(view.ids().is_none(), expected.iter().all(|event| event.id.is_none()));
            let trusted = BodyView::parse_trusted(&body.bytes).unwrap();
            prop_assert_eq!((0..view.rows()).map(|row| Plain::of_row(&trusted, row)).collect::<Vec<_>>(), rows);
        }
    }

    /// Goal: splitting loses nothing, mixes nothing and keeps order, ids and indexes, and each part is canonical.
    #[test]
    fn splits_keep_every_row(events in events(40), parts in prop::collection::vec(0_u32..4, 40), keep: bool) {
        let mut builder = BodyBuilder::default();
        let Some(body) = body_of(&mut builder, &events, RECEIVED) else { return Ok(()) };
        let view = BodyView::parse(&body.bytes).unwrap();
        let mut wanted: BTreeMap<u32, Vec<(u32, Plain)>> = BTreeMap::new();
        for ((index, event), &part) in expected(&events).into_iter().enumerate().zip(&parts) {
            wanted.entry(part).or_default().push((index as u32, event));
        }
        let split = view.split(&parts[..events.len()], keep);
        prop_assert_eq!(split.iter().map(|(part, _)| *part).collect::<Vec<_>>(), wanted.keys().copied().collect::<Vec<_>>());
        for ((_, part), wanted) in split.iter().zip(wanted.values()) {
            let view = BodyView::parse(&part.bytes).unwrap();
            let index = |row| match view.batch_indexes() {
                Some(indexes) => indexes.get(row),
                None if keep => row as u32,
                None => wanted[row].0,
            };
            let found: Vec<_> = (0..view.rows()).map(|row| (index(row), Plain::of_row(&view, row))).collect();
            prop_assert_eq!(&found, wanted);
            prop_assert_eq!((part.time_min.0, part.time_max.0), view.times().min_max());
        }
    }

    /// Goal: no bytes make the reader panic, and what it accepts can be read in full.
    #[test]
    fn no_bytes_panic(
        events in events(12),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise: Vec<u8>,
    ) {
        read_all(&noise);
        let Some(body) = body_of(&mut BodyBuilder::default(), &events, RECEIVED) else { return Ok(()) };
        let mut bytes = body.bytes.to_vec();
        prop_assert!(BodyView::parse(&bytes[..cut.index(bytes.len())]).is_err(), "a body that is cut off");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
    }
}

/// Reads all that a body lets one read.
fn read_all(bytes: &[u8]) {
    for view in [BodyView::parse(bytes), BodyView::parse_trusted(bytes)].into_iter().flatten() {
        for row in 0..view.rows() {
            let _ = view.ids().and_then(|ids| ids.get(row));
            let _ = view.batch_indexes().map(|indexes| indexes.get(row));
            view.dimensions().iter().for_each(|dimension| _ = dimension.value(row));
            view.metrics().iter().for_each(|metric| _ = metric.values().get(row));
        }
        for dimension in view.dimensions() {
            (0..dimension.entries()).for_each(|entry| _ = dimension.entry(entry));
        }
    }
}

fn plain(id: Option<&str>, dimensions: &[(&str, &str)], metrics: &[(&str, f64)]) -> Plain {
    Plain {
        time: Some(1),
        id: id.map(Into::into),
        dimensions: dimensions.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        metrics: metrics.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
    }
}

fn body(events: &[Plain]) -> Vec<u8> {
    body_of(&mut BodyBuilder::default(), events, RECEIVED).unwrap().bytes.to_vec()
}

/// Goal: the bytes of a small body are the ones that docs/block-format.md shows, so that they cannot change unnoticed.
#[test]
fn the_format_is_pinned() {
    let events = [plain(Some("a"), &[("d", "x")], &[("m", 1.0)]), plain(None, &[("d", "yz")], &[])];
    #[rustfmt::skip]
    let expected = [
        // 2 rows, 4 columns
        2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // event_time; event_id of variable length, 1 byte; dimension, width 1, 2 entries, 3 bytes; metric with absent
        0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        2, 1, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        3, 8, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // names and padding
        b'd', b'm', 0, 0, 0, 0, 0, 0,
        // times
        1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        // offsets of ids and padding, ids and padding
        0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a', 0, 0, 0, 0, 0, 0, 0,
        // codes, offsets, text, each with padding
        1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'x', b'y', b'z', 0, 0, 0, 0, 0,
        // values
        0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f,
    ];
    assert_eq!(body(&events), expected);
}

/// Goal: every departure from the one encoding, and every value that no event may have, is refused by its name.
#[test]
fn damage_is_named() {
    let good = body(&[plain(Some("a"), &[("d", "x")], &[("m", 1.0)]), plain(None, &[("d", "yz")], &[])]);
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = good.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        BodyView::parse(&damaged).unwrap_err()
    };
    let directory = |column, field| BlockError::Directory { column, field };
    assert_eq!(with(0, &[0]), BlockError::Rows(0));
    assert_eq!(with(0, &[0xff; 4]), BlockError::Rows(u32::MAX));
    assert_eq!(with(4, &[0xff, 0xff]), BlockError::Columns(65_535));
    assert_eq!(with(6, &[1]), BlockError::NotZero(16));
    assert_eq!(with(16, &[9]), BlockError::Kind { column: 0, kind: 9 });
    assert_eq!(with(16, &[1]), BlockError::Order(0));
    assert_eq!(with(32, &[0]), BlockError::Order(1));
    assert_eq!(with(16 + 15, &[1]), directory(0, "reserved"));
    assert_eq!(with(48 + 1, &[2]), directory(2, "width"));
    assert_eq!(with(64 + 2, &[0]), BlockError::NotFinite { name: "m".into(), row: 1 });
    assert_eq!(with(64 + 2, &[2]), directory(3, "flags"));
    assert_eq!(with(80, b"\0"), BlockError::Name { column: 2, error: types::NameError::Character('\0') });
    assert_eq!(with(80, b"m"), BlockError::DuplicateName { name: "m".into() });
    assert_eq!(with(80, b"\xff"), BlockError::Utf8(2));
    assert_eq!(with(82, &[1]), BlockError::NotZero(88));
    assert_eq!(with(104, &[1]), BlockError::Offsets(1));
    assert_eq!(with(108, &[2]), BlockError::Offsets(1));
    assert_eq!(with(128, &[3]), BlockError::Code { name: "d".into(), row: 0, code: 3, entries: 2 });
    assert_eq!(with(140, &[4]), BlockError::Offsets(2));
    assert_eq!(with(152, b"\xc3"), BlockError::Utf8(2));
    assert_eq!(with(152, "é".as_bytes()), BlockError::Offsets(2));
    assert_eq!(with(160, &f64::INFINITY.to_le_bytes()), BlockError::NotFinite { name: "m".into(), row: 0 });
    assert_eq!(with(160, &(-f64::NAN).to_le_bytes()), BlockError::NotFinite { name: "m".into(), row: 0 });
    assert_eq!(with(168, &1_f64.to_le_bytes()), directory(3, "flags"));
    assert_eq!(BodyView::parse(&[good.clone(), vec![0]].concat()).unwrap_err(), BlockError::Trailing(1));
}

/// Goal: values and ids are held to their limits, to the byte.
#[test]
fn lengths_are_limited() {
    let with = |id: usize, value: usize| {
        let body = body(&[plain(Some(&"i".repeat(id)), &[("d", &"v".repeat(value))], &[])]);
        BodyView::parse(&body).map(|view| view.rows())
    };
    assert_eq!(with(256, 8192), Ok(1));
    assert_eq!(with(257, 1), Err(BlockError::EntryLength { column: 1, entry: 0, bytes: 257, max: 256 }));
    assert_eq!(with(1, 8193), Err(BlockError::EntryLength { column: 2, entry: 0, bytes: 8193, max: 8192 }));
}

/// Goal: a block may have more columns than an event, but no event in it may.
#[test]
fn columns_per_event_are_counted_in_wide_blocks() {
    let names: Vec<String> = (0..65).map(|n| format!("m{n}")).collect();
    let event = |names: &[String]| plain(None, &[], &names.iter().map(|n| (n.as_str(), 1.0)).collect::<Vec<_>>());
    let wide = body(&[event(&names[..64]), event(&names[1..])]);
    assert_eq!(BodyView::parse(&wide).unwrap().metrics().len(), 65);
    let too_wide = body(&[event(&names[..64]), event(&names)]);
    assert_eq!(BodyView::parse(&too_wide).unwrap_err(), BlockError::EventColumns { row: 1, columns: 65 });
}

/// Goal: codes take the smallest width, at each edge.
#[test]
fn codes_take_the_smallest_width() {
    for (values, body_codes) in [(255, 1), (256, 2), (65_535, 2), (65_536, 4)] {
        let events: Vec<Plain> = (0..values).map(|n: u32| plain(None, &[("d", &n.to_string())], &[])).collect();
        let body = body(&events);
        let view = BodyView::parse(&body).unwrap();
        let width = match view.dimensions()[0].codes() {
            codec::Codes::U8(_) => 1,
            codec::Codes::U16(_) => 2,
            codec::Codes::U32(_) => 4,
        };
        assert_eq!((width, view.dimensions()[0].entries()), (body_codes, values as usize));
        assert_eq!(view.dimensions()[0].value(values as usize - 1), Some((values - 1).to_string().as_str()));
    }
}

/// Goal: a name keeps its kind within a block; the event that breaks this stays out as a whole.
#[test]
fn kinds_do_not_change_within_a_block() {
    let mut builder = BodyBuilder::default();
    let push =
        |builder: &mut BodyBuilder, event: &Plain| event.with_ref(|event| builder.push(event, Timestamp(RECEIVED), 5));
    push(&mut builder, &plain(None, &[("a", "x")], &[])).unwrap();
    let error = push(&mut builder, &plain(None, &[("new", "y")], &[("a", 1.0)])).unwrap_err();
    assert_eq!(error, PushError::Kind { name: "a".into(), is: ColumnKind::Dimension });
    assert_eq!(builder.rows(), 1);
    assert_eq!(builder.columns().collect::<Vec<_>>(), [("a", ColumnKind::Dimension)]);
    // What the refused event would have brought is free to be of either kind, and known names are still found.
    push(&mut builder, &plain(None, &[("b", "z"), ("a", "x")], &[("new", 1.0)])).unwrap();
    assert_eq!((builder.rows(), builder.column_count()), (2, 3));
    let body = builder.finish(true).unwrap();
    let view = BodyView::parse(&body.bytes).unwrap();
    assert_eq!((view.dimensions().len(), view.metrics().len()), (2, 1));
    assert_eq!((view.dimensions()[0].value(1), view.dimensions()[1].value(1)), (Some("x"), Some("z")));
    assert_eq!(view.batch_indexes().map(|indexes| indexes.get(0)), Some(5));
    assert_eq!(builder.finish(true), None);
}

/// Goal: a builder tells what memory it holds, also when it was cleared and its columns went to the spare ones.
#[test]
fn builders_tell_their_memory() {
    let mut builder = BodyBuilder::default();
    let before = builder.memory_bytes();
    assert!(before < 100, "{before}");
    let long = "x".repeat(1_000);
    for n in 0..1_000 {
        let event = plain(None, &[("a", &format!("{n}{long}"))], &[("b", 1.0)]);
        event.with_ref(|event| builder.push(event, Timestamp(RECEIVED), n)).unwrap();
    }
    let full = builder.memory_bytes();
    assert!(full > builder.bytes() / 2 && full > 1_000_000, "{full}");
    builder.clear();
    assert_eq!(builder.memory_bytes(), full);
    assert!(builder.bytes() < 1_000);
}

/// Goal: a header made for a body says what the body holds.
#[test]
fn headers_describe_their_body() {
    let body = body_of(&mut BodyBuilder::default(), &[plain(None, &[], &[])], RECEIVED).unwrap();
    let key = TableKey { tenant: TenantId(1), table: TableId(2), generation: Generation(3) };
    let batch = Some(BatchIdentity { producer: 1, sequence: 2 });
    let header = body.header(key, SchemaVersion(4), PartitionId(5), batch);
    assert_eq!((header.rows, header.body_len as usize), (1, body.bytes.len()));
    assert_eq!((header.time_min, header.time_max, header.batch), (Timestamp(1), Timestamp(1), batch));
    assert_eq!(codec::BlockHeader::decode(&header.encode()), Ok(header));
}

/// Goal: a block says whether the gateway gave times to some of its events, and forgets it with them.
#[test]
fn given_times_are_noted() {
    let mut builder = BodyBuilder::default();
    let without = Plain { time: None, ..plain(None, &[], &[]) };
    for (events, given) in [(vec![plain(None, &[], &[]), without], true), (vec![plain(None, &[], &[])], false)] {
        let body = body_of(&mut builder, &events, RECEIVED).unwrap();
        assert_eq!(body.times_given, given);
    }
}
