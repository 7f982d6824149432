//! A JSON document as a tree that keeps every key, so that an error can name it.
//!
//! 1. Duplicate keys are refused wherever they stand: two readers of one document must not see two documents.
//! 2. Nesting is bounded by serde_json (128 levels), size by the caller's limit on request bytes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use types::ApiError;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole document.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        let json: Self = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::new(types::ErrorCode::InvalidArgument, format!("query is not JSON: {error}")))?;
        json.refuse_duplicates()?;
        Ok(json)
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    pub(crate) fn into_object(self, field: &str) -> Result<Vec<(String, Json)>, ApiError> {
        match self {
            Self::Object(entries) => Ok(entries),
            other => Err(wrong(field, "an object", &other)),
        }
    }

    pub(crate) fn into_array(self, field: &str) -> Result<Vec<Json>, ApiError> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(wrong(field, "a list", &other)),
        }
    }

    pub(crate) fn into_string(self, field: &str) -> Result<String, ApiError> {
        match self {
            Self::String(text) => Ok(text),
            other => Err(wrong(field, "a string", &other)),
        }
    }

    pub(crate) fn to_bool(&self, field: &str) -> Result<bool, ApiError> {
        match self {
            Self::Bool(flag) => Ok(*flag),
            other => Err(wrong(field, "true or false", other)),
        }
    }

    pub(crate) fn to_i64(&self, field: &str) -> Result<i64, ApiError> {
        match self {
            Self::Number(number) => number.as_i64().ok_or_else(|| wrong(field, "a 64-bit integer", self)),
            other => Err(wrong(field, "an integer", other)),
        }
    }

    pub(crate) fn to_u64(&self, field: &str) -> Result<u64, ApiError> {
        match self {
            Self::Number(number) => number.as_u64().ok_or_else(|| wrong(field, "an integer of at least 0", self)),
            other => Err(wrong(field, "an integer", other)),
        }
    }

    pub(crate) fn to_f64(&self, field: &str) -> Result<f64, ApiError> {
        match self {
            Self::Number(number) => number.as_f64().ok_or_else(|| wrong(field, "a finite number", self)),
            other => Err(wrong(field, "a number", other)),
        }
    }

    fn refuse_duplicates(&self) -> Result<(), ApiError> {
        match self {
            Self::Array(items) => items.iter().try_for_each(Self::refuse_duplicates),
            Self::Object(entries) => {
                let mut seen = hashbrown::HashSet::with_capacity(entries.len());
                for (key, value) in entries {
                    if !seen.insert(key.as_str()) {
                        return Err(ApiError::invalid(key, format!("{} stands twice in one object", shown(key))));
                    }
                    value.refuse_duplicates()?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn wrong(field: &str, right: &str, got: &Json) -> ApiError {
    let got = match got {
        Json::Number(number) => number.to_string(),
        other => other.kind().to_owned(),
    };
    ApiError::invalid(field, format!("{} must be {right}, not {got}", shown(field)))
}

/// A name from outside as it may stand in a message: cut to a length that fits a line, control characters escaped.
pub(crate) fn shown(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 128;
    let mut text: String = name.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS_MAX).is_some() {
        text.push('…');
    }
    text
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;

        impl<'de> Visitor<'de> for Tree {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
                Ok(Json::Bool(flag))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Number(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Number(number.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Json, E> {
                Number::from_f64(number).map(Json::Number).ok_or_else(|| E::custom("number out of range"))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::String(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json::String(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Json::Object(entries))
            }
        }

        deserializer.deserialize_any(Tree)
    }
}
