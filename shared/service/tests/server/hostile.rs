//! Clients that stop in the middle, send too much or take all places.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{Start, fetch, json, read_to_end, status, talk};

/// Goal: a connection that stops before or in its first request is closed, whatever it seemed to begin.
#[tokio::test]
async fn slow_headers_are_cut() {
    let running = Start::named("slow-headers").start().await;
    for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "GET /items/1 HT", "GET /items/1 HTTP/1.1\r\nHost: x\r\nX-"] {
        let answer = talk(running.http_address(), beginning).await;
        assert!(!answer.contains("200"), "{beginning:?} got {answer:?}");
    }
    let _ = running.shutdown().await;
}

/// Goal: a kept connection that asks nothing more is closed as well.
#[tokio::test]
async fn idle_connections_are_cut() {
    let running = Start::named("idle").start().await;
    let answer = talk(running.http_address(), "GET /items/1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status(&answer), 200);
    let _ = running.shutdown().await;
}

/// Goal: a body that stops arriving is answered with 408, also when a byte comes now and then.
#[tokio::test]
async fn stalled_bodies_are_refused() {
    let running = Start::named("slow-bodies").start().await;
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    let answer = talk(running.http_address(), &format!("{head}abc")).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert_eq!(json(&answer)["error"]["code"], "DEADLINE_EXCEEDED");

    let mut stream = TcpStream::connect(running.http_address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let drip = tokio::spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while writer.write_all(b"a").await.is_ok() {
            tick.tick().await;
        }
    });
    let mut first = [0_u8; 12];
    let read = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut first);
    tokio::time::timeout(crate::HUNG, read).await.expect("the server gives up").unwrap();
    assert_eq!(&first, b"HTTP/1.1 408");
    drip.abort();
    let _ = running.shutdown().await;
}

/// Goal: headers beyond 16 KiB are refused, just below they pass.
#[tokio::test]
async fn large_headers_are_refused() {
    let running = Start::named("large-headers").start().await;
    let padding = |bytes: usize| format!("X-Padding: {}\r\n", "a".repeat(bytes));
    assert_eq!(status(&fetch(running.http_address(), "/items/1", &padding(15 << 10)).await), 200);
    assert_eq!(status(&fetch(running.http_address(), "/items/1", &padding(17 << 10)).await), 431);
    let _ = running.shutdown().await;
}

/// Goal: beyond the limit a connection is closed at once, those that are open stay served, and a place that is left
/// can be taken again.
#[tokio::test]
async fn connections_are_bounded() {
    let mut start = Start::named("crowd");
    start.limits.connections_max = 1;
    start.limits.header_timeout = crate::HUNG;
    let running = start.start().await;
    let address = running.http_address();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET /items/1 HT").await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(read_to_end(&mut second).await, "");
    first.write_all(b"TP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_to_end(&mut first).await), 200);
    // The place is free once the server has seen the end of the first, which no client can observe: so try again.
    let again = async {
        loop {
            let mut third = TcpStream::connect(address).await.unwrap();
            let asked = third.write_all(b"GET /items/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            if asked.is_ok() && read_to_end(&mut third).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(crate::HUNG, again).await.expect("the place becomes free");
    let _ = running.shutdown().await;
}
