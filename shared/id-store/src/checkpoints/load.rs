//! Reading the pieces of a checkpoint back. Each part is checked before anybody sees it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use engine::{PieceKind, Pieces, RestoreError};
use types::PartitionId;

use super::{
    manifest::{Manifest, Part, PieceParts, part_checksum},
    names::pack_name,
    store::{CheckpointError, CheckpointFiles, io_error},
};
use crate::files::RunFile;

/// How far the reading of checkpoints is, and whether it is to end: for those who wait for it.
#[derive(Debug, Default)]
pub struct Reading {
    // Relaxed, both: a figure for people, and a flag that only has to be seen soon.
    bytes: AtomicU64,
    stopped: AtomicBool,
}

impl Reading {
    /// Bytes of pieces that were read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Ends the reading before the next part.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether the reading is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}

/// The pieces of one generation.
pub struct Loader {
    files: Arc<dyn CheckpointFiles>,
    partition: PartitionId,
    kinds: Vec<PieceKind>,
    pieces: Vec<PieceParts>,
    /// The one that was read from last. There may be more packs than a process may have files open.
    pack: Option<(u64, Arc<dyn RunFile>)>,
    buffer: Vec<u8>,
    reading: Arc<Reading>,
}

impl Loader {
    pub(super) fn new(files: Arc<dyn CheckpointFiles>, manifest: &Manifest) -> Self {
        let (partition, pieces) = (manifest.partition, manifest.pieces.clone());
        let kinds = pieces.iter().map(|piece| piece.kind).collect();
        Self { files, partition, kinds, pieces, pack: None, buffer: Vec::new(), reading: Arc::default() }
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().flat_map(|piece| &piece.parts).map(|part| part.length).sum()
    }

    /// Tells `reading` how far it is, and ends when that says so.
    #[must_use]
    pub fn watched_by(self, reading: &Arc<Reading>) -> Self {
        Self { reading: Arc::clone(reading), ..self }
    }

    /// Reads a part into the buffer.
    fn part(&mut self, part: Part) -> Result<(), CheckpointError> {
        if self.reading.is_stopped() {
            return Err(CheckpointError::Stopped);
        }
        let name = pack_name(part.pack);
        let file = match self.pack.take() {
            Some((pack, file)) if pack == part.pack => file,
            _ => self.files.open(&name).map_err(io_error("open", &name))?,
        };
        let (_, file) = self.pack.insert((part.pack, file));
        let size = file.size().map_err(io_error("look at", &name))?;
        if part.position.checked_add(part.length).is_none_or(|end| end > size) {
            return Err(CheckpointError::Damaged { name, position: part.position });
        }
        self.buffer.resize(part.length as usize, 0);
        file.read_exact_at(&mut self.buffer, part.position).map_err(io_error("read", &name))?;
        if part_checksum(self.partition, part.pack, part.position, &self.buffer) != part.checksum {
            return Err(CheckpointError::Damaged { name, position: part.position });
        }
        self.reading.bytes.fetch_add(part.length, Relaxed);
        Ok(())
    }
}

impl Pieces for Loader {
    fn kinds(&self) -> &[PieceKind] {
        &self.kinds
    }

    fn read(
        &mut self,
        piece: u32,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        for at in 0..self.pieces[piece as usize].parts.len() {
            let part = self.pieces[piece as usize].parts[at];
            self.part(part).map_err(|error| RestoreError::Source(Box::new(error)))?;
            take(&self.buffer)?;
        }
        Ok(())
    }
}
