//! Control records: what a partition learns of a table, or of the time, between its blocks of events. JSON, for there are few
//! of them.
//!
//! A record says all that a partition needs, so that a replay needs no metadata. Fields that a reader does not know are
//! passed over, and new fields have defaults: nodes of two versions read each other's records, because what is added
//! later may be left out by definition. A record of an unknown type is an error of decoding, which names it; a partition
//! stops before such a record, for what lies behind it may hang on it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::{
    AppenderId, ColumnDef, ColumnKind, Generation, Interval, PartitionId, Rollup, Schema, SchemaVersion, Table,
    TableId, TableKey, TableName, TableSettings, TenantId, Timestamp,
    limits::{DEDUP_WINDOW_US_DEFAULT, MAX_FUTURE_US_DEFAULT},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{BlockHeader, BlockKind};

/// The key of records that are about no table: no tenant and no table has the number 0.
const NO_TABLE: TableKey = TableKey { tenant: TenantId(0), table: TableId(0), generation: Generation(0) };

/// A change of a table, or a step of the time, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRecord {
    /// The table as it is from here on: its creation, or columns or settings that changed.
    TableConfigured(Arc<Table>),
    /// This life of the table has ended.
    TableDropped(TableKey),
    /// Nothing but its append time, which is the only clock that a partition has: without records nothing would ever be old
    /// enough to be forgotten.
    Tick,
}

/// Why bytes are no control record.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not JSON of a record.
    #[error("control record: {0}")]
    Json(#[from] serde_json::Error),
    /// An interval of a rollup that is none.
    #[error("control record: rollup interval of {0} µs")]
    Interval(i64),
    /// A table without a partition.
    #[error("control record: table without partitions")]
    NoPartitions,
}

impl ControlRecord {
    /// The header and the body of its block for a partition, as of a version of the table's schema. What the appender says in
    /// the header is the log's to fill.
    #[must_use]
    pub fn block(&self, schema_version: SchemaVersion, partition: PartitionId) -> (BlockHeader, Bytes) {
        let body = Bytes::from(self.encode());
        let header = BlockHeader {
            kind: BlockKind::Control,
            key: self.key(),
            schema_version,
            partition,
            rows: 0,
            // Far below 4 GiB: a table has a bounded number of columns, with bounded names.
            body_len: body.len() as u32,
            body_checksum: xxh3_64(&body),
            appender: AppenderId(0),
            appender_rows: 0,
            time_min: Timestamp(0),
            time_max: Timestamp(0),
            batch: None,
            times_given: false,
        };
        (header, body)
    }

    /// Whether a block changes a table, as far as its header says: what lies behind such a block may hang on it.
    #[must_use]
    pub fn changes_table(header: &BlockHeader) -> bool {
        header.kind == BlockKind::Control && header.key != NO_TABLE
    }

    /// The table that it is about; that of no table where it is about none.
    #[must_use]
    pub fn key(&self) -> TableKey {
        match self {
            Self::TableConfigured(table) => table.key,
            Self::TableDropped(key) => *key,
            Self::Tick => NO_TABLE,
        }
    }

