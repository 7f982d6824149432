//! The shapes of answers and errors, and what is recorded of them.

use crate::{Start, fetch, json, status, talk};

/// Goal: whoever finds the error, it has the shape of the contract.
#[tokio::test]
async fn every_error_has_one_shape() {
    let running = Start::named("shapes").start().await;
    let address = running.http_address();
    let cases = [
        (fetch(address, "/nowhere", "").await, 404, "NOT_FOUND"),
        (fetch(address, "/echo", "").await, 405, "UNIMPLEMENTED"),
        (fetch(address, "/query?number=x", "").await, 400, "INVALID_ARGUMENT"),
        (fetch(address, "/panic", "").await, 500, "INTERNAL"),
    ];
    for (answer, code, name) in cases {
        assert_eq!(status(&answer), code, "{answer}");
        assert_eq!(json(&answer)["error"]["code"], name, "{answer}");
        assert!(json(&answer)["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert!(answer.to_ascii_lowercase().contains("content-type: application/json"), "{answer}");
    }
    let _ = running.shutdown().await;
}

/// Goal: a body beyond the limit is refused by its announced length, before it is sent, or when too much has come.
#[tokio::test]
async fn too_large_a_body_is_refused() {
    let running = Start::named("sizes").start().await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let announced = talk(running.http_address(), &format!("{head}Content-Length: 1025\r\n\r\n")).await;
    let chunk = format!("400\r\n{}\r\n", "a".repeat(1_024));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\na\r\n0\r\n\r\n");
    let chunked = talk(running.http_address(), &chunked).await;
    for answer in [announced, chunked] {
        assert_eq!(status(&answer), 413, "{answer}");
        assert_eq!(json(&answer)["error"]["code"], "RESOURCE_EXHAUSTED");
    }
    let exact = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    assert_eq!(status(&talk(running.http_address(), &exact).await), 200);
    let _ = running.shutdown().await;
}

/// Goal: a panic ends one request, is counted, and the service goes on.
#[tokio::test]
async fn a_panic_is_contained() {
    let running = Start::named("panics").start().await;
    let address = running.http_address();
    assert_eq!(status(&fetch(address, "/panic", "").await), 500);
    assert_eq!(status(&fetch(address, "/items/1", "").await), 200);
    let page = fetch(address, "/metrics", "").await;
    assert!(page.contains(r#"truenow_panics_total{service="panics"} 1"#), "{page}");
    let _ = running.shutdown().await;
}

/// Goal: labels are routes; what no route takes shares one, however many paths a client tries.
#[tokio::test]
async fn clients_make_no_labels() {
    let running = Start::named("labels").start().await;
    let address = running.http_address();
    for number in 0..3 {
        assert_eq!(status(&fetch(address, &format!("/items/{number}"), "").await), 200);
        assert_eq!(status(&fetch(address, &format!("/probe/{number}"), "").await), 404);
    }
    let page = fetch(address, "/metrics", "").await;
    for line in [
        r#"truenow_http_requests_total{service="labels",endpoint="/items/{id}",code="200"} 3"#,
        r#"truenow_http_requests_total{service="labels",endpoint="unknown",code="404"} 3"#,
        r#"truenow_request_seconds_count{service="labels",endpoint="/items/{id}"} 3"#,
        r#"truenow_request_seconds{service="labels",endpoint="/items/{id}",quantile="0.99"}"#,
        r#"truenow_network_bytes_total{service="labels",protocol="http",direction="sent"}"#,
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    assert!(!page.contains("/probe"), "{page}");
    let _ = running.shutdown().await;
}

/// Goal: a plain request id comes back, and a request without one gets one.
#[tokio::test]
async fn answers_carry_a_request_id() {
    let running = Start::named("ids").start().await;
    let given = fetch(running.http_address(), "/items/1", "X-Request-Id: abc-1\r\n").await;
    assert!(given.contains("x-request-id: abc-1\r\n"), "{given}");
    let made = fetch(running.http_address(), "/nowhere", "X-Request-Id: a b\r\n").await;
    assert!(made.contains("x-request-id: ") && !made.contains("a b"), "{made}");
    let _ = running.shutdown().await;
}

/// Goal: with a key configured nothing but health, liveness and metrics answers without it, known path or not.
#[tokio::test]
async fn a_key_is_asked_for() {
    let start = Start { key: Some("0123456789abcdef"), ..Start::named("keys") };
    let running = start.start().await;
    running.health().set_serving();
    let address = running.http_address();
    for path in ["/health", "/live", "/metrics"] {
        assert_eq!(status(&fetch(address, path, "").await), 200, "{path}");
    }
    for (path, header) in [("/tenant", ""), ("/nowhere", ""), ("/tenant", "Authorization: Bearer wrong\r\n")] {
        let answer = fetch(address, path, header).await;
        assert_eq!(status(&answer), 401, "{answer}");
        assert_eq!(json(&answer)["error"]["code"], "UNAUTHENTICATED");
    }
    let answer = fetch(address, "/tenant", "Authorization: Bearer 0123456789abcdef\r\n").await;
    assert!(status(&answer) == 200 && answer.ends_with("\r\n1"), "{answer}");
    let _ = running.shutdown().await;
}
