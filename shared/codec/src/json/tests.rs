//! What comes out of JSON, form by form and fault by fault.

use proptest::prelude::*;

use super::*;

/// The events as text, or their rejects, by index.
fn decode(body: impl AsRef<[u8]>, form: JsonForm) -> Result<Vec<Result<String, String>>, DecodeError> {
    let mut out = Vec::new();
    let count = decode_json(body.as_ref(), form, 5, |decoded| {
        assert_eq!(decoded.index as usize, out.len());
        out.push(decoded.event.map(|event| event.to_json()).map_err(|refused| {
            assert_eq!(refused.reject.index, decoded.index);
            refused.reject.message
        }));
    })?;
    assert_eq!(count as usize, out.len());
    Ok(out)
}

fn reject(fields: &str) -> String {
    let body = format!(r#"[{{"namespace":"a","table":"b",{fields}}},{{"namespace":"a","table":"b"}}]"#);
    let out = decode(&body, JsonForm::Document).unwrap_or_else(|error| panic!("{fields}: {error}"));
    assert_eq!(out.len(), 2, "{fields}");
    assert!(out[1].is_ok(), "the event behind the bad one is read: {fields}");
    out.into_iter().next().unwrap().expect_err(fields)
}

fn body_fault(body: impl AsRef<[u8]>, form: JsonForm) -> String {
    decode(body, form).expect_err("no events").to_string()
}

const EVENT: &str = r#"{"namespace":"shop","table":"events","event_time":-5,"event_id":"o-1:\u00e9","dimensions":{"a":"x\ty","flag":true,"n":-42,"gone":null,"\u0062":""},"metrics":{"m":12.5,"i":9007199254740992}}"#;
const SHOWN: &str = r#"{"namespace":"shop","table":"events","event_time":-5,"event_id":"o-1:é","dimensions":{"a":"x\ty","flag":"true","n":"-42","b":""},"metrics":{"m":12.5,"i":9007199254740992.0}}"#;

/// Goal: the four forms of a body give the same events.
#[test]
fn every_form_gives_the_same_events() {
    let one = vec![Ok(SHOWN.to_owned())];
    let two = vec![Ok(SHOWN.to_owned()); 2];
    assert_eq!(decode(EVENT, JsonForm::Document), Ok(one.clone()));
    assert_eq!(decode(format!(" [{EVENT} , {EVENT}]\n"), JsonForm::Document), Ok(two.clone()));
    assert_eq!(decode(format!(r#"{{"events":[{EVENT},{EVENT}]}}"#), JsonForm::Document), Ok(two.clone()));
    assert_eq!(decode(format!("\n{EVENT}\r\n \n\t{EVENT}"), JsonForm::Lines), Ok(two));
    assert_eq!(decode(format!("{EVENT}\n"), JsonForm::Lines), Ok(one));
    assert_eq!(decode("[]", JsonForm::Document), Ok(vec![]));
    assert_eq!(decode("\n \n", JsonForm::Lines), Ok(vec![]));
}

/// Goal: what is wrong inside an event refuses that event, by name, and the next is read.
#[test]
fn faults_inside_an_event_refuse_that_event() {
    for (fields, message) in [
        (r#""metrics":{"revenue":"12"}"#, "metrics.revenue is not a number"),
        (r#""metrics":{"revenue":null}"#, "metrics.revenue is not a number"),
        (r#""metrics":{"revenue":[1e999]}"#, "metrics.revenue is not a number"),
        (r#""metrics":{"m":1e999}"#, "metrics.m is beyond the range of f64"),
        (r#""metrics":{"m":18446744073709551616}"#, "metrics.m is an integer beyond ±2^53, which would be rounded"),
        (r#""metrics":[1]"#, "metrics is not an object"),
        (r#""dimensions":"x""#, "dimensions is not an object"),
        (r#""dimensions":{"d":{"e":1}}"#, "dimensions.d is not a string, a boolean or an integer"),
        (r#""dimensions":{"d":"\ud800"}"#, "dimensions.d holds half of a surrogate pair"),
        (r#""dimensions":{"d":null,"d":"x"}"#, "\"d\" is given twice"),
        (r#""dimensions":{},"dimensions":{}"#, "\"dimensions\" is given twice"),
        (r#""event_time":1.5"#, "event_time is not an integer"),
        (r#""event_time":"1""#, "event_time is not an integer"),
        (r#""event_time":9223372036854775808"#, "event_time is beyond the range of i64"),
        (r#""event_id":7"#, "event_id is not a string"),
        (r#""colour":{"deep":[[[]]]}"#, "event has the unknown field \"colour\""),
        (r#""events":[]"#, "event has the unknown field \"events\""),
        (r#""namespace":"c""#, "\"namespace\" is given twice"),
    ] {
        assert_eq!(reject(fields), message);
    }
    assert!(reject(r#""dimensions":{"d":1.5}"#).starts_with("dimensions.d is a fraction"));
    let missing = decode(r#"[{"table":"b"},{"namespace":"a"},{"namespace":1,"table":"b"},7,[[]]]"#, JsonForm::Document);
    let messages = missing.unwrap().into_iter().map(|event| event.unwrap_err()).collect::<Vec<_>>();
    assert_eq!(
        messages,
        [
            "namespace is missing",
            "table is missing",
            "namespace is not a string",
            "event is not an object",
            "event is not an object"
        ]
    );
}

/// Goal: null is absence for a dimension, a time and an id.
#[test]
fn null_is_absence() {
    let body = r#"{"namespace":"a","table":"b","event_time":null,"event_id":null,"dimensions":null,"metrics":null}"#;
    let shown = r#"{"namespace":"a","table":"b","dimensions":{},"metrics":{}}"#;
    assert_eq!(decode(body, JsonForm::Document), Ok(vec![Ok(shown.to_owned())]));
}

/// Goal: 64 columns are read, the 65th refuses the event before it is stored anywhere.
#[test]
fn columns_are_counted_while_they_come() {
    let columns = |count: usize| (0..count).map(|n| format!(r#""c{n}":1"#)).collect::<Vec<_>>().join(",");
    let event = |count| format!(r#"{{"namespace":"a","table":"b","metrics":{{{}}}}}"#, columns(count));
    assert!(decode(event(64), JsonForm::Document).unwrap()[0].is_ok());
    let refused = decode(event(65), JsonForm::Document).unwrap().remove(0);
    assert_eq!(refused, Err("event has more than 64 columns".to_owned()));
}

/// Goal: what is no JSON of events refuses the body as a whole.
#[test]
fn bodies_that_are_no_events_are_refused() {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let ignored = format!(r#"[{{"namespace":"a","x":{nested}}}]"#);
    for body in ["", "7", "\"x\"", "nothing", "[1,", "[{}]]", r#"{"events":7}"#, r#"{"events":[]"#, "[\u{1}]"] {
        assert!(body_fault(body, JsonForm::Document).starts_with("body is not JSON of events"), "{body}");
    }
    assert!(body_fault(r#"{"events":[],"more":1}"#, JsonForm::Document).contains("\"more\" beside events"));
    assert!(body_fault(b"[\"\xff\"]", JsonForm::Document).contains("UTF-8 from byte 2"));
    assert!(body_fault(r#"[{"\ud800":1}]"#, JsonForm::Document).contains("not JSON"));
    // Depth neither overflows a stack nor hides an event: the array's element is no event, the field no known one.
    assert_eq!(decode(&nested, JsonForm::Document).unwrap(), [Err("event is not an object".to_owned())]);
    assert!(decode(&ignored, JsonForm::Document).unwrap()[0].is_err());
    assert!(body_fault("[".repeat(100_000), JsonForm::Document).contains("not JSON"));
}

/// Goal: a line that is no JSON is refused alone; a body without any line of JSON is refused as a whole.
#[test]
fn lines_fail_alone() {
    let body = format!("{EVENT}\n{{\"namespace\":\n\n{EVENT} {EVENT}\n{EVENT}");
    let out = decode(&body, JsonForm::Lines).unwrap();
    assert_eq!(out.len(), 4);
    assert_eq!((&out[0], &out[3]), (&Ok(SHOWN.to_owned()), &Ok(SHOWN.to_owned())));
    assert_eq!(out[1].as_ref().unwrap_err(), "line is not JSON: EOF while parsing a value at column 13");
    assert!(out[2].as_ref().unwrap_err().starts_with("line is not JSON: trailing characters"));
    let out = decode([EVENT.as_bytes(), b"\n{\"table\":\"\xff\"}"].concat(), JsonForm::Lines).unwrap();
    assert_eq!(out[1].as_ref().unwrap_err(), "line is not JSON: not UTF-8 from byte 10 on");
    assert!(body_fault("<html>\n</html>", JsonForm::Lines).starts_with("no line of the body is JSON"));
}

/// Goal: the limit on events holds in every form, to the unit.
#[test]
fn events_are_counted() {
    for (separator, open, close, form) in [
        (",", "[", "]", JsonForm::Document),
        (",", "{\"events\":[", "]}", JsonForm::Document),
        ("\n", "", "", JsonForm::Lines),
    ] {
        let body = |count| format!("{open}{}{close}", vec!["{}"; count].join(separator));
        assert_eq!(decode(body(5), form).unwrap().len(), 5);
        assert_eq!(decode(body(6), form), Err(DecodeError::TooManyEvents { max: 5 }));
    }
}

/// Goal: a dead letter's text is found again in every form of a document.
#[test]
fn raw_events_are_found_again() {
    for body in [r#"[{"a": 1},[2]]"#, r#"{"events":[{"a": 1},[2]]}"#] {
        let mut found = Vec::new();
        raw_json_events(body, |index, text| found.push((index, text.to_owned())));
        assert_eq!(found, [(0, r#"{"a": 1}"#.to_owned()), (1, "[2]".to_owned())]);
    }
    raw_json_events("[1,", |_, _| panic!("not a document"));
}

/// Goal: the table of a refused event is told where it could be read.
#[test]
fn refused_events_name_their_table() {
    let body = r#"{"namespace":"sh\u006fp","table":"events","metrics":7}"#;
    decode_json(body.as_bytes(), JsonForm::Lines, 1, |decoded| {
        let refused = decoded.event.unwrap_err();
        assert_eq!((refused.namespace, refused.table), (Some("shop"), Some("events")));
        assert_eq!(decoded.raw, Some(body.as_bytes()));
    })
    .unwrap();
}

/// A field of an event as text: mostly a good one.
fn field_text() -> impl Strategy<Value = String> {
    let text = r#"[a-zé\\" ]{0,12}|[a-z]{0,20}"#;
    let scalar = prop_oneof![
        4 => text.prop_map(|text| format!("\"{text}\"")),
        2 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,25})?",
        1 => "-?[0-9]{1,4}\\.?[0-9]{0,4}([eE][+-]?[0-9]{1,3})?",
        1 => prop::sample::select(vec!["true", "false", "null", "-0", "-0.0", "9007199254740993", "{}", "[1]"]).prop_map(str::to_owned),
    ];
    let columns = prop::collection::vec((text.prop_map(|name| format!("\"{name}\"")), scalar.clone()), 0..4)
        .prop_map(|columns| columns.into_iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>())
        .prop_map(|columns| format!("{{{}}}", columns.join(",")));
    let name = prop::sample::select(vec!["event_time", "event_id", "dimensions", "metrics", "table", "other"]);
    (name, prop_oneof![1 => scalar, 2 => columns], ":|: | :")
        .prop_map(|(name, value, colon)| format!("\"{name}\"{colon}{value}"))
}

proptest! {
    /// Goal: what is read as a plain line is an event for the general parser too, and the same one to the bit.
    #[test]
    fn plain_lines_are_read_as_all_others_are(
        fields in prop::collection::vec(field_text(), 0..5),
        separator in ",|, | ,",
        change in prop::option::of((any::<prop::sample::Index>(), "[\"\\\\{},:0-9a \u{1}]")),
    ) {
        let mut fields = fields;
        fields.insert(0, r#""namespace":"shop","table":"events""#.to_owned());
        let mut line = format!("{{{}}}", fields.join(&separator));
        if let Some((at, with)) = change {
            let places: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
            let at = places[at.index(places.len())];
            let end = at + line[at..].chars().next().map_or(0, char::len_utf8);
            line.replace_range(at..end, &with);
        }
        let mut plain = plain::PlainEvent::default();
        if let Some(event) = plain.read(&line) {
            prop_assert_eq!(decode(&line, JsonForm::Document), Ok(vec![Ok(event.to_json())]));
        }
    }
}

/// Goal: lines as programs write them, with or without spaces, are plain ones.
#[test]
fn usual_lines_are_plain() {
    let close = r#"{"namespace":"shop","table":"events","event_time":1754772362000000,"event_id":"a1","dimensions":{"region":"eu","vip":true,"n":-7},"metrics":{"revenue":12.5,"latency_ms":57.34621890123456}}"#;
    let spaced = close.replace(':', ": ").replace(',', ", ");
    let bare = r#"{"namespace":"shop","table":"events","dimensions":{},"metrics":{}}"#;
    for line in [close, &spaced, bare] {
        let mut plain = plain::PlainEvent::default();
        let read = plain.read(line).map(|event| event.to_json());
        assert_eq!(Ok(vec![Ok(read.unwrap_or_default())]), decode(line, JsonForm::Document), "{line}");
    }
}
