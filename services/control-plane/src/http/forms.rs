//! Tables as JSON, in both directions.

use proto::catalog::{NewTable, TablePatch};
use serde::Serialize;
use serde_json::value::RawValue;
use types::{ApiError, ColumnDef, ColumnKind, ErrorCode, Interval, Rollup, Table, TableName, TableSettings};

use super::json::Fields;

const CREATE_FIELDS: [&str; 13] = [
    "namespace",
    "table",
    "partitions",
    "partition_by",
    "dimensions",
    "metrics",
    "hot_window_us",
    "max_age_us",
    "max_future_us",
    "dedup_window_us",
    "lateness_us",
    "rollups",
    "json_schema",
];
const PATCH_FIELDS: [&str; 9] = [
    "dimensions",
    "metrics",
    "hot_window_us",
    "max_age_us",
    "max_future_us",
    "dedup_window_us",
    "lateness_us",
    "rollups",
    "json_schema",
];
const ROLLUP_FIELDS: [&str; 6] = ["interval_us", "group_by", "distinct", "percentiles", "top", "keep_us"];

/// A table as a reader sees it.
#[derive(Serialize)]
pub(super) struct TableView<'a> {
    namespace: &'a str,
    table: &'a str,
    table_id: u64,
    generation: u32,
    schema_version: u32,
    partitions: usize,
    /// Which of the log's partitions they are, ascending.
    partition_ids: Vec<u32>,
    partition_by: Option<&'a str>,
    /// Below 2^53.
    partition_seed: u64,
    dimensions: Vec<&'a str>,
    metrics: Vec<&'a str>,
    hot_window_us: Option<i64>,
    max_age_us: Option<i64>,
    max_future_us: i64,
    dedup_window_us: i64,
    lateness_us: i64,
    rollups: Vec<RollupView<'a>>,
    json_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct RollupView<'a> {
    interval_us: i64,
    group_by: &'a [String],
    distinct: &'a [String],
    percentiles: &'a [String],
    top: &'a [String],
    keep_us: Option<i64>,
}

impl<'a> From<&'a Table> for TableView<'a> {
    fn from(table: &'a Table) -> Self {
        let settings = &table.settings;
        let rollups = settings.rollups.iter().map(|rollup| RollupView {
            interval_us: rollup.interval.micros(),
            group_by: &rollup.group_by,
            distinct: &rollup.distinct,
            percentiles: &rollup.percentiles,
            top: &rollup.top,
            keep_us: rollup.keep_us,
        });
        Self {
            namespace: &table.name.namespace,
            table: &table.name.table,
            table_id: table.key.table.0,
            generation: table.key.generation.0,
            schema_version: table.schema.version().0,
            partitions: table.partitions.len(),
            partition_ids: table.partitions.iter().map(|partition| partition.0).collect(),
            partition_by: table.partition_by.as_deref(),
            partition_seed: table.partition_seed,
            dimensions: table.schema.names(ColumnKind::Dimension).collect(),
            metrics: table.schema.names(ColumnKind::Metric).collect(),
            hot_window_us: settings.hot_window_us,
            max_age_us: settings.max_age_us,
            max_future_us: settings.max_future_us,
            dedup_window_us: settings.dedup_window_us,
            lateness_us: settings.lateness_us,
            rollups: rollups.collect(),
            json_schema: json_schema_view(settings),
        }
    }
}

fn json_schema_view(settings: &TableSettings) -> Option<&RawValue> {
    let text = settings.json_schema.as_deref()?;
    Some(serde_json::from_str(text).expect("only JSON becomes a table's schema"))
}

