//! The JSON that is stored of lists and settings. Fields that are absent take their defaults, so that rows written before a field
//! existed stay readable; fields that are unknown are ignored, so that a step back of the program's version does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use placement::{Handover, MoveReason, Phase, PlacementMap};
use serde::{Deserialize, Serialize, de};
use types::{ColumnKind, Interval, NodeId, PartitionId, Rollup, TableSettings, limits};

use crate::{MetadataError, Want};

/// More than a gateway can be offered in a second; sums of it over all gateways, times a million, stay within 64 bits.
const WANT_MAX: u64 = 1_000_000_000;

/// Databases have signed integers alone: ids keep their bits.
pub(crate) fn to_stored(id: u64) -> i64 {
    id.cast_signed()
}

pub(crate) fn from_stored(id: i64) -> u64 {
    id.cast_unsigned()
}

/// A stored number that was of 32 bits.
pub(crate) fn narrow(stored: i64, what: &'static str) -> Result<u32, MetadataError> {
    u32::try_from(stored).map_err(|_| MetadataError::Damaged { what })
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct StoredSettings {
    hot_window_us: Option<i64>,
    max_age_us: Option<i64>,
    max_future_us: i64,
    dedup_window_us: i64,
    lateness_us: i64,
    rollups: Vec<StoredRollup>,
    json_schema: Option<String>,
}

impl Default for StoredSettings {
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

#[derive(Serialize, Deserialize)]
struct StoredRollup {
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

pub(crate) fn settings_to_json(settings: &TableSettings) -> String {
    let rollups = settings.rollups.iter().map(|rollup| StoredRollup {
        interval_us: rollup.interval.micros(),
        group_by: rollup.group_by.clone(),
        distinct: rollup.distinct.clone(),
        percentiles: rollup.percentiles.clone(),
        top: rollup.top.clone(),
        keep_us: rollup.keep_us,
    });
    to_json(&StoredSettings {
        hot_window_us: settings.hot_window_us,
        max_age_us: settings.max_age_us,
        max_future_us: settings.max_future_us,
        dedup_window_us: settings.dedup_window_us,
        lateness_us: settings.lateness_us,
        rollups: rollups.collect(),
        json_schema: settings.json_schema.as_deref().map(str::to_owned),
    })
}

pub(crate) fn settings_from_json(json: &str) -> Result<TableSettings, MetadataError> {
    const WHAT: &str = "table settings";
    let stored: StoredSettings = from_json(json, WHAT)?;
    // Whoever shows a table may rely on it.
    if stored.json_schema.as_deref().is_some_and(|text| serde_json::from_str::<de::IgnoredAny>(text).is_err()) {
        return Err(MetadataError::Damaged { what: WHAT });
    }
    let rollups = stored.rollups.into_iter().map(|rollup| {
        Some(Rollup {
            interval: Interval::from_micros(rollup.interval_us)?,
            group_by: rollup.group_by,
            distinct: rollup.distinct,
            percentiles: rollup.percentiles,
            top: rollup.top,
            keep_us: rollup.keep_us,
        })
    });
    Ok(TableSettings {
        hot_window_us: stored.hot_window_us,
        max_age_us: stored.max_age_us,
        max_future_us: stored.max_future_us,
        dedup_window_us: stored.dedup_window_us,
        lateness_us: stored.lateness_us,
        rollups: rollups.collect::<Option<_>>().ok_or(MetadataError::Damaged { what: WHAT })?,
        json_schema: stored.json_schema.map(Into::into),
    })
}

pub(crate) fn partitions_to_json(partitions: &[PartitionId]) -> String {
    to_json(&partitions.iter().map(|partition| partition.0).collect::<Vec<_>>())
}

pub(crate) fn partitions_from_json(json: &str) -> Result<Vec<PartitionId>, MetadataError> {
    Ok(from_json::<Vec<u32>>(json, "partitions")?.into_iter().map(PartitionId).collect())
}

pub(crate) fn replicas_to_json(map: &PlacementMap) -> String {
    let plain: BTreeMap<u32, Vec<u64>> = map
        .replicas
        .iter()
        .map(|(partition, nodes)| (partition.0, nodes.iter().map(|node| node.0).collect()))
        .collect();
    to_json(&plain)
}

pub(crate) fn replicas_from_json(json: &str) -> Result<BTreeMap<PartitionId, Vec<NodeId>>, MetadataError> {
    let plain: BTreeMap<u32, Vec<u64>> = from_json(json, "placement map")?;
    Ok(plain
        .into_iter()
        .map(|(partition, nodes)| (PartitionId(partition), nodes.into_iter().map(NodeId).collect()))
        .collect())
}

/// A move as it is stored, with the names of its phase and reason.
#[derive(Serialize, Deserialize)]
struct StoredMove {
    from: u64,
    to: u64,
    phase: String,
    bytes: u64,
    reason: String,
}

pub(crate) fn moves_to_json(map: &PlacementMap) -> String {
    let stored = |(partition, step): (&PartitionId, &Handover)| {
        let (phase, reason) = (step.phase.name().to_owned(), step.reason.name().to_owned());
        (partition.0, StoredMove { from: step.from.0, to: step.to.0, phase, bytes: step.bytes, reason })
    };
    to_json(&map.moves.iter().map(stored).collect::<BTreeMap<_, _>>())
}

pub(crate) fn moves_from_json(json: &str) -> Result<BTreeMap<PartitionId, Handover>, MetadataError> {
    const WHAT: &str = "moves of partitions";
    let plain: BTreeMap<u32, StoredMove> = from_json(json, WHAT)?;
    let step = |(partition, stored): (u32, StoredMove)| {
        let (from, to, bytes) = (NodeId(stored.from), NodeId(stored.to), stored.bytes);
        let names = Phase::from_name(&stored.phase).zip(MoveReason::from_name(&stored.reason));
        let (phase, reason) = names.ok_or(MetadataError::Damaged { what: WHAT })?;
        Ok((PartitionId(partition), Handover { from, to, phase, bytes, reason }))
    };
    plain.into_iter().map(step).collect()
}

pub(crate) fn draining_to_json(map: &PlacementMap) -> String {
    to_json(&map.draining.iter().map(|node| node.0).collect::<Vec<_>>())
}

pub(crate) fn draining_from_json(json: &str) -> Result<BTreeSet<NodeId>, MetadataError> {
    Ok(from_json::<Vec<u64>>(json, "nodes that are emptied")?.into_iter().map(NodeId).collect())
}

pub(crate) fn addresses_to_json(addresses: &BTreeMap<String, String>) -> String {
    to_json(addresses)
}

pub(crate) fn addresses_from_json(json: &str) -> Result<BTreeMap<String, String>, MetadataError> {
    from_json(json, "addresses of a node")
}

/// A list of pairs of a tenant and what is wanted of its budget, each tenant once.
pub(crate) fn wants_to_json(wants: &[Want]) -> String {
    let mut by_tenant = BTreeMap::<i64, u64>::new();
    for want in wants {
        let sum = by_tenant.entry(to_stored(want.tenant.0)).or_default();
        *sum = sum.saturating_add(want.rate).min(WANT_MAX);
    }
    to_json(&by_tenant.into_iter().collect::<Vec<_>>())
}

pub(crate) fn kind_to_stored(kind: ColumnKind) -> i64 {
    match kind {
        ColumnKind::Dimension => 0,
        ColumnKind::Metric => 1,
    }
}

pub(crate) fn kind_from_stored(stored: i64) -> Result<ColumnKind, MetadataError> {
    match stored {
        0 => Ok(ColumnKind::Dimension),
        1 => Ok(ColumnKind::Metric),
        _ => Err(MetadataError::Damaged { what: "column kind" }),
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, strings and lists of them always serialise")
}

fn from_json<T: for<'de> Deserialize<'de>>(json: &str, what: &'static str) -> Result<T, MetadataError> {
    serde_json::from_str(json).map_err(|_| MetadataError::Damaged { what })
}

/// A time to live, in the unit of the store's clock.
pub(crate) fn micros(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 2)
}
