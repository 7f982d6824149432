//! The JSON of a query, read strictly: unknown fields are refused by name, limits hold before anything is planned.

use std::time::Duration;

use types::{ApiError, ErrorCode, Interval, TableName, TimeRange, Timestamp, check_table_name};

use crate::{
    ast::{GROUP_COLUMNS_MAX, ORDER_COLUMNS_MAX, OrderBy, Query, QueryLimits, TABLES_MAX, TOKENS_MAX},
    json::{Json, shown},
    parse_aggregate::{aggregates, short_aggregate},
    parse_filter::filters,
};

const FIELDS: &str = "namespace, table, tables, start_time, end_time, filters, group_by, aggregate, metric, dimension, \
     aggregates, interval_us, order_by, limit, after, timeout_ms, allow_partial";

/// Reads a query. Pure: the caller looks up its tables and checks the tokens of `after`.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the innermost field at fault.
pub fn parse(json: &[u8], limits: &QueryLimits) -> Result<Query, ApiError> {
    let mut fields = Fields::read(json)?;
    let (tables, several) = tables(&mut fields)?;
    let range = range(&mut fields)?;
    let filters = fields.take("filters").map_or(Ok(Vec::new()), filters)?;
    let group_by = fields.take("group_by").map_or(Ok(Vec::new()), group_by)?;
    let interval = fields.take("interval_us").map(|json| interval(&json)).transpose()?;
    let aggregates = match fields.take("aggregates") {
        None => vec![short_aggregate(fields.take_short())?],
        Some(_) if !fields.take_short().is_empty() => {
            return Err(ApiError::invalid("aggregates", "either aggregates or the short form aggregate, not both"));
        }
        Some(json) => aggregates(json)?,
    };
    let order_by = fields.take("order_by").map_or(Ok(Vec::new()), order_by)?;
    let limit = fields.take("limit").map_or(Ok(limits.rows_default), |json| limit(&json, limits.rows_max))?;
    let after = fields.take("after").map_or(Ok(Vec::new()), tokens)?;
    let timeout = fields.take("timeout_ms").map_or(Ok(limits.timeout_default), |json| timeout(&json, limits))?;
    let allow_partial = fields.take("allow_partial").map_or(Ok(false), |json| json.to_bool("allow_partial"))?;
    fields.finish()?;
    Ok(Query {
        tables,
        several,
        range,
        filters,
        group_by,
        interval,
        aggregates,
        order_by,
        limit,
        groups_max: limits.groups_max,
        bytes_max: limits.bytes_max,
        values: limits.values,
        after,
        timeout,
        allow_partial,
    })
}

/// The fields of the outermost object that have not been taken yet.
struct Fields(Vec<(String, Json)>);

impl Fields {
    fn read(json: &[u8]) -> Result<Self, ApiError> {
        match Json::read(json)? {
            Json::Object(entries) => Ok(Self(entries)),
            other => Err(ApiError::new(
                ErrorCode::InvalidArgument,
                format!("a query must be an object, not {}", other.kind()),
            )),
        }
    }

    /// A field's value; `None` where it is absent or null, which means the same everywhere in a query.
    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        match self.0.swap_remove(at).1 {
            Json::Null => None,
            value => Some(value),
        }
    }

    fn require(&mut self, name: &str) -> Result<Json, ApiError> {
        self.take(name).ok_or_else(|| ApiError::invalid(name, format!("{name} is missing")))
    }

    /// The fields of the short form, which are those of one aggregate; those that are null are absent.
    fn take_short(&mut self) -> Vec<(String, Json)> {
        let (mut short, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(name, _)| crate::parse_aggregate::is_short_field(name));
        self.0 = rest;
        short.retain(|(_, value)| *value != Json::Null);
        short
    }

    fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::invalid(name, format!("unknown field {}; a query has {FIELDS}", shown(name))))
            }
        }
    }
}

fn tables(fields: &mut Fields) -> Result<(Vec<TableName>, bool), ApiError> {
    let Some(list) = fields.take("tables") else {
        let namespace = fields.require("namespace")?;
        let table = fields.require("table")?;
        return Ok((vec![table_name(namespace, table)?], false));
    };
    for name in ["namespace", "table"] {
        if fields.take(name).is_some() {
            return Err(ApiError::invalid("tables", "either tables or namespace and table, not both"));
        }
    }
    let list = list.into_array("tables")?;
    if list.is_empty() || list.len() > TABLES_MAX {
        return Err(ApiError::invalid("tables", format!("tables must name 1 to {TABLES_MAX} tables")));
    }
    let mut tables = Vec::with_capacity(list.len());
    for entry in list {
        let mut entry = Fields(entry.into_object("tables")?);
        let namespace = entry.require("namespace")?;
        let table = entry.require("table")?;
        if let Some((name, _)) = entry.0.first() {
            let message = format!("unknown field {}; an entry of tables has namespace, table", shown(name));
            return Err(ApiError::invalid(name, message));
        }
        let name = table_name(namespace, table)?;
        if tables.contains(&name) {
            return Err(ApiError::invalid("tables", format!("{name} stands twice in tables")));
        }
        tables.push(name);
    }
    Ok((tables, true))
}

