//! The runs of one partition, as its writer asks them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    fmt, io,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use engine::{FrozenIds, IdRuns, PinnedRun, RunFault, RunId, RunSet, SetUsage};

use crate::{
    files::{DiskFiles, RunFiles},
    format::{PAGE_BYTES, Page},
    keeper::RunKeeper,
    merge::plan,
    run::{Registry, Run},
    run_file::{RunOnDisk, run_of},
    worker::{Job, Jobs, Worker},
};

/// How long a set whose runs could not be merged is left alone by a worker of its own. One within the writer tries again when
/// it is called next: what it does follows from the calls alone.
const MERGE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The directory of runs cannot be made or emptied, or there is no thread to be had.
#[derive(Debug, thiserror::Error)]
#[error("prepare the directory of id runs")]
pub struct OpenError(#[from] io::Error);

/// Who writes and merges runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A thread beside the writer.
    Beside,
    /// The writer, whenever it calls: for tests and simulations, which want to know when.
    Within,
}

/// Runs in files. One per partition, in a directory of its own.
pub struct IdStore {
    sets: HashMap<RunSet, Set>,
    registry: Arc<Registry>,
    jobs: Jobs,
    worker: Option<JoinHandle<()>>,
    merge_again_after: Duration,
    /// Runs of an earlier life that are in no set, or cannot be read.
    earlier: HashMap<RunId, Arc<Run>>,
    /// Whether those that nobody takes over or retains are needed by nobody.
    all_named: bool,
    next: u64,
    page: Box<Page>,
}

/// The runs of a slice.
#[derive(Default)]
struct Set {
    /// Oldest first.
    runs: Vec<Held>,
    sealed: bool,
    /// What some of the runs are being merged into.
    merging: Option<Arc<Run>>,
    merge_again_at: Option<Instant>,
    /// How often a suspect was sought in a further run since a merge was last begun.
    looks: usize,
}

struct Held {
    run: Arc<Run>,
    /// Its ids, until they are written.
    ids: Option<Arc<FrozenIds>>,
    /// Whether the merge under way replaces it.
    merged: bool,
    /// How many suspects it lately had, each look counting half as much as the next.
    hits: usize,
}

impl Held {
    fn new(run: Arc<Run>, ids: Option<Arc<FrozenIds>>) -> Self {
        Self { run, ids, merged: false, hits: 0 }
    }

    fn confirm(&self, page: &mut Page, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        match (&self.ids, self.run.on_disk()) {
            (_, Some(disk)) => disk.confirm(page, suspects, found),
            (Some(ids), None) => {
                ids.confirm(suspects, found);
                Ok(())
            }
            (None, None) => Err(RunFault::Unknown(self.run.id)),
        }
    }
}

impl fmt::Debug for IdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdStore").field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}

/// Which runs of an earlier life a store is opened with.
#[derive(Debug, Clone, Copy)]
pub enum Kept<'a> {
    /// All that are there, up to the next start: it is not known which of them are needed.
    All,
    /// These, in any order; one may come twice.
    Named(&'a [RunId]),
}

