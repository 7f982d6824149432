//! Runs on disk against plain maps, and under faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex},
};

use engine::{FrozenIds, IdRuns, RunFault, RunId, RunSet};
use id_store::{DiskFiles, IdStore, Kept, NewRunFile, RunFile, RunFiles, Work};
use proptest::prelude::*;

const PAGE: usize = 1_024;

/// Ids spread over the whole range, and a content for each.
fn spread(count: u64, salt: u64) -> BTreeMap<u128, u32> {
    let mix = |n: u64| {
        let n = (n ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    (0..count).map(|n| (u128::from(mix(n)) << 64 | u128::from(n + (salt << 32)), mix(n + 7) as u32)).collect()
}

fn add(store: &mut IdStore, set: RunSet, ids: &BTreeMap<u128, u32>) {
    store.add(set, Arc::new(ids.iter().map(|(id, content)| (*id, *content)).collect::<FrozenIds>()));
}

fn confirm(store: &mut IdStore, set: RunSet, suspects: &[u128]) -> Result<Vec<Option<u32>>, RunFault> {
    let mut found = vec![None; suspects.len()];
    store.confirm(set, suspects, &mut found).map(|()| found)
}

fn runs_of(store: &IdStore, set: RunSet) -> Vec<RunId> {
    store.pin(set).iter().map(|pinned| pinned.run).collect()
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn open(dir: &Path, kept: &[RunId]) -> IdStore {
    IdStore::open(Arc::new(DiskFiles::open(dir).unwrap()), Kept::Named(kept), RunId(1), Work::Within).unwrap()
}

/// Ids near those of `oracle`, between them and beyond, sorted.
fn suspects_around(oracle: &BTreeMap<u128, u32>, every: usize, strangers: &[u128]) -> Vec<u128> {
    let near = oracle.keys().step_by(every).flat_map(|id| [*id, *id, id.wrapping_add(1), id.wrapping_sub(1)]);
    let mut suspects: Vec<u128> = near.chain(strangers.iter().copied()).chain([0, u128::MAX]).collect();
    suspects.sort_unstable();
    suspects
}

/// The ids of a set, as a scan shows them.
fn scanned(store: &mut IdStore, set: RunSet) -> Result<BTreeSet<u128>, RunFault> {
    let mut ids = BTreeSet::new();
    store.scan(set, &mut |some| ids.extend(some))?;
    Ok(ids)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: sets answer like the maps that they were made of, whatever is asked, while runs are written and merged beside
    /// or within, before they are sealed and after, and in another life.
    #[test]
    fn sets_match_maps(
        runs in prop::collection::vec((1_u64..1_500, 0_usize..2), 1..20),
        strangers in prop::collection::vec(any::<u128>(), 0..50),
        every in 1_usize..40,
        beside: bool,
        mapped: bool,
        crowded_high_halves: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let work = if beside { Work::Beside } else { Work::Within };
        let files = || -> Arc<dyn RunFiles> {
            let disk = DiskFiles::open(dir.path()).unwrap();
            if mapped { Arc::new(disk) } else { Arc::new(FaultyFiles { disk, faults: Arc::default() }) }
        };
        let mut store = IdStore::open(files(), Kept::Named(&[]), RunId(1), work).unwrap();
        let sets = [store.new_set(), store.new_set()];
        let mut oracles = [BTreeMap::new(), BTreeMap::new()];
        for (salt, (count, which)) in (1..).zip(runs) {
            let mut ids = spread(count, salt);
            if crowded_high_halves {
                // Pages that begin with equal high halves, and runs whose high halves are all alike.
                ids = ids.into_iter().map(|(id, content)| ((id >> 126) << 64 | id & u128::from(u64::MAX), content)).collect();
            }
            add(&mut store, sets[which], &ids);
            oracles[which].extend(ids);
            for (set, oracle) in sets.iter().zip(&oracles) {
                let suspects = suspects_around(oracle, every.max(20), &strangers);
                let found = confirm(&mut store, *set, &suspects).unwrap();
                prop_assert!(suspects.iter().zip(found).all(|(suspect, found)| found == oracle.get(suspect).copied()));
            }
        }
        for set in sets {
            store.seal(set);
            store.usage(set);
        }
        let named: Vec<Vec<RunId>> = sets.iter().map(|set| runs_of(&store, *set)).collect();
        let all = named.concat();
        let pinned = sets.map(|set| store.pin(set));
        store.keeper().sync(&all).unwrap();
        store.keeper().retain(1, all.clone()).unwrap();
        drop(pinned);
        if !beside {
            prop_assert!(sets.iter().all(|set| runs_of(&store, *set).len() <= 8), "few runs are left of a sealed set");
        }
        drop(store);
        let mut store = IdStore::open(files(), Kept::Named(&all), RunId(1), Work::Within).unwrap();
        for (runs, oracle) in named.iter().zip(&oracles) {
            let (set, count) = store.restore_set(runs).unwrap();
            prop_assert_eq!(count, oracle.len());
            prop_assert_eq!(scanned(&mut store, set).unwrap(), oracle.keys().copied().collect::<BTreeSet<_>>());
            let suspects = suspects_around(oracle, every, &strangers);
            let found = confirm(&mut store, set, &suspects).unwrap();
            prop_assert!(suspects.iter().zip(found).all(|(suspect, found)| found == oracle.get(suspect).copied()));
        }
    }
}

/// Goal: a damaged byte anywhere in a page is an error whenever the page is needed, and never an answer, also where the page
/// was good before, and whether files are mapped or read; other pages still answer. So is a page that stands in the place of
/// another, and, where files are read, one that is not there.
#[test]
fn damage_is_an_error() {
    for mapped in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = if mapped { open(dir.path(), &[]) } else { faulty(dir.path()).0 };
        let (set, oracle) = (store.new_set(), spread(130, 1));
        add(&mut store, set, &oracle);
        let run = runs_of(&store, set)[0];
        let file = fs::File::options().read(true).write(true).open(dir.path().join(&files_in(dir.path())[0])).unwrap();
        let mut good = vec![0; PAGE * 5];
        FileExt::read_exact_at(&file, &mut good, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), good.len() as u64, "a head, three pages of ids, one of fence keys");
        let keys: Vec<u128> = oracle.keys().copied().collect();
        let (damaged, sound) = (Err(RunFault::Damaged(run)), Ok(vec![Some(oracle[&keys[0]])]));
        for at in (PAGE..PAGE * 2).step_by(61).chain([PAGE * 2 - 1]) {
            assert_eq!(confirm(&mut store, set, &keys[..1]), sound);
            file.write_all_at(&[good[at] ^ 0x10], at as u64).unwrap();
            for _ in 0..2 {
                assert_eq!(confirm(&mut store, set, &keys[..1]), damaged, "byte {at}, mapped: {mapped}");
                assert_eq!(confirm(&mut store, set, &keys[60..61]), Ok(vec![Some(oracle[&keys[60]])]));
            }
            assert_eq!(scanned(&mut store, set), Err(RunFault::Damaged(run)));
            file.write_all_at(&good, 0).unwrap();
        }
        let swapped = [&good[PAGE * 2..PAGE * 3], &good[PAGE..PAGE * 2]].concat();
        file.write_all_at(&swapped, PAGE as u64).unwrap();
        assert_eq!(confirm(&mut store, set, &keys[..1]), damaged);
        file.write_all_at(&vec![0; PAGE], PAGE as u64).unwrap();
        assert_eq!(confirm(&mut store, set, &keys[..1]), damaged, "an extent that was never written");
        file.write_all_at(&good, 0).unwrap();
        assert_eq!(confirm(&mut store, set, &keys[..1]), sound);
        if !mapped {
            file.set_len(PAGE as u64 * 2 + 100).unwrap();
            assert_eq!(confirm(&mut store, set, &keys[..1]), sound);
            assert_eq!(confirm(&mut store, set, &keys[60..61]), damaged);
        }
    }
}

/// Goal: a kept run that is damaged anywhere, cut off or longer is an error by its name when it is taken over, or when it
/// is read; and never another set of ids.
#[test]
fn damaged_runs_are_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), &[]);
    let (set, oracle) = (store.new_set(), spread(130, 1));
    add(&mut store, set, &oracle);
    let run = runs_of(&store, set)[0];
    drop(store);
    let path = dir.path().join(&files_in(dir.path())[0]);
    let good = fs::read(&path).unwrap();
    let restored = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let mut store = open(dir.path(), &[run]);
        let (set, _) = store.restore_set(&[run])?;
        scanned(&mut store, set)
    };
    let ids: BTreeSet<u128> = oracle.keys().copied().collect();
    assert_eq!(restored(&good), Ok(ids));
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(restored(&bad), Err(RunFault::Damaged(run)), "byte {at}");
    }
    for cut in (0..good.len()).step_by(300) {
        assert_eq!(restored(&good[..cut]), Err(RunFault::Damaged(run)), "cut at {cut}");
    }
    assert_eq!(restored(&[&good[..], &[0]].concat()), Err(RunFault::Damaged(run)));
    fs::remove_file(&path).unwrap();
    let mut store = open(dir.path(), &[run]);
    assert_eq!(store.restore_set(&[run]), Err(RunFault::Unknown(run)));
}

