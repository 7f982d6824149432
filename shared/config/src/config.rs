//! The valid configuration, and the one place where raw settings become it.

mod cluster;
mod engines;
mod hot_tier;
mod kafka;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use cluster::ClusterConfig;
pub use engines::MetadataLocation;
pub use hot_tier::HotTierConfig;
pub use kafka::KafkaConfig;
use types::limits;

use crate::{
    ConfigError, LogFormat, LogLevel, Machine, Secret, ServiceName,
    settings::{Key, RawConfig, RawGateway},
};

/// Shortest API key: what is shorter can be guessed.
const API_KEY_BYTES_MIN: usize = 16;

/// Everything that a process of TrueNow is told at its start. Plain and valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the log, metadata and dead letters lie.
    pub data_dir: PathBuf,
    /// The address to bind to.
    pub bind: IpAddr,
    /// The key that clients must present; `None`: no authentication, loopback only.
    pub api_key: Option<Secret>,
    /// Partitions of a new log; an existing log keeps its own number.
    pub partitions: u32,
    /// Whether the first event of an unknown table creates it.
    pub auto_create_tables: bool,
    /// The services to run, in the order in which they start.
    pub services: Vec<ServiceName>,
    /// The cluster that this process belongs to; `None`: it runs all services alone.
    pub cluster: Option<ClusterConfig>,
    /// Limits of all sockets.
    pub http: HttpConfig,
    /// Logging.
    pub log: LogConfig,
    /// Where tables, placement and what processes agree on are kept.
    pub metadata: MetadataLocation,
    /// The URL of a Redis in which query APIs share results; `None`: each keeps its own alone.
    pub cache_url: Option<Secret>,
    /// The embedded event log.
    pub event_log: EventLogConfig,
    /// Where the event log lies on Kafka; `None`: it is the embedded one.
    pub kafka: Option<KafkaConfig>,
    /// The control plane.
    pub control_plane: ControlPlaneConfig,
    /// The gateway.
    pub gateway: GatewayConfig,
    /// The stream ingester.
    pub stream_ingester: StreamIngesterConfig,
    /// The hot tier.
    pub hot_tier: HotTierConfig,
    /// The query API.
    pub query_api: QueryApiConfig,
    addresses: Vec<(ServiceName, ServiceAddresses)>,
}

/// Where a service listens. Port 0: the system chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// HTTP.
    pub http: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
}

/// Limits of every listening socket.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Connections of one port.
    pub connections_max: usize,
    /// How long a request's headers may take.
    pub header_timeout: Duration,
    /// How long a request's body, or one gRPC message, may take.
    pub body_timeout: Duration,
    /// How long a client may read nothing of what is written to it.
    pub write_timeout: Duration,
    /// How long requests under way may take at shutdown.
    pub drain_timeout: Duration,
}

/// Logging.
#[derive(Debug, Clone, Copy)]
pub struct LogConfig {
    /// The least severe level.
    pub level: LogLevel,
    /// The look of a line.
    pub format: LogFormat,
}

/// The embedded event log.
#[derive(Debug, Clone, Copy)]
pub struct EventLogConfig {
    /// Bytes that wait for their commit, at most.
    pub queue_bytes: u64,
    /// How long a commit waits for company.
    pub linger: Duration,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Bytes of the newest records that are kept in memory for readers.
    pub tail_cache_bytes: u64,
    /// Bytes of the newest files that stay although nobody needs them any more.
    pub retention_bytes_min: u64,
}

/// The control plane.
#[derive(Debug, Clone, Copy)]
pub struct ControlPlaneConfig {
    /// Tables of one tenant, at most.
    pub tables_max: u32,
    /// Tables that events of one tenant may create in a minute, at most.
    pub auto_create_per_minute: u32,
}

