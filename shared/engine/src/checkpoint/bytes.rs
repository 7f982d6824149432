//! Numbers and strings, one after the other.

use types::Timestamp;

use super::RestoreError;

/// Appends values to bytes.
pub(crate) trait Put {
    fn u8(&mut self, value: u8);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
    fn i64(&mut self, value: i64);

    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    /// `value` if there is one, with a byte before it that says so.
    fn optional<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn time(&mut self, value: Timestamp) {
        self.i64(value.0);
    }

    /// How many there are, then each of them.
    fn list<T>(&mut self, values: impl ExactSizeIterator<Item = T>, mut put: impl FnMut(&mut Self, T)) {
        self.u32(values.len() as u32);
        values.for_each(|value| put(self, value));
    }

    fn bytes(&mut self, value: &[u8]);
}

impl Put for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.extend_from_slice(value);
    }
}

/// Takes values from the front of bytes that are not trusted.
pub(crate) struct Take<'a> {
    left: &'a [u8],
}

const SHORT: RestoreError = RestoreError::Malformed("it ends too early");

impl<'a> Take<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// # Errors
    /// Something is left.
    pub(crate) fn end(&self) -> Result<(), RestoreError> {
        if self.left.is_empty() { Ok(()) } else { Err(RestoreError::Malformed("it goes on after its end")) }
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.left
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RestoreError> {
        let (value, left) = self.left.split_first_chunk().ok_or(SHORT)?;
        self.left = left;
        Ok(*value)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RestoreError> {
        self.array::<1>().map(|[value]| value)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, RestoreError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Malformed("a byte is neither yes nor no")),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RestoreError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RestoreError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RestoreError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, RestoreError> {
        self.u64().map(f64::from_bits)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, RestoreError> {
        self.i64().map(Timestamp)
    }

    /// A number of things in memory.
    pub(crate) fn size(&mut self) -> Result<usize, RestoreError> {
        usize::try_from(self.u64()?).map_err(|_| RestoreError::Malformed("a number is too large"))
    }

    pub(crate) fn optional<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, RestoreError>,
    ) -> Result<Option<T>, RestoreError> {
        if self.bool()? { take(self).map(Some) } else { Ok(None) }
    }

    /// A list of values. Memory grows with what is there: each value takes at least a byte.
    pub(crate) fn list<T>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, RestoreError>,
    ) -> Result<Vec<T>, RestoreError> {
        let count = self.u32()? as usize;
        if count > self.left.len() {
            return Err(SHORT);
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(take(self)?);
        }
        Ok(values)
    }

    /// The next `count` bytes.
    pub(crate) fn raw(&mut self, count: usize) -> Result<&'a [u8], RestoreError> {
        let (value, left) = self.left.split_at_checked(count).ok_or(SHORT)?;
        self.left = left;
        Ok(value)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RestoreError> {
        let count = self.size()?;
        self.raw(count)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, RestoreError> {
        text(self.bytes()?)
    }
}

/// # Errors
/// It is no text.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, RestoreError> {
    std::str::from_utf8(bytes).map_err(|_| RestoreError::Malformed("a text is not UTF-8"))
}
