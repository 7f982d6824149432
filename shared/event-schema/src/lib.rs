//! The JSON Schema of a table: what the control plane takes as one, and how the gateway holds events against it.
//!
//! 1. A schema is bounded before it is compiled ([`bounds`]), so that neither compiling it nor holding one event against it
//!    can take long, whoever wrote it: no reference leaves the schema or comes back to itself, and what remains is a tree of
//!    at most [`limits::SCHEMA_NODES_MAX`] objects, those counted again that an evaluation visits again.
//! 2. Patterns run on an engine that is linear in the text. What it does not know (lookaround, back references) is refused
//!    with the schema.
//! 3. `format` and the `content…` keywords are annotations, as draft 2020-12 has it.

mod bounds;
mod error;
pub mod limits;

use codec::EventRef;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use bounds::Measured;
pub use error::SchemaError;

/// A compiled schema.
#[derive(Debug)]
pub struct EventSchema {
    validator: Validator,
    measured: Measured,
}

impl EventSchema {
    /// Compiles a schema from its text.
    ///
    /// # Errors
    /// It is no JSON Schema of a draft that is known, or not within [`limits`].
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        if text.len() > limits::SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooLarge { bytes: text.len() });
        }
        let schema: Value = serde_json::from_str(text).map_err(SchemaError::Json)?;
        let draft = draft_of(&schema)?;
        let measured = bounds::check(&schema)?;
        let options = jsonschema::options()
            .with_draft(draft)
            .offline()
            .should_validate_formats(false)
            .without_content_media_type_support("application/json")
            .without_content_encoding_support("base64")
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(limits::PATTERN_BYTES_MAX)
                    .dfa_size_limit(limits::PATTERN_CACHE_BYTES_MAX),
            );
        let validator = options.build(&schema).map_err(|error| SchemaError::Invalid {
            at: pointer(error.instance_path().as_str()),
            reason: shortened(error.to_string()),
        })?;
        Ok(Self { validator, measured })
    }

    /// The memory that it can take, about, where `threads` hold events against it: what it has, as large as the limits let it
    /// be.
    #[must_use]
    pub fn bytes_max(&self, threads: usize) -> usize {
        let pattern = limits::PATTERN_BYTES_MAX + threads * limits::PATTERN_CACHE_BYTES_MAX;
        self.measured.nodes * limits::NODE_BYTES + self.measured.patterns * pattern
    }

    /// Holds an event against the schema.
    ///
    /// # Errors
    /// The first fault: where in the event, what would be right there, and which keyword of the schema says so.
    pub fn check(&self, event: &Value) -> Result<(), String> {
        // Finding out whether is several times as fast as finding out why not.
        if self.validator.is_valid(event) {
            return Ok(());
        }
        self.validator.validate(event).map_err(|error| fault(&error))
    }
}

/// An event that did not arrive as JSON, as the JSON that [`EventRef::to_json`] would show: dimensions are strings.
#[must_use]
pub fn json_of(event: &EventRef<'_>) -> Value {
    let mut json = Map::new();
    json.insert("namespace".into(), event.namespace.into());
    json.insert("table".into(), event.table.into());
    if let Some(time) = event.event_time {
        json.insert("event_time".into(), time.into());
    }
    if let Some(id) = event.event_id {
        json.insert("event_id".into(), String::from_utf8_lossy(id).into());
    }
    let dimensions = event.dimensions.iter().map(|&(name, value)| (name.to_owned(), value.into()));
    json.insert("dimensions".into(), Value::Object(dimensions.collect()));
    let metrics = event.metrics.iter().map(|&(name, value)| (name.to_owned(), value.into()));
    json.insert("metrics".into(), Value::Object(metrics.collect()));
    Value::Object(json)
}

/// The draft that a schema names, or the newest.
fn draft_of(schema: &Value) -> Result<Draft, SchemaError> {
    let fields = schema.as_object().ok_or(SchemaError::NoObject)?;
    let Some(named) = fields.get("$schema") else { return Ok(Draft::Draft202012) };
    match named.as_str().map(|uri| uri.trim_end_matches('#')) {
        Some("https://json-schema.org/draft/2020-12/schema") => Ok(Draft::Draft202012),
        Some("https://json-schema.org/draft/2019-09/schema") => Ok(Draft::Draft201909),
        Some("http://json-schema.org/draft-07/schema") => Ok(Draft::Draft7),
        _ => Err(SchemaError::UnknownDraft { named: shortened(named.to_string()) }),
    }
}

/// `/metrics/revenue: -3 is less than the minimum of 0 (minimum at /properties/… of the table's json_schema)`.
fn fault(error: &ValidationError<'_>) -> String {
    let shown = error.instance();
    // A value that is long, or the whole event, would hide what is wrong with it.
    let scalar = !(shown.is_object() || shown.is_array());
    let short = scalar && shown.as_str().is_none_or(|text| text.len() <= limits::SHOWN_VALUE_BYTES_MAX);
    let what = if short { error.to_string() } else { error.masked_with("the value").to_string() };
    let (at, keyword) = (pointer(error.instance_path().as_str()), error.kind().keyword());
    let path = error.schema_path().as_str();
    format!("{at}: {} ({keyword} at {} of the table's json_schema)", shortened(what), shortened(path.to_owned()))
}

/// A JSON pointer as a message shows it; the one to the whole is empty.
fn pointer(path: &str) -> String {
    if path.is_empty() { "/".to_owned() } else { shortened(path.to_owned()) }
}

/// A text as a message shows it.
fn shortened(mut text: String) -> String {
    if text.len() > limits::SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(limits::SHOWN_BYTES_MAX));
        text.push('…');
    }
    text
}
