//! Runs on disk against plain maps, and under faults.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use engine::{IdRuns, RunFault, RunId};
use id_store::{DiskFiles, IdStore, RunFile, RunFiles, Sink};
use proptest::prelude::*;

/// Ids spread over the whole range, and a content for each.
fn spread(count: u64, salt: u64) -> BTreeMap<u128, u32> {
    let mix = |n: u64| {
        let n = (n ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    (0..count).map(|n| (u128::from(mix(n)) << 64 | u128::from(n), mix(n + 7) as u32)).collect()
}

fn write(store: &mut IdStore, ids: &BTreeMap<u128, u32>) -> Result<RunId, RunFault> {
    let (keys, contents): (Vec<_>, Vec<_>) = ids.iter().map(|(id, content)| (*id, *content)).unzip();
    store.write_run(&keys, &contents)
}

fn confirm(store: &mut IdStore, run: RunId, suspects: &[u128]) -> Result<Vec<Option<u32>>, RunFault> {
    let mut found = vec![None; suspects.len()];
    store.confirm(run, suspects, &mut found).map(|()| found)
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: a run on disk answers like the map that it was made of, whatever is asked, near its ids, between and beyond.
    #[test]
    fn runs_match_a_map(
        runs in prop::collection::vec((1_u64..1_500, any::<u64>()), 1..4),
        strangers in prop::collection::vec(any::<u128>(), 0..50),
        every in 1_usize..40,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = IdStore::open_on_disk(dir.path()).unwrap();
        let oracles: Vec<_> = runs.iter().map(|(count, salt)| spread(*count, *salt)).collect();
        let ids: Vec<_> = oracles.iter().map(|oracle| write(&mut store, oracle).unwrap()).collect();
        for (run, oracle) in ids.iter().zip(&oracles) {
            let near = oracle.keys().step_by(every).flat_map(|id| [*id, *id, id.wrapping_add(1), id.wrapping_sub(1)]);
            let mut suspects: Vec<u128> = near.chain(strangers.iter().copied()).chain([0, u128::MAX]).collect();
            suspects.sort_unstable();
            let found = confirm(&mut store, *run, &suspects).unwrap();
            for (suspect, found) in suspects.iter().zip(found) {
                prop_assert_eq!(found, oracle.get(suspect).copied());
            }
        }
    }
}

/// Goal: a damaged byte anywhere in a block is an error whenever the block is needed, and never an answer; other blocks
/// still answer. So are a file cut off, and a block that stands in the place of another.
#[test]
fn damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = IdStore::open_on_disk(dir.path()).unwrap();
    let oracle = spread(500, 1);
    let run = write(&mut store, &oracle).unwrap();
    let path = dir.path().join(&files_in(dir.path())[0]);
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), 4_096 * 4, "a head and three blocks");
    let keys: Vec<u128> = oracle.keys().copied().collect();
    for at in (4_096..8_192).step_by(61).chain([8_191]) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert_eq!(confirm(&mut store, run, &keys[..1]), Err(RunFault::Damaged(run)), "byte {at}");
        assert_eq!(confirm(&mut store, run, &keys[300..301]), Ok(vec![Some(oracle[&keys[300]])]));
    }
    let swapped = [&good[..4_096], &good[8_192..12_288], &good[4_096..8_192], &good[12_288..]].concat();
    fs::write(&path, swapped).unwrap();
    assert_eq!(confirm(&mut store, run, &keys[..1]), Err(RunFault::Damaged(run)));
    fs::write(&path, &good[..4_096 * 2 + 100]).unwrap();
    assert_eq!(confirm(&mut store, run, &keys[..1]), Ok(vec![Some(oracle[&keys[0]])]));
    assert_eq!(confirm(&mut store, run, &keys[300..301]), Err(RunFault::Damaged(run)));
}

/// Goal: runs of an earlier life are removed at the start, dropped ones at once, and a run that is not there is an error.
#[test]
fn files_come_and_go_with_their_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = IdStore::open_on_disk(&dir.path().join("ids")).unwrap();
    let oracle = spread(10, 1);
    let (first, second) = (write(&mut store, &oracle).unwrap(), write(&mut store, &oracle).unwrap());
    store.drop_run(first);
    assert_eq!(files_in(&dir.path().join("ids")).len(), 1);
    let some = *oracle.keys().next().unwrap();
    assert_eq!(confirm(&mut store, first, &[some]), Err(RunFault::Unknown(first)));
    assert_eq!(confirm(&mut store, second, &[some]), Ok(vec![Some(oracle[&some])]));
    drop(store);
    IdStore::open_on_disk(&dir.path().join("ids")).unwrap();
    assert_eq!(files_in(&dir.path().join("ids")), Vec::<String>::new());
}

/// What goes wrong next.
#[derive(Debug, Default)]
struct Faults {
    /// Bytes that the disk still takes.
    room: Option<usize>,
    reads_fail: bool,
}

/// The disk, with faults.
struct FaultyFiles {
    disk: DiskFiles,
    faults: Arc<Mutex<Faults>>,
}

struct FaultyFile {
    file: Box<dyn RunFile>,
    faults: Arc<Mutex<Faults>>,
}

impl RunFiles for FaultyFiles {
    fn write(
        &mut self,
        name: &str,
        fill: &mut dyn FnMut(&mut Sink<'_>) -> io::Result<()>,
    ) -> io::Result<Box<dyn RunFile>> {
        let faults = &self.faults;
        let file = self.disk.write(name, &mut |sink| {
            fill(&mut |part| {
                let Some(room) = faults.lock().unwrap().room else { return sink(part) };
                sink(&part[..part.len().min(room)])?;
                if part.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            })
        })?;
        Ok(Box::new(FaultyFile { file, faults: Arc::clone(&self.faults) }))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
}

impl RunFile for FaultyFile {
    fn read_exact_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        if self.faults.lock().unwrap().reads_fail {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.file.read_exact_at(into, position)
    }
}

/// Goal: a full disk refuses a run and keeps nothing of it, and takes it when there is room; a failing read is an error
/// that passes, and never an answer.
#[test]
fn a_failing_disk_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Mutex::new(Faults::default()));
    let disk = DiskFiles::open_empty(dir.path()).unwrap();
    let mut store = IdStore::new(Box::new(FaultyFiles { disk, faults: Arc::clone(&faults) }));
    let oracle = spread(5_000, 1);
    faults.lock().unwrap().room = Some(3_000);
    assert_eq!(write(&mut store, &oracle), Err(RunFault::Io(io::ErrorKind::StorageFull)));
    assert_eq!(files_in(dir.path()), Vec::<String>::new());
    faults.lock().unwrap().room = None;
    let run = write(&mut store, &oracle).unwrap();
    let some = *oracle.keys().nth(4_000).unwrap();
    faults.lock().unwrap().reads_fail = true;
    assert_eq!(confirm(&mut store, run, &[some]), Err(RunFault::Io(io::ErrorKind::ResourceBusy)));
    faults.lock().unwrap().reads_fail = false;
    assert_eq!(confirm(&mut store, run, &[some]), Ok(vec![Some(oracle[&some])]));
}
