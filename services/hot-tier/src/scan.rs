//! A scan as a job of the pool: prepared on a scan thread, its tasks run in any order on any thread, their results merge
//! in canonical order by partition.
//!
//! A result waits only for those of its partition that come before it. Whichever thread brings one while nobody merges that
//! partition merges what is in order, and finishes the partition after its last task. So partitions merge at the same time,
//! and a scan holds little more than a result per thread beside what is merged.

use std::{
    collections::BTreeMap,
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
use query::{Partial, PartitionMerge, Plan, Source, Task, TaskPartial};
use tokio::sync::oneshot;
use types::{ApiError, LogGap, Offset, PartitionId, TableKey, Timestamp};

use crate::{
    kept::KeptResults,
    pool::{Job, Queue},
};

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

    /// Does some work that looks at a [`query::Cancel`].
    pub(crate) fn watch<R>(&self, work: impl FnOnce(&query::Cancel<'_>) -> R) -> R {
        let expired = || Instant::now() >= self.deadline;
        work(&query::Cancel::new(&self.left, &expired))
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
    /// What to read, and at which earlier offset.
    readers: Vec<(Reader, Option<Offset>)>,
    kept: Arc<KeptResults>,
    stop: Arc<Stop>,
    reply: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// What a scan covers of one partition.
struct Covered {
    partition: PartitionId,
    next_offset: Offset,
    lacks_before: Vec<Option<Timestamp>>,
    gaps: Vec<LogGap>,
}

/// The merge of a partition.
struct Merging {
    /// The task whose result is merged next, and the end of the partition's tasks.
    next: usize,
    end: usize,
    waiting: BTreeMap<usize, TaskPartial>,
    state: MergeState,
}

enum MergeState {
    Idle(Box<PartitionMerge>),
    /// Some thread has it.
    Taken,
    Done(Partial),
}

/// A scan under way.
struct Scan {
    plan: Arc<Plan>,
    kept: Arc<KeptResults>,
    /// What the keys of its tasks have in common; `None`: none of its results is kept.
    form: Option<Arc<[u8]>>,
    stop: Arc<Stop>,
    covered: Vec<Covered>,
    tasks: Vec<Task>,
    /// The first task that nobody has taken. Relaxed: the number is all that it says; tasks were published by the queue.
    next: AtomicUsize,
    /// Tasks that are not done. AcqRel: whoever takes it to zero sees what all others merged.
    left: AtomicUsize,
    /// By place in `covered`.
    merging: Vec<Mutex<Merging>>,
    /// Bytes of all results, waiting and merged. Relaxed: a bound, which nothing else hangs on.
    bytes: AtomicUsize,
    /// The first error, which is the answer.
    failed: Mutex<Option<ApiError>>,
    reply: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Prepare {
    /// Puts a scan of `readers` in the queue; its outcome comes by the receiver.
    pub(crate) fn submit(
        queue: &Queue,
        plan: Arc<Plan>,
        readers: Vec<(Reader, Option<Offset>)>,
        kept: Arc<KeptResults>,
        stop: Arc<Stop>,
    ) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let prepare = Self { queue: queue.clone(), plan, readers, kept, stop, reply: Mutex::new(Some(reply)) };
        queue.submit(&(Arc::new(prepare) as Arc<dyn Job>), 1);
        outcome
    }

    fn scan(&self) -> Result<Scan, ApiError> {
        let (mut covered, mut sources) = (Vec::new(), Vec::new());
        for (reader, at) in &self.readers {
            let partition = reader.partition();
            let keys: Vec<_> = self.plan.tables().iter().map(|table| table.key).collect();
            let (next_offset, snapshots) = match *at {
                None => reader.snapshots(&keys),
                Some(offset) => (offset, reader.snapshots_at(&keys, offset).ok_or_else(|| behind(partition, offset))?),
            };
            let (lacks_before, gaps) = (vec![None; keys.len()], gaps_before(reader, next_offset, &keys));
            covered.push(Covered { partition, next_offset, lacks_before, gaps });
            let found = snapshots.into_iter().enumerate();
            sources
                .extend(found.filter_map(|(table, snapshot)| Some(Source { table, partition, snapshot: snapshot? })));
        }
        let tasks = query::tasks(&self.plan, sources);
        for task in &tasks {
            let place = covered.iter_mut().find(|covered| covered.partition == task.partition());
            place.expect("tasks are of the partitions that are covered").lacks_before[task.table()] =
                task.lacks_before(&self.plan);
        }
        let merging = covered.iter().map(|covered| Mutex::new(Merging::new(covered.partition, &tasks)));
        Ok(Scan {
            form: self.kept.form(&self.plan),
            kept: Arc::clone(&self.kept),
            plan: Arc::clone(&self.plan),
            stop: Arc::clone(&self.stop),
            merging: merging.collect(),
            covered,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(tasks.len()),
            bytes: AtomicUsize::new(0),
            failed: Mutex::new(None),
            tasks,
            reply: Mutex::new(lock(&self.reply).take()),
        })
    }
}

/// The error of a scan at an offset of another time: the node was started anew and is not there yet.
fn behind(partition: PartitionId, offset: Offset) -> ApiError {
    ApiError::unavailable(format!("partition {partition} has not applied offset {offset} yet; ask again"))
}

impl Job for Prepare {
    fn run_next(&self) -> bool {
        let scan = match self.scan() {
            Ok(scan) => Arc::new(scan),
            Err(error) => {
                if let Some(reply) = lock(&self.reply).take() {
                    // Nobody waits any more if the client has left.
                    let _ = reply.send(Err(error));
                }
                return false;
            }
        };
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
        // After an error the other tasks would be done for nothing.
        if lock(&self.failed).is_none()
            && let Err(error) = self.run(at, task)
        {
            lock(&self.failed).get_or_insert(error);
        }
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.finish();
        }
        at + 1 < self.tasks.len()
    }
}

impl Merging {
    /// Of a partition, whose tasks stand together among `tasks`.
    fn new(partition: PartitionId, tasks: &[Task]) -> Self {
        let next = tasks.partition_point(|task| task.partition() < partition);
        let end = tasks.partition_point(|task| task.partition() <= partition);
        Self { next, end, waiting: BTreeMap::new(), state: MergeState::Idle(Box::new(PartitionMerge::new(partition))) }
    }

    /// Takes the merge, with the result that is next, where nobody else has it and the result is there.
    fn take(&mut self) -> Option<(Box<PartitionMerge>, TaskPartial)> {
        if !matches!(self.state, MergeState::Idle(_)) {
            return None;
        }
        let result = self.waiting.remove(&self.next)?;
        match mem::replace(&mut self.state, MergeState::Taken) {
            MergeState::Idle(merge) => Some((merge, result)),
            MergeState::Taken | MergeState::Done(_) => unreachable!("it was idle"),
        }
    }
}

impl Scan {
    /// Runs a task and merges what is in order then.
    fn run(&self, at: usize, task: &Task) -> Result<(), ApiError> {
        let result = self.stop.watch(|cancel| self.kept.run(&self.plan, self.form.as_ref(), task, cancel))?;
        self.grow(0, result.bytes())?;
        let place = self.covered.iter().position(|covered| covered.partition == task.partition());
        let merging = &self.merging[place.expect("tasks are of the partitions that are covered")];
        lock(merging).waiting.insert(at, result);
        loop {
            let Some((mut merge, result)) = lock(merging).take() else { return Ok(()) };
            self.stop.watch(|cancel| cancel.check())?;
            let before = merge.bytes() + result.bytes();
            merge.absorb(&self.plan, result)?;
            self.grow(before, merge.bytes())?;
            let mut merging = lock(merging);
            merging.next += 1;
            if merging.next < merging.end {
                merging.state = MergeState::Idle(merge);
                continue;
            }
            // Nobody waits for this lock any more: all results of the partition are in.
            let before = merge.bytes();
            let partial = merge.finish(&self.plan)?;
            self.grow(before, partial.bytes())?;
            merging.state = MergeState::Done(partial);
            return Ok(());
        }
    }

    /// Counts that results of `before` bytes became ones of `after` bytes.
    fn grow(&self, before: usize, after: usize) -> Result<(), ApiError> {
        let change = after.wrapping_sub(before);
        let all = self.bytes.fetch_add(change, Relaxed).wrapping_add(change);
        self.plan.allow_bytes(all)
    }

    /// Replies; runs once, on the thread that did the last task.
    fn finish(&self) {
        let outcome = match lock(&self.failed).take() {
            Some(error) => Err(error),
            None => self.outcome(),
        };
        if let Some(reply) = lock(&self.reply).take() {
            // Nobody waits any more if the client has left.
            let _ = reply.send(outcome);
        }
    }

    fn outcome(&self) -> Outcome {
        let scans = self.covered.iter().zip(&self.merging).map(|(covered, merging)| {
            let partial = match mem::replace(&mut lock(merging).state, MergeState::Taken) {
                MergeState::Done(partial) => partial,
                // A partition that knows none of the tables has no task.
                MergeState::Idle(merge) => merge.finish(&self.plan)?,
                MergeState::Taken => return Err(ApiError::internal("a partition was merged by nobody")),
            };
            Ok(PartitionScan {
                partition: covered.partition,
                partial,
                next_offset: covered.next_offset,
                lacks_before: covered.lacks_before.clone(),
                gaps: covered.gaps.clone(),
            })
        });
        scans.collect()
    }
}

/// The records before an offset that a partition lacks and that may be of these tables. A snapshot at that offset was taken
/// before.
pub(crate) fn gaps_before(reader: &Reader, next_offset: Offset, keys: &[TableKey]) -> Vec<LogGap> {
    let may_lack = |gap: &&LogGap| gap.first < next_offset && keys.iter().any(|key| gap.may_hold(*key));
    reader.gaps().iter().filter(may_lack).copied().collect()
}

/// A lock whose holders cannot panic between changes that belong together.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
