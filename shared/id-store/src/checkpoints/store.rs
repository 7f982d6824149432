//! The checkpoints of one partition: opening, writing, letting go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    io::{self, ErrorKind},
    sync::Arc,
};

use engine::{Piece, PieceName, RunId};
use types::{LogIdentity, Offset, PartitionId};

use super::{
    copy::{PlannedPiece, write_planned},
    lent::Lent,
    load::Loader,
    manifest::{Manifest, NoManifest, Part},
    names::{manifest_name, number_of, pack_name},
    packer::Packer,
    plan::steps,
};
use crate::files::{DiskFiles, RunFiles};

/// A shorter pack is small: with more of these than [`SMALL_PACKS_MAX`] they are given up together, for a longer one.
const SMALL_PACK_BYTES: u64 = 8 << 20;
const SMALL_PACKS_MAX: usize = 16;
/// Generations that stay.
const GENERATIONS: usize = 2;
/// This share of the file system is left free, at most so many bytes: acks wait for the log, and nothing for a checkpoint.
const KEPT_FREE_SHARE: u64 = 20;
const KEPT_FREE_BYTES_MAX: u64 = 1 << 30;

/// A directory of files that can be renamed.
pub trait CheckpointFiles: RunFiles {
    /// Renames a file, over one of the new name.
    ///
    /// # Errors
    /// As the system has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Bytes that checkpoints may still take here: not the last ones, which are for whatever cannot wait.
    ///
    /// # Errors
    /// As the system has it.
    fn room(&self) -> io::Result<u64>;
}

impl CheckpointFiles for DiskFiles {
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn room(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(self.path(""))?;
        Ok(room_of(system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize))
    }
}

/// What checkpoints may take of a file system of `size` bytes with `free` ones.
fn room_of(size: u64, free: u64) -> u64 {
    free.saturating_sub((size / KEPT_FREE_SHARE).min(KEPT_FREE_BYTES_MAX))
}

/// Why a checkpoint cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system has it so.
    #[error("{what} {name}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{name} is damaged at byte {position}")]
    Damaged {
        /// The file.
        name: String,
        /// Where the part begins.
        position: u64,
    },
    /// It is whole, and made by another version.
    #[error("{name} is of another version of checkpoints")]
    Version {
        /// The file.
        name: String,
    },
    /// It is whole, and of the offsets of another log.
    #[error("{name} was made of log {of}, and the log here is {log}")]
    OtherLog {
        /// The file.
        name: String,
        /// The log that it was made of.
        of: LogIdentity,
        /// The log that it was to be used with.
        log: LogIdentity,
    },
    /// Whoever paces the writing, or waits for the reading, wants it to end, or the state was let go of.
    #[error("it was stopped")]
    Stopped,
}

impl CheckpointError {
    /// Whether what could not be used may be good for a later start or another version, other than what is lost.
    #[must_use]
    pub fn may_be_good(&self) -> bool {
        match self {
            Self::Io { source, .. } => !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof),
            Self::Version { .. } | Self::OtherLog { .. } => true,
            Self::Damaged { .. } | Self::Stopped => false,
        }
    }
}

/// For `map_err`: what was tried with which file.
pub(super) fn io_error(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> CheckpointError {
    let name = name.to_owned();
    move |source| CheckpointError::Io { what, name, source }
}

/// Called after each so many bytes that were written; it may take its time. `false`: the writing is to stop.
pub type Paused<'a> = dyn FnMut(usize) -> bool + 'a;

/// A checkpoint that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Rises from one checkpoint to the next.
    pub number: u64,
    /// The offset of the record that comes after the state.
    pub next_offset: Offset,
    /// The runs of ids that the state refers to.
    pub runs: Vec<RunId>,
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The new one.
    pub generation: u64,
    /// Bytes that were written for it.
    pub bytes: u64,
    /// The generation that is no longer there, if it was the turn of one.
    pub dropped: Option<u64>,
}

/// The checkpoints of a partition, in a directory of its own.
pub struct CheckpointStore {
    pub(super) files: Arc<dyn CheckpointFiles>,
    pub(super) partition: PartitionId,
    /// The log that states are made of.
    log: LogIdentity,
    /// Ascending by generation.
    retained: Vec<Manifest>,
    /// The parts of pieces of this life.
    known: HashMap<PieceName, Vec<Part>>,
    /// Bytes of the packs that retained manifests name.
    packs: BTreeMap<u64, u64>,
    next_generation: u64,
    pub(super) next_pack: u64,
    /// Whether every manifest that is there was read.
    all_read: bool,
    /// Why one was not that may be good.
    unread: Option<CheckpointError>,
}

