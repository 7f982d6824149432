//! The packs of one checkpoint: files that have the parts of many pieces, one after the other.

use std::{collections::BTreeMap, io::ErrorKind};

use super::{
    manifest::{Part, part_checksum},
    names::pack_name,
    store::{CheckpointError, CheckpointStore, Paused, io_error},
};
use crate::files::NewRunFile;

/// A pack that is longer gets no further part, so that a sync is short: others wait for the disk, too.
const PACK_BYTES: u64 = 32 << 20;
/// Bytes given to the file at a time, and copied of a state at a time, or one part if that is longer.
pub(super) const WRITE_BYTES: usize = 1 << 20;

/// Writes parts into packs.
pub(super) struct Packer<'a, 'p> {
    pub(super) store: &'a mut CheckpointStore,
    pause: &'a mut Paused<'p>,
    /// The pack that is being written, its number and bytes.
    open: Option<(Box<dyn NewRunFile>, u64, u64)>,
    /// Those that are written.
    pub(super) packs: BTreeMap<u64, u64>,
}

impl<'a, 'p> Packer<'a, 'p> {
    pub(super) fn new(store: &'a mut CheckpointStore, pause: &'a mut Paused<'p>) -> Self {
        Self { store, pause, open: None, packs: BTreeMap::new() }
    }

    /// Writes a part whose bytes are given, up to the item `end` of its piece.
    pub(super) fn write(&mut self, part: &[u8], end: u64) -> Result<Part, CheckpointError> {
        let room = self.store.files.room().map_err(io_error("look for room for", "a checkpoint"))?;
        if room < part.len() as u64 {
            return Err(io_error("find room for", "a checkpoint")(ErrorKind::StorageFull.into()));
        }
        if self.open.is_none() {
            let pack = self.store.next_pack;
            self.store.next_pack += 1;
            let name = pack_name(pack);
            let file = self.store.files.create(&name).map_err(io_error("create", &name))?;
            self.open = Some((file, pack, 0));
        }
        let (file, pack, bytes) = self.open.as_mut().expect("opened above");
        for some in part.chunks(WRITE_BYTES) {
            file.append(some).map_err(io_error("write", &pack_name(*pack)))?;
            if !(self.pause)(some.len()) {
                return Err(CheckpointError::Stopped);
            }
        }
        let length = part.len() as u64;
        let checksum = part_checksum(self.store.partition, *pack, *bytes, part);
        let written = Part { pack: *pack, position: *bytes, length, end, checksum };
        *bytes += length;
        if *bytes >= PACK_BYTES {
            self.end_pack()?;
        }
        Ok(written)
    }

    /// Makes the pack that is being written durable, but for its name.
    pub(super) fn end_pack(&mut self) -> Result<(), CheckpointError> {
        if let Some((file, pack, bytes)) = self.open.take() {
            file.finish().and_then(|file| file.sync()).map_err(io_error("sync", &pack_name(pack)))?;
            self.packs.insert(pack, bytes);
        }
        Ok(())
    }
}
