//! What a table may be: the checks of names, settings and rollups, as functions of what was asked for.

use std::{collections::BTreeSet, ops::RangeInclusive};

use codec::TimeLimits;
use event_schema::EventSchema;
use proto::catalog::{NewTable, TablePatch};
use types::{
    ApiError, ColumnDef, ColumnKind, ErrorCode, Rollup, Schema, SchemaConflict, SchemaVersion, Table, TableName,
    TableSettings, check_column_name, check_table_name,
};

/// Rollups of one table.
pub(crate) const ROLLUPS_MAX: usize = 64;
/// Any window but `max_future_us`, µs: a thousand years. Added to any event time that is taken, it still fits.
pub(crate) const WINDOW_US_MAX: i64 = 1_000 * YEAR_US;
/// µs of 366 days.
const YEAR_US: i64 = 366 * 86_400_000_000;

/// Checks both parts of a name.
pub(crate) fn check_name(name: &TableName) -> Result<(), ApiError> {
    for (field, part) in [("namespace", &name.namespace), ("table", &name.table)] {
        check_table_name(part).map_err(|error| ApiError::invalid(field, format!("{field} {error}")))?;
    }
    Ok(())
}

/// Checks a new table and gives the schema that it starts with and how many partitions it uses.
pub(crate) fn check_new(new: &NewTable, log_partitions: u32) -> Result<(Schema, u32), ApiError> {
    check_name(&new.name)?;
    let partitions = new.partitions.unwrap_or(log_partitions);
    if partitions == 0 || partitions > log_partitions {
        let message = format!("partitions is {partitions}, must be from 1 to the {log_partitions} of the log");
        return Err(ApiError::invalid("partitions", message));
    }
    check_settings(&new.settings)?;
    let mut wanted = new.columns.clone();
    wanted.extend(new.partition_by.iter().map(|name| dimension(name)));
    wanted.extend(columns_of_rollups(&new.settings.rollups));
    let columns = add_columns(&Schema::default(), &wanted)?.map(|schema| schema.columns().to_vec()).unwrap_or_default();
    Ok((Schema::from_parts(SchemaVersion(1), columns), partitions))
}

/// The table with the columns added; `None` if it has them all.
pub(crate) fn with_columns(table: &Table, columns: &[ColumnDef]) -> Result<Option<Table>, ApiError> {
    Ok(add_columns(&table.schema, columns)?.map(|schema| Table { schema, ..table.clone() }))
}

/// The table with a patch applied, one version higher; `None` if it changes nothing.
pub(crate) fn patched(table: &Table, patch: &TablePatch) -> Result<Option<Table>, ApiError> {
    let now = &table.settings;
    let settings = TableSettings {
        hot_window_us: patch.hot_window_us.unwrap_or(now.hot_window_us),
        max_age_us: patch.max_age_us.unwrap_or(now.max_age_us),
        max_future_us: patch.max_future_us.unwrap_or(now.max_future_us),
        dedup_window_us: patch.dedup_window_us.unwrap_or(now.dedup_window_us),
        lateness_us: patch.lateness_us.unwrap_or(now.lateness_us),
        rollups: patch.rollups.clone().unwrap_or_else(|| now.rollups.clone()),
        json_schema: patch.json_schema.clone().unwrap_or_else(|| now.json_schema.clone()),
    };
    check_settings(&settings)?;
    let mut wanted = patch.add_columns.clone();
    wanted.extend(columns_of_rollups(&settings.rollups));
    let grown = add_columns(&table.schema, &wanted)?;
    if grown.is_none() && settings == *now {
        return Ok(None);
    }
    let columns = grown.as_ref().unwrap_or(&table.schema).columns().to_vec();
    let schema = Schema::from_parts(SchemaVersion(table.schema.version().0 + 1), columns);
    Ok(Some(Table { schema, settings, ..table.clone() }))
}

/// Checks a table's JSON Schema. Takes milliseconds where it is large: not for the threads of the network.
pub(crate) fn check_json_schema(text: &str) -> Result<(), ApiError> {
    EventSchema::compile(text).map(drop).map_err(|error| ApiError::invalid("json_schema", error.to_string()))
}

fn add_columns(schema: &Schema, columns: &[ColumnDef]) -> Result<Option<Schema>, ApiError> {
    for column in columns {
        check_column_name(&column.name)
            .map_err(|error| ApiError::invalid(&column.name, format!("{} {:?} {error}", column.kind, column.name)))?;
    }
    schema.with_columns(columns).map_err(|conflict| {
        let message = conflict.to_string();
        match conflict {
            SchemaConflict::Kind { name, .. } => ApiError::invalid(name, message),
            SchemaConflict::TooManyColumns => ApiError::new(ErrorCode::InvalidArgument, message),
        }
    })
}

