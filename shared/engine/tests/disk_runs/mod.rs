//! Runs of ids that outlive whoever wrote them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use engine::{FrozenIds, IdRuns, PinnedRun, RunFault, RunId, RunSet, SetUsage};

/// What a life of the process leaves on the disk: all runs that it ever wrote, whoever dropped them since.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    runs: Arc<Mutex<BTreeMap<RunId, Arc<FrozenIds>>>>,
}

/// The runs of one life.
#[derive(Default)]
pub(crate) struct Runs {
    disk: Disk,
    sets: HashMap<RunSet, Vec<RunId>>,
    next_set: u64,
}

impl Runs {
    /// Over what earlier lives left.
    pub(crate) fn on(disk: &Disk) -> Self {
        Self { disk: disk.clone(), ..Self::default() }
    }

    fn of(&self, set: RunSet) -> Vec<Arc<FrozenIds>> {
        let disk = self.disk.runs.lock().expect("no test panics in here");
        self.sets[&set].iter().map(|run| Arc::clone(&disk[run])).collect()
    }
}

impl IdRuns for Runs {
    fn new_set(&mut self) -> RunSet {
        self.next_set += 1;
        self.sets.insert(RunSet(self.next_set), Vec::new());
        RunSet(self.next_set)
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        let mut disk = self.disk.runs.lock().expect("no test panics in here");
        let run = RunId(disk.len() as u64);
        disk.insert(run, ids);
        self.sets.get_mut(&set).expect("a set of this life").push(run);
    }

    fn seal(&mut self, _: RunSet) {}

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        for run in self.of(set) {
            suspects.iter().zip(found.iter_mut()).for_each(|(suspect, found)| *found = found.or(run.find(*suspect)));
        }
        Ok(())
    }

    fn drop_set(&mut self, set: RunSet) {
        self.sets.remove(&set);
    }

    fn usage(&mut self, _: RunSet) -> SetUsage {
        SetUsage::default()
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        let pinned = self.sets[&set].iter().zip(self.of(set));
        pinned.map(|(run, ids)| PinnedRun { run: *run, pin: ids }).collect()
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        let disk = self.disk.runs.lock().expect("no test panics in here");
        if let Some(unknown) = runs.iter().find(|run| !disk.contains_key(run)) {
            return Err(RunFault::Unknown(*unknown));
        }
        drop(disk);
        let set = self.new_set();
        self.sets.insert(set, runs.to_vec());
        Ok((set, self.of(set).iter().map(|run| run.len()).sum()))
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        self.of(set).iter().for_each(|run| each(&sorted(run)));
        Ok(())
    }
}

/// The ids in the order in which they are written.
fn sorted(ids: &FrozenIds) -> Vec<u128> {
    let mut sorted = Vec::with_capacity(ids.len());
    let Ok(()) = ids.each_sorted(|id, _| {
        sorted.push(id);
        Ok::<_, std::convert::Infallible>(())
    });
    sorted
}
