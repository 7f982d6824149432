//! What is done beside the writer: runs are written, merged, made durable and removed, in this order of urgency.
//!
//! The worker decides nothing about what there is: each job says what to do, and the run that it makes says when that is
//! done. A queue holds one job per run that is in memory anyway, and the partition's budget counts those.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use engine::{FrozenIds, RunFault, RunId};

use crate::{
    files::RunFiles,
    merge::{Merge, MergeFault},
    run::Run,
    run_file::{RunOnDisk, RunWriter, name_of},
};

/// How long the worker waits before it tries again what the disk did not take.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What the worker is told.
pub(crate) enum Job {
    /// To write a run.
    Write(Arc<Run>, Arc<FrozenIds>),
    /// To make one run of several.
    Merge { inputs: Vec<Arc<Run>>, output: Arc<Run> },
    /// To make runs durable, and to say so.
    Sync(Vec<Arc<Run>>, Sender<Result<(), RunFault>>),
    /// To end.
    Stop,
}

/// Does jobs.
pub(crate) struct Worker {
    files: Arc<dyn RunFiles>,
    removals: Receiver<RunId>,
    writes: VecDeque<(Arc<Run>, Arc<FrozenIds>)>,
    merges: VecDeque<(Vec<Arc<Run>>, Arc<Run>)>,
    merging: Option<(Arc<Run>, Merge)>,
}

impl Worker {
    pub(crate) fn new(files: Arc<dyn RunFiles>, removals: Receiver<RunId>) -> Self {
        Self { files, removals, writes: VecDeque::new(), merges: VecDeque::new(), merging: None }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Write(run, ids) => self.writes.push_back((run, ids)),
            Job::Merge { inputs, output } => self.merges.push_back((inputs, output)),
            Job::Sync(runs, done) => {
                // What came before it is written first. Nobody waits any more where the answer cannot be sent.
                self.write_all();
                let _ = done.send(self.sync(&runs));
            }
            Job::Stop => {}
        }
    }

    /// Does the most urgent piece of work. `false`: there is none, or none that can be done now.
    fn step(&mut self) -> bool {
        let wrote = self.write_next();
        for run in self.removals.try_iter() {
            self.remove(run);
        }
        wrote || self.merge_some()
    }

    fn write_all(&mut self) {
        while self.write_next() {}
    }

    /// Writes the run that has waited longest; `false` where there is none, or the disk does not take it.
    fn write_next(&mut self) -> bool {
        // While the disk takes nothing, windows pass: what nobody can ask for any more is not to be kept in memory for it.
        self.writes.retain(|(run, _)| !(run.is_forgotten() && Arc::strong_count(run) == 1));
        let Some((run, ids)) = self.writes.front() else { return false };
        match write(self.files.as_ref(), run, ids) {
            Ok(written) => {
                run.set_outcome(Ok(written));
                self.writes.pop_front();
                true
            }
            Err(error) => {
                if !run.is_refused() {
                    tracing::error!(run = run.id.0, ids = run.ids, %error, "a run of ids cannot be written; memory keeps it");
                }
                run.set_refused();
                // What there is of it takes room that may be the very thing that is lacking.
                let _ = self.files.remove(&name_of(run.id));
                false
            }
        }
    }

    /// Goes on with the merge under way, or begins the next.
    fn merge_some(&mut self) -> bool {
        let (output, merge) = match self.merging.take() {
            Some(merging) => merging,
            None => {
                let Some((inputs, output)) = self.merges.pop_front() else { return false };
                match Merge::begin(self.files.as_ref(), inputs, &output) {
                    Ok(merge) => (output, merge),
                    Err(fault) => {
                        self.end_merge(&output, Err(fault));
                        return true;
                    }
                }
            }
        };
        let mut merge = merge;
        match merge.step() {
            Ok(true) => self.merging = Some((output, merge)),
            Ok(false) => self.end_merge(&output, merge.finish()),
            Err(fault) => self.end_merge(&output, Err(fault)),
        }
        true
    }

    fn end_merge(&self, output: &Run, outcome: Result<RunOnDisk, MergeFault>) {
        let outcome = outcome.map_err(|fault| match fault {
            MergeFault::Read(fault) => fault,
            MergeFault::Write(error) => RunFault::Io(error.kind()),
        });
        if let Err(fault) = &outcome {
            tracing::error!(run = output.id.0, %fault, "runs of ids cannot be merged; they stay as they are");
            let _ = self.files.remove(&name_of(output.id));
        }
        output.set_outcome(outcome);
    }

    fn sync(&self, runs: &[Arc<Run>]) -> Result<(), RunFault> {
        let fresh: Vec<_> = runs.iter().filter(|run| !run.is_synced()).collect();
        for run in &fresh {
            run.sync()?;
        }
        if !fresh.is_empty() {
            self.files.sync_names().map_err(|error| RunFault::Io(error.kind()))?;
        }
        fresh.iter().for_each(|run| run.set_synced());
        Ok(())
    }

    fn remove(&self, run: RunId) {
        match self.files.remove(&name_of(run)) {
            Ok(()) => {}
            // It was never written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(run = run.0, %error, "the file of a run that is no longer needed cannot be removed");
            }
        }
    }

    /// Does what it is told until it is told to end.
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            for job in jobs.try_iter() {
                if matches!(job, Job::Stop) {
                    return;
                }
                self.take(job);
            }
            if self.step() {
                continue;
            }
            match jobs.recv_timeout(RETRY_INTERVAL) {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn write(files: &dyn RunFiles, run: &Run, ids: &FrozenIds) -> io::Result<RunOnDisk> {
    let mut writer = RunWriter::create(files, run.id, run.ids)?;
    ids.each_sorted(|id, content| writer.push(id, content))?;
    writer.finish()
}

/// The worker ended before its store, which it does where it panicked.
#[derive(Debug)]
pub(crate) struct WorkerEnded;

/// Where jobs are done.
#[derive(Clone)]
pub(crate) enum Jobs {
    /// On a thread of their own.
    Beside(Sender<Job>),
    /// By whoever asks, before the call returns.
    Within(Arc<Mutex<Worker>>),
}

impl Jobs {
    /// Starts the worker's thread.
    pub(crate) fn beside(worker: Worker) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("id-runs".to_owned()).spawn(move || worker.run(&receiver))?;
        Ok((Self::Beside(sender), thread))
    }

    pub(crate) fn within(worker: Worker) -> Self {
        Self::Within(Arc::new(Mutex::new(worker)))
    }

    /// Hands over a job.
    ///
    /// # Errors
    /// There is no worker any more. The job is lost, and so is who waits for its answer.
    pub(crate) fn send(&self, job: Job) -> Result<(), WorkerEnded> {
        match self {
            Self::Beside(sender) => sender.send(job).map_err(|_| WorkerEnded),
            Self::Within(worker) => {
                let mut worker = lock(worker);
                worker.take(job);
                while worker.step() {}
                Ok(())
            }
        }
    }

    /// Tries again what could not be done, where no thread does.
    pub(crate) fn nudge(&self) {
        if let Self::Within(worker) = self {
            let mut worker = lock(worker);
            while worker.step() {}
        }
    }
}

// A worker that panicked has left its queue as it was.
fn lock(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}
