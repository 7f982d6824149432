//! A line as programs write it, read in one pass over its bytes: every field once, no escapes, nulls or exponents.
//!
//! 1. What is not as expected here is read again by the general parser, which alone refuses. So this reader decides about speed,
//!    never about what an event is: whatever it takes, the general one takes as the same event.
//! 2. Nothing is copied: all text of an event is a part of its line.

use types::limits::{EVENT_COLUMNS_MAX, METRIC_INTEGER_MAX};

use super::row::Field;
use crate::EventRef;

/// The event of the line read last; its memory is used again for the next.
#[derive(Debug, Default)]
pub(super) struct PlainEvent<'de> {
    namespace: &'de str,
    table: &'de str,
    event_time: Option<i64>,
    event_id: Option<&'de str>,
    dimensions: Vec<(&'de str, &'de str)>,
    metrics: Vec<(&'de str, f64)>,
}

impl<'de> PlainEvent<'de> {
    /// Reads a line without space around it; `None`: it is for the general parser.
    pub(super) fn read(&mut self, line: &'de str) -> Option<EventRef<'_>> {
        (self.event_time, self.event_id) = (None, None);
        self.dimensions.clear();
        self.metrics.clear();
        let mut seen = [false; 6];
        let mut cursor = Cursor { line, at: 0 };
        cursor.take(b'{')?;
        loop {
            let field = Field::from_name(cursor.name()?)?;
            if std::mem::replace(&mut seen[field as usize], true) {
                return None;
            }
            match field {
                Field::Namespace => self.namespace = cursor.string()?,
                Field::Table => self.table = cursor.string()?,
                Field::EventTime => self.event_time = Some(cursor.time()?),
                Field::EventId => self.event_id = Some(cursor.string()?),
                Field::Dimensions => cursor.object(|cursor, name| {
                    let value = cursor.dimension()?;
                    self.dimensions.push((name, value));
                    (self.dimensions.len() <= EVENT_COLUMNS_MAX).then_some(())
                })?,
                Field::Metrics => cursor.object(|cursor, name| {
                    let value = cursor.metric()?;
                    self.metrics.push((name, value));
                    (self.metrics.len() <= EVENT_COLUMNS_MAX).then_some(())
                })?,
            }
            if !cursor.goes_on()? {
                break;
            }
        }
        let whole = cursor.at == line.len() && seen[Field::Namespace as usize] && seen[Field::Table as usize];
        let columns = self.dimensions.len() + self.metrics.len();
        (whole && columns <= EVENT_COLUMNS_MAX).then_some(EventRef {
            namespace: self.namespace,
            table: self.table,
            event_time: self.event_time,
            event_id: self.event_id.map(str::as_bytes),
            dimensions: &self.dimensions,
            metrics: &self.metrics,
        })
    }
}

/// A place in a line.
struct Cursor<'de> {
    line: &'de str,
    at: usize,
}

impl<'de> Cursor<'de> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Passes over the spaces that writers put behind `:` and `,`.
    #[inline]
    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// A name and its colon.
    #[inline]
    fn name(&mut self) -> Option<&'de str> {
        let name = self.string()?;
        self.take(b':')?;
        self.spaces();
        Some(name)
    }

    /// Behind a value: whether another follows.
    #[inline]
    fn goes_on(&mut self) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => {
                self.spaces();
                Some(true)
            }
            b'}' => Some(false),
            _ => None,
        }
    }

    /// An object, whose values `each` reads.
    #[inline]
    fn object(&mut self, mut each: impl FnMut(&mut Self, &'de str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.name()?;
            each(self, name)?;
            if !self.goes_on()? {
                return Some(());
            }
        }
    }

    /// A string without escapes.
    #[inline]
    fn string(&mut self) -> Option<&'de str> {
        self.take(b'"')?;
        let start = self.at;
        let end = start + plain_len(&self.line.as_bytes()[start..])?;
        self.at = end + 1;
        Some(&self.line[start..end])
    }

    /// A string, a boolean or an integer as its text.
    #[inline]
    fn dimension(&mut self) -> Option<&'de str> {
        let start = self.at;
        match self.peek()? {
            b'"' => return self.string(),
            b't' | b'f' => {
                let rest = &self.line[start..];
                let word = ["true", "false"].into_iter().find(|word| rest.starts_with(word))?;
                self.at += word.len();
            }
            _ => {
                let number = self.number()?;
                if number.fraction_digits > 0 || (number.negative && number.digits == 0) {
                    return None;
                }
            }
        }
        Some(&self.line[start..self.at])
    }

    #[inline]
    fn time(&mut self) -> Option<i64> {
        let number = self.number()?;
        let magnitude = i64::try_from(number.digits).ok().filter(|_| number.is_exact && number.fraction_digits == 0)?;
        Some(if number.negative { -magnitude } else { magnitude })
    }

    /// A number that is finite, and exact where it is an integer.
    #[inline]
    fn metric(&mut self) -> Option<f64> {
        let start = self.at;
        let number = self.number()?;
        let small = number.is_exact && number.digits <= METRIC_INTEGER_MAX.unsigned_abs();
        let magnitude = match POWERS_OF_TEN.get(number.fraction_digits) {
            // Both are exact, so the quotient is rounded once, as the number itself would be (Clinger 1990).
            Some(power) if small => number.digits as f64 / power,
            _ if number.fraction_digits == 0 => return None,
            _ => {
                let value = self.line[start..self.at].parse::<f64>().ok().filter(|value| value.is_finite())?;
                // -0.0 and what rounds to it.
                return Some(value + 0.0);
            }
        };
        Some(if number.negative { -magnitude + 0.0 } else { magnitude })
    }

    /// A number without an exponent, by its digits.
    #[inline]
    fn number(&mut self) -> Option<Number> {
        let negative = self.take(b'-').is_some();
        let mut number = Number { negative, digits: 0, is_exact: true, fraction_digits: 0 };
        let first = self.at;
        self.digits(&mut number);
        // A zero stands alone before the point.
        let whole = self.at - first;
        if whole == 0 || (whole > 1 && self.line.as_bytes()[first] == b'0') {
            return None;
        }
        if self.take(b'.').is_some() {
            let point = self.at;
            self.digits(&mut number);
            number.fraction_digits = self.at - point;
            if number.fraction_digits == 0 {
                return None;
            }
        }
        Some(number)
    }

    #[inline]
    fn digits(&mut self, number: &mut Number) {
        while let Some(digit) = self.peek().map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            self.at += 1;
            match number.digits.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit))) {
                Some(digits) => number.digits = digits,
                None => number.is_exact = false,
            }
        }
    }
}

