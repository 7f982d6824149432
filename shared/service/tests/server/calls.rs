//! Calls past the router, and calls in the task of their connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use service::{Answering, Calls, Direct, DirectCall, Drained, Running};
use tokio::{net::TcpStream, sync::Notify};
use tonic::Status;

use crate::{HUNG, Start, fetch};

const PATHS: [&str; 4] = ["/test.Direct/Echo", "/test.Direct/Refuse", "/test.Direct/Panic", "/test.Direct/Wait"];

#[derive(Default)]
struct Methods {
    entered: Notify,
    open: Notify,
    /// Calls of `Wait` that have begun and not ended.
    waiting: AtomicUsize,
}

/// One less waits when it goes.
struct Waiting(Arc<Methods>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

struct Shared(Arc<Methods>);

impl Direct for Shared {
    fn method(&self, path: &str) -> Option<&'static str> {
        PATHS.into_iter().find(|known| *known == path)
    }

    fn call(&self, call: DirectCall) -> Answering {
        let methods = self.0.clone();
        Box::pin(async move {
            let body = call.body.collect().await.map_err(|error| Status::from_error(Box::new(error)))?.to_bytes();
            match body.as_ref().get(5) {
                Some(b'r') => Err(Status::out_of_range("on purpose")),
                Some(b'p') => panic!("a planted defect"),
                Some(b'w') => {
                    methods.waiting.fetch_add(1, SeqCst);
                    let _waiting = Waiting(methods.clone());
                    methods.entered.notify_one();
                    methods.open.notified().await;
                    Ok(body)
                }
                _ => Ok(body),
            }
        })
    }
}

async fn start(name: &'static str, key: Option<&'static str>) -> (Running, Arc<Methods>) {
    let methods = Arc::new(Methods::default());
    let direct: Arc<dyn Direct> = Arc::new(Shared(methods.clone()));
    let start = Start { key, calls: Calls::OnConnection, direct: Some(direct), ..Start::named(name) };
    (start.start().await, methods)
}

async fn connect(running: &Running) -> SendRequest<Body> {
    let stream = TcpStream::connect(running.grpc_address()).await.unwrap();
    let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = connection.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> http::request::Builder {
    Request::post(format!("http://x{path}")).header("content-type", "application/grpc")
}

async fn send(sender: &mut SendRequest<Body>, head: http::request::Builder, payload: &[u8]) -> Response<Incoming> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let body = Body::from([&[0], &length[..], payload].concat());
    let answer = sender.send_request(head.body(body).unwrap());
    tokio::time::timeout(HUNG, answer).await.expect("the server answers").unwrap()
}

/// Status and message of an answer.
async fn read(answer: Response<Incoming>) -> (String, Bytes) {
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let headers = answer.headers().clone();
    let body = answer.into_body().collect().await.unwrap();
    let status =
        body.trailers().and_then(|trailers| trailers.get("grpc-status")).or_else(|| headers.get("grpc-status"));
    let status = status.expect("a gRPC answer has a status").to_str().unwrap().to_owned();
    let mut bytes = body.to_bytes();
    bytes.advance(bytes.len().min(5));
    (status, bytes)
}