fn table_name(namespace: Json, table: Json) -> Result<TableName, ApiError> {
    let part = |json: Json, field: &str| {
        let name = json.into_string(field)?;
        check_table_name(&name).map_err(|error| ApiError::invalid(field, format!("{field} {error}")))?;
        Ok::<_, ApiError>(name)
    };
    Ok(TableName { namespace: part(namespace, "namespace")?, table: part(table, "table")? })
}

fn range(fields: &mut Fields) -> Result<TimeRange, ApiError> {
    let start = fields.require("start_time")?.to_i64("start_time")?;
    let end = fields.require("end_time")?.to_i64("end_time")?;
    TimeRange::new(Timestamp(start), Timestamp(end))
        .ok_or_else(|| ApiError::invalid("end_time", "end_time must be after start_time"))
}

fn interval(json: &Json) -> Result<Interval, ApiError> {
    Interval::from_micros(json.to_i64("interval_us")?)
        .ok_or_else(|| ApiError::invalid("interval_us", "interval_us must be at least 1"))
}

fn group_by(json: Json) -> Result<Vec<String>, ApiError> {
    let list = json.into_array("group_by")?;
    if list.len() > GROUP_COLUMNS_MAX {
        let message = format!("group_by names {} columns, at most {GROUP_COLUMNS_MAX} are allowed", list.len());
        return Err(ApiError::invalid("group_by", message));
    }
    let mut columns: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        let name = item.into_string("group_by")?;
        if columns.contains(&name) {
            return Err(ApiError::invalid(&name, format!("{} stands twice in group_by", shown(&name))));
        }
        columns.push(name);
    }
    Ok(columns)
}

fn order_by(json: Json) -> Result<Vec<OrderBy>, ApiError> {
    let list = json.into_array("order_by")?;
    if list.len() > ORDER_COLUMNS_MAX {
        let message = format!("order_by has {} entries, at most {ORDER_COLUMNS_MAX} are allowed", list.len());
        return Err(ApiError::invalid("order_by", message));
    }
    let mut keys: Vec<OrderBy> = Vec::with_capacity(list.len());
    for item in list {
        let mut entry = Fields(item.into_object("order_by")?);
        let column = entry.require("column")?.into_string("column")?;
        let descending = entry.take("desc").map_or(Ok(false), |json| json.to_bool("desc"))?;
        if let Some((name, _)) = entry.0.first() {
            let message = format!("unknown field {}; an entry of order_by has column, desc", shown(name));
            return Err(ApiError::invalid(name, message));
        }
        if keys.iter().any(|key| key.column == column) {
            return Err(ApiError::invalid(&column, format!("{} stands twice in order_by", shown(&column))));
        }
        keys.push(OrderBy { column, descending });
    }
    Ok(keys)
}

fn limit(json: &Json, max: usize) -> Result<usize, ApiError> {
    let limit = json.to_u64("limit")?;
    match usize::try_from(limit) {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        _ => Err(ApiError::invalid("limit", format!("limit must be 1 to {max}, not {limit}"))),
    }
}

fn timeout(json: &Json, limits: &QueryLimits) -> Result<Duration, ApiError> {
    let timeout = Duration::from_millis(json.to_u64("timeout_ms")?);
    if timeout.is_zero() || timeout > limits.timeout_max {
        let max = limits.timeout_max.as_millis();
        return Err(ApiError::invalid("timeout_ms", format!("timeout_ms must be 1 to {max}")));
    }
    Ok(timeout)
}

fn tokens(json: Json) -> Result<Vec<String>, ApiError> {
    let list = match json {
        Json::String(token) => return Ok(vec![token]),
        other => other.into_array("after")?,
    };
    if list.len() > TOKENS_MAX {
        return Err(ApiError::invalid("after", format!("after holds more than {TOKENS_MAX} tokens")));
    }
    // A table without a token yet stands as null in a client's list, as it would alone.
    list.into_iter().filter(|item| *item != Json::Null).map(|item| item.into_string("after")).collect()
}
