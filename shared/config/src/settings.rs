//! Every setting once: its section, key and type. From this one table come the keys of the file, the names
//! of the environment variables and the list that the documentation is checked against. All three sources go through
//! [`RawConfig::set`], so that each refuses the same unknown keys and bad values in the same words.

use std::path::PathBuf;

use crate::{Compression, LogFormat, LogLevel, ServiceName};

/// A value that an environment variable or a flag can hold.
pub(crate) trait FromText: Sized {
    /// What is right, to finish the sentence "must be …".
    const EXPECTED: &'static str;

    /// The value that `text` stands for.
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! from_text {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl FromText for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                text.trim().parse().ok()
            }
        }
    )*};
}

from_text!(
    u16: "an integer from 0 to 65535",
    u32: "an integer from 0 to 4294967295",
    u64: "an integer, 0 or more",
    f64: "a number",
    bool: "true or false",
    String: "a text",
    LogLevel: "error, warn, info, debug or trace",
    LogFormat: "json or text",
    Compression: "none, lz4 or zstd",
);

impl FromText for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl FromText for Vec<ServiceName> {
    const EXPECTED: &'static str = "names of services with commas between them (control-plane, gateway, stream-ingester, \
                                    hot-tier, query-api, watermark, rebalancer)";

    fn from_text(text: &str) -> Option<Self> {
        text.split(',').map(|name| name.trim().parse().ok()).collect()
    }
}

/// A setting's place, for errors and documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The table of `truenow.toml`; empty for what stands before the first one.
    pub section: &'static str,
    /// The key in it.
    pub name: &'static str,
}