/// Goal: calls past the router are answered, refused and contained as all are, and counted by their method; those of another form go to
/// the router.
#[tokio::test]
async fn direct_calls_are_calls_like_others() {
    let (running, _methods) = start("direct", None).await;
    let mut sender = connect(&running).await;
    for (path, payload, code) in
        [(PATHS[0], &b"echo"[..], "0"), (PATHS[1], b"r", "11"), (PATHS[2], b"p", "13"), (PATHS[0], b"again", "0")]
    {
        let (status, message) = read(send(&mut sender, request(path), payload).await).await;
        assert_eq!(status, code, "{path}");
        assert_eq!(message, if code == "0" { payload } else { b"" });
    }
    let own = request(PATHS[0]).header("x-request-id", "mine-1");
    assert_eq!(send(&mut sender, own, b"e").await.headers()["x-request-id"], "mine-1");
    // The router of this service does not know the method.
    let compressed = request(PATHS[0]).header("grpc-encoding", "gzip");
    assert_eq!(send(&mut sender, compressed, b"e").await.headers()["grpc-status"], "12");
    let page = fetch(running.http_address(), "/metrics", "").await;
    for (path, code, times) in [(PATHS[0], "OK", 3), (PATHS[1], "OUT_OF_RANGE", 1), (PATHS[2], "INTERNAL", 1)] {
        let line = format!(r#"{{service="direct",endpoint="{path}",code="{code}"}} {times}"#);
        assert!(page.contains(&line), "{line} is not in {page}");
    }
    assert!(page.contains(r#"truenow_panics_total{service="direct"} 1"#), "{page}");
    let _ = running.shutdown().await;
}

/// Goal: nobody is asked on behalf of a caller without the key.
#[tokio::test]
async fn direct_calls_need_the_key() {
    const KEY: &str = "0123456789abcdef";
    let (running, _methods) = start("direct-key", Some(KEY)).await;
    let mut sender = connect(&running).await;
    for (authorization, code) in
        [(None, "16"), (Some("Bearer 0123456789abcdeF"), "16"), (Some("Bearer 0123456789abcdef"), "0")]
    {
        let mut head = request(PATHS[0]);
        if let Some(authorization) = authorization {
            head = head.header("authorization", authorization);
        }
        assert_eq!(read(send(&mut sender, head, b"e").await).await.0, code);
    }
    let _ = running.shutdown().await;
}

/// Goal: calls of one connection do not wait for one another, a panic ends its own call alone, and a shutdown finishes those
/// under way.
#[tokio::test]
async fn calls_share_the_task_of_their_connection() {
    let (running, methods) = start("on-connection", None).await;
    let mut sender = connect(&running).await;
    let mut first = sender.clone();
    let waits = tokio::spawn(async move { read(send(&mut first, request(PATHS[3]), b"w").await).await });
    methods.entered.notified().await;
    assert_eq!(read(send(&mut sender, request(PATHS[2]), b"p").await).await.0, "13");
    assert_eq!(read(send(&mut sender, request(PATHS[0]), b"e").await).await.0, "0");
    assert_eq!(methods.waiting.load(SeqCst), 1);
    let (address, shutdown) = (running.grpc_address(), tokio::spawn(running.shutdown()));
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(HUNG, closed).await.expect("the port closes while the call is under way");
    methods.open.notify_one();
    assert_eq!(waits.await.unwrap(), ("0".to_owned(), Bytes::from_static(b"w")));
    assert_eq!(shutdown.await.unwrap(), Drained { connections_cut: 0 });
}

/// Goal: what a client left behind ends and is counted so, whether it gave up the call or closed the connection.
#[tokio::test]
async fn calls_that_were_left_end() {
    let (running, methods) = start("left", None).await;
    for closes in [false, true] {
        let mut sender = connect(&running).await;
        let mut other = sender.clone();
        let call = tokio::spawn(async move { send(&mut other, request(PATHS[3]), b"w").await });
        methods.entered.notified().await;
        assert_eq!(methods.waiting.load(SeqCst), 1);
        if closes {
            drop(sender);
            call.abort();
        } else {
            call.abort();
            assert_eq!(read(send(&mut sender, request(PATHS[0]), b"e").await).await.0, "0");
        }
        let ended = async {
            while methods.waiting.load(SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HUNG, ended).await.expect("the call ends");
    }
    let page = fetch(running.http_address(), "/metrics", "").await;
    let line = format!(r#"{{service="left",endpoint="{}",code="CANCELLED"}} 2"#, PATHS[3]);
    assert!(page.contains(&line), "{page}");
    let _ = running.shutdown().await;
}
