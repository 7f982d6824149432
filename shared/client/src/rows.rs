//! The writer of rows: batches of events of any tables over one stream, an ack per batch in order.

use std::collections::{BTreeSet, VecDeque};

use proto::v1::{Event, IngestBatchRequest, IngestReply, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    ClientError, Options, PushError, Summary, connection::Stub, error::refused_status, retry::Attempts, tokens::Name,
};

/// Writes rows as they are, of any tables. Dropping it gives up what is not acked.
pub struct RowsWriter {
    stub: Stub,
    options: Options,
    pending: Vec<Event>,
    pending_bytes: usize,
    next_sequence: u64,
    taken: u64,
    unacked: VecDeque<Sent>,
    stream: Option<Stream>,
    attempts: Attempts,
    /// Pauses made because a batch was refused.
    pauses: u64,
    summary: Summary,
    stopped: bool,
}

struct Sent {
    request: IngestBatchRequest,
    first_row: u64,
    /// Pauses that had been made when it was sent.
    pauses: u64,
}

struct Stream {
    requests: mpsc::Sender<IngestBatchRequest>,
    replies: Streaming<IngestReply>,
}

impl RowsWriter {
    pub(crate) fn new(stub: Stub, options: Options) -> Self {
        Self {
            stub,
            next_sequence: options.sequence,
            options,
            pending: Vec::new(),
            pending_bytes: 0,
            taken: 0,
            unacked: VecDeque::new(),
            stream: None,
            attempts: Attempts::default(),
            pauses: 0,
            summary: Summary::default(),
            stopped: false,
        }
    }

    /// Takes an event. Sends a batch where it is full, and waits where too many are under way.
    ///
    /// # Errors
    /// The way to the server; the writer has stopped. What is wrong with an event the server says in its ack.
    pub async fn push(&mut self, event: Event) -> Result<(), PushError> {
        if self.stopped {
            return Err(ClientError::Stopped.into());
        }
        self.pending_bytes += message_bytes(&event);
        self.pending.push(event);
        let full = self.pending.len() >= self.options.batch_rows_max.max(1);
        if full || self.pending_bytes >= self.options.batch_bytes_max {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends the events that wait; does not wait for their ack.
    ///
    /// # Errors
    /// An earlier batch failed for good; the writer has stopped.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        while self.unacked.len() >= self.options.batches_in_flight_max.max(1) {
            self.settle_first().await?;
        }
        let events = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let first_row = self.taken;
        self.taken += events.len() as u64;
        let request =
            IngestBatchRequest { events, producer_id: self.options.producer_id.clone(), sequence: self.next_sequence };
        self.next_sequence += 1;
        if let Some(stream) = &self.stream {
            // A stream that has ended is noticed where its reply is awaited; the batch is sent again then.
            let _ = stream.requests.send(request.clone()).await;
        }
        self.unacked.push_back(Sent { request, first_row, pauses: self.pauses });
        if self.stream.is_none() {
            // Likewise where none can be opened now.
            self.stream = self.open().await.ok();
        }
        Ok(())
    }

    /// What is acked so far.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Sends what waits and waits for every ack.
    ///
    /// # Errors
    /// A batch failed for good; those behind it may have been stored.
    pub async fn finish(mut self) -> Result<Summary, ClientError> {
        self.flush().await?;
        while !self.unacked.is_empty() {
            self.settle_first().await?;
        }
        Ok(self.summary)
    }

    /// Waits for the oldest ack, on new streams as often as the retry policy permits.
    async fn settle_first(&mut self) -> Result<(), ClientError> {
        loop {
            let status = match self.next_reply().await {
                Ok(IngestReply { refused: Some(refused), .. }) => {
                    self.send_again(refused).await?;
                    continue;
                }
                Ok(reply) => {
                    let Some(sent) = self.unacked.pop_front() else { return Ok(()) };
                    let last_row = sent.first_row + sent.request.events.len() as u64;
                    let rows: Vec<_> = (sent.first_row..last_row).collect();
                    self.summary.add(reply, &rows, tables_of(&sent.request.events), &self.options);
                    self.attempts = Attempts::default();
                    return Ok(());
                }
                Err(status) => status,
            };
            self.stream = None;
            self.pause(status).await?;
        }
    }

    /// Sends the oldest batch again, behind the others, after it was refused by itself. One pause is enough for all that were
    /// sent before it.
    async fn send_again(&mut self, refused: Refusal) -> Result<(), ClientError> {
        let Some(mut sent) = self.unacked.pop_front() else { return Ok(()) };
        if sent.pauses == self.pauses {
            self.pauses += 1;
            self.pause(refused_status(refused)).await?;
        }
        sent.pauses = self.pauses;
        if let Some(stream) = &self.stream {
            // As in `flush`: a stream that has ended is noticed where its reply is awaited.
            let _ = stream.requests.send(sent.request.clone()).await;
        }
        self.unacked.push_back(sent);
        Ok(())
    }

    /// Waits before the next attempt, if there is to be one.
    async fn pause(&mut self, status: Status) -> Result<(), ClientError> {
        let waited = self.attempts.wait(&self.options.retry, status, self.next_sequence).await;
        self.stopped |= waited.is_err();
        self.summary.retries += 1;
        waited
    }

    async fn next_reply(&mut self) -> Result<IngestReply, Status> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let stream = self.stream.as_mut().expect("opened above");
        let reply = stream.replies.message().await?;
        reply.ok_or_else(|| Status::unavailable("the stream ended before all batches were acked"))
    }

    /// A new stream, on which all that is not acked is sent again.
    async fn open(&mut self) -> Result<Stream, Status> {
        // Room for all that may be unacked: sending never waits for the receiving of acks.
        let (requests, to_send) = mpsc::channel(self.options.batches_in_flight_max.max(1) + 1);
        for sent in &self.unacked {
            let room = requests.try_send(sent.request.clone());
            room.map_err(|_| Status::internal("more batches under way than there may be"))?;
        }
        let replies = self.stub.ingest_stream(ReceiverStream::new(to_send)).await?.into_inner();
        Ok(Stream { requests, replies })
    }
}

/// The tables that events are for. Runs of events of one table cost one entry.
fn tables_of(events: &[Event]) -> BTreeSet<Name> {
    let runs = events.chunk_by(|a, b| a.table == b.table && a.namespace == b.namespace);
    runs.filter_map(<[Event]>::first).map(|event| (event.namespace.clone(), event.table.clone())).collect()
}

/// Bytes of an event in a message, about.
fn message_bytes(event: &Event) -> usize {
    let dimensions: usize = event.dimensions.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let metrics: usize = event.metrics.keys().map(|name| name.len() + 16).sum();
    event.namespace.len()
        + event.table.len()
        + event.event_id.as_ref().map_or(0, String::len)
        + dimensions
        + metrics
        + 32
}