impl fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointStore").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// A checkpoint that is durable: its manifest, the parts of pieces by their names, and bytes of the packs written for it.
struct Made {
    manifest: Manifest,
    known: HashMap<PieceName, Vec<Part>>,
    packs: BTreeMap<u64, u64>,
}

impl CheckpointStore {
    /// The checkpoints in a directory, of the partition of a log. One whose manifest is damaged is reported and passed over.
    ///
    /// # Errors
    /// The directory cannot be read, or has a checkpoint of another log: no offset of it means anything here. One that was
    /// made before checkpoints said so is taken for one of this log.
    pub fn open(
        files: Arc<dyn CheckpointFiles>,
        partition: PartitionId,
        log: LogIdentity,
    ) -> Result<Self, CheckpointError> {
        let names = files.list().map_err(io_error("list", "the directory of checkpoints"))?;
        let number = |suffix: &str| names.iter().filter_map(|name| number_of(name, suffix)).collect::<BTreeSet<_>>();
        let (generations, packs) = (number(".checkpoint"), number(".pack"));
        let after = |numbers: &BTreeSet<u64>| numbers.last().map_or(0, |last| last.saturating_add(1));
        let mut store = Self {
            files,
            partition,
            log,
            retained: Vec::new(),
            known: HashMap::new(),
            packs: BTreeMap::new(),
            next_generation: after(&generations),
            next_pack: after(&packs),
            all_read: true,
            unread: None,
        };
        for generation in generations.into_iter().rev() {
            match store.read_manifest(generation) {
                // More than two where old ones could not be removed; of those some may be no good.
                Ok(manifest) => store.retained.insert(0, manifest),
                Err(error @ CheckpointError::OtherLog { .. }) => return Err(error),
                Err(error) => {
                    store.all_read = false;
                    let partition = partition.0;
                    tracing::error!(partition, error = &error as &dyn std::error::Error, "a checkpoint cannot be used");
                    if error.may_be_good() {
                        store.unread = Some(error);
                    }
                }
            }
        }
        Ok(store)
    }

    fn read_manifest(&self, generation: u64) -> Result<Manifest, CheckpointError> {
        let name = manifest_name(generation);
        let bytes = self.files.open(&name).and_then(|file| {
            let mut bytes = vec![0; file.size()? as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        });
        let bytes = bytes.map_err(io_error("read", &name))?;
        match Manifest::decode(&bytes, self.partition, generation) {
            Ok(Manifest { log: Some(of), .. }) if of != self.log => {
                Err(CheckpointError::OtherLog { name, of, log: self.log })
            }
            Ok(manifest) => Ok(manifest),
            Err(NoManifest::Version) => Err(CheckpointError::Version { name }),
            Err(NoManifest::Damaged) => Err(CheckpointError::Damaged { name, position: 0 }),
        }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The checkpoints that are there, oldest first; at most two once one was written or gone on from.
    #[must_use]
    pub fn generations(&self) -> Vec<Generation> {
        let generation = |manifest: &Manifest| Generation {
            number: manifest.generation,
            next_offset: manifest.next_offset,
            runs: manifest.runs.clone(),
        };
        self.retained.iter().map(generation).collect()
    }

    /// The newest checkpoint, and the names of its files, the manifest last.
    #[must_use]
    pub fn newest_files(&self) -> Option<(Generation, Vec<String>)> {
        let (newest, manifest) = (self.generations().pop()?, self.retained.last()?);
        let packs: BTreeSet<u64> = manifest.parts().map(|part| part.pack).collect();
        let names = packs.into_iter().map(pack_name).chain([manifest_name(manifest.generation)]);
        Some((newest, names.collect()))
    }

    /// The least offset that the log is still needed from: where the older of two generations goes on. With fewer than two
    /// the log may have to do without any, from its start.
    #[must_use]
    pub fn needed_from(&self) -> Offset {
        match self.retained.as_slice() {
            [oldest, _, ..] => oldest.next_offset,
            _ => Offset::ZERO,
        }
    }

    /// Whether every manifest that is there was read, so that what none of them names is named by none.
    #[must_use]
    pub fn all_read(&self) -> bool {
        self.all_read
    }

    /// The pieces of a generation, to be restored from; `None` where there is none.
    #[must_use]
    pub fn loader(&self, generation: u64) -> Option<Loader> {
        let manifest = self.retained.iter().find(|manifest| manifest.generation == generation)?;
        Some(Loader::new(Arc::clone(&self.files), manifest))
    }

    /// Goes on from a generation that was restored: its pieces have `names` now. Newer ones were no good, and go before the
    /// next checkpoint is there.
    pub fn resume(&mut self, generation: u64, names: &[(u32, PieceName)]) {
        self.retained.retain(|manifest| manifest.generation <= generation);
        self.retained.drain(..self.retained.len().saturating_sub(GENERATIONS));
        let Some(manifest) = self.retained.last().filter(|manifest| manifest.generation == generation) else { return };
        let parts = |piece: &u32| manifest.pieces[*piece as usize].parts.clone();
        self.known = names.iter().map(|(piece, name)| (*name, parts(piece))).collect();
        for part in self.retained.iter().flat_map(Manifest::parts) {
            let bytes = self.packs.entry(part.pack).or_default();
            *bytes = (*bytes).max(part.position + part.length);
        }
    }

    /// Whether a checkpoint was ever begun here, whatever became of it.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.next_generation > 0 || self.next_pack > 0
    }

    /// Goes on without any of the generations that are there: none was any good. They go with the next checkpoint that is
    /// written.
    ///
    /// # Errors
    /// One of them was not read, as the system has it or for its version, and may be good.
    pub fn start_over(&mut self) -> Result<(), CheckpointError> {
        self.retained.clear();
        self.unread.take().map_or(Ok(()), Err)
    }

    /// The number that the next checkpoint has.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.next_generation
    }

