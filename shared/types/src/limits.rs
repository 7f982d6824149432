//! Limits of the contract. Those that are configurable are defaults here and values in `config`.

/// Events in one request.
pub const REQUEST_EVENTS_MAX: usize = 100_000;
/// Bytes of one request body, compressed or not.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The largest value that the limit on request bytes may be set to.
pub const REQUEST_BYTES_CEILING: usize = 256 << 20;
/// Columns in one event.
pub const EVENT_COLUMNS_MAX: usize = 64;
/// Columns of one table.
pub const TABLE_COLUMNS_MAX: usize = 1_024;
/// Bytes of a name of a column, namespace or table.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of an event id.
pub const EVENT_ID_BYTES_MAX: usize = 256;
/// Bytes of a dimension value.
pub const DIMENSION_BYTES_MAX: usize = 8 << 10;
/// Partitions of a log.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Partitions of a new log on one machine, at least.
pub const PARTITIONS_MIN_DEFAULT: u32 = 4;
/// How far an event's time may lie in the future, µs.
pub const MAX_FUTURE_US_DEFAULT: i64 = 60_000_000;
/// How long an event's identity is remembered, µs of append time.
pub const DEDUP_WINDOW_US_DEFAULT: i64 = 600_000_000;

/// Rows that a query returns if it does not say.
pub const QUERY_LIMIT_DEFAULT: usize = 10_000;
/// Rows that a query may ask for.
pub const QUERY_LIMIT_MAX: usize = 1_000_000;
/// Groups that a query may make if it is not configured otherwise.
pub const QUERY_GROUPS_DEFAULT: usize = 1_000_000;
/// The largest value that the limit on groups may be set to.
pub const QUERY_GROUPS_MAX: usize = 10_000_000;
/// Time of a query if it does not say, ms.
pub const QUERY_TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// Time that a query may ask for, ms.
pub const QUERY_TIMEOUT_MS_MAX: u64 = 60_000;

/// The largest integer that every `f64` up to it represents exactly: ±2^53.
pub const METRIC_INTEGER_MAX: i64 = 1 << 53;

const _: () = assert!(QUERY_LIMIT_DEFAULT <= QUERY_LIMIT_MAX);
const _: () = assert!(REQUEST_BYTES_MAX <= REQUEST_BYTES_CEILING);
const _: () = assert!(EVENT_COLUMNS_MAX <= TABLE_COLUMNS_MAX);
