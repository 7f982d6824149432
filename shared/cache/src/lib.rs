//! What queries found, kept for the next ones.
//!
//! 1. [`Bounded`] holds values of this process, so many bytes of them; what is used again stays longer.
//! 2. [`ResultCache`] holds bytes for as long as their time to live, in this process ([`LocalResults`]), in a Redis that several
//!    share ([`RedisResults`]), or in one before the other ([`LayeredResults`]). All implementations pass one suite ([`conformance`]).
//! 3. A cache may forget at any time and never makes anything true: whoever finds something checks that it still holds.

mod bounded;
pub mod conformance;
mod layered;
mod local;
mod remote;
mod uses;

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use types::TenantId;

pub use bounded::{Bounded, describe};
pub use layered::LayeredResults;
pub use local::LocalResults;
pub use remote::{AddressError, RedisResults, RedisSettings};
pub use uses::Uses;

/// The key of a result. Keys of two tenants are never equal, whatever else they are made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// Its first bytes are the tenant's.
    bytes: Bytes,
}

impl CacheKey {
    /// The key that `question`, which says all that is asked, has for a tenant.
    #[must_use]
    pub fn new(tenant: TenantId, question: &[u8]) -> Self {
        Self { bytes: [&tenant.0.to_le_bytes()[..], question].concat().into() }
    }

    /// Whose key it is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        TenantId((&self.bytes[..]).get_u64_le())
    }

    /// The key as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Results by key. Two implementations: in this process, and in a store that processes share.
#[async_trait]
pub trait ResultCache: Send + Sync + 'static {
    /// What was put under a key last, if that is not longer ago than its time to live and was not forgotten. A store that
    /// cannot be reached has forgotten everything.
    async fn get(&self, key: &CacheKey) -> Option<Bytes>;

    /// Keeps a value, for `ttl` at most. It takes the place of the one before; nothing is kept that is too large, or for no
    /// time at all.
    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration);
}
