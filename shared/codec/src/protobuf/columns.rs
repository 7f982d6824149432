//! The map of an event's dimensions or metrics: entries of a name (field 1) and a value (field 2).
//!
//! Neighbouring events mostly have the same names, though maps of many languages give them in any order. So each name keeps the
//! place that it had when it came first, and whoever reads the columns finds them in that order, whatever order they came in. A name
//! that has a place is only compared: it is known to be UTF-8 and to be none of the others.

use types::limits::EVENT_COLUMNS_MAX;

use super::wire::{Reader, WireError, WireType};

/// A value of a map.
pub(super) trait Value<'a>: Copy + Default {
    /// What messages call the name and the value.
    const NAME: &'static str;
    /// The wire type of the value.
    const WIRE_TYPE: WireType;

    /// The value whose field begins here.
    fn read(reader: &mut Reader<'a>, wire_type: WireType) -> Result<Self, WireError>;
}

impl<'a> Value<'a> for &'a str {
    const NAME: &'static str = "the name of a dimension";
    const WIRE_TYPE: WireType = WireType::Bytes;

    #[inline]
    fn read(reader: &mut Reader<'a>, wire_type: WireType) -> Result<Self, WireError> {
        reader.text(wire_type, "the value of a dimension")
    }
}

impl<'a> Value<'a> for f64 {
    const NAME: &'static str = "the name of a metric";
    const WIRE_TYPE: WireType = WireType::Fixed64;

    #[inline]
    fn read(reader: &mut Reader<'a>, wire_type: WireType) -> Result<Self, WireError> {
        wire_type.expect(Self::WIRE_TYPE, "the value of a metric")?;
        Ok(Self::from_le_bytes(reader.fixed64()?))
    }
}

const NAME_KEY: u8 = 1 << 3 | WireType::Bytes as u8;

/// Names that have a place: a bit each.
const PLACES_MAX: usize = u64::BITS as usize;
// The names of one event have room.
const _: () = assert!(EVENT_COLUMNS_MAX <= PLACES_MAX);

/// The columns of one kind of the event being read.
#[derive(Debug)]
pub(super) struct Columns<'a, T> {
    /// Distinct names in the order in which they first came, and the value that each had last.
    places: Vec<(&'a str, T)>,
    /// The places that the event has.
    present: u64,
    /// The place behind that of the entry before.
    next: usize,
    /// The columns of an event that has not all places.
    some: Vec<(&'a str, T)>,
}

impl<T> Default for Columns<'_, T> {
    fn default() -> Self {
        Self { places: Vec::new(), present: 0, next: 0, some: Vec::new() }
    }
}

impl<'a, T: Value<'a>> Columns<'a, T> {
    /// Forgets the columns of the event before, but not the places of their names.
    pub(super) fn begin(&mut self) {
        (self.present, self.next) = (0, 0);
    }

    /// Ends the event.
    #[inline]
    pub(super) fn end(&mut self) {
        if !self.has_all() {
            let present = self.present;
            self.some.clear();
            self.some
                .extend(self.places.iter().enumerate().filter(|(at, _)| present & 1 << at != 0).map(|(_, item)| *item));
        }
    }

    /// The columns of the event that was ended.
    pub(super) fn items(&self) -> &[(&'a str, T)] {
        if self.has_all() { &self.places } else { &self.some }
    }

    fn has_all(&self) -> bool {
        self.present.count_ones() as usize == self.places.len()
    }

    /// Reads an entry and adds it; at most [`EVENT_COLUMNS_MAX`] of an event. Of several with one name the last counts.
    #[inline]
    pub(super) fn add(&mut self, entry: &'a [u8]) -> Result<(), WireError> {
        let (name, value) = match read_usual(entry) {
            Some(usual) => usual,
            None => read_any(entry)?,
        };
        let place = match self.places.get(self.next) {
            Some((known, _)) if known.as_bytes() == name => self.next,
            _ => self.place_of(name)?,
        };
        self.places[place].1 = value;
        self.present |= 1 << place;
        self.next = place + 1;
        Ok(())
    }

    /// The place of a name that is not where the names before it were followed by it last.
    fn place_of(&mut self, name: &'a [u8]) -> Result<usize, WireError> {
        if let Some(place) = self.places.iter().position(|(known, _)| known.as_bytes() == name) {
            return Ok(place);
        }
        let name = std::str::from_utf8(name).map_err(|_| WireError::Utf8(T::NAME))?;
        if self.places.len() == PLACES_MAX {
            self.forget_others();
        }
        self.places.push((name, T::default()));
        Ok(self.places.len() - 1)
    }

    /// Gives up the places that the event does not have, so far.
    #[cold]
    fn forget_others(&mut self) {
        let (present, mut at) = (self.present, 0);
        self.places.retain(|_| {
            at += 1;
            present & 1 << (at - 1) != 0
        });
        self.present = (1_u64 << self.places.len()).wrapping_sub(1);
    }
}