fn columns_of_rollups(rollups: &[Rollup]) -> impl Iterator<Item = ColumnDef> {
    rollups.iter().flat_map(|rollup| {
        let dimensions = rollup.group_by.iter().chain(&rollup.distinct).chain(&rollup.top);
        let metrics = rollup.percentiles.iter().map(|name| ColumnDef { name: name.clone(), kind: ColumnKind::Metric });
        dimensions.map(|name| dimension(name)).chain(metrics)
    })
}

fn dimension(name: &str) -> ColumnDef {
    ColumnDef { name: name.to_owned(), kind: ColumnKind::Dimension }
}

fn check_settings(settings: &TableSettings) -> Result<(), ApiError> {
    let windows = [
        ("hot_window_us", settings.hot_window_us, 1..=WINDOW_US_MAX),
        ("dedup_window_us", Some(settings.dedup_window_us), 1..=WINDOW_US_MAX),
        ("max_age_us", settings.max_age_us, 0..=WINDOW_US_MAX),
        ("max_future_us", Some(settings.max_future_us), 0..=TimeLimits::FUTURE_US_MAX),
        ("lateness_us", Some(settings.lateness_us), 0..=WINDOW_US_MAX),
    ];
    for (field, value, allowed) in windows {
        within(field, value, &allowed)?;
    }
    if settings.rollups.len() > ROLLUPS_MAX {
        return Err(ApiError::invalid("rollups", format!("a table has at most {ROLLUPS_MAX} rollups")));
    }
    settings.rollups.iter().try_for_each(check_rollup)?;
    check_intervals(&settings.rollups)
}

/// Of two intervals of a table one divides the other. Else buckets of a finer rollup would lie across the edges of those of a
/// coarser one, and a range whose rows have left would lack what neither has there as a whole.
fn check_intervals(rollups: &[Rollup]) -> Result<(), ApiError> {
    let mut intervals: Vec<i64> = rollups.iter().map(|rollup| rollup.interval.micros()).collect();
    intervals.sort_unstable();
    match intervals.windows(2).find(|pair| pair[1] % pair[0] != 0) {
        Some(pair) => {
            let message = format!(
                "of two rollups of a table the shorter interval_us divides the longer, {} does not divide {}",
                pair[0], pair[1]
            );
            Err(ApiError::invalid("interval_us", message))
        }
        None => Ok(()),
    }
}

fn check_rollup(rollup: &Rollup) -> Result<(), ApiError> {
    within("keep_us", rollup.keep_us, &(1..=WINDOW_US_MAX))?;
    let lists = [
        ("group_by", &rollup.group_by),
        ("distinct", &rollup.distinct),
        ("percentiles", &rollup.percentiles),
        ("top", &rollup.top),
    ];
    for (field, names) in lists {
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(ApiError::invalid(field, format!("{field} of a rollup names {twice:?} twice")));
        }
    }
    Ok(())
}

