//! The cluster key: by it a call from one process of a cluster to another shows that it comes from within.
//!
//! A call carries `time-mac`: the caller's time in milliseconds since the epoch as 16 hexadecimal digits, and the HMAC-SHA256
//! over the purpose, the method's path and that time as 64. It shows that who made it knew the key, for this method and at this
//! time, within [`SKEW_MS_MAX`] either way. Whoever reads the network may send a call of the same method once more until
//! then, and sees and could change what is in the calls: only encryption (mTLS) would keep that out, and a digest of the
//! body would not, as answers and streams stay open. The network between the nodes is to be one's own.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::TokenKey;

/// How far the clocks of two machines of a cluster may be apart, milliseconds.
pub const SKEW_MS_MAX: u64 = 30_000;
/// The header of a call that shows the key.
pub const CLUSTER_HEADER: &str = "truenow-cluster";

/// What the HMACs are for: one of another purpose is never taken for one of a call.
const CALL: &[u8] = b"truenow call 1\0";
const TOKENS: &[u8] = b"truenow tokens 1\0";
const TIME_CHARS: usize = 16;
const MAC_CHARS: usize = 64;

/// The secret that all processes of a cluster share.
#[derive(Clone)]
pub struct ClusterKey(Hmac<Sha256>);

/// Why a call is not taken for one from within the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClusterKeyError {
    /// Its header is missing, malformed, of another key or of another method.
    #[error("the call does not show this cluster's key")]
    Forged,
    /// It was made too long ago, or is ahead of the time here.
    #[error("the call's time is more than {} s off: set the clocks of the machines", SKEW_MS_MAX / 1_000)]
    Skewed,
}

impl ClusterKey {
    /// The key of a secret text.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// The value of the header of a call of the method with this path (`/package.Service/Method`).
    #[must_use]
    pub fn sign(&self, path: &str, now_ms: u64) -> String {
        let mut header = String::with_capacity(TIME_CHARS + 1 + MAC_CHARS);
        push_hex(&mut header, &now_ms.to_be_bytes());
        header.push('-');
        push_hex(&mut header, &self.call(path, now_ms).finalize().into_bytes());
        header
    }

    /// Whether the value of a call's header was made with this key for this path, at about this time. How long it takes tells
    /// nothing of how wrong it is.
    ///
    /// # Errors
    /// It was not.
    pub fn verify(&self, path: &str, header: &[u8], now_ms: u64) -> Result<(), ClusterKeyError> {
        let (time, mac) = header.split_at_checked(TIME_CHARS).ok_or(ClusterKeyError::Forged)?;
        let time = unhex::<8>(time).map(u64::from_be_bytes).ok_or(ClusterKeyError::Forged)?;
        let mac = mac.strip_prefix(b"-").and_then(unhex::<32>).ok_or(ClusterKeyError::Forged)?;
        // First whether it is one at all: who does not know the key learns nothing of the clock here.
        self.call(path, time).verify_slice(&mac).map_err(|_| ClusterKeyError::Forged)?;
        if time.abs_diff(now_ms) > SKEW_MS_MAX { Err(ClusterKeyError::Skewed) } else { Ok(()) }
    }

    /// The key of the tokens of this cluster, which every gateway and query API derives for itself.
    #[must_use]
    pub fn token_key(&self) -> TokenKey {
        let mut mac = self.0.clone();
        mac.update(TOKENS);
        TokenKey::new(mac.finalize().into_bytes().into())
    }

    fn call(&self, path: &str, now_ms: u64) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(CALL);
        // Its length is fixed, so that no path and time read as another path and time.
        mac.update(&now_ms.to_be_bytes());
        mac.update(path.as_bytes());
        mac
    }
}

impl fmt::Debug for ClusterKey {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn unhex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_754_772_362_000;
    const PATH: &str = "/truenow.internal.v1.Catalog/Watch";

    fn key() -> ClusterKey {
        ClusterKey::new("0123456789abcdef0123456789abcdef")
    }

    /// Goal: a call is taken within the skew, and not a millisecond beyond it, whichever clock is ahead.
    #[test]
    fn a_call_is_good_for_a_time() {
        let header = key().sign(PATH, NOW);
        for now in [NOW, NOW - SKEW_MS_MAX, NOW + SKEW_MS_MAX] {
            assert_eq!(key().verify(PATH, header.as_bytes(), now), Ok(()));
        }
        for now in [NOW - SKEW_MS_MAX - 1, NOW + SKEW_MS_MAX + 1, 0, u64::MAX] {
            assert_eq!(key().verify(PATH, header.as_bytes(), now), Err(ClusterKeyError::Skewed));
        }
    }

    /// Goal: another key, another method, another time and no header at all are forged, and the key is never shown.
    #[test]
    fn what_is_not_signed_is_forged() {
        let good = key().sign(PATH, NOW);
        let later = format!("{}{}", &key().sign(PATH, NOW + 1)[..TIME_CHARS], &good[TIME_CHARS..]);
        let other_key = ClusterKey::new("0123456789abcdef0123456789abcdeg").sign(PATH, NOW);
        let other_method = key().sign("/truenow.internal.v1.Catalog/Report", NOW);
        let tokens = key().token_key();
        let other_purpose = crate::Token::new(types::TenantId(1)).encode(&tokens);
        for bad in ["", "-", &good[1..], &good[..good.len() - 1], &later, &other_key, &other_method, &other_purpose] {
            assert_eq!(key().verify(PATH, bad.as_bytes(), NOW), Err(ClusterKeyError::Forged), "{bad}");
        }
        assert!(!format!("{:?}", key()).contains("0123"));
    }

    proptest! {
        /// Goal: whatever bytes come, nothing panics and nothing but the signed header passes.
        #[test]
        fn foreign_bytes_are_forged(bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0_usize..81, flip in 1_u8..=255) {
            prop_assert_eq!(key().verify(PATH, &bytes, NOW), Err(ClusterKeyError::Forged));
            let mut header = key().sign(PATH, NOW).into_bytes();
            header[at] ^= flip;
            // Upper-case digits are the same digits.
            let same = header.to_ascii_lowercase() == key().sign(PATH, NOW).into_bytes();
            prop_assert_eq!(key().verify(PATH, &header, NOW).is_ok(), same);
        }
    }
}
