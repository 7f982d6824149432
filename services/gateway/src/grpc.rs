//! `truenow.v1.Ingest` over gRPC.
//!
//! The service is put together by hand, because generated code would decode rows into maps, answer bad protocol buffers
//! with `INTERNAL`, and leave no say in what happens when a message is too long, comes too slowly or never ends. Here
//! every method gets the bytes of its messages; those of a unary call are sliced from what the network delivered.

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::{Extensions, Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use proto::v1::{DescribeTableRequest, IngestReply, Refusal, TableDescription};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService},
};
use tower::Service;
use types::{ApiError, ErrorCode, Table, TableName, TenantId};

use crate::{
    apart::apart,
    in_flight::{InFlight, Share},
    ingest::Ingest,
    one_message,
    wire::{ColumnsRequest, reply},
};

/// Batches of one stream that are under way at a time.
const STREAM_BATCHES_MAX: usize = 16;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type ReplyStream = Pin<Box<dyn Stream<Item = Result<IngestReply, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub(crate) struct IngestService {
    ingest: Arc<Ingest>,
    in_flight: Arc<InFlight>,
    message_timeout: Duration,
}

impl IngestService {
    /// A service before `ingest`; the message of a unary call must arrive within `message_timeout`.
    pub(crate) fn new(ingest: Arc<Ingest>, in_flight: Arc<InFlight>, message_timeout: Duration) -> Self {
        Self { ingest, in_flight, message_timeout }
    }

    async fn respond(self, request: HttpRequest<Body>) -> HttpResponse<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        if let Err(refused) = self.open(&method, request.extensions()).await {
            return refused.into_http();
        }
        let share = self.in_flight.share();
        let request = request.map(|body| Body::new(share.meter(body)));
        match method.as_str() {
            "IngestBatch" | "IngestColumns" | "DescribeTable" => self.unary(&method, request, share).await,
            "IngestStream" => {
                let bytes_max = self.ingest.request_bytes_max();
                let call = tower::service_fn(move |request| {
                    let replies = self.clone().stream(request, share.clone());
                    async move { replies }
                });
                grpc::<IngestReply>(bytes_max).streaming(call, request).await
            }
            _ => Status::unimplemented(format!("truenow.v1.Ingest has no method {method:?}")).into_http(),
        }
    }

    /// Answers a call of one message. What is read of its body here, tonic reads no more; it does the rest.
    async fn unary(self, method: &str, request: HttpRequest<Body>, share: Share) -> HttpResponse<Body> {
        let (head, body) = request.into_parts();
        let message = match self.single(body, &share).await {
            Ok(message) => message,
            Err(refused) => return refused.into_http(),
        };
        let request = HttpRequest::from_parts(head, Body::empty());
        match method {
            "IngestBatch" => {
                let call =
                    tower::service_fn(move |request| self.clone().batch(request, message.clone(), share.clone()));
                grpc::<IngestReply>(0).client_streaming(call, request).await
            }
            "IngestColumns" => {
                let call =
                    tower::service_fn(move |request| self.clone().columns(request, message.clone(), share.clone()));
                grpc::<IngestReply>(0).client_streaming(call, request).await
            }
            _ => {
                let call = tower::service_fn(move |request| self.clone().describe(request, message.clone()));
                grpc::<TableDescription>(0).client_streaming(call, request).await
            }
        }
    }

    /// Lets a batch in by its headers, before a byte of it is read, or refuses it. A stream is open for later batches too: each is judged
    /// by itself.
    async fn open(&self, method: &str, extensions: &Extensions) -> Result<(), Status> {
        if !matches!(method, "IngestBatch" | "IngestColumns") {
            return Ok(());
        }
        self.ingest.open(tenant_of(extensions)?).await.map_err(status)?;
        self.in_flight.enter().await.map_err(status)
    }

    async fn batch(
        self,
        request: Request<Streaming<Bytes>>,
        message: Bytes,
        share: Share,
    ) -> Result<Response<IngestReply>, Status> {
        let tenant = tenant_of(request.extensions())?;
        let bytes = message.len();
        let ack = apart(bytes, async move { self.ingest.protobuf_rows(tenant, message, share).await }).await;
        ack.map(|ack| Response::new(reply(ack))).map_err(status)
    }

    async fn columns(
        self,
        request: Request<Streaming<Bytes>>,
        message: Bytes,
        share: Share,
    ) -> Result<Response<IngestReply>, Status> {
        let tenant = tenant_of(request.extensions())?;
        let columns = ColumnsRequest::decode(&message).map_err(status)?;
        let bytes = message.len();
        let ack = apart(bytes, async move { self.ingest.columns(tenant, columns, share).await }).await;
        ack.map(|ack| Response::new(reply(ack))).map_err(status)
    }

    async fn describe(
        self,
        request: Request<Streaming<Bytes>>,
        message: Bytes,
    ) -> Result<Response<TableDescription>, Status> {
        let tenant = tenant_of(request.extensions())?;
        let request = DescribeTableRequest::decode(message)
            .map_err(|error| Status::invalid_argument(format!("not a DescribeTableRequest: {error}")))?;
        let name = TableName::new(request.namespace, request.table);
        let table = self.ingest.describe(tenant, &name, request.create).await.map_err(status)?;
        Ok(Response::new(self.description(&table)))
    }

    fn description(&self, table: &Table) -> TableDescription {
        TableDescription {
            table_id: table.key.table.0,
            generation: table.key.generation.0,
            schema_version: table.schema.version().0,
            partitions: table.partitions.iter().map(|partition| partition.0).collect(),
            partition_by: table.partition_by.clone(),
            partition_seed: table.partition_seed,
            request_bytes_max: self.ingest.request_bytes_max() as u64,
            request_events_max: self.ingest.request_events_max() as u64,
        }
    }

    fn stream(self, request: Request<Streaming<Bytes>>, share: Share) -> Result<Response<ReplyStream>, Status> {
        let tenant = tenant_of(request.extensions())?;
        let ingest = self.ingest;
        let replies = request.into_inner().map(move |message| {
            let (ingest, share) = (Arc::clone(&ingest), share.clone());
            async move {
                let message = message.map_err(|error| framing_status(&error, &share))?;
                let bytes = (message.len() + one_message::PREFIX_BYTES) as u64;
                let ack = ingest.protobuf_rows(tenant, message, share.clone()).await;
                share.give_back(bytes);
                ack.map(reply).or_else(|error| refusal(&error).ok_or_else(|| status(error)))
            }
        });
        // A batch that met a limit is refused by itself. Any other error ends the stream: the sender cannot tell what became of the batches behind it, and sends them again.
        let mut failed = false;
        let replies = replies.buffered(STREAM_BATCHES_MAX).take_while(move |reply| {
            let go_on = !failed;
            failed = reply.is_err();
            std::future::ready(go_on)
        });
        Ok(Response::new(Box::pin(replies)))
    }

    /// The one message of a unary call, which must come, alone, in time.
    async fn single(&self, body: Body, share: &Share) -> Result<Bytes, Status> {
        let message = one_message::read(body, self.ingest.request_bytes_max());
        let message = one_message::in_time(message, self.message_timeout).await;
        message.map_err(|error| framing_status(&error, share))
    }
}

