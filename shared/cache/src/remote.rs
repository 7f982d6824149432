//! Results in Redis, shared by processes.
//!
//! 1. A value carries its format, its whole key and a checksum of both: what is damaged, of another program or of another question
//!    is nothing. So a key of Redis may be a hash; the tenant stands in it, so that tenants never meet in one.
//! 2. Nobody waits for Redis longer than [`RedisSettings::timeout`], and nobody asks it while it is away ([`Breaker`]).
//! 3. A Redis whose machine vanished without a word is noticed within seconds, so that the one that takes its name over is found.
//!    Without that the connection to the old one stays for as long as the system sends its bytes again, a quarter of an hour.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use admission::{Breaker, BreakerConfig, BreakerState, Monotonic};
use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes};
use metrics::{Counter, Gauge, counter, gauge};
use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo as _, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{CacheKey, ResultCache};

/// Of the keys and of what is kept.
const FORMAT: u8 = 1;
/// How long making a connection may take; calls do not wait for it longer than for anything else.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back for so long is given up, whether something waits for it or not.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// After so long without a byte the other side is asked for one, and so often again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The format, the checksum and the length of the key.
const HEAD_BYTES: usize = size_of::<u8>() + size_of::<u64>() + size_of::<u32>();

/// Limits of a shared cache.
#[derive(Debug, Clone, Copy)]
pub struct RedisSettings {
    /// How long a call may take.
    pub timeout: Duration,
    /// Bytes of a value with its key, at most.
    pub value_bytes_max: usize,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(5), value_bytes_max: 1 << 20 }
    }
}

/// The URL of a Redis cannot be used. It is not shown, for it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("the address of the cache is not of the form redis://:PASSWORD@HOST:PORT/DATABASE")]
pub struct AddressError;

/// Results that processes share.
pub struct RedisResults {
    connection: ConnectionManager,
    settings: RedisSettings,
    breaker: Mutex<Breaker>,
    /// The breaker's time is the time since then.
    began: Instant,
    state: Gauge,
    refused: Counter,
}

impl std::fmt::Debug for RedisResults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection holds the password.
        f.debug_struct("RedisResults").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RedisResults {
    /// The cache at `url`, `redis://:PASSWORD@HOST:PORT/DATABASE`. It need not be there yet. Called within a runtime.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(url: &str, settings: RedisSettings) -> Result<Self, AddressError> {
        let address = url.into_connection_info().map_err(|_| AddressError)?;
        let client = Client::open(address.set_tcp_settings(tcp())).map_err(|_| AddressError)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(settings.timeout))
            .set_number_of_retries(1);
        let connection = client.get_connection_manager_lazy(config).map_err(|_| AddressError)?;
        // So that the first question finds a connection.
        let mut first = connection.clone();
        tokio::spawn(async move { redis::cmd("PING").exec_async(&mut first).await });
        let results = Self {
            connection,
            settings,
            breaker: Mutex::new(Breaker::new(BreakerConfig::default())),
            began: Instant::now(),
            state: gauge!("truenow_breaker_state", "to" => "redis"),
            refused: counter!("truenow_breaker_refused_total", "to" => "redis"),
        };
        results.state.set(BreakerState::Closed.as_number());
        Ok(results)
    }

    /// Makes a call, unless Redis is away. `None`: it did not come to anything.
    async fn call<T: FromRedisValue>(&self, command: Cmd) -> Option<T> {
        let admitted = self.breaker().admit(self.now());
        let Ok(permit) = admitted else {
            self.refused.increment(1);
            return None;
        };
        let mut connection = self.connection.clone();
        let result = tokio::time::timeout(self.settings.timeout, command.query_async(&mut connection)).await;
        let result: Result<T, CallError> = result.map_err(|_| CallError::TimedOut).and_then(|done| Ok(done?));
        let mut breaker = self.breaker();
        match &result {
            Ok(_) => breaker.succeeded(permit),
            Err(error) => {
                breaker.failed(permit, self.now());
                if breaker.state() == BreakerState::Open {
                    tracing::warn!(%error, "the shared cache of results is away; queries go on without it");
                }
            }
        }
        self.state.set(breaker.state().as_number());
        result.ok()
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("nothing panics under this lock")
    }

    fn now(&self) -> Monotonic {
        Monotonic::from_elapsed(self.began.elapsed())
    }
}

/// How connections behave: small questions are sent at once, for an answer is waited for; see rule 3 of the module.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENT_MAX);
    settings
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer in time")]
    TimedOut,
    #[error(transparent)]
    Redis(#[from] RedisError),
}

#[async_trait]
impl ResultCache for RedisResults {
    async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let mut command = redis::cmd("GET");
        command.arg(name(key));
        decode(key, self.call::<Option<Bytes>>(command).await??)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let fits = HEAD_BYTES + key.as_bytes().len() + value.len() <= self.settings.value_bytes_max;
        let mut command;
        if ttl_ms > 0 && fits {
            command = redis::cmd("SET");
            command.arg(name(key)).arg(&encode(key, &value)[..]).arg("PX").arg(ttl_ms);
        } else {
            // What was there is of an earlier time and would be found wanting at every look.
            command = redis::cmd("UNLINK");
            command.arg(name(key));
        }
        self.call::<redis::Value>(command).await;
    }
}

