//! Scalars by their raw text, which the parser has found to be JSON.

use std::ops::Range;

use types::limits::METRIC_INTEGER_MAX;

/// Text of an event: in the input, or decoded into the row's scratch space.
#[derive(Debug, Clone)]
pub(super) enum Text<'de> {
    Input(&'de str),
    Scratch(Range<usize>),
}

impl<'de> Text<'de> {
    #[inline]
    pub(super) fn get<'s>(&self, scratch: &'s str) -> &'s str
    where
        'de: 's,
    {
        match self {
            Self::Input(text) => text,
            Self::Scratch(range) => &scratch[range.clone()],
        }
    }
}

/// What a string field's value is.
pub(super) enum StringField<'de> {
    Text(Text<'de>),
    Null,
    /// Why it is no string.
    Fault(&'static str),
}

/// A string, or null.
#[inline]
pub(super) fn string<'de>(raw: &'de str, scratch: &mut String) -> StringField<'de> {
    match raw.as_bytes()[0] {
        b'"' => match unquote(raw, scratch) {
            Some(text) => StringField::Text(text),
            None => StringField::Fault("holds half of a surrogate pair"),
        },
        b'n' => StringField::Null,
        _ => StringField::Fault("is not a string"),
    }
}

/// A dimension's value: a string, or a boolean or an integer as its text, or null.
#[inline]
pub(super) fn dimension<'de>(raw: &'de str, scratch: &mut String) -> StringField<'de> {
    match raw.as_bytes()[0] {
        b't' | b'f' => StringField::Text(Text::Input(raw)),
        b'-' | b'0'..=b'9' if !is_integer(raw) => {
            StringField::Fault("is a fraction: only strings, booleans and integers are dimension values")
        }
        b'-' | b'0'..=b'9' => StringField::Text(Text::Input(if raw == "-0" { "0" } else { raw })),
        b'{' | b'[' => StringField::Fault("is not a string, a boolean or an integer"),
        _ => string(raw, scratch),
    }
}

/// A metric: a finite number; integers must be ones that `f64` represents exactly.
///
/// # Errors
/// What is wrong with it.
#[inline]
pub(super) fn metric(raw: &str) -> Result<f64, &'static str> {
    if !is_number(raw) {
        return Err("is not a number");
    }
    if is_integer(raw) {
        return match raw.parse::<i64>() {
            Ok(integer) if (-METRIC_INTEGER_MAX..=METRIC_INTEGER_MAX).contains(&integer) => Ok(integer as f64),
            _ => Err("is an integer beyond ±2^53, which would be rounded"),
        };
    }
    match raw.parse::<f64>() {
        // -0.0 and what rounds to it.
        Ok(value) if value.is_finite() => Ok(value + 0.0),
        Ok(_) => Err("is beyond the range of f64"),
        Err(_) => Err("is not a number"),
    }
}

/// An event time: an integer, or null.
///
/// # Errors
/// What is wrong with it.
#[inline]
pub(super) fn time(raw: &str) -> Result<Option<i64>, &'static str> {
    if raw == "null" {
        return Ok(None);
    }
    if !is_number(raw) || !is_integer(raw) {
        return Err("is not an integer");
    }
    raw.parse().map(Some).map_err(|_| "is beyond the range of i64")
}

fn is_number(raw: &str) -> bool {
    matches!(raw.as_bytes()[0], b'-' | b'0'..=b'9')
}

fn is_integer(raw: &str) -> bool {
    !raw.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// The content of a string, quotes included in `raw`; `None` where it holds a lone surrogate.
#[inline]
fn unquote<'de>(raw: &'de str, scratch: &mut String) -> Option<Text<'de>> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.as_bytes().contains(&b'\\') {
        return Some(Text::Input(inner));
    }
    let start = scratch.len();
    unescape(inner, scratch)?;
    Some(Text::Scratch(start..scratch.len()))
}

/// Decodes escapes. The parser has seen that they are well formed; whether surrogates pair up it has not looked at.
fn unescape(mut rest: &str, out: &mut String) -> Option<()> {
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        rest = &escape[1..];
        match escape.as_bytes()[0] {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let (unit, behind) = hex4(rest)?;
                rest = behind;
                out.push(match char::from_u32(unit) {
                    Some(c) => c,
                    None => {
                        let (low, behind) = hex4(rest.strip_prefix("\\u")?)?;
                        rest = behind;
                        char::decode_utf16([unit as u16, low as u16]).next()?.ok()?
                    }
                });
            }
            // `"`, `\` and `/` stand for themselves.
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    Some(())
}

fn hex4(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers are taken exactly or not at all.
    #[test]
    fn metrics_are_exact_or_refused() {
        let exact = [("0", 0.0), ("-17", -17.0), ("9007199254740992", 9_007_199_254_740_992.0), ("12.5e-1", 1.25)];
        for (raw, value) in exact {
            assert_eq!(metric(raw), Ok(value), "{raw}");
        }
        for raw in ["-0", "-0.0", "-1e-400"] {
            assert_eq!(metric(raw).map(f64::to_bits), Ok(0), "{raw}");
        }
        for raw in ["9007199254740993", "-9007199254740993", "18446744073709551616", "123456789012345678901234567890"] {
            assert_eq!(metric(raw), Err("is an integer beyond ±2^53, which would be rounded"), "{raw}");
        }
        assert_eq!(metric("1e999"), Err("is beyond the range of f64"));
        for raw in ["\"1\"", "null", "true", "[1]", "{}"] {
            assert_eq!(metric(raw), Err("is not a number"), "{raw}");
        }
    }

    /// Goal: escapes are decoded as serde_json decodes them, and what it refuses is refused.
    #[test]
    fn escapes_agree_with_serde_json() {
        for raw in [
            r#""a\n\t\r\b\f\/\\\"z""#,
            r#""\u0041\u00e9\u0000""#,
            r#""\ud83d\ude00 and \uD83D\uDE00""#,
            r#""\ud83d""#,
            r#""\ude00\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""é\u00e9é""#,
        ] {
            let mut scratch = String::from("before");
            let ours = unquote(raw, &mut scratch).map(|text| text.get(&scratch).to_owned());
            assert_eq!(ours, serde_json::from_str::<String>(raw).ok(), "{raw}");
        }
    }
}