/// The gateway.
#[derive(Debug, Clone, Copy)]
pub struct GatewayConfig {
    /// Events per second, all tenants together.
    pub rate_limit: u64,
    /// Events per second of one tenant.
    pub tenant_rate_limit: u64,
    /// What may come at once after a pause, as time at the rate limit.
    pub burst: Duration,
    /// Bytes of a request's body, also decompressed.
    pub request_bytes_max: usize,
    /// Events of a request.
    pub request_events_max: usize,
    /// Bytes of bodies that are read or decoded at one time.
    pub inflight_bytes_max: u64,
    /// Bytes of dead letters on disk; the oldest leave first.
    pub dead_letter_bytes_max: u64,
    /// How far behind the application of what comes in may be.
    pub lag: LagConfig,
}

/// Limits of the lag between the log and what is applied of it.
#[derive(Debug, Clone, Copy)]
pub struct LagConfig {
    /// How long a record may wait to be applied before the gateway is degraded.
    pub degraded: Duration,
    /// How long one may wait before events are refused.
    pub refused: Duration,
    /// Bytes that may wait to be applied before the gateway is degraded.
    pub degraded_bytes: u64,
    /// Bytes that may wait before events are refused.
    pub refused_bytes: u64,
}

/// The stream ingester.
#[derive(Debug, Clone, Copy)]
pub struct StreamIngesterConfig {
    /// Records that are read from the log at one time.
    pub batch_size: usize,
}

/// The query API.
#[derive(Debug, Clone, Copy)]
pub struct QueryApiConfig {
    /// How long a result is kept for the questions that come again; zero: none is.
    pub cache_ttl: Duration,
    /// Bytes of all results that are kept.
    pub cache_bytes: u64,
    /// Rows of an answer where the query does not say.
    pub limit_default: usize,
    /// Rows that a query may ask for.
    pub limit_max: usize,
    /// Groups that a query may make.
    pub groups_max: usize,
    /// Time of a query that does not say.
    pub timeout_default: Duration,
    /// Time that a query may ask for.
    pub timeout_max: Duration,
}

impl Config {
    /// Where `service` listens.
    #[must_use]
    pub fn addresses(&self, service: ServiceName) -> ServiceAddresses {
        let found = self.addresses.iter().find(|(name, _)| *name == service);
        found.expect("every service has its addresses from the conversion on").1
    }

    /// Whether clients must present a credential.
    #[must_use]
    pub fn authenticated(&self) -> bool {
        self.api_key.is_some()
    }
}

impl TryFrom<(RawConfig, &Machine)> for Config {
    type Error = ConfigError;

    fn try_from((raw, machine): (RawConfig, &Machine)) -> Result<Self, ConfigError> {
        let api_key = secret("api_key", raw.general.api_key.clone())?;
        let bind = bind_address(raw.general.bind.as_deref(), api_key.is_some())?;
        let services: BTreeSet<_> = match &raw.general.services {
            Some(services) => services.iter().copied().collect(),
            None => ServiceName::ALL.iter().copied().collect(),
        };
        let data_dir = raw.general.data_dir.clone().unwrap_or_else(|| PathBuf::from("data"));
        let services: Vec<_> = services.into_iter().collect();
        let cluster = cluster::cluster(&raw, bind, &services)?;
        Ok(Self {
            addresses: addresses(&raw, bind)?,
            metadata: engines::metadata(&raw, &data_dir)?,
            cache_url: engines::cache_url(&raw)?,
            data_dir,
            bind,
            api_key,
            partitions: partitions(raw.general.partitions, machine)?,
            auto_create_tables: raw.general.auto_create_tables.unwrap_or(true),
            services,
            http: http(&raw)?,
            log: LogConfig {
                level: raw.log.level.unwrap_or(LogLevel::Info),
                format: raw.log.format.unwrap_or(LogFormat::Json),
            },
            event_log: event_log(&raw)?,
            kafka: kafka::kafka(&raw, cluster.is_some())?,
            cluster,
            control_plane: control_plane(&raw)?,
            gateway: gateway(&raw)?,
            stream_ingester: StreamIngesterConfig {
                batch_size: size(
                    "stream_ingester",
                    "batch_size",
                    raw.stream_ingester.batch_size,
                    1_000,
                    1..=1_000_000,
                )?,
            },
            hot_tier: hot_tier::hot_tier(&raw, machine)?,
            query_api: query_api(&raw)?,
        })
    }
}

