//! Exact dedup: which rows of a block were applied before, within the table's window.
//!
//! 1. A verdict is a function of the log: of the rows, their order and the append times. How much of the past lies in
//!    memory, in filters or in runs changes what a verdict costs, never what it is.
//! 2. An identity ([`identity`]) is remembered from the row that was counted first. A duplicate refreshes nothing.
//! 3. Time is cut into slices of append time ([`window`]); an identity is in exactly one of them. Whole slices are dropped.
//! 4. A slice holds its newest ids in tables in memory, exactly ([`newest`]). Where those of all slices of a table hold too
//!    many, the largest slice's become a sorted run outside ([`IdRuns`]). From then on at the latest the slice has cuckoo filters
//!    over all of its ids ([`slice`]).
//! 5. "Not in memory, in no filter" is final. What a filter suspects is confirmed against the exact 128-bit ids.
//! 6. All that can fail comes before all that changes what is remembered: a record that fails can be applied again.

mod capture;
mod content;
mod frozen;
mod identity;
mod judge;
mod memory_run;
mod newest;
mod runs;
mod slice;
mod window;

pub(crate) use capture::DedupCapture;
pub use frozen::FrozenIds;
pub(crate) use identity::IdentityKey;
pub(crate) use judge::{Counts, Dedup, DedupScratch, Verdict};
pub use runs::{HeapRuns, IdRuns, PinnedRun, RunFault, RunId, RunSet, SetUsage};
