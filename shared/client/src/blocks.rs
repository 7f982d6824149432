//! The writer of blocks that are there already, each with an identity of its own.

use bytes::Bytes;
use proto::v1::TableDescription;

use crate::{ClientError, Options, Summary, connection::Stub, under_way::UnderWay};

/// A block and the batch that identifies its rows.
#[derive(Debug, Clone)]
pub struct IdentifiedBlock {
    /// The body, as docs/block-format.md describes it. Rows without an id are identified by the batch and by the block's
    /// batch indexes, else by their place in the block.
    pub body: Bytes,
    /// How many rows it has.
    pub rows: u64,
    /// Who sent it.
    pub producer_id: String,
    /// Its place in the producer's sequence.
    pub sequence: u64,
}

/// Writes blocks of one table as they are, each in a request of its own, several under way. What the server rejects is
/// numbered through all blocks. Dropping it gives up what is not acked.
pub struct BlocksWriter {
    under_way: UnderWay,
    rows: u64,
    request_bytes_max: usize,
    request_rows_max: usize,
}

impl BlocksWriter {
    pub(crate) fn new(stub: Stub, options: Options, namespace: &str, table: &str, limits: &TableDescription) -> Self {
        let limit = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            under_way: UnderWay::new(stub, options, namespace, table),
            rows: 0,
            request_bytes_max: limit(limits.request_bytes_max),
            request_rows_max: limit(limits.request_events_max),
        }
    }

    /// Bytes that the server takes in one request.
    #[must_use]
    pub fn request_bytes_max(&self) -> usize {
        self.request_bytes_max
    }

    /// Rows that the server takes in one request.
    #[must_use]
    pub fn request_rows_max(&self) -> usize {
        self.request_rows_max
    }

    /// Sends a block; waits where too many are under way, and not for its ack.
    ///
    /// # Errors
    /// An earlier block failed for good; the writer has stopped.
    pub async fn send(&mut self, block: IdentifiedBlock) -> Result<(), ClientError> {
        if self.under_way.is_stopped() {
            return Err(ClientError::Stopped);
        }
        self.under_way.room().await?;
        let first = self.rows;
        self.rows += block.rows;
        self.under_way.send(vec![block.body], block.producer_id, block.sequence, (first..self.rows).collect());
        Ok(())
    }

    /// What is acked so far. Acks are taken in when the writer sends, or finishes.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        self.under_way.summary()
    }

    /// Waits for every ack.
    ///
    /// # Errors
    /// A block failed for good; those behind it may have been stored.
    pub async fn finish(self) -> Result<Summary, ClientError> {
        self.under_way.finish().await
    }
}
