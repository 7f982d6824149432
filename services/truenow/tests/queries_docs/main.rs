//! docs/queries.md against a real server: every question on it gets the answer that stands below it.

mod page;
#[path = "../server/mod.rs"]
mod server;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
};

use page::Block;
use serde_json::{Value, json};
use server::Server;

const CONTROL_PLANE: u16 = 8001;
const QUERY_API: u16 = 8081;
const GATEWAY: u16 = 8088;

/// A server with the page's tables and events, and the token of each table's last batch.
struct Reader {
    server: Server,
    tokens: HashMap<String, Value>,
}

impl Reader {
    fn make_table(&self, table: &str) {
        let (status, reply) = self.server.request(CONTROL_PLANE, "POST", "/v1/tables", table);
        assert_eq!(status, 201, "{reply}");
    }

    /// Sends events of one table.
    fn send(&mut self, events: &[Value]) {
        let body = json!({ "events": events }).to_string();
        let (status, reply) = self.server.request(GATEWAY, "POST", "/v1/events", &body);
        assert_eq!((status, &reply["accepted"]), (200, &json!(events.len())), "{reply}");
        self.tokens.insert(name(&events[0]), reply["token"].clone());
    }

    /// Asks, and waits for all that was sent to the tables asked about.
    fn ask(&self, request: &str) -> (u16, Value) {
        let mut query: Value = serde_json::from_str(request).unwrap_or_else(|error| panic!("{error}: {request}"));
        let tables = query["tables"].as_array().cloned().unwrap_or_else(|| vec![query.clone()]);
        query["after"] = tables.iter().filter_map(|table| self.tokens.get(&name(table))).cloned().collect();
        self.server.request(QUERY_API, "POST", "/v1/query", &query.to_string())
    }
}

fn name(of: &Value) -> String {
    format!("{}.{}", of["namespace"], of["table"])
}

/// One event for each number: `{n}` stands for the number in texts, and each is `step_us` later than the one before.
fn repeated(rule: &Value) -> Vec<Value> {
    let event = rule["event"].to_string();
    let at = |n: i64| {
        let mut event: Value = serde_json::from_str(&event.replace("{n}", &n.to_string())).unwrap();
        event["event_time"] = json!(event["event_time"].as_i64().unwrap() + n * rule["step_us"].as_i64().unwrap());
        event
    };
    (0..rule["count"].as_i64().unwrap()).map(at).collect()
}

/// What differs between an answer and what the page says about it. Rows and columns must be the page's, of the rest the
/// page may leave out fields.
fn difference(path: &str, said: &Value, got: &Value) -> Option<String> {
    let whole = path.starts_with("/rows") || path.starts_with("/columns");
    let inside = |key: &dyn Display, said, got: Option<&Value>| match got {
        Some(got) => difference(&format!("{path}/{key}"), said, got),
        None => Some(format!("{path}/{key}: the page says {said}, the server nothing")),
    };
    match (said, got) {
        (Value::Object(said), Value::Object(got)) if !whole || said.len() == got.len() => {
            said.iter().find_map(|(key, said)| inside(key, said, got.get(key)))
        }
        (Value::Array(said), Value::Array(got)) if said.len() == got.len() => {
            said.iter().enumerate().find_map(|(at, said)| inside(&at, said, got.get(at)))
        }
        _ if said == got => None,
        _ => Some(format!("{path}: the page says {said}, the server {got}")),
    }
}

fn check(reader: &Reader, request: &Block<'_>, answer: &Block<'_>) {
    let status = answer.info.strip_prefix("json answer").unwrap_or_else(|| {
        panic!("line {}: a question is followed by {:?} instead of its answer", request.line, answer.info)
    });
    let status: u16 = if status.is_empty() { 200 } else { status.trim().parse().unwrap() };
    let (got_status, got) = reader.ask(request.text);
    let said: Value = serde_json::from_str(answer.text).unwrap_or_else(|error| panic!("line {}: {error}", answer.line));
    let differs = difference("", &said, &got);
    assert!(
        got_status == status && differs.is_none(),
        "line {}: status {got_status}, {}\n{}",
        request.line,
        differs.unwrap_or_default(),
        serde_json::to_string_pretty(&got).unwrap()
    );
}

/// The functions that a question asks for.
fn functions(request: &str) -> Vec<String> {
    let query: Value = serde_json::from_str(request).unwrap();
    let long = query["aggregates"].as_array().cloned().unwrap_or_default().into_iter().map(|one| one["fn"].clone());
    long.chain([query["aggregate"].clone()]).filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

/// The functions that there are, as the server names them to who asks for another.
fn known_functions(reader: &Reader) -> BTreeSet<String> {
    let (_, reply) = reader.ask(r#"{"namespace":"a","table":"b","start_time":0,"end_time":1,"aggregate":"none"}"#);
    let message = reply["error"]["message"].as_str().unwrap();
    let (_, names) = message.split_once("there are ").unwrap_or_else(|| panic!("no names in {message:?}"));
    names.split(", ").map(str::to_owned).collect()
}

/// Goal: whoever follows docs/queries.md gets what it says: each question its answer, and every function has a question.
#[test]
fn the_page_tells_the_truth() {
    let page = include_str!("../../../../docs/queries.md");
    let mut reader = Reader { server: Server::start(), tokens: HashMap::new() };
    let (mut asked, mut questions) = (BTreeSet::new(), 0);
    let mut blocks = page::blocks(page).into_iter();
    while let Some(block) = blocks.next() {
        match block.info {
            "json table" => reader.make_table(block.text),
            "json events" => {
                let events: Vec<Value> = block.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                reader.send(&events);
            }
            "json repeated" => reader.send(&repeated(&serde_json::from_str(block.text).unwrap())),
            "json request" => {
                let answer = blocks.next().unwrap_or_else(|| panic!("line {}: no answer follows", block.line));
                check(&reader, &block, &answer);
                asked.extend(functions(block.text));
                questions += 1;
            }
            other => panic!("line {}: a block of {other:?} is not run", block.line),
        }
    }
    assert_eq!(asked, known_functions(&reader));
    assert!(questions >= asked.len(), "{questions} questions about {} functions", asked.len());
}
