//! The manifest: what never changes in a log (its identity, its partitions, its key), and its epoch, which rises at every
//! start.
//!
//! One file of two slots of 4 KiB, each with its own checksum; a start writes the one that does not hold the newest
//! epoch. So a start needs no room on a full disk, and a write that is cut off leaves the other slot.
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNLM` |
//! | 4 | 4 | format version, 3 |
//! | 8 | 4 | partitions |
//! | 12 | 4 | 0 |
//! | 16 | 8 | epoch |
//! | 24 | 8 | the key that the checksums of heads are seeded with |
//! | 32 | 16 | identity |
//! | 48 | 8 | xxh3-64 of bytes 0..48 |
//!
//! A log of version 2 had no identity, and the checksum in its place; it gets one at its next start. One of version 1 had no
//! key; it is refused by name.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use types::{AppenderId, LogIdentity};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    config::{EmbeddedConfig, OpenError},
    frame::FrameKey,
};
use crate::files::{FileSystem, LogFile, OpenMode, read_full_at, write_all_at};

const NAME: &str = "manifest";
const MAGIC: [u8; 4] = *b"TNLM";
const VERSION: u32 = 3;
const SLOT_BYTES: u64 = 4_096;
const CHECKED_BYTES: usize = 48;
const STORED_BYTES: usize = CHECKED_BYTES + 8;
/// The version before, which is read too.
const VERSION_2: u32 = 2;
const CHECKED_BYTES_2: usize = 32;
/// What a log of [`VERSION_2`] has.
const NO_IDENTITY: LogIdentity = LogIdentity(0);

/// What a manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) partitions: u32,
    pub(crate) epoch: u64,
    pub(crate) frame_key: FrameKey,
    pub(crate) identity: LogIdentity,
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
        out[24..32].copy_from_slice(&self.frame_key.0.to_le_bytes());
        out[32..48].copy_from_slice(&self.identity.0.to_le_bytes());
        let checksum = xxh3_64(&out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; STORED_BYTES]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let checked = match half(4) {
            VERSION => CHECKED_BYTES,
            VERSION_2 => CHECKED_BYTES_2,
            _ => return None,
        };
        let intact = bytes[0..4] == MAGIC && xxh3_64(&bytes[..checked]) == word(checked);
        let identity = match checked {
            CHECKED_BYTES => LogIdentity(u128::from_le_bytes(bytes[32..48].try_into().expect("sixteen bytes"))),
            _ => NO_IDENTITY,
        };
        intact.then(|| Self { partitions: half(8), epoch: word(16), frame_key: FrameKey(word(24)), identity })
    }
}

/// Begins the next epoch and returns it, durable. A new log gets its partitions, its key and its identity from `config`.
///
/// # Errors
/// The disk failed, no random number can be had, or the manifest of a log that `has_records` is gone, damaged or of another
/// version.
pub(crate) fn begin_epoch(
    files: &dyn FileSystem,
    config: &EmbeddedConfig,
    has_records: bool,
) -> Result<Manifest, OpenError> {
    let dir = config.dir.as_path();
    let path = dir.join(NAME);
    let newest = match files.open(&path, OpenMode::Read) {
        Ok(file) => read(&*file, &path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(OpenError::at(path)(error)),
    };
    let drawn = |error: getrandom::Error| OpenError::at(&path)(io::Error::other(error));
    let identity = || config.identity.map_or_else(draw_identity, Ok).map_err(drawn);
    let is_version_2 = newest.is_some_and(|old| old.identity == NO_IDENTITY);
    let (mode, next) = match newest {
        Some(old) => {
            let identity = if is_version_2 { identity()? } else { old.identity };
            (OpenMode::ReadWrite, Manifest { epoch: old.epoch + 1, identity, ..old })
        }
        None if has_records => return Err(OpenError::Damaged { path, what: "the manifest of a log with records" }),
        None => {
            let frame_key = FrameKey(config.frame_key.map_or_else(getrandom::u64, Ok).map_err(drawn)?);
            let partitions = config.partitions;
            (OpenMode::Create, Manifest { partitions, epoch: 1, frame_key, identity: identity()? })
        }
    };
    let write = |path: &PathBuf| {
        let file = files.open(path, mode)?;
        if mode == OpenMode::Create {
            file.allocate(2 * SLOT_BYTES)?;
        }
        let write = |position| {
            write_all_at(&*file, &mut [IoSlice::new(&next.encode())], position)?;
            file.sync_data()
        };
        write(slot_of(next.epoch))?;
        if is_version_2 {
            // The program before would go on from the other slot, with an epoch that was there already.
            write(slot_of(next.epoch + 1))?;
        }
        files.sync_dir(dir)
    };
    write(&path).map_err(OpenError::at(path))?;
    Ok(next)
}

fn read(file: &dyn LogFile, path: &Path) -> Result<Option<Manifest>, OpenError> {
    let (mut slots, mut other) = ([None; 2], None);
    for (found, position) in slots.iter_mut().zip([slot_of(0), slot_of(1)]) {
        let mut slot = [0; STORED_BYTES];
        read_full_at(file, &mut slot, position).map_err(OpenError::at(path))?;
        *found = Manifest::decode(&slot);
        other = other.or(version_of(&slot).filter(|version| ![VERSION, VERSION_2].contains(version)));
    }
    let newest = slots.into_iter().flatten().max_by_key(|manifest| manifest.epoch);
    match (newest, other) {
        // What stands beside a good slot is a damaged one, not another version's.
        (None, Some(found)) => Err(OpenError::Version { path: path.to_owned(), found, read: VERSION }),
        (newest, _) => Ok(newest),
    }
}

/// The version of a slot that holds anything of ours; damaged or not, for versions differ in what they check. There is no
/// version 0: that is a slot whose first write ended behind the magic.
fn version_of(slot: &[u8; STORED_BYTES]) -> Option<u32> {
    let version = u32::from_le_bytes(slot[4..8].try_into().expect("four bytes"));
    (slot[0..4] == MAGIC && version != 0).then_some(version)
}

fn draw_identity() -> Result<LogIdentity, getrandom::Error> {
    let mut bytes = [0; size_of::<u128>()];
    getrandom::fill(&mut bytes)?;
    Ok(LogIdentity(u128::from_le_bytes(bytes)))
}

fn slot_of(epoch: u64) -> u64 {
    epoch % 2 * SLOT_BYTES
}
