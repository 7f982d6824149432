//! Damage to checkpoints between two lives of the server, as a disk does it that loses what it had: the newest of a partition is
//! no good any more, and the one before has to serve.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::random::Random;

/// Files of checkpoints, and which of them were damaged.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Holds a directory for each partition.
    dir: PathBuf,
    damaged: Vec<PathBuf>,
    /// How many files were damaged.
    pub(crate) count: u32,
}

impl Checkpoints {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, damaged: Vec::new(), count: 0 }
    }

    /// Turns one bit of the newest checkpoint of a partition around, if there is an older one that is good.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub(crate) fn damage_newest(&mut self, random: &mut Random) -> io::Result<()> {
        // Two damaged generations are more than is promised.
        self.damaged.retain(|path| path.exists());
        let partitions = files(&self.dir)?;
        if partitions.is_empty() {
            return Ok(());
        }
        let (partition, _) = random.choose(&partitions);
        if self.damaged.iter().any(|path| path.starts_with(partition)) {
            return Ok(());
        }
        let all = files(partition)?;
        let mut written: Vec<SystemTime> = all.iter().filter(is_manifest).map(|(_, at)| *at).collect();
        written.sort_unstable();
        let [.., older, _newest] = written[..] else { return Ok(()) };
        // What came after the older manifest is named by the newest alone.
        let newest: Vec<&PathBuf> = all.iter().filter(|(_, at)| *at > older).map(|(path, _)| path).collect();
        let path = *random.choose(&newest);
        let mut bytes = fs::read(path)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let at = random.within(0..bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.within(0..8);
        fs::write(path, bytes)?;
        self.damaged.push(path.clone());
        self.count += 1;
        Ok(())
    }
}

fn is_manifest((path, _): &&(PathBuf, SystemTime)) -> bool {
    path.extension().is_some_and(|extension| extension == "checkpoint")
}

/// What lies in a directory, and when it was last written; nothing if there is none.
fn files(dir: &Path) -> io::Result<Vec<(PathBuf, SystemTime)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        found.push((entry.path(), entry.metadata()?.modified()?));
    }
    found.sort_unstable();
    Ok(found)
}
