//! One event out of a parser. Whatever its fields hold is consumed, so that the next event can be read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    row::{Field, Row},
    scalar::Text,
};
use crate::check::shown;

/// Reads the next value as an event into a row.
pub(super) struct EventSeed<'r, 'de>(pub(super) &'r mut Row<'de>);

/// Reads the next value as the object of dimensions or of metrics.
struct ColumnsSeed<'r, 'de> {
    row: &'r mut Row<'de>,
    field: Field,
}

/// Reads a key as text.
struct NameSeed<'s>(&'s mut String);

/// Reads a key as the field of an event.
pub(super) struct FieldSeed;

/// A key of an event's object.
pub(super) enum Key {
    Field(Field),
    Other(String),
}

impl Key {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Field(field) => field.name(),
            Self::Other(name) => name,
        }
    }
}

/// Reads the rest of an event's object; `first` is its first key, if that was read already.
pub(super) fn read_fields<'de, M: MapAccess<'de>>(
    row: &mut Row<'de>,
    map: &mut M,
    first: Option<Key>,
) -> Result<(), M::Error> {
    let mut next = match first {
        Some(key) => Some(key),
        None => map.next_key_seed(FieldSeed)?,
    };
    while let Some(key) = next {
        match key {
            Key::Field(field @ (Field::Dimensions | Field::Metrics)) => {
                row.begin(field);
                map.next_value_seed(ColumnsSeed { row, field })?;
            }
            Key::Field(field) => {
                row.begin(field);
                row.set(field, map.next_value::<&RawValue>()?.get());
            }
            Key::Other(name) => {
                row.refuse(|| format!("event has the unknown field {}", shown(&name)));
                map.next_value::<IgnoredAny>()?;
            }
        }
        next = map.next_key_seed(FieldSeed)?;
    }
    Ok(())
}

/// Visits of everything but an object: consumed, and told to `$refuse`.
macro_rules! refuse_all_but_objects {
    ($refuse:ident) => {
        fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
            self.$refuse();
            Ok(())
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
            self.$refuse();
            Ok(())
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
            self.$refuse();
            Ok(())
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
            self.$refuse();
            Ok(())
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
            self.$refuse();
            Ok(())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            self.$refuse();
            Ok(())
        }
    };
}

impl<'de> DeserializeSeed<'de> for EventSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl EventSeed<'_, '_> {
    fn refuse(self) {
        self.0.refuse(|| "event is not an object".to_owned());
    }
}

impl<'de> Visitor<'de> for EventSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        read_fields(self.0, &mut map, None)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    refuse_all_but_objects!(refuse);
}

impl<'de> DeserializeSeed<'de> for ColumnsSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ColumnsSeed<'_, '_> {
    fn refuse(self) {
        self.row.refuse(|| format!("{} is not an object", self.field.name()));
    }
}

impl<'de> Visitor<'de> for ColumnsSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key_seed(NameSeed(self.row.scratch()))? {
            let raw = map.next_value::<&RawValue>()?.get();
            match self.field {
                Field::Dimensions => self.row.add_dimension(name, raw),
                _ => self.row.add_metric(name, raw),
            }
        }
        Ok(())
    }

    /// Null: none.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    refuse_all_but_objects!(refuse);
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Text<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed<'_> {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Input(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Text<'de>, E> {
        let start = self.0.len();
        self.0.push_str(name);
        Ok(Text::Scratch(start..self.0.len()))
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of an event")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(Field::from_name(name).map_or_else(|| Key::Other(name.to_owned()), Key::Field))
    }
}
