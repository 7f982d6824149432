//! A gRPC server that does nothing, as tonic does it, and messages that are bytes.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    task::{Context, Poll},
};

use bench::Failure;
use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::runtime::Builder;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
    transport::{Server, server::TcpIncoming},
};

/// The call.
pub(crate) const PATH: &str = "/bench.Empty/Call";

/// Starts the server on a thread of its own, which ends with the process; where it is.
///
/// # Errors
/// There is no port, or no thread.
pub(crate) fn serve() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("empty-calls".to_owned()).spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is a socket that does not block");
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            // Without connections there is nothing to fail.
            drop(Server::builder().add_service(Nothing).serve_with_incoming(incoming).await);
        });
    })?;
    Ok(address)
}

/// The service, and its one method.
#[derive(Debug, Clone, Copy)]
struct Nothing;

impl NamedService for Nothing {
    const NAME: &'static str = "bench.Empty";
}

impl Service<http::Request<Body>> for Nothing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(RawCodec).unary(Self, request).await) })
    }
}

impl Service<Request<Bytes>> for Nothing {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(Bytes::new())))
    }
}

/// Bytes out, bytes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
