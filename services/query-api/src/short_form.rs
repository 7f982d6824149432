//! `GET /v1/metrics`: one aggregate in the query string, for people with curl. It becomes the JSON of a query.

use types::{ApiError, ErrorCode, TenantId};

use crate::params::{Params, QueryJson};

const PARAMETERS: &str = "tenant, namespace, table, start, end, filters, group_by, aggregate, metric, dimension, as, q, method, \
     k, value, interval, order_by, limit, after, timeout_ms, allow_partial";

/// The JSON of the query that the parameters ask for.
///
/// # Errors
/// `INVALID_ARGUMENT` for a parameter that is unknown, stands twice or has no right value; `NOT_FOUND` for another tenant
/// than the credential's.
pub(crate) fn query_json(tenant: TenantId, params: Vec<(String, String)>) -> Result<Vec<u8>, ApiError> {
    let mut params = Params::new(params)?;
    if let Some(named) = params.take("tenant")
        && named != tenant.0.to_string()
    {
        let message = "there is no such tenant here; leave tenant out: the credential says whose data it is";
        return Err(ApiError::new(ErrorCode::NotFound, message).with_field("tenant"));
    }
    let mut json = QueryJson::default();
    for (name, field) in [("start", "start_time"), ("end", "end_time"), ("interval", "interval_us")] {
        json.number(field, params.take(name))?;
    }
    for name in ["q", "k", "limit", "timeout_ms"] {
        json.number(name, params.take(name))?;
    }
    let (aggregate, metric) = (params.take("aggregate"), params.take("metric"));
    // A metric alone asks for its sum, as nothing at all asks for the count.
    json.text("aggregate", aggregate.or_else(|| metric.as_ref().map(|_| "sum".to_owned())));
    json.text("metric", metric);
    for name in ["namespace", "table", "dimension", "as", "method", "value", "after"] {
        json.text(name, params.take(name));
    }
    json.list("group_by", params.take("group_by"));
    for name in ["filters", "order_by"] {
        json.json(name, params.take(name).as_deref())?;
    }
    json.flag("allow_partial", params.take("allow_partial").as_deref())?;
    params.finish(PARAMETERS)?;
    Ok(json.finish())
}

#[cfg(test)]
mod tests {
    use query::{QueryLimits, parse};

    use super::*;

    fn parsed(text: &str) -> Result<query::Query, ApiError> {
        let pairs = text.split('&').map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        parse(&query_json(TenantId(7), pairs.collect())?, &QueryLimits::default())
    }

    /// Goal: a query string asks for what the same query in JSON asks for, with or without the tenant's own name.
    #[test]
    fn query_strings_are_queries() {
        let cases = [
            ("", r#""#),
            (
                "&group_by=region,product&metric=revenue&interval=60",
                r#","group_by":["region","product"],"aggregate":"sum","metric":"revenue","interval_us":60"#,
            ),
            (
                "&aggregate=p99&metric=ms&filters={\"region\":[\"a\"]}",
                r#","aggregate":"p99","metric":"ms","filters":{"region":["a"]}"#,
            ),
            (
                "&tenant=7&aggregate=top&dimension=user&k=3&limit=5",
                r#","aggregate":"top","dimension":"user","k":3,"limit":5"#,
            ),
            (
                "&aggregate=percentile&metric=ms&q=0.5&as=x&allow_partial=true",
                r#","aggregate":"percentile","metric":"ms","q":0.5,"as":"x","allow_partial":true"#,
            ),
        ];
        for (more, fields) in cases {
            let json = format!(r#"{{"namespace":"shop","table":"t","start_time":1,"end_time":9{fields}}}"#);
            let expected = parse(json.as_bytes(), &QueryLimits::default()).unwrap();
            assert_eq!(parsed(&format!("namespace=shop&table=t&start=1&end=9{more}")).unwrap(), expected, "{more}");
        }
    }

    /// Goal: what is wrong is named, and another tenant does not exist.
    #[test]
    fn wrong_parameters_are_named() {
        let base = "namespace=shop&table=t&start=1&end=9";
        for (more, field) in
            [("&start_time=1", "start_time"), ("&interval=x", "interval_us"), ("&k=3", "k"), ("&group_by=", "")]
        {
            let error = parsed(&format!("{base}{more}")).err().and_then(|error| error.field);
            assert_eq!(error.unwrap_or_default(), field, "{more}");
        }
        let error = parsed(&format!("{base}&tenant=8")).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::NotFound, Some("tenant")));
    }
}
