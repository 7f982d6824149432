//! A scan as a job of the pool: prepared on a scan thread, its tasks run in any order on any thread, their results merge
//! in canonical order by partition.
//!
//! A result waits only for those of its partition that come before it. Whichever thread brings one while nobody merges that
//! partition merges what is in order, and finishes the partition after its last task. So partitions merge at the same time,
//! and a scan holds little more than a result per thread beside what is merged.

use std::{
    collections::BTreeMap,
    mem,
    ops::Range,
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
use proto::hot_tier::{PartitionScan, Version};
use query::{Partial, PartitionMerge, Plan, Source, Task, TaskPartial};
use tokio::sync::{mpsc, oneshot};
use types::{ApiError, LogGap, Offset, PartitionId, TableKey, Timestamp};

use crate::{
    kept::KeptResults,
    pool::{Job, Queue},
};

/// What a scan gives: partitions in the order asked, without those that were given before, or the first error.
pub(crate) type Outcome = Result<Vec<PartitionScan>, ApiError>;

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

/// What a scan is asked for.
pub(crate) struct Asked {
    pub(crate) plan: Arc<Plan>,
    /// What to read, and at which earlier offset.
    pub(crate) readers: Vec<(Reader, Option<Offset>)>,
    /// In the order of the readers, where results are known.
    pub(crate) known: Vec<(PartitionId, Version)>,
    /// Whoever takes each partition when it is done; the outcome has the rest.
    pub(crate) each: Option<mpsc::UnboundedSender<PartitionScan>>,
}

/// A scan that waits for a thread to prepare it: taking snapshots and cutting them into tasks may look at rows.
pub(crate) struct Prepare {
    queue: Queue,
    asked: Asked,
    /// Of versions.
    seed: u64,
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
    version: Version,
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
    /// Somebody has the result already.
    Given,
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
    /// See [`Asked::each`].
    each: Option<mpsc::UnboundedSender<PartitionScan>>,
    reply: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Prepare {
    /// Puts a scan in the queue; its outcome comes by the receiver. `seed`: of the versions, and the node's own.
    pub(crate) fn submit(
        queue: &Queue,
        asked: Asked,
        seed: u64,
        kept: Arc<KeptResults>,
        stop: Arc<Stop>,
    ) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let prepare = Self { queue: queue.clone(), asked, seed, kept, stop, reply: Mutex::new(Some(reply)) };
        queue.submit(&(Arc::new(prepare) as Arc<dyn Job>), 1);
        outcome
    }

    fn scan(&self) -> Result<Scan, ApiError> {
        let (mut covered, mut sources) = (Vec::new(), Vec::new());
        let plan = &self.asked.plan;
        for (reader, at) in &self.asked.readers {
            // Whoever does not wait any more needs no snapshots either.
            self.stop.watch(|cancel| cancel.check())?;
            let partition = reader.partition();
            let keys: Vec<_> = plan.tables().iter().map(|table| table.key).collect();
            let (next_offset, snapshots) = match *at {
                None => reader.snapshots(&keys),
                Some(offset) => (offset, reader.snapshots_at(&keys, offset).ok_or_else(|| behind(partition, offset))?),
            };
            let (lacks_before, gaps) = (vec![None; keys.len()], gaps_before(reader, next_offset, &keys));
            covered.push(Covered { partition, next_offset, lacks_before, gaps, version: Version(0) });
            let found = snapshots.into_iter().enumerate();
            sources
                .extend(found.filter_map(|(table, snapshot)| Some(Source { table, partition, snapshot: snapshot? })));
        }
        self.stop.watch(|cancel| cancel.check())?;
        let tasks = query::tasks(plan, sources);
        for Covered { partition, lacks_before, gaps, version, .. } in &mut covered {
            let of_partition = &tasks[places(*partition, &tasks)];
            for task in of_partition {
                lacks_before[task.table()] = task.lacks_before(plan);
            }
            version.0 = query::version(plan, of_partition, lacks_before, gaps, self.seed);
        }
        let merging = covered.iter().map(|covered| Mutex::new(Merging::new(covered.partition, &tasks)));
        Ok(Scan {
            form: self.kept.form(plan),
            kept: Arc::clone(&self.kept),
            plan: Arc::clone(plan),
            stop: Arc::clone(&self.stop),
            merging: merging.collect(),
            covered,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(tasks.len()),
            bytes: AtomicUsize::new(0),
            failed: Mutex::new(None),
            each: self.asked.each.clone(),
            tasks,
            reply: Mutex::new(lock(&self.reply).take()),
        })
    }
}

/// The places of a partition's tasks, which stand together.
fn places(partition: PartitionId, tasks: &[Task]) -> Range<usize> {
    let first = tasks.partition_point(|task| task.partition() < partition);
    first..tasks.partition_point(|task| task.partition() <= partition)
}

/// The error of a scan at an offset of another time: the node was started anew and is not there yet.
pub(crate) fn behind(partition: PartitionId, offset: Offset) -> ApiError {
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
        if scan.is_known(&self.asked.known) {
            scan.reply(Ok(scan.covered.iter().map(|covered| covered.with(None)).collect()));
            return false;
        }
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
    /// Of a partition, whose tasks are among `tasks`.
    fn new(partition: PartitionId, tasks: &[Task]) -> Self {
        let Range { start: next, end } = places(partition, tasks);
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
            MergeState::Taken | MergeState::Done(_) | MergeState::Given => unreachable!("it was idle"),
        }
    }
}

impl Covered {
    fn with(&self, partial: Option<Partial>) -> PartitionScan {
        PartitionScan {
            partition: self.partition,
            partial,
            version: self.version,
            next_offset: self.next_offset,
            lacks_before: self.lacks_before.clone(),
            gaps: self.gaps.clone(),
        }
    }
}

impl Scan {
    /// Whether all that it would find is known.
    fn is_known(&self, known: &[(PartitionId, Version)]) -> bool {
        !known.is_empty()
            && self.covered.iter().map(|covered| (covered.partition, covered.version)).eq(known.iter().copied())
    }

    /// Runs a task and merges what is in order then.
    fn run(&self, at: usize, task: &Task) -> Result<(), ApiError> {
        let result = self.stop.watch(|cancel| self.kept.run(&self.plan, self.form.as_ref(), task, cancel))?;
        self.grow(0, result.bytes())?;
        let place = self.covered.iter().position(|covered| covered.partition == task.partition());
        let place = place.expect("tasks are of the partitions that are covered");
        let merging = &self.merging[place];
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
            merging.state = match &self.each {
                None => MergeState::Done(partial),
                Some(each) => {
                    // Nobody takes it any more if the client has left.
                    let _ = each.send(self.covered[place].with(Some(partial)));
                    MergeState::Given
                }
            };
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
        self.reply(match lock(&self.failed).take() {
            Some(error) => Err(error),
            None => self.outcome(),
        });
    }

    fn reply(&self, outcome: Outcome) {
        if let Some(reply) = lock(&self.reply).take() {
            // Nobody waits any more if the client has left.
            let _ = reply.send(outcome);
        }
    }

    fn outcome(&self) -> Outcome {
        let scans = self.covered.iter().zip(&self.merging).filter_map(|(covered, merging)| {
            let partial = match mem::replace(&mut lock(merging).state, MergeState::Taken) {
                MergeState::Done(partial) => Ok(partial),
                // A partition that knows none of the tables has no task.
                MergeState::Idle(merge) => merge.finish(&self.plan),
                MergeState::Taken => Err(ApiError::internal("a partition was merged by nobody")),
                MergeState::Given => return None,
            };
            Some(partial.map(|partial| covered.with(Some(partial))))
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
