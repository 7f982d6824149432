//! Plans and partial results as bytes, for nodes in other processes.
//!
//! 1. [`Plan::to_bytes`] says all that a plan says, so that a node runs the very plan that the query API made: it needs no
//!    table, and what a query means is decided in one place whatever versions run. [`Partial::into_bytes`] says all that the
//!    merge and the end of a query look at; one that travelled gives the same bytes of answer, floats to the bit.
//! 2. Both begin with the version of their form. A form grows by new tags: a plan that uses none of them is understood by
//!    nodes of the version before, and one that does is refused there by what is not known, never half understood. A result has
//!    no tags but those that its plan asks for. A form that changes otherwise is first read by one release and written by the
//!    next: within an upgrade by one release each side reads what the other writes.
//! 3. Numbers of many groups or pairs stand column by column, each column in as many bytes as its greatest needs. So a
//!    partial of a million groups is copied, not parsed.
//! 4. A decoder trusts nothing: no list is made before the bytes of its items are there, so that what it allocates is
//!    a small multiple of its input ([`BYTES_PER_BYTE`]); every place, rank and count is one that the merge can take without
//!    a panic, and no text is cut inside a character.

mod bytes;
mod partial;
mod plan;
mod plan_parts;

/// The version that something begins with, which has to be one that is read here: all from 1 to `known`.
fn read_version(from: &mut Reader<'_>, known: u8) -> Result<(), WireError> {
    match from.tag()? {
        0 => Err(WireError::Invalid("there is no version 0")),
        found if found > known => Err(WireError::Version { found, known }),
        _ => Ok(()),
    }
}

pub(crate) use bytes::{Reader, Writer};
pub(crate) use partial::{read_listed, read_pairs, read_sketches, write_listed, write_pairs, write_sketches};
pub(crate) use plan_parts::{read_values, write_values};

/// What decoding allocates per byte of input, at most; besides, a HyperLogLog takes the fixed size of a sketch.
pub const BYTES_PER_BYTE: usize = 16;

/// Why bytes are not the plan or the partial result that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They end too soon.
    #[error("the bytes end too soon")]
    Truncated,
    /// Bytes are left behind it.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A later version wrote it, and used what this one does not know.
    #[error("{what} {number} is not known to this version")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// Which of that kind.
        number: u64,
    },
    /// A later version wrote it, in a form of its own.
    #[error("it is of version {found}, and this process reads up to {known}")]
    Version {
        /// The version that it says.
        found: u8,
        /// The newest that is read here.
        known: u8,
    },
    /// No encoder writes this.
    #[error("{0}")]
    Invalid(&'static str),
}
