//! The hot tier as other services see it: the stream ingester writes partitions, the query API scans them.

mod client;
mod event_parts;
mod explanations;
mod messages;
mod replicas;
mod scan_parts;
mod service;

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use codec::BlockHeader;
use query::{EventPlace, Partial, Plan, RawEvent, RowsChecksum, SourceExplanation};
use tokio::sync::mpsc;
use types::{ApiError, ErrorCode, GapReason, LogGap, Offset, PartitionId, TableKey, TimeRange, Timestamp};

pub use client::HotTierClient;
pub use replicas::{Compared, compare_replicas};
pub use service::HotTierService;

/// Why a record was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotApplied {
    /// It is intact but cannot be applied (a defect or a rogue writer): it became a gap, which answers tell of, and the next
    /// record is next.
    PassedOver(ApiError),
    /// Something that it needs is away for now. Nothing happened: the same record is still the next one, to be tried again.
    TryAgain(ApiError),
    /// It changes a table and cannot be read, or cannot be judged as the ids of earlier events are damaged. Nothing
    /// happened, and nothing behind it may be applied: what that means hangs on it.
    Stop(ApiError),
}

impl fmt::Display for NotApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::PassedOver(error) | Self::TryAgain(error) | Self::Stop(error)) = self;
        error.fmt(f)
    }
}

/// A partition's single writer. It is the only authority on what has been applied.
pub trait PartitionWriter: Send {
    /// The partition.
    fn partition(&self) -> PartitionId;

    /// The offset of the record to apply next.
    fn next_offset(&self) -> Offset;

    /// Applies the record at [`PartitionWriter::next_offset`]; when this returns, readers see it.
    ///
    /// # Errors
    /// See [`NotApplied`]: the record was passed over, or has to be tried again.
    fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &[u8],
    ) -> Result<(), NotApplied>;

    /// Goes on behind records that the log cannot give, from [`PartitionWriter::next_offset`] up to `end`: they become a gap,
    /// which answers tell of. `header`: that of the one record, where it can be read.
    ///
    /// # Errors
    /// [`NotApplied::Stop`] where the header is that of a change of a table.
    fn pass_over(&mut self, end: Offset, reason: GapReason, header: Option<&BlockHeader>) -> Result<(), NotApplied>;

    /// Work that waits for no record: eviction by the memory budget, reclaiming what readers have left.
    fn housekeep(&mut self);

    /// The append time from which on a record frees something (identities, rows that memory is short of), as of the last
    /// housekeeping; `None`: no time does. Where no record comes by itself, a tick is to be appended then.
    fn due_at(&self) -> Option<Timestamp>;

    /// A rebuild at a restart needs nothing before this offset: the older of two checkpoints goes on from it.
    fn needed_from(&self) -> Offset;

    /// All that was durable when the writer started has been applied: from now on the partition answers scans. Before
    /// this, scans are refused, because an answer would miss events acked before the restart.
    fn recovered(&mut self);
}

/// A partition's progress, as its writer published it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the record to apply next.
    pub next_offset: Offset,
    /// Append time of the record applied last; `Timestamp::MIN` where there is none.
    pub append_time: Timestamp,
    /// Rows resident, of all tables.
    pub rows: u64,
    /// Accounted bytes, of all tables.
    pub bytes: u64,
    /// Events applied since the node opened it, duplicates among them.
    pub events: u64,
    /// Time of scans of it since then, microseconds; one of several partitions counts for each of them in part.
    pub scan_us: u64,
    /// The newest placement map that the node has taken up: what that and all before took from it was closed before this was said.
    /// 0 where it follows none.
    pub map_version: u64,
    /// Whether all that was durable when it was opened is applied, and nothing of it was gone from the log.
    pub whole: bool,
}

/// What one table has in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablePartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The offset of the record to apply next.
    pub next_offset: Offset,
    /// The greatest event time seen; `None` where there was no event.
    pub event_time_max: Option<Timestamp>,
    /// Append time of the record with the table's newest events; `None` where there was none.
    pub last_events_at: Option<Timestamp>,
    /// Rows resident.
    pub live: u64,
    /// Rows that left, or came too late to stay.
    pub evicted: u64,
    /// Rows whose identity had been applied before; they are not counted again.
    pub duplicate: u64,
    /// Duplicates among them whose content differed from that of the first.
    pub conflict: u64,
    /// Rows taken back by an erasure; 0 where nothing erases.
    pub erased: u64,
    /// Rows among `live` and `evicted` that came behind the watermark of their partition less the table's lateness.
    pub late: u64,
}

