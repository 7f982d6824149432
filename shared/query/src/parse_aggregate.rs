//! Aggregates: the list `aggregates` and the short form, their parameters and default names.

use types::{ApiError, check_column_name};

use crate::{
    ast::{AGGREGATES_MAX, Aggregate, Function, Method, Over, TOP_MAX},
    json::{Json, shown},
};

const FUNCTIONS: &str =
    "count, sum, avg, min, max, variance, stddev, percentile, p50, p90, p95, p99, p999, distinct, top, frequency";
const TOP_DEFAULT: u64 = 10;

/// Whether `name` is a field of the short form of a query.
pub(crate) fn is_short_field(name: &str) -> bool {
    name == "aggregate" || is_parameter(name)
}

/// Whether some function takes a field of this name.
fn is_parameter(name: &str) -> bool {
    matches!(name, "metric" | "dimension" | "as" | "q" | "method" | "k" | "value")
}

/// Reads the list `aggregates`.
pub(crate) fn aggregates(json: Json) -> Result<Vec<Aggregate>, ApiError> {
    let items = json.into_array("aggregates")?;
    if items.is_empty() || items.len() > AGGREGATES_MAX {
        return Err(ApiError::invalid("aggregates", format!("aggregates must hold 1 to {AGGREGATES_MAX} entries")));
    }
    items.into_iter().map(|item| aggregate("fn", Parameters(item.into_object("aggregates")?))).collect()
}

/// Reads the short form: the fields of one aggregate beside the others of the query; none of them: `count`.
pub(crate) fn short_aggregate(fields: Vec<(String, Json)>) -> Result<Aggregate, ApiError> {
    aggregate("aggregate", Parameters(fields))
}

/// The parameters of one aggregate that have not been taken yet.
struct Parameters(Vec<(String, Json)>);

impl Parameters {
    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        match self.0.swap_remove(at).1 {
            Json::Null => None,
            value => Some(value),
        }
    }

    fn name(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        self.take(field).map(|json| json.into_string(field)).transpose()
    }

    fn require(&mut self, field: &str, function: &str) -> Result<String, ApiError> {
        self.name(field)?.ok_or_else(|| ApiError::invalid(field, format!("{function} needs a {field}")))
    }
}

/// One aggregate; `field` is where its function stands (`fn`, or `aggregate` in the short form).
fn aggregate(field: &str, mut given: Parameters) -> Result<Aggregate, ApiError> {
    let word = match given.name(field)? {
        Some(word) => word,
        // In the short form no function at all means count; an entry of `aggregates` says what it wants.
        None if field == "aggregate" => "count".to_owned(),
        None => return Err(ApiError::invalid(field, format!("an aggregate needs fn, one of {FUNCTIONS}"))),
    };
    let (function, over) = function(field, &word, &mut given)?;
    let name = match given.name("as")? {
        Some(name) => {
            check_column_name(&name).map_err(|error| ApiError::invalid("as", format!("as {error}")))?;
            name
        }
        None => default_name(&word, &function, &over),
    };
    // A parameter that is null is absent here too, whether the function takes it or not.
    let extra = given.0.iter().find(|(name, value)| *value != Json::Null || !is_parameter(name));
    match extra {
        None => Ok(Aggregate { function, over, name }),
        Some((extra, _)) => Err(ApiError::invalid(extra, format!("{word} takes no field {}", shown(extra)))),
    }
}

fn function(field: &str, word: &str, given: &mut Parameters) -> Result<(Function, Over), ApiError> {
    let function = match word {
        "count" => {
            let over = match (given.name("metric")?, given.name("dimension")?) {
                (None, None) => Over::Rows,
                (Some(metric), None) => Over::Metric(metric),
                (None, Some(dimension)) => Over::Dimension(dimension),
                (Some(_), Some(_)) => {
                    return Err(ApiError::invalid("dimension", "count takes a metric or a dimension, not both"));
                }
            };
            return Ok((Function::Count, over));
        }
        "sum" => Function::Sum,
        "avg" => Function::Avg,
        "min" => Function::Min,
        "max" => Function::Max,
        "variance" => Function::Variance,
        "stddev" => Function::Stddev,
        "percentile" => Function::Percentile { q: q(given)?, method: method(given)? },
        "p50" => Function::Percentile { q: 0.5, method: method(given)? },
        "p90" => Function::Percentile { q: 0.9, method: method(given)? },
        "p95" => Function::Percentile { q: 0.95, method: method(given)? },
        "p99" => Function::Percentile { q: 0.99, method: method(given)? },
        "p999" => Function::Percentile { q: 0.999, method: method(given)? },
        "distinct" => return Ok((Function::Distinct, Over::Dimension(given.require("dimension", word)?))),
        "top" => return Ok((Function::Top { k: k(given)? }, Over::Dimension(given.require("dimension", word)?))),
        "frequency" => {
            let over = Over::Dimension(given.require("dimension", word)?);
            return Ok((Function::Frequency { value: value(given)? }, over));
        }
        _ => return Err(ApiError::invalid(field, format!("unknown function {}; there are {FUNCTIONS}", shown(word)))),
    };
    Ok((function, Over::Metric(given.require("metric", word)?)))
}

