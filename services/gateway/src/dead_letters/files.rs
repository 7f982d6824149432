//! The files of the store: which there are, how large they are, which one leaves first.
//!
//! `<root>/<tenant>/<namespace>/<table>/<number>.letters`. Numbers rise over the whole store, so the least is the oldest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use types::{TableName, TenantId};

use super::{Drawer, line};

/// What the store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one file, about.
    pub file_bytes: u64,
    /// Bytes of one table's letters.
    pub table_bytes_max: u64,
    /// Bytes of all letters.
    pub store_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 4 << 20, table_bytes_max: 32 << 20, store_bytes_max: 512 << 20 }
    }
}

/// What a file costs at least: a sender who names ever new tables fills the store's limit, not the file system.
const FILE_COST_BYTES: u64 = 4 << 10;
const EXTENSION: &str = "letters";

#[derive(Debug, Clone, Copy)]
struct LettersFile {
    /// Bytes that are synced; what lies behind them is not read.
    bytes: u64,
    /// Lines in them.
    letters: u64,
    /// No more is appended, because a write failed and the file's end is not known.
    closed: bool,
}

/// Lines that were written to a file and wait for their sync.
#[derive(Debug)]
pub(super) struct Written {
    drawer: Drawer,
    number: u64,
    /// The file's length with them.
    bytes: u64,
    letters: u64,
    file: File,
    /// Directories whose entries may be new.
    dirs: Vec<PathBuf>,
}

impl Written {
    /// Whose they are.
    pub(super) fn drawer(&self) -> &Drawer {
        &self.drawer
    }

    /// Makes them durable. Blocks on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.dirs.iter().try_for_each(|dir| sync_dir(dir))
    }
}

/// All files, by drawer and number.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    limits: Limits,
    drawers: BTreeMap<Drawer, BTreeMap<u64, LettersFile>>,
    by_age: BTreeSet<(u64, Drawer)>,
    cost_bytes: u64,
    next_number: u64,
}

impl Files {
    /// Finds the files below `root`, which is created if need be, and removes what a crash cut off at their ends.
    pub(super) fn open(root: &Path, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        if let Some(above) = root.parent().filter(|above| !above.as_os_str().is_empty()) {
            sync_dir(above)?;
        }
        let mut files = Self {
            root: root.to_owned(),
            limits,
            drawers: BTreeMap::new(),
            by_age: BTreeSet::new(),
            cost_bytes: 0,
            next_number: 1,
        };
        for (tenant, tenant_dir) in entries(root)? {
            let Ok(tenant) = tenant.parse().map(TenantId) else { continue };
            for (namespace, namespace_dir) in entries(&tenant_dir)? {
                for (table, table_dir) in entries(&namespace_dir)? {
                    if let Some(drawer) = Drawer::new(tenant, TableName::new(namespace.as_str(), table)) {
                        files.load(&drawer, &table_dir)?;
                    }
                }
            }
        }
        Ok(files)
    }

    fn load(&mut self, drawer: &Drawer, dir: &Path) -> io::Result<()> {
        for (name, path) in entries(dir)? {
            let number =
                name.strip_suffix(EXTENSION).and_then(|stem| stem.strip_suffix('.')).and_then(|n| n.parse().ok());
            if let Some(number) = number {
                let (bytes, letters) = repair(&path)?;
                self.insert(drawer, number, LettersFile { bytes, letters, closed: false });
            }
        }
        Ok(())
    }

    fn insert(&mut self, drawer: &Drawer, number: u64, file: LettersFile) {
        self.drawers.entry(drawer.clone()).or_default().insert(number, file);
        self.by_age.insert((number, drawer.clone()));
        self.cost_bytes += file.bytes.max(FILE_COST_BYTES);
        self.next_number = self.next_number.max(number + 1);
    }

