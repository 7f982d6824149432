//! Who asks: the tenant comes from the credential alone.
//!
//! 1. Without authentication configured everybody is [`TenantId::DEFAULT`]; such a service binds to loopback alone.
//! 2. A missing, malformed and wrong credential get the same answer, in a time that does not depend on how wrong it is.

use std::{hint::black_box, sync::Arc};

use http::{HeaderMap, header};
use types::{ApiError, ErrorCode, TenantId};

/// Decides whose request it is.
#[derive(Clone)]
pub enum Authenticator {
    /// No authentication: everybody is the default tenant.
    Open,
    /// One key for all clients, all of them the default tenant.
    StaticKey(Arc<str>),
}

impl Authenticator {
    /// [`Authenticator::StaticKey`] where a key is configured, else [`Authenticator::Open`].
    #[must_use]
    pub fn from_key(key: Option<&str>) -> Self {
        key.map_or(Self::Open, |key| Self::StaticKey(key.into()))
    }

    /// Whether clients must present a credential.
    #[must_use]
    pub fn is_required(&self) -> bool {
        matches!(self, Self::StaticKey(_))
    }

    /// The tenant of a request with these headers (for gRPC: `request.metadata().as_ref()`, though the tenant already
    /// lies in the extensions of every request that reaches a handler).
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a good `Authorization: Bearer KEY`.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, ApiError> {
        let Self::StaticKey(key) = self else { return Ok(TenantId::DEFAULT) };
        let presented = bearer(headers).unwrap_or_default();
        if equal_in_constant_time(presented, key.as_bytes()) {
            Ok(TenantId::DEFAULT)
        } else {
            Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "a valid key is needed: send the header Authorization: Bearer KEY",
            ))
        }
    }
}

/// Shows which kind it is, never the key.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::StaticKey(_) => "StaticKey(…)",
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    // Two credentials in one request: nobody could say which one counts.
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

/// Whether the two are equal. The time depends on the length of `presented` alone, which its sender knows.
fn equal_in_constant_time(presented: &[u8], secret: &[u8]) -> bool {
    let mut difference = presented.len() ^ secret.len();
    for (index, byte) in presented.iter().enumerate() {
        let expected = secret.get(index % secret.len().max(1)).copied().unwrap_or_default();
        // The barrier keeps the compiler from leaving the loop at the first difference.
        difference = black_box(difference | usize::from(byte ^ expected));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    /// Goal: exactly the configured key passes; all others get one and the same error.
    #[test]
    fn only_the_key_passes() {
        let authenticator = Authenticator::from_key(Some("0123456789abcdef"));
        for good in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert_eq!(authenticator.tenant(&headers(&[good])), Ok(TenantId::DEFAULT));
        }
        let refused = authenticator.tenant(&HeaderMap::new()).unwrap_err();
        let bad: &[&[&str]] = &[
            &[""],
            &["Bearer "],
            &["Bearer 0123456789abcdeF"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ];
        for values in bad {
            assert_eq!(authenticator.tenant(&headers(values)), Err(refused.clone()), "{values:?}");
        }
        assert_eq!(Authenticator::from_key(None).tenant(&HeaderMap::new()), Ok(TenantId::DEFAULT));
        assert!(!format!("{authenticator:?}").contains("0123"));
    }
}
