//! The settings of the hot tier.

use std::time::Duration;

use super::{millis, number, out_of_range};
use crate::{ConfigError, Machine, settings::RawConfig};

/// Share of the machine's memory that the hot tier takes at most, percent.
const MEMORY_PERCENT_MAX: u64 = 60;
/// `hot_tier.memory_gb` where nothing is said.
const MEMORY_GB_DEFAULT: f64 = 32.0;
/// Least memory that a hot tier works with, GB.
const MEMORY_GB_MIN: f64 = 0.0625;

/// Share of the memory that results take where nothing is said, and at most.
const CACHE_SHARE_DEFAULT: u64 = 64;
const CACHE_SHARE_MAX: u64 = 4;

/// The hot tier.
#[derive(Debug, Clone, Copy)]
pub struct HotTierConfig {
    /// The one memory budget, bytes: rows and all that belongs to them, and the cache.
    pub memory_bytes: u64,
    /// Threads that scan for queries.
    pub scan_threads: u32,
    /// Bytes of that for results that are used again; 0: none are kept.
    pub cache_bytes: u64,
    /// From one checkpoint of a partition to the next; zero: none are taken.
    pub checkpoint_interval: Duration,
    /// Bytes of a partition's records after which a checkpoint is taken earlier.
    pub checkpoint_log_bytes: u64,
    /// How fast checkpoints are written, bytes per second.
    pub checkpoint_bytes_per_second: u64,
}

pub(super) fn hot_tier(raw: &RawConfig, machine: &Machine) -> Result<HotTierConfig, ConfigError> {
    let raw = &raw.hot_tier;
    let gigabytes = raw.memory_gb.unwrap_or(MEMORY_GB_DEFAULT);
    if !(MEMORY_GB_MIN..=1_000_000.0).contains(&gigabytes) {
        let expected = format!("must be from {MEMORY_GB_MIN} to 1000000");
        return Err(out_of_range("hot_tier", "memory_gb", gigabytes, expected));
    }
    let asked = (gigabytes * (1_u64 << 30) as f64) as u64;
    let scan_threads = raw.scan_threads.unwrap_or(machine.cores);
    if !(1..=4_096).contains(&scan_threads) {
        return Err(out_of_range("hot_tier", "scan_threads", scan_threads, "must be from 1 to 4096"));
    }
    let memory_bytes = asked.min(machine.memory_bytes / 100 * MEMORY_PERCENT_MAX);
    let (section, mib, tib) = ("hot_tier", 1_u64 << 20, 1_u64 << 40);
    Ok(HotTierConfig {
        memory_bytes,
        scan_threads,
        cache_bytes: number(
            section,
            "cache_bytes",
            raw.cache_bytes,
            memory_bytes / CACHE_SHARE_DEFAULT,
            0..=memory_bytes / CACHE_SHARE_MAX,
        )?,
        checkpoint_interval: millis(
            section,
            "checkpoint_interval_ms",
            raw.checkpoint_interval_ms,
            10_000,
            0..=86_400_000,
        )?,
        checkpoint_log_bytes: number(section, "checkpoint_log_bytes", raw.checkpoint_log_bytes, 256 * mib, mib..=tib)?,
        checkpoint_bytes_per_second: number(
            section,
            "checkpoint_bytes_per_second",
            raw.checkpoint_bytes_per_second,
            256 * mib,
            mib..=tib,
        )?,
    })
}
