//! The thread that writes checkpoints, one partition at a time.
//!
//! It is told of partitions that begin and end while it waits and writes, too: whoever closes a partition waits for at most a part that
//! is on its way to the disk, and not for what is written of others, which takes minutes where there is much of it.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use config::HotTierConfig;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, never, select, unbounded};
use engine::{MemoryBudget, Reader};
use id_store::{CheckpointError, Written};
use metrics::{counter, gauge, histogram};
use service::Health;
use types::{Offset, PartitionId};

use super::{
    pace::{Held, Pace},
    round::{NotWritten, Rounds},
    seam::Captured,
};

/// How often it looks which partition is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A writer comes by every 50 ms, and after each batch; one that does not within this time waits for something, or is gone.
const CAPTURE_WAIT: Duration = Duration::from_secs(2);
/// So many failures in a row are no accident.
const FAILURES_MAX: u32 = 3;
/// After failures the time to the next try doubles, up to this.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Their name in health.
const FAILING: &str = "checkpoints";

/// When checkpoints are taken, and how fast they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// From one of a partition to the next, if anything came since.
    pub(crate) interval: Duration,
    /// Bytes of records after which one is due earlier.
    pub(crate) log_bytes: u64,
    pub(crate) bytes_per_second: u64,
}

impl Schedule {
    /// `None`: no checkpoints.
    pub(crate) fn of(config: &HotTierConfig) -> Option<Self> {
        (!config.checkpoint_interval.is_zero()).then_some(Self {
            interval: config.checkpoint_interval,
            log_bytes: config.checkpoint_log_bytes,
            bytes_per_second: config.checkpoint_bytes_per_second,
        })
    }
}

/// A partition as the thread knows it.
pub(crate) struct Checkpointed {
    reader: Reader,
    rounds: Rounds,
    began: Instant,
    /// What the newest checkpoint holds, and since when.
    covered: (Offset, Instant),
    failures: u32,
}

/// What the thread is told while it runs.
enum Change {
    Begin(Box<Checkpointed>),
    /// Nothing is written of that partition any more once the sender is dropped.
    End(PartitionId, Sender<()>),
}

/// Tells the thread of which partitions to write.
#[derive(Clone)]
pub(crate) struct Changes(Sender<Change>);

impl Changes {
    /// Begins with a partition.
    pub(crate) fn begin(&self, partition: Checkpointed) {
        // A thread that has ended writes nothing, of which health tells.
        let _ = self.0.send(Change::Begin(Box::new(partition)));
    }

    /// Ends with a partition, in the middle of what is written of it: what is there is good. Blocks until nothing is written any more.
    pub(crate) fn end(&self, partition: PartitionId) {
        let (ended, wait) = bounded(0);
        let _ = self.0.send(Change::End(partition, ended));
        // Also where the thread has ended, and the sender with it.
        let _ = wait.recv();
    }
}

/// The running thread.
pub(crate) struct CheckpointThread {
    stop: Sender<()>,
    changes: Changes,
    thread: JoinHandle<()>,
}

impl CheckpointThread {
    /// Starts it, with no partition yet.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub(crate) fn start(schedule: Schedule, budget: Arc<MemoryBudget>, health: Health) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (changes, told) = unbounded();
        let thread = thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            let mut work = Work::new(schedule, (stopped, told), budget, health.clone());
            if catch_unwind(AssertUnwindSafe(|| work.run())).is_err() {
                health.degrade(FAILING, "the writing of checkpoints ended; a restart takes long, and the log grows");
            }
        })?;
        Ok(Self { stop, changes: Changes(changes), thread })
    }

    /// To tell it of which partitions to write.
    pub(crate) fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// Ends it in the middle of what it writes: what is there is good.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // A panic there was caught and shown.
        let _ = self.thread.join();
    }
}

impl Checkpointed {
    pub(crate) fn new(reader: Reader, rounds: Rounds) -> Self {
        let now = Instant::now();
        let covered = (rounds.generations().last().map_or(Offset::ZERO, |newest| newest.next_offset), now);
        Self { reader, rounds, began: now, covered, failures: 0 }
    }

    fn is_due(&self, schedule: &Schedule) -> bool {
        let passed = self.began.elapsed();
        let interval = interval_after(self.failures, schedule.interval);
        let much = self.failures == 0 && self.rounds.log_bytes() >= schedule.log_bytes;
        // Also once where nothing came: for the older of two, the log keeps what the newer one has.
        let behind = self.reader.next_offset() > self.covered.0 || self.rounds.needed_from() < self.covered.0;
        behind && (passed >= interval || much)
    }

