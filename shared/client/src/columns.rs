//! The writer of columns: batches of blocks, several under way.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use proto::v1::{IngestColumnsRequest, IngestReply, TableDescription};
use tokio::{task::JoinHandle, time::Instant};
use types::Table;

use crate::{
    ClientError, Options, PushError, Row, Summary,
    batch::{Batch, Batcher},
    connection::Stub,
    retry::Attempts,
};

/// Share of the server's limit on bytes that a batch takes at most: rows become columns by a margin, names come on top.
const REQUEST_SHARE: usize = 2;

/// Writes rows of one table as columns. Dropping it gives up what is not acked.
pub struct ColumnsWriter {
    stub: Stub,
    options: Arc<Options>,
    batcher: Batcher,
    first_pending: Option<Instant>,
    under_way: VecDeque<JoinHandle<Result<Acked, ClientError>>>,
    summary: Summary,
    stopped: bool,
}

struct Acked {
    reply: IngestReply,
    rows: Vec<u64>,
    retries: u64,
}

impl ColumnsWriter {
    pub(crate) fn new(stub: Stub, table: Table, description: &TableDescription, options: Options) -> Self {
        let limit = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let rows_max = options.batch_rows_max.min(limit(description.request_events_max));
        let bytes_max = options.batch_bytes_max.min(limit(description.request_bytes_max) / REQUEST_SHARE);
        Self {
            stub,
            batcher: Batcher::new(table, &options.producer_id, options.sequence, rows_max, bytes_max),
            options: Arc::new(options),
            first_pending: None,
            under_way: VecDeque::new(),
            summary: Summary::default(),
            stopped: false,
        }
    }

    /// Takes a row. Sends a batch where it is full, and waits where too many are under way.
    ///
    /// # Errors
    /// [`PushError::Row`] where the row cannot be; all else stops the writer.
    pub async fn push(&mut self, row: &Row<'_>) -> Result<(), PushError> {
        if self.stopped {
            return Err(ClientError::Stopped.into());
        }
        let full = self.batcher.push(row).map_err(PushError::Row)?;
        if full {
            self.flush().await?;
        } else if self.batcher.pending() == 1 {
            self.first_pending = Some(Instant::now());
        }
        Ok(())
    }

    /// When the rows that wait for company have waited long enough: the caller flushes then if it wants them to be seen
    /// soon. `None`: none waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.first_pending.map(|first| first + self.options.linger)
    }

    /// Sends the rows that wait; does not wait for their ack.
    ///
    /// # Errors
    /// An earlier batch failed for good; the writer has stopped.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        while self.under_way.len() >= self.options.batches_in_flight_max.max(1) {
            self.settle_first().await?;
        }
        self.first_pending = None;
        let Some(batch) = self.batcher.take() else { return Ok(()) };
        let name = &self.batcher.table().name;
        let request = IngestColumnsRequest {
            namespace: name.namespace.clone(),
            table: name.table.clone(),
            blocks: Vec::new(),
            producer_id: self.options.producer_id.clone(),
            sequence: batch.sequence,
        };
        let send = send(self.stub.clone(), Arc::clone(&self.options), request, batch);
        self.under_way.push_back(tokio::spawn(send));
        Ok(())
    }

    /// What is acked so far. Acks are taken in when the writer sends, or finishes.
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
        while !self.under_way.is_empty() {
            self.settle_first().await?;
        }
        Ok(std::mem::take(&mut self.summary))
    }

    async fn settle_first(&mut self) -> Result<(), ClientError> {
        let Some(first) = self.under_way.front_mut() else { return Ok(()) };
        // Awaited in place, so that a caller who gives up waiting loses nothing.
        let acked = first.await;
        self.under_way.pop_front();
        match acked.unwrap_or(Err(ClientError::Stopped)) {
            Ok(Acked { reply, rows, retries }) => {
                self.summary.retries += retries;
                let name = &self.batcher.table().name;
                let tables = BTreeSet::from([(name.namespace.clone(), name.table.clone())]);
                self.summary.add(reply, &rows, tables, &self.options);
                Ok(())
            }
            Err(error) => {
                self.stopped = true;
                self.under_way.drain(..).for_each(|task| task.abort());
                Err(error)
            }
        }
    }
}

impl Drop for ColumnsWriter {
    fn drop(&mut self) {
        self.under_way.drain(..).for_each(|task| task.abort());
    }
}

/// Sends a batch until it is acked. Cloning a request clones references to its blocks.
async fn send(
    mut stub: Stub,
    options: Arc<Options>,
    mut request: IngestColumnsRequest,
    batch: Batch,
) -> Result<Acked, ClientError> {
    request.blocks = batch.blocks;
    let mut attempts = Attempts::default();
    loop {
        let status = match stub.ingest_columns(request.clone()).await {
            Ok(reply) => {
                return Ok(Acked { reply: reply.into_inner(), rows: batch.rows, retries: u64::from(attempts.failed) });
            }
            Err(status) => status,
        };
        attempts.wait(&options.retry, status, batch.sequence).await?;
    }
}
