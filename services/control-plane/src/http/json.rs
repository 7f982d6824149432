//! JSON objects read strictly: a field that is unknown, stands twice or has the wrong type is refused by its name.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use types::ApiError;

/// A JSON value whose objects keep their fields in order, also those that stand twice.
pub(super) enum Json {
    Scalar(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(Value::Null))
    }

    /// The value, which is part of `field`.
    fn into_value(self, field: &str) -> Result<Value, ApiError> {
        match self {
            Self::Scalar(value) => Ok(value),
            Self::List(items) => items.into_iter().map(|item| item.into_value(field)).collect(),
            Self::Object(entries) => {
                let mut object = serde_json::Map::new();
                for (name, json) in entries {
                    let value = json.into_value(field)?;
                    if object.insert(name.clone(), value).is_some() {
                        return Err(ApiError::invalid(field, format!("{name} stands twice in an object of {field}")));
                    }
                }
                Ok(Value::Object(object))
            }
        }
    }

    fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Scalar(mine), other) => mine == other,
            (Self::List(mine), Value::Array(other)) => {
                mine.len() == other.len() && mine.iter().zip(other).all(|(mine, other)| mine.equals(other))
            }
            (Self::Object(mine), Value::Object(other)) => {
                mine.len() == other.len()
                    && mine.iter().all(|(name, mine)| other.get(name).is_some_and(|o| mine.equals(o)))
            }
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> de::Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Scalar(value.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Json::Object(fields))
    }
}

/// The fields of one object, taken one by one; what is left at the end is unknown.
pub(super) struct Fields {
    what: &'static str,
    left: Vec<(String, Json)>,
}

impl Fields {
    /// Reads a body that must be one object; `what` says of what, for messages.
    pub(super) fn parse(what: &'static str, body: &[u8]) -> Result<Self, ApiError> {
        let json = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(types::ErrorCode::InvalidArgument, format!("the body is not JSON: {error}"))
        })?;
        Self::of(what, json)
    }

    fn of(what: &'static str, json: Json) -> Result<Self, ApiError> {
        let Json::Object(left) = json else {
            return Err(ApiError::new(types::ErrorCode::InvalidArgument, format!("{what} must be a JSON object")));
        };
        for (at, (name, _)) in left.iter().enumerate() {
            if left[..at].iter().any(|(other, _)| other == name) {
                return Err(ApiError::invalid(name, format!("{name} stands twice in {what}")));
            }
        }
        Ok(Self { what, left })
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.left.iter().position(|(field, _)| field == name)?;
        Some(self.left.swap_remove(at).1)
    }

    /// A text; null counts as absent.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None | Some(Json::Scalar(Value::Null)) => Ok(None),
            Some(Json::Scalar(Value::String(text))) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        let what = self.what;
        self.text(name)?.ok_or_else(|| ApiError::invalid(name, format!("{name} is missing, {what} needs it")))
    }

    /// An integer.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        self.take(name).map(|json| integer(name, &json)).transpose()
    }

    /// An integer or null; `Some(None)` is null.
    pub(super) fn nullable_integer(&mut self, name: &str) -> Result<Option<Option<i64>>, ApiError> {
        let Some(json) = self.take(name) else { return Ok(None) };
        if json.is_null() { Ok(Some(None)) } else { integer(name, &json).map(|value| Some(Some(value))) }
    }

    /// A list of names.
    pub(super) fn names(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let Json::List(items) = json else { return Err(wrong(name, "a list of strings")) };
        let names = items.into_iter().map(|item| match item {
            Json::Scalar(Value::String(text)) => Ok(text),
            _ => Err(wrong(name, "a list of strings")),
        });
        names.collect::<Result<_, _>>().map(Some)
    }

    /// A list of objects, each of which is `what`.
    pub(super) fn objects(&mut self, name: &str, what: &'static str) -> Result<Option<Vec<Self>>, ApiError> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let Json::List(items) = json else { return Err(wrong(name, "a list of objects")) };
        let objects = items.into_iter().map(|item| Self::of(what, item).map_err(|error| at_field(error, name)));
        objects.collect::<Result<_, _>>().map(Some)
    }

    /// An object of whatever fields, or null, as its text; `Some(None)` is null.
    pub(super) fn nullable_object(&mut self, name: &str) -> Result<Option<Option<String>>, ApiError> {
        let Some(json) = self.take(name) else { return Ok(None) };
        match json {
            Json::Scalar(Value::Null) => Ok(Some(None)),
            object @ Json::Object(_) => object.into_value(name).map(|value| Some(Some(value.to_string()))),
            _ => Err(wrong(name, "an object or null")),
        }
    }

    /// Whether the field, if it is there, has exactly this value.
    pub(super) fn agrees(&mut self, name: &str, with: &Value) -> bool {
        self.take(name).is_none_or(|json| json.equals(with))
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), ApiError> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("unknown field {name:?}: {} has {}", self.what, known.join(", "));
                Err(ApiError::invalid(name, message))
            }
        }
    }
}

fn integer(name: &str, json: &Json) -> Result<i64, ApiError> {
    match json {
        Json::Scalar(value) => value.as_i64().ok_or_else(|| wrong(name, "an integer of 64 bits")),
        _ => Err(wrong(name, "an integer of 64 bits")),
    }
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::invalid(name, format!("{name} must be {right}"))
}

fn at_field(error: ApiError, name: &str) -> ApiError {
    if error.field.is_some() { error } else { error.with_field(name) }
}