    /// Writes a checkpoint; when this returns it is durable. The runs that it refers to are durable already.
    ///
    /// # Errors
    /// See [`CheckpointError`]. The generations that are there stay as they were.
    pub fn write(&mut self, state: &Lent, pause: &mut Paused<'_>) -> Result<Written, CheckpointError> {
        let (generation, pack) = (self.next_generation, self.next_pack);
        self.next_generation += 1;
        let written = self.write_generation(generation, state, pause).map(|Made { manifest, known, packs }| {
            let bytes = packs.values().sum();
            self.retained.push(manifest);
            self.known = known;
            self.packs.extend(packs);
            let over = self.retained.len() > GENERATIONS;
            let dropped = over.then(|| self.retained.remove(0).generation);
            Written { generation, bytes, dropped }
        });
        // What there is of one that failed goes, as it takes room that may be the very thing that is lacking; all that was
        // there before goes for one that succeeded alone.
        let swept = if written.is_ok() { self.sweep(0, 0) } else { self.sweep(generation, pack) };
        if let Err(error) = swept {
            tracing::warn!(partition = self.partition.0, %error, "old files of checkpoints cannot be removed");
        }
        written
    }

    fn write_generation(
        &mut self,
        generation: u64,
        state: &Lent,
        pause: &mut Paused<'_>,
    ) -> Result<Made, CheckpointError> {
        let planned = state.look(|capture| self.planned(&capture.pieces()))?;
        let mut packer = Packer::new(self, pause);
        let pieces = write_planned(&planned, state, &mut packer)?;
        let packs = packer.packs;
        let known =
            planned.iter().zip(&pieces).filter_map(|(piece, written)| Some((piece.name?, written.parts.clone())));
        let known = known.collect();
        let (partition, next_offset, runs) = (self.partition, state.next_offset(), state.runs().to_vec());
        let manifest = Manifest { partition, generation, next_offset, log: Some(self.log), runs, pieces };
        self.write_manifest(&manifest)?;
        Ok(Made { manifest, known, packs })
    }

    /// What becomes of the items of each piece.
    fn planned(&self, pieces: &[Piece<'_>]) -> Vec<PlannedPiece> {
        let given_up = self.given_up(pieces);
        let is_good = |part: &Part| !given_up.contains(&part.pack);
        let plan = |piece: &Piece<'_>| {
            let known = piece.name().and_then(|name| self.known.get(&name)).map_or(&[][..], Vec::as_slice);
            PlannedPiece::of(piece, steps(known, piece.items(), piece.item_bytes(), is_good))
        };
        pieces.iter().map(plan).collect()
    }

    /// Removes, durably, the manifests between the newest that is retained and the one to come: they were no good, or their
    /// writing failed late. A later start holds the two newest for what the log may rely on, and must not find one of these
    /// beside the new one, however the power goes.
    fn remove_given_up(&self, generation: u64) -> Result<(), CheckpointError> {
        let from = self.retained.last().map_or(0, |newest| newest.generation + 1);
        let names = self.files.list().map_err(io_error("list", "the directory of checkpoints"))?;
        let is_given_up =
            |name: &&String| number_of(name, ".checkpoint").is_some_and(|number| (from..generation).contains(&number));
        let given_up: Vec<_> = names.iter().filter(is_given_up).collect();
        given_up.iter().try_for_each(|name| self.files.remove(name).map_err(io_error("remove", name)))?;
        if given_up.is_empty() {
            return Ok(());
        }
        self.files.sync_names().map_err(io_error("sync names of removed", "checkpoints"))
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let name = manifest_name(manifest.generation);
        let new_name = format!("{name}.new");
        let written = self.files.create(&new_name).and_then(|mut file| {
            file.append(&manifest.encode())?;
            file.finish()?.sync()
        });
        written.map_err(io_error("write", &new_name))?;
        // The names of the packs before that of what names them.
        self.files.sync_names().map_err(io_error("sync names before", &name))?;
        self.remove_given_up(manifest.generation)?;
        self.files.rename(&new_name, &name).map_err(io_error("rename", &name))?;
        self.files.sync_names().map_err(io_error("sync names after", &name))
    }

