//! Results of this process before those that processes share.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{CacheKey, ResultCache, Uses};

/// Values that are on their way to the shared cache, at most; more are not sent.
const SENDING_MAX: usize = 32;

/// A near cache before one that is further away. What is put goes to both; nobody waits for the far one to have it.
pub struct LayeredResults {
    near: Arc<dyn ResultCache>,
    far: Arc<dyn ResultCache>,
    sending: Arc<Semaphore>,
    far_uses: Uses,
}

impl LayeredResults {
    /// `near` before `far`.
    #[must_use]
    pub fn new(near: Arc<dyn ResultCache>, far: Arc<dyn ResultCache>) -> Self {
        Self { near, far, sending: Arc::new(Semaphore::new(SENDING_MAX)), far_uses: Uses::of("shared_results") }
    }
}

#[async_trait]
impl ResultCache for LayeredResults {
    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        if let Some(value) = self.near.get(key).await {
            return Some(value);
        }
        let value = self.far.get(key).await;
        self.far_uses.count(value.is_some());
        // It is not kept near, for how much of its time is left is not known here.
        value
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        self.near.put(key, value.clone(), ttl).await;
        let Ok(sends) = Arc::clone(&self.sending).try_acquire_owned() else { return };
        let (far, key) = (Arc::clone(&self.far), key.clone());
        tokio::spawn(async move {
            far.put(&key, value, ttl).await;
            drop(sends);
        });
    }
}

#[cfg(test)]
mod tests {
    use types::TenantId;

    use super::*;
    use crate::LocalResults;

    const LONG: Duration = Duration::from_secs(3_600);

    fn local() -> Arc<LocalResults> {
        Arc::new(LocalResults::new(64 << 20))
    }

    crate::conformance!(layered, LayeredResults::new(local(), local()));

    /// Goal: what one process put another finds, and what is near is taken from there.
    #[tokio::test]
    async fn far_results_serve_others() {
        let far = local();
        let one = LayeredResults::new(local(), Arc::clone(&far) as Arc<dyn ResultCache>);
        let other = LayeredResults::new(local(), Arc::clone(&far) as Arc<dyn ResultCache>);
        let key = CacheKey::new(TenantId(1), b"q");
        one.put(&key, "1".into(), LONG).await;
        while far.get(&key).await.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(other.get(&key).await, Some("1".into()));
        far.put(&key, "2".into(), LONG).await;
        assert_eq!((one.get(&key).await, other.get(&key).await), (Some("1".into()), Some("2".into())));
    }
}