/// A number as it is written.
struct Number {
    negative: bool,
    /// Its digits without the point.
    digits: u64,
    /// Whether `digits` holds all of them.
    is_exact: bool,
    fraction_digits: usize,
}

/// Those that `f64` represents exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);

/// Bytes before the quote that ends a string; `None` where there is none, or an escape or a control character before it.
#[inline]
fn plain_len(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for word in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // Marks bytes that are zero, and falsely some above one that is (Mycroft 1987); the lowest mark is a true one.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH_BITS;
        let equal = |byte: u8| zeros(word ^ (ONES * u64::from(byte)));
        // Likewise: bytes below a space.
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH_BITS;
        let marks = equal(b'"') | equal(b'\\') | control;
        if marks != 0 {
            len += (marks.trailing_zeros() / 8) as usize;
            return (bytes[len] == b'"').then_some(len);
        }
        len += 8;
    }
    let tail = bytes[len..].iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    (bytes[len + tail] == b'"').then_some(len + tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the end of a string is found wherever it lies and whatever stands before it, and nothing else is taken for it.
    #[test]
    fn strings_end_at_their_quote() {
        for before in 0..20 {
            for other in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0xc3, 0xff] {
                let mut bytes = vec![other; before];
                bytes.extend_from_slice(b"\"and more\\\n\"");
                assert_eq!(plain_len(&bytes), Some(before));
                assert_eq!(plain_len(&bytes[..before]), None);
            }
            for stop in [b'\\', b'\n', 0, 0x1f] {
                let mut bytes = vec![b'x'; before];
                bytes.push(stop);
                bytes.extend_from_slice(b"\"xxxxxxxxxx");
                assert_eq!(plain_len(&bytes), None);
            }
        }
    }

    /// Goal: numbers of any length have the value that the standard library gives them, and what JSON forbids is left.
    #[test]
    fn numbers_are_read_exactly() {
        let metric = |text: &str| Cursor { line: text, at: 0 }.metric();
        for text in [
            "0",
            "-0",
            "-0.0",
            "7",
            "12.5",
            "-3.25",
            "0.1",
            "1234567.891",
            "9007199254740992",
            "0.30000000000000004",
            "57.34621890123456789",
            "123456789012345678901234567890.5",
            "0.000000000000000000000000012345",
        ] {
            let wanted = text.parse::<f64>().unwrap() + 0.0;
            assert_eq!(metric(text).map(f64::to_bits), Some(wanted.to_bits()), "{text}");
        }
        for text in ["", "-", "01", "-01", "1.", ".5", "+1", "9007199254740993", "99999999999999999999", "x"] {
            assert_eq!(metric(text), None, "{text}");
        }
        let time = |text: &str| Cursor { line: text, at: 0 }.time();
        assert_eq!([time("0"), time("-5"), time("9223372036854775807")], [Some(0), Some(-5), Some(i64::MAX)]);
        assert_eq!([time("9223372036854775808"), time("1.5"), time("00")], [None; 3]);
    }
}