    /// Packs of which less than half is still good, and the small ones where there are many.
    fn given_up(&self, pieces: &[Piece<'_>]) -> BTreeSet<u64> {
        let mut good: BTreeMap<u64, u64> = BTreeMap::new();
        let parts = pieces.iter().filter_map(|piece| self.known.get(&piece.name()?)).flatten();
        parts.for_each(|part| *good.entry(part.pack).or_default() += part.length);
        let all = |pack: &u64| self.packs.get(pack).copied();
        let (little, most): (BTreeMap<u64, u64>, BTreeMap<u64, u64>) =
            good.into_iter().partition(|(pack, bytes)| all(pack).is_some_and(|all| bytes * 2 < all));
        let small: Vec<u64> =
            most.into_keys().filter(|pack| all(pack).is_some_and(|all| all < SMALL_PACK_BYTES)).collect();
        let merged = if small.len() > SMALL_PACKS_MAX { small } else { Vec::new() };
        little.into_keys().chain(merged).collect()
    }

    /// Removes the files that no retained manifest needs, of these numbers and greater ones.
    fn sweep(&mut self, from_generation: u64, from_pack: u64) -> io::Result<()> {
        let packs: BTreeSet<u64> = self.retained.iter().flat_map(Manifest::parts).map(|part| part.pack).collect();
        let manifests: BTreeSet<u64> = self.retained.iter().map(|manifest| manifest.generation).collect();
        self.packs.retain(|pack, _| packs.contains(pack));
        let (mut of_manifests, mut of_packs) = (Vec::new(), Vec::new());
        for name in self.files.list()? {
            let generation = number_of(&name, ".checkpoint").filter(|generation| !manifests.contains(generation));
            let begun = number_of(&name, ".checkpoint.new");
            if number_of(&name, ".pack").is_some_and(|pack| pack >= from_pack && !packs.contains(&pack)) {
                of_packs.push(name);
            } else if generation.or(begun).is_some_and(|generation| generation >= from_generation) {
                of_manifests.push(name);
            }
        }
        if !of_manifests.is_empty() {
            of_manifests.iter().try_for_each(|name| self.files.remove(name))?;
            // A manifest that came back must find its packs.
            self.files.sync_names()?;
        }
        of_packs.iter().try_for_each(|name| self.files.remove(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a checkpoint of another log is refused with both names, beside good ones, too, and nothing is removed; one that
    /// was made before checkpoints said so is read.
    #[test]
    fn a_checkpoint_of_another_log_is_refused() {
        let (partition, log, other) = (PartitionId(2), LogIdentity(7), LogIdentity(9));
        let manifest = |generation, log| {
            let (next_offset, runs, pieces) = (Offset(generation), Vec::new(), Vec::new());
            Manifest { partition, generation, next_offset, log, runs, pieces }.encode()
        };
        let dir = tempfile::tempdir().unwrap();
        let open = || CheckpointStore::open(Arc::new(DiskFiles::open(dir.path()).unwrap()), partition, log);
        fs::write(dir.path().join(manifest_name(1)), manifest(1, None)).unwrap();
        fs::write(dir.path().join(manifest_name(3)), manifest(3, Some(log))).unwrap();
        let numbers: Vec<_> = open().unwrap().generations().iter().map(|generation| generation.number).collect();
        assert_eq!(numbers, [1, 3]);
        let others = dir.path().join(manifest_name(2));
        fs::write(&others, manifest(2, Some(other))).unwrap();
        let refused = open().unwrap_err();
        let is_named = matches!(&refused, CheckpointError::OtherLog { name, of, log: here }
            if *name == manifest_name(2) && (*of, *here) == (other, log));
        assert!(is_named && refused.may_be_good(), "{refused}");
        assert!(others.exists());
    }

    /// Goal: of a small disk a share is left, of a large one what a log needs for a while.
    #[test]
    fn the_last_share_is_not_for_checkpoints() {
        let of_hundred = |free: u64| room_of(100 << 20, free << 20) >> 20;
        assert_eq!([0, 5, 6, 100].map(of_hundred), [0, 0, 1, 95]);
        assert_eq!(room_of(1 << 50, 3 << 30), 2 << 30);
    }
}
