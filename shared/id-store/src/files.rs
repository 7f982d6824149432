//! The file layer as an argument: what runs need of a file system, and no more. Tests put faults into it.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Takes the next bytes of a file.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// A directory of run files, by name.
pub trait RunFiles: Send {
    /// Writes a file whole, over one of the same name, and opens it. `fill` gives the bytes to its sink, part by part.
    ///
    /// # Errors
    /// As the system has it, or `fill`; what is left of the file is to be removed.
    fn write(
        &mut self,
        name: &str,
        fill: &mut dyn FnMut(&mut Sink<'_>) -> io::Result<()>,
    ) -> io::Result<Box<dyn RunFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system has it.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// An open file.
pub trait RunFile: Send {
    /// Fills `into` from `position`.
    ///
    /// # Errors
    /// As the system has it; `UnexpectedEof` where the file is too short.
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()>;
}

/// Files in a directory of the local disk.
#[derive(Debug)]
pub struct DiskFiles {
    dir: PathBuf,
}

impl DiskFiles {
    /// Makes the directory, or empties it of files.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open_empty(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }
}

impl RunFiles for DiskFiles {
    fn write(
        &mut self,
        name: &str,
        fill: &mut dyn FnMut(&mut Sink<'_>) -> io::Result<()>,
    ) -> io::Result<Box<dyn RunFile>> {
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(self.dir.join(name))?;
        fill(&mut |part| file.write_all(part))?;
        Ok(Box::new(file))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }
}

impl RunFile for File {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, into, position)
    }
}