impl IdStore {
    /// A store in a directory of the local disk, with the runs `kept` of an earlier life; the others are removed.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open_on_disk(dir: &Path, kept: Kept<'_>) -> Result<Self, OpenError> {
        // Numbers never come again, also not those of runs whose files are gone and that no checkpoint names: time goes on
        // while the process is away.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
        Self::open(Arc::new(DiskFiles::open(dir)?), kept, RunId(now), Work::Beside)
    }

    /// A store over a directory, with the runs `kept` of an earlier life; the others are removed. New runs are numbered
    /// from `first` on, or from behind the greatest number that is there or was to be.
    ///
    /// A kept run that cannot be read is an error when a set is to take it over; its file stays like that of any other, as
    /// what fails now may pass. What no set has taken over when the first run is added stays only where a checkpoint retains
    /// it, or all are kept.
    ///
    /// # Errors
    /// As the system has it.
    pub fn open(files: Arc<dyn RunFiles>, kept: Kept<'_>, first: RunId, work: Work) -> Result<Self, OpenError> {
        let (removals, to_remove) = crossbeam_channel::unbounded();
        let registry = Arc::new(Registry::new(removals));
        let names = files.list()?;
        let there = names.iter().filter_map(|name| Some((run_of(name)?, name)));
        let (mut earlier, mut next) = (HashMap::new(), first.0);
        there.clone().for_each(|(run, _)| next = next.max(run.0.saturating_add(1)));
        // Checkpoints share runs, and each names all of its own; a run is entered once.
        let all_named = matches!(kept, Kept::Named(_));
        let kept: BTreeSet<RunId> = match kept {
            Kept::All => there.clone().map(|(run, _)| run).collect(),
            Kept::Named(kept) => kept.iter().copied().collect(),
        };
        // Also one that is lost: a checkpoint that names it must not find another set of ids under its number.
        kept.iter().for_each(|run| next = next.max(run.0.saturating_add(1)));
        there.filter(|(run, _)| !kept.contains(run)).try_for_each(|(_, name)| files.remove(name))?;
        for run in kept {
            let opened = RunOnDisk::open(files.as_ref(), run);
            match opened.as_ref().err() {
                Some(fault) if all_named => tracing::error!(run = run.0, %fault, "a run of ids cannot be read"),
                // Mostly one that the last life had begun to write.
                Some(fault) => tracing::warn!(run = run.0, %fault, "a run of ids that may be needed cannot be read"),
                None => {}
            }
            let entered = registry.enter(run, opened.as_ref().map_or(0, RunOnDisk::ids));
            if opened.is_ok() {
                entered.set_synced();
            }
            entered.set_outcome(opened);
            earlier.insert(run, entered);
        }
        let worker = Worker::new(files, to_remove);
        let (jobs, worker, merge_again_after) = match work {
            Work::Beside => {
                let (jobs, thread) = Jobs::beside(worker)?;
                (jobs, Some(thread), MERGE_AGAIN_AFTER)
            }
            Work::Within => (Jobs::within(worker), None, Duration::ZERO),
        };
        let (sets, page) = (HashMap::new(), Box::new([0; PAGE_BYTES]));
        Ok(Self { sets, registry, jobs, worker, merge_again_after, earlier, all_named, next, page })
    }

    /// What checkpoints need of the runs; for any thread.
    #[must_use]
    pub fn keeper(&self) -> RunKeeper {
        RunKeeper::new(Arc::clone(&self.registry), self.jobs.clone())
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Gives the worker a job.
    ///
    /// # Panics
    /// There is no worker any more: ids would pile up in memory, and checkpoints fail, until the next start.
    fn send(&self, job: Job) {
        self.jobs.send(job).expect("the thread that writes runs of ids panicked before");
    }

    /// Takes notice of what the worker did with a set, and gives it more to do.
    fn look_after(&mut self, set: RunSet) {
        let Some(runs) = self.sets.get_mut(&set) else { return };
        runs.runs.iter_mut().filter(|held| held.run.on_disk().is_some()).for_each(|held| held.ids = None);
        runs.take_merged(self.merge_again_after);
        if runs.merging.is_some() || runs.merge_again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let written = runs.runs.iter().take_while(|held| held.ids.is_none());
        let sizes: Vec<usize> = written.map(|held| held.run.ids).collect();
        let Some(range) = plan(&sizes, runs.sealed && sizes.len() == runs.runs.len(), runs.looks) else { return };
        let ids = sizes[range.clone()].iter().sum();
        let output = RunId(self.next());
        let output = self.registry.enter(output, ids);
        let runs = self.sets.get_mut(&set).expect("found above");
        runs.runs[range.clone()].iter_mut().for_each(|held| held.merged = true);
        (runs.merging, runs.looks) = (Some(Arc::clone(&output)), 0);
        let inputs = runs.runs[range].iter().map(|held| Arc::clone(&held.run)).collect();
        self.send(Job::Merge { inputs, output });
    }

    /// Lets go of the runs of an earlier life that no set has taken over: those that checkpoints name have a hold of theirs,
    /// and where one is not known, its runs stay.
    fn settle(&mut self) {
        let all_named = self.all_named;
        self.earlier.drain().filter(|_| all_named).for_each(|(_, run)| {
            let wanted = self.sets.values().any(|set| set.runs.iter().any(|held| held.run.id == run.id));
            if !wanted {
                run.forget();
            }
        });
    }
}

impl Set {
    /// Puts a merged run in the place of its parts, if it is there.
    fn take_merged(&mut self, again_after: Duration) {
        let Some(outcome) = self.merging.as_ref().and_then(|run| run.outcome()) else { return };
        let output = self.merging.take().expect("its outcome is known");
        if outcome.is_err() {
            self.runs.iter_mut().for_each(|held| held.merged = false);
            self.merge_again_at = (!again_after.is_zero()).then(|| Instant::now() + again_after);
            return;
        }
        self.merge_again_at = None;
        let at = self.runs.iter().position(|held| held.merged).expect("a merge has inputs");
        self.runs.iter().filter(|held| held.merged).for_each(|held| held.run.forget());
        let hits = self.runs.iter().filter(|held| held.merged).map(|held| held.hits).sum();
        self.runs.retain(|held| !held.merged);
        self.runs.insert(at, Held { hits, ..Held::new(output, None) });
    }

