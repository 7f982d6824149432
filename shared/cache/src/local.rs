//! Results in this process.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{Bounded, CacheKey, ResultCache};

/// The results of one process, bounded by bytes.
#[derive(Debug)]
pub struct LocalResults {
    results: Bounded<CacheKey, (Instant, Bytes)>,
}

impl LocalResults {
    /// No results yet; at most `bytes_max` bytes of them.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { results: Bounded::new("results", bytes_max) }
    }
}

#[async_trait]
impl ResultCache for LocalResults {
    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let (until, value) = self.results.get(key)?;
        if until <= Instant::now() {
            self.results.remove(key);
            return None;
        }
        Some(value)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        if ttl.is_zero() {
            return self.results.remove(key);
        }
        let bytes = key.as_bytes().len() + value.len();
        self.results.put(key.clone(), (Instant::now() + ttl, value), bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::conformance!(local, LocalResults::new(64 << 20));

    /// Goal: the bytes that are kept are those of keys and values, within the bound.
    #[tokio::test]
    async fn results_are_bounded() {
        let cache = LocalResults::new(1 << 20);
        for question in 0..1_000_u32 {
            let key = CacheKey::new(types::TenantId(1), &question.to_le_bytes());
            cache.put(&key, vec![0; 10_000].into(), Duration::from_secs(60)).await;
            assert!(cache.results.bytes() <= 1 << 20);
        }
        assert!(cache.results.bytes() > 1 << 19);
    }
}
