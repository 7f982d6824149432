//! The one disk of the simulated machine: files in memory, and the weather that decides what its calls do.

use std::{
    io::{self, ErrorKind, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use event_log::{
    Clock, FileSystem, LogFile, OpenMode,
    faults::{Call, MemoryFiles, Outcome},
};
use id_store::{CheckpointFiles, NewRunFile, RunFile, RunFiles};
use types::Timestamp;

use crate::random::Random;

/// The machine's clock, which moves only when the run says so. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct VirtualClock(Arc<AtomicI64>);

impl VirtualClock {
    pub(crate) fn at(time: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(time.0)))
    }

    pub(crate) fn now(&self) -> i64 {
        // Relaxed: everything happens on one thread.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, by_us: i64) {
        self.0.fetch_add(by_us, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(Self::now(self))
    }
}

/// What the disk does with calls.
struct Weather {
    random: Random,
    clock: VirtualClock,
    /// Every call is done, and at once: for looks at the disk that are no part of what is simulated.
    calm: bool,
    /// One in so many calls fails; 0: none.
    fault_one_in: u64,
    /// What a sync takes at most, µs.
    slow_us_max: i64,
    /// The end comes at the call after so many.
    end_in: Option<u64>,
    ended: bool,
}

impl Weather {
    fn decide(&mut self, call: Call) -> Outcome {
        if self.calm {
            return Outcome::Done;
        }
        if let Some(left) = &mut self.end_in {
            let Some(less) = left.checked_sub(1) else {
                self.ended = true;
                return Outcome::PowerOff;
            };
            *left = less;
        }
        if call == Call::Sync && self.slow_us_max > 0 {
            self.clock.advance(self.random.between(0, self.slow_us_max));
        }
        if self.fault_one_in == 0 || !self.random.once_in(self.fault_one_in) {
            return Outcome::Done;
        }
        match (call, self.random.below(3)) {
            (Call::Write, 0) => Outcome::Short,
            (Call::Write | Call::Allocate | Call::Open, 1) => Outcome::Fail(ErrorKind::StorageFull),
            _ => Outcome::Fail(ErrorKind::Other),
        }
    }
}

/// The disk, as one life of the process has it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Disk {
    files: MemoryFiles,
    weather: Arc<Mutex<Weather>>,
}

impl Disk {
    pub(crate) fn new(seed: u64, clock: VirtualClock) -> Self {
        let weather = Weather {
            random: Random::new(seed, 1),
            clock,
            calm: false,
            fault_one_in: 0,
            slow_us_max: 0,
            end_in: None,
            ended: false,
        };
        let disk = Self { files: MemoryFiles::new(seed), weather: Arc::new(Mutex::new(weather)) };
        disk.take_charge();
        disk
    }

    /// The files of this life.
    pub(crate) fn files(&self) -> MemoryFiles {
        self.files.clone()
    }

    /// From now on one in so many calls fails (0: none), and a sync takes up to so many µs.
    pub(crate) fn set_weather(&self, fault_one_in: u64, slow_us_max: i64) {
        let mut weather = self.weather();
        weather.fault_one_in = fault_one_in;
        weather.slow_us_max = slow_us_max;
    }

    /// The process or the power ends at the call after so many; what it was, [`Disk::restart`] is told.
    pub(crate) fn end_in(&self, calls: u64) {
        self.weather().end_in = Some(calls);
    }

    /// From now on every call is done, and at once.
    pub(crate) fn mend(&self) {
        self.set_weather(0, 0);
        self.weather().end_in = None;
    }

    /// The names of files in a directory.
    pub(crate) fn names(&self, dir: &Path) -> Vec<String> {
        self.calmly(|| self.files.list(dir)).unwrap_or_default()
    }

    /// What is in a directory, by name.
    pub(crate) fn contents(&self, dir: &Path) -> Vec<(String, Option<Vec<u8>>)> {
        let with_bytes = |name: String| {
            let bytes = self.files.contents(&dir.join(&name));
            (name, bytes)
        };
        self.names(dir).into_iter().map(with_bytes).collect()
    }

    /// Removes what is in a directory, as an operator does.
    ///
    /// # Errors
    /// None: the files are there.
    pub(crate) fn clear(&self, dir: &Path) -> io::Result<()> {
        self.calmly(|| {
            self.files.list(dir)?.iter().try_for_each(|name| self.files.remove(&dir.join(name)))?;
            self.files.sync_dir(dir)
        })
    }

    /// Loses the end of a file, or changes a bit of it, as a failing disk does.
    pub(crate) fn damage(&self, path: &Path, random: &mut Random) {
        let cut = random.once_in(3);
        self.files.damage(path, |bytes| {
            if bytes.is_empty() {
                return;
            }
            let at = random.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << random.below(8) }
        });
    }

    /// Whether that moment has come: no call is done any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.weather().ended
    }

    /// Does something while every call is done.
    pub(crate) fn calmly<T>(&self, act: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.weather().calm, true);
        let done = act();
        self.weather().calm = before;
        done
    }

    /// Ends this life, with the power or without; this value belongs to the next one.
    pub(crate) fn restart(&mut self, power: bool) {
        if power {
            self.files.cut_power();
        } else {
            self.files.kill();
        }
        let mut weather = self.weather();
        weather.end_in = None;
        weather.ended = false;
        drop(weather);
        self.take_charge();
    }

    fn take_charge(&self) {
        let weather = Arc::clone(&self.weather);
        self.files.set_plan(Box::new(move |call, _| lock(&weather).decide(call)));
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.weather)
    }
}

fn lock(weather: &Mutex<Weather>) -> MutexGuard<'_, Weather> {
    weather.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A partition's directory on the disk, of runs of ids or of checkpoints.
pub(crate) struct Directory {
    files: Arc<dyn FileSystem>,
    dir: PathBuf,
}

impl Directory {
    /// Makes the directory where it is not there.
    ///
    /// # Errors
    /// As the disk has it.
    pub(crate) fn open(files: Arc<dyn FileSystem>, dir: &Path) -> io::Result<Self> {
        files.create_dir_all(dir)?;
        Ok(Self { files, dir: dir.to_owned() })
    }
}

impl RunFiles for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list(&self.dir)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
        Ok(Box::new(NewRun { file: self.files.open(&self.dir.join(name), OpenMode::Create)?, end: 0 }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(WrittenRun(self.files.open(&self.dir.join(name), OpenMode::Read)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(&self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_dir(&self.dir)
    }
}

impl CheckpointFiles for Directory {
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(&self.dir.join(from), &self.dir.join(to))
    }

    /// The disk of a run is as large as it likes; that it is full is one of the faults of its calls.
    fn room(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

struct NewRun {
    file: Arc<dyn LogFile>,
    end: u64,
}

impl NewRunFile for NewRun {
    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.file.write_at(&[IoSlice::new(bytes)], self.end)?;
            bytes = &bytes[written..];
            self.end += written as u64;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(WrittenRun(self.file)))
    }
}

struct WrittenRun(Arc<dyn LogFile>);

impl RunFile for WrittenRun {
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], position + filled as u64)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
