//! Bytes out and in: little-endian numbers, LEB128 lengths, columns of numbers in as few bytes as their greatest needs.

use super::WireError;

const VARINT_BYTES_MAX: u32 = 10;

/// What is written so far.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.tag(flag.into());
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(crate) fn signed(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn float(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| each(self, item));
    }

    /// A flag, and what there is.
    pub(crate) fn option<T>(&mut self, item: Option<T>, each: impl FnOnce(&mut Self, T)) {
        self.flag(item.is_some());
        if let Some(item) = item {
            each(self, item);
        }
    }

    /// Numbers of which the reader knows how many there are.
    pub(crate) fn column(&mut self, numbers: impl ExactSizeIterator<Item = u64> + Clone) {
        let greatest = numbers.clone().fold(0, u64::max);
        let width = width_of(greatest);
        self.tag(width as u8);
        self.0.reserve(numbers.len() * width);
        match width {
            1 => self.0.extend(numbers.map(|number| number as u8)),
            2 => numbers.for_each(|number| self.raw(&(number as u16).to_le_bytes())),
            4 => numbers.for_each(|number| self.raw(&(number as u32).to_le_bytes())),
            _ => numbers.for_each(|number| self.raw(&number.to_le_bytes())),
        }
    }

    /// Floats of which the reader knows how many there are.
    pub(crate) fn floats(&mut self, values: impl ExactSizeIterator<Item = f64>) {
        self.0.reserve(values.len() * size_of::<f64>());
        values.for_each(|value| self.float(value));
    }
}

/// Bytes of which a number takes 1, 2, 4 or 8.
fn width_of(number: u64) -> usize {
    let bits = (u64::BITS - number.leading_zeros()) as usize;
    bits.div_ceil(8).next_power_of_two()
}