/// Goal: files of an earlier life are removed at the start unless they are kept, dropped ones at once unless somebody holds
/// them, and numbers do not come again.
#[test]
fn files_come_and_go_with_their_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), &[]);
    let (first, second) = (store.new_set(), store.new_set());
    add(&mut store, first, &spread(10, 1));
    add(&mut store, second, &spread(10, 2));
    let (run, kept) = (runs_of(&store, first)[0], runs_of(&store, second)[0]);
    assert_eq!(files_in(dir.path()).len(), 2);
    let keeper = store.keeper();
    keeper.retain(7, vec![run]).unwrap();
    store.drop_set(first);
    assert_eq!(files_in(dir.path()).len(), 2, "a generation names it");
    assert_eq!(confirm(&mut store, first, &[1]), Ok(vec![None]), "nobody looks for it there");
    keeper.release(7);
    assert_eq!(files_in(dir.path()).len(), 1);
    assert_eq!(keeper.retain(8, vec![run]), Err(RunFault::Unknown(run)));
    let pinned = store.pin(second);
    store.drop_set(second);
    assert_eq!(files_in(dir.path()).len(), 1, "a capture names it");
    keeper.retain(9, vec![kept]).unwrap();
    drop((pinned, store));
    assert_eq!(keeper.sync(&[kept]), Err(RunFault::Unknown(kept)), "the store is closed");
    let mut store = open(dir.path(), &[kept]);
    let third = store.new_set();
    let (second, _) = store.restore_set(&[kept]).unwrap();
    store.keeper().retain(1, vec![kept]).unwrap();
    add(&mut store, third, &spread(10, 3));
    assert!(runs_of(&store, third)[0] > kept);
    drop(store);
    let mut store = open(dir.path(), &[kept]);
    add(&mut store, second, &spread(10, 4));
    store.usage(second);
    assert_eq!(files_in(dir.path()).len(), 1, "what no set took over goes with the first run");
    drop(store);
    drop(open(dir.path(), &[]));
    assert_eq!(files_in(dir.path()), Vec::<String>::new());
}

