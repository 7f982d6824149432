//! Batches encoded before the clock starts. Each sending copies one and stamps its times, and ids if it has any, so that
//! no two sendings are alike and the load generator does next to nothing per event.

use bytes::Bytes;
use codec::{BodyBuilder, EventRef};
use prost::Message as _;
use proto::v1;
use types::Timestamp;

use super::workload::{DIMENSIONS, METRICS, Row, mix};
use crate::{args::Mode, failure::Failure, ingest::json_event};

/// Bytes of an id: 16 hexadecimal digits.
const ID_BYTES: usize = 16;
/// A time of 16 decimal digits and of 8 varint bytes, put in when a template is made: all times of today are that long.
const SAMPLE_TIME: i64 = 1_760_000_000_000_000;
const SAMPLE_ID: &[u8; ID_BYTES] = b"0123456789abcdef";

/// The most that keys, length and sequence of an identity add to a message.
const IDENTITY_BYTES: usize = 32;

/// How a template writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeForm {
    /// Eight bytes, little-endian.
    Binary,
    /// Eight bytes of varint.
    Varint,
    /// Sixteen decimal digits.
    Digits,
}

/// A batch as it goes over the wire, and where its times and ids stand.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    time_form: TimeForm,
    times: Vec<usize>,
    ids: Vec<usize>,
    /// Numbers of the protobuf fields that take the producer's id and the sequence; `None`: a header takes them.
    identity: Option<[u8; 2]>,
}

/// What differs between two sendings of one template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    /// The time of the last event, unless events repeat earlier ones.
    pub(crate) now: Timestamp,
    /// With `producer` the batch's identity; ids are made of it and of an event's place.
    pub(crate) number: u64,
    /// See `number`.
    pub(crate) producer: &'a str,
    /// Which events repeat earlier ones, if any do.
    pub(crate) repeats: Option<Repeats>,
}

/// Which events are those of an earlier batch again. All times follow from the events' numbers then, so that a repeated
/// event is the first one to the byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeats {
    /// Percent of the events.
    pub(crate) percent: u8,
    /// How many batches back; a multiple of the templates, so that the other columns are the same too.
    pub(crate) back: u64,
    /// The first batch of the run; those before are all new.
    pub(crate) first: u64,
}

impl Repeats {
    /// The batch in which the event at this place was sent first; `batch` if it is new.
    fn origin(self, mut batch: u64, place: u64) -> u64 {
        if self.percent >= 100 && batch >= self.back {
            return self.first.saturating_sub(self.back) + (batch - self.first) % self.back;
        }
        // What would be repeated may be a repetition itself.
        while batch >= self.back && mix(batch << 20 | place) % 100 < u64::from(self.percent) {
            batch -= self.back;
        }
        batch
    }
}

impl Stamp<'_> {
    /// The number of the event at a place: its id, and no other's.
    fn event(&self, place: usize, rows: usize) -> u64 {
        let batch = self.repeats.map_or(self.number, |repeats| repeats.origin(self.number, place as u64));
        batch * rows as u64 + place as u64
    }

    fn time(&self, place: usize, rows: usize) -> i64 {
        match self.repeats {
            None => self.now.0 - (rows - 1 - place) as i64,
            Some(_) => SAMPLE_TIME + self.event(place, rows) as i64,
        }
    }
}

impl Template {
    /// The template of a batch for a way in.
    ///
    /// # Errors
    /// The rows do not fit one batch.
    pub(crate) fn new(mode: Mode, table: &str, rows: &[Row], ids: bool) -> Result<Self, Failure> {
        match mode {
            Mode::Columns => columns(table, rows, ids),
            Mode::Rows | Mode::Unary => Ok(protobuf(table, rows, ids)),
            Mode::Ndjson => Ok(ndjson(table, rows, ids)),
        }
    }

    fn empty(time_form: TimeForm, identity: Option<[u8; 2]>) -> Self {
        Self { bytes: Vec::new(), time_form, times: Vec::new(), ids: Vec::new(), identity }
    }

    /// Events in it.
    pub(crate) fn rows(&self) -> usize {
        self.times.len()
    }

    /// A copy with times, ids and identity of its own.
    pub(crate) fn stamp(&self, stamp: &Stamp<'_>) -> Bytes {
        let mut bytes = Vec::with_capacity(self.bytes.len() + IDENTITY_BYTES + stamp.producer.len());
        bytes.extend_from_slice(&self.bytes);
        let rows = self.rows();
        for (place, &at) in self.times.iter().enumerate() {
            let time = stamp.time(place, rows);
            match self.time_form {
                TimeForm::Binary => bytes[at..at + 8].copy_from_slice(&time.to_le_bytes()),
                TimeForm::Varint => write_varint(&mut bytes[at..at + 8], time as u64),
                TimeForm::Digits => write_digits(&mut bytes[at..at + 16], time as u64),
            }
        }
        for (place, &at) in self.ids.iter().enumerate() {
            write_hex(&mut bytes[at..at + ID_BYTES], mix(stamp.event(place, rows)));
        }
        if let Some([producer, sequence]) = self.identity {
            put_bytes(&mut bytes, producer, stamp.producer.as_bytes());
            bytes.push(sequence << 3);
            put_varint(&mut bytes, stamp.number);
        }
        bytes.into()
    }
}

