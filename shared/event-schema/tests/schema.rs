//! What a table's schema may be, and what its verdicts say.

use codec::EventRef;
use event_schema::{
    EventSchema, json_of,
    limits::{PATTERNS_MAX, SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX, SCHEMA_NODES_MAX},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn refused(schema: &Value) -> String {
    EventSchema::compile(&schema.to_string()).map_or_else(|error| error.to_string(), |_| "taken".into())
}

fn shop() -> EventSchema {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/shop-event",
        "$defs": {"money": {"type": "number", "minimum": 0}},
        "required": ["event_id"],
        "properties": {
            "dimensions": {
                "required": ["region"],
                "properties": {"region": {"enum": ["eu", "us"]}, "user/id": {"pattern": "^u[0-9]+$"}},
            },
            "metrics": {"properties": {"revenue": {"$ref": "#/$defs/money"}}, "additionalProperties": false},
        },
    });
    EventSchema::compile(&schema.to_string()).unwrap()
}

fn event() -> Value {
    json!({"event_id": "1", "dimensions": {"region": "eu", "user/id": "u7"}, "metrics": {"revenue": 1.5}})
}

/// Goal: a fault names its place in the event, what would be right there, and the keyword with its place in the schema.
#[test]
fn faults_name_place_and_remedy() {
    let schema = shop();
    assert_eq!(schema.check(&event()), Ok(()));
    let fault = |pointer: &str, value: Value| {
        let mut event = event();
        *event.pointer_mut(pointer).unwrap() = value;
        schema.check(&event).unwrap_err()
    };
    assert_eq!(
        fault("/metrics/revenue", json!(-3)),
        "/metrics/revenue: -3 is less than the minimum of 0 (minimum at /$defs/money/minimum of the table's json_schema)"
    );
    assert_eq!(
        fault("/dimensions/region", json!("mars")),
        "/dimensions/region: \"mars\" is not one of \"eu\" or \"us\" (enum at /properties/dimensions/properties/region/enum of \
         the table's json_schema)"
    );
    let slash = fault("/dimensions/user~1id", json!("x".repeat(5_000)));
    assert!(slash.starts_with("/dimensions/user~1id: the value does not match \"^u[0-9]+$\" (pattern at "), "{slash}");
    let missing = fault("/dimensions", json!({}));
    assert!(missing.starts_with("/dimensions: \"region\" is a required property (required at "), "{missing}");
    let root = schema.check(&json!({})).unwrap_err();
    assert!(root.starts_with("/: \"event_id\" is a required property (required at /required "), "{root}");
    let long: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("metric-{n}"), json!(n))).collect();
    assert!(fault("/metrics", long.into()).len() < 2_000);
}

/// Goal: what would make compiling or judging take long, or need more than the text, is refused, and the message says why.
#[test]
fn unbounded_schemas_are_refused() {
    let long = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
    assert!(refused(&long).contains("at most 65536"), "{}", refused(&long));
    let deep = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"not": inner}));
    assert_eq!(refused(&deep(SCHEMA_DEPTH_MAX)), "taken");
    assert!(refused(&deep(SCHEMA_DEPTH_MAX + 1)).contains("nests deeper than 64"));
    // A chain of references is as deep as it is long.
    let mut chain: serde_json::Map<String, Value> =
        (0..500).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}))).collect();
    chain.insert("d500".into(), json!({}));
    assert!(refused(&json!({"$defs": chain})).contains("nests deeper"));
    // A part that was measured where it is shallow still counts where it is reached by a long way.
    let far = (0..40).fold(json!({"$ref": "#/$defs/part"}), |inner, _| json!({"not": inner}));
    assert!(refused(&json!({"$defs": {"part": deep(40)}, "not": far})).contains("nests deeper"));
    let patterns: Vec<_> = (0..=PATTERNS_MAX).map(|n| json!({"pattern": format!("{n}")})).collect();
    assert!(refused(&json!({"anyOf": patterns})).contains("more than 64 patterns"));
    for recursive in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"properties": {"a": {"$ref": "#"}}}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        assert!(refused(&recursive).contains("refers to itself by \"#"), "{recursive}: {}", refused(&recursive));
    }
    for (outside, why) in [
        (json!({"$ref": "https://example.com/other"}), "references are JSON pointers"),
        (json!({"$ref": "file:///etc/passwd"}), "references are JSON pointers"),
        (json!({"$ref": "#/$defs/none"}), "references are JSON pointers"),
        (json!({"$ref": "#name", "$anchor": "name"}), "references are JSON pointers"),
        (json!({"$dynamicRef": "#a"}), "uses $dynamicRef"),
        (json!({"properties": {"a": {"$id": "https://example.com/"}}}), "uses $id below its root"),
        (json!({"$schema": "https://example.com/mine"}), "must be that of draft 2020-12"),
        (json!({"$schema": 1}), "must be that of draft 2020-12"),
        (json!({"type": "text"}), "json_schema at /type: "),
        (json!({"properties": {"a": {"minLength": -1}}}), "json_schema at /properties/a/minLength: "),
        (json!({"pattern": "(?=a)b"}), "json_schema at /pattern: "),
        (json!({"pattern": "("}), "json_schema at /pattern: "),
        (json!({"pattern": "(\\w{1000}){1000}"}), "json_schema at /pattern: "),
        (json!(true), "must be an object"),
    ] {
        assert!(refused(&outside).contains(why), "{outside}: {}", refused(&outside));
    }
    assert!(EventSchema::compile("{").unwrap_err().to_string().contains("is not JSON"));
}

