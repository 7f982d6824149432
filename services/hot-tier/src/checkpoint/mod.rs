//! Checkpoints: so that a restart reads the state of a partition and not its history, and the log can let go of it.
//!
//! 1. One thread of the node ([`thread`]) decides when a partition is due, asks its writer for a capture ([`seam`]), and
//!    writes it, at a bounded rate: the log syncs on the same disk. Nothing waits for it: a writer hands over a capture
//!    between two batches, when it comes by.
//! 2. Runs of ids that a state refers to are retained and made durable before its checkpoint is.
//!    Where a state keeps too much of what has left memory meanwhile, its writer takes it back ([`pace`]), though the thread
//!    may hang in a disk that never comes back: a state is lent, and copied from in passing.
//! 3. A checkpoint that fails changes nothing: the ones before stay, the log stays, it is counted and tried again.
//! 4. At the start ([`restore`]) each partition goes on from the newest checkpoint that is good, and where there is none from
//!    the log's start. Where the log does not have that any more, or a checkpoint may be good after all, the start is refused
//!    and nothing removed: what is there is the only copy.

mod horizon;
mod pace;
pub(crate) mod restore;
pub(crate) mod round;
pub(crate) mod seam;
pub(crate) mod thread;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) fn describe() {
    describe_counter!("truenow_checkpoints_total", "Checkpoints that were written.");
    describe_counter!("truenow_checkpoint_failures_total", "Checkpoints that could not be written, or not be read.");
    describe_counter!("truenow_checkpoint_bytes_total", "Bytes written for checkpoints.");
    describe_histogram!("truenow_checkpoint_seconds", Unit::Seconds, "Time to write a checkpoint.");
    describe_histogram!(
        "truenow_checkpoint_capture_seconds",
        Unit::Seconds,
        "Time that a capture takes of the writer."
    );
    describe_counter!("truenow_checkpoint_copies_total", "Checkpoints asked of other nodes, by what came of it.");
    describe_counter!("truenow_checkpoint_received_bytes_total", "Bytes of checkpoints that came from other nodes.");
    describe_counter!("truenow_checkpoint_sent_bytes_total", "Bytes of checkpoints that other nodes were sent.");
    describe_gauge!("truenow_checkpoint_next_offset", "The offset that the newest checkpoint goes on from.");
    describe_gauge!("truenow_checkpoint_age_seconds", "Age of the newest checkpoint where records came since, else 0.");
}
