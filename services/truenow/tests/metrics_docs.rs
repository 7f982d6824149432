//! docs/metrics.md describes every metric that the sources know.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Begins the name of every metric.
const PREFIX: &str = "truenow_";
/// String literals of that form which name something else: the file of the compiled contract, and what a test records.
const NO_METRICS: [&str; 2] = ["truenow_descriptor", "truenow_page_test_total"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files below a directory.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// String literals of a source that look like the name of a metric.
fn names(source: &str) -> impl Iterator<Item = &str> {
    source
        .split('"')
        .filter(|text| {
            text.starts_with(PREFIX) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .filter(|text| !NO_METRICS.contains(text))
}

/// Goal: no metric is without its line in docs/metrics.md.
#[test]
fn every_metric_is_documented() {
    let mut files = Vec::new();
    for group in ["services", "shared"] {
        for part in fs::read_dir(root().join(group)).unwrap() {
            let sources = part.unwrap().path().join("src");
            if sources.is_dir() {
                rust_files(&sources, &mut files);
            }
        }
    }
    let sources: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let known: BTreeSet<_> = sources.iter().flat_map(|source| names(source)).collect();
    assert!(known.len() > 20, "the search finds next to nothing: {known:?}");
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let missing: Vec<_> = known.into_iter().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "docs/metrics.md says nothing of {missing:?}");
}