fn with_event<T>(table: &str, row: &Row, ids: bool, take: impl FnOnce(&EventRef<'_>) -> T) -> T {
    let dimensions: [(&str, &str); 5] = std::array::from_fn(|at| (DIMENSIONS[at], row.dimensions[at].as_str()));
    let metrics: [(&str, f64); 3] = std::array::from_fn(|at| (METRICS[at], row.metrics[at]));
    take(&EventRef {
        namespace: super::NAMESPACE,
        table,
        event_time: Some(SAMPLE_TIME),
        event_id: ids.then_some(SAMPLE_ID),
        dimensions: &dimensions,
        metrics: &metrics,
    })
}

fn columns(table: &str, rows: &[Row], ids: bool) -> Result<Template, Failure> {
    let mut builder = BodyBuilder::default();
    for (index, row) in (0..).zip(rows) {
        with_event(table, row, ids, |event| builder.push(event, Timestamp(0), index))
            .map_err(|error| Failure::new(format!("--batch {}: {error}", rows.len())))?;
    }
    let body = builder.finish(false).expect("a batch has at least one event").bytes;
    // The request: namespace, table, one block.
    let mut bytes = Vec::new();
    put_bytes(&mut bytes, 1, super::NAMESPACE.as_bytes());
    put_bytes(&mut bytes, 2, table.as_bytes());
    put_bytes(&mut bytes, 3, &body);
    let start = bytes.len() - body.len() + times_start(&body);
    let id_start = start + rows.len() * size_of::<i64>();
    let at = |start: usize, width: usize| (0..rows.len()).map(move |row| start + row * width);
    let ids = if ids { at(id_start, ID_BYTES).collect() } else { Vec::new() };
    Ok(Template { bytes, time_form: TimeForm::Binary, times: at(start, 8).collect(), ids, identity: Some([4, 5]) })
}

/// Where the column of event times starts: after the header, the directory and the names, at a multiple of eight
/// (docs/block-format.md). Ids of 16 bytes follow it.
fn times_start(body: &[u8]) -> usize {
    let columns = usize::from(u16::from_le_bytes([body[4], body[5]]));
    let names: usize = (0..columns).map(|column| usize::from(body[16 + column * 16 + 3])).sum();
    (16 + columns * 16 + names).next_multiple_of(8)
}

fn protobuf(table: &str, rows: &[Row], ids: bool) -> Template {
    let mut template = Template::empty(TimeForm::Varint, Some([2, 3]));
    for row in rows {
        let event = with_event(table, row, ids, |event| v1::Event {
            namespace: event.namespace.to_owned(),
            table: event.table.to_owned(),
            event_time: event.event_time,
            event_id: event.event_id.map(|id| String::from_utf8_lossy(id).into_owned()),
            dimensions: event.dimensions.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            metrics: event.metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        });
        let event_bytes = event.encode_to_vec();
        put_bytes(&mut template.bytes, 1, &event_bytes);
        let start = template.bytes.len() - event_bytes.len();
        // Fields stand in order: two names, each with a byte of key and one of length, then the time after its key.
        let time = start + 2 + event.namespace.len() + 2 + table.len() + 1;
        template.times.push(time);
        if ids {
            template.ids.push(time + 8 + 2);
        }
    }
    template
}

fn ndjson(table: &str, rows: &[Row], ids: bool) -> Template {
    let mut template = Template::empty(TimeForm::Digits, None);
    let place = |line: &str, text: &str| line.find(text).expect("the line holds what was put into it");
    for row in rows {
        let line = with_event(table, row, ids, json_event::line);
        let start = template.bytes.len();
        template.times.push(start + place(&line, &SAMPLE_TIME.to_string()));
        if ids {
            template.ids.push(start + place(&line, "0123456789abcdef"));
        }
        template.bytes.extend_from_slice(line.as_bytes());
    }
    template
}

/// A length-delimited field of a protobuf message.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_varint(out: &mut [u8], mut value: u64) {
    let last = out.len() - 1;
    for byte in &mut out[..last] {
        *byte = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
    }
    out[last] = (value & 0x7f) as u8;
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_hex(out: &mut [u8], mut value: u64) {
    for byte in out.iter_mut().rev() {
        *byte = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use codec::BodyView;

    use super::*;
    use crate::bench::workload::Workload;

    const NOW: Timestamp = Timestamp(1_795_000_000_000_123);

    fn stamp(number: u64) -> Stamp<'static> {
        Stamp { now: NOW, number, producer: "p", repeats: None }
    }

    fn rows(count: usize) -> Vec<Row> {
        let mut workload = Workload::new(1);
        (0..count).map(|_| workload.row()).collect()
    }

    fn times_wanted(count: i64) -> Vec<i64> {
        (0..count).map(|row| NOW.0 - count + 1 + row).collect()
    }

    fn id(number: u64) -> String {
        format!("{:016x}", mix(number))
    }

    /// Goal: stamped blocks are blocks, with the times and ids that were stamped and all else as it was.
    #[test]
    fn stamped_columns_are_valid() {
        let template = Template::new(Mode::Columns, "t", &rows(10), true).unwrap();
        let request = v1::IngestColumnsRequest::decode(template.stamp(&stamp(300))).unwrap();
        assert_eq!((request.table.as_str(), request.producer_id.as_str(), request.sequence), ("t", "p", 300));
        let view = BodyView::parse(&request.blocks[0]).unwrap();
        assert_eq!(view.times().iter().collect::<Vec<_>>(), times_wanted(10));
        let ids = view.ids().unwrap();
        assert!((0..10).all(|row| ids.get(row) == Some(id(3_000 + row as u64).as_bytes())));
        let bare = Template::new(Mode::Columns, "t", &rows(10), false).unwrap().stamp(&stamp(0));
        let request = v1::IngestColumnsRequest::decode(bare).unwrap();
        assert!(BodyView::parse(&request.blocks[0]).unwrap().ids().is_none());
    }

    /// Goal: likewise for protobuf rows.
    #[test]
    fn stamped_rows_are_valid() {
        let template = Template::new(Mode::Unary, "t", &rows(10), true).unwrap();
        let request = v1::IngestBatchRequest::decode(template.stamp(&stamp(300))).unwrap();
        assert_eq!((request.producer_id.as_str(), request.sequence), ("p", 300));
        assert_eq!(request.events.iter().map(|event| event.event_time.unwrap()).collect::<Vec<_>>(), times_wanted(10));
        for (event, number) in request.events.iter().zip(3_000..) {
            assert_eq!(event.event_id.as_deref(), Some(id(number).as_str()));
            assert_eq!((event.dimensions.len(), event.metrics.len()), (5, 3));
        }
    }

    /// Goal: likewise for NDJSON, and no id comes twice.
    #[test]
    fn stamped_lines_are_valid() {
        let template = Template::new(Mode::Ndjson, "t", &rows(10), true).unwrap();
        let mut ids = HashSet::new();
        for number in [0, 1] {
            let text = template.stamp(&stamp(number));
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let events: Vec<serde_json::Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
            let times: Vec<i64> = events.iter().map(|event| event["event_time"].as_i64().unwrap()).collect();
            assert_eq!(times, times_wanted(10));
            ids.extend(events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()));
        }
        assert_eq!(ids.len(), 20);
    }

    /// Goal: repeated events are the first ones to the byte, as many as asked for, and none repeats what was never sent.
    #[test]
    fn repeats_are_the_same_events() {
        const ROWS: usize = 1_000;
        let template = Template::new(Mode::Columns, "t", &rows(ROWS), true).unwrap();
        let mut first_sent = HashSet::new();
        for (percent, back, batches) in [(20, 2, 10), (100, 3, 10), (0, 1, 3)] {
            first_sent.clear();
            let mut again = 0;
            for number in 0..batches {
                let repeats = Some(Repeats { percent, back, first: 0 });
                let bytes = template.stamp(&Stamp { now: NOW, number, producer: "p", repeats });
                let request = v1::IngestColumnsRequest::decode(bytes).unwrap();
                let view = BodyView::parse(&request.blocks[0]).unwrap();
                let ids = view.ids().unwrap();
                let mut new = 0;
                for (place, time) in view.times().iter().enumerate() {
                    let event = (place, time, ids.get(place).unwrap().to_vec());
                    if first_sent.insert(event) { new += 1 } else { again += 1 }
                }
                assert!(number >= back || new == ROWS, "batch {number} repeats what was never sent");
            }
            // Ids and times go together: an id that came twice came with its time.
            let ids: HashSet<&Vec<u8>> = first_sent.iter().map(|(_, _, id)| id).collect();
            assert_eq!(ids.len(), first_sent.len());
            let share = f64::from(again) / ((batches - back) * ROWS as u64) as f64;
            assert!((share - f64::from(percent) / 100.0).abs() < 0.03, "{percent} % asked for, {share} repeated");
        }
    }

    /// Goal: a run of nothing but repetitions repeats the batches right before it, over and over.
    #[test]
    fn a_later_run_repeats_what_was_before() {
        let repeats = Repeats { percent: 100, back: 4, first: 10 };
        let origins: Vec<u64> = (10..20).map(|batch| repeats.origin(batch, 0)).collect();
        assert_eq!(origins, [6, 7, 8, 9, 6, 7, 8, 9, 6, 7]);
    }
}
