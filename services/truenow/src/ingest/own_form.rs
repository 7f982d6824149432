//! Events in TrueNow's own form: NDJSON lines go to `POST /v1/events` as they are.
//!
//! 1. A batch has an `Idempotency-Key` made of the source's identity and its number, so that sending it again is safe.
//! 2. `--namespace` and `--table` are put into events that name none; an event that names another is rejected here.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::source::{Line, Lines};

/// A batch of lines.
#[derive(Debug, Default)]
pub(crate) struct LineBatch {
    /// The body, NDJSON.
    pub(crate) body: Vec<u8>,
    /// For each event of the body its line in the file.
    pub(crate) lines: Vec<u64>,
    /// Lines that were left out, and why.
    pub(crate) rejected: Vec<(u64, String)>,
}

/// Makes batches of lines.
pub(crate) struct LineBatches {
    lines: Lines,
    namespace: Option<String>,
    table: Option<String>,
    events_max: usize,
}

/// A batch's body is closed when it has this many bytes; half of what a request may have by default.
const BODY_BYTES: usize = types::limits::REQUEST_BYTES_MAX / 2;

impl LineBatch {
    /// Whether the next event belongs to the next batch.
    fn is_full(&self, events_max: usize) -> bool {
        self.lines.len() >= events_max || self.body.len() >= BODY_BYTES
    }

    /// This batch, if there is anything in it.
    fn into_some(self) -> Option<Self> {
        (!self.lines.is_empty() || !self.rejected.is_empty()).then_some(self)
    }
}

impl LineBatches {
    /// Batches of at most `events_max` events.
    pub(crate) fn new(lines: Lines, namespace: Option<String>, table: Option<String>, events_max: usize) -> Self {
        Self { lines, namespace, table, events_max }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read on.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<LineBatch>> {
        let mut batch = LineBatch::default();
        while !batch.is_full(self.events_max) {
            let taken = match self.lines.next()? {
                Line::End => break,
                Line::Bad(why) => Err(why.to_owned()),
                Line::Text(text) => {
                    put(&mut batch.body, text, [("namespace", &self.namespace), ("table", &self.table)])
                }
            };
            let line = self.lines.number();
            match taken {
                Ok(()) => batch.lines.push(line),
                Err(why) => batch.rejected.push((line, why)),
            }
        }
        Ok(batch.into_some())
    }
}

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    table: Option<&'a RawValue>,
}

/// Puts a line into a body, with the names that it lacks.
fn put(body: &mut Vec<u8>, text: &str, names: [(&str, &Option<String>); 2]) -> Result<(), String> {
    let text = text.trim();
    let Some(rest) = text.strip_prefix('{').filter(|_| names.iter().any(|(_, name)| name.is_some())) else {
        body.extend_from_slice(text.as_bytes());
        body.push(b'\n');
        return Ok(());
    };
    let found: Names<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut missing = String::new();
    for ((key, given), found) in names.into_iter().zip([found.namespace, found.table]) {
        let Some(given) = given else { continue };
        let given = serde_json::Value::from(given.as_str()).to_string();
        match found {
            None => missing.push_str(&format!("\"{key}\":{given},")),
            Some(found) if found.get() == given => {}
            Some(found) => return Err(format!("{key} is {}, but --{key} says {given}", found.get())),
        }
    }
    // An object without any key would be left with a comma at its end.
    let rest = if rest.trim() == "}" { missing.pop().map_or(rest, |_comma| "}") } else { rest };
    body.push(b'{');
    body.extend_from_slice(missing.as_bytes());
    body.extend_from_slice(rest.as_bytes());
    body.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn batches(text: &str, namespace: Option<&str>, events_max: usize) -> Vec<LineBatch> {
        let lines = Lines::new(Box::new(Cursor::new(text.to_owned())));
        let mut batches = LineBatches::new(lines, namespace.map(str::to_owned), None, events_max);
        std::iter::from_fn(|| batches.next().unwrap()).collect()
    }

    /// Goal: without names the lines go as they are, in batches, each event with its line.
    #[test]
    fn lines_go_as_they_are() {
        let found = batches("{\"a\": 1}\n\nnot json\n{}\n", None, 2);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].body.as_slice(), found[0].lines.as_slice()),
            (&b"{\"a\": 1}\nnot json\n"[..], &[1, 3][..])
        );
        assert_eq!((found[1].body.as_slice(), found[1].lines.as_slice()), (&b"{}\n"[..], &[4][..]));
    }

    /// Goal: names are put in where they lack, and a contradiction is refused with its line.
    #[test]
    fn names_are_put_in() {
        let found = batches("{\"x\":1}\n{\"namespace\":\"a\"}\n{\"namespace\":\"b\"}\n{ }\n", Some("a"), 10);
        let body = String::from_utf8(found[0].body.clone()).unwrap();
        assert_eq!(body, "{\"namespace\":\"a\",\"x\":1}\n{\"namespace\":\"a\"}\n{\"namespace\":\"a\"}\n");
        assert_eq!(found[0].lines, [1, 2, 4]);
        let (line, why) = &found[0].rejected[0];
        assert_eq!(*line, 3);
        assert!(why.contains("\"b\"") && why.contains("\"a\""), "{why}");
    }
}
