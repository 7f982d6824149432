//! Every service's OpenAPI document names the routes that its sources have, and no others.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

const SERVICES: [&str; 7] =
    ["control-plane", "gateway", "hot-tier", "query-api", "rebalancer", "stream-ingester", "watermark"];
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A method and a path.
type Route = (String, String);

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a directory, as one text.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

/// The routes of `.route("path", get(…).post(…))`.
fn routes(source: &str) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for call in source.split(".route(").skip(1) {
        let mut quoted = call.splitn(3, '"');
        let path = quoted.nth(1).unwrap().to_owned();
        let handlers = quoted.next().unwrap().lines().next().unwrap();
        let before = routes.len();
        for method in METHODS {
            if handlers.contains(&format!("{method}(")) {
                routes.insert((method.to_owned(), path.clone()));
            }
        }
        assert!(routes.len() > before, "the methods of {path} stand on the line of its route");
    }
    routes
}

fn documented(document: &Value) -> BTreeSet<Route> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, operations)| {
        operations.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
    });
    operations.collect()
}

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Goal: no route is without its description, none is described that does not exist, and no schema is missing.
#[test]
fn every_route_is_described() {
    let mut all = 0;
    for service in SERVICES {
        let document = fs::read_to_string(services().join(service).join("openapi.json")).unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let known = routes(&sources(&services().join(service).join("src")));
        all += known.len();
        assert_eq!(documented(&document), known, "services/{service}/openapi.json");
        let mut referred = BTreeSet::new();
        references(&document, &mut referred);
        for reference in referred {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{service}: {reference} does not exist");
        }
    }
    assert!(all > 12, "the search finds next to nothing");
}
