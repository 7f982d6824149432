//! The map of an event's dimensions or metrics: entries of a name (field 1) and a value (field 2).
//!
//! Neighbouring events mostly have the same names in the same order. While they do, a name is only compared: it is known
//! to be UTF-8 and to be none of those before it.

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

/// The columns of one kind of the event being read.
#[derive(Debug)]
pub(super) struct Columns<'a, T> {
    items: Vec<(&'a str, T)>,
    // Distinct names, of this event and, while `alike`, of the event before it.
    names: Vec<&'a str>,
    // All names so far stand where they stood in the event before.
    alike: bool,
}

impl<T> Default for Columns<'_, T> {
    fn default() -> Self {
        Self { items: Vec::new(), names: Vec::new(), alike: true }
    }
}

impl<'a, T: Value<'a>> Columns<'a, T> {
    /// Forgets the columns of the event before, but not their names.
    pub(super) fn begin(&mut self) {
        self.items.clear();
        self.alike = true;
    }

    pub(super) fn items(&self) -> &[(&'a str, T)] {
        &self.items
    }

    /// Reads an entry and adds it. Of several with one name the last counts.
    #[inline]
    pub(super) fn add(&mut self, entry: &'a [u8]) -> Result<(), WireError> {
        let (name, value) = match read_usual(entry) {
            Some(usual) => usual,
            None => read_any(entry)?,
        };
        match self.names.get(self.items.len()) {
            Some(known) if self.alike && known.as_bytes() == name => self.items.push((known, value)),
            _ => self.add_other(std::str::from_utf8(name).map_err(|_| WireError::Utf8(T::NAME))?, value),
        }
        Ok(())
    }

    /// Adds an entry whose name is not where it was in the event before.
    fn add_other(&mut self, name: &'a str, value: T) {
        self.alike = false;
        self.names.truncate(self.items.len());
        match self.items.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => {
                self.items.push((name, value));
                self.names.push(name);
            }
        }
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