impl Key {
    /// As flags and errors name it: `section.key`, or `key`.
    #[must_use]
    pub fn path(self) -> String {
        if self.section.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// The environment variable: `TRUENOW_<SECTION>_<KEY>`, or the short name that the setting is best known by.
    #[must_use]
    pub fn variable(self) -> String {
        match (self.section, self.name) {
            ("gateway", "rate_limit") => "GATEWAY_RATE_LIMIT".to_owned(),
            ("hot_tier", "memory_gb") => "HOT_TIER_MEMORY_GB".to_owned(),
            ("query_api", "cache_ttl") => "QUERY_CACHE_TTL".to_owned(),
            ("stream_ingester", "batch_size") => "STREAM_INGESTER_BATCH_SIZE".to_owned(),
            _ => self.systematic_variable(),
        }
    }

    /// The variable as its rule makes it, also where a shorter name exists; both are understood.
    pub(crate) fn systematic_variable(self) -> String {
        let section = if self.section.is_empty() { String::new() } else { format!("{}_", self.section) };
        format!("TRUENOW_{section}{}", self.name).replace('.', "_").to_ascii_uppercase()
    }
}

/// Why a text was not taken for a setting.
pub(crate) enum SetError {
    UnknownKey,
    BadValue { expected: &'static str },
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident $section:literal { $($key:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $key: Option<$type>,)*
        }

        impl $name {
            const SECTION: &'static str = $section;
            const KEYS: &'static [Key] = &[$(Key { section: $section, name: stringify!($key) },)*];

            fn set(&mut self, key: &str, text: &str) -> Result<(), SetError> {
                match key {
                    $(stringify!($key) => match <$type as FromText>::from_text(text) {
                        Some(value) => self.$key = Some(value),
                        None => return Err(SetError::BadValue { expected: <$type as FromText>::EXPECTED }),
                    },)*
                    _ => return Err(SetError::UnknownKey),
                }
                Ok(())
            }
        }
    };
}

section!(
    /// What stands before the first section.
    RawGeneral "" {
        data_dir: PathBuf,
        bind: String,
        port_offset: u16,
        api_key: String,
        cluster_key: String,
        partitions: u32,
        auto_create_tables: bool,
        services: Vec<ServiceName>,
    }
);
section!(RawCluster "cluster" {
    control_plane: String,
    node_id: u64,
    zone: String,
    advertise: String,
    replicas: u32,
    nodes_first: u32,
    handover_grace_ms: u64,
});
section!(RawHttp "http" {
    connections_max: u64,
    header_timeout_ms: u64,
    body_timeout_ms: u64,
    write_timeout_ms: u64,
    drain_timeout_ms: u64,
});
section!(RawLog "log" {
    level: LogLevel,
    format: LogFormat,
});
section!(RawMetadata "metadata" {
    url: String,
});
section!(RawEventLog "event_log" {
    queue_bytes: u64,
    linger_us: u64,
    segment_bytes: u64,
    tail_cache_bytes: u64,
    retention_bytes_min: u64,
});
section!(RawKafka "event_log.kafka" {
    brokers: String,
    topic: String,
    replication: u16,
    min_insync: u16,
    compression: Compression,
    linger_us: u64,
    batch_bytes_max: u32,
    delivery_timeout_ms: u64,
    delete_released: bool,
    keep_interval_ms: u64,
});
section!(RawControlPlane "control_plane" {
    http_port: u16,
    grpc_port: u16,
    tables_max: u32,
    auto_create_per_minute: u32,
});
section!(RawGateway "gateway" {
    http_port: u16,
    grpc_port: u16,
    rate_limit: u64,
    tenant_rate_limit: u64,
    burst_ms: u64,
    request_bytes_max: u64,
    request_events_max: u64,
    inflight_bytes_max: u64,
    dead_letter_bytes_max: u64,
    lag_degraded_ms: u64,
    lag_refused_ms: u64,
    lag_degraded_bytes: u64,
    lag_refused_bytes: u64,
});
section!(RawStreamIngester "stream_ingester" {
    http_port: u16,
    grpc_port: u16,
    batch_size: u64,
});
section!(RawHotTier "hot_tier" {
    http_port: u16,
    grpc_port: u16,
    memory_gb: f64,
    scan_threads: u32,
    cache_bytes: u64,
    checkpoint_interval_ms: u64,
    checkpoint_log_bytes: u64,
    checkpoint_bytes_per_second: u64,
});
section!(RawQueryApi "query_api" {
    http_port: u16,
    grpc_port: u16,
    cache_ttl: u64,
    cache_bytes: u64,
    cache_url: String,
    limit_default: u64,
    limit_max: u64,
    groups_max: u64,
    timeout_ms_default: u64,
    timeout_ms_max: u64,
});
section!(RawWatermark "watermark" {
    http_port: u16,
    grpc_port: u16,
});
section!(RawRebalancer "rebalancer" {
    http_port: u16,
    grpc_port: u16,
});

macro_rules! sections {
    ($($field:ident: $type:ident,)*) => {
        /// All settings as they were given: everything optional, unknown keys refused.
        #[derive(Default)]
        pub(crate) struct RawConfig {
            $(pub(crate) $field: $type,)*
        }

        impl RawConfig {
            /// Sets one key from its text; a later source overwrites an earlier one.
            pub(crate) fn set(&mut self, section: &str, key: &str, text: &str) -> Result<(), SetError> {
                match section {
                    $(section if section == $type::SECTION => self.$field.set(key, text),)*
                    _ => Err(SetError::UnknownKey),
                }
            }
        }

        /// Every setting there is, in the order of the documentation.
        pub fn keys() -> impl Iterator<Item = Key> {
            let sections: &[&'static [Key]] = &[$($type::KEYS,)*];
            sections.to_vec().into_iter().flatten().copied()
        }
    };
}

sections! {
    general: RawGeneral,
    cluster: RawCluster,
    http: RawHttp,
    log: RawLog,
    metadata: RawMetadata,
    event_log: RawEventLog,
    kafka: RawKafka,
    control_plane: RawControlPlane,
    gateway: RawGateway,
    stream_ingester: RawStreamIngester,
    hot_tier: RawHotTier,
    query_api: RawQueryApi,
    watermark: RawWatermark,
    rebalancer: RawRebalancer,
}