fn out_of_range(
    section: &'static str,
    name: &'static str,
    value: impl std::fmt::Display,
    expected: impl Into<String>,
) -> ConfigError {
    let key = Key { section, name };
    ConfigError::OutOfRange {
        key: key.path(),
        variable: key.variable(),
        value: value.to_string(),
        expected: expected.into(),
    }
}

/// `given` or `default`, if it lies in `allowed`.
fn number(
    section: &'static str,
    name: &'static str,
    given: Option<u64>,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let value = given.unwrap_or(default);
    if allowed.contains(&value) {
        return Ok(value);
    }
    let expected = format!("must be from {} to {}", allowed.start(), allowed.end());
    Err(out_of_range(section, name, value, expected))
}

fn size(
    section: &'static str,
    name: &'static str,
    given: Option<u64>,
    default: usize,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let value = number(section, name, given, default as u64, allowed)?;
    usize::try_from(value).map_err(|_| out_of_range(section, name, value, "does not fit this machine's addresses"))
}

fn millis(
    section: &'static str,
    name: &'static str,
    given: Option<u64>,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    number(section, name, given, default, allowed).map(Duration::from_millis)
}

fn secret(name: &'static str, given: Option<String>) -> Result<Option<Secret>, ConfigError> {
    let Some(key) = given else { return Ok(None) };
    if key.len() < API_KEY_BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let expected = format!("must be at least {API_KEY_BYTES_MIN} visible ASCII characters without spaces");
        return Err(out_of_range("", name, "not shown here", expected));
    }
    Ok(Some(Secret::new(key)))
}

fn bind_address(given: Option<&str>, authenticated: bool) -> Result<IpAddr, ConfigError> {
    let text = given.unwrap_or("127.0.0.1");
    let address: IpAddr = text.parse().map_err(|_| {
        out_of_range("", "bind", format!("{text:?}"), "must be an IP address such as 127.0.0.1, 0.0.0.0 or ::1")
    })?;
    if !address.is_loopback() && !authenticated {
        let expected = "beyond loopback an api_key (TRUENOW_API_KEY) must be set as well";
        return Err(out_of_range("", "bind", address, expected));
    }
    Ok(address)
}

fn partitions(given: Option<u32>, machine: &Machine) -> Result<u32, ConfigError> {
    let default = machine.cores.clamp(limits::PARTITIONS_MIN_DEFAULT, limits::PARTITIONS_MAX);
    let value = given.unwrap_or(default);
    if value == 0 || value > limits::PARTITIONS_MAX {
        let expected = format!("must be from 1 to {}", limits::PARTITIONS_MAX);
        return Err(out_of_range("", "partitions", value, expected));
    }
    Ok(value)
}

