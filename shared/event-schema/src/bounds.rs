//! How much a schema is with all its references followed, and that this is finite.
//!
//! An evaluation visits a schema as a tree: a part that two others refer to is visited twice, and what twenty lists of two
//! references make of twenty lines of text is a million visits. So the tree is measured, once per part and not by walking
//! it: the size of a part is one and the sizes of what is in it. A part that is reached again while it is measured refers to
//! itself; evaluation need not end there, and for events, which are two objects deep, nothing is lost by refusing it.
//!
//! `unevaluatedProperties` and `unevaluatedItems` ask what the parts beside them have looked at: each part that applies to
//! the same value is held against it once more, and so is all that applies to it below. Where such keywords stand below one
//! another, every level doubles that. So these visits are measured too ([`Size::marking`]).

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{
    SchemaError,
    limits::{PATTERNS_MAX, SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX},
};

/// Keywords whose value is no schema and holds none.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "required"];
/// Keywords whose value holds schemas by names that are not keywords.
const BY_NAME: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Keywords whose parts apply to the value itself, so that what they have looked at is evaluated.
const IN_PLACE: [&str; 8] = ["allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas", "$ref"];
/// Keywords that ask what has been evaluated.
const UNEVALUATED: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];
/// Keywords by which a reference means something else elsewhere.
const MOVING: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// What a schema has, in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Objects and lists, as [`SCHEMA_NODES_MAX`] counts them.
    pub(crate) nodes: usize,
    pub(crate) patterns: usize,
}

/// Holds a schema against the limits.
pub(crate) fn check(schema: &Value) -> Result<Measured, SchemaError> {
    let mut walk = Walk { root: schema, sizes: HashMap::new(), patterns: 0 };
    let nodes = walk.measure(schema, Place::Schema, 0)?.nodes;
    Ok(Measured { nodes, patterns: walk.patterns })
}

/// What the names in an object are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Keywords.
    Schema,
    /// Names of properties or definitions.
    ByName,
}

/// What a part is for whoever asks what the part that it is in has evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is held against the value and, where that is right, asked itself.
    InPlace,
    /// A list or object of parts that are.
    Several,
    /// It is held against what is in the value.
    Held,
    /// Nothing.
    Aside,
}

impl Role {
    fn of(name: &str, value: &Value) -> Self {
        match name {
            _ if IN_PLACE.contains(&name) => match value {
                Value::Array(_) => Self::Several,
                _ if BY_NAME.contains(&name) => Self::Several,
                _ => Self::InPlace,
            },
            "contains" => Self::Held,
            _ if UNEVALUATED.contains(&name) => Self::Held,
            _ => Self::Aside,
        }
    }
}

/// A part with all that it refers to.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Objects and lists that are visited to hold a value against it.
    nodes: usize,
    /// Those that are visited to find out what it has evaluated.
    marking: usize,
    depth: usize,
}

impl Size {
    const ONE: Self = Self { nodes: 1, marking: 1, depth: 0 };

    fn add(&mut self, part: Self, role: Role) {
        let (held, asked) = match role {
            Role::InPlace => (part.nodes, part.marking),
            Role::Several => (0, part.marking),
            Role::Held => (part.nodes, 0),
            Role::Aside => (0, 0),
        };
        self.nodes = self.nodes.saturating_add(part.nodes);
        self.marking = self.marking.saturating_add(held).saturating_add(asked);
        self.depth = self.depth.max(part.depth + 1);
    }
}

struct Walk<'a> {
    root: &'a Value,
    /// By the part's address and what it was taken for; `None` while it is measured.
    sizes: HashMap<(*const Value, Place), Option<Size>>,
    patterns: usize,
}

impl<'a> Walk<'a> {
    /// Measures a part that stands `above` levels below the root.
    fn measure(&mut self, part: &'a Value, place: Place, above: usize) -> Result<Size, SchemaError> {
        if above > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        let key = (std::ptr::from_ref(part), place);
        let size = match self.sizes.get(&key) {
            Some(Some(size)) => *size,
            // Only a reference leads back; who followed it says which.
            Some(None) => return Err(SchemaError::Recursive { reference: String::new() }),
            None => {
                self.sizes.insert(key, None);
                let size = self.measure_children(part, place, above)?;
                self.sizes.insert(key, Some(size));
                size
            }
        };
        if above + size.depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        if size.nodes > SCHEMA_NODES_MAX {
            return Err(SchemaError::TooManyNodes);
        }
        Ok(size)
    }

    fn measure_children(&mut self, part: &'a Value, place: Place, above: usize) -> Result<Size, SchemaError> {
        let mut size = Size::ONE;
        match part {
            Value::Array(items) => {
                for item in items {
                    size.add(self.measure(item, Place::Schema, above + 1)?, Role::InPlace);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(child) = self.measure_field(fields, name, value, place, above)? {
                        let keyword = place == Place::Schema;
                        size.add(child, if keyword { Role::of(name, value) } else { Role::InPlace });
                    }
                }
                if place == Place::Schema {
                    let asking = UNEVALUATED.iter().filter(|keyword| fields.contains_key(**keyword)).count();
                    size.nodes = size.nodes.saturating_add(size.marking.saturating_mul(asking));
                }
            }
            _ => {}
        }
        Ok(size)
    }

    fn measure_field(
        &mut self,
        fields: &'a Map<String, Value>,
        name: &str,
        value: &'a Value,
        place: Place,
        above: usize,
    ) -> Result<Option<Size>, SchemaError> {
        if place == Place::ByName {
            return self.measure(value, Place::Schema, above + 1).map(Some);
        }
        if let Some(keyword) = MOVING.into_iter().find(|keyword| *keyword == name && value.is_string()) {
            return Err(SchemaError::Keyword { keyword });
        }
        let root = self.root.as_object().is_some_and(|root| std::ptr::eq(root, fields));
        if name == "$id" && value.is_string() && !root {
            return Err(SchemaError::Keyword { keyword: "$id below its root" });
        }
        self.patterns += match (name, value) {
            ("pattern", Value::String(_)) => 1,
            ("patternProperties", Value::Object(patterns)) => patterns.len(),
            _ => 0,
        };
        if self.patterns > PATTERNS_MAX {
            return Err(SchemaError::TooManyPatterns);
        }
        match value {
            Value::String(reference) if name == "$ref" => self.follow(reference, above).map(Some),
            Value::Object(_) if BY_NAME.contains(&name) => self.measure(value, Place::ByName, above + 1).map(Some),
            Value::Object(_) | Value::Array(_) if !DATA.contains(&name) => {
                self.measure(value, Place::Schema, above + 1).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn follow(&mut self, reference: &str, above: usize) -> Result<Size, SchemaError> {
        let refused = || SchemaError::Reference { reference: crate::shortened(reference.to_owned()) };
        let pointer = reference.strip_prefix('#').ok_or_else(refused)?;
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().map_err(|_| refused())?;
        let target = self.root.pointer(&pointer).ok_or_else(refused)?;
        self.measure(target, Place::Schema, above + 1).map_err(|error| match error {
            SchemaError::Recursive { reference: inner } if inner.is_empty() => {
                SchemaError::Recursive { reference: crate::shortened(reference.to_owned()) }
            }
            error => error,
        })
    }
}
