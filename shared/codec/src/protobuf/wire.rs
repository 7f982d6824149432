//! Protobuf's wire format, strictly: no groups, no over-long numbers, nothing cut off.

/// Why bytes are no message. Reads on after "event" or "request".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A number or a length runs beyond the end.
    #[error("is cut off")]
    CutOff,
    /// A number of more than 64 bits.
    #[error("holds a varint of more than 64 bits")]
    Varint,
    /// A field number that no message can have.
    #[error("holds the impossible field number {0}")]
    FieldNumber(u64),
    /// A field that this message does not have.
    #[error("has the unknown field {0}")]
    UnknownField(u32),
    /// A field of another type.
    #[error("has {field} of wire type {found}, {expected} would be right")]
    WireType {
        /// The field.
        field: &'static str,
        /// Its wire type.
        found: u8,
        /// The wire type of that field.
        expected: u8,
    },
    /// A wire type that is no longer used, or never was.
    #[error("holds the unsupported wire type {0}")]
    UnsupportedWireType(u8),
    /// A string that is none.
    #[error("has {0} that is not UTF-8")]
    Utf8(&'static str),
}

/// How a field's value is laid out. The number is protobuf's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

impl WireType {
    #[inline]
    pub(super) fn expect(self, expected: Self, field: &'static str) -> Result<(), WireError> {
        if self == expected {
            return Ok(());
        }
        Err(WireError::WireType { field, found: self as u8, expected: expected as u8 })
    }
}

/// Reads a message from its start to its end.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;
const VARINT_BYTES_MAX: usize = 10;

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number and type of the next field; `None` at the end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u32, WireType)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(WireError::FieldNumber(number));
        }
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            other => return Err(WireError::UnsupportedWireType(other as u8)),
        };
        Ok(Some((number as u32, wire_type)))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            Some(_) => self.long_varint(),
            None => Err(WireError::CutOff),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            // The tenth byte has room for one bit.
            if at == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(WireError::CutOff)
    }

    /// The bytes of a field of type [`WireType::Bytes`].
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::CutOff)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::CutOff)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<[u8; 8], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::CutOff)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A string field.
    #[inline]
    pub(super) fn text(&mut self, found: WireType, field: &'static str) -> Result<&'a str, WireError> {
        found.expect(WireType::Bytes, field)?;
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8(field))
    }

    /// Passes over a field's value.
    pub(super) fn skip(&mut self, wire_type: WireType) -> Result<(), WireError> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Bytes => self.bytes().map(drop),
            WireType::Fixed32 => {
                self.rest = self.rest.get(4..).ok_or(WireError::CutOff)?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every number survives its varint; over-long and cut off ones are refused.
    #[test]
    fn varints_are_read_strictly() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            let mut rest = value;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).varint(), Err(WireError::CutOff));
        }
        let mut eleven = [0x80; 11];
        eleven[10] = 0;
        assert_eq!(Reader::new(&eleven).varint(), Err(WireError::Varint));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(),
            Err(WireError::Varint)
        );
    }

    /// Goal: groups, field 0 and lengths beyond the end are refused by name.
    #[test]
    fn impossible_fields_are_refused() {
        assert_eq!(Reader::new(&[0x0b]).field(), Err(WireError::UnsupportedWireType(3)));
        assert_eq!(Reader::new(&[0x02]).field(), Err(WireError::FieldNumber(0)));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).bytes(),
            Err(WireError::CutOff)
        );
    }
}
