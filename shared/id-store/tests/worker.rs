//! What becomes of runs where the disk takes none, or nobody is there any more who would write them.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use engine::{FrozenIds, IdRuns, RunId};
use id_store::{DiskFiles, IdStore, Kept, NewRunFile, RunFile, RunFiles, Work};

/// What happens to whoever creates a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creating {
    Works,
    Fails,
    Panics,
}

struct Files {
    disk: DiskFiles,
    creating: Arc<Mutex<Creating>>,
}

impl RunFiles for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
        let creating = *self.creating.lock().unwrap();
        match creating {
            Creating::Works => self.disk.create(name),
            Creating::Fails => Err(io::ErrorKind::StorageFull.into()),
            Creating::Panics => panic!("planted"),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
        self.disk.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

fn store(work: Work, creating: Creating) -> (tempfile::TempDir, IdStore, Arc<Mutex<Creating>>) {
    let dir = tempfile::tempdir().unwrap();
    let creating = Arc::new(Mutex::new(creating));
    let files = Files { disk: DiskFiles::open(dir.path()).unwrap(), creating: Arc::clone(&creating) };
    let store = IdStore::open(Arc::new(files), Kept::Named(&[]), RunId(1), work).unwrap();
    (dir, store, creating)
}

fn ids(first: u128) -> Arc<FrozenIds> {
    Arc::new((first..first + 50).map(|id| (id, 0)).collect())
}

/// Goal: while the disk takes nothing, a run whose window is over leaves memory; one that a capture of the state names stays
/// and is written once there is room.
#[test]
fn forgotten_runs_are_not_kept_for_a_full_disk() {
    let (_dir, mut store, creating) = store(Work::Within, Creating::Fails);
    let sets = [store.new_set(), store.new_set()];
    let [forgotten, captured] = [ids(1), ids(100)];
    store.add(sets[0], Arc::clone(&forgotten));
    store.add(sets[1], Arc::clone(&captured));
    let pinned = store.pin(sets[1]);
    sets.into_iter().for_each(|set| store.drop_set(set));
    assert_eq!(Arc::strong_count(&forgotten), 1, "only this test has it");
    assert!(Arc::strong_count(&captured) > 1);
    *creating.lock().unwrap() = Creating::Works;
    let run = pinned[0].run;
    assert_eq!(store.keeper().sync(&[run]), Ok(()));
    assert_eq!(Arc::strong_count(&captured), 1, "it is on disk");
}

/// Goal: where the thread that writes runs is gone, the writer ends with a word instead of filling memory for ever.
#[test]
#[should_panic(expected = "the thread that writes runs of ids panicked before")]
fn a_dead_worker_ends_its_writer() {
    let (_dir, mut store, _) = store(Work::Beside, Creating::Panics);
    let set = store.new_set();
    let began = Instant::now();
    for n in 0.. {
        assert!(began.elapsed() < Duration::from_secs(60), "runs are still taken");
        store.add(set, ids(1 + n * 50));
        std::thread::sleep(Duration::from_millis(1));
    }
}
