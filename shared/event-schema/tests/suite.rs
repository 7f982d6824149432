//! The suite of the JSON Schema project, in the drafts that a table's schema may be of: a schema is refused by one of the
//! bounds, or its verdicts are the suite's.

use std::collections::BTreeMap;

use event_schema::{EventSchema, SchemaError};
use serde_json::Value;

const SUITE: &[u8] = include_bytes!("data/suite.tar.zst");
const DRAFTS: [(&str, &str); 3] = [
    ("draft7", "http://json-schema.org/draft-07/schema#"),
    ("draft2019-09", "https://json-schema.org/draft/2019-09/schema"),
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
];
/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// The files of a tar archive by their paths.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).unwrap()
    };
    let mut files = BTreeMap::new();
    let mut at = 0;
    while archive.len() - at >= BLOCK && archive[at] != 0 {
        let header = &archive[at..at + BLOCK];
        let bytes = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        files.insert(text(&header[..100]), archive[at + BLOCK..at + BLOCK + bytes].to_vec());
        at += BLOCK + bytes.next_multiple_of(BLOCK);
    }
    files
}

/// What became of the suite's groups of cases.
#[derive(Default)]
struct Outcome {
    cases: usize,
    groups: usize,
    refused: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Outcome {
    fn hold(&mut self, file: &str, draft: &str, group: &Value) {
        let mut schema = group["schema"].clone();
        match &mut schema {
            Value::Object(fields) => {
                fields.entry("$schema").or_insert_with(|| draft.into());
            }
            // Of a table, only objects are schemas; as a part of one it says the same.
            boolean => schema = serde_json::json!({"$schema": draft, "allOf": [boolean.clone()]}),
        }
        self.groups += 1;
        let name = format!("{file}: {}", group["description"]);
        match EventSchema::compile(&schema.to_string()) {
            Ok(compiled) => {
                for case in group["tests"].as_array().unwrap() {
                    self.cases += 1;
                    let verdict = compiled.check(&case["data"]);
                    if verdict.is_ok() != case["valid"].as_bool().unwrap() {
                        self.wrong.push(format!("{name}: {}: {verdict:?}", case["description"]));
                    }
                }
            }
            Err(error) => match bound(&error) {
                Some(bound) => *self.refused.entry(bound).or_default() += 1,
                None => self.wrong.push(format!("{name}: {error}")),
            },
        }
    }
}

/// The bound for which a schema is refused; none where it should not be.
fn bound(error: &SchemaError) -> Option<&'static str> {
    match error {
        SchemaError::Recursive { .. } => Some("recursive"),
        SchemaError::Reference { .. } => Some("reference"),
        SchemaError::Keyword { .. } => Some("keyword"),
        SchemaError::UnknownDraft { .. } => Some("draft"),
        _ => None,
    }
}

/// Goal: every schema of the suite is refused by a bound or judges as the suite says, and only what refers beyond its own
/// text or to itself is refused.
#[test]
fn verdicts_are_those_of_the_suite() {
    let files = files(&zstd::decode_all(SUITE).unwrap());
    for (folder, draft) in DRAFTS {
        let mut outcome = Outcome::default();
        let prefix = format!("tests/{folder}/");
        for (path, bytes) in &files {
            let Some(file) = path.strip_prefix(&prefix).filter(|file| file.ends_with(".json")) else { continue };
            // What is optional says what others may do: formats, numbers beyond f64.
            if file.starts_with("optional/") {
                continue;
            }
            let groups: Vec<Value> = serde_json::from_slice(bytes).unwrap();
            groups.iter().for_each(|group| outcome.hold(file, draft, group));
        }
        assert_eq!(outcome.wrong, Vec::<String>::new(), "{folder}");
        assert!(outcome.cases > 850, "{folder}: only {} cases", outcome.cases);
        let refused: usize = outcome.refused.values().sum();
        assert!(refused * 4 < outcome.groups, "{folder}: {refused} of {} refused", outcome.groups);
    }
}
