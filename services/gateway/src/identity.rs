//! The identity of a batch: who sent it, and which one of theirs it is.

use codec::BatchIdentity;
use types::ApiError;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// Keeps keys and producers apart, so that a key and a producer of the same text never name the same batch. Clients hash
/// their `producer_id` as it is. Part of what the log stores: changing it makes batches that are sent again count twice.
const KEY_SEED: u64 = u64::from_be_bytes(*b"idem-key");
/// Bytes of a `producer_id` or an `Idempotency-Key`.
pub(crate) const PRODUCER_BYTES_MAX: usize = 256;

/// The identity that a `producer_id` and its `sequence` give; none where the `producer_id` is empty.
///
/// # Errors
/// `INVALID_ARGUMENT`: the id is too long, or there is a sequence without an id.
pub(crate) fn of_producer(producer_id: &[u8], sequence: u64) -> Result<Option<BatchIdentity>, ApiError> {
    if producer_id.is_empty() {
        let alone = sequence != 0;
        let error = || ApiError::invalid("producer_id", "a sequence means nothing without a producer_id");
        return if alone { Err(error()) } else { Ok(None) };
    }
    check("producer_id", producer_id)?;
    Ok(Some(BatchIdentity { producer: xxh3_128(producer_id), sequence }))
}

/// The identity that an `Idempotency-Key` gives.
///
/// # Errors
/// `INVALID_ARGUMENT`: the key is empty or too long.
pub(crate) fn of_key(key: &[u8]) -> Result<BatchIdentity, ApiError> {
    if key.is_empty() {
        return Err(ApiError::invalid("Idempotency-Key", "the Idempotency-Key is empty"));
    }
    check("Idempotency-Key", key)?;
    Ok(BatchIdentity { producer: xxh3_128_with_seed(key, KEY_SEED), sequence: 0 })
}

fn check(field: &str, id: &[u8]) -> Result<(), ApiError> {
    if id.len() <= PRODUCER_BYTES_MAX {
        return Ok(());
    }
    let message = format!("{field} has {} bytes, at most {PRODUCER_BYTES_MAX} are allowed", id.len());
    Err(ApiError::invalid(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: equal ids give equal identities, all else different ones or a refusal.
    #[test]
    fn identities_follow_from_their_ids() {
        assert_eq!(of_producer(b"", 0), Ok(None));
        assert_eq!(of_producer(b"", 1).unwrap_err().field.as_deref(), Some("producer_id"));
        let a1 = of_producer(b"a", 1).unwrap().unwrap();
        assert_eq!(of_producer(b"a", 1).unwrap().unwrap(), a1);
        assert_ne!(of_producer(b"a", 2).unwrap().unwrap(), a1);
        assert_ne!(of_producer(b"b", 1).unwrap().unwrap(), a1);
        assert!(of_producer(&[b'x'; 257], 1).is_err());
        assert_eq!(of_key(b"a").unwrap(), of_key(b"a").unwrap());
        assert_ne!(of_key(b"a").unwrap(), of_producer(b"a", 0).unwrap().unwrap());
        assert!(of_key(b"").is_err() && of_key(&[b'x'; 257]).is_err());
    }
}