/// Reads an entry as every encoder writes it: a short name, then the value, and nothing else.
#[inline]
fn read_usual<'a, T: Value<'a>>(entry: &'a [u8]) -> Option<(&'a [u8], T)> {
    let [NAME_KEY, len @ 0..0x80, rest @ ..] = entry else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    let (key, rest) = rest.split_first()?;
    let mut reader = Reader::new(rest);
    if *key != 2 << 3 | T::WIRE_TYPE as u8 {
        return None;
    }
    let value = T::read(&mut reader, T::WIRE_TYPE).ok()?;
    reader.is_at_end().then_some((name, value))
}

/// Reads an entry with its fields in any order, left out or given several times.
#[cold]
fn read_any<'a, T: Value<'a>>(entry: &'a [u8]) -> Result<(&'a [u8], T), WireError> {
    let (mut name, mut value) = (&[][..], T::default());
    let mut reader = Reader::new(entry);
    while let Some((field, wire_type)) = reader.field()? {
        match field {
            1 => {
                wire_type.expect(WireType::Bytes, T::NAME)?;
                name = reader.bytes()?;
            }
            2 => value = T::read(&mut reader, wire_type)?,
            unknown => return Err(WireError::UnknownField(unknown)),
        }
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, value: f64) -> Vec<u8> {
        let mut bytes = vec![NAME_KEY, name.len() as u8];
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(2 << 3 | WireType::Fixed64 as u8);
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes
    }

    proptest! {
        /// Goal: whatever names events have, in whatever order and however many, each has the columns of a plain map, a name once,
        /// and two events with the same names have them in the same order.
        #[test]
        fn columns_are_those_of_a_map(
            events in prop::collection::vec(prop::collection::vec(0_u32..90, 0..=EVENT_COLUMNS_MAX), 1..20),
        ) {
            let mut number = 0.0;
            let mut value = || { number += 1.0; number };
            let entries: Vec<Vec<(String, Vec<u8>, f64)>> = events
                .iter()
                .map(|event| event.iter().map(|name| {
                    let (name, value) = (format!("column_{name}"), value());
                    (name.clone(), entry(&name, value), value)
                }).collect())
                .collect();
            let mut columns = Columns::<f64>::default();
            let mut before: Vec<&str> = Vec::new();
            for event in &entries {
                columns.begin();
                let mut wanted = BTreeMap::new();
                for (name, bytes, value) in event {
                    columns.add(bytes).unwrap();
                    wanted.insert(name.as_str(), *value);
                }
                columns.end();
                let names: Vec<&str> = columns.items().iter().map(|(name, _)| *name).collect();
                prop_assert_eq!(names.len(), wanted.len());
                prop_assert_eq!(columns.items().iter().copied().collect::<BTreeMap<_, _>>(), wanted);
                let same = names.len() == before.len() && names.iter().all(|name| before.contains(name));
                prop_assert!(!same || names == before);
                before = names;
            }
        }
    }
}
