//! The file layer as an argument: what the embedded log needs of a file system, and no more.
//!
//! 1. What was written is durable after `sync_data` of its file returned, and its name after `sync_dir`; not before.
//! 2. After a failed sync nothing is known about what was written since the last good one, whatever a later sync says.

use std::{
    any::Any,
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; read only.
    Read,
    /// It must exist.
    ReadWrite,
    /// Created, or cut to nothing.
    Create,
}

/// A file system. All paths lie in or are the log's directory.
pub trait FileSystem: Send + Sync + 'static {
    /// Makes a directory and those above it; nothing if it is there.
    ///
    /// # Errors
    /// As the system has it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in a directory, in any order.
    ///
    /// # Errors
    /// As the system has it.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// As the system has it.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>>;

    /// Renames a file, over an existing one if need be.
    ///
    /// # Errors
    /// As the system has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system has it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the system has it; the names since the last good one may be lost.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock that `path` stands for until the value returned is dropped.
    ///
    /// # Errors
    /// `WouldBlock` where somebody else holds it, else as the system has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// An open file. Positions and lengths are in bytes.
pub trait LogFile: Send + Sync {
    /// Its length.
    ///
    /// # Errors
    /// As the system has it.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds nothing.
    ///
    /// # Errors
    /// As the system has it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at `position`; returns how much, 0 at the end.
    ///
    /// # Errors
    /// As the system has it.
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes the parts one after the other from `position`; returns how much, perhaps less than given.
    ///
    /// # Errors
    /// As the system has it.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Sees to it that the file is at least `len` long and that writes below need no further room. What was not
    /// written reads as zeros.
    ///
    /// # Errors
    /// No room, or as the system has it.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len`.
    ///
    /// # Errors
    /// As the system has it.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable, with the length, without the times.
    ///
    /// # Errors
    /// As the system has it; rule 2.
    fn sync_data(&self) -> io::Result<()>;
}

/// Most parts that one [`LogFile::write_at`] is given; Linux takes 1,024.
const PARTS_MAX: usize = 1_024;

/// Writes all parts, however often the file takes less than it was given.
///
/// # Errors
/// As the file has it; how much was written is then unknown.
pub(crate) fn write_all_at(file: &dyn LogFile, mut parts: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0); // empty parts in front would read as "nothing written"
    while !parts.is_empty() {
        let written = file.write_at(&parts[..parts.len().min(PARTS_MAX)], position)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        position += written as u64;
        IoSlice::advance_slices(&mut parts, written);
    }
    Ok(())
}

/// Fills `into` from `position`, as far as the file goes; returns how much.
///
/// # Errors
/// As the file has it.
pub(crate) fn read_full_at(file: &dyn LogFile, into: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