/// What is left to read of what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.0.len())) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn tag(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, WireError> {
        match self.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for at in 0..VARINT_BYTES_MAX {
            let byte = self.tag()?;
            let bits = u64::from(byte & 0x7f);
            if at == VARINT_BYTES_MAX - 1 && bits > 1 {
                break;
            }
            number |= bits << (7 * at);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Invalid("a number is larger than 64 bits"))
    }

    /// A number that has to be at most `max`.
    pub(crate) fn number_upto(&mut self, max: u64) -> Result<u64, WireError> {
        let number = self.number()?;
        if number <= max { Ok(number) } else { Err(WireError::Invalid("a number is too large")) }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(self.number_upto(u64::from(u32::MAX))? as u32)
    }

    pub(crate) fn size(&mut self) -> Result<usize, WireError> {
        Ok(self.number_upto(usize::MAX as u64)? as usize)
    }

    /// The place of one of `count` things.
    pub(crate) fn place(&mut self, count: usize) -> Result<usize, WireError> {
        let place = self.size()?;
        if place < count { Ok(place) } else { Err(WireError::Invalid("a place has nothing")) }
    }

    pub(crate) fn signed(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn float(&mut self) -> Result<f64, WireError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        str::from_utf8(self.blob()?).map_err(|_| WireError::Invalid("a text is not UTF-8"))
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.size()?;
        self.raw(length)
    }

    /// The length of a list whose items take a byte each at least.
    pub(crate) fn length(&mut self) -> Result<usize, WireError> {
        let length = self.size()?;
        if length <= self.0.len() { Ok(length) } else { Err(WireError::Truncated) }
    }

    /// A list of at most `max` items, which take a byte each at least.
    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let length = self.length()?;
        if length > max {
            return Err(WireError::Invalid("a list is too long"));
        }
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(each(self)?);
        }
        Ok(items)
    }

    pub(crate) fn option<T>(
        &mut self,
        each: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.flag()? { each(self).map(Some) } else { Ok(None) }
    }

    /// So many numbers, each at most `max`, as what `make` makes of them.
    pub(crate) fn column<T>(&mut self, length: usize, max: u64, make: impl Fn(u64) -> T) -> Result<Vec<T>, WireError> {
        let width = usize::from(self.tag()?);
        if !matches!(width, 1 | 2 | 4 | 8) {
            return Err(WireError::Invalid("a column has an unknown width"));
        }
        let bytes = self.raw(length.checked_mul(width).ok_or(WireError::Truncated)?)?;
        let mut greatest = 0;
        let mut taken = |number: u64| {
            greatest = greatest.max(number);
            make(number)
        };
        let numbers = match width {
            1 => bytes.iter().map(|&byte| taken(byte.into())).collect(),
            2 => bytes.as_chunks().0.iter().map(|&bytes| taken(u16::from_le_bytes(bytes).into())).collect(),
            4 => bytes.as_chunks().0.iter().map(|&bytes| taken(u32::from_le_bytes(bytes).into())).collect(),
            _ => bytes.as_chunks().0.iter().map(|&bytes| taken(u64::from_le_bytes(bytes))).collect(),
        };
        if greatest <= max { Ok(numbers) } else { Err(WireError::Invalid("a number of a column is too large")) }
    }

    /// So many numbers of 32 bits, each less than `end`.
    pub(crate) fn column_below(&mut self, length: usize, end: usize) -> Result<Vec<u32>, WireError> {
        match (end as u64).checked_sub(1) {
            Some(max) => self.column(length, max.min(u64::from(u32::MAX)), |number| number as u32),
            None if length == 0 => self.column(0, 0, |number| number as u32),
            None => Err(WireError::Invalid("a place has nothing")),
        }
    }

    /// So many floats.
    pub(crate) fn floats(&mut self, length: usize) -> Result<Vec<f64>, WireError> {
        let bytes = self.raw(length.checked_mul(size_of::<f64>()).ok_or(WireError::Truncated)?)?;
        let (values, _) = bytes.as_chunks();
        Ok(values.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
    }

    /// So many floats, none of which is infinite or none at all.
    pub(crate) fn finite(&mut self, length: usize) -> Result<Vec<f64>, WireError> {
        let values = self.floats(length)?;
        let all = values.iter().all(|value| value.is_finite());
        if all { Ok(values) } else { Err(WireError::Invalid("a value is not finite")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: numbers, columns and texts come back as they were, and a column takes no more bytes than its greatest needs.
        #[test]
        fn bytes_come_back(
            number: u64,
            bits in 0..65_u32,
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            texts in prop::collection::vec(".{0,9}", 0..5),
            float: u64,
        ) {
            let numbers: Vec<u64> = numbers.iter().map(|number| number.checked_shr(64 - bits).unwrap_or(0)).collect();
            let mut out = Writer::default();
            out.number(number);
            out.column(numbers.iter().copied());
            out.list(&texts, |out, text| out.text(text));
            out.float(f64::from_bits(float));
            let bytes = out.into_bytes();
            let mut from = Reader::new(&bytes);
            prop_assert_eq!(from.number().unwrap(), number);
            let before = from.0.len();
            prop_assert_eq!(from.column(numbers.len(), u64::MAX, |number| number).unwrap(), &numbers[..]);
            let width = [1, 2, 4, 8].into_iter().find(|width| bits <= width * 8).unwrap() as usize;
            prop_assert!(before - from.0.len() <= 1 + width * numbers.len());
            prop_assert_eq!(from.list(5, |from| from.text().map(str::to_owned)).unwrap(), texts);
            prop_assert_eq!(from.float().unwrap().to_bits(), float);
            prop_assert_eq!(from.finish(), Ok(()));
        }
    }

    /// Goal: a length that nothing stands behind is refused before anything is made for it.
    #[test]
    fn lengths_are_not_believed() {
        let mut out = Writer::default();
        out.number(u64::MAX);
        let bytes = out.into_bytes();
        assert_eq!(Reader::new(&bytes).list(usize::MAX, Reader::tag), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[2, 1, 1]).list(1, Reader::tag), Err(WireError::Invalid("a list is too long")));
        assert_eq!(Reader::new(&bytes).blob(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[8]).column(usize::MAX, 9, |n| n), Err(WireError::Truncated));
        assert_eq!(
            Reader::new(&[1, 7]).column_below(1, 7),
            Err(WireError::Invalid("a number of a column is too large"))
        );
        assert!(matches!(Reader::new(&[0xff; 11]).number(), Err(WireError::Invalid(_))));
    }
}
