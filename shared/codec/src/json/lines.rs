//! NDJSON: one event per line.

use serde::de::DeserializeSeed;
use serde_json::Deserializer;

use super::{event::EventSeed, row::Row};
use crate::{DecodeError, Decoded};

pub(super) fn decode(body: &[u8], events_max: usize, each: &mut dyn FnMut(Decoded<'_>)) -> Result<u32, DecodeError> {
    let mut row = Row::default();
    let mut index = 0_u32;
    let mut any_json = false;
    let mut first_fault = None;
    for line in body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if index as usize == events_max {
            return Err(DecodeError::TooManyEvents { max: events_max });
        }
        row.clear();
        match read_line(line, &mut row) {
            Ok(()) => any_json = true,
            Err(reason) => {
                first_fault.get_or_insert_with(|| reason.clone());
                // What was read before the fault is no event, though its table may be known.
                row.refuse_first(|| format!("line is not JSON: {reason}"));
            }
        }
        row.hand_out(index, Some(line), each);
        index += 1;
    }
    match first_fault {
        Some(reason) if !any_json => Err(DecodeError::NoJsonLine { reason }),
        _ => Ok(index),
    }
}

fn read_line<'de>(line: &'de [u8], row: &mut Row<'de>) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let mut parser = Deserializer::from_str(text);
    EventSeed(row).deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| reason(&error))
}

/// What the parser found; the line is always the first.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(&format!(" at line {} column", error.line()), " at column")
}
