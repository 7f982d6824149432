//! The data directory of a process, which no other may have: its checkpoints, dead letters and runs of event ids lie there, and those
//! of two would overwrite each other.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The file that is locked; it stays, empty.
const LOCK: &str = "lock";

/// A directory that this process has to itself for as long as the value lives; the system gives it free where the process dies.
pub(crate) struct DataDir {
    _lock: File,
}

/// Why a process has no directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("make the data directory {}", .0.display())]
    Make(PathBuf, #[source] io::Error),
    #[error("lock the data directory {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    #[error("data directory {} is in use by another process: set a data_dir for each", .0.display())]
    InUse(PathBuf),
}

impl DataDir {
    /// Makes the directory where it is not there, and keeps others out.
    ///
    /// # Errors
    /// It cannot be made or locked, or another process has it.
    pub(crate) fn hold(path: &Path) -> Result<Self, DataDirError> {
        let at = || path.to_owned();
        std::fs::create_dir_all(path).map_err(|error| DataDirError::Make(at(), error))?;
        let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = file.map_err(|error| DataDirError::Lock(at(), error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(at())),
            Err(TryLockError::Error(error)) => Err(DataDirError::Lock(at(), error)),
        }
    }
}
