//! Strings of a dictionary as bytes: the lengths of all, then all of them, in the order of their codes.

use std::ops::Range;

use types::limits::DIMENSION_BYTES_MAX;

use super::{Put, RestoreError, Take, bytes::text};
use crate::dictionary::{DictionaryView, DictionaryWriter};

/// Appends the strings of codes `range.start + 1..=range.end`.
pub(crate) fn encode_strings(dictionary: DictionaryView<'_>, range: Range<usize>, out: &mut Vec<u8>) {
    let strings = || (range.start..range.end).filter_map(|at| dictionary.get(at as u32 + 1));
    out.u32(range.start as u32);
    out.u32(range.len() as u32);
    strings().for_each(|string| out.u32(string.len() as u32));
    strings().for_each(|string| out.extend_from_slice(string.as_bytes()));
}

/// Adds the strings of a part to a dictionary; they get the codes that they had.
pub(crate) fn decode_strings(bytes: &[u8], dictionary: &mut DictionaryWriter) -> Result<(), RestoreError> {
    let mut take = Take::new(bytes);
    let (from, count) = (take.u32()? as usize, take.u32()? as usize);
    if from != dictionary.len() {
        return Err(RestoreError::Malformed("strings are out of order"));
    }
    let lengths = take.raw(count.saturating_mul(size_of::<u32>()))?.as_chunks::<4>().0;
    let mut strings = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = u32::from_le_bytes(*length) as usize;
        if length > DIMENSION_BYTES_MAX {
            return Err(RestoreError::Malformed("a string is too long"));
        }
        strings.push(text(take.raw(length)?)?);
    }
    take.end()?;
    if !dictionary.has_room_for(&strings) {
        return Err(RestoreError::Malformed("there are too many strings"));
    }
    let mut codes = Vec::with_capacity(strings.len());
    dictionary.intern(strings.len(), |at| strings[at], &mut codes);
    if codes.iter().zip(from + 1..).all(|(code, expected)| *code as usize == expected) {
        Ok(())
    } else {
        Err(RestoreError::Malformed("a string comes twice"))
    }
}
