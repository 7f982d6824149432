//! `truenow verify` before services that say what a test wants them to.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Command,
    thread,
};

const TABLES: &str = r#"{"tables":[{"namespace":"shop","table":"events","partition_ids":[]},{"namespace":"web","table":"hits","partition_ids":[]}]}"#;
const BALANCED: &str = r#"{"acked":1031,"live":1001,"evicted":2,"duplicate":4,"erased":8,"in_flight":16,"balanced":true,
    "late":3,"conflict":0,"dead_lettered":0}"#;
const OFF_BY_ONE: &str =
    r#"{"acked":32,"live":1,"evicted":2,"duplicate":4,"erased":8,"in_flight":16,"balanced":false}"#;
const NOT_NOW: &str = r#"{"error":{"code":"UNAVAILABLE","message":"too far behind"}}"#;
const NO_TABLE: &str = r#"{"error":{"code":"NOT_FOUND","message":"there is no such table"}}"#;

/// Answers every request by its path, 404 for others, until the process ends; returns where.
fn services(replies: &[(&'static str, u16, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let replies: HashMap<_, _> = replies.iter().map(|(path, status, body)| (*path, (*status, *body))).collect();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let Some(request) = lines.next() else { continue };
            lines.find(|line| line.is_empty());
            let path = request.split(' ').nth(1).unwrap();
            let (status, body) = replies.get(path).copied().unwrap_or((404, NO_TABLE));
            write!(stream, "HTTP/1.1 {status} .\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                .unwrap();
        }
    });
    format!("http://{address}")
}

/// Exit code, stdout and stderr.
fn verify(services: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_truenow"));
    let addresses = ["--control", services, "--watermark", services, "--query-api", services];
    let output = command.arg("verify").args(addresses).args(more).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Goal: one event in no place fails the command and shows in the row of its table; the names narrow what is looked at.
#[test]
fn an_imbalance_fails_the_command() {
    let services = services(&[
        ("/v1/tables", 200, TABLES),
        ("/v1/ledger/shop/events", 200, BALANCED),
        ("/v1/ledger/web/hits", 200, OFF_BY_ONE),
    ]);
    let (code, said, _) = verify(&services, &[]);
    assert_eq!(code, Some(1), "{said}");
    let row = |name: &str| said.lines().find(|line| line.contains(name)).unwrap().split('|').map(str::trim).collect();
    let cells: Vec<&str> = row("shop.events");
    assert_eq!(cells, ["", "shop.events", "1,031", "1,001", "2", "4", "8", "16", "yes", ""]);
    let cells: Vec<&str> = row("web.hits");
    assert_eq!(cells, ["", "web.hits", "32", "1", "2", "4", "8", "16", "NO", ""]);
    let (code, said, errors) = verify(&services, &["--namespace", "shop"]);
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(!said.contains("web.hits") && errors.contains("all balanced"), "{said}{errors}");
    let (code, _, errors) = verify(&services, &["--namespace", "shop", "--table", "hits"]);
    assert!(code == Some(1) && errors.contains("there is no table shop.hits"), "{errors}");
}

/// Goal: a ledger that cannot be read is named, is no success, and keeps the others from nothing; a table that was deleted
/// after the listing is no failure, but only where the control plane says so.
#[test]
fn what_cannot_be_read_is_named() {
    let one = [("/v1/tables", 200, TABLES), ("/v1/ledger/web/hits", 200, BALANCED)];
    let (code, said, errors) =
        verify(&services(&[&one[..], &[("/v1/ledger/shop/events", 503, NOT_NOW)]].concat()), &[]);
    assert!(code == Some(1) && said.contains("web.hits"), "{said}{errors}");
    assert!(errors.contains("shop.events: error: UNAVAILABLE: too far behind"), "{errors}");
    let (code, _, errors) = verify(&services(&one), &[]);
    assert!(code == Some(0) && errors.contains("shop.events was deleted meanwhile"), "{errors}");
    let (code, _, errors) = verify(&services(&[&one[..], &[("/v1/tables/shop/events", 200, "{}")]].concat()), &[]);
    assert!(code == Some(1) && errors.contains("shop.events: error: NOT_FOUND"), "{errors}");
    let (code, _, errors) = verify("http://127.0.0.1:1", &[]);
    assert!(code == Some(1) && errors.contains("no answer from http://127.0.0.1:1/v1/tables"), "{errors}");
}

const REPLICATED: &str = r#"{"tables":[{"namespace":"shop","table":"events","partition_ids":[0,3]}]}"#;
const ALONE: &str = r#"{"partition":0,"offset":9,"from_us":null,"agree":null,"replicas":[],"away":[]}"#;
const LONELY: &str = r#"{"partition":0,"offset":9,"from_us":null,"agree":null,"replicas":[],"away":[2]}"#;
const AGREE: &str = r#"{"partition":3,"offset":9,"from_us":7,"agree":true,"replicas":[{"node":1,"rows":5,"checksum":"aa"},
    {"node":2,"rows":5,"checksum":"aa"}],"away":[]}"#;
const DIVERGE: &str = r#"{"partition":3,"offset":1900,"from_us":null,"agree":false,"replicas":[{"node":1,"rows":5,"checksum":"aa"},
    {"node":2,"rows":4,"checksum":"ab"}],"away":[]}"#;

/// Goal: replicas that differ fail the command and are shown with what each has; one that is away is named and fails it too; a
/// partition of one replica does not.
#[test]
fn replicas_that_differ_fail_the_command() {
    let with = |of_0: (&'static str, u16, &'static str), of_3: &'static str| {
        let others = [
            ("/v1/tables", 200, REPLICATED),
            ("/v1/ledger/shop/events", 200, BALANCED),
            ("/v1/replicas/shop/events/3", 200, of_3),
        ];
        verify(&services(&[&others[..], &[of_0]].concat()), &[])
    };
    let of_0 = "/v1/replicas/shop/events/0";
    let (code, said, errors) = with((of_0, 200, ALONE), AGREE);
    assert!(code == Some(0) && errors.contains("replicas of 1 of 2 partitions compared; all agree"), "{said}{errors}");
    let (code, said, errors) = with((of_0, 200, ALONE), DIVERGE);
    assert!(code == Some(1) && errors.contains("NOT ALL AGREE"), "{said}{errors}");
    for row in [["3", "1,900", "1", "5", "aa", "NO"], ["3", "1,900", "2", "4", "ab", "NO"]] {
        let is = |line: &str| line.split('|').map(str::trim).skip(2).take(6).eq(row);
        assert!(said.lines().any(is), "{said}");
    }
    let (code, _, errors) = with((of_0, 200, LONELY), AGREE);
    assert!(code == Some(1) && errors.contains("partition 0 are away: 2"), "{errors}");
    let (code, _, errors) = with((of_0, 503, NOT_NOW), AGREE);
    assert!(code == Some(1) && errors.contains("partition 0: error: UNAVAILABLE"), "{errors}");
}