fn addresses(raw: &RawConfig, bind: IpAddr) -> Result<Vec<(ServiceName, ServiceAddresses)>, ConfigError> {
    let offset = raw.general.port_offset.unwrap_or(0);
    let mut taken: Vec<(u16, String)> = Vec::new();
    let mut address = |section: &'static str, name: &'static str, given: Option<u16>, default: u16| {
        let port = match given.unwrap_or(default) {
            0 => 0,
            port => port.checked_add(offset).ok_or_else(|| {
                let expected = format!("with port_offset {offset} it must not exceed 65535");
                out_of_range(section, name, port, expected)
            })?,
        };
        if let Some((_, other)) = taken.iter().find(|(other, _)| port != 0 && *other == port) {
            return Err(out_of_range(section, name, port, format!("{other} has this port already")));
        }
        taken.push((port, Key { section, name }.path()));
        Ok(SocketAddr::new(bind, port))
    };
    macro_rules! both {
        ($service:ident, $section:ident, $http:literal, $grpc:literal) => {
            (
                ServiceName::$service,
                ServiceAddresses {
                    http: address(stringify!($section), "http_port", raw.$section.http_port, $http)?,
                    grpc: address(stringify!($section), "grpc_port", raw.$section.grpc_port, $grpc)?,
                },
            )
        };
    }
    Ok(vec![
        both!(ControlPlane, control_plane, 8001, 9080),
        both!(Gateway, gateway, 8088, 9088),
        both!(StreamIngester, stream_ingester, 8100, 9100),
        both!(HotTier, hot_tier, 9090, 9091),
        both!(QueryApi, query_api, 8081, 9081),
        both!(Watermark, watermark, 8084, 9084),
        both!(Rebalancer, rebalancer, 8086, 9086),
    ])
}

fn http(raw: &RawConfig) -> Result<HttpConfig, ConfigError> {
    let raw = &raw.http;
    Ok(HttpConfig {
        connections_max: size("http", "connections_max", raw.connections_max, 4_096, 1..=1_000_000)?,
        header_timeout: millis("http", "header_timeout_ms", raw.header_timeout_ms, 10_000, 1..=600_000)?,
        body_timeout: millis("http", "body_timeout_ms", raw.body_timeout_ms, 30_000, 1..=3_600_000)?,
        write_timeout: millis("http", "write_timeout_ms", raw.write_timeout_ms, 30_000, 1..=3_600_000)?,
        drain_timeout: millis("http", "drain_timeout_ms", raw.drain_timeout_ms, 10_000, 0..=600_000)?,
    })
}

fn event_log(raw: &RawConfig) -> Result<EventLogConfig, ConfigError> {
    let raw = &raw.event_log;
    let (mib, gib) = (1_u64 << 20, 1_u64 << 30);
    Ok(EventLogConfig {
        queue_bytes: number("event_log", "queue_bytes", raw.queue_bytes, 256 * mib, mib..=64 * gib)?,
        linger: Duration::from_micros(number("event_log", "linger_us", raw.linger_us, 0, 0..=1_000_000)?),
        segment_bytes: number("event_log", "segment_bytes", raw.segment_bytes, 128 * mib, mib..=4 * gib)?,
        tail_cache_bytes: number("event_log", "tail_cache_bytes", raw.tail_cache_bytes, 64 * mib, 0..=64 * gib)?,
        retention_bytes_min: number("event_log", "retention_bytes_min", raw.retention_bytes_min, gib, 0..=1 << 60)?,
    })
}

fn control_plane(raw: &RawConfig) -> Result<ControlPlaneConfig, ConfigError> {
    let raw = &raw.control_plane;
    let tables_max = raw.tables_max.unwrap_or(10_000);
    if tables_max == 0 {
        return Err(out_of_range("control_plane", "tables_max", 0, "must be at least 1"));
    }
    Ok(ControlPlaneConfig { tables_max, auto_create_per_minute: raw.auto_create_per_minute.unwrap_or(600) })
}