    /// The body of its block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Self::TableConfigured(table) => WireRecord::TableConfigured(Box::new(WireTable::from(table.as_ref()))),
            Self::TableDropped(key) => WireRecord::TableDropped(WireKey::from(*key)),
            Self::Tick => WireRecord::Tick {},
        };
        serde_json::to_vec(&wire).expect("the wire form has only strings as keys")
    }

    /// Reads the body of a control block.
    ///
    /// # Errors
    /// It is no control record, or one of a type that this version does not know.
    pub fn decode(body: &[u8]) -> Result<Self, ControlError> {
        Ok(match serde_json::from_slice(body)? {
            WireRecord::TableConfigured(table) => Self::TableConfigured(Arc::new(Table::try_from(*table)?)),
            WireRecord::TableDropped(key) => Self::TableDropped(key.into()),
            WireRecord::Tick {} => Self::Tick,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum WireRecord {
    TableConfigured(Box<WireTable>),
    TableDropped(WireKey),
    Tick {},
}

#[derive(Serialize, Deserialize)]
struct WireKey {
    tenant: u64,
    table: u64,
    generation: u32,
}

#[derive(Serialize, Deserialize)]
struct WireTable {
    key: WireKey,
    namespace: String,
    table: String,
    partitions: Vec<u32>,
    #[serde(default)]
    partition_by: Option<String>,
    partition_seed: u64,
    #[serde(default)]
    identity_seed: u64,
    schema_version: u32,
    columns: Vec<WireColumn>,
    #[serde(default)]
    settings: WireSettings,
}

#[derive(Serialize, Deserialize)]
struct WireColumn {
    name: String,
    kind: WireKind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    Dimension,
    Metric,
}

/// Without the JSON Schema: partitions take what the gateway took, and it can be larger than all the rest.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct WireSettings {
    hot_window_us: Option<i64>,
    max_age_us: Option<i64>,
    max_future_us: i64,
    dedup_window_us: i64,
    lateness_us: i64,
    rollups: Vec<WireRollup>,
}

#[derive(Serialize, Deserialize)]
struct WireRollup {
    interval_us: i64,
    #[serde(default)]
    group_by: Vec<String>,
    #[serde(default)]
    distinct: Vec<String>,
    #[serde(default)]
    percentiles: Vec<String>,
    #[serde(default)]
    top: Vec<String>,
    #[serde(default)]
    keep_us: Option<i64>,
}

impl Default for WireSettings {
    fn default() -> Self {
        Self {
            hot_window_us: None,
            max_age_us: None,
            max_future_us: MAX_FUTURE_US_DEFAULT,
            dedup_window_us: DEDUP_WINDOW_US_DEFAULT,
            lateness_us: 0,
            rollups: Vec::new(),
        }
    }
}

impl From<TableKey> for WireKey {
    fn from(key: TableKey) -> Self {
        Self { tenant: key.tenant.0, table: key.table.0, generation: key.generation.0 }
    }
}

impl From<WireKey> for TableKey {
    fn from(key: WireKey) -> Self {
        Self { tenant: TenantId(key.tenant), table: TableId(key.table), generation: Generation(key.generation) }
    }
}

impl From<&Table> for WireTable {
    fn from(table: &Table) -> Self {
        Self {
            key: table.key.into(),
            namespace: table.name.namespace.clone(),
            table: table.name.table.clone(),
            partitions: table.partitions.iter().map(|partition| partition.0).collect(),
            partition_by: table.partition_by.clone(),
            partition_seed: table.partition_seed,
            identity_seed: table.identity_seed,
            schema_version: table.schema.version().0,
            columns: table.schema.columns().iter().map(WireColumn::from).collect(),
            settings: WireSettings::from(&table.settings),
        }
    }
}

impl TryFrom<WireTable> for Table {
    type Error = ControlError;

    fn try_from(table: WireTable) -> Result<Self, ControlError> {
        if table.partitions.is_empty() {
            return Err(ControlError::NoPartitions);
        }
        let columns = table.columns.into_iter().map(ColumnDef::from).collect();
        Ok(Self {
            key: table.key.into(),
            name: TableName::new(table.namespace, table.table),
            partitions: table.partitions.into_iter().map(PartitionId).collect(),
            partition_by: table.partition_by,
            partition_seed: table.partition_seed,
            identity_seed: table.identity_seed,
            schema: Schema::from_parts(SchemaVersion(table.schema_version), columns),
            settings: table.settings.try_into()?,
        })
    }
}

impl From<&ColumnDef> for WireColumn {
    fn from(column: &ColumnDef) -> Self {
        let kind = match column.kind {
            ColumnKind::Dimension => WireKind::Dimension,
            ColumnKind::Metric => WireKind::Metric,
        };
        Self { name: column.name.clone(), kind }
    }
}

impl From<WireColumn> for ColumnDef {
    fn from(column: WireColumn) -> Self {
        let kind = match column.kind {
            WireKind::Dimension => ColumnKind::Dimension,
            WireKind::Metric => ColumnKind::Metric,
        };
        Self { name: column.name, kind }
    }
}

impl From<&TableSettings> for WireSettings {
    fn from(settings: &TableSettings) -> Self {
        Self {
            hot_window_us: settings.hot_window_us,
            max_age_us: settings.max_age_us,
            max_future_us: settings.max_future_us,
            dedup_window_us: settings.dedup_window_us,
            lateness_us: settings.lateness_us,
            rollups: settings.rollups.iter().map(WireRollup::from).collect(),
        }
    }
}

impl TryFrom<WireSettings> for TableSettings {
    type Error = ControlError;

    fn try_from(settings: WireSettings) -> Result<Self, ControlError> {
        Ok(Self {
            hot_window_us: settings.hot_window_us,
            max_age_us: settings.max_age_us,
            max_future_us: settings.max_future_us,
            dedup_window_us: settings.dedup_window_us,
            lateness_us: settings.lateness_us,
            rollups: settings.rollups.into_iter().map(Rollup::try_from).collect::<Result<_, _>>()?,
            json_schema: None,
        })
    }
}

impl From<&Rollup> for WireRollup {
    fn from(rollup: &Rollup) -> Self {
        Self {
            interval_us: rollup.interval.micros(),
            group_by: rollup.group_by.clone(),
            distinct: rollup.distinct.clone(),
            percentiles: rollup.percentiles.clone(),
            top: rollup.top.clone(),
            keep_us: rollup.keep_us,
        }
    }
}

impl TryFrom<WireRollup> for Rollup {
    type Error = ControlError;

    fn try_from(rollup: WireRollup) -> Result<Self, ControlError> {
        Ok(Self {
            interval: Interval::from_micros(rollup.interval_us).ok_or(ControlError::Interval(rollup.interval_us))?,
            group_by: rollup.group_by,
            distinct: rollup.distinct,
            percentiles: rollup.percentiles,
            top: rollup.top,
            keep_us: rollup.keep_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, kind| ColumnDef { name: name.into(), kind };
        let columns = vec![column("region", ColumnKind::Dimension), column("größe", ColumnKind::Metric)];
        Table {
            key: TableKey { tenant: TenantId(1), table: TableId(u64::MAX), generation: Generation(3) },
            name: TableName::new("shop", "events"),
            partitions: vec![PartitionId(1), PartitionId(7)],
            partition_by: Some("region".into()),
            partition_seed: u64::MAX - 1,
            identity_seed: u64::MAX - 2,
            schema: Schema::from_parts(SchemaVersion(9), columns),
            settings: TableSettings {
                hot_window_us: Some(1),
                max_age_us: None,
                rollups: vec![Rollup {
                    interval: Interval::from_micros(1_000_000).unwrap(),
                    group_by: vec!["region".into()],
                    distinct: Vec::new(),
                    percentiles: vec!["größe".into()],
                    top: Vec::new(),
                    keep_us: Some(5),
                }],
                ..TableSettings::default()
            },
        }
    }

    /// Goal: records survive their bytes in full.
    #[test]
    fn records_round_trip() {
        let records = [
            ControlRecord::TableConfigured(Arc::new(table())),
            ControlRecord::TableDropped(table().key),
            ControlRecord::Tick,
        ];
        for record in records {
            let (header, body) = record.block(SchemaVersion(9), PartitionId(7));
            assert_eq!(ControlRecord::decode(&body).unwrap(), record);
            assert_eq!(BlockHeader::decode(&header.encode()).unwrap(), header);
            assert_eq!(ControlRecord::changes_table(&header), record != ControlRecord::Tick);
        }
    }

    /// Goal: a table's JSON Schema stays out of the log.
    #[test]
    fn json_schemas_are_not_logged() {
        let mut with = table();
        with.settings.json_schema = Some("{}".into());
        let body = ControlRecord::TableConfigured(Arc::new(with)).encode();
        assert_eq!(ControlRecord::decode(&body).unwrap(), ControlRecord::TableConfigured(Arc::new(table())));
    }

    /// Goal: a later version's additions are passed over, an earlier version's omissions get defaults, and what is no
    /// record is refused.
    #[test]
    fn records_tolerate_other_versions() {
        let later = br#"{"record":"table_dropped","tenant":1,"table":2,"generation":3,"why":"later"}"#;
        assert!(matches!(ControlRecord::decode(later), Ok(ControlRecord::TableDropped(_))));
        let earlier = br#"{"record":"table_configured","key":{"tenant":1,"table":2,"generation":3},"namespace":"a",
            "table":"b","partitions":[0],"partition_seed":4,"schema_version":1,"columns":[],"settings":{}}"#;
        let ControlRecord::TableConfigured(table) = ControlRecord::decode(earlier).unwrap() else { panic!("a table") };
        assert_eq!((&table.settings, table.identity_seed), (&TableSettings::default(), 0));
        let none = std::str::from_utf8(earlier).unwrap().replace("[0]", "[]");
        assert!(matches!(ControlRecord::decode(none.as_bytes()), Err(ControlError::NoPartitions)));
        assert_eq!(ControlRecord::decode(br#"{"record":"tick","late":7}"#).unwrap(), ControlRecord::Tick);
        assert!(ControlRecord::decode(br#"{"record":"table_painted"}"#).is_err());
        assert!(ControlRecord::decode(b"").is_err());
    }
}
