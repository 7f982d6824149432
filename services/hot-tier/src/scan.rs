//! A scan as a job of the pool: prepared on a scan thread, its tasks run in any order on any thread, their results merge
//! in canonical order by partition.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Instant,
};

use engine::Reader;
use proto::hot_tier::PartitionScan;
use query::{Plan, Source, Task, TaskPartial};
use tokio::sync::oneshot;
use types::{ApiError, LogGap, Offset, PartitionId, Timestamp};

use crate::pool::{Job, Queue};

/// What a scan gives: partitions in the order asked, or the first error.
type Outcome = Result<Vec<PartitionScan>, ApiError>;

/// What stops a scan: its client has left, or its time is up.
#[derive(Debug)]
pub(crate) struct Stop {
    deadline: Instant,
    /// Relaxed: it only has to be seen soon.
    left: AtomicBool,
}

impl Stop {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self { deadline, left: AtomicBool::new(false) }
    }

    /// The client has left.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }
}

/// A scan that waits for a thread to prepare it: taking snapshots and cutting them into tasks may look at rows.
pub(crate) struct Prepare {
    queue: Queue,
    plan: Arc<Plan>,
    readers: Vec<Reader>,
    stop: Arc<Stop>,
    reply: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// What a scan covers of one partition.
struct Covered {
    partition: PartitionId,
    next_offset: Offset,
    evicted_before: Vec<Option<Timestamp>>,
    gaps: Vec<LogGap>,
}

/// A scan under way.
struct Scan {
    plan: Arc<Plan>,
    stop: Arc<Stop>,
    covered: Vec<Covered>,
    tasks: Vec<Task>,
    /// The first task that nobody has taken. Relaxed: the number is all that it says; tasks were published by the queue.
    next: AtomicUsize,
    /// Tasks that are not done. AcqRel: whoever takes it to zero sees what all others stored in `results`.
    left: AtomicUsize,
    /// Held for a push alone, once per task.
    results: Mutex<Result<Vec<TaskPartial>, ApiError>>,
    reply: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Prepare {
    /// Puts a scan of `readers` in the queue; its outcome comes by the receiver.
    pub(crate) fn submit(
        queue: &Queue,
        plan: Arc<Plan>,
        readers: Vec<Reader>,
        stop: Arc<Stop>,
    ) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let prepare = Self { queue: queue.clone(), plan, readers, stop, reply: Mutex::new(Some(reply)) };
        queue.submit(&(Arc::new(prepare) as Arc<dyn Job>), 1);
        outcome
    }

    fn scan(&self) -> Scan {
        let (mut covered, mut sources) = (Vec::new(), Vec::new());
        for reader in &self.readers {
            let partition = reader.partition();
            let keys: Vec<_> = self.plan.tables().iter().map(|table| table.key).collect();
            let (next_offset, snapshots) = reader.snapshots(&keys);
            let evicted_before = snapshots.iter().map(|s| s.as_ref().and_then(|s| s.evicted_before())).collect();
            let may_lack = |gap: &&LogGap| gap.first < next_offset && keys.iter().any(|key| gap.may_hold(*key));
            let gaps = reader.gaps().iter().filter(may_lack).copied().collect();
            covered.push(Covered { partition, next_offset, evicted_before, gaps });
            let found = snapshots.into_iter().enumerate();
            sources
                .extend(found.filter_map(|(table, snapshot)| Some(Source { table, partition, snapshot: snapshot? })));
        }
        let tasks = query::tasks(&self.plan, sources);
        Scan {
            plan: Arc::clone(&self.plan),
            stop: Arc::clone(&self.stop),
            covered,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(tasks.len()),
            results: Mutex::new(Ok(Vec::with_capacity(tasks.len()))),
            tasks,
            reply: Mutex::new(lock(&self.reply).take()),
        }
    }
}

impl Job for Prepare {
    fn run_next(&self) -> bool {
        let scan = Arc::new(self.scan());
        match scan.tasks.len() {
            0 => scan.finish(),
            // The thread that is here already saves the way through the queue.
            1 => drop(scan.run_next()),
            tasks => self.queue.submit(&(scan as Arc<dyn Job>), tasks),
        }
        false
    }
}

impl Job for Scan {
    fn run_next(&self) -> bool {
        let at = self.next.fetch_add(1, Relaxed);
        let Some(task) = self.tasks.get(at) else { return false };
        let result = self.run(task);
        {
            let mut results = lock(&self.results);
            match (results.as_mut(), result) {
                (Ok(results), Ok(partial)) => results.push(partial),
                // The first error is the answer; the memory of what was done is not kept until the last task.
                (Ok(_), Err(error)) => *results = Err(error),
                (Err(_), _) => {}
            }
        }
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.finish();
        }
        at + 1 < self.tasks.len()
    }
}

impl Scan {
    fn run(&self, task: &Task) -> Result<TaskPartial, ApiError> {
        let expired = || Instant::now() >= self.stop.deadline;
        query::run(&self.plan, task, &query::Cancel::new(&self.stop.left, &expired))
    }

    /// Merges and replies; runs once, on the thread that did the last task.
    fn finish(&self) {
        let results = mem::replace(&mut *lock(&self.results), Ok(Vec::new()));
        let outcome = results.and_then(|results| self.merge(results));
        if let Some(reply) = lock(&self.reply).take() {
            // Nobody waits any more if the client has left.
            let _ = reply.send(outcome);
        }
    }

    fn merge(&self, mut results: Vec<TaskPartial>) -> Outcome {
        let mut scans = Vec::with_capacity(self.covered.len());
        for covered in &self.covered {
            let partition = covered.partition;
            let of_partition = results.extract_if(.., |result| result.partition() == partition).collect();
            scans.push(PartitionScan {
                partition,
                partial: query::merge(&self.plan, partition, of_partition)?,
                next_offset: covered.next_offset,
                evicted_before: covered.evicted_before.clone(),
                gaps: covered.gaps.clone(),
            });
        }
        Ok(scans)
    }
}

/// A lock whose holders cannot panic between changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
