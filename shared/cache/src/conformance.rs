//! The suite that every [`ResultCache`] passes. `conformance!` makes a module of tests, one per case; `open` gives an empty
//! cache with room for some MiB.
//!
//! Cases speak of the contract alone: a cache may forget, but it is to keep a few small values for a moment.

use std::time::Duration;

use bytes::Bytes;
use types::TenantId;

use crate::{CacheKey, ResultCache};

/// Long enough that nothing ends meanwhile.
const LONG: Duration = Duration::from_secs(3_600);
/// A time that a case waits for.
const SHORT: Duration = Duration::from_secs(2);

/// Makes the tests of the suite for one cache: `conformance!(name, open)` on a clock of tests, `conformance!(name, open, #[..])` in
/// real time, where `open` is an async function that is given the number of the case, and each test has that attribute.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $open:expr) => {
        $crate::conformance!(@cases $name, [tokio::test(start_paused = true)] [allow(unused_imports)], [async |_: usize| $open]);
    };
    ($name:ident, $open:expr, #[$attribute:meta]) => {
        $crate::conformance!(@cases $name, [tokio::test] [$attribute], [$open]);
    };
    (@cases $name:ident, $test:tt $attribute:tt, $open:tt) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need what its module has, or not")]
            use super::*;

            $crate::conformance!(@case 1 keeps_the_last $test $attribute $open);
            $crate::conformance!(@case 2 tells_keys_apart $test $attribute $open);
            $crate::conformance!(@case 3 tells_tenants_apart $test $attribute $open);
            $crate::conformance!(@case 4 forgets_in_time $test $attribute $open);
            $crate::conformance!(@case 5 keeps_nothing_for_no_time $test $attribute $open);
            $crate::conformance!(@case 6 takes_any_bytes $test $attribute $open);
            $crate::conformance!(@case 7 serves_many_at_once $test $attribute $open);
        }
    };
    (@case $number:literal $case:ident [$test:meta] [$attribute:meta] [$open:expr]) => {
        #[doc = concat!("Goal: the case `", stringify!($case), "` of the suite.")]
        #[$test]
        #[$attribute]
        async fn $case() {
            $crate::conformance::$case(&$open($number).await).await;
        }
    };
}

fn key(tenant: u64, question: &[u8]) -> CacheKey {
    CacheKey::new(TenantId(tenant), question)
}

/// What was put last is what comes.
pub async fn keeps_the_last(cache: &impl ResultCache) {
    let key = key(1, b"q");
    assert_eq!(cache.get(&key).await, None);
    for value in ["one", "two", ""] {
        cache.put(&key, value.into(), LONG).await;
        assert_eq!(cache.get(&key).await, Some(value.into()));
    }
}

/// Questions do not answer for each other, however alike they are.
pub async fn tells_keys_apart(cache: &impl ResultCache) {
    let questions: [&[u8]; 6] = [b"", b"q", b"q\0", b"\0q", b"qq", &[0xFF; 1_000]];
    for (at, question) in questions.iter().enumerate() {
        cache.put(&key(1, question), vec![at as u8].into(), LONG).await;
    }
    for (at, question) in questions.iter().enumerate() {
        assert_eq!(cache.get(&key(1, question)).await, Some(vec![at as u8].into()), "{question:?}");
    }
}

/// A tenant never gets what another put, also where one's question looks like the other's with its tenant.
pub async fn tells_tenants_apart(cache: &impl ResultCache) {
    cache.put(&key(1, b"q"), "of 1".into(), LONG).await;
    assert_eq!(cache.get(&key(2, b"q")).await, None);
    let nested = [&2_u64.to_le_bytes()[..], b"q"].concat();
    cache.put(&key(1, &nested), "nested".into(), LONG).await;
    assert_eq!(cache.get(&key(2, b"q")).await, None);
    cache.put(&key(2, b"q"), "of 2".into(), LONG).await;
    assert_eq!(cache.get(&key(1, b"q")).await, Some("of 1".into()));
}

/// A value ends with its time, and a new one has a time of its own.
pub async fn forgets_in_time(cache: &impl ResultCache) {
    let (first, second) = (key(1, b"first"), key(1, b"second"));
    cache.put(&first, "1".into(), SHORT).await;
    cache.put(&second, "2".into(), SHORT).await;
    tokio::time::sleep(SHORT / 2).await;
    cache.put(&second, "3".into(), LONG).await;
    assert_eq!(cache.get(&first).await, Some("1".into()));
    tokio::time::sleep(SHORT).await;
    assert_eq!((cache.get(&first).await, cache.get(&second).await), (None, Some("3".into())));
}

/// No time is no value, and the one before is not good any more either.
pub async fn keeps_nothing_for_no_time(cache: &impl ResultCache) {
    let key = key(1, b"q");
    cache.put(&key, "1".into(), Duration::ZERO).await;
    assert_eq!(cache.get(&key).await, None);
    cache.put(&key, "2".into(), LONG).await;
    cache.put(&key, "3".into(), Duration::ZERO).await;
    assert_eq!(cache.get(&key).await, None);
}

/// Values are bytes, not text.
pub async fn takes_any_bytes(cache: &impl ResultCache) {
    let value: Bytes = (0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
    cache.put(&key(1, b"q"), value.clone(), LONG).await;
    assert_eq!(cache.get(&key(1, b"q")).await, Some(value));
}

/// Whoever asks while others put gets a value that was put whole.
pub async fn serves_many_at_once(cache: &impl ResultCache) {
    let key = key(1, b"q");
    let value = |n: u8| Bytes::from(vec![n; 1_000]);
    let writer = async {
        for n in 0..100 {
            cache.put(&key, value(n), LONG).await;
            tokio::task::yield_now().await;
        }
    };
    let reader = async {
        for _ in 0..100 {
            if let Some(found) = cache.get(&key).await {
                assert_eq!(found, value(found[0]));
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
    assert_eq!(cache.get(&key).await, Some(value(99)));
}
