//! Sorted runs of event identities on local disk: where a partition looks up the ids that memory does not hold.
//!
//! 1. A run is one file, written once, in ascending order, and never changed. [`format`] describes its bytes.
//! 2. Of each run its fence keys (the first id of each block of 4 KiB) are in memory; a look for sorted suspects reads each
//!    block that may hold one once, in ascending order, and checks its checksum before it is believed.
//! 3. Runs belong to one life of the process: what they say is rebuilt from the log. So nothing is synced, and files that
//!    are there at the start are removed.
//! 4. A run that cannot be written as a whole leaves no file behind. A block that cannot be read or is damaged is an
//!    error: this crate never guesses.

mod files;
mod format;
mod store;

pub use files::{DiskFiles, RunFile, RunFiles, Sink};
pub use store::{IdStore, OpenError};