/// Goal: runs that several checkpoints name, so that they are kept more than once, can be named by the next one as well.
#[test]
fn runs_of_two_checkpoints_are_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), &[]);
    let set = store.new_set();
    add(&mut store, set, &spread(10, 1));
    let run = runs_of(&store, set)[0];
    drop(store);
    let mut store = open(dir.path(), &[run, run]);
    store.restore_set(&[run]).unwrap();
    let keeper = store.keeper();
    assert_eq!(keeper.sync(&[run]), Ok(()));
    assert_eq!(keeper.retain(1, vec![run]), Ok(()));
    add(&mut store, set, &spread(10, 2));
    assert_eq!(keeper.retain(2, vec![run]), Ok(()), "a set has it");
}

/// Goal: the number of a run that a checkpoint names is not given to another one, though its file is lost and the clock, from
/// which numbers come, was set back.
#[test]
fn numbers_of_lost_runs_do_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let lost = RunId(1_000);
    let mut store = open(dir.path(), &[lost]);
    let set = store.new_set();
    add(&mut store, set, &spread(10, 1));
    assert!(set.0 > lost.0 && runs_of(&store, set)[0] > lost);
}

/// Goal: runs that cannot be read at a start stay while a checkpoint names them, with the others that it names, and are good
/// at the next; and where it is not known what checkpoints name, all runs stay.
#[test]
fn unread_runs_stay_while_they_may_be_needed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), &[]);
    let sets = [store.new_set(), store.new_set()];
    (1..).zip(sets).for_each(|(salt, set)| add(&mut store, set, &spread(10, salt)));
    let runs = sets.map(|set| runs_of(&store, set)[0]);
    drop(store);
    let path = dir.path().join(&files_in(dir.path())[0]);
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    let mut store = open(dir.path(), &runs);
    assert_eq!(store.keeper().retain(1, runs.to_vec()), Ok(()));
    assert_eq!(store.restore_set(&runs), Err(RunFault::Unknown(runs[0])));
    fs::rename(&away, &path).unwrap();
    let set = store.new_set();
    add(&mut store, set, &spread(10, 3));
    assert_eq!(files_in(dir.path()).len(), 3, "a checkpoint names them");
    drop(store);
    let files = Arc::new(DiskFiles::open(dir.path()).unwrap());
    let mut store = IdStore::open(files, Kept::All, RunId(1), Work::Within).unwrap();
    let set = store.new_set();
    add(&mut store, set, &spread(10, 4));
    store.usage(set);
    assert_eq!(files_in(dir.path()).len(), 4, "one that was not read may name them");
    assert_eq!(store.restore_set(&runs).err(), Some(RunFault::Unknown(runs[0])), "they are not for this life any more");
    drop(store);
    let mut store = open(dir.path(), &runs);
    let (set, ids) = store.restore_set(&runs).unwrap();
    assert_eq!((ids, scanned(&mut store, set).map(|ids| ids.len())), (20, Ok(20)));
    store.keeper().retain(1, runs.to_vec()).unwrap();
    let last = store.new_set();
    add(&mut store, last, &spread(10, 5));
    store.drop_set(set);
    assert_eq!(files_in(dir.path()).len(), 3, "a checkpoint names them");
    store.keeper().release(1);
    assert_eq!(files_in(dir.path()).len(), 1, "nobody does");
}

