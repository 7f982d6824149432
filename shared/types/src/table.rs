//! A table as the control plane describes it to every other service.

use std::sync::Arc;

use crate::{Interval, PartitionId, Schema, TableKey, TableName, limits};

/// A rollup that a table declares: rows aggregated by time bucket and group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// Width of its buckets.
    pub interval: Interval,
    /// Dimensions to group by.
    pub group_by: Vec<String>,
    /// Dimensions whose distinct values are counted.
    pub distinct: Vec<String>,
    /// Metrics whose percentiles are kept.
    pub percentiles: Vec<String>,
    /// Dimensions whose heavy hitters are kept.
    pub top: Vec<String>,
    /// How long its buckets stay, µs; `None`: as long as the rows.
    pub keep_us: Option<i64>,
}

/// What may be said at creation and changed later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// How long rows stay, µs of event time behind the newest; `None`: the memory budget alone decides.
    pub hot_window_us: Option<i64>,
    /// How old an event may be at the gateway, µs; `None`: any age.
    pub max_age_us: Option<i64>,
    /// How far in the future an event may lie at the gateway, µs.
    pub max_future_us: i64,
    /// How long an event's identity is remembered, µs of append time.
    pub dedup_window_us: i64,
    /// How far behind the watermark an event may come before it counts as `late`, µs.
    pub lateness_us: i64,
    /// Rollups, in the order declared.
    pub rollups: Vec<Rollup>,
    /// The JSON Schema that its events must satisfy, as its text. The gateway holds events against it and partitions know
    /// nothing of it: what is in the log has been taken, whatever the schema is by now.
    pub json_schema: Option<Arc<str>>,
}

impl Default for TableSettings {
    fn default() -> Self {
        Self {
            hot_window_us: None,
            max_age_us: None,
            max_future_us: limits::MAX_FUTURE_US_DEFAULT,
            dedup_window_us: limits::DEDUP_WINDOW_US_DEFAULT,
            lateness_us: 0,
            rollups: Vec::new(),
            json_schema: None,
        }
    }
}

/// One life of one table: what never changes in it, and its columns and settings at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its key.
    pub key: TableKey,
    /// Its name.
    pub name: TableName,
    /// The log partitions that it uses, ascending; never empty, fixed for this life.
    pub partitions: Vec<PartitionId>,
    /// The dimension whose value chooses an event's partition; fixed for this life.
    pub partition_by: Option<String>,
    /// Seed of the hash that chooses an event's partition; fixed for this life.
    pub partition_seed: u64,
    /// Seed of the hash by which its partitions know events again; fixed for this life, and never shown to clients: who
    /// knows it could choose ids that collide. 0 in tables from before there was one.
    pub identity_seed: u64,
    /// Its columns.
    pub schema: Schema,
    /// Its settings.
    pub settings: TableSettings,
}
