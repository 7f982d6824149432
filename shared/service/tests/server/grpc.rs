//! The gRPC port: health, reflection, credentials, and messages that stop in the middle.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use service::Running;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{HUNG, Start, fetch};

async fn ask(running: &Running, path: &str, key: Option<&str>, body: Body) -> Response<hyper::body::Incoming> {
    let stream = tokio::net::TcpStream::connect(running.grpc_address()).await.unwrap();
    let connection = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = connection.await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://x{path}")).header("content-type", "application/grpc");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let answer = sender.send_request(request.body(body).unwrap());
    tokio::time::timeout(HUNG, answer).await.expect("the server answers").unwrap()
}

/// The gRPC status of an answer, in its headers or its trailers.
async fn code(answer: Response<hyper::body::Incoming>) -> String {
    let of = |headers: &HeaderMap| headers.get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    if let Some(code) = of(answer.headers()) {
        return code;
    }
    let body = answer.into_body().collect().await.unwrap();
    body.trailers().and_then(of).expect("a gRPC answer has a status")
}

fn one_message(payload: &'static [u8]) -> Body {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    Body::from([&[0], &length[..], payload].concat())
}

/// Goal: the standard health service follows the state, for the server and for each service, and the calls are
/// recorded by their method.
#[tokio::test]
async fn health_is_served_over_grpc() {
    let running = Start::named("grpc-health").start().await;
    let address = format!("http://{}", running.grpc_address());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: "truenow.v1.Ingest".into() };
    let mut states = client.watch(request.clone()).await.unwrap().into_inner();
    running.health().set_serving();
    let serving = async { while states.message().await.unwrap().unwrap().status() != ServingStatus::Serving {} };
    tokio::time::timeout(HUNG, serving).await.expect("the state arrives");
    assert_eq!(client.check(request).await.unwrap().into_inner().status(), ServingStatus::Serving);
    let page = fetch(running.http_address(), "/metrics", "").await;
    let line = r#"{service="grpc-health",endpoint="/grpc.health.v1.Health/Check",code="OK"} 1"#;
    assert!(page.contains(line), "{page}");
    drop((client, states));
    let _ = running.shutdown().await;
}

/// Goal: methods that do not exist make no labels.
#[tokio::test]
async fn unknown_methods_share_a_label() {
    let running = Start::named("grpc-labels").start().await;
    for path in ["/grpc.health.v1.Health/Probe1", "/probe.v1.Probe2/Do"] {
        assert_eq!(code(ask(&running, path, None, one_message(b"")).await).await, "12");
    }
    let page = fetch(running.http_address(), "/metrics", "").await;
    assert!(page.contains(r#"{service="grpc-labels",endpoint="unknown",code="UNIMPLEMENTED"} 1"#), "{page}");
    assert!(!page.contains("Probe"), "{page}");
    let _ = running.shutdown().await;
}

/// Goal: a message that announces its length and stops ends with DEADLINE_EXCEEDED.
#[tokio::test]
async fn stalled_messages_are_refused() {
    let running = Start::named("grpc-stall").start().await;
    let begun = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from_static(&[0, 0, 0x3f, 0, 0])));
    let body = Body::from_stream(begun.chain(tokio_stream::pending()));
    assert_eq!(code(ask(&running, "/grpc.health.v1.Health/Check", None, body).await).await, "4");
    let _ = running.shutdown().await;
}

/// Goal: with a key configured health stays open, reflection does not.
#[tokio::test]
async fn a_key_is_asked_for() {
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    const KEY: &str = "0123456789abcdef";
    let running = Start { key: Some(KEY), ..Start::named("grpc-keys") }.start().await;
    assert_eq!(code(ask(&running, "/grpc.health.v1.Health/Check", None, one_message(b"")).await).await, "0");
    // Field 7: list all services.
    let list = || one_message(b"\x3a\x01*");
    assert_eq!(code(ask(&running, REFLECTION, None, list()).await).await, "16");
    let answer = ask(&running, REFLECTION, Some(KEY), list()).await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let found = body.windows("grpc.health.v1.Health".len()).any(|window| window == b"grpc.health.v1.Health");
    assert!(found, "{body:?}");
    let _ = running.shutdown().await;
}