fn within(field: &str, value: Option<i64>, allowed: &RangeInclusive<i64>) -> Result<(), ApiError> {
    match value {
        Some(value) if value < *allowed.start() => {
            let least = allowed.start();
            Err(ApiError::invalid(field, format!("{field} is {value}, must be at least {least}")))
        }
        Some(value) if value > *allowed.end() => {
            let most = allowed.end();
            let years = most / YEAR_US;
            Err(ApiError::invalid(field, format!("{field} is {value}, must be at most {most} ({years} years)")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use types::Interval;

    use super::*;

    fn new_table() -> NewTable {
        NewTable::auto(TableName::new("shop", "events"))
    }

    fn rollup() -> Rollup {
        Rollup {
            interval: Interval::from_micros(1).unwrap(),
            group_by: vec!["region".into()],
            distinct: vec!["user".into()],
            percentiles: vec!["latency".into()],
            top: vec!["region".into()],
            keep_us: None,
        }
    }

    fn refused(new: &NewTable) -> String {
        check_new(new, 4).unwrap_err().field.unwrap_or_default()
    }

    /// Goal: a table starts at version 1 with all columns that anything of it names.
    #[test]
    fn a_table_starts_with_what_it_names() {
        let mut new = new_table();
        new.partition_by = Some("user".into());
        new.settings.rollups = vec![rollup()];
        let (schema, partitions) = check_new(&new, 4).unwrap();
        assert_eq!((schema.version(), partitions), (SchemaVersion(1), 4));
        assert_eq!(schema.names(ColumnKind::Dimension).collect::<Vec<_>>(), ["user", "region"]);
        assert_eq!(schema.names(ColumnKind::Metric).collect::<Vec<_>>(), ["latency"]);
    }

    /// Goal: what cannot be is refused by the innermost name at fault.
    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let with = |change: &dyn Fn(&mut NewTable)| {
            let mut new = new_table();
            change(&mut new);
            refused(&new)
        };
        assert_eq!(with(&|new| new.name.namespace = String::new()), "namespace");
        assert_eq!(with(&|new| new.name.table = "a.b".into()), "table");
        assert_eq!(with(&|new| new.partitions = Some(5)), "partitions");
        assert_eq!(with(&|new| new.partitions = Some(0)), "partitions");
        assert_eq!(with(&|new| new.partition_by = Some("a\0".into())), "a\0");
        assert_eq!(with(&|new| new.settings.hot_window_us = Some(0)), "hot_window_us");
        assert_eq!(with(&|new| new.settings.dedup_window_us = 0), "dedup_window_us");
        assert_eq!(with(&|new| new.settings.max_age_us = Some(-1)), "max_age_us");
        assert_eq!(with(&|new| new.settings.max_future_us = -1), "max_future_us");
        assert_eq!(with(&|new| new.settings.lateness_us = -1), "lateness_us");
        for beyond in [WINDOW_US_MAX + 1, i64::MAX] {
            assert_eq!(with(&|new| new.settings.hot_window_us = Some(beyond)), "hot_window_us");
            assert_eq!(with(&|new| new.settings.dedup_window_us = beyond), "dedup_window_us");
            assert_eq!(with(&|new| new.settings.max_age_us = Some(beyond)), "max_age_us");
            assert_eq!(with(&|new| new.settings.max_future_us = TimeLimits::FUTURE_US_MAX + 1), "max_future_us");
            assert_eq!(with(&|new| new.settings.lateness_us = beyond), "lateness_us");
            let keeps = Rollup { keep_us: Some(beyond), ..rollup() };
            assert_eq!(with(&|new| new.settings.rollups = vec![keeps.clone()]), "keep_us");
        }
        assert_eq!(with(&|new| new.settings.rollups = vec![rollup(); ROLLUPS_MAX + 1]), "rollups");
        assert_eq!(with(&|new| new.settings.rollups = vec![Rollup { keep_us: Some(0), ..rollup() }]), "keep_us");
        let twice = Rollup { group_by: vec!["a".into(), "a".into()], ..rollup() };
        assert_eq!(with(&|new| new.settings.rollups = vec![twice.clone()]), "group_by");
        let every = |micros| Rollup { interval: Interval::from_micros(micros).unwrap(), ..rollup() };
        assert_eq!(with(&|new| new.settings.rollups = [900, 60, 600].map(every).to_vec()), "interval_us");
        assert!(
            check_settings(&TableSettings {
                rollups: [3_600, 60, 600, 60].map(every).to_vec(),
                ..TableSettings::default()
            })
            .is_ok()
        );
        let both = Rollup { percentiles: vec!["region".into()], ..rollup() };
        assert_eq!(with(&|new| new.settings.rollups = vec![both.clone()]), "region");
    }

    /// Goal: a patch changes what it names, raises the version by one, and is nothing where it changes nothing.
    #[test]
    fn patches_change_what_they_name() {
        let (schema, _) = check_new(&new_table(), 4).unwrap();
        let table = Table {
            key: types::TableKey {
                tenant: types::TenantId::DEFAULT,
                table: types::TableId(1),
                generation: types::Generation(1),
            },
            name: TableName::new("shop", "events"),
            partitions: vec![types::PartitionId(0)],
            partition_by: None,
            partition_seed: 1,
            identity_seed: 0,
            schema,
            settings: TableSettings { hot_window_us: Some(5), ..TableSettings::default() },
        };
        assert_eq!(patched(&table, &TablePatch::default()), Ok(None));
        let patch = TablePatch { hot_window_us: Some(None), rollups: Some(vec![rollup()]), ..TablePatch::default() };
        let next = patched(&table, &patch).unwrap().unwrap();
        assert_eq!(next.settings.hot_window_us, None);
        assert_eq!(next.schema.version(), SchemaVersion(2));
        assert_eq!(next.schema.columns().len(), 3);
        assert_eq!(patched(&next, &patch), Ok(None));
        let wrong = TablePatch { max_future_us: Some(-1), ..TablePatch::default() };
        assert_eq!(patched(&table, &wrong).unwrap_err().field.as_deref(), Some("max_future_us"));
    }
}
