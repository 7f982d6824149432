//! NDJSON: one event per line.

use std::str::Utf8Error;

use serde::de::DeserializeSeed;
use serde_json::Deserializer;

use super::{event::EventSeed, plain::PlainEvent, row::Row};
use crate::{DecodeError, Decoded};

pub(super) fn decode(body: &[u8], events_max: usize, each: &mut dyn FnMut(Decoded<'_>)) -> Result<u32, DecodeError> {
    let mut lines = Lines {
        plain: PlainEvent::default(),
        row: Row::default(),
        events: 0,
        events_max,
        any_json: false,
        first_fault: None,
        each,
    };
    // One pass over the whole body costs less than one per line, which only a body with a damaged line needs.
    match std::str::from_utf8(body) {
        Ok(text) => text.split('\n').try_for_each(|line| lines.read(line.as_bytes(), Ok(line)))?,
        Err(_) => body
            .split(|&byte| byte == b'\n')
            .try_for_each(|line| lines.read(line, std::str::from_utf8(line.trim_ascii_end())))?,
    }
    match lines.first_fault {
        Some(reason) if !lines.any_json => Err(DecodeError::NoJsonLine { reason }),
        _ => Ok(lines.events),
    }
}

/// A body while its lines are read.
struct Lines<'c, 'de> {
    plain: PlainEvent<'de>,
    row: Row<'de>,
    events: u32,
    events_max: usize,
    any_json: bool,
    first_fault: Option<String>,
    each: &'c mut dyn FnMut(Decoded<'_>),
}

impl<'de> Lines<'_, 'de> {
    fn read(&mut self, line: &'de [u8], text: Result<&'de str, Utf8Error>) -> Result<(), DecodeError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        if self.events as usize == self.events_max {
            return Err(DecodeError::TooManyEvents { max: self.events_max });
        }
        if let Some(event) = text.ok().and_then(|text| self.plain.read(text.trim_matches([' ', '\t', '\r']))) {
            (self.each)(Decoded { index: self.events, raw: Some(line), event: Ok(event) });
            self.any_json = true;
            self.events += 1;
            return Ok(());
        }
        self.row.clear();
        match read_event(text, &mut self.row) {
            Ok(()) => self.any_json = true,
            Err(reason) => {
                self.first_fault.get_or_insert_with(|| reason.clone());
                // What was read before the fault is no event, though its table may be known.
                self.row.refuse_first(|| format!("line is not JSON: {reason}"));
            }
        }
        self.row.hand_out(self.events, Some(line), self.each);
        self.events += 1;
        Ok(())
    }
}

fn read_event<'de>(text: Result<&'de str, Utf8Error>, row: &mut Row<'de>) -> Result<(), String> {
    let text = text.map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let mut parser = Deserializer::from_str(text);
    EventSeed(row).deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| reason(&error))
}

/// What the parser found; the line is always the first.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(&format!(" at line {} column", error.line()), " at column")
}