    fn report(&self) {
        self.rounds.drop_late();
        let partition = self.reader.partition().to_string();
        let age = if self.reader.next_offset() > self.covered.0 { self.covered.1.elapsed() } else { Duration::ZERO };
        gauge!("truenow_checkpoint_age_seconds", "partition" => partition.clone()).set(age.as_secs_f64());
        gauge!("truenow_checkpoint_next_offset", "partition" => partition).set(self.covered.0.0 as f64);
    }
}

/// The time to the next try after so many failures in a row.
fn interval_after(failures: u32, interval: Duration) -> Duration {
    let longer = interval.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    longer.min(RETRY_INTERVAL_MAX).max(interval)
}

/// Why there is no new checkpoint.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the partition's writer does not come by; it waits for something, or has ended")]
    NotGiven,
    #[error("it was given up, as too much of the memory that was left meanwhile waited for it")]
    GivenUp,
    #[error(transparent)]
    NotWritten(NotWritten),
}

struct Work {
    schedule: Schedule,
    stopped: Receiver<()>,
    told: Receiver<Change>,
    budget: Arc<MemoryBudget>,
    health: Health,
    /// The partitions but for that which is being written, in turn.
    partitions: VecDeque<Checkpointed>,
    /// The one that is being written; and who waits for its end, once it is to end.
    writing: Option<PartitionId>,
    ending: Option<Sender<()>>,
}

/// How a wait ended.
enum Waited<T> {
    Came(T),
    TimeIsUp,
    /// The thread is to end, or with the partition that it writes.
    Ended,
}

impl Work {
    fn new(
        schedule: Schedule,
        (stopped, told): (Receiver<()>, Receiver<Change>),
        budget: Arc<MemoryBudget>,
        health: Health,
    ) -> Self {
        Self { schedule, stopped, told, budget, health, partitions: VecDeque::new(), writing: None, ending: None }
    }

    fn run(&mut self) {
        while self.wait(LOOK_INTERVAL) {
            for _ in 0..self.partitions.len() {
                // Some may have ended meanwhile.
                let Some(mut partition) = self.partitions.pop_front() else { break };
                if partition.is_due(&self.schedule) {
                    self.checkpoint(&mut partition);
                }
                if self.is_stopped() {
                    return;
                }
                partition.report();
                match self.ending.take() {
                    Some(ended) => {
                        drop(partition);
                        drop(ended);
                    }
                    None => self.partitions.push_back(partition),
                }
            }
            if self.partitions.iter().all(|partition| partition.failures == 0) {
                self.health.recover(FAILING);
            }
        }
    }

    /// `false`: see [`Waited::Ended`].
    fn wait(&mut self, time: Duration) -> bool {
        !matches!(self.wait_for(&never::<()>(), time), Waited::Ended)
    }

    /// Waits for something, for so long, and does meanwhile what it is told.
    fn wait_for<T>(&mut self, what: &Receiver<T>, time: Duration) -> Waited<T> {
        let until = Instant::now() + time;
        loop {
            let change = select! {
                recv(self.stopped) -> _ => return Waited::Ended,
                recv(self.told) -> change => change,
                recv(what) -> came => return came.map_or(Waited::Ended, Waited::Came),
                default(until.saturating_duration_since(Instant::now())) => return Waited::TimeIsUp,
            };
            // Nobody is left who could say something: the thread is ended, too.
            let Ok(change) = change else { return Waited::Ended };
            self.heed(change);
            if self.ending.is_some() {
                return Waited::Ended;
            }
        }
    }

