//! `truenow.v1.IngestBatchRequest` to rows, without a map, a string or any other allocation per event.
//!
//! 1. A first pass over the outer message counts the events; only then is any of them read.
//! 2. What is wrong with the outer message refuses the request. What is wrong inside an event refuses that event: its
//!    length says where the next begins.
//! 3. Of several values of a scalar field, and of several entries of a map with one key, the last counts.
//! 4. Fields that the messages do not have are refused; they would be lost silently otherwise.

mod columns;
mod wire;

pub use wire::WireError;

use crate::{
    DecodeError, Decoded, EventRef, Refused, Reject,
    check::too_many_columns,
    protobuf::{
        columns::Columns,
        wire::{Reader, WireType},
    },
};
use types::limits::EVENT_COLUMNS_MAX;

/// A request of rows, its outer message read.
#[derive(Debug, Clone, Copy)]
pub struct ProtobufBatch<'a> {
    input: &'a [u8],
    events: u32,
    producer_id: &'a str,
    sequence: u64,
}

impl<'a> ProtobufBatch<'a> {
    /// Reads the outer message and counts its events.
    ///
    /// # Errors
    /// It is no `IngestBatchRequest`, or has more than `events_max` events.
    pub fn parse(input: &'a [u8], events_max: usize) -> Result<Self, DecodeError> {
        let mut batch = Self { input, events: 0, producer_id: "", sequence: 0 };
        batch.read_outer().map_err(DecodeError::Protobuf)?;
        if batch.events as usize > events_max {
            return Err(DecodeError::TooManyEvents { max: events_max });
        }
        Ok(batch)
    }

    /// How many events it has.
    #[must_use]
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Its producer; empty: none.
    #[must_use]
    pub fn producer_id(&self) -> &'a str {
        self.producer_id
    }

    /// Its place in its producer's sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Hands out the events in order.
    pub fn for_each(&self, mut each: impl FnMut(Decoded<'_>)) {
        let mut reader = Reader::new(self.input);
        let mut row = Row::default();
        let mut index = 0;
        while let Some((field, wire_type)) = reader.field().expect("the outer message was read before") {
            if field != EVENTS {
                reader.skip(wire_type).expect("the outer message was read before");
                continue;
            }
            let raw = reader.bytes().expect("the outer message was read before");
            let event = match row.read(raw) {
                Ok(()) => Ok(row.event()),
                Err(fault) => Err(row.refused(index, &fault)),
            };
            each(Decoded { index, raw: Some(raw), event });
            index += 1;
        }
    }

    fn read_outer(&mut self) -> Result<(), WireError> {
        let mut reader = Reader::new(self.input);
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                EVENTS => {
                    wire_type.expect(WireType::Bytes, "events")?;
                    reader.bytes()?;
                    self.events += 1;
                }
                2 => self.producer_id = reader.text(wire_type, "producer_id")?,
                3 => {
                    wire_type.expect(WireType::Varint, "sequence")?;
                    self.sequence = reader.varint()?;
                }
                unknown => return Err(WireError::UnknownField(unknown)),
            }
        }
        Ok(())
    }
}

/// Number of the repeated field of events.
const EVENTS: u32 = 1;

/// The event being read; reused from event to event.
#[derive(Debug, Default)]
struct Row<'a> {
    namespace: &'a str,
    table: &'a str,
    event_time: Option<i64>,
    event_id: Option<&'a str>,
    dimensions: Columns<'a, &'a str>,
    metrics: Columns<'a, f64>,
}

/// Why an event's bytes are no event.
enum Fault {
    Wire(WireError),
    TooManyColumns,
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl<'a> Row<'a> {
    fn read(&mut self, raw: &'a [u8]) -> Result<(), Fault> {
        (self.namespace, self.table, self.event_time, self.event_id) = ("", "", None, None);
        self.dimensions.begin();
        self.metrics.begin();
        let mut reader = Reader::new(raw);
        let mut columns = 0;
        while let Some((field, wire_type)) = reader.field()? {
            match field {
                1 => self.namespace = reader.text(wire_type, "namespace")?,
                2 => self.table = reader.text(wire_type, "table")?,
                3 => {
                    wire_type.expect(WireType::Varint, "event_time")?;
                    self.event_time = Some(reader.varint()?.cast_signed());
                }
                4 => self.event_id = Some(reader.text(wire_type, "event_id")?),
                5 | 6 if columns == EVENT_COLUMNS_MAX => return Err(Fault::TooManyColumns),
                5 => {
                    columns += 1;
                    wire_type.expect(WireType::Bytes, "dimensions")?;
                    self.dimensions.add(reader.bytes()?)?;
                }
                6 => {
                    columns += 1;
                    wire_type.expect(WireType::Bytes, "metrics")?;
                    self.metrics.add(reader.bytes()?)?;
                }
                unknown => return Err(WireError::UnknownField(unknown).into()),
            }
        }
        self.dimensions.end();
        self.metrics.end();
        Ok(())
    }

    fn event(&self) -> EventRef<'_> {
        EventRef {
            namespace: self.namespace,
            table: self.table,
            event_time: self.event_time,
            event_id: self.event_id.map(str::as_bytes),
            dimensions: self.dimensions.items(),
            metrics: self.metrics.items(),
        }
    }

    fn refused(&self, index: u32, fault: &Fault) -> Refused<'a> {
        let message = match fault {
            Fault::Wire(error) => format!("event {error}"),
            Fault::TooManyColumns => too_many_columns(),
        };
        Refused {
            reject: Reject::invalid(index, message),
            namespace: Some(self.namespace).filter(|name| !name.is_empty()),
            table: Some(self.table).filter(|name| !name.is_empty()),
        }
    }
}