/// What goes wrong next.
#[derive(Debug, Default)]
struct Faults {
    /// Bytes that the disk still takes.
    room: Option<usize>,
    reads_fail: bool,
    syncs_fail: bool,
    /// Reads so far.
    reads: usize,
}

/// The disk, with faults.
struct FaultyFiles {
    disk: DiskFiles,
    faults: Arc<Mutex<Faults>>,
}

struct FaultyFile<F: ?Sized> {
    faults: Arc<Mutex<Faults>>,
    file: F,
}

impl RunFiles for FaultyFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewRunFile>> {
        Ok(Box::new(FaultyFile { faults: Arc::clone(&self.faults), file: self.disk.create(name)? }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(FaultyFile { faults: Arc::clone(&self.faults), file: self.disk.open(name)? }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

impl NewRunFile for FaultyFile<Box<dyn NewRunFile>> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        let Some(room) = &mut faults.room else { return self.file.append(bytes) };
        let taken = bytes.len().min(*room);
        *room -= taken;
        self.file.append(&bytes[..taken])?;
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> io::Result<Arc<dyn RunFile>> {
        Ok(Arc::new(FaultyFile { faults: self.faults, file: self.file.finish()? }))
    }
}

impl RunFile for FaultyFile<Arc<dyn RunFile>> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        faults.reads += 1;
        if faults.reads_fail {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        drop(faults);
        self.file.read_exact_at(into, position)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.lock().unwrap().syncs_fail { Err(io::ErrorKind::Other.into()) } else { self.file.sync() }
    }
}

fn faulty(dir: &Path) -> (IdStore, Arc<Mutex<Faults>>) {
    let faults = Arc::new(Mutex::new(Faults::default()));
    let files = FaultyFiles { disk: DiskFiles::open(dir).unwrap(), faults: Arc::clone(&faults) };
    (IdStore::open(Arc::new(files), Kept::Named(&[]), RunId(1), Work::Within).unwrap(), faults)
}

/// Goal: the run that had what was asked for lately is asked first, and no other where it has all; without such a one it is
/// the newest.
#[test]
fn likely_runs_are_asked_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, faults) = faulty(dir.path());
    let (set, runs) = (store.new_set(), [1, 2, 3].map(|salt| spread(40, salt)));
    runs.iter().for_each(|ids| add(&mut store, set, ids));
    // Each run is a page; the greatest of its ids lies behind the first of every other.
    let [oldest, _, newest] = runs.map(|ids| ids.last_key_value().map(|(id, content)| (*id, *content)).unwrap());
    let mut reads_for = |(id, content): (u128, u32)| {
        let before = faults.lock().unwrap().reads;
        assert_eq!(confirm(&mut store, set, &[id]), Ok(vec![Some(content)]));
        faults.lock().unwrap().reads - before
    };
    assert_eq!([newest, oldest, oldest, newest, newest].map(&mut reads_for), [1, 3, 1, 2, 1]);
}

