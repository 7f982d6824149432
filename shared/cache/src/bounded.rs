//! Values of this process, bounded by bytes.
//!
//! The policy is that of `quick_cache` (Clock-PRO, close to S3-FIFO): a value that was asked for again since it came stays when
//! values that were used once pass through, and leaves when it is not asked for any more.

use std::{
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};

/// Parts with locks of their own. Few, for each has its share of the bytes.
const SHARDS: usize = 4;
/// The largest value that is kept, as a share of all bytes: one result must not push out everything else.
const VALUE_SHARE: u64 = 16;
/// What an entry takes beside its key and value: its place in the table and in the order of leaving.
const ENTRY_BYTES: u64 = 64;
/// A guess of an entry's size, from which the table's first size comes.
const ENTRY_BYTES_GUESS: u64 = 16 << 10;

/// A value and what it takes.
#[derive(Clone)]
struct Held<V> {
    value: V,
    bytes: u64,
}

#[derive(Clone)]
struct ByBytes;

impl<K, V> Weighter<K, Held<V>> for ByBytes {
    fn weight(&self, _: &K, held: &Held<V>) -> u64 {
        held.bytes
    }
}

/// Counts what leaves because room is needed.
#[derive(Clone)]
struct Leaving {
    evicted: Counter,
}

impl<K, V> Lifecycle<K, Held<V>> for Leaving {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: K, _: Held<V>) {
        self.evicted.increment(1);
    }
}

/// Values by key, so many bytes of them at most.
pub struct Bounded<K, V> {
    /// `None`: nothing is ever kept.
    cache: Option<Cache<K, Held<V>, ByBytes, DefaultHashBuilder, Leaving>>,
    bytes_max: u64,
    bytes: Gauge,
    /// The bytes last shown. Relaxed: it only spares showing them again.
    shown: AtomicU64,
}

impl<K, V> std::fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, V: Clone> Bounded<K, V> {
    /// An empty cache of at most `bytes_max` bytes, 0: one that keeps nothing. Metrics show it by `name`.
    #[must_use]
    pub fn new(name: &'static str, bytes_max: u64) -> Self {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity((bytes_max / ENTRY_BYTES_GUESS) as usize)
            .weight_capacity(bytes_max)
            .build()
            .expect("the capacities are given");
        let leaving = Leaving { evicted: counter!("truenow_cache_evictions_total", "cache" => name) };
        let cache = || Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), leaving);
        gauge!("truenow_cache_limit_bytes", "cache" => name).set(bytes_max as f64);
        Self {
            cache: (bytes_max > 0).then(cache),
            bytes_max,
            bytes: gauge!("truenow_cache_bytes", "cache" => name),
            shown: AtomicU64::new(0),
        }
    }

    /// Whether anything can be kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.cache.is_some()
    }

    /// The value of a key, if it is there.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.cache.as_ref()?.get(key).map(|held| held.value)
    }

    /// The largest value that would be kept, with its key, bytes.
    fn value_bytes_max(&self) -> u64 {
        self.bytes_max / VALUE_SHARE
    }

    /// Keeps a value that takes `bytes` with its key, unless it is too large.
    pub fn put(&self, key: K, value: V, bytes: u64) {
        let Some(cache) = &self.cache else { return };
        if bytes > self.value_bytes_max() {
            // What was there is of an earlier time and would be found wanting at every look.
            self.remove(&key);
            return;
        }
        cache.insert(key, Held { value, bytes: bytes + ENTRY_BYTES });
        self.show();
    }

    /// Forgets a value.
    pub fn remove(&self, key: &K) {
        if let Some(cache) = &self.cache {
            cache.remove(key);
            self.show();
        }
    }

    /// Bytes of all that is kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, Cache::weight)
    }

    fn show(&self) {
        let bytes = self.bytes();
        if self.shown.swap(bytes, Relaxed) != bytes {
            self.bytes.set(bytes as f64);
        }
    }
}

/// Says what the metrics of caches mean.
pub fn describe() {
    describe_counter!("truenow_cache_hits_total", "Questions that a cache answered.");
    describe_counter!("truenow_cache_misses_total", "Questions that a cache could not answer.");
    describe_counter!("truenow_cache_evictions_total", "Entries that left a cache because it was full.");
    describe_gauge!("truenow_cache_bytes", "Bytes that a cache holds.");
    describe_gauge!("truenow_cache_limit_bytes", "Bytes that a cache may hold.");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whatever comes, the bytes stay within the bound, what is used again outlives what passes through, and a value
    /// that is too large is not kept and takes the one before with it.
    #[test]
    fn bytes_are_bounded() {
        let cache = Bounded::new("test", 64 << 10);
        cache.put(0_u64, "often", 1 << 10);
        for key in 1..5_000 {
            cache.put(key, "once", 1 << 10);
            assert_eq!(cache.get(&0), Some("often"), "after {key}");
            assert!(cache.bytes() <= 64 << 10);
        }
        assert!(cache.bytes() > 32 << 10, "room is used: {}", cache.bytes());
        cache.put(0, "large", (4 << 10) + 1);
        assert_eq!((cache.get(&0), cache.shown.load(Relaxed)), (None, cache.bytes()));
        cache.put(1, "new", 100);
        cache.remove(&1);
        assert_eq!(cache.get(&1), None);
    }

    /// Goal: a cache of no bytes keeps nothing.
    #[test]
    fn none_is_off() {
        let cache = Bounded::new("test", 0);
        cache.put(1_u64, (), 0);
        assert_eq!((cache.get(&1), cache.bytes(), cache.is_on()), (None, 0, false));
    }
}
