//! The contract's words: what is refused and how it is named, and how answers look.

mod world;

use std::time::Duration;

use query::{QueryLimits, parse};
use types::ErrorCode;
use world::{Shape, World, tiny};

fn world(rows: usize) -> World {
    World::new(7, Shape { rows, limits: tiny(), span_us: 3_000, in_order: true, users: 50 })
}

/// The whole table, with further fields.
fn with(fields: &str) -> String {
    format!(r#"{{"namespace":"shop","table":"events","start_time":0,"end_time":4000{fields}}}"#)
}

/// Goal: what is malformed is refused with the innermost name at fault.
#[test]
fn malformed_queries_are_refused_by_name() {
    let cases = [
        (r#","no_such_field":1"#, "no_such_field"),
        (r#","start_time":1"#, "start_time"),
        (r#","aggregate":"sum""#, "metric"),
        (r#","aggregate":"median_of_means""#, "aggregate"),
        (r#","aggregates":[{"fn":"median","metric":"value"}]"#, "fn"),
        (r#","aggregates":[{"metric":"value"}]"#, "fn"),
        (r#","aggregates":[{"fn":"sum","metric":"value","k":3}]"#, "k"),
        (r#","aggregates":[]"#, "aggregates"),
        (r#","aggregates":[{"fn":"count"}],"aggregate":"count""#, "aggregates"),
        (r#","aggregates":[{"fn":"count","metric":"value","dimension":"user"}]"#, "dimension"),
        (r#","aggregates":[{"fn":"percentile","metric":"value","q":1.5}]"#, "q"),
        (r#","aggregates":[{"fn":"percentile","metric":"value","q":-1}]"#, "q"),
        (r#","aggregates":[{"fn":"percentile","metric":"value"}]"#, "q"),
        (r#","aggregates":[{"fn":"p99","metric":"value","method":"magic"}]"#, "method"),
        (r#","aggregates":[{"fn":"top","dimension":"user","k":0}]"#, "k"),
        (r#","aggregates":[{"fn":"distinct"}]"#, "dimension"),
        (r#","aggregates":[{"fn":"frequency","dimension":"user"}]"#, "value"),
        (r#","aggregates":[{"fn":"count","as":"a\u0000b"}]"#, "as"),
        (r#","limit":-1"#, "limit"),
        (r#","limit":0"#, "limit"),
        (r#","limit":1000001"#, "limit"),
        (r#","timeout_ms":0"#, "timeout_ms"),
        (r#","timeout_ms":60001"#, "timeout_ms"),
        (r#","interval_us":0"#, "interval_us"),
        (r#","interval_us":1.5"#, "interval_us"),
        (r#","allow_partial":"yes""#, "allow_partial"),
        (r#","after":7"#, "after"),
        (r#","after":["a",7]"#, "after"),
        (r#","group_by":"region""#, "group_by"),
        (r#","group_by":["region","region"]"#, "region"),
        (r#","order_by":[{"column":"count","down":true}]"#, "down"),
        (r#","order_by":[{"desc":true}]"#, "column"),
        (r#","filters":{"region":{"like":"x"}}"#, "like"),
        (r#","filters":{"region":{}}"#, "region"),
        (r#","filters":{"region":null}"#, "region"),
        (r#","filters":{"region":["a",null]}"#, "region"),
        (r#","filters":{"region":{"eq":[1]}}"#, "eq"),
        (r#","filters":{"region":{"exists":1}}"#, "exists"),
        (r#","filters":{"region":"a","region":"b"}"#, "region"),
        (r#","filters":{"region":{"in":["a"],"in":["b"]}}"#, "in"),
        (r#","filters":[]"#, "filters"),
        (r#","tables":[{"namespace":"shop","table":"events"}]"#, "tables"),
    ];
    for (fields, field) in cases {
        let error = parse(with(fields).as_bytes(), &QueryLimits::default()).expect_err(fields);
        assert_eq!(
            (error.code, error.field.as_deref()),
            (ErrorCode::InvalidArgument, Some(field)),
            "{fields}: {error}"
        );
    }
}

/// Goal: the same for what every query needs: its tables, its range, and to be JSON at all.
#[test]
fn queries_without_tables_or_range_are_refused() {
    let whole = [
        (r#"{"table":"events","start_time":0,"end_time":1}"#, Some("namespace")),
        (r#"{"namespace":"shop","table":"a.b","start_time":0,"end_time":1}"#, Some("table")),
        (r#"{"namespace":1,"table":2,"start_time":0,"end_time":1}"#, Some("namespace")),
        (r#"{"namespace":"shop","table":"events","end_time":1}"#, Some("start_time")),
        (r#"{"namespace":"shop","table":"events","start_time":"yesterday","end_time":1}"#, Some("start_time")),
        (r#"{"namespace":"shop","table":"events","start_time":1,"end_time":1}"#, Some("end_time")),
        (r#"{"namespace":"shop","table":"events","start_time":1,"end_time":9223372036854775808}"#, Some("end_time")),
        (r#"{"tables":[],"start_time":0,"end_time":1}"#, Some("tables")),
        (r#"{"tables":[{"namespace":"a","table":"b","x":1}],"start_time":0,"end_time":1}"#, Some("x")),
        (
            r#"{"tables":[{"namespace":"a","table":"b"},{"namespace":"a","table":"b"}],"start_time":0,"end_time":1}"#,
            Some("tables"),
        ),
        ("[]", None),
        ("{", None),
        ("", None),
        ("{} {}", None),
        (r#"{"namespace":1e999}"#, None),
    ];
    for (json, field) in whole {
        let error = parse(json.as_bytes(), &QueryLimits::default()).expect_err(json);
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, field), "{json}: {error}");
    }
}

/// Goal: a field that is null is absent, also where present it would contradict another or belong to no function.
#[test]
fn fields_that_are_null_are_absent() {
    let sum = r#","aggregates":[{"fn":"sum","metric":"value"}]"#;
    let cases = [
        (r#","aggregates":[{"fn":"sum","metric":"value"}],"aggregate":null,"metric":null,"k":null"#, sum),
        (r#","aggregates":[{"fn":"sum","metric":"value","dimension":null}]"#, sum),
        (r#","aggregates":null,"aggregate":"sum","metric":"value","dimension":null"#, sum),
        (r#","aggregates":null,"aggregate":null,"order_by":null"#, r#","aggregates":[{"fn":"count"}]"#),
    ];
    for (fields, same) in cases {
        let read = |fields| parse(with(fields).as_bytes(), &QueryLimits::default());
        assert_eq!(read(fields), read(same), "{fields}");
        assert!(read(fields).is_ok(), "{fields}");
    }
    let unknown = r#","aggregates":[{"fn":"sum","metric":"value","no_such_field":null}]"#;
    let error = parse(with(unknown).as_bytes(), &QueryLimits::default()).expect_err(unknown);
    assert_eq!(error.field.as_deref(), Some("no_such_field"));
}

/// Goal: nesting and numbers of things are bounded, by an error and not by the stack.
#[test]
fn oversized_queries_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(deep.as_bytes(), &QueryLimits::default()).is_err());
    let ignored = with(&format!(r#","filters":{{"region":{deep}}}"#));
    assert!(parse(ignored.as_bytes(), &QueryLimits::default()).is_err());
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let cases = [
        (format!(r#","filters":{{{}}}"#, many(65, &|n| format!(r#""c{n}":1"#))), "filters"),
        (format!(r#","filters":{{"region":[{}]}}"#, many(10_001, &|n| n.to_string())), "region"),
        (format!(r#","aggregates":[{}]"#, many(65, &|n| format!(r#"{{"fn":"count","as":"c{n}"}}"#))), "aggregates"),
        (format!(r#","group_by":[{}]"#, many(17, &|n| format!(r#""c{n}""#))), "group_by"),
        // Refused before the entries are looked at: these are none.
        (format!(r#","order_by":[{}]"#, many(82, &|n| n.to_string())), "order_by"),
        (format!(r#","after":[{}]"#, many(257, &|_| r#""t""#.into())), "after"),
    ];
    for (fields, field) in cases {
        let error = parse(with(&fields).as_bytes(), &QueryLimits::default()).expect_err(field);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
    }
}

/// Goal: what does not fit the tables is refused with the column or output at fault; unknown columns list the known ones.
#[test]
fn plans_name_what_does_not_fit() {
    let world = world(1);
    let cases = [
        (r#","group_by":["no_such_column"]"#, "no_such_column"),
        (r#","group_by":["value"]"#, "value"),
        (r#","group_by":["table"]"#, "table"),
        (r#","filters":{"nothing":1}"#, "nothing"),
        (r#","filters":{"value":"text"}"#, "value"),
        (r#","filters":{"value":{"prefix":"1"}}"#, "value"),
        (r#","filters":{"region":1e20}"#, "region"),
        (r#","aggregate":"sum","metric":"region""#, "region"),
        (r#","aggregate":"count","dimension":"value""#, "value"),
        (r#","aggregates":[{"fn":"count"},{"fn":"count"}]"#, "count"),
        (r#","aggregates":[{"fn":"count","as":"region"}],"group_by":["region"]"#, "region"),
        (r#","aggregates":[{"fn":"count","as":"time"}],"interval_us":5"#, "time"),
        (r#","order_by":[{"column":"region"}]"#, "region"),
        (r#","order_by":[{"column":"time"}]"#, "time"),
        (r#","aggregate":"top","dimension":"user","order_by":[{"column":"top_user"}]"#, "top_user"),
    ];
    for (fields, field) in cases {
        let error = world.plan(&with(fields)).expect_err(fields);
        assert_eq!(
            (error.code, error.field.as_deref()),
            (ErrorCode::InvalidArgument, Some(field)),
            "{fields}: {error}"
        );
    }
    let error = world.plan(&with(r#","group_by":["no_such_column"]"#)).unwrap_err();
    assert!(error.message.contains("region, user, flag, value, latency, unseen"), "{error}");
}

/// Goal: absent and null fields mean the contract's defaults, and what is given is taken.
#[test]
fn queries_have_the_contracts_defaults() {
    let limits = QueryLimits::default();
    let plain = parse(with("").as_bytes(), &limits).unwrap();
    assert_eq!(parse(with(r#","after":null,"limit":null,"filters":null"#).as_bytes(), &limits).unwrap(), plain);
    assert_eq!((plain.limit, plain.timeout, plain.allow_partial), (10_000, Duration::from_secs(5), false));
    assert_eq!(plain.aggregates[0].name, "count");
    let fields =
        r#","after":["a","b"],"limit":5,"timeout_ms":60000,"allow_partial":true,"aggregate":"p999","metric":"m""#;
    let full = parse(with(fields).as_bytes(), &limits).unwrap();
    assert_eq!((full.limit, full.timeout, full.allow_partial), (5, Duration::from_secs(60), true));
    assert_eq!((full.after.len(), full.aggregates[0].name.as_str()), (2, "p999_m"));
}

/// Goal: an answer's bytes are those of the contract: order of keys, integers as integers, null for nothing.
#[test]
fn answers_look_as_the_contract_says() {
    let world = world(0);
    let answer = world.answer(&with(r#","aggregates":[{"fn":"count"},{"fn":"sum","metric":"value","as":"income"},{"fn":"min","metric":"value"},{"fn":"avg","metric":"value"},{"fn":"stddev","metric":"value"},{"fn":"count","dimension":"user"}]"#)).unwrap();
    assert_eq!(
        answer.rows,
        r#"[{"count":0,"income":null,"min_value":null,"avg_value":null,"stddev_value":null,"count_user":0}]"#
    );
    assert!(answer.columns.starts_with(r#"[{"name":"count","exact":true},{"name":"income","exact":true},"#));
    assert!(!answer.truncated);
    assert_eq!(world.answer(&with(r#","group_by":["region"]"#)).unwrap().rows, "[]");
    assert_eq!(world.answer(&with(r#","interval_us":5"#)).unwrap().rows, "[]");
}

/// Goal: equal queries have equal fingerprints however they are written, and others have others.
#[test]
fn fingerprints_tell_plans_apart() {
    let world = world(0);
    let print = |fields: &str| world.plan(&with(fields)).unwrap().fingerprint();
    let same = [
        r#","filters":{"region":["a","b"],"user":"u"},"aggregate":"count""#,
        r#","aggregates":[{"fn":"count"}],"filters":{"user":{"eq":"u"},"region":{"in":["b","a","a"]}},"limit":10000"#,
    ];
    assert_eq!(print(same[0]), print(same[1]));
    let different = [
        same[0],
        "",
        r#","limit":9"#,
        r#","interval_us":9"#,
        r#","group_by":["user"]"#,
        r#","group_by":["user","region"]"#,
        r#","group_by":["region","user"]"#,
        r#","filters":{"region":"user"}"#,
        r#","filters":{"user":"region"}"#,
        r#","filters":{"user":{"ne":"region"}}"#,
        r#","filters":{"value":1}"#,
        r#","filters":{"value":{"gte":1}}"#,
        r#","filters":{"value":{"gte":1,"exists":true}}"#,
        r#","aggregate":"sum","metric":"value""#,
        r#","aggregate":"avg","metric":"value""#,
        r#","aggregate":"count","as":"rows""#,
        r#","order_by":[{"column":"count"}]"#,
        r#","order_by":[{"column":"count","desc":true}]"#,
    ];
    let prints: std::collections::BTreeSet<u128> = different.iter().map(|fields| print(fields)).collect();
    // `exists:true` beside a range asks nothing more.
    assert_eq!(prints.len(), different.len() - 1);
}
