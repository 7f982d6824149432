//! The writer of columns: batches of blocks, several under way.

use proto::v1::TableDescription;
use tokio::time::Instant;
use types::Table;

use crate::{ClientError, Options, PushError, Row, Summary, batch::Batcher, connection::Stub, under_way::UnderWay};

/// Share of the server's limit on bytes that a batch takes at most: rows become columns by a margin, names come on top.
const REQUEST_SHARE: usize = 2;

/// Writes rows of one table as columns. Dropping it gives up what is not acked.
pub struct ColumnsWriter {
    batcher: Batcher,
    first_pending: Option<Instant>,
    under_way: UnderWay,
}

impl ColumnsWriter {
    pub(crate) fn new(stub: Stub, table: Table, description: &TableDescription, options: Options) -> Self {
        let limit = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let rows_max = options.batch_rows_max.min(limit(description.request_events_max));
        let bytes_max = options.batch_bytes_max.min(limit(description.request_bytes_max) / REQUEST_SHARE);
        let name = table.name.clone();
        let batcher = Batcher::new(table, &options.producer_id, options.sequence, rows_max, bytes_max);
        let under_way = UnderWay::new(stub, options, &name.namespace, &name.table);
        Self { batcher, first_pending: None, under_way }
    }

    /// Takes a row. Sends a batch where it is full, and waits where too many are under way.
    ///
    /// # Errors
    /// [`PushError::Row`] where the row cannot be; all else stops the writer.
    pub async fn push(&mut self, row: &Row<'_>) -> Result<(), PushError> {
        if self.under_way.is_stopped() {
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
        self.first_pending.map(|first| first + self.under_way.options().linger)
    }

    /// Sends the rows that wait; does not wait for their ack.
    ///
    /// # Errors
    /// An earlier batch failed for good; the writer has stopped.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.under_way.room().await?;
        self.first_pending = None;
        let Some(batch) = self.batcher.take() else { return Ok(()) };
        let producer_id = self.under_way.options().producer_id.clone();
        self.under_way.send(batch.blocks, producer_id, batch.sequence, batch.rows);
        Ok(())
    }

    /// What is acked so far. Acks are taken in when the writer sends, or finishes.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        self.under_way.summary()
    }

    /// Sends what waits and waits for every ack.
    ///
    /// # Errors
    /// A batch failed for good; those behind it may have been stored.
    pub async fn finish(mut self) -> Result<Summary, ClientError> {
        self.flush().await?;
        self.under_way.finish().await
    }
}
