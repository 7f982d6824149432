//! What partitions keep on local disk beside the log: sorted runs of event identities, where ids are looked up that memory
//! does not hold, and [`checkpoints`] of their state.
//!
//! 1. A run is one file, written once, in ascending order, and never changed. [`format`] describes its bytes.
//! 2. Of each run its fence keys (the high half of the first id of each page of 1 KiB) are in memory; looks go
//!    to the file where it is mapped ([`mapped`]), else each page that may hold a suspect is read once. Either way the page is
//!    copied, and none is believed before the checksum of the copy was checked, however often it was good before.
//! 3. Runs belong to sets, one per slice of append time. [`worker`] writes them beside the partition's writer, and merges
//!    those of a set ([`merge`]): few while the set grows, one when it is sealed. Until a run is written, its ids are
//!    looked up where they were.
//! 4. Runs outlive the process where checkpoints name them: [`RunKeeper`] makes them durable and keeps their files. All
//!    others are rebuilt from the log; their files are removed at the start. A run's number never comes again.
//! 5. A run that cannot be written as a whole leaves no file behind, and is tried again. A page that cannot be read or is
//!    damaged is an error: this crate never guesses.

mod checkpoints;
mod fences;
mod files;
mod format;
mod keeper;
mod mapped;
mod merge;
mod run;
mod run_file;
mod store;
mod transfer;
mod worker;

pub use checkpoints::{
    CheckpointError, CheckpointFiles, CheckpointStore, Generation, Lent, Loader, Paused, Reading, Written,
};
pub use files::{DiskFiles, NewRunFile, RunFile, RunFiles};
pub use keeper::RunKeeper;
pub use store::{IdStore, Kept, OpenError, Work};
pub use transfer::{
    Arriving, FileOf, NewestCheckpoint, Outgoing, checkpoints_dir, ids_dir, newest_offset, open_newest, remove_all,
};
