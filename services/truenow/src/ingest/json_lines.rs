//! NDJSON objects of any shape: the columns that the mapping asked for, by name or by dotted path.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    record::{Read, Record, Records, Slot},
    source::{Line, Lines},
};

/// Reads NDJSON.
pub(crate) struct JsonLines {
    lines: Lines,
    wanted: Vec<Wanted>,
    slots: usize,
}

/// A key of an object that leads to columns.
#[derive(Debug, Default)]
struct Wanted {
    key: String,
    /// The slot of the value itself.
    slot: Option<Slot>,
    /// Keys of the object below, where a path goes on.
    below: Vec<Wanted>,
}

impl JsonLines {
    /// A reader that fills the slots of `columns`. A key that holds a dot itself is found before a path is tried.
    pub(crate) fn new(lines: Lines, columns: &[String]) -> Self {
        let mut wanted = Vec::new();
        for (slot, column) in columns.iter().enumerate() {
            want(&mut wanted, column, Slot(slot));
        }
        Self { lines, wanted, slots: columns.len() }
    }
}

/// Asks for `path` as a key, and for each way to take it as a path.
fn want(wanted: &mut Vec<Wanted>, path: &str, slot: Slot) {
    node(wanted, path).slot = Some(slot);
    for (at, _) in path.match_indices('.') {
        want(&mut node(wanted, &path[..at]).below, &path[at + 1..], slot);
    }
}

fn node<'a>(wanted: &'a mut Vec<Wanted>, key: &str) -> &'a mut Wanted {
    let at = wanted.iter().position(|known| known.key == key).unwrap_or_else(|| {
        wanted.push(Wanted { key: key.to_owned(), ..Wanted::default() });
        wanted.len() - 1
    });
    &mut wanted[at]
}

impl Records for JsonLines {
    fn next(&mut self, record: &mut Record) -> std::io::Result<Read> {
        record.begin(self.slots, 0);
        let read = match self.lines.next()? {
            Line::End => return Ok(Read::End),
            Line::Bad(why) => Read::Bad(why.to_owned()),
            Line::Text(text) => match read_object(text, &self.wanted, record) {
                Ok(()) => Read::Record,
                Err(error) => Read::Bad(error.to_string()),
            },
        };
        record.line = self.lines.number();
        Ok(read)
    }
}

fn read_object(text: &str, wanted: &[Wanted], record: &mut Record) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Object { wanted, record })?;
    reader.end()
}

struct Object<'a> {
    wanted: &'a [Wanted],
    record: &'a mut Record,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(found) = map.next_key_seed(Key(self.wanted))? {
            match found {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(wanted) => {
                    let raw: &RawValue = map.next_value()?;
                    take(wanted, raw.get(), self.record).map_err(de::Error::custom)?;
                }
            }
        }
        Ok(())
    }
}

/// Puts a value into its slot, and looks below for the paths that go on.
fn take(wanted: &Wanted, raw: &str, record: &mut Record) -> Result<(), String> {
    if raw.starts_with('{') && !wanted.below.is_empty() {
        return read_object(raw, &wanted.below, record).map_err(|error| format!("{}: {error}", wanted.key));
    }
    let Some(slot) = wanted.slot else { return Ok(()) };
    match raw.as_bytes().first() {
        Some(b'n') => Ok(()),
        Some(b'{' | b'[') => Err(format!("{} is an object or a list, not one value", wanted.key)),
        Some(b'"') => {
            let text: Text<'_> = serde_json::from_str(raw).map_err(|error| format!("{}: {error}", wanted.key))?;
            record.set(slot, &text.0);
            Ok(())
        }
        _ => {
            record.set(slot, raw);
            Ok(())
        }
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Finds a key among those wanted, without keeping it.
struct Key<'a>(&'a [Wanted]);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Wanted>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Wanted>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|wanted| wanted.key == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &[&str]) -> Result<Vec<Option<String>>, String> {
        let columns: Vec<String> = columns.iter().map(|&column| column.to_owned()).collect();
        let lines = Lines::new(Box::new(std::io::Cursor::new(text.to_owned())));
        let (mut reader, mut record) = (JsonLines::new(lines, &columns), Record::default());
        match reader.next(&mut record).unwrap() {
            Read::Record => Ok((0..columns.len()).map(|at| record.get(Slot(at)).map(str::to_owned)).collect()),
            Read::Bad(why) => Err(why),
            Read::End => panic!("no line"),
        }
    }

    /// Goal: scalars come as their text, null and missing are absent, escapes are undone, paths lead below.
    #[test]
    fn columns_are_found() {
        let text = r#"{"s":"a\u00e9\n","i":42,"f":1.50,"t":true,"n":null,"geo":{"city":{"name":"Łódź"},"x":[1]},"a.b":"dotted","l":[1]}"#;
        let columns = ["s", "i", "f", "t", "n", "missing", "geo.city.name", "a.b", "geo.city.none"];
        let cell = |text: &str| Some(text.to_owned());
        let want =
            vec![cell("aé\n"), cell("42"), cell("1.50"), cell("true"), None, None, cell("Łódź"), cell("dotted"), None];
        assert_eq!(read(text, &columns), Ok(want));
    }

    /// Goal: a line that is no object, or a wanted column that is no scalar, is refused by name.
    #[test]
    fn other_shapes_are_refused() {
        for text in ["[1]", "3", "{", r#"{"a":1} x"#, r#"{"a":[1]}"#, r#"{"a":{"b":1}}"#] {
            assert!(read(text, &["a"]).is_err(), "{text}");
        }
        assert!(read(r#"{"a":[1]}"#, &["a"]).unwrap_err().contains('a'));
    }
}
