//! A file system in memory that can lose what was not synced and fail any call: for tests and simulations.
//!
//! 1. What is visible and what is on the disk are two things. A write is visible at once; it is on the disk after a sync
//!    of its file that succeeded. Names likewise, after a sync of the directory.
//! 2. [`MemoryFiles::cut_power`] leaves what is on the disk and, of everything else, a part drawn from a seed: writes by
//!    sectors of 512 bytes, names one by one.
//! 3. [`MemoryFiles::kill`] ends the process alone: all that was visible stays visible, and no more durable than it was.
//! 4. After a failed sync its writes stay visible and are never written: a later sync that succeeds leaves them out.
//! 5. Clones made before either, and files opened by them, fail all their calls after it: a dead process does nothing.
//! 6. A plan decides what each call does. The same seeds and calls give the same files.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::files::{FileSystem, LogFile, OpenMode};

const SECTOR_BYTES: usize = 512;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening or creating a file.
    Open,
    /// Reading, or asking for a length.
    Read,
    /// Writing.
    Write,
    /// Allocating.
    Allocate,
    /// Cutting off.
    Truncate,
    /// Syncing a file.
    Sync,
    /// Syncing the directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing the directory, making it, or taking the lock.
    Directory,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It fails. A sync that fails has lost what it was to write (rule 4); a write that fails may have written a part.
    Fail(io::ErrorKind),
    /// A write writes only a part; anything else is done.
    Short,
    /// The power goes: this call and all later ones fail until [`MemoryFiles::cut_power`].
    PowerOff,
}

/// Decides over calls: what is called, and the how manieth call it is, from 0.
pub type Plan = Box<dyn FnMut(Call, u64) -> Outcome + Send>;

/// A plan that does every call.
#[must_use]
pub fn no_faults() -> Plan {
    Box::new(|_, _| Outcome::Done)
}

/// A plan that, drawn from the seed, fails about one in `one_in` of the calls that change something.
#[must_use]
pub fn seeded_faults(seed: u64, one_in: u64) -> Plan {
    let mut dice = Dice::new(seed);
    Box::new(move |call, _| match (call, dice.below(one_in.max(1))) {
        (Call::Read | Call::Directory, _) | (_, 1..) => Outcome::Done,
        _ => match dice.below(3) {
            0 => Outcome::Short,
            1 => Outcome::Fail(io::ErrorKind::StorageFull),
            _ => Outcome::Fail(io::ErrorKind::Other),
        },
    })
}

/// The file system, as one life of a process has it. Clones are the same one.
#[derive(Clone)]
pub struct MemoryFiles {
    machine: Arc<Mutex<Machine>>,
    life: u64,
}

struct Machine {
    names: BTreeMap<PathBuf, SharedFile>,
    names_on_disk: BTreeMap<PathBuf, SharedFile>,
    /// Since the last sync of the directory.
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    plan: Plan,
    calls: u64,
    powered: bool,
    /// Which life of the process it is.
    life: u64,
    room: u64,
    dice: Dice,
}

/// Names with the files that they stand for from now on.
type NameChange = Vec<(PathBuf, Option<SharedFile>)>;
type SharedFile = Arc<Mutex<Contents>>;

#[derive(Default)]
struct Contents {
    visible: Vec<u8>,
    on_disk: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
}

enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

