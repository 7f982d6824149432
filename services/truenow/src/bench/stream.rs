//! The workers of a stream of rows: one sends, one takes the acks, which come in order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, codegen::http::uri::PathAndQuery};

use super::{
    drive::{Connection, Measured, Plan, next},
    raw_codec::RawCodec,
};
use crate::failure::Failure;

/// Batches sent and not acked yet: when each began, and its bytes.
type UnderWay = Arc<Mutex<VecDeque<(Instant, u64)>>>;

/// Drives one stream with at most `window` batches under way.
///
/// # Errors
/// The stream broke, or a batch was refused: on a stream a refusal cannot be tried again alone.
pub(crate) async fn work(
    plan: Arc<Plan>,
    connection: Connection,
    worker: u32,
    workers: u32,
    window: usize,
) -> Result<Measured, Failure> {
    let Connection::Grpc(mut grpc, authorization) = connection else {
        return Err(Failure::new("a stream of rows needs gRPC"));
    };
    let (sink, source) = mpsc::channel(window);
    let under_way = UnderWay::default();
    let room = Arc::new(Semaphore::new(window));
    let sender =
        tokio::spawn(send(Arc::clone(&plan), sink, Arc::clone(&under_way), Arc::clone(&room), worker, workers));
    grpc.ready().await.map_err(|error| Failure::new(format!("the connection broke: {error}")))?;
    let request = Connection::request(ReceiverStream::new(source), authorization.as_deref())?;
    let path = PathAndQuery::from_static("/truenow.v1.Ingest/IngestStream");
    let refused = |status: tonic::Status| match status.code() {
        Code::ResourceExhausted => Failure::new(format!("the stream was refused: {}", status.message()))
            .hint("offer less with --rate, or raise the server's rate limit"),
        code => Failure::new(format!("the stream broke: {code:?}: {}", status.message())),
    };
    let mut acks = grpc.streaming(request, path, RawCodec).await.map_err(refused)?.into_inner();
    let mut measured = Measured::new(plan.begin);
    while let Some(ack) = acks.message().await.map_err(refused)? {
        let sent = under_way.lock().expect("no holder of this lock panics").pop_front();
        let (from, bytes) = sent.ok_or_else(|| Failure::new("an ack came for a batch that was never sent"))?;
        measured.acked(from, ack.accepted, bytes);
        room.add_permits(1);
    }
    sender.await.map_err(|_panic| Failure::new("the sender of a stream broke off"))?;
    let lost = under_way.lock().expect("no holder of this lock panics").len();
    if lost > 0 {
        return Err(Failure::new(format!("the stream ended with {lost} batches without an ack")));
    }
    Ok(measured)
}

async fn send(
    plan: Arc<Plan>,
    sink: mpsc::Sender<bytes::Bytes>,
    under_way: UnderWay,
    room: Arc<Semaphore>,
    worker: u32,
    workers: u32,
) {
    let mut nth = 0;
    loop {
        let Ok(permit) = room.acquire().await else { return };
        permit.forget();
        let Some(due) = next(&plan, worker, workers, nth).await else { return };
        nth += 1;
        let entry = (due.from, due.message.len() as u64);
        under_way.lock().expect("no holder of this lock panics").push_back(entry);
        if sink.send(due.message).await.is_err() {
            return;
        }
    }
}
