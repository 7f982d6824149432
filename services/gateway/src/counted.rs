//! What the way in counts. Handles are made once: for a request of one event, looking them up costs as much as reading it.

use std::time::Duration;

use codec::Reject;
use metrics::{Counter, Histogram};
use types::ErrorCode;

/// The handles.
pub(crate) struct Counted {
    bytes: Counter,
    accepted: Counter,
    rejected: Counter,
    append: Histogram,
}

impl Counted {
    /// The handles of this process's recorder, which is there before the gateway is.
    pub(crate) fn new() -> Self {
        Self {
            bytes: metrics::counter!("truenow_ingest_bytes_total"),
            accepted: metrics::counter!("truenow_ingest_events_total", "result" => "accepted"),
            rejected: metrics::counter!("truenow_ingest_events_total", "result" => "rejected"),
            append: metrics::histogram!("truenow_append_seconds"),
        }
    }

    /// Bytes of events arrived.
    pub(crate) fn arrived(&self, bytes: usize) {
        self.bytes.increment(bytes as u64);
    }

    /// Events are durable.
    pub(crate) fn accepted(&self, events: u64) {
        self.accepted.increment(events);
    }

    /// Events were rejected.
    pub(crate) fn rejected(&self, rejects: &[Reject]) {
        if rejects.is_empty() {
            return;
        }
        self.rejected.increment(rejects.len() as u64);
        for code in [ErrorCode::InvalidArgument, ErrorCode::NotFound, ErrorCode::TooLarge, ErrorCode::PermissionDenied]
        {
            let of_code = rejects.iter().filter(|reject| reject.code == code).count();
            if of_code > 0 {
                metrics::counter!("truenow_ingest_rejected_total", "code" => code.name()).increment(of_code as u64);
            }
        }
    }

    /// The log took so long.
    pub(crate) fn appended(&self, took: Duration) {
        self.append.record(took);
    }
}
