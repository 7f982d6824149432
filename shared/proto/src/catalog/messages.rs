//! Tables and placement as messages. What comes from another process is checked where a type promises something; the rest is
//! taken as it is, for both are of one cluster.

use std::sync::Arc;

use placement::{Handover, MoveReason, Phase, PlacementMap};
use types::{
    ColumnDef, ColumnKind, Generation, Interval, NodeId, PartitionId, Rollup, Schema, SchemaVersion, Table, TableId,
    TableKey, TableName, TableSettings, TenantId,
};

use super::{NewTable, TablePatch};
use crate::{internal, wire::Malformed};

impl From<TableKey> for internal::TableKey {
    fn from(key: TableKey) -> Self {
        Self { tenant: key.tenant.0, table: key.table.0, generation: key.generation.0 }
    }
}

impl From<internal::TableKey> for TableKey {
    fn from(key: internal::TableKey) -> Self {
        Self { tenant: TenantId(key.tenant), table: TableId(key.table), generation: Generation(key.generation) }
    }
}

/// A table by its name.
pub(crate) fn table_ref(tenant: TenantId, name: &TableName) -> internal::TableRef {
    let TableName { namespace, table } = name.clone();
    internal::TableRef { tenant: tenant.0, namespace, table }
}

impl From<internal::TableRef> for (TenantId, TableName) {
    fn from(table: internal::TableRef) -> Self {
        (TenantId(table.tenant), TableName::new(table.namespace, table.table))
    }
}

impl From<&ColumnDef> for internal::Column {
    fn from(column: &ColumnDef) -> Self {
        let kind = match column.kind {
            ColumnKind::Dimension => internal::ColumnKind::Dimension,
            ColumnKind::Metric => internal::ColumnKind::Metric,
        };
        Self { name: column.name.clone(), kind: kind.into() }
    }
}

impl TryFrom<internal::Column> for ColumnDef {
    type Error = Malformed;

    fn try_from(column: internal::Column) -> Result<Self, Malformed> {
        let kind = match column.kind() {
            internal::ColumnKind::Dimension => ColumnKind::Dimension,
            internal::ColumnKind::Metric => ColumnKind::Metric,
            internal::ColumnKind::Unspecified => return Err(Malformed("a column of an unknown kind")),
        };
        Ok(Self { name: column.name, kind })
    }
}

/// Columns as they came.
pub(super) fn columns(columns: Vec<internal::Column>) -> Result<Vec<ColumnDef>, Malformed> {
    columns.into_iter().map(ColumnDef::try_from).collect()
}

impl From<&Rollup> for internal::Rollup {
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

impl TryFrom<internal::Rollup> for Rollup {
    type Error = Malformed;