fn gateway(raw: &RawConfig) -> Result<GatewayConfig, ConfigError> {
    let raw = &raw.gateway;
    let rates = 1..=1_000_000_000_000;
    let (mib, tib) = (1_u64 << 20, 1_u64 << 40);
    let rate_limit = number("gateway", "rate_limit", raw.rate_limit, 1_000_000, rates.clone())?;
    let bytes_ceiling = limits::REQUEST_BYTES_CEILING as u64;
    let request_bytes_max =
        size("gateway", "request_bytes_max", raw.request_bytes_max, limits::REQUEST_BYTES_MAX, 1_024..=bytes_ceiling)?;
    let events_ceiling = limits::REQUEST_EVENTS_MAX as u64;
    Ok(GatewayConfig {
        rate_limit,
        tenant_rate_limit: number("gateway", "tenant_rate_limit", raw.tenant_rate_limit, rate_limit, rates)?,
        burst: millis("gateway", "burst_ms", raw.burst_ms, 1_000, 1..=60_000)?,
        request_bytes_max,
        request_events_max: size(
            "gateway",
            "request_events_max",
            raw.request_events_max,
            limits::REQUEST_EVENTS_MAX,
            1..=events_ceiling,
        )?,
        // A budget below one request would refuse the largest one for ever.
        inflight_bytes_max: number(
            "gateway",
            "inflight_bytes_max",
            raw.inflight_bytes_max,
            (256 * mib).max(request_bytes_max as u64),
            request_bytes_max as u64..=tib,
        )?,
        dead_letter_bytes_max: number(
            "gateway",
            "dead_letter_bytes_max",
            raw.dead_letter_bytes_max,
            256 * mib,
            mib..=tib,
        )?,
        lag: lag(raw)?,
    })
}

fn lag(raw: &RawGateway) -> Result<LagConfig, ConfigError> {
    let (section, mib, tib) = ("gateway", 1_u64 << 20, 1_u64 << 40);
    let refused_ms = number(section, "lag_refused_ms", raw.lag_refused_ms, 10_000, 100..=3_600_000)?;
    let refused_bytes = number(section, "lag_refused_bytes", raw.lag_refused_bytes, 2_048 * mib, mib..=tib)?;
    // A warning that comes after the refusal would warn of nothing; a default follows a lowered limit down.
    let (ms, bytes) = (refused_ms.min(2_000), refused_bytes.min(512 * mib));
    Ok(LagConfig {
        degraded: millis(section, "lag_degraded_ms", raw.lag_degraded_ms, ms, 100..=refused_ms)?,
        refused: Duration::from_millis(refused_ms),
        degraded_bytes: number(section, "lag_degraded_bytes", raw.lag_degraded_bytes, bytes, mib..=refused_bytes)?,
        refused_bytes,
    })
}

fn query_api(raw: &RawConfig) -> Result<QueryApiConfig, ConfigError> {
    let raw = &raw.query_api;
    let section = "query_api";
    let limit_max =
        size(section, "limit_max", raw.limit_max, limits::QUERY_LIMIT_MAX, 1..=limits::QUERY_LIMIT_MAX as u64)?;
    let timeout_max = number(
        section,
        "timeout_ms_max",
        raw.timeout_ms_max,
        limits::QUERY_TIMEOUT_MS_MAX,
        1..=limits::QUERY_TIMEOUT_MS_MAX,
    )?;
    // A default above a lowered maximum follows it down; a default that was given must fit.
    let limit_default = limits::QUERY_LIMIT_DEFAULT.min(limit_max);
    let timeout_default = limits::QUERY_TIMEOUT_MS_DEFAULT.min(timeout_max);
    let groups_ceiling = limits::QUERY_GROUPS_MAX as u64;
    Ok(QueryApiConfig {
        cache_ttl: Duration::from_secs(number(section, "cache_ttl", raw.cache_ttl, 60, 0..=86_400)?),
        cache_bytes: number(section, "cache_bytes", raw.cache_bytes, 64 << 20, 0..=64 << 30)?,
        limit_default: size(section, "limit_default", raw.limit_default, limit_default, 1..=limit_max as u64)?,
        limit_max,
        groups_max: size(section, "groups_max", raw.groups_max, limits::QUERY_GROUPS_DEFAULT, 1..=groups_ceiling)?,
        timeout_default: millis(
            section,
            "timeout_ms_default",
            raw.timeout_ms_default,
            timeout_default,
            1..=timeout_max,
        )?,
        timeout_max: Duration::from_millis(timeout_max),
    })
}
