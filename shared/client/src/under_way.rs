//! Batches of columns that are sent and not yet acked, and what became of those that are.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use proto::v1::{IngestColumnsRequest, IngestReply};
use tokio::task::JoinHandle;

use crate::{ClientError, Options, Summary, connection::Stub, retry::Attempts};

/// Batches of one table under way. Dropping it gives up what is not acked.
pub(crate) struct UnderWay {
    stub: Stub,
    options: Arc<Options>,
    namespace: String,
    table: String,
    batches: VecDeque<JoinHandle<Result<Acked, ClientError>>>,
    summary: Summary,
    stopped: bool,
}

struct Acked {
    reply: IngestReply,
    rows: Vec<u64>,
    retries: u64,
}

impl UnderWay {
    pub(crate) fn new(stub: Stub, options: Options, namespace: &str, table: &str) -> Self {
        Self {
            stub,
            options: Arc::new(options),
            namespace: namespace.to_owned(),
            table: table.to_owned(),
            batches: VecDeque::new(),
            summary: Summary::default(),
            stopped: false,
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether a batch failed for good.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Waits until one more batch may be under way.
    ///
    /// # Errors
    /// An earlier batch failed for good, and with it all of them.
    pub(crate) async fn room(&mut self) -> Result<(), ClientError> {
        while self.batches.len() >= self.options.batches_in_flight_max.max(1) {
            self.settle_first().await?;
        }
        Ok(())
    }

    /// Sends a batch; `rows` are the writer's rows by their index in it. The caller made room.
    pub(crate) fn send(&mut self, blocks: Vec<bytes::Bytes>, producer_id: String, sequence: u64, rows: Vec<u64>) {
        let (namespace, table) = (self.namespace.clone(), self.table.clone());
        let request = IngestColumnsRequest { namespace, table, blocks, producer_id, sequence };
        self.batches.push_back(tokio::spawn(send(self.stub.clone(), Arc::clone(&self.options), request, rows)));
    }

    /// Waits for every ack.
    ///
    /// # Errors
    /// A batch failed for good; those behind it may have been stored.
    pub(crate) async fn finish(mut self) -> Result<Summary, ClientError> {
        while !self.batches.is_empty() {
            self.settle_first().await?;
        }
        Ok(std::mem::take(&mut self.summary))
    }

    async fn settle_first(&mut self) -> Result<(), ClientError> {
        let Some(first) = self.batches.front_mut() else { return Ok(()) };
        // Awaited in place, so that a caller who gives up waiting loses nothing.
        let acked = first.await;
        self.batches.pop_front();
        match acked.unwrap_or(Err(ClientError::Stopped)) {
            Ok(Acked { reply, rows, retries }) => {
                self.summary.retries += retries;
                let tables = BTreeSet::from([(self.namespace.clone(), self.table.clone())]);
                self.summary.add(reply, &rows, tables, &self.options);
                Ok(())
            }
            Err(error) => {
                self.stopped = true;
                self.batches.drain(..).for_each(|task| task.abort());
                Err(error)
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.batches.drain(..).for_each(|task| task.abort());
    }
}

/// Sends a batch until it is acked. Cloning a request clones references to its blocks.
async fn send(
    mut stub: Stub,
    options: Arc<Options>,
    request: IngestColumnsRequest,
    rows: Vec<u64>,
) -> Result<Acked, ClientError> {
    let mut attempts = Attempts::default();
    loop {
        let status = match stub.ingest_columns(request.clone()).await {
            Ok(reply) => return Ok(Acked { reply: reply.into_inner(), rows, retries: u64::from(attempts.failed) }),
            Err(status) => status,
        };
        attempts.wait(&options.retry, status, request.sequence).await?;
    }
}
