//! How often what was kept served.

use metrics::{Counter, counter};

/// Counts what was asked of a cache. Whether something that it had served is for those to say who asked.
pub struct Uses {
    hits: Counter,
    misses: Counter,
}

impl Uses {
    /// Those of the cache that metrics show by `name`.
    #[must_use]
    pub fn of(name: &'static str) -> Self {
        Self {
            hits: counter!("truenow_cache_hits_total", "cache" => name),
            misses: counter!("truenow_cache_misses_total", "cache" => name),
        }
    }

    /// Counts an answer that the cache had, or had not.
    pub fn count(&self, hit: bool) {
        if hit { &self.hits } else { &self.misses }.increment(1);
    }
}