    fn try_from(rollup: internal::Rollup) -> Result<Self, Malformed> {
        Ok(Self {
            interval: Interval::from_micros(rollup.interval_us).ok_or(Malformed("a rollup without an interval"))?,
            group_by: rollup.group_by,
            distinct: rollup.distinct,
            percentiles: rollup.percentiles,
            top: rollup.top,
            keep_us: rollup.keep_us,
        })
    }
}

fn rollups(rollups: Vec<internal::Rollup>) -> Result<Vec<Rollup>, Malformed> {
    rollups.into_iter().map(Rollup::try_from).collect()
}

impl From<&TableSettings> for internal::TableSettings {
    fn from(settings: &TableSettings) -> Self {
        Self {
            hot_window_us: settings.hot_window_us,
            max_age_us: settings.max_age_us,
            max_future_us: settings.max_future_us,
            dedup_window_us: settings.dedup_window_us,
            lateness_us: settings.lateness_us,
            rollups: settings.rollups.iter().map(internal::Rollup::from).collect(),
            json_schema: settings.json_schema.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<internal::TableSettings> for TableSettings {
    type Error = Malformed;

    fn try_from(settings: internal::TableSettings) -> Result<Self, Malformed> {
        Ok(Self {
            hot_window_us: settings.hot_window_us,
            max_age_us: settings.max_age_us,
            max_future_us: settings.max_future_us,
            dedup_window_us: settings.dedup_window_us,
            lateness_us: settings.lateness_us,
            rollups: rollups(settings.rollups)?,
            json_schema: settings.json_schema.map(Arc::from),
        })
    }
}

impl From<&Table> for internal::Table {
    fn from(table: &Table) -> Self {
        Self {
            key: Some(table.key.into()),
            namespace: table.name.namespace.clone(),
            table: table.name.table.clone(),
            partitions: table.partitions.iter().map(|partition| partition.0).collect(),
            partition_by: table.partition_by.clone(),
            partition_seed: table.partition_seed,
            identity_seed: table.identity_seed,
            schema_version: table.schema.version().0,
            columns: table.schema.columns().iter().map(internal::Column::from).collect(),
            settings: Some((&table.settings).into()),
        }
    }
}

impl TryFrom<internal::Table> for Table {
    type Error = Malformed;

    fn try_from(table: internal::Table) -> Result<Self, Malformed> {
        let partitions: Vec<_> = table.partitions.into_iter().map(PartitionId).collect();
        if partitions.is_empty() || !partitions.is_sorted_by(|a, b| a < b) {
            return Err(Malformed("a table whose partitions do not ascend"));
        }
        Ok(Self {
            key: table.key.ok_or(Malformed("a table without a key"))?.into(),
            name: TableName::new(table.namespace, table.table),
            partitions,
            partition_by: table.partition_by,
            partition_seed: table.partition_seed,
            identity_seed: table.identity_seed,
            schema: Schema::from_parts(SchemaVersion(table.schema_version), columns(table.columns)?),
            settings: table.settings.ok_or(Malformed("a table without settings"))?.try_into()?,
        })
    }
}

/// A creation as a message.
pub(super) fn create_request(tenant: TenantId, new: &NewTable) -> internal::CreateTableRequest {
    internal::CreateTableRequest {
        tenant: tenant.0,
        namespace: new.name.namespace.clone(),
        table: new.name.table.clone(),
        partitions: new.partitions,
        partition_by: new.partition_by.clone(),
        columns: new.columns.iter().map(internal::Column::from).collect(),
        settings: Some((&new.settings).into()),
    }
}

impl TryFrom<internal::CreateTableRequest> for (TenantId, NewTable) {
    type Error = Malformed;

    fn try_from(request: internal::CreateTableRequest) -> Result<Self, Malformed> {
        let new = NewTable {
            name: TableName::new(request.namespace, request.table),
            partitions: request.partitions,
            partition_by: request.partition_by,
            columns: columns(request.columns)?,
            settings: request.settings.ok_or(Malformed("a table without settings"))?.try_into()?,
        };
        Ok((TenantId(request.tenant), new))
    }
}

/// A change of a table as a message.
pub(super) fn patch_request(tenant: TenantId, name: &TableName, patch: &TablePatch) -> internal::PatchTableRequest {
    let nullable = |value: Option<Option<i64>>| value.map(|value| internal::NullableInt64 { value });
    internal::PatchTableRequest {
        tenant: tenant.0,
        namespace: name.namespace.clone(),
        table: name.table.clone(),
        add_columns: patch.add_columns.iter().map(internal::Column::from).collect(),
        hot_window_us: nullable(patch.hot_window_us),
        max_age_us: nullable(patch.max_age_us),
        max_future_us: patch.max_future_us,
        dedup_window_us: patch.dedup_window_us,
        lateness_us: patch.lateness_us,
        rollups: patch
            .rollups
            .as_ref()
            .map(|rollups| internal::RollupList { rollups: rollups.iter().map(internal::Rollup::from).collect() }),
        json_schema: patch
            .json_schema
            .as_ref()
            .map(|text| internal::NullableString { value: text.as_deref().map(str::to_owned) }),
    }
}

impl TryFrom<internal::PatchTableRequest> for (TenantId, TableName, TablePatch) {
    type Error = Malformed;

    fn try_from(request: internal::PatchTableRequest) -> Result<Self, Malformed> {
        let patch = TablePatch {
            add_columns: columns(request.add_columns)?,
            hot_window_us: request.hot_window_us.map(|nullable| nullable.value),
            max_age_us: request.max_age_us.map(|nullable| nullable.value),
            max_future_us: request.max_future_us,
            dedup_window_us: request.dedup_window_us,
            lateness_us: request.lateness_us,
            rollups: request.rollups.map(|list| rollups(list.rollups)).transpose()?,
            json_schema: request.json_schema.map(|nullable| nullable.value.map(Arc::from)),
        };
        Ok((TenantId(request.tenant), TableName::new(request.namespace, request.table), patch))
    }
}

impl From<&PlacementMap> for internal::Placement {
    fn from(map: &PlacementMap) -> Self {
        let partitions = map.replicas.iter().map(|(partition, nodes)| internal::PartitionReplicas {
            partition: partition.0,
            nodes: nodes.iter().map(|node| node.0).collect(),
        });
        let moves = map.moves.iter().map(|(partition, step)| internal::PartitionMove {
            partition: partition.0,
            from: step.from.0,
            to: step.to.0,
            phase: step.phase.name().to_owned(),
            bytes: step.bytes,
            reason: step.reason.name().to_owned(),
        });
        Self {
            version: map.version,
            partitions: partitions.collect(),
            moves: moves.collect(),
            draining: map.draining.iter().map(|node| node.0).collect(),
        }
    }
}

impl From<internal::Placement> for PlacementMap {
    fn from(map: internal::Placement) -> Self {
        let replicas = map
            .partitions
            .into_iter()
            .map(|partition| (PartitionId(partition.partition), partition.nodes.into_iter().map(NodeId).collect()));
        Self {
            version: map.version,
            replicas: replicas.collect(),
            moves: map.moves.iter().filter_map(handover).collect(),
            draining: map.draining.into_iter().map(NodeId).collect(),
        }
    }
}

/// A move; `None` where its phase is one that this version does not know: nobody holds anything for it here then.
fn handover(step: &internal::PartitionMove) -> Option<(PartitionId, Handover)> {
    let handover = Handover {
        from: NodeId(step.from),
        to: NodeId(step.to),
        phase: Phase::from_name(&step.phase)?,
        bytes: step.bytes,
        // Only people read it.
        reason: MoveReason::from_name(&step.reason).unwrap_or(MoveReason::Request),
    };
    Some((PartitionId(step.partition), handover))
}

#[cfg(test)]
mod tests;