/// Goal: a full disk keeps nothing of a run, which answers from memory, cannot be made durable, and is written when there
/// is room; a failing read is an error that passes, and never an answer.
#[test]
fn a_failing_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, faults) = faulty(dir.path());
    let (set, oracle) = (store.new_set(), spread(5_000, 1));
    let some = *oracle.keys().nth(4_000).unwrap();
    let known = Ok(vec![Some(oracle[&some])]);
    faults.lock().unwrap().room = Some(3_000);
    add(&mut store, set, &oracle);
    assert_eq!(files_in(dir.path()), Vec::<String>::new());
    assert_eq!(confirm(&mut store, set, &[some]), known);
    let usage = store.usage(set);
    assert_eq!(usage.unwritten, 1);
    assert!(usage.bytes >= oracle.len() * 20);
    let runs = runs_of(&store, set);
    assert_eq!(store.keeper().sync(&runs), Err(RunFault::Io(io::ErrorKind::StorageFull)));
    faults.lock().unwrap().room = None;
    let usage = store.usage(set);
    assert_eq!((usage.unwritten, usage.bytes), (0, oracle.len() / 50 * 8));
    assert_eq!(confirm(&mut store, set, &[some]), known);
    faults.lock().unwrap().reads_fail = true;
    assert_eq!(confirm(&mut store, set, &[some]), Err(RunFault::Io(io::ErrorKind::ResourceBusy)));
    faults.lock().unwrap().reads_fail = false;
    assert_eq!(confirm(&mut store, set, &[some]), known);
    faults.lock().unwrap().syncs_fail = true;
    assert_eq!(store.keeper().sync(&runs), Err(RunFault::Io(io::ErrorKind::Other)));
    faults.lock().unwrap().syncs_fail = false;
    assert_eq!(store.keeper().sync(&runs), Err(RunFault::Io(io::ErrorKind::Other)), "what failed once is not trusted");
}

/// Goal: a merge that meets a damaged page, a failing read or a full disk leaves the runs as they were, and no file behind.
#[test]
fn a_failing_merge_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for fault in ["page", "read", "disk"] {
        let dir = dir.path().join(fault);
        let (mut store, faults) = faulty(&dir);
        // More than a sealed set has.
        let (set, oracles) = (store.new_set(), (1..10).map(|salt| spread(500, salt)).collect::<Vec<_>>());
        oracles.iter().for_each(|oracle| add(&mut store, set, oracle));
        let (runs, files) = (runs_of(&store, set), files_in(&dir));
        match fault {
            "page" => {
                let mut bytes = fs::read(dir.join(&files[1])).unwrap();
                bytes[PAGE * 3 + 5] ^= 1;
                fs::write(dir.join(&files[1]), bytes).unwrap();
            }
            "read" => faults.lock().unwrap().reads_fail = true,
            _ => faults.lock().unwrap().room = Some(20_000),
        }
        store.seal(set);
        store.usage(set);
        *faults.lock().unwrap() = Faults::default();
        assert_eq!((runs_of(&store, set), files_in(&dir)), (runs.clone(), files), "{fault}");
        let intact = oracles.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, oracle)| oracle);
        for (id, content) in intact.flat_map(|oracle| oracle.iter().take(40)) {
            // Looks that pass the damaged page over, as the id is in a run that is asked before, or is in another page.
            if let Ok(found) = confirm(&mut store, set, &[*id]) {
                assert_eq!(found, [Some(*content)], "{fault}");
            } else {
                assert_eq!(fault, "page");
            }
        }
        if fault == "page" {
            let damaged = *oracles[1].keys().nth(120).unwrap();
            assert_eq!(confirm(&mut store, set, &[damaged]), Err(RunFault::Damaged(runs[1])));
        }
    }
}

/// Goal: runs that suspects are sought in one after the other become one, sealed or not, and then each suspect is sought in that one;
/// runs in which nobody looks stay as they are.
#[test]
fn runs_that_are_looked_into_are_merged() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), &[]);
        let (set, idle) = (store.new_set(), store.new_set());
        let oracles = [spread(500, 1), spread(500, 2), spread(500, 3)];
        for oracle in &oracles {
            add(&mut store, set, oracle);
            add(&mut store, idle, oracle);
        }
        if sealed {
            store.seal(set);
            store.seal(idle);
        }
        let all: BTreeMap<u128, u32> = oracles.into_iter().flatten().collect();
        for (id, content) in &all {
            assert_eq!(confirm(&mut store, set, &[*id]), Ok(vec![Some(*content)]));
            store.usage(set);
        }
        store.usage(idle);
        assert_eq!((runs_of(&store, set).len(), runs_of(&store, idle).len()), (1, 3), "sealed: {sealed}");
        assert_eq!(scanned(&mut store, set), Ok(all.keys().copied().collect()));
        assert_eq!(files_in(dir.path()).len(), 4, "what was merged is removed");
    }
}