    /// Appends lines to a drawer. They are none of the store's until [`Files::synced`] has been told of their sync.
    pub(super) fn write(&mut self, drawer: &Drawer, lines: &[u8]) -> io::Result<Written> {
        let newest = self.drawers.get(drawer).and_then(|files| files.last_key_value());
        let (number, before) = match newest {
            Some((&number, file)) if !file.closed && file.bytes < self.limits.file_bytes => (number, file.bytes),
            _ => (self.next_number, 0),
        };
        let path = self.path(drawer, number);
        let dirs = if before == 0 { create_dirs(&self.root, &path)? } else { Vec::new() };
        if before == 0 {
            self.insert(drawer, number, LettersFile { bytes: 0, letters: 0, closed: false });
        }
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(lines)?;
            io::Result::Ok(file)
        };
        let (bytes, letters) = (before + lines.len() as u64, count_lines(lines));
        match append() {
            Ok(file) => Ok(Written { drawer: drawer.clone(), number, bytes, letters, file, dirs }),
            Err(error) => {
                self.close(drawer, number);
                Err(error)
            }
        }
    }

    /// Takes over what was written, once it is synced or failed to be. Returns how many letters left to make room.
    pub(super) fn synced(&mut self, written: &Written, result: io::Result<()>) -> io::Result<u64> {
        let Written { drawer, number, bytes, letters, .. } = written;
        result.inspect_err(|_| self.close(drawer, *number))?;
        let file = self.drawers.get_mut(drawer).and_then(|files| files.get_mut(number));
        // Room may have been made of it for another drawer's letters of the same group.
        let Some(file) = file else { return Ok(*letters) };
        let before = file.bytes;
        file.bytes = *bytes;
        file.letters += letters;
        self.cost_bytes += bytes.max(&FILE_COST_BYTES) - before.max(FILE_COST_BYTES);
        self.make_room(drawer)
    }

    /// Ends a file whose end is not known any more.
    fn close(&mut self, drawer: &Drawer, number: u64) {
        if let Some(file) = self.drawers.get_mut(drawer).and_then(|files| files.get_mut(&number)) {
            file.closed = true;
        }
    }

    /// Removes the oldest files until the limits hold; the newest file of `drawer` stays.
    fn make_room(&mut self, drawer: &Drawer) -> io::Result<u64> {
        let mut left = 0;
        while let Some(files) = self.drawers.get(drawer) {
            let (&oldest, _) = files.first_key_value().expect("a drawer that is listed holds a file");
            if files.len() < 2 || files.values().map(|file| file.bytes).sum::<u64>() <= self.limits.table_bytes_max {
                break;
            }
            left += self.remove(drawer, oldest)?;
        }
        while self.cost_bytes > self.limits.store_bytes_max && self.by_age.len() > 1 {
            let (number, oldest) = self.by_age.first().cloned().expect("there are at least two");
            left += self.remove(&oldest, number)?;
        }
        Ok(left)
    }

    fn remove(&mut self, drawer: &Drawer, number: u64) -> io::Result<u64> {
        let path = self.path(drawer, number);
        // A file whose first write failed may never have come to be.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        self.by_age.remove(&(number, drawer.clone()));
        let mut letters = 0;
        if let Some(files) = self.drawers.get_mut(drawer) {
            let file = files.remove(&number);
            letters = file.map_or(0, |file| file.letters);
            self.cost_bytes -= file.map_or(0, |file| file.bytes).max(FILE_COST_BYTES);
            if files.is_empty() {
                self.drawers.remove(drawer);
                // The directories are left where others of their kind lie in them; an empty one goes.
                let _ = path.ancestors().skip(1).take(2).try_for_each(fs::remove_dir);
            }
        }
        Ok(letters)
    }

    /// Letters in a drawer.
    pub(super) fn letters(&self, drawer: &Drawer) -> u64 {
        self.drawers.get(drawer).into_iter().flatten().map(|(_, file)| file.letters).sum()
    }

    /// Files of a drawer as (number, path, bytes) that hold letters at or after `from`, the oldest first.
    pub(super) fn from(&self, drawer: &Drawer, from: u64) -> Vec<(u64, PathBuf, u64)> {
        let files = self.drawers.get(drawer).into_iter().flatten();
        files.filter(|(n, _)| **n >= from).map(|(&n, file)| (n, self.path(drawer, n), file.bytes)).collect()
    }

    fn path(&self, drawer: &Drawer, number: u64) -> PathBuf {
        let Drawer { tenant, table } = drawer;
        let dir = self.root.join(tenant.to_string()).join(&table.namespace).join(&table.table);
        dir.join(format!("{number:012}.{EXTENSION}"))
    }
}

/// Makes the directory of a new file; returns the directories to sync, so that the names on the way to it are durable: of the
/// table's directory, and of all above it up to the root. Which of these a try that failed has made, or one that is not synced
/// yet, nothing tells; and to sync what is synced costs next to nothing.
fn create_dirs(root: &Path, path: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = path.parent().expect("a letters file lies in its drawer");
    fs::create_dir_all(dir)?;
    Ok(dir.ancestors().take_while(|dir| dir.starts_with(root)).map(Path::to_owned).collect())
}

/// Names and paths in a directory; names that are no Unicode are none of ours.
fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let found = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    Ok(found.into_iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect())
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Cuts off an unfinished or damaged last line. Returns the file's length after it, and its letters.
fn repair(path: &Path) -> io::Result<(u64, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(&file);
    let (mut good, mut at, mut bytes) = (0, 0, Vec::new());
    let (mut letters, mut lines) = (0, 0);
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            break;
        }
        at += read;
        lines += 1;
        if bytes.strip_suffix(b"\n").and_then(line::decode).is_some() {
            (good, letters) = (at, lines);
        }
    }
    if good < length {
        file.set_len(good)?;
        file.sync_data()?;
        tracing::warn!(path = %path.display(), bytes = length - good, "removed an unfinished dead letter");
    }
    Ok((good, letters))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the names of directories that a try made which failed are made durable by the next, and by that of another table
    /// which finds them there.
    #[test]
    fn directories_of_failed_tries_become_durable() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("letters");
        let mut files = Files::open(&root, Limits::default()).unwrap();
        let drawer = |table| Drawer::new(TenantId(1), TableName::new("shop", table)).unwrap();
        let above = [root.join("1/shop"), root.join("1"), root.clone()];
        let dirs = |table: &str| [vec![above[0].join(table)], above.to_vec()].concat();
        let lost = files.write(&drawer("a"), b"1\n").unwrap();
        assert_eq!(lost.dirs, dirs("a"));
        assert!(files.synced(&lost, Err(io::Error::other("the disk is away"))).is_err());
        for table in ["a", "b"] {
            let written = files.write(&drawer(table), b"2\n").unwrap();
            assert_eq!(written.dirs, dirs(table));
            let synced = written.sync();
            assert_eq!(files.synced(&written, synced).unwrap(), 0);
        }
        assert!(files.write(&drawer("a"), b"3\n").unwrap().dirs.is_empty(), "a file that is there has its name");
    }
}
