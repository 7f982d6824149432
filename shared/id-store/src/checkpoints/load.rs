//! Reading the pieces of a checkpoint back. Each part is checked before anybody sees it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use engine::{PieceKind, Pieces, RestoreError};
use types::PartitionId;

use super::{
    manifest::{Manifest, Part, PieceParts, part_checksum},
    packer::pack_name,
    store::{CheckpointError, CheckpointFiles, io_error},
};
use crate::files::RunFile;

/// The pieces of one generation.
pub struct Loader {
    files: Arc<dyn CheckpointFiles>,
    partition: PartitionId,
    kinds: Vec<PieceKind>,
    pieces: Vec<PieceParts>,
    /// The one that was read from last. There may be more packs than a process may have files open.
    pack: Option<(u64, Arc<dyn RunFile>)>,
    buffer: Vec<u8>,
    /// Bytes that were read.
    read: Arc<AtomicU64>,
}

impl Loader {
    pub(super) fn new(files: Arc<dyn CheckpointFiles>, manifest: &Manifest) -> Self {
        let (partition, pieces) = (manifest.partition, manifest.pieces.clone());
        let kinds = pieces.iter().map(|piece| piece.kind).collect();
        Self { files, partition, kinds, pieces, pack: None, buffer: Vec::new(), read: Arc::default() }
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().flat_map(|piece| &piece.parts).map(|part| part.length).sum()
    }

    /// Counts the bytes that it reads in `read`.
    #[must_use]
    pub fn counting(self, read: &Arc<AtomicU64>) -> Self {
        Self { read: Arc::clone(read), ..self }
    }

    /// Reads a part into the buffer.
    fn part(&mut self, part: Part) -> Result<(), CheckpointError> {
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
        // Relaxed: a figure for people.
        self.read.fetch_add(part.length, Relaxed);
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
