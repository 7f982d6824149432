//! A letter as a line of text: `xxh3-64 of the rest in hex`, a space, the letter as JSON, a newline.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::Letter;

const CHECKSUM_BYTES: usize = 16;
const PREFIX_BYTES: usize = CHECKSUM_BYTES + 1;

/// The JSON of a letter, as it lies on disk and goes to clients.
#[derive(Serialize, Deserialize)]
struct LetterJson<'a> {
    received_us: i64,
    code: &'a str,
    message: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// Appends the line of `letter` to `out`.
pub(super) fn encode(letter: &Letter, out: &mut Vec<u8>) {
    let json = LetterJson {
        received_us: letter.received.0,
        code: letter.code.name(),
        message: letter.message.as_str().into(),
        event: &letter.event,
    };
    let start = out.len();
    out.extend_from_slice(&[b' '; PREFIX_BYTES]);
    serde_json::to_writer(&mut *out, &json).expect("a letter has no map with keys that are no strings");
    // Raw JSON may hold line breaks between its tokens, never within them, so a space says the same.
    for byte in &mut out[start + PREFIX_BYTES..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let checksum = format!("{:016x}", xxh3_64(&out[start + PREFIX_BYTES..]));
    out[start..start + CHECKSUM_BYTES].copy_from_slice(checksum.as_bytes());
    out.push(b'\n');
}

/// The letter's JSON in a line without its newline; `None` where the line is damaged.
pub(super) fn decode(line: &[u8]) -> Option<Box<RawValue>> {
    let (prefix, json) = line.split_at_checked(PREFIX_BYTES)?;
    let checksum = u64::from_str_radix(std::str::from_utf8(&prefix[..CHECKSUM_BYTES]).ok()?, 16).ok()?;
    if checksum != xxh3_64(json) {
        return None;
    }
    RawValue::from_string(String::from_utf8(json.to_vec()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use types::{ErrorCode, Timestamp};

    use super::*;

    /// Goal: a letter comes back from its line, on one line whatever it holds, and any damaged bit is noticed.
    #[test]
    fn lines_round_trip_and_notice_damage() {
        let letter = Letter {
            received: Timestamp(7),
            code: ErrorCode::InvalidArgument,
            message: "a \"quoted\" reason\nof two lines".into(),
            event: RawValue::from_string("{\n \"x\":\"a\\nb\"}".into()).unwrap(),
        };
        let mut bytes = Vec::new();
        encode(&letter, &mut bytes);
        assert_eq!(bytes.iter().filter(|&&b| b == b'\n').count(), 1);
        let line = &bytes[..bytes.len() - 1];
        let value: serde_json::Value = serde_json::from_str(decode(line).unwrap().get()).unwrap();
        assert_eq!(value["message"], "a \"quoted\" reason\nof two lines");
        assert_eq!(value["event"]["x"], "a\nb");
        for bit in 0..line.len() * 8 {
            let mut damaged = line.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The case of a hex digit and the space carry nothing.
            let carries_nothing = bit / 8 < PREFIX_BYTES
                && (damaged[bit / 8].eq_ignore_ascii_case(&line[bit / 8]) || bit / 8 == CHECKSUM_BYTES);
            assert_eq!(decode(&damaged).is_some(), carries_nothing, "bit {bit}");
        }
    }
}
