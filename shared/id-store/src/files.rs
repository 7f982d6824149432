//! The file layer as an argument: what runs need of a file system, and no more. Tests put faults into it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use memmap2::{Advice, Mmap};

/// A directory of run files, by name.
pub trait RunFiles: Send + Sync {
    /// The names of all files.
    ///
    /// # Errors
    /// As the system has it.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Begins a file, over one of the same name.
    ///
    /// # Errors
    /// As the system has it; what is left of the file is to be removed.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the system has it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system has it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names of files durable.
    ///
    /// # Errors
    /// As the system has it; then they may be gone after a loss of power.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that is being written.
pub trait NewRunFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// As the system has it; what is left of the file is to be removed.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Ends writing.
    ///
    /// # Errors
    /// As [`NewRunFile::append`].
    fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>>;
}

/// A file that is written.
pub trait RunFile: Send + Sync {
    /// Its size, bytes.
    ///
    /// # Errors
    /// As the system has it.
    fn size(&self) -> io::Result<u64>;

    /// Fills `into` from `position`.
    ///
    /// # Errors
    /// As the system has it; `UnexpectedEof` where the file is too short.
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()>;

    /// Its bytes in memory, from the first to the last; `None` where they can only be read.
    fn map(&self) -> Option<Mmap> {
        None
    }

    /// Makes its bytes durable.
    ///
    /// # Errors
    /// As the system has it; then they are not durable, and trying again does not make them so.
    fn sync(&self) -> io::Result<()>;
}

/// Files in a directory of the local disk.
#[derive(Debug)]
pub struct DiskFiles {
    dir: PathBuf,
}

impl DiskFiles {
    /// Makes the directory where it is not there, durably: what lies in it is no more durable than its name.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(dir)?;
        for made in missing {
            // The parent of a relative path's first part is where the process is.
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where a file lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl RunFiles for DiskFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(self.dir.join(name))?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(File::open(self.dir.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl NewRunFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(*self))
    }
}

impl RunFile for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, into, position)
    }

    fn map(&self) -> Option<Mmap> {
        // SAFETY: a run's file never changes after its last byte, nor is it cut off: one that is no longer needed loses its
        // name, which leaves the mapping as it is. Numbers of runs, and so names, never come again. Whoever else writes
        // into the directory of a server breaks more than this.
        let map = unsafe { Mmap::map(self) }.ok()?;
        // Pages that were just written are in memory, others are brought there; one that the disk does not give is told by a
        // read, as a mapping cannot. Systems before Linux 5.14 do not know how to do that, and bring pages when they are asked for.
        match map.advise(Advice::PopulateRead) {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return None,
            _ => {}
        }
        // A hint: what is not in memory any more is asked for a page at a time.
        let _advised = map.advise(Advice::Random);
        Some(map)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
