//! The newest checkpoint of a partition on its way from one node's disk to another's: its files, as they are.
//!
//! 1. Packs, manifests and runs never change once they have their names, and one that is open can be read to its end though its
//!    name goes. So a checkpoint is copied beside the thread that writes the next one, which may take the names away: then the
//!    newest is looked for again.
//! 2. What arrives lies in directories of its own until all of it is there and durable. Then it takes the place of what
//!    the node had of the partition, which is not open meanwhile. A crash in between leaves less than before, never a mixture that
//!    reads as a checkpoint: the manifests move last.
//! 3. Nothing is believed that was not believed before: parts, manifests and pages carry their checksums, and are checked when the
//!    checkpoint is opened.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use types::{LogIdentity, Offset, PartitionId};

use crate::{
    checkpoints::{CheckpointError, CheckpointStore, is_checkpoint_file},
    files::DiskFiles,
    run_file::{name_of, run_of},
};

/// How often the newest checkpoint is looked for again because its files went meanwhile.
const LOOKS_MAX: usize = 8;
/// What the names of directories end with in which something arrives.
const ARRIVING: &str = "arriving";

/// Where a partition's checkpoints lie below a node's directory.
#[must_use]
pub fn checkpoints_dir(dir: &Path, partition: PartitionId) -> PathBuf {
    dir.join("checkpoints").join(partition.to_string())
}

/// Where its runs of ids lie.
#[must_use]
pub fn ids_dir(dir: &Path, partition: PartitionId) -> PathBuf {
    dir.join("ids").join(partition.to_string())
}

/// What a file of a checkpoint is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOf {
    /// The checkpoint: a pack or the manifest.
    Checkpoint,
    /// A run of ids.
    Ids,
}

/// A file that is open for reading, from its begin on.
#[derive(Debug)]
pub struct Outgoing {
    /// What it is of.
    pub of: FileOf,
    /// Its name there.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    file: File,
}

impl Outgoing {
    /// The next bytes, as many as `into` has room for or are left; 0 at the end.
    ///
    /// # Errors
    /// As the system has it.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// The newest checkpoint of a partition, with all its files open.
#[derive(Debug)]
pub struct NewestCheckpoint {
    /// The offset of the record that comes after the state.
    pub next_offset: Offset,
    /// Its files, the manifest last.
    pub files: Vec<Outgoing>,
}

impl NewestCheckpoint {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }
}

/// Where the newest checkpoint goes on that lies below a node's directory; `None` where there is none.
///
/// # Errors
/// The directory cannot be read, or lies beside another log.
pub fn newest_offset(dir: &Path, partition: PartitionId, log: LogIdentity) -> Result<Option<Offset>, CheckpointError> {
    Ok(open_store(dir, partition, log)?.and_then(|store| store.generations().last().map(|newest| newest.next_offset)))
}

/// Opens the newest checkpoint below a node's directory; `None` where there is none.
///
/// # Errors
/// A file cannot be read, or is of another log.
pub fn open_newest(
    dir: &Path,
    partition: PartitionId,
    log: LogIdentity,
) -> Result<Option<NewestCheckpoint>, CheckpointError> {
    let mut looks = 0;
    loop {
        looks += 1;
        match try_open_newest(dir, partition, log) {
            Err(CheckpointError::Io { ref source, .. })
                if source.kind() == ErrorKind::NotFound && looks < LOOKS_MAX => {}
            opened => return opened,
        }
    }
}

fn open_store(
    dir: &Path,
    partition: PartitionId,
    log: LogIdentity,
) -> Result<Option<CheckpointStore>, CheckpointError> {
    let dir = checkpoints_dir(dir, partition);
    if !dir.exists() {
        return Ok(None);
    }
    let files = DiskFiles::open(&dir).map_err(|source| failed("open", "the directory of checkpoints", source))?;
    CheckpointStore::open(Arc::new(files), partition, log).map(Some)
}

