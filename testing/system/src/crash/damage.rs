//! Damage to checkpoints between two lives of the server, as a disk does it that loses what it had: the newest of a partition is
//! no good any more, and the one before has to serve.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;

use crate::{Failure, random::Random};

/// What the server logs of each partition that it restored.
const RESTORED: &str = "restored from a checkpoint";

/// Files of checkpoints, and which of them were damaged.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Holds a directory for each partition, named by its number.
    dir: PathBuf,
    /// By partition: the file that was damaged last. While it is there, the partition has but one good checkpoint.
    damaged: BTreeMap<u64, PathBuf>,
    /// By partition: the generation that its next start has to use, and the bytes of the log before that start.
    expected: BTreeMap<u64, (u64, usize)>,
    /// How many checkpoints were damaged.
    pub(crate) count: u32,
}

/// A checkpoint that is there, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Manifest {
    generation: u64,
    at: SystemTime,
}

impl Checkpoints {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, damaged: BTreeMap::new(), expected: BTreeMap::new(), count: 0 }
    }

    /// Turns one bit of the newest checkpoint of some partition around, where there is an older one that is good.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub(crate) fn damage_newest(&mut self, random: &mut Random, log: &Path) -> io::Result<()> {
        // Two damaged generations are more than is promised.
        self.damaged.retain(|_, path| path.exists());
        let mut targets = Vec::new();
        for (path, _) in files(&self.dir)? {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let Some(partition) = number.filter(|partition| !self.damaged.contains_key(partition)) else { continue };
            if let Some((older, files)) = newest_alone(&path)? {
                targets.push((partition, older, files));
            }
        }
        if targets.is_empty() {
            return Ok(());
        }
        let (partition, older, files) = random.choose(&targets);
        let path = random.choose(files);
        let mut bytes = fs::read(path)?;
        let at = random.within(0..bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.within(0..8);
        fs::write(path, bytes)?;
        self.damaged.insert(*partition, path.clone());
        self.expected.insert(*partition, (*older, fs::metadata(log)?.len() as usize));
        self.count += 1;
        Ok(())
    }

    /// Whether the server, which is healthy, went on from the older checkpoint wherever the newest was damaged.
    ///
    /// # Errors
    /// It used another one, or none, or its log cannot be read.
    pub(crate) fn check_used(&mut self, log: &Path) -> Result<(), Failure> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let text = fs::read(log)?;
        for (partition, (generation, from)) in std::mem::take(&mut self.expected) {
            let lines = text[from..].split(|byte| *byte == b'\n');
            let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            let restored = lines.find(|line| line["message"] == RESTORED && line["partition"] == partition);
            let used = restored.as_ref().and_then(|line| line["generation"].as_u64());
            if used != Some(generation) {
                return Err(format!(
                    "the newest checkpoint of partition {partition} was damaged; {used:?} was used, and not {generation}"
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Of a partition with two checkpoints or more: the generation of the last but one, and the files that the newest has for
/// itself alone, none of them empty.
fn newest_alone(partition: &Path) -> io::Result<Option<(u64, Vec<PathBuf>)>> {
    let all = files(partition)?;
    let mut manifests: Vec<Manifest> = all.iter().filter_map(|(path, at)| manifest(path, *at)).collect();
    manifests.sort_unstable();
    let [.., older, newest] = manifests[..] else { return Ok(None) };
    // What was written after the older manifest is not named by it, and what was written after the newest by neither.
    let between = |at: &SystemTime| *at > older.at && *at <= newest.at;
    let alone: Vec<PathBuf> = all.into_iter().filter(|(_, at)| between(at)).map(|(path, _)| path).collect();
    Ok((!alone.is_empty()).then_some((older.generation, alone)))
}

fn manifest(path: &Path, at: SystemTime) -> Option<Manifest> {
    let generation = path.file_name()?.to_str()?.strip_suffix(".checkpoint")?.parse().ok()?;
    Some(Manifest { generation, at })
}

/// What lies in a directory and is not empty, and when it was last written; nothing if there is no such directory.
fn files(dir: &Path) -> io::Result<Vec<(PathBuf, SystemTime)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.len() > 0 {
            found.push((entry.path(), metadata.modified()?));
        }
    }
    found.sort_unstable();
    Ok(found)
}