/// Reads the body of a creation.
pub(super) fn new_table(body: &[u8]) -> Result<NewTable, ApiError> {
    let mut fields = Fields::parse("a table", body)?;
    let name = TableName::new(fields.required_text("namespace")?, fields.required_text("table")?);
    let partitions = match fields.nullable_integer("partitions")?.flatten() {
        Some(count) => Some(u32::try_from(count).map_err(|_| {
            ApiError::invalid("partitions", format!("partitions is {count}, must be from 1 to those of the log"))
        })?),
        None => None,
    };
    let partition_by = fields.text("partition_by")?;
    let columns = columns(&mut fields)?;
    let defaults = TableSettings::default();
    let settings = TableSettings {
        hot_window_us: fields.nullable_integer("hot_window_us")?.unwrap_or(defaults.hot_window_us),
        max_age_us: fields.nullable_integer("max_age_us")?.unwrap_or(defaults.max_age_us),
        max_future_us: fields.integer("max_future_us")?.unwrap_or(defaults.max_future_us),
        dedup_window_us: fields.integer("dedup_window_us")?.unwrap_or(defaults.dedup_window_us),
        lateness_us: fields.integer("lateness_us")?.unwrap_or(defaults.lateness_us),
        rollups: rollups(&mut fields)?.unwrap_or_default(),
        json_schema: fields.nullable_object("json_schema")?.flatten().map(Into::into),
    };
    fields.finish(&CREATE_FIELDS)?;
    Ok(NewTable { name, partitions, partition_by, columns, settings })
}

/// Reads the body of a change of `table`. What never changes may stand there as it is, so that a client may send back what it
/// read; `schema_version` thereby makes the change conditional.
pub(super) fn patch(body: &[u8], table: &Table) -> Result<TablePatch, ApiError> {
    let mut fields = Fields::parse("a change of a table", body)?;
    let view = serde_json::to_value(TableView::from(table)).map_err(|error| ApiError::internal(error.to_string()))?;
    let fixed = [
        "namespace",
        "table",
        "table_id",
        "generation",
        "schema_version",
        "partitions",
        "partition_ids",
        "partition_by",
        "partition_seed",
    ];
    for name in fixed {
        if !fields.agrees(name, &view[name]) {
            let message = match name {
                "schema_version" => format!("schema_version is {} by now, read the table again", view[name]),
                _ => format!("{name} of this table is {} and never changes", view[name]),
            };
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message).with_field(name));
        }
    }
    let patch = TablePatch {
        add_columns: columns(&mut fields)?,
        hot_window_us: fields.nullable_integer("hot_window_us")?,
        max_age_us: fields.nullable_integer("max_age_us")?,
        max_future_us: fields.integer("max_future_us")?,
        dedup_window_us: fields.integer("dedup_window_us")?,
        lateness_us: fields.integer("lateness_us")?,
        rollups: rollups(&mut fields)?,
        json_schema: fields.nullable_object("json_schema")?.map(|text| text.map(Into::into)),
    };
    fields.finish(&PATCH_FIELDS)?;
    Ok(patch)
}

fn columns(fields: &mut Fields) -> Result<Vec<ColumnDef>, ApiError> {
    let mut columns = Vec::new();
    for (field, kind) in [("dimensions", ColumnKind::Dimension), ("metrics", ColumnKind::Metric)] {
        columns.extend(fields.names(field)?.unwrap_or_default().into_iter().map(|name| ColumnDef { name, kind }));
    }
    Ok(columns)
}

fn rollups(fields: &mut Fields) -> Result<Option<Vec<Rollup>>, ApiError> {
    let Some(objects) = fields.objects("rollups", "a rollup")? else { return Ok(None) };
    objects.into_iter().map(rollup).collect::<Result<_, _>>().map(Some)
}

fn rollup(mut fields: Fields) -> Result<Rollup, ApiError> {
    let interval = fields
        .integer("interval_us")?
        .and_then(Interval::from_micros)
        .ok_or_else(|| ApiError::invalid("interval_us", "interval_us of a rollup must be given and at least 1"))?;
    let rollup = Rollup {
        interval,
        group_by: fields.names("group_by")?.unwrap_or_default(),
        distinct: fields.names("distinct")?.unwrap_or_default(),
        percentiles: fields.names("percentiles")?.unwrap_or_default(),
        top: fields.names("top")?.unwrap_or_default(),
        keep_us: fields.nullable_integer("keep_us")?.flatten(),
    };
    fields.finish(&ROLLUP_FIELDS)?;
    Ok(rollup)
}
