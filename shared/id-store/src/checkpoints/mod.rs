//! Checkpoints of a partition on local disk: so that a restart reads the state and not the history.
//!
//! 1. A checkpoint is a *manifest* that names the parts of all pieces of a partition's state ([`engine::Capture`]). Parts
//!    lie in *packs*, one after the other, written once and never changed. A part that is still good is named again by later
//!    manifests, so rows are written about once, whenever they are checkpointed.
//! 2. A pack of which less than half is still named is given up: what is left of it is written again, from memory. So are
//!    small packs where there are many.
//! 3. Order of writing: packs and the manifest under a temporary name, synced; their names, synced; the manifest under its
//!    name, synced. So a manifest that is there is whole, unless the disk lost what it had synced.
//! 4. Two generations stay. Only when a third is there the first goes: its manifest, then the packs that no manifest names.
//! 5. Nothing is believed: a manifest and each part carry a checksum, seeded by where they lie, so that what stands at
//!    another place than it was written to is noticed. What is damaged is reported by name; the older generation helps as far as it
//!    does not name the same parts. What cannot be read now, or is of another version, is not taken for damaged.
//! 6. What fails leaves the generations that are there as they were; those that were no good at the start, too, up to the
//!    moment when a new manifest gets its name: they go right before, durably, or a later start would take them for the older
//!    of the two, and the log be let go of for them. Names of files that were begun are not used again.

mod copy;
mod lent;
mod load;
mod manifest;
mod names;
mod packer;
mod plan;
mod store;
#[cfg(test)]
mod tests;

pub use lent::Lent;
pub use load::{Loader, Reading};
pub(crate) use names::is_checkpoint_file;
pub use store::{CheckpointError, CheckpointFiles, CheckpointStore, Generation, Paused, Written};
