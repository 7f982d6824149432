//! `truenow ingest --wait` without a table.

use std::process::Command;

/// Goal: the wait asks about one table, so a command line that names none is refused before the file is opened, let alone
/// sent, though events in TrueNow's own form could name their tables themselves.
#[test]
fn waiting_needs_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("no_such_file.ndjson");
    let said = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_truenow")).arg("ingest").arg(&file).args(more).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for named in [&["--wait"][..], &["--wait", "--namespace", "shop"], &["--wait", "--table", "events"]] {
        let text = said(named);
        assert!(text.contains("--namespace N --table T"), "{named:?}: {text}");
    }
    let text = said(&["--wait", "--namespace", "shop", "--table", "events"]);
    assert!(text.contains("no_such_file"), "{text}");
}