impl MemoryFiles {
    /// An empty file system with endless room; the seed decides what is lost.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let machine = Machine {
            names: BTreeMap::new(),
            names_on_disk: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            plan: no_faults(),
            calls: 0,
            powered: true,
            life: 0,
            room: u64::MAX,
            dice: Dice::new(seed),
        };
        Self { machine: Arc::new(Mutex::new(machine)), life: 0 }
    }

    /// Puts another plan in charge; it counts calls from 0.
    pub fn set_plan(&self, plan: Plan) {
        let mut machine = self.machine();
        machine.plan = plan;
        machine.calls = 0;
    }

    /// How many bytes all files together may have.
    pub fn set_room(&self, bytes: u64) {
        self.machine().room = bytes;
    }

    /// Calls made since the plan was set.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// Ends the process that uses the files (rule 3); this value belongs to the next one. No plan is in charge then.
    pub fn kill(&mut self) {
        self.life += 1;
        let mut machine = self.machine();
        machine.life = self.life;
        machine.locks.clear();
        machine.powered = true;
        machine.plan = no_faults();
        machine.calls = 0;
    }

    /// Cuts the power and restores it (rule 2); this value belongs to the next process. No plan is in charge then.
    pub fn cut_power(&mut self) {
        self.kill();
        let mut machine = self.machine();
        let Machine { names, names_on_disk, name_changes, dice, .. } = &mut *machine;
        for change in name_changes.drain(..).filter(|_| dice.below(2) == 0) {
            apply_names(names_on_disk, change);
        }
        names.clone_from(names_on_disk);
        for file in names.values() {
            lock(file).lose(dice);
        }
    }

    /// What is visible of a file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.machine().names.get(path).map(|file| lock(file).visible.clone())
    }

    /// Changes bytes of a file on the disk itself, as a failing disk does.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(file) = self.machine().names.get(path) {
            let mut contents = lock(file);
            change(&mut contents.visible);
            contents.on_disk = contents.visible.clone();
            contents.pending.clear();
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    /// Asks the plan; returns the machine where the call is to be done.
    fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, Machine>> {
        let mut machine = self.machine();
        machine.check_life(self.life)?;
        match machine.decide(call)? {
            Outcome::Fail(kind) => Err(kind.into()),
            _ => Ok(machine),
        }
    }
}

impl Machine {
    fn check_life(&self, life: u64) -> io::Result<()> {
        if life == self.life { Ok(()) } else { Err(io::Error::other("the process has ended")) }
    }

    fn decide(&mut self, call: Call) -> io::Result<Outcome> {
        if !self.powered {
            return Err(io::Error::other("power is off"));
        }
        let number = self.calls;
        self.calls += 1;
        let outcome = (self.plan)(call, number);
        self.powered = outcome != Outcome::PowerOff;
        if self.powered { Ok(outcome) } else { Err(io::Error::other("power went off")) }
    }

    fn rename(&mut self, change: NameChange) {
        apply_names(&mut self.names, change.clone());
        self.name_changes.push(change);
    }

