//! What runs came to: to see that they reach what they are for.

/// What a run did; two runs of a seed did the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// A hash of everything that happened, in order.
    pub digest: u64,
    /// Records in the log at the end.
    pub records: u64,
    /// Those of them that said the time and nothing else.
    pub ticks: u64,
    /// Rows of events in them.
    pub rows: u64,
    /// Records that were acked.
    pub acked: u64,
    /// Rows that count.
    pub counted: u64,
    /// Rows that had left memory at the end.
    pub evicted: u64,
    /// Rows that had left memory and that rollups kept at the end.
    pub kept: u64,
    /// Rows of tables that live at the end which were duplicates, and those of them that conflicted.
    pub duplicate: u64,
    /// See `duplicate`.
    pub conflict: u64,
    /// Lives of the process, and how many began under failing calls or did not begin.
    pub lives: u64,
    /// Starts that the disk let fail.
    pub failed_starts: u64,
    /// Appends of which the log said that it does not know, and those that it refused.
    pub unknown: u64,
    /// See `unknown`.
    pub refused: u64,
    /// Times that a worker had to wait for the disk.
    pub waits: u64,
    /// Runs of ids; suspects that were convicted by them and that were not; calls that failed.
    pub runs_added: u64,
    /// See `runs_added`.
    pub convicted: u64,
    /// See `runs_added`.
    pub innocent: u64,
    /// See `runs_added`.
    pub run_faults: u64,
    /// Checkpoints that were written, and tries that failed or were stopped.
    pub checkpoints: u64,
    /// See `checkpoints`.
    pub failed_checkpoints: u64,
    /// Partitions that went on from a checkpoint.
    pub restored: u64,
    /// Newest checkpoints that were damaged, and partitions that went on from one before that.
    pub damaged: u64,
    /// See `damaged`.
    pub fell_back: u64,
    /// Records that the log had let go of at the end.
    pub released: u64,
    /// Partitions that had neither a good checkpoint nor the log's start, and said so.
    pub lost: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        let Self { digest, records, rows, acked, counted, evicted, duplicate, conflict, lives, .. } = other;
        self.digest = self.digest.wrapping_add(digest);
        self.records += records;
        self.ticks += other.ticks;
        self.rows += rows;
        self.acked += acked;
        self.counted += counted;
        self.evicted += evicted;
        self.duplicate += duplicate;
        self.conflict += conflict;
        self.lives += lives;
        self.failed_starts += other.failed_starts;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.waits += other.waits;
        self.runs_added += other.runs_added;
        self.convicted += other.convicted;
        self.innocent += other.innocent;
        self.run_faults += other.run_faults;
        self.checkpoints += other.checkpoints;
        self.failed_checkpoints += other.failed_checkpoints;
        self.restored += other.restored;
        self.damaged += other.damaged;
        self.fell_back += other.fell_back;
        self.released += other.released;
        self.lost += other.lost;
        self.kept += other.kept;
    }
}
