//! In which form columns are held, as bytes: one that says how many bytes an item has and what items stand for, and what else
//! is needed to read them.
//!
//! | byte | items | behind it |
//! |---|---|---|
//! | 1, 2, 4 | codes; of times: offsets | of times: 8, the base |
//! | 8 | doubles; of times: times | |
//! | 17, 18, 20 | digits of decimals, of 1, 2, 4 bytes | 8, 1: base and exponent |

use kernels::Scale;

use super::{Put, RestoreError, Take};
use crate::{
    columns::Width,
    segment::{Stored, StoredTimes},
};

const WHOLE: u8 = 8;
/// Added to the width of digits.
const DIGITS: u8 = 16;
const UNKNOWN: RestoreError = RestoreError::Malformed("a column is held in no known way");

/// What the items of a column stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Codes(Width),
    Doubles,
    Decimals(Width, Scale),
}

impl Form {
    /// `None` for a column that is absent.
    pub(crate) fn of(stored: &Stored) -> Option<Self> {
        match stored {
            Stored::Absent => None,
            Stored::Codes { width, .. } => Some(Self::Codes(*width)),
            Stored::Values { .. } => Some(Self::Doubles),
            Stored::Decimals { width, scale, .. } => Some(Self::Decimals(*width, *scale)),
        }
    }

    pub(crate) fn item_bytes(self) -> usize {
        match self {
            Self::Codes(width) | Self::Decimals(width, _) => width.bytes(),
            Self::Doubles => size_of::<f64>(),
        }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Codes(width) => out.u8(width.bytes() as u8),
            Self::Doubles => out.u8(WHOLE),
            Self::Decimals(width, scale) => {
                out.u8(DIGITS + width.bytes() as u8);
                out.i64(scale.base());
                out.u8(scale.exponent());
            }
        }
    }

    /// What [`Form::encode`] wrote, of which `byte` was the first.
    pub(crate) fn decode(byte: u8, take: &mut Take<'_>) -> Result<Self, RestoreError> {
        match byte {
            WHOLE => Ok(Self::Doubles),
            0..DIGITS => Ok(Self::Codes(width(byte)?)),
            _ => {
                let scale = Scale::new(take.i64()?, take.u8()?).ok_or(UNKNOWN)?;
                Ok(Self::Decimals(width(byte - DIGITS)?, scale))
            }
        }
    }
}

impl StoredTimes {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Whole => out.u8(WHOLE),
            Self::Offsets { width, base } => {
                out.u8(width.bytes() as u8);
                out.i64(base);
            }
        }
    }

    pub(crate) fn decode(take: &mut Take<'_>) -> Result<Self, RestoreError> {
        match take.u8()? {
            WHOLE => Ok(Self::Whole),
            byte => Ok(Self::Offsets { width: width(byte)?, base: take.i64()? }),
        }
    }
}

fn width(bytes: u8) -> Result<Width, RestoreError> {
    match bytes {
        1 => Ok(Width::One),
        2 => Ok(Width::Two),
        4 => Ok(Width::Four),
        _ => Err(UNKNOWN),
    }
}
