//! Dependencies point one way: the table of docs/architecture.md, held against what the manifests say.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// What a crate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Functions of their arguments: no clock, no files, no threads, no async.
    Pure,
    /// What services agree on, and the client of it.
    Contract,
    /// Hide a file format, a store or a runtime.
    Adapter,
    /// The seven.
    Service,
    /// Composes everything; imported by nothing.
    Composition,
    /// Tests and benchmarks; imported by nothing.
    Testing,
}

use Layer::{Adapter, Composition, Contract, Pure, Service, Testing};

/// Every crate of the workspace. One that is missing here fails the test: a new crate needs a layer.
const LAYERS: [(&str, Layer); 30] = [
    ("types", Pure),
    ("codec", Pure),
    ("admission", Pure),
    ("kernels", Pure),
    ("sketch", Pure),
    ("engine", Pure),
    ("query", Pure),
    ("placement", Pure),
    ("event-schema", Pure),
    ("proto", Contract),
    ("truenow-client", Contract),
    ("event-log", Adapter),
    ("id-store", Adapter),
    ("metadata", Adapter),
    ("cache", Adapter),
    ("config", Adapter),
    ("service", Adapter),
    ("control-plane", Service),
    ("gateway", Service),
    ("stream-ingester", Service),
    ("hot-tier", Service),
    ("query-api", Service),
    ("watermark", Service),
    ("rebalancer", Service),
    ("truenow", Composition),
    ("bench", Testing),
    ("cluster", Testing),
    ("questions", Testing),
    ("simulator", Testing),
    ("system", Testing),
];

/// What pure crates never depend on: runtimes, network, files and clocks behind an interface.
const IMPURE: [&str; 15] = [
    "async-trait",
    "axum",
    "futures-util",
    "getrandom",
    "hyper",
    "hyper-util",
    "libc",
    "rdkafka",
    "rustix",
    "sqlx",
    "tokio",
    "tokio-stream",
    "tonic",
    "tower",
    "tracing-subscriber",
];

/// Kernels map memory for large tables, on huge pages where the system has them: without these all is the same, but slower.
const ADVICE: [(&str, &str); 1] = [("kernels", "rustix")];

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Whether a crate may depend on another of the workspace.
fn may(from: &str, to: &str) -> bool {
    match (layer(from), layer(to)) {
        (Some(Pure), Some(to)) => to == Pure,
        // The client is a client of the contract, and the only one within the layer that may know the other.
        (Some(Contract), Some(to_layer)) => to_layer == Pure || (from == "truenow-client" && to == "proto"),
        (Some(Adapter), Some(to)) => to == Pure,
        (Some(Service), Some(to)) => matches!(to, Pure | Contract | Adapter),
        (Some(Composition), Some(to)) => !matches!(to, Composition | Testing),
        (Some(Testing), Some(_)) => true,
        (None, _) | (_, None) => false,
    }
}

/// Dependencies by crate that end up in the product: those of tests do not.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .output()
        .expect("cargo runs, because it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let name = |value: &Value| value["name"].as_str().expect("packages and dependencies have names").to_owned();
    let list = |value: &Value| value.as_array().expect("cargo lists packages and dependencies").clone();
    let normal = |package: &Value| {
        let normal = list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"].is_null());
        normal.map(|dependency| name(&dependency)).collect::<Vec<_>>()
    };
    list(&metadata["packages"]).iter().map(|package| (name(package), normal(package))).collect()
}

/// Goal: no crate depends on one above or beside it, and every crate has a layer.
#[test]
fn dependencies_point_one_way() {
    let dependencies = dependencies();
    let mut wrong = Vec::new();
    for (from, all) in &dependencies {
        if layer(from).is_none() {
            wrong.push(format!("{from} has no layer: add it to LAYERS"));
        }
        for to in all.iter().filter(|to| dependencies.contains_key(*to)) {
            if !may(from, to) {
                wrong.push(format!("{from} must not depend on {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goal: pure crates lack everything that would let them wait, look at a clock or touch a file.
#[test]
fn pure_crates_are_pure() {
    let dependencies = dependencies();
    let mut wrong = Vec::new();
    for (from, all) in dependencies.iter().filter(|(from, _)| layer(from) == Some(Pure)) {
        let impure = |to: &&String| IMPURE.contains(&to.as_str()) && !ADVICE.contains(&(from, to));
        wrong.extend(all.iter().filter(impure).map(|to| format!("{from} depends on {to}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goal: the rule itself tells right from wrong.
#[test]
fn the_rule_refuses_what_it_should() {
    for (from, to) in [
        ("engine", "proto"),
        ("codec", "service"),
        ("event-log", "config"),
        ("gateway", "hot-tier"),
        ("proto", "truenow-client"),
        ("query-api", "truenow"),
        ("unknown", "types"),
    ] {
        assert!(!may(from, to), "{from} -> {to}");
    }
    assert!(may("gateway", "event-log") && may("truenow", "gateway") && may("truenow-client", "proto"));
}