/// Goal: keywords that ask what has been evaluated count what they hold against the value again, so that schemas in which
/// they stand below one another are refused long before an event costs seconds, whatever leads from one to the next; one
/// over the parts of a plain schema is taken.
#[test]
fn what_is_evaluated_again_counts_again() {
    type Level = fn(Value) -> Value;
    let kinds: [(&str, Level); 6] = [
        ("anyOf", |inner| json!({"anyOf": [inner], "unevaluatedProperties": false})),
        ("oneOf", |inner| json!({"oneOf": [inner], "unevaluatedItems": false})),
        ("allOf", |inner| json!({"allOf": [inner], "unevaluatedProperties": {"type": "string"}})),
        ("then", |inner| json!({"if": {}, "then": inner, "unevaluatedProperties": false})),
        ("if", |inner| json!({"if": inner, "unevaluatedProperties": false})),
        ("dependentSchemas", |inner| json!({"dependentSchemas": {"a": inner}, "unevaluatedProperties": false})),
    ];
    for (keyword, level) in kinds {
        let nested = |levels| (0..levels).fold(json!({"additionalProperties": true}), |inner, _| level(inner));
        assert_eq!(refused(&nested(3)), "taken", "{keyword}");
        assert!(refused(&nested(20)).contains("more than 10000"), "{keyword}: {}", refused(&nested(20)));
    }
    let referred: serde_json::Map<_, _> = (0..20)
        .map(|n| (n.to_string(), json!({"$ref": format!("#/$defs/{}", n + 1), "unevaluatedProperties": false})))
        .chain([("20".into(), json!({}))])
        .collect();
    assert!(refused(&json!({"$defs": referred})).contains("more than 10000"));
    let wide: Vec<_> = (0..1_000).map(|n| json!({"properties": {n.to_string(): {"type": "string"}}})).collect();
    assert_eq!(refused(&json!({"anyOf": wide, "unevaluatedProperties": false})), "taken");
    // A property of that name asks nothing.
    let named = (0..20).fold(json!({}), |inner, _| json!({"properties": {"unevaluatedProperties": inner}}));
    assert_eq!(refused(&named), "taken");
}

/// Goal: names that are keywords elsewhere are only names where properties and definitions stand, and data is no schema.
#[test]
fn keywords_are_read_where_they_are_keywords() {
    for schema in [
        json!({"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "enum": {"type": "string"}}}),
        json!({"enum": [{"$ref": "#"}], "const": {"$dynamicRef": "x"}, "default": {"$id": "x"}}),
        json!({"$defs": {"const": {"type": "string"}}, "$ref": "#/$defs/const"}),
        json!({"$defs": {"a b": {}}, "$ref": "#/$defs/a%20b"}),
    ] {
        assert_eq!(refused(&schema), "taken", "{schema}");
    }
    let hidden = json!({"properties": {"const": {"$ref": "#"}}});
    assert!(refused(&hidden).contains("refers to itself"));
}

/// Goal: an event that was not sent as JSON is judged as the JSON that shows it.
#[test]
fn events_of_other_forms_are_judged_as_json() {
    let event = EventRef {
        namespace: "shop",
        table: "events",
        event_time: Some(7),
        event_id: Some(b"1\xff"),
        dimensions: &[("region", "eu"), ("robot", "true")],
        metrics: &[("revenue", 3.0), ("big", 1e300)],
    };
    let shown: Value = serde_json::from_str(&event.to_json()).unwrap();
    assert_eq!(json_of(&event), shown);
    let bare = EventRef { event_time: None, event_id: None, dimensions: &[], metrics: &[], ..event };
    assert_eq!(json_of(&bare), serde_json::from_str::<Value>(&bare.to_json()).unwrap());
    let whole = EventSchema::compile(r#"{"properties":{"metrics":{"properties":{"revenue":{"type":"integer"}}}}}"#);
    assert_eq!(whole.unwrap().check(&json_of(&event)), Ok(()));
}

/// Counts the objects and lists of a schema of levels with its references followed, level by level: the plain way.
fn tree_size(branches: &[usize]) -> usize {
    // Each level: its object, its list, and per branch an object that refers to the next.
    branches.iter().rev().fold(1, |below, branches| 2 + branches * (1 + below))
}

proptest! {
    /// Goal: schemas whose levels refer to the next one several times are taken exactly while the tree that they stand for
    /// is within the limits, and taken or not they are measured at once.
    #[test]
    fn doubling_references_are_measured(branches in prop::collection::vec(1_usize..4, 1..14)) {
        let mut levels = serde_json::Map::new();
        for (level, branches) in branches.iter().enumerate() {
            let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
            levels.insert(level.to_string(), json!({"allOf": vec![next; *branches]}));
        }
        levels.insert(branches.len().to_string(), json!({}));
        let outcome = refused(&json!({"$defs": levels}));
        // The root and its $defs hold every level once.
        let suffixes: usize = (0..=branches.len()).map(|from| tree_size(&branches[from..])).sum();
        let (fits, deep) = (2 + suffixes <= SCHEMA_NODES_MAX, 2 + 3 * branches.len() > SCHEMA_DEPTH_MAX);
        prop_assert_eq!(outcome == "taken", fits && !deep, "{} for {:?}", outcome, branches);
    }
}
