//! Who asks: the tenant comes from the credential alone.
//!
//! 1. Without authentication configured everybody is [`TenantId::DEFAULT`]; such a service binds to loopback alone.
//! 2. Calls between the processes of a cluster (`truenow.internal.*`) show the cluster's key, and speak for any tenant; a process
//!    without a cluster key takes none of them.
//! 3. A missing, malformed and wrong credential get the same answer, in a time that does not depend on how wrong it is.

use std::{
    hint::black_box,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use codec::{CLUSTER_HEADER, ClusterKey};
use http::{HeaderMap, header};
use types::{ApiError, ErrorCode, TenantId};

/// Decides whose request it is.
#[derive(Clone)]
pub enum Authenticator {
    /// No authentication: everybody is the default tenant.
    Open,
    /// One key for all clients, all of them the default tenant.
    StaticKey(Arc<str>),
    /// A process of a cluster.
    Cluster {
        /// What calls of the other processes show.
        key: ClusterKey,
        /// The key of all clients, as [`Authenticator::StaticKey`]; `None`: as [`Authenticator::Open`].
        clients: Option<Arc<str>>,
    },
}

/// What begins the path of a call that is not for clients.
pub(crate) const INTERNAL_PREFIX: &str = "/truenow.internal.";

impl Authenticator {
    /// [`Authenticator::StaticKey`] where a key is configured, else [`Authenticator::Open`].
    #[must_use]
    pub fn from_key(key: Option<&str>) -> Self {
        key.map_or(Self::Open, |key| Self::StaticKey(key.into()))
    }

    /// The authenticator of a process of a cluster.
    #[must_use]
    pub fn of_cluster(key: ClusterKey, clients: Option<&str>) -> Self {
        Self::Cluster { key, clients: clients.map(Into::into) }
    }

    /// Whether clients must present a credential.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.client_key().is_some()
    }

    fn client_key(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::StaticKey(key) => Some(key),
            Self::Cluster { clients, .. } => clients.as_deref(),
        }
    }

    /// Whether the call of an internal method comes from within the cluster.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where it does not show the cluster's key, at about this time and for this path.
    pub(crate) fn internal(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let refused = |why: String| Err(ApiError::new(ErrorCode::Unauthenticated, why));
        let Self::Cluster { key, .. } = self else {
            return refused("this process belongs to no cluster".into());
        };
        let header = headers.get(CLUSTER_HEADER).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        key.verify(path, header, now_ms).or_else(|error| refused(error.to_string()))
    }

    /// The tenant of a request with these headers (for gRPC: `request.metadata().as_ref()`, though the tenant already
    /// lies in the extensions of every request that reaches a handler).
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a good `Authorization: Bearer KEY`.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, ApiError> {
        let Some(key) = self.client_key() else { return Ok(TenantId::DEFAULT) };
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
            Self::Cluster { .. } => "Cluster(…)",
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
    /// Goal: an internal call passes by the cluster's key alone, for its own method and in time; clients' keys open nothing
    /// there, and a process without a cluster key takes none at all.
    #[test]
    fn internal_calls_show_the_clusters_key() {
        const PATH: &str = "/truenow.internal.v1.Catalog/Watch";
        let now_ms = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let key = || ClusterKey::new("the key of this cluster");
        let signed =
            |header: String| HeaderMap::from_iter([(CLUSTER_HEADER.parse().unwrap(), header.parse().unwrap())]);
        let cluster = Authenticator::of_cluster(key(), Some("0123456789abcdef"));
        assert_eq!(cluster.internal(PATH, &signed(key().sign(PATH, now_ms()))), Ok(()));
        for (why, bad) in [
            ("no header", HeaderMap::new()),
            ("a client's key", headers(&["Bearer 0123456789abcdef"])),
            ("another key", signed(ClusterKey::new("the key of that cluster").sign(PATH, now_ms()))),
            ("another method", signed(key().sign("/truenow.internal.v1.Catalog/Report", now_ms()))),
            ("long ago", signed(key().sign(PATH, now_ms() - codec::SKEW_MS_MAX - 1_000))),
        ] {
            assert_eq!(cluster.internal(PATH, &bad).unwrap_err().code, ErrorCode::Unauthenticated, "{why}");
        }
        let good = signed(key().sign(PATH, now_ms()));
        for alone in [Authenticator::Open, Authenticator::from_key(Some("0123456789abcdef"))] {
            assert_eq!(alone.internal(PATH, &good).unwrap_err().code, ErrorCode::Unauthenticated);
        }
        assert_eq!(cluster.tenant(&headers(&["Bearer 0123456789abcdef"])), Ok(TenantId::DEFAULT));
        assert!(cluster.tenant(&good).is_err());
        assert!(Authenticator::of_cluster(key(), None).tenant(&HeaderMap::new()).is_ok());
    }
}