fn try_open_newest(
    dir: &Path,
    partition: PartitionId,
    log: LogIdentity,
) -> Result<Option<NewestCheckpoint>, CheckpointError> {
    let Some(store) = open_store(dir, partition, log)? else { return Ok(None) };
    let Some((newest, names)) = store.newest_files() else { return Ok(None) };
    let mut files = Vec::new();
    let runs = newest.runs.iter().map(|run| (FileOf::Ids, ids_dir(dir, partition), name_of(*run)));
    let of_checkpoint = names.into_iter().map(|name| (FileOf::Checkpoint, checkpoints_dir(dir, partition), name));
    for (of, dir, name) in runs.chain(of_checkpoint) {
        let opened = File::open(dir.join(&name)).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|source| failed("open", &name, source))?;
        files.push(Outgoing { of, name, length, file });
    }
    Ok(Some(NewestCheckpoint { next_offset: newest.next_offset, files }))
}

fn failed(what: &'static str, name: &str, source: io::Error) -> CheckpointError {
    CheckpointError::Io { what, name: name.to_owned(), source }
}

/// A checkpoint that arrives. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub struct Arriving {
    /// Where its files go, and where they are to be.
    checkpoints: (PathBuf, PathBuf),
    ids: (PathBuf, PathBuf),
    file: Option<File>,
}

impl Arriving {
    /// Begins, beside whatever else lies or arrives there.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn begin(dir: &Path, partition: PartitionId) -> io::Result<Self> {
        // Relaxed: only to be different.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let beside = |place: PathBuf| (place.with_extension(format!("{number}.{ARRIVING}")), place);
        let arriving = Self {
            checkpoints: beside(checkpoints_dir(dir, partition)),
            ids: beside(ids_dir(dir, partition)),
            file: None,
        };
        for (dir, _) in [&arriving.checkpoints, &arriving.ids] {
            remove_dir(dir)?;
            DiskFiles::open(dir)?;
        }
        Ok(arriving)
    }

    /// Removes what an earlier life of the node left of what arrived.
    ///
    /// # Errors
    /// As the system has it.
    pub fn remove_remains(dir: &Path) -> io::Result<()> {
        for kind in ["checkpoints", "ids"] {
            let entries = match fs::read_dir(dir.join(kind)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == ARRIVING) {
                    remove_dir(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the file before, and begins another.
    ///
    /// # Errors
    /// `InvalidInput` where no checkpoint has a file of that name; else as the system has it.
    pub fn begin_file(&mut self, of: FileOf, name: &str) -> io::Result<()> {
        self.end_file()?;
        let (dir, is_known) = match of {
            FileOf::Checkpoint => (&self.checkpoints.0, is_checkpoint_file(name)),
            FileOf::Ids => (&self.ids.0, run_of(name).is_some_and(|run| name_of(run) == name)),
        };
        if !is_known {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no checkpoint has a file of that name"));
        }
        self.file = Some(File::create_new(dir.join(name))?);
        Ok(())
    }

    /// Appends to the file.
    ///
    /// # Errors
    /// `InvalidInput` where none was begun; else as the system has it.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::new(ErrorKind::InvalidInput, "bytes of no file")),
        }
    }

    fn end_file(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }

    /// Puts what arrived in the place of what was there, durably. The partition is not open.
    ///
    /// # Errors
    /// As the system has it; what was there may be gone.
    pub fn finish(mut self) -> io::Result<()> {
        self.end_file()?;
        // Manifests first away, and last back.
        remove_dir(&self.checkpoints.1)?;
        for (from, to) in [&self.ids, &self.checkpoints] {
            File::open(from)?.sync_all()?;
            remove_dir(to)?;
            fs::rename(from, to)?;
            let parent = to.parent().expect("it lies in a directory of all partitions");
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        for (dir, _) in [&self.checkpoints, &self.ids] {
            // What cannot be removed is at the next start.
            let _ = remove_dir(dir);
        }
    }
}

/// Removes what a node has of a partition that is not open.
///
/// # Errors
/// As the system has it.
pub fn remove_all(dir: &Path, partition: PartitionId) -> io::Result<()> {
    remove_dir(&checkpoints_dir(dir, partition))?;
    remove_dir(&ids_dir(dir, partition))
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
