//! One JSON document: an event, an array of events, or `{"events":[…]}`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, value::RawValue};

use super::{
    event::{EventSeed, FieldSeed, Key, read_fields},
    row::Row,
};
use crate::{DecodeError, Decoded, check::shown};

const EVENTS: &str = "events";

pub(super) fn decode(body: &[u8], events_max: usize, each: &mut dyn FnMut(Decoded<'_>)) -> Result<u32, DecodeError> {
    // Checked once for all, so that the parser need not look at each string again.
    let text = std::str::from_utf8(body).map_err(|error| DecodeError::Utf8 { at: error.valid_up_to() })?;
    let mut batch = Batch { text, row: Row::default(), events: 0, events_max, too_many: false, each };
    let mut parser = Deserializer::from_str(text);
    let read = parser.deserialize_any(Document(&mut batch)).and_then(|()| parser.end());
    match read {
        Ok(()) => Ok(batch.events),
        Err(_) if batch.too_many => Err(DecodeError::TooManyEvents { max: events_max }),
        Err(error) => Err(DecodeError::Json { reason: error.to_string() }),
    }
}

/// Hands out the text of every event of a document, by index. For the rare case that one was refused and its text is
/// wanted: the decoder does not keep track of it. A body that was never a document of events hands out nothing.
pub fn raw_json_events(body: &str, mut each: impl FnMut(u32, &str)) {
    let mut index = 0;
    let mut hand_out = |raw: &RawValue| {
        each(index, raw.get());
        index += 1;
    };
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    if let Ok(events) = serde_json::from_str::<Vec<&RawValue>>(body) {
        events.into_iter().for_each(&mut hand_out);
    } else if let Ok(wrapped) = serde_json::from_str::<Wrapped<'_>>(body) {
        wrapped.events.into_iter().for_each(&mut hand_out);
    } else if let Ok(event) = serde_json::from_str::<&RawValue>(body) {
        hand_out(event);
    }
}

/// A document while it is read.
struct Batch<'c, 'de> {
    text: &'de str,
    row: Row<'de>,
    events: u32,
    events_max: usize,
    too_many: bool,
    each: &'c mut dyn FnMut(Decoded<'_>),
}

impl<'de> Batch<'_, 'de> {
    fn read_array<A: SeqAccess<'de>>(&mut self, mut items: A) -> Result<(), A::Error> {
        loop {
            self.row.clear();
            if items.next_element_seed(EventSeed(&mut self.row))?.is_none() {
                return Ok(());
            }
            if self.events as usize == self.events_max {
                self.too_many = true;
                return Err(A::Error::custom("too many events"));
            }
            self.row.hand_out(self.events, None, self.each);
            self.events += 1;
        }
    }

    fn read_single<M: MapAccess<'de>>(&mut self, map: &mut M, first: Option<Key>) -> Result<(), M::Error> {
        self.row.clear();
        read_fields(&mut self.row, map, first)?;
        self.row.hand_out(0, Some(self.text.trim_ascii().as_bytes()), self.each);
        self.events = 1;
        Ok(())
    }
}

/// The document as a whole. Only an array or an object can hold events.
struct Document<'b, 'c, 'de>(&'b mut Batch<'c, 'de>);

impl<'de> Visitor<'de> for Document<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, an array of events or {\"events\":[…]}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.read_array(items)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        match map.next_key_seed(FieldSeed)? {
            Some(Key::Other(name)) if name == EVENTS => {
                map.next_value_seed(Events(self.0))?;
                match map.next_key_seed(FieldSeed)? {
                    None => Ok(()),
                    Some(key) => {
                        map.next_value::<IgnoredAny>()?;
                        Err(M::Error::custom(format_args!("field {} beside events", shown(key.name()))))
                    }
                }
            }
            first => self.0.read_single(&mut map, first),
        }
    }
}

/// The array of `{"events":[…]}`.
struct Events<'b, 'c, 'de>(&'b mut Batch<'c, 'de>);

impl<'de> DeserializeSeed<'de> for Events<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.read_array(items)
    }
}
