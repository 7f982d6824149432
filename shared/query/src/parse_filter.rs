//! Filters: a value, a list of values, or an object of operators, per column.

use types::ApiError;

use crate::{
    ast::{Comparison, Condition, FILTER_VALUES_MAX, FILTERS_MAX, Filter, Scalar},
    json::{Json, shown},
};

/// Integers of this magnitude and more are not told apart as `f64`.
const FLOAT_INTEGER_END: f64 = 9_007_199_254_740_992.0;

/// Reads the object `filters`.
pub(crate) fn filters(json: Json) -> Result<Vec<Filter>, ApiError> {
    let entries = json.into_object("filters")?;
    if entries.len() > FILTERS_MAX {
        let message = format!("filters name {} columns, at most {FILTERS_MAX} are allowed", entries.len());
        return Err(ApiError::invalid("filters", message));
    }
    let mut filters = Vec::with_capacity(entries.len());
    let mut values = 0;
    for (column, condition) in entries {
        let conditions = conditions(&column, condition)?;
        values += conditions.iter().map(values_of).sum::<usize>();
        if values > FILTER_VALUES_MAX {
            return Err(ApiError::invalid(column, format!("filters hold more than {FILTER_VALUES_MAX} values")));
        }
        filters.push(Filter { column, conditions });
    }
    Ok(filters)
}

fn values_of(condition: &Condition) -> usize {
    match condition {
        Condition::In(values) | Condition::NotIn(values) => values.len(),
        _ => 1,
    }
}

fn conditions(column: &str, json: Json) -> Result<Vec<Condition>, ApiError> {
    match json {
        Json::Array(items) => Ok(vec![Condition::In(scalars(column, items)?)]),
        Json::Object(operators) if operators.is_empty() => {
            Err(ApiError::invalid(column, format!("the filter on {} has no operator", shown(column))))
        }
        Json::Object(operators) => operators.into_iter().map(|(name, operand)| operator(&name, operand)).collect(),
        value => Ok(vec![Condition::In(vec![scalar(column, value)?])]),
    }
}

fn operator(name: &str, operand: Json) -> Result<Condition, ApiError> {
    let compare = |comparison, operand| Ok(Condition::Compare(comparison, scalar(name, operand)?));
    match name {
        "eq" => Ok(Condition::In(vec![scalar(name, operand)?])),
        "ne" => Ok(Condition::NotIn(vec![scalar(name, operand)?])),
        "in" => Ok(Condition::In(scalars(name, operand.into_array(name)?)?)),
        "not_in" => Ok(Condition::NotIn(scalars(name, operand.into_array(name)?)?)),
        "gt" => compare(Comparison::Gt, operand),
        "gte" => compare(Comparison::Gte, operand),
        "lt" => compare(Comparison::Lt, operand),
        "lte" => compare(Comparison::Lte, operand),
        "prefix" => Ok(Condition::Prefix(operand.into_string(name)?)),
        "exists" => Ok(Condition::Exists(operand.to_bool(name)?)),
        _ => {
            let known = "eq, ne, in, not_in, gt, gte, lt, lte, prefix, exists";
            Err(ApiError::invalid(name, format!("unknown operator {}; a filter has {known}", shown(name))))
        }
    }
}

fn scalars(field: &str, items: Vec<Json>) -> Result<Vec<Scalar>, ApiError> {
    items.into_iter().map(|item| scalar(field, item)).collect()
}

fn scalar(field: &str, json: Json) -> Result<Scalar, ApiError> {
    match json {
        Json::String(text) => Ok(Scalar::Text(text)),
        Json::Bool(flag) => Ok(Scalar::Bool(flag)),
        Json::Number(number) => {
            let value = Json::Number(number.clone()).to_f64(field)?;
            // 1e20 and 100000000000000000000 are one number by now: which text was meant is lost.
            let lost = number.is_f64() && value.abs() >= FLOAT_INTEGER_END;
            Ok(Scalar::Number { value, text: (!lost).then(|| number.to_string()) })
        }
        Json::Null => {
            let message =
                format!("{} must not be null; rows without a value satisfy {{\"exists\":false}}", shown(field));
            Err(ApiError::invalid(field, message))
        }
        other => Err(ApiError::invalid(field, format!("{} must be a scalar, not {}", shown(field), other.kind()))),
    }
}