/// Under which name Redis has the value of a key.
fn name(key: &CacheKey) -> String {
    format!("truenow:results:{:016x}:{:032x}", key.tenant().0, xxh3_128(key.as_bytes()))
}

fn encode(key: &CacheKey, value: &Bytes) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + key.as_bytes().len() + value.len());
    out.put_u8(FORMAT);
    out.put_u64_le(0);
    out.put_u32_le(key.as_bytes().len() as u32);
    out.put_slice(key.as_bytes());
    out.put_slice(value);
    let sum = xxh3_64(&out[SUMMED_FROM..]);
    out[size_of::<u8>()..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Where the bytes begin that the checksum is of.
const SUMMED_FROM: usize = size_of::<u8>() + size_of::<u64>();

/// The value of `key`; `None` where the bytes are none of it.
fn decode(key: &CacheKey, mut bytes: Bytes) -> Option<Bytes> {
    if bytes.try_get_u8().ok()? != FORMAT || bytes.try_get_u64_le().ok()? != xxh3_64(&bytes) {
        return None;
    }
    let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok().filter(|&length| length <= bytes.len())?;
    (bytes.split_to(length) == key.as_bytes()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::TenantId;

    use super::*;

    proptest! {
        /// Goal: what is kept of a key is its value alone: of another tenant or question, with any bit flipped, cut off or
        /// lengthened it is nothing.
        #[test]
        fn only_what_was_kept_of_a_key_is_its_value(
            tenant: u64, question in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..60),
            other_tenant: u64, other_question in prop::collection::vec(any::<u8>(), 0..40),
            place: prop::sample::Index, bit in 0..8_u32,
        ) {
            let key = CacheKey::new(TenantId(tenant), &question);
            let value = Bytes::from(value);
            let kept = Bytes::from(encode(&key, &value));
            prop_assert_eq!(decode(&key, kept.clone()), Some(value));
            let other = CacheKey::new(TenantId(other_tenant), &other_question);
            if other != key {
                prop_assert_eq!(decode(&other, kept.clone()), None);
            }
            if other_tenant != tenant {
                prop_assert_ne!(name(&other), name(&key));
            }
            let mut damaged = kept.to_vec();
            let at = place.index(damaged.len());
            damaged[at] ^= 1 << bit;
            prop_assert_eq!(decode(&key, damaged.into()), None);
            prop_assert_eq!(decode(&key, kept.slice(..at)), None);
            prop_assert_eq!(decode(&key, [&kept[..], &[0]].concat().into()), None);
        }
    }

    /// Goal: an address that cannot be read is refused without showing it.
    #[tokio::test]
    async fn an_address_is_not_shown() {
        let refused = RedisResults::new("http://:hunter2@here", RedisSettings::default()).unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("hunter2"));
    }

    /// How many seconds from now the system probes a connection to a port of this machine that nothing is sent on; `None`: never.
    #[cfg(target_os = "linux")]
    fn probed_in(port: u16) -> Option<f64> {
        // A line is: number, local, remote, state, queues, kind and time of the timer in hexadecimal hundredths of a second, ...
        let connections = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let remote = format!("0100007F:{port:04X}");
        let of_connection = connections.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let mut timers = of_connection.filter(|fields| fields[2] == remote).map(|fields| fields[5].to_owned());
        let timer = timers.next().expect("the connection is there");
        // Kind 2 is keepalive.
        timer.strip_prefix("02:").map(|time| f64::from(u32::from_str_radix(time, 16).unwrap()) / 100.0)
    }

    /// Goal: a connection that nothing is sent on is probed each second, so that one whose other side vanished is noticed.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_idle_connection_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _cache = RedisResults::new(&format!("redis://127.0.0.1:{port}/0"), RedisSettings::default()).unwrap();
        let _connection = listener.accept().await.unwrap();
        let mut probed = None;
        // What was sent first is on its way.
        for _ in 0..1_000 {
            probed = probed_in(port);
            if probed.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(probed.is_some_and(|within| within <= 1.0), "{probed:?}");
    }

    /// Goal: a Redis that is not there is a cache that has forgotten everything, and after five failures is not asked any more.
    #[tokio::test]
    async fn a_redis_that_is_away_is_an_empty_cache() {
        // Nothing listens on port 1.
        let cache = RedisResults::new("redis://127.0.0.1:1/0", RedisSettings::default()).unwrap();
        let key = CacheKey::new(TenantId(1), b"q");
        for _ in 0..3 {
            cache.put(&key, "1".into(), Duration::from_secs(60)).await;
            assert_eq!(cache.get(&key).await, None);
        }
        assert_eq!(cache.breaker().state(), BreakerState::Open);
    }
}
