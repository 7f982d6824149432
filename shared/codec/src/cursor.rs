//! Cursors: where the next page of raw events begins, and the state that it shows.
//!
//! As opaque as tokens and authenticated by the same key. The first byte tells the two apart, so that none is taken for the
//! other. A cursor is bound to its tenant and to the question that it pages through.

use types::{Offset, PartitionId, TenantId, Timestamp};

use crate::{
    TokenKey,
    token::{PARTITION_BYTES_MIN, TokenError, put, seal, take, take_count, take_u32, unseal},
};

/// No version of tokens.
const VERSION: u8 = 0xc1;
const QUERY_BYTES: usize = 16;

/// What a cursor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whose data it is about.
    pub tenant: TenantId,
    /// The fingerprint of the question.
    pub query: u128,
    /// The last event shown: its time, partition, offset and row in the record.
    pub position: (Timestamp, PartitionId, Offset, u32),
    /// The state that all pages show: per partition, ascending, every record before this offset.
    pub offsets: Vec<(PartitionId, Offset)>,
}

impl Cursor {
    /// The cursor as text: base64url without padding.
    #[must_use]
    pub fn encode(&self, key: &TokenKey) -> String {
        let mut out = vec![VERSION];
        put(&mut out, self.tenant.0);
        out.extend_from_slice(&self.query.to_le_bytes());
        let (time, partition, offset, row) = self.position;
        put(&mut out, time.0.cast_unsigned());
        put(&mut out, u64::from(partition.0));
        put(&mut out, offset.0);
        put(&mut out, u64::from(row));
        put(&mut out, self.offsets.len() as u64);
        for (partition, next) in &self.offsets {
            put(&mut out, u64::from(partition.0));
            put(&mut out, next.0);
        }
        seal(key, out)
    }

    /// Reads a cursor that was made with the same key.
    ///
    /// # Errors
    /// It was not; the caller's `INVALID_ARGUMENT`.
    pub fn decode(key: &TokenKey, text: &str) -> Result<Self, TokenError> {
        read(&unseal(key, VERSION, text)?[1..]).ok_or(TokenError::Forged)
    }
}

fn read(mut rest: &[u8]) -> Option<Cursor> {
    let tenant = TenantId(take(&mut rest)?);
    let (query, behind) = rest.split_first_chunk::<QUERY_BYTES>()?;
    let query = u128::from_le_bytes(*query);
    rest = behind;
    let time = Timestamp(take(&mut rest)?.cast_signed());
    let position = (time, PartitionId(take_u32(&mut rest)?), Offset(take(&mut rest)?), take_u32(&mut rest)?);
    let partitions = take_count(&mut rest, PARTITION_BYTES_MIN)?;
    let offsets = (0..partitions)
        .map(|_| Some((PartitionId(take_u32(&mut rest)?), Offset(take(&mut rest)?))))
        .collect::<Option<Vec<_>>>()?;
    let ascending = offsets.is_sorted_by(|a, b| a.0 < b.0);
    (rest.is_empty() && ascending).then_some(Cursor { tenant, query, position, offsets })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Token;

    fn cursor(seed: u64, partitions: u32) -> Cursor {
        let offsets = (0..partitions).map(|p| (PartitionId(p * 3), Offset(seed.rotate_left(p)))).collect();
        let position = (Timestamp(seed.cast_signed()), PartitionId(partitions), Offset(seed >> 3), seed as u32);
        Cursor { tenant: TenantId(seed), query: u128::from(seed) << 7, position, offsets }
    }

    proptest! {
        /// Goal: a cursor comes back as it was; changed anywhere, cut, or under another key it is refused.
        #[test]
        fn only_what_was_made_here_is_read(seed: u64, partitions in 0_u32..9, at in 0_usize..200, flip in 1_u8..=255) {
            let key = TokenKey::new([7; 32]);
            let cursor = cursor(seed, partitions);
            let text = cursor.encode(&key);
            prop_assert_eq!(Cursor::decode(&key, &text), Ok(cursor));
            prop_assert_eq!(Cursor::decode(&TokenKey::new([8; 32]), &text), Err(TokenError::Forged));
            let mut bytes = text.into_bytes();
            let at = at % bytes.len();
            let cut = String::from_utf8(bytes[..at].to_vec()).unwrap();
            prop_assert!(Cursor::decode(&key, &cut).is_err());
            bytes[at] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(Cursor::decode(&key, &changed).is_err());
            }
        }
    }

    /// Goal: a token is no cursor and a cursor no token, though one key made both.
    #[test]
    fn tokens_and_cursors_are_told_apart() {
        let key = TokenKey::new([7; 32]);
        let token = Token::new(TenantId(1)).encode(&key);
        assert_eq!(Cursor::decode(&key, &token), Err(TokenError::Version));
        assert_eq!(Token::decode(&key, &cursor(5, 2).encode(&key)), Err(TokenError::Version));
    }
}
