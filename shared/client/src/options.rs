//! How a writer makes and sends batches.

use std::time::Duration;

use crate::RetryPolicy;

/// How a writer makes and sends batches.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who sends: with the batch's sequence the identity of rows without an id. Unique among all who write to the table,
    /// and the same again when the same rows are sent again.
    pub producer_id: String,
    /// The sequence of the first batch.
    pub sequence: u64,
    /// Rows of a batch.
    pub batch_rows_max: usize,
    /// Bytes of a batch, about.
    pub batch_bytes_max: usize,
    /// How long a row may wait for company, for callers that flush by `deadline`.
    pub linger: Duration,
    /// Batches that are sent and not yet acked.
    pub batches_in_flight_max: usize,
    /// How often and how long to try.
    pub retry: RetryPolicy,
    /// Rejected rows that the summary lists; all are counted.
    pub rejects_listed_max: usize,
}

impl Options {
    /// The defaults, for a producer.
    pub fn new(producer_id: impl Into<String>) -> Self {
        Self {
            producer_id: producer_id.into(),
            sequence: 1,
            batch_rows_max: 10_000,
            batch_bytes_max: 4 << 20,
            linger: Duration::from_millis(5),
            batches_in_flight_max: 8,
            retry: RetryPolicy::default(),
            rejects_listed_max: 100,
        }
    }
}
