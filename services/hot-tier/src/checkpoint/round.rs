//! One checkpoint of a partition: from the capture to what the log may let go of. Who decides when, and on which thread,
//! is another's.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, never, select};
use engine::RunFault;
use id_store::{CheckpointError, CheckpointStore, Generation, Paused, RunKeeper, Written};
use types::Offset;

use super::seam::{Captured, Seam};

/// Why a state was not written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// Runs of ids that it refers to could not be made durable.
    #[error(transparent)]
    Ids(#[from] RunFault),
    /// See [`CheckpointError`].
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A partition's checkpoints, for whoever writes them.
pub struct Rounds {
    seam: Arc<Seam>,
    captures: Receiver<Captured>,
    store: CheckpointStore,
    keeper: RunKeeper,
}

impl Rounds {
    pub(crate) fn new(
        (seam, captures): (Arc<Seam>, Receiver<Captured>),
        store: CheckpointStore,
        keeper: RunKeeper,
    ) -> Self {
        Self { seam, captures, store, keeper }
    }

    /// Asks the writer for a capture, which it gives when it does its housekeeping next.
    pub fn ask(&self) {
        self.drop_late();
        self.seam.want(true);
    }

    #[cfg(test)]
    pub(crate) fn seam(&self) -> &Seam {
        &self.seam
    }

    /// Lets go of a capture that came when it was not waited for any more: it keeps memory, and is of another time.
    pub(crate) fn drop_late(&self) {
        while self.captures.try_recv().is_ok() {}
    }

    /// The capture that was asked for, if it is there; else none is wanted any more.
    #[must_use]
    pub fn take(&self) -> Option<Captured> {
        self.take_within(Duration::ZERO, &never())
    }

    /// The capture that was asked for, once it is there; none is wanted any more after `wait`, or where `stopped` ends.
    pub(crate) fn take_within(&self, wait: Duration, stopped: &Receiver<()>) -> Option<Captured> {
        let captured = select! {
            recv(self.captures) -> captured => captured.ok(),
            recv(stopped) -> _ => None,
            default(wait) => None,
        };
        self.seam.want(false);
        captured
    }

    /// Makes a capture the newest checkpoint, durable, and lets the log go of what none needs.
    ///
    /// # Errors
    /// The checkpoints that are there stay as they were, and so does the log.
    pub fn write(&mut self, captured: &Captured, pause: &mut Paused<'_>) -> Result<Written, NotWritten> {
        let generation = self.store.next_generation();
        let runs: Vec<_> = captured.capture.runs().collect();
        // Before the capture ends, which has kept them so far.
        self.keeper.retain(generation, runs.clone())?;
        let written = match self.keeper.sync(&runs) {
            Ok(()) => self.store.write(&captured.capture, pause).map_err(NotWritten::from),
            Err(fault) => Err(fault.into()),
        };
        let over = match &written {
            Ok(written) => written.dropped,
            Err(_) => Some(generation),
        };
        if let Some(over) = over {
            self.keeper.release(over);
        }
        if written.is_ok() {
            self.seam.set_needed_from(self.store.needed_from());
        }
        written
    }

    /// The checkpoints that are there, oldest first; at most two.
    #[must_use]
    pub fn generations(&self) -> Vec<Generation> {
        self.store.generations()
    }

    /// The least offset that the log is still needed from.
    pub(crate) fn needed_from(&self) -> Offset {
        self.store.needed_from()
    }

    /// Bytes of records since the last capture.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.seam.log_bytes()
    }
}
