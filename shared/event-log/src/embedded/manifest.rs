//! The manifest: what never changes in a log (its partitions), and its epoch, which rises at every start.
//!
//! One file of two slots of 4 KiB, each with its own checksum; a start writes the one that does not hold the newest
//! epoch. So a start needs no room on a full disk, and a write that is cut off leaves the other slot.
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNLM` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 4 | partitions |
//! | 12 | 4 | 0 |
//! | 16 | 8 | epoch |
//! | 24 | 8 | xxh3-64 of bytes 0..24 |

use std::{
    io::IoSlice,
    path::{Path, PathBuf},
};

use types::AppenderId;
use xxhash_rust::xxh3::xxh3_64;

use super::config::OpenError;
use crate::files::{FileSystem, LogFile, OpenMode, read_full_at, write_all_at};

const NAME: &str = "manifest";
const MAGIC: [u8; 4] = *b"TNLM";
const VERSION: u32 = 1;
const SLOT_BYTES: u64 = 4_096;
const CHECKED_BYTES: usize = 24;
const STORED_BYTES: usize = CHECKED_BYTES + 8;

/// What a manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) partitions: u32,
    pub(crate) epoch: u64,
}

impl Manifest {
    /// The epoch as an appender's id.
    pub(crate) const fn appender(self) -> AppenderId {
        AppenderId(self.epoch)
    }

    fn encode(self) -> [u8; STORED_BYTES] {
        let mut out = [0; STORED_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&self.partitions.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        let checksum = xxh3_64(&out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; STORED_BYTES]) -> Option<Self> {
        let intact = xxh3_64(&bytes[..CHECKED_BYTES]).to_le_bytes() == bytes[CHECKED_BYTES..];
        let ours = bytes[0..4] == MAGIC && bytes[4..8] == VERSION.to_le_bytes();
        (intact && ours).then(|| Self {
            partitions: u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")),
            epoch: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")),
        })
    }
}

/// Begins the next epoch and returns it, durable. A new log gets `partitions`.
///
/// # Errors
/// The disk failed, or the manifest of a log that `has_records` is gone or damaged.
pub(crate) fn begin_epoch(
    files: &dyn FileSystem,
    dir: &Path,
    partitions: u32,
    has_records: bool,
) -> Result<Manifest, OpenError> {
    let path = dir.join(NAME);
    let newest = match files.open(&path, OpenMode::Read) {
        Ok(file) => read(&*file, &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(OpenError::at(path)(error)),
    };
    let (mode, next) = match newest {
        Some(old) => (OpenMode::ReadWrite, Manifest { epoch: old.epoch + 1, ..old }),
        None if has_records => return Err(OpenError::Damaged { path, what: "the manifest of a log with records" }),
        None => (OpenMode::Create, Manifest { partitions, epoch: 1 }),
    };
    let write = |path: &PathBuf| {
        let file = files.open(path, mode)?;
        if mode == OpenMode::Create {
            file.allocate(2 * SLOT_BYTES)?;
        }
        write_all_at(&*file, &mut [IoSlice::new(&next.encode())], slot_of(next.epoch))?;
        file.sync_data()?;
        files.sync_dir(dir)
    };
    write(&path).map_err(OpenError::at(path))?;
    Ok(next)
}

fn read(file: &dyn LogFile, path: &Path) -> Result<Option<Manifest>, OpenError> {
    let mut slots = [None; 2];
    for (found, position) in slots.iter_mut().zip([slot_of(0), slot_of(1)]) {
        let mut slot = [0; STORED_BYTES];
        read_full_at(file, &mut slot, position).map_err(OpenError::at(path))?;
        *found = Manifest::decode(&slot);
    }
    Ok(slots.into_iter().flatten().max_by_key(|manifest| manifest.epoch))
}

fn slot_of(epoch: u64) -> u64 {
    epoch % 2 * SLOT_BYTES
}