/// A scan of some partitions of the tables of a plan.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// What to compute.
    pub plan: Arc<Plan>,
    /// Which partitions; those among them that a table of the plan does not use are passed over for it.
    pub partitions: Vec<PartitionId>,
    /// Offsets that must be applied before the scan begins: `next_offset` is to be at least this.
    pub after: Vec<(PartitionId, Offset)>,
    /// Partitions that are scanned as they were at an earlier offset, which was `next_offset` of an earlier scan; the others
    /// as they are. Rows that have left since are not there, as the horizons say.
    pub at: Vec<(PartitionId, Offset)>,
    /// Versions of which the results of an equal plan are known: where all partitions still have theirs, none is scanned.
    /// Empty: none is known.
    pub known: Vec<(PartitionId, Version)>,
    /// When to give up.
    pub deadline: Instant,
}

/// The version of what a plan meets in a partition: equal ones of equal plans are equal rows in the same order, and the same
/// rows missing. It means something to the node that gave it alone, and there until it is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u128);

/// What a scan found in one partition, and what that covers. Partial results stay apart by partition: they are merged in
/// the order of partitions, whichever nodes they come from, so that an answer does not depend on placement.
#[derive(Debug)]
pub struct PartitionScan {
    /// The partition.
    pub partition: PartitionId,
    /// Its partial result; `None` where it has the version that is known, as all partitions of the node have.
    pub partial: Option<Partial>,
    /// Which state of its rows that is.
    pub version: Version,
    /// It covers every record before this offset, and none from it on.
    pub next_offset: Offset,
    /// Per table of the plan (by its index there): rows with event times before this, which the partial result should hold,
    /// have left memory; `None`: it holds all of the range, by rows and by rollups.
    pub lacks_before: Vec<Option<Timestamp>>,
    /// Records before that offset which may be of the plan's tables and are missing.
    pub gaps: Vec<LogGap>,
}

/// What a node answered to a scan.
#[derive(Debug)]
pub struct NodeScan {
    /// Partitions that were scanned, in the order in which the request has them.
    pub scans: Vec<PartitionScan>,
    /// Partitions of the request that were not, and why.
    pub unavailable: Vec<(PartitionId, Unavailable)>,
}

/// A page of the raw events that pass the filters of a plan of one table, in its range.
#[derive(Debug, Clone)]
pub struct EventsRequest {
    /// Whose filters and range count.
    pub plan: Arc<Plan>,
    /// Which partitions.
    pub partitions: Vec<PartitionId>,
    /// Offsets that must be applied before the page is made.
    pub after: Vec<(PartitionId, Offset)>,
    /// The state to show: that before these offsets. `None`: the newest.
    pub at: Option<Vec<(PartitionId, Offset)>>,
    /// Only events behind this one.
    pub position: Option<EventPlace>,
    /// Events of the page, at most.
    pub limit: usize,
    /// Bytes of their columns, at most; one event comes all the same.
    pub bytes_max: usize,
    /// When to give up.
    pub deadline: Instant,
}

/// What a page covers of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsCovered {
    /// The partition.
    pub partition: PartitionId,
    /// Every record before this offset, and none from it on.
    pub next_offset: Offset,
    /// Rows with event times before this have left memory.
    pub evicted_before: Option<Timestamp>,
    /// Records before that offset which may be of the table and are missing.
    pub gaps: Vec<LogGap>,
}

/// What a node answered to a request of raw events.
#[derive(Debug)]
pub struct NodeEvents {
    /// In their order.
    pub events: Vec<RawEvent>,
    /// Whether there are more behind them.
    pub more: bool,
    /// Partitions that were looked into, in the order in which the request has them.
    pub covered: Vec<EventsCovered>,
    /// Partitions of the request that were not, and why.
    pub unavailable: Vec<(PartitionId, Unavailable)>,
}

/// A checksum of a table's rows in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// The table.
    pub key: TableKey,
    /// The partition.
    pub partition: PartitionId,
    /// The rows of every record before this offset, and of none from it on; waited for where it is still to come.
    pub at: Offset,
    /// Their event times.
    pub range: TimeRange,
    /// When to give up.
    pub deadline: Instant,
}

/// What a replica has of a table in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableChecksum {
    /// Rows with event times before this have left memory.
    pub evicted_before: Option<Timestamp>,
    /// Those that are there.
    pub found: RowsChecksum,
}

/// What a scan of one partition would do.
#[derive(Debug)]
pub struct PartitionExplanation {
    /// The partition.
    pub partition: PartitionId,
    /// It would cover every record before this offset.
    pub next_offset: Offset,
    /// Per table of the plan that it has.
    pub sources: Vec<SourceExplanation>,
    /// Records before that offset which may be of the plan's tables and are missing.
    pub gaps: Vec<LogGap>,
}

/// What a node answered to the request of an explanation.
#[derive(Debug)]
pub struct NodeExplanation {
    /// Partitions that can be scanned, in the order in which the request has them.
    pub partitions: Vec<PartitionExplanation>,
    /// Partitions of the request that cannot, and why.
    pub unavailable: Vec<(PartitionId, Unavailable)>,
    /// Threads that a scan may use.
    pub threads: usize,
}