    /// Asks the runs for the suspects that are not found yet. An id is in one run at most, so that the order in which runs
    /// are asked is one of costs: first comes what held the most suspects lately, as what is sent again was mostly sent
    /// in the course of one past time; then the newest.
    fn confirm(&mut self, page: &mut Page, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        let mut likely: Vec<&mut Held> = self.runs.iter_mut().rev().collect();
        likely.sort_by_key(|held| Reverse(held.hits));
        let mut open = still_open(found);
        for (at, held) in likely.into_iter().enumerate() {
            let before = open;
            if before > 0 {
                held.confirm(page, suspects, found)?;
                open = still_open(found);
                self.looks += if at > 0 { before } else { 0 };
            }
            held.hits = held.hits / 2 + (before - open);
        }
        Ok(())
    }
}

fn still_open(found: &[Option<u32>]) -> usize {
    found.iter().filter(|found| found.is_none()).count()
}

impl IdRuns for IdStore {
    fn new_set(&mut self) -> RunSet {
        let set = RunSet(self.next());
        self.sets.insert(set, Set::default());
        set
    }

    fn add(&mut self, set: RunSet, ids: Arc<FrozenIds>) {
        self.settle();
        let run = RunId(self.next());
        let run = self.registry.enter(run, ids.len());
        let held = Held::new(Arc::clone(&run), Some(Arc::clone(&ids)));
        self.sets.entry(set).or_default().runs.push(held);
        self.send(Job::Write(run, ids));
        self.look_after(set);
    }

    fn seal(&mut self, set: RunSet) {
        if let Some(runs) = self.sets.get_mut(&set) {
            runs.sealed = true;
        }
        self.look_after(set);
    }

    fn confirm(&mut self, set: RunSet, suspects: &[u128], found: &mut [Option<u32>]) -> Result<(), RunFault> {
        self.sets.get_mut(&set).map_or(Ok(()), |set| set.confirm(&mut self.page, suspects, found))
    }

    fn drop_set(&mut self, set: RunSet) {
        let Some(set) = self.sets.remove(&set) else { return };
        set.runs.iter().for_each(|held| held.run.forget());
        set.merging.iter().for_each(|run| run.forget());
        drop(set);
        self.jobs.nudge();
    }

    fn usage(&mut self, set: RunSet) -> SetUsage {
        self.jobs.nudge();
        self.look_after(set);
        let runs = self.sets.get(&set).map_or(&[][..], |set| set.runs.as_slice());
        let in_memory = runs.iter().filter_map(|held| held.ids.as_ref()).map(|ids| ids.bytes()).sum::<usize>();
        let fences = runs.iter().filter_map(|held| held.run.on_disk()).map(RunOnDisk::bytes).sum::<usize>();
        let unwritten = runs.iter().filter(|held| held.run.is_refused()).count();
        SetUsage { bytes: in_memory + fences, unwritten }
    }

    fn pin(&self, set: RunSet) -> Vec<PinnedRun> {
        let runs = self.sets.get(&set).map_or(&[][..], |set| set.runs.as_slice());
        runs.iter().map(|held| PinnedRun { run: held.run.id, pin: Arc::clone(&held.run) as _ }).collect()
    }

    fn restore_set(&mut self, runs: &[RunId]) -> Result<(RunSet, usize), RunFault> {
        let found = |run: &RunId| {
            let earlier = self.earlier.get(run).ok_or(RunFault::Unknown(*run))?;
            earlier.outcome().unwrap_or(Err(RunFault::Unknown(*run))).map(|()| Arc::clone(earlier))
        };
        let runs = runs.iter().map(found).collect::<Result<Vec<_>, _>>()?;
        let ids = runs.iter().map(|run| run.ids).sum();
        let set = self.new_set();
        let runs = runs.into_iter().map(|run| Held::new(run, None)).collect();
        self.sets.insert(set, Set { runs, ..Set::default() });
        Ok((set, ids))
    }

    fn scan(&mut self, set: RunSet, each: &mut dyn FnMut(&[u128])) -> Result<(), RunFault> {
        for held in self.sets.get(&set).into_iter().flat_map(|set| set.runs.iter()) {
            held.run.on_disk().ok_or(RunFault::Unknown(held.run.id))?.scan(each)?;
        }
        Ok(())
    }
}

impl Drop for IdStore {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            // It may have ended before.
            let _ = self.jobs.send(Job::Stop);
            let _ = worker.join();
        }
        self.registry.release_all();
    }
}
