//! Query strings as the JSON of a query: one set of rules for both.

use serde_json::{Number, value::RawValue};
use types::ApiError;

/// The parameters of a query string that have not been taken yet. An empty value is an absent one.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// # Errors
    /// A parameter stands twice.
    pub(crate) fn new(pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(known, _)| known == name) {
                return Err(ApiError::invalid(name, format!("{} stands twice in the query string", shown(name))));
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }

    /// Refuses what was not taken.
    pub(crate) fn finish(self, known: &str) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::invalid(name, format!("unknown parameter {}; there are {known}", shown(name))))
            }
        }
    }
}

/// The JSON of a query, field by field.
#[derive(Default)]
pub(crate) struct QueryJson(String);

impl QueryJson {
    fn field(&mut self, name: &str, json: &str) {
        self.0.push_str(if self.0.is_empty() { "{\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(json);
    }

    /// A parameter as a string.
    pub(crate) fn text(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.field(name, &quoted(&value));
        }
    }

    /// A parameter as a number; which numbers are right the query's rules say.
    pub(crate) fn number(&mut self, name: &str, value: Option<String>) -> Result<(), ApiError> {
        let Some(value) = value else { return Ok(()) };
        let number: Number = serde_json::from_str(&value)
            .map_err(|_| ApiError::invalid(name, format!("{name} must be a number, not {}", shown(&value))))?;
        self.field(name, &number.to_string());
        Ok(())
    }

    /// A parameter as `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str, value: Option<&str>) -> Result<(), ApiError> {
        match value {
            None => {}
            Some(flag @ ("true" | "false")) => self.field(name, flag),
            Some(other) => {
                let message = format!("{name} must be true or false, not {}", shown(other));
                return Err(ApiError::invalid(name, message));
            }
        }
        Ok(())
    }

    /// Names separated by commas as a list.
    pub(crate) fn list(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            let items: Vec<String> = value.split(',').map(quoted).collect();
            self.field(name, &format!("[{}]", items.join(",")));
        }
    }

    /// A parameter that is JSON itself.
    pub(crate) fn json(&mut self, name: &str, value: Option<&str>) -> Result<(), ApiError> {
        let Some(value) = value else { return Ok(()) };
        let raw: &RawValue = serde_json::from_str(value)
            .map_err(|error| ApiError::invalid(name, format!("{name} must be JSON, as in a query: {error}")))?;
        self.field(name, raw.get());
        Ok(())
    }

    /// The whole.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0.into_bytes()
    }
}

fn quoted(text: impl AsRef<str>) -> String {
    serde_json::Value::from(text.as_ref()).to_string()
}

/// A text from outside as it may stand in a message.
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Goal: what stands in a parameter stays within its field, whatever it is; what is left over or stands twice is named.
    #[test]
    fn parameters_stay_in_their_fields() {
        let mut params = Params::new(pairs(&[("a", "x\",\"b\":1"), ("e", ""), ("n", "12"), ("rest", "1")])).unwrap();
        let mut json = QueryJson::default();
        json.text("a", params.take("a"));
        json.text("e", params.take("e"));
        json.number("n", params.take("n")).unwrap();
        json.list("l", Some("p,\"q".to_owned()));
        json.json("f", Some(r#"{"x":[1]}"#)).unwrap();
        json.flag("y", Some("true")).unwrap();
        let got: serde_json::Value = serde_json::from_slice(&json.finish()).unwrap();
        let expected = r#"{"a":"x\",\"b\":1","n":12,"l":["p","\"q"],"f":{"x":[1]},"y":true}"#;
        assert_eq!(got, serde_json::from_str::<serde_json::Value>(expected).unwrap());
        assert_eq!(params.finish("a").unwrap_err().field.as_deref(), Some("rest"));
        let twice = Params::new(pairs(&[("a", "1"), ("a", "1")]));
        assert_eq!(twice.err().and_then(|error| error.field).as_deref(), Some("a"));
        for bad in ["{}, \"limit\": 1", "1 2", "", "{"] {
            assert_eq!(QueryJson::default().json("f", Some(bad)).unwrap_err().field.as_deref(), Some("f"), "{bad}");
        }
        assert!(QueryJson::default().number("n", Some("1,\"x\":2".to_owned())).is_err());
        assert!(QueryJson::default().flag("y", Some("1")).is_err());
        assert_eq!(QueryJson::default().finish(), b"{}");
    }
}