/// Why a partition gives no answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// No node that answers has it.
    Unreachable,
    /// It is being rebuilt from its checkpoint and the log, and what was acked before is not all there yet.
    Recovering,
}

impl Unavailable {
    /// The name in receipts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Recovering => "recovering",
        }
    }
}

/// What a node's memory has to say to those who would send it more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryState {
    /// There is room, or can be made.
    Room,
    /// The identities that the windows of tables keep take all of their share: shorter windows or fewer events help.
    IdsFull,
    /// More is used than the budget has, and nothing more can leave at once.
    Full,
}

/// The memory of a node. Answers at once, without a lock.
pub trait NodeMemory: Send + Sync + 'static {
    /// Its state now.
    fn memory(&self) -> MemoryState;
}

/// A node of the hot tier, as the query API and the watermark service see it.
#[async_trait]
pub trait HotTier: Send + Sync + 'static {
    /// Runs a plan over partitions. Those that cannot be scanned now come back as unavailable. Dropping the future, or its deadline, stops the work.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` (`field` is `after` where the wait for offsets took the time), `UNAVAILABLE` with the partition's
    /// name where it is not here, `RESOURCE_EXHAUSTED` for too many groups.
    async fn scan(&self, request: ScanRequest) -> Result<NodeScan, ApiError>;

    /// The same, partition by partition as each is done, in any order. `found` is waited for where it is full. What came before an
    /// error is whole, each partition for itself. Returns the partitions that cannot be scanned now.
    ///
    /// # Errors
    /// As [`HotTier::scan`]; `CANCELLED` where nobody takes any more.
    async fn scan_each(
        &self,
        request: ScanRequest,
        found: mpsc::Sender<PartitionScan>,
    ) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        let NodeScan { scans, unavailable } = self.scan(request).await?;
        for scan in scans {
            found.send(scan).await.map_err(|_| nobody_takes())?;
        }
        Ok(unavailable)
    }

    /// Waits until partitions have applied everything before some offsets. Those that cannot be scanned now are passed over: a
    /// scan will say so.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` with the field `after` where that took too long.
    async fn applied(&self, after: Vec<(PartitionId, Offset)>, deadline: Instant) -> Result<(), ApiError>;

    /// The next page of raw events of some partitions. Otherwise as [`HotTier::scan`].
    ///
    /// # Errors
    /// As [`HotTier::scan`]; `field` is `cursor` where the wait for the offsets of the state to show took the time.
    async fn events(&self, request: EventsRequest) -> Result<NodeEvents, ApiError>;

    /// What [`HotTier::scan`] would look at, without doing it.
    ///
    /// # Errors
    /// As [`HotTier::scan`].
    async fn explain(&self, request: ScanRequest) -> Result<NodeExplanation, ApiError>;

    /// The checksum of a table's rows in one partition, equal for all replicas that have all rows of the range.
    ///
    /// # Errors
    /// `UNAVAILABLE` where the partition is not here or recovers; `DEADLINE_EXCEEDED` with the field `at` where the wait for
    /// the offset took the time.
    async fn checksum(&self, request: ChecksumRequest) -> Result<TableChecksum, ApiError>;

    /// Progress of all partitions of this node, ascending.
    ///
    /// # Errors
    /// `UNAVAILABLE` while the node reads its checkpoints: nobody knows yet how far its partitions are.
    async fn status(&self) -> Result<Vec<PartitionStatus>, ApiError>;

    /// What one table has in each of this node's partitions, ascending; without those that it does not use, and without any
    /// while [`HotTier::status`] is not known.
    async fn table_status(&self, key: TableKey) -> Result<Vec<TablePartitionStatus>, ApiError>;
}

/// Partitions that were scanned and wait for whoever takes them.
const SCANS_AHEAD: usize = 4;

/// A scan as a whole, of a node that gives it partition by partition.
///
/// # Errors
/// Those of [`HotTier::scan_each`].
pub async fn scan_whole(node: &(impl HotTier + ?Sized), request: ScanRequest) -> Result<NodeScan, ApiError> {
    let (found, mut each) = mpsc::channel(SCANS_AHEAD);
    let (asked, mut scans) = (request.partitions.clone(), Vec::new());
    let taking = async {
        while let Some(scan) = each.recv().await {
            scans.push(scan);
        }
    };
    let (scanned, ()) = tokio::join!(node.scan_each(request, found), taking);
    let unavailable = scanned?;
    scans.sort_by_key(|scan: &PartitionScan| asked.iter().position(|partition| *partition == scan.partition));
    Ok(NodeScan { scans, unavailable })
}

/// The error of a scan of which nobody takes what it finds.
#[must_use]
pub fn nobody_takes() -> ApiError {
    ApiError::new(ErrorCode::Cancelled, "nobody waits for this scan any more")
}
