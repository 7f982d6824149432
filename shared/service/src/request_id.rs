//! The id of a request: the client's, if it is harmless, else a new one; in every log line and in the answer.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken from a client, bytes.
const ID_BYTES_MAX: usize = 64;

/// A request's id, in the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is made of visible ASCII alone")
    }

    /// The client's id if it is short and made of `[A-Za-z0-9._-]`, else a new one.
    pub(crate) fn accept_or_make(headers: &HeaderMap) -> Self {
        match headers.get(REQUEST_ID) {
            Some(id) if is_harmless(id.as_bytes()) => Self(id.clone()),
            _ => Self::make(),
        }
    }

    /// The id as it goes into an answer. HTTP/2 is told to keep it out of the connection's table of headers (RFC 7541,
    /// section 7.1.3): it never comes again, and would drive out what does.
    pub(crate) fn header_value(&self) -> HeaderValue {
        let mut value = self.0.clone();
        value.set_sensitive(true);
        value
    }

    /// Unique in the process by its counter, between processes by a random beginning.
    fn make() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
        // Relaxed: only that no number is given twice matters, which every read-modify-write holds.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut text = String::with_capacity(33);
        write!(text, "{process:016x}-{number:x}").expect("a String takes every text");
        Self(HeaderValue::try_from(text).expect("hexadecimal digits are visible ASCII"))
    }
}

fn is_harmless(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nothing but a short plain id is taken over, and new ids differ.
    #[test]
    fn ids_are_harmless_and_unique() {
        let with = |id: &'static [u8]| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]);
            RequestId::accept_or_make(&headers)
        };
        assert_eq!(with(b"req-1.A_b").as_str(), "req-1.A_b");
        for bad in [&b""[..], b"a b", b"\"},{\"", b"\xc3\xa4", &[b'x'; 65]] {
            assert_ne!(with(bad).as_str().as_bytes(), bad);
        }
        assert_ne!(with(b""), with(b""));
    }
}
