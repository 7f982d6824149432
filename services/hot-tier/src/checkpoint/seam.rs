//! Between a partition's writer and the thread that writes checkpoints.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use engine::{MemoryBudget, Writer};
use id_store::Lent;
use types::Offset;

use super::pace::{Held, Pace};

/// A partition's state, and how long it took its writer to give it.
pub struct Captured {
    /// The state. Its writer lets go of it where it keeps too much memory, whatever this one waits for.
    pub state: Arc<Lent>,
    pub(crate) took: Duration,
    /// Tells what its memory is from what readers hold.
    pub(crate) held: Arc<Held>,
}

/// What writer and thread share. The lock is the writer's alone. All atomics are Relaxed: each says one thing, and the state itself goes by the channel.
#[derive(Debug)]
pub(crate) struct Seam {
    wanted: AtomicBool,
    /// Bytes of records since the last capture.
    log_bytes: AtomicU64,
    /// Where the older of two checkpoints goes on.
    needed_from: AtomicU64,
    captures: Sender<Captured>,
    /// The state that was given last, while anybody has it, and what it holds.
    lent: Mutex<(Weak<Lent>, Arc<Held>)>,
}

impl Seam {
    /// A seam, and where captures come out of it.
    pub(crate) fn new(needed_from: Offset) -> (Self, Receiver<Captured>) {
        // One: the thread asks for the next when it has taken the last.
        let (captures, captured) = bounded(1);
        let needed_from = AtomicU64::new(needed_from.0);
        let (wanted, log_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let seam = Self { wanted, log_bytes, needed_from, captures, lent: Mutex::default() };
        (seam, captured)
    }

    /// The thread wants a capture, or none any more.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Bytes of records since the last capture.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Relaxed)
    }

    /// The log may go before this offset.
    pub(crate) fn set_needed_from(&self, offset: Offset) {
        self.needed_from.store(offset.0, Relaxed);
    }

    pub(crate) fn needed_from(&self) -> Offset {
        Offset(self.needed_from.load(Relaxed))
    }

    /// The writer has applied a record of so many bytes.
    pub(crate) fn note_applied(&self, bytes: usize) {
        self.log_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The writer comes by between two records.
    pub(crate) fn offer(&self, engine: &Writer) {
        self.look_after_lent(engine.budget());
        if !self.wanted.swap(false, Relaxed) {
            return;
        }
        let started = Instant::now();
        let held = Arc::new(Held::since(engine.budget()));
        let state = Arc::new(Lent::new(engine.capture()));
        self.log_bytes.store(0, Relaxed);
        *self.lent.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::downgrade(&state), Arc::clone(&held));
        // Full: the thread has not taken the last one yet, and asks again.
        let _ = self.captures.try_send(Captured { state, took: started.elapsed(), held });
    }

    /// Counts what the state keeps that was given last, and takes it back where that is too much: the writer who makes rows
    /// leave is there to do so, the thread that writes them may wait for a disk that never comes back.
    fn look_after_lent(&self, budget: &MemoryBudget) {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = lent.0.upgrade() else { return };
        state.account();
        if Pace::of(budget, &lent.1) == Pace::GiveUp {
            // Busy: the thread copies, and the next time comes soon.
            let _ = state.let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{Limits, MemoryBudget, partition};
    use types::{GapReason, LogGap, PartitionId, Timestamp};

    use super::*;

    /// Goal: a writer gives one capture for each time that one is wanted, of the state of that moment, and never waits for
    /// the one before to be taken; what the log needs is what the thread said last.
    #[test]
    fn captures_are_given_when_they_are_wanted() {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let (mut engine, _) = partition(PartitionId(0), Offset::ZERO, Limits::default(), budget);
        let (seam, captures) = Seam::new(Offset(3));
        seam.note_applied(100);
        seam.note_applied(20);
        seam.offer(&engine);
        assert!(captures.is_empty(), "none was wanted");
        for _ in 0..2 {
            seam.want(true);
            seam.offer(&engine);
            seam.offer(&engine);
            let first = engine.next_offset();
            let gap = LogGap { first, end: first.next(), table: None, times: None, reason: GapReason::Gone };
            engine.pass_over(gap, Timestamp(0)).unwrap();
        }
        assert_eq!((captures.len(), seam.log_bytes()), (1, 0));
        assert_eq!(captures.recv().unwrap().state.next_offset(), Offset::ZERO);
        assert_eq!(seam.needed_from(), Offset(3));
        seam.set_needed_from(Offset(9));
        assert_eq!(seam.needed_from(), Offset(9));
    }
}