    fn heed(&mut self, change: Change) {
        match change {
            Change::Begin(partition) => self.partitions.push_back(*partition),
            Change::End(ended, done) if self.writing == Some(ended) => self.ending = Some(done),
            Change::End(ended, done) => {
                self.partitions.retain(|held| held.reader.partition() != ended);
                drop(done);
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Keeps to the rate, or to none; `false`: the writing is to end.
    fn pace(&mut self, bytes: u64, since: Instant, held: &Held) -> bool {
        let due = Duration::from_secs_f64(bytes as f64 / self.schedule.bytes_per_second as f64);
        match Pace::of(&self.budget, held) {
            Pace::Rate => self.wait(due.saturating_sub(since.elapsed())),
            Pace::Hurry => self.wait(Duration::ZERO),
            Pace::GiveUp => false,
        }
    }

    fn checkpoint(&mut self, partition: &mut Checkpointed) {
        partition.began = Instant::now();
        self.writing = Some(partition.reader.partition());
        let done = self.try_checkpoint(partition);
        self.writing = None;
        match done {
            Ok(()) => partition.failures = 0,
            Err(_) if self.ending.is_some() || self.is_stopped() => {}
            Err(error) => self.failed(partition, &error),
        }
    }

    /// The state of now; `None`: the writer does not come by, or there is to be no more of it.
    fn capture(&mut self, partition: &Checkpointed) -> Option<Captured> {
        partition.rounds.ask();
        let captured = self.wait_for(partition.rounds.captures(), CAPTURE_WAIT);
        partition.rounds.want_none();
        if let Waited::Came(captured) = captured { Some(captured) } else { None }
    }

    fn try_checkpoint(&mut self, partition: &mut Checkpointed) -> Result<(), Failed> {
        let captured = self.capture(partition).ok_or(Failed::NotGiven)?;
        let captured_at = Instant::now();
        histogram!("truenow_checkpoint_capture_seconds").record(captured.took.as_secs_f64());
        let mut bytes = 0;
        let written = partition.rounds.write(&captured, &mut |more| {
            bytes += more as u64;
            self.pace(bytes, captured_at, &captured.held)
        });
        let Written { generation, bytes, .. } = written.map_err(|error| match error {
            NotWritten::Checkpoint(CheckpointError::Stopped) => Failed::GivenUp,
            // What it refers to may have gone with it.
            _ if captured.state.is_gone() => Failed::GivenUp,
            error => Failed::NotWritten(error),
        })?;
        let (number, next_offset) = (partition.reader.partition().0, captured.state.next_offset());
        partition.covered = (next_offset, captured_at);
        let (seconds, capture_us) = (captured_at.elapsed().as_secs_f64(), captured.took.as_micros() as u64);
        counter!("truenow_checkpoints_total").increment(1);
        counter!("truenow_checkpoint_bytes_total").increment(bytes);
        histogram!("truenow_checkpoint_seconds").record(seconds);
        let next_offset = next_offset.0;
        tracing::debug!(partition = number, generation, next_offset, bytes, seconds, capture_us, "checkpoint");
        Ok(())
    }

    fn failed(&self, partition: &mut Checkpointed, error: &Failed) {
        counter!("truenow_checkpoint_failures_total").increment(1);
        partition.failures += 1;
        let number = partition.reader.partition().0;
        if partition.failures >= FAILURES_MAX {
            let reason = format!("checkpoints of partition {number} fail: {error}; the log grows meanwhile");
            self.health.degrade(FAILING, reason);
        }
        let what = error as &dyn std::error::Error;
        match error {
            Failed::NotWritten(_) => {
                tracing::error!(partition = number, error = what, "a checkpoint cannot be written; trying again");
            }
            // What keeps the writer or the memory has words of its own.
            Failed::NotGiven | Failed::GivenUp => {
                tracing::warn!(partition = number, error = what, "there is no new checkpoint; trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use engine::{Limits, Writer, partition_with_runs};
    use id_store::{CheckpointStore, DiskFiles, IdStore, Kept, Lent};
    use types::{GapReason, LogGap, LogIdentity, Timestamp};

    use super::{
        super::{round::tests::apply, seam::Seam},
        *,
    };

    fn checkpointed(dir: &Path) -> (Writer, Checkpointed) {
        numbered(dir, PartitionId(0))
    }

    /// A partition with an empty directory, whose writer is the caller's.
    fn numbered(dir: &Path, partition: PartitionId) -> (Writer, Checkpointed) {
        let budget = Arc::new(MemoryBudget::new(u64::MAX));
        let ids = IdStore::open_on_disk(&dir.join("ids"), Kept::Named(&[])).unwrap();
        let keeper = ids.keeper();
        let files = Arc::new(DiskFiles::open(dir).unwrap());
        let store = CheckpointStore::open(files, partition, LogIdentity(1)).unwrap();
        let (writer, reader) = partition_with_runs(partition, Offset::ZERO, Limits::default(), budget, Box::new(ids));
        let (seam, captures) = Seam::new(store.needed_from());
        (writer, Checkpointed::new(reader, Rounds::new((Arc::new(seam), captures), store, keeper)))
    }

    /// Passes over the first record.
    fn pass_over(writer: &mut Writer) {
        let gap = LogGap { first: Offset::ZERO, end: Offset(1), table: None, times: None, reason: GapReason::Gone };
        writer.pass_over(gap, Timestamp(0)).unwrap();
    }

    /// Goal: a partition to which nothing comes any more gets a second checkpoint of the same state, so that the log may
    /// let go of all that it holds, and then none.
    #[test]
    fn an_idle_partition_does_not_keep_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut checkpointed) = checkpointed(dir.path());
        let schedule = Schedule { interval: Duration::ZERO, log_bytes: 1, bytes_per_second: 1 };
        assert!(!checkpointed.is_due(&schedule), "nothing came yet");
        pass_over(&mut writer);
        for _ in 0..2 {
            assert!(checkpointed.is_due(&schedule));
            let state = Arc::new(Lent::new(writer.capture()));
            let captured = Captured { state, took: Duration::ZERO, held: Arc::default() };
            checkpointed.rounds.write(&captured, &mut |_| true).unwrap();
            checkpointed.covered = (captured.state.next_offset(), Instant::now());
        }
        assert_eq!(checkpointed.rounds.needed_from(), Offset(1));
        assert!(!checkpointed.is_due(&schedule));
    }

    /// The work of a thread that is told by channels.
    fn work(bytes_per_second: u64, stopped: Receiver<()>, told: Receiver<Change>) -> Work {
        let schedule = Schedule { interval: Duration::ZERO, log_bytes: 1, bytes_per_second };
        Work::new(schedule, (stopped, told), Arc::new(MemoryBudget::new(1_600)), Health::starting("hot-tier", "0"))
    }

    /// Goal: where writers do not come by any more, the thread ends when it is told to, and does not wait for each of them.
    #[test]
    fn a_stop_waits_for_no_writer() {
        let (stop, stopped) = bounded(0);
        drop(stop);
        let mut work = work(1, stopped, never());
        assert!(matches!(work.wait_for(&never::<()>(), Duration::from_secs(3_600)), Waited::Ended));
    }

    /// Goal: partitions can be closed while a checkpoint is written, of another one or of themselves, which takes hours at this rate;
    /// that it was not written to its end is no failure.
    #[test]
    fn an_end_waits_for_no_checkpoint() {
        let (stop, stopped) = bounded(0);
        let (changes, told) = unbounded();
        let changes = Changes(changes);
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let mut begun = Vec::new();
        for (partition, dir) in (0..).map(PartitionId).zip(&dirs) {
            let (mut writer, checkpointed) = numbered(dir.path(), partition);
            let seam = checkpointed.rounds.seam();
            (0..10).for_each(|_| apply(&mut writer, &seam));
            begun.push((writer, seam));
            changes.begin(checkpointed);
        }
        let mut work = work(1, stopped, told);
        let health = work.health.clone();
        let thread = thread::spawn(move || work.run());
        let (writer, seam) = &begun[0];
        while !seam.is_wanted() {
            thread::yield_now();
        }
        // Of the first there is a state to write now; the writers of the others are gone.
        seam.offer(writer);
        for partition in [1, 0, 2].map(PartitionId) {
            let ((ended, end), changes) = (bounded(1), changes.clone());
            let ending = thread::spawn(move || {
                changes.end(partition);
                ended.send(()).unwrap();
            });
            assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(()), "partition {partition} does not end");
            ending.join().unwrap();
        }
        drop(stop);
        thread.join().unwrap();
        assert_eq!(health.status().name(), "starting", "nothing failed");
    }

    /// Goal: tries after failures become rarer, but not rarer than what is set anyway, or than once a minute.
    #[test]
    fn failures_make_tries_rarer() {
        let seconds = |failures, interval| interval_after(failures, Duration::from_secs(interval)).as_secs();
        assert_eq!([0, 1, 2, 3, 40].map(|failures| seconds(failures, 10)), [10, 20, 40, 60, 60]);
        assert_eq!([0, 1, 40].map(|failures| seconds(failures, 300)), [300, 300, 300]);
    }

    /// Goal: a partition that gives no state for too long counts as one whose checkpoints fail, and what it gives too late is
    /// let go of.
    #[test]
    fn a_writer_that_does_not_come_by_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut checkpointed) = checkpointed(dir.path());
        pass_over(&mut writer);
        let (_stop, stopped) = bounded(0);
        let mut work = work(1, stopped, never());
        work.checkpoint(&mut checkpointed);
        assert_eq!((checkpointed.failures, checkpointed.rounds.generations()), (1, Vec::new()));
        checkpointed.rounds.ask();
        checkpointed.rounds.seam().offer(&writer);
        checkpointed.report();
        assert!(checkpointed.rounds.take().is_none(), "it is of another time");
    }

    /// Goal: between two bytes the thread waits for as long as the rate says, and not at all where it is told to end.
    #[test]
    fn a_rate_is_kept_until_the_end() {
        let (stop, stopped) = bounded(0);
        let mut work = work(1_000, stopped, never());
        let since = Instant::now();
        let held = Held::default();
        assert!(work.pace(20, since, &held));
        assert!(since.elapsed() >= Duration::from_millis(20));
        drop(stop);
        assert!(!work.pace(u64::MAX, since, &held));
    }
}
