//! A partition's writer as the stream ingester drives it: decodes what the log gives and applies it to the engine.

use codec::{BlockError, BlockHeader, BlockKind, BodyView, ControlError, ControlRecord};
use engine::{ApplyError, Writer};
use proto::hot_tier::{NotApplied, PartitionWriter};
use tokio::sync::watch;
use types::{ApiError, Offset, PartitionId, Timestamp};

/// The engine's writer with what scans wait for.
pub(crate) struct NodeWriter {
    engine: Writer,
    recovered: watch::Sender<bool>,
    applied: watch::Sender<Offset>,
}

impl NodeWriter {
    pub(crate) fn new(engine: Writer) -> Self {
        let applied = watch::Sender::new(engine.next_offset());
        Self { engine, recovered: watch::Sender::new(false), applied }
    }

    pub(crate) fn recovered(&self) -> watch::Receiver<bool> {
        self.recovered.subscribe()
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Offset> {
        self.applied.subscribe()
    }

    /// Applies a record; where it cannot be, it may not be consumed yet.
    fn apply_record(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), RecordError> {
        match header.kind {
            BlockKind::Events => {
                // The log verified the body's checksum, which the gateway made after a full check.
                let body = BodyView::parse_trusted(body)?;
                self.engine.apply(offset, append_time, header, &body)?;
            }
            BlockKind::Control => match ControlRecord::decode(body)? {
                ControlRecord::TableConfigured(table) => self.engine.configure(offset, append_time, &table)?,
                ControlRecord::TableDropped(key) => self.engine.drop_table(offset, append_time, key)?,
            },
        }
        Ok(())
    }
}

/// Why a record could not be applied.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Body(#[from] BlockError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Engine(#[from] ApplyError),
}

impl PartitionWriter for NodeWriter {
    fn partition(&self) -> PartitionId {
        self.engine.partition()
    }

    fn next_offset(&self) -> Offset {
        self.engine.next_offset()
    }

    fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), NotApplied> {
        let applied = self.apply_record(offset, append_time, header, body);
        if let Err(error @ RecordError::Engine(ApplyError::Ids(_))) = &applied {
            return Err(NotApplied::TryAgain(ApiError::unavailable(error.to_string())));
        }
        if applied.is_err() && self.engine.next_offset() == offset {
            self.engine.pass_over(offset, append_time).expect("it is the next offset");
        }
        self.applied.send_replace(self.engine.next_offset());
        applied.map_err(|error| NotApplied::PassedOver(ApiError::internal(error.to_string())))
    }

    fn housekeep(&mut self) {
        self.engine.housekeep();
    }

    fn needed_from(&self) -> Offset {
        // Until checkpoints hold what evicted rows left behind (their horizon and count), a rebuild needs the whole log.
        Offset::ZERO
    }

    fn recovered(&mut self) {
        self.recovered.send_replace(true);
    }
}