impl NamedService for IngestService {
    const NAME: &'static str = "truenow.v1.Ingest";
}

impl Service<HttpRequest<Body>> for IngestService {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.respond(request).await) })
    }
}

fn grpc<Reply: Message + 'static>(message_bytes_max: usize) -> Grpc<MessageCodec<Reply>> {
    Grpc::new(MessageCodec(PhantomData)).max_decoding_message_size(message_bytes_max)
}

fn tenant_of(extensions: &Extensions) -> Result<TenantId, Status> {
    let tenant = extensions.get::<TenantId>().copied();
    tenant.ok_or_else(|| Status::unauthenticated("the request has no tenant"))
}

#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub(crate) fn status(error: ApiError) -> Status {
    service::to_status(&error)
}

/// What went wrong before a message was whole, in the contract's codes: by themselves they are tonic's.
pub(crate) fn framing_status(error: &Status, share: &Share) -> Status {
    if let Some(refused) = share.refused() {
        return status(refused);
    }
    match error.code() {
        Code::OutOfRange => status(ApiError::new(ErrorCode::TooLarge, error.message())),
        Code::Internal => Status::invalid_argument(error.message()),
        _ => error.clone(),
    }
}

/// The reply of a stream to a batch of which nothing was stored, as a limit was met that will pass.
fn refusal(error: &ApiError) -> Option<IngestReply> {
    let after = error.retry_after.filter(|_| error.code == ErrorCode::ResourceExhausted)?;
    let refused = Refusal {
        code: error.code.name().to_owned(),
        message: error.message.clone(),
        field: error.field.clone().unwrap_or_default(),
        retry_after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1),
    };
    Some(IngestReply { refused: Some(refused), ..IngestReply::default() })
}

/// Messages in as their bytes, replies out as protocol buffers.
struct MessageCodec<Reply>(PhantomData<Reply>);

struct BytesDecoder;
struct ReplyEncoder<Reply>(PhantomData<Reply>);

impl<Reply: Message + 'static> Codec for MessageCodec<Reply> {
    type Encode = Reply;
    type Decode = Bytes;
    type Encoder = ReplyEncoder<Reply>;
    type Decoder = BytesDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ReplyEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        BytesDecoder
    }
}

impl<Reply: Message> Encoder for ReplyEncoder<Reply> {
    type Item = Reply;
    type Error = Status;

    fn encode(&mut self, reply: Reply, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        reply.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for BytesDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Takes the message out of the receive buffer; no byte is copied.
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