fn q(given: &mut Parameters) -> Result<f64, ApiError> {
    let json = given.take("q").ok_or_else(|| ApiError::invalid("q", "percentile needs q, 0 to 1"))?;
    let q = json.to_f64("q")?;
    if (0.0..=1.0).contains(&q) { Ok(q) } else { Err(ApiError::invalid("q", format!("q must be 0 to 1, not {q}"))) }
}

fn method(given: &mut Parameters) -> Result<Method, ApiError> {
    match given.name("method")?.as_deref() {
        None | Some("auto") => Ok(Method::Auto),
        Some("exact") => Ok(Method::Exact),
        Some("sketch") => Ok(Method::Sketch),
        Some("tdigest") => Ok(Method::TDigest),
        Some(other) => {
            let message = format!("method must be auto, exact, sketch or tdigest, not {}", shown(other));
            Err(ApiError::invalid("method", message))
        }
    }
}

fn k(given: &mut Parameters) -> Result<u64, ApiError> {
    let k = given.take("k").map_or(Ok(TOP_DEFAULT), |json| json.to_u64("k"))?;
    if (1..=TOP_MAX).contains(&k) {
        Ok(k)
    } else {
        Err(ApiError::invalid("k", format!("k must be 1 to {TOP_MAX}, not {k}")))
    }
}

/// The value of `frequency`: as in filters, booleans and integers are taken as their text.
fn value(given: &mut Parameters) -> Result<String, ApiError> {
    match given.take("value") {
        Some(Json::String(text)) => Ok(text),
        Some(Json::Bool(flag)) => Ok(flag.to_string()),
        Some(Json::Number(number)) => Ok(number.to_string()),
        Some(other) => Err(ApiError::invalid("value", format!("value must be a scalar, not {}", other.kind()))),
        None => Err(ApiError::invalid("value", "frequency needs a value")),
    }
}

fn default_name(word: &str, function: &Function, over: &Over) -> String {
    let word = match function {
        // The digits of 100·q without the point, as the shortest text that reads back as q has them.
        Function::Percentile { q, .. } => format!("p{}", percent_digits(*q)),
        _ => word.to_owned(),
    };
    match over {
        Over::Rows => word,
        Over::Metric(column) | Over::Dimension(column) => format!("{word}_{column}"),
    }
}

/// 0.99 is `99`, 0.999 is `999`, 0.05 is `5`, 0.001 is `01`, 1 is `100`: 100·q in decimal, its point left out.
fn percent_digits(q: f64) -> String {
    // Multiplying would bring digits that q does not have (0.07 · 100 is 7.000000000000001): the point is moved in the text.
    let text = format!("{q}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = format!("{fraction:0<2}");
    let (percent, rest) = fraction.split_at(2);
    let percent = format!("{whole}{percent}");
    let percent = percent.trim_start_matches('0');
    format!("{}{rest}", if percent.is_empty() { "0" } else { percent })
}

#[cfg(test)]
mod tests {
    use super::percent_digits;

    /// Goal: default names of percentiles have the digits of 100·q, without rounding noise.
    #[test]
    fn percentiles_are_named_by_their_digits() {
        let names = [
            (0.5, "50"),
            (0.99, "99"),
            (0.999, "999"),
            (0.05, "5"),
            (0.07, "7"),
            (0.001, "01"),
            (0.0, "0"),
            (1.0, "100"),
            (0.1, "10"),
        ];
        for (q, digits) in names {
            assert_eq!(percent_digits(q), digits, "{q}");
        }
    }
}