    /// # Errors
    /// `StorageFull` where files would get longer than there is room for.
    fn grow(&self, file: &SharedFile, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(lock(file).visible.len()) as u64;
        let used: u64 = self.names.values().map(|file| lock(file).visible.len() as u64).sum();
        if more > 0 && used + more > self.room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl FileSystem for MemoryFiles {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.begin(Call::Directory).map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let machine = self.begin(Call::Directory)?;
        let inside = machine.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(String::from)).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn LogFile>> {
        let mut machine = self.begin(Call::Open)?;
        let file = match machine.names.get(path) {
            Some(file) => file.clone(),
            None if mode == OpenMode::Create => {
                let file = SharedFile::default();
                machine.rename(vec![(path.to_owned(), Some(file.clone()))]);
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        if mode == OpenMode::Create {
            lock(&file).change(Change::Length(0));
        }
        Ok(Arc::new(MemoryFile { files: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.begin(Call::Rename)?;
        let file = machine.names.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        machine.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(file))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.begin(Call::Remove)?;
        if !machine.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        machine.rename(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut machine = self.begin(Call::SyncDir)?;
        let Machine { names_on_disk, name_changes, .. } = &mut *machine;
        for change in name_changes.drain(..) {
            apply_names(names_on_disk, change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut machine = self.begin(Call::Directory)?;
        if !machine.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held { files: self.clone(), path: path.to_owned() }))
    }
}

struct Held {
    files: MemoryFiles,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut machine = self.files.machine();
        if machine.life == self.files.life {
            machine.locks.remove(&self.path);
        }
    }
}

struct MemoryFile {
    files: MemoryFiles,
    file: SharedFile,
}

impl MemoryFile {
    fn begin(&self, call: Call) -> io::Result<(MutexGuard<'_, Machine>, Outcome)> {
        let mut machine = self.files.machine();
        machine.check_life(self.files.life)?;
        let outcome = machine.decide(call)?;
        match outcome {
            // A write or a sync that fails still has effects, which are their own matter.
            Outcome::Fail(kind) if call != Call::Write && call != Call::Sync => Err(kind.into()),
            _ => Ok((machine, outcome)),
        }
    }
}

impl LogFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let _machine = self.begin(Call::Read)?;
        Ok(lock(&self.file).visible.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let _machine = self.begin(Call::Read)?;
        let contents = lock(&self.file);
        let rest = contents.visible.get(index(position)..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let (mut machine, outcome) = self.begin(Call::Write)?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if outcome != Outcome::Done && !bytes.is_empty() {
            let len = 1 + index(machine.dice.below(bytes.len() as u64));
            bytes.truncate(len);
        }
        machine.grow(&self.file, index(position) + bytes.len())?;
        let len = bytes.len();
        lock(&self.file).change(Change::Write { position: index(position), bytes });
        match outcome {
            Outcome::Fail(kind) => Err(kind.into()),
            _ => Ok(len),
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let (machine, _) = self.begin(Call::Allocate)?;
        machine.grow(&self.file, index(len))?;
        let mut contents = lock(&self.file);
        if contents.visible.len() < index(len) {
            contents.change(Change::Length(index(len)));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let (machine, _) = self.begin(Call::Truncate)?;
        machine.grow(&self.file, index(len))?;
        lock(&self.file).change(Change::Length(index(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut machine, outcome) = self.begin(Call::Sync)?;
        let mut contents = lock(&self.file);
        let pending = std::mem::take(&mut contents.pending);
        if let Outcome::Fail(kind) = outcome {
            contents.write_some(pending, &mut machine.dice);
            return Err(kind.into());
        }
        for change in &pending {
            change.apply(&mut contents.on_disk);
        }
        Ok(())
    }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }

    /// Loses what was not synced but for a part.
    fn lose(&mut self, dice: &mut Dice) {
        let pending = std::mem::take(&mut self.pending);
        self.write_some(pending, dice);
        self.visible.clone_from(&self.on_disk);
    }

    fn write_some(&mut self, pending: Vec<Change>, dice: &mut Dice) {
        for change in pending {
            match change {
                Change::Length(len) if dice.below(2) == 0 => Change::Length(len).apply(&mut self.on_disk),
                Change::Length(_) => {}
                Change::Write { position, bytes } => {
                    // Of one write, most, some or next to none of the sectors come through.
                    let lost_in_eight = dice.below(9);
                    let mut at = position;
                    for part in sectors(position, &bytes) {
                        if dice.below(8) >= lost_in_eight {
                            Change::Write { position: at, bytes: part.to_vec() }.apply(&mut self.on_disk);
                        }
                        at += part.len();
                    }
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(len) => to.resize(*len, 0),
            Self::Write { position, bytes } => {
                let end = position + bytes.len();
                to.resize(to.len().max(end), 0);
                to[*position..end].copy_from_slice(bytes);
            }
        }
    }
}

/// A write, cut where sectors of the disk end.
fn sectors(position: usize, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = (SECTOR_BYTES - position % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES))
}

fn apply_names(names: &mut BTreeMap<PathBuf, SharedFile>, change: NameChange) {
    for (path, file) in change {
        match file {
            Some(file) => names.insert(path, file),
            None => names.remove(&path),
        };
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of a test elsewhere is reported there.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("files in memory are addressable")
}

/// A generator of numbers (`splitmix64`) that is the same everywhere for ever: what a seed gave once it gives again.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
