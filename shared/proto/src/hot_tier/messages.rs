//! Requests and what partitions cover as messages. What comes from another process is checked where a type promises something.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use query::{EventPlace, Plan, RowsChecksum, WireError};
use types::{
    ApiError, ErrorCode, GapReason, Generation, LogGap, Offset, PartitionId, TableId, TableKey, TenantId, TimeRange,
    Timestamp,
};

use super::{
    ChecksumRequest, EventsCovered, EventsRequest, PartitionScan, PartitionStatus, ScanRequest, TableChecksum,
    TablePartitionStatus, Unavailable, Version,
};
use crate::{internal, wire::Malformed};

/// Plans up to this many bytes are read and written where they are: some 100 µs.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;
/// The longest time that a caller may say it waits.
const REMAINING_MAX: Duration = Duration::from_secs(3_600);

/// Why a plan or a result of another process is not read: it is of another version of the product, or was damaged.
pub(super) fn unread(what: &str, error: WireError) -> ApiError {
    let code = match error {
        WireError::Unknown { .. } | WireError::Version { .. } => ErrorCode::Unimplemented,
        _ => ErrorCode::Internal,
    };
    ApiError::new(code, format!("{what} of another process cannot be read: {error}"))
}

pub(super) fn remaining_us(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_micros()).unwrap_or(u64::MAX)
}

fn deadline_of(remaining_us: u64) -> Instant {
    Instant::now() + Duration::from_micros(remaining_us).min(REMAINING_MAX)
}

pub(super) fn partitions(partitions: &[PartitionId]) -> Vec<u32> {
    partitions.iter().map(|partition| partition.0).collect()
}

pub(super) fn offsets(offsets: &[(PartitionId, Offset)]) -> Vec<internal::PartitionOffset> {
    let offset = |&(partition, offset): &(PartitionId, Offset)| internal::PartitionOffset {
        partition: partition.0,
        offset: offset.0,
    };
    offsets.iter().map(offset).collect()
}

pub(super) fn offsets_of(offsets: Vec<internal::PartitionOffset>) -> Vec<(PartitionId, Offset)> {
    offsets.into_iter().map(|of| (PartitionId(of.partition), Offset(of.offset))).collect()
}

fn partitions_of(partitions: Vec<u32>) -> Vec<PartitionId> {
    partitions.into_iter().map(PartitionId).collect()
}

fn high(version: Version) -> u64 {
    (version.0 >> 64) as u64
}

fn low(version: Version) -> u64 {
    version.0 as u64
}

fn version_of(high: u64, low: u64) -> Version {
    Version(u128::from(high) << 64 | u128::from(low))
}

impl internal::ScanRequest {
    pub(super) fn of(request: &ScanRequest, plan: Vec<u8>) -> Self {
        let known = |&(partition, version): &(PartitionId, Version)| internal::PartitionVersion {
            partition: partition.0,
            high: high(version),
            low: low(version),
        };
        Self {
            plan: plan.into(),
            partitions: partitions(&request.partitions),
            after: offsets(&request.after),
            at: offsets(&request.at),
            known: request.known.iter().map(known).collect(),
            remaining_us: remaining_us(request.deadline),
        }
    }

    pub(super) fn with(self, plan: Arc<Plan>) -> ScanRequest {
        let known = self.known.into_iter();
        ScanRequest {
            plan,
            partitions: partitions_of(self.partitions),
            after: offsets_of(self.after),
            at: offsets_of(self.at),
            known: known.map(|of| (PartitionId(of.partition), version_of(of.high, of.low))).collect(),
            deadline: deadline_of(self.remaining_us),
        }
    }
}

impl internal::AppliedRequest {
    pub(super) fn of(after: &[(PartitionId, Offset)], deadline: Instant) -> Self {
        Self { after: offsets(after), remaining_us: remaining_us(deadline) }
    }

    pub(super) fn into_parts(self) -> (Vec<(PartitionId, Offset)>, Instant) {
        (offsets_of(self.after), deadline_of(self.remaining_us))
    }
}

impl internal::EventsRequest {
    pub(super) fn of(request: &EventsRequest, plan: Vec<u8>) -> Self {
        Self {
            plan: plan.into(),
            partitions: partitions(&request.partitions),
            after: offsets(&request.after),
            at: request.at.as_deref().map(|at| internal::PartitionOffsets { offsets: offsets(at) }),
            position: request.position.map(place),
            limit: request.limit as u64,
            bytes_max: request.bytes_max as u64,
            remaining_us: remaining_us(request.deadline),
        }
    }

    pub(super) fn with(self, plan: Arc<Plan>) -> EventsRequest {
        EventsRequest {
            plan,
            partitions: partitions_of(self.partitions),
            after: offsets_of(self.after),
            at: self.at.map(|at| offsets_of(at.offsets)),
            position: self.position.map(place_of),
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            bytes_max: usize::try_from(self.bytes_max).unwrap_or(usize::MAX),
            deadline: deadline_of(self.remaining_us),
        }
    }
}

impl internal::ChecksumRequest {
    pub(super) fn of(request: &ChecksumRequest) -> Self {
        let range = internal::TimeSpan { first: request.range.start().0, last: request.range.end().0 };
        Self {
            key: Some(key(request.key)),
            partition: request.partition.0,
            at: request.at.0,
            range: Some(range),
            remaining_us: remaining_us(request.deadline),
        }
    }

    pub(super) fn read(self) -> Result<ChecksumRequest, Malformed> {
        let range = self.range.unwrap_or_default();
        let range = TimeRange::new(Timestamp(range.first), Timestamp(range.last));
        Ok(ChecksumRequest {
            key: key_of(self.key.ok_or(Malformed("a checksum of no table"))?),
            partition: PartitionId(self.partition),
            at: Offset(self.at),
            range: range.ok_or(Malformed("an empty range of time"))?,
            deadline: deadline_of(self.remaining_us),
        })
    }
}

impl From<TableChecksum> for internal::ChecksumReply {
    fn from(TableChecksum { evicted_before, found }: TableChecksum) -> Self {
        let (sum_high, sum_low) = ((found.sum >> 64) as u64, found.sum as u64);
        Self { evicted: Some(horizon(evicted_before)), rows: found.rows, sum_high, sum_low }
    }
}

impl From<internal::ChecksumReply> for TableChecksum {
    fn from(reply: internal::ChecksumReply) -> Self {
        let sum = u128::from(reply.sum_high) << 64 | u128::from(reply.sum_low);
        let evicted_before = reply.evicted.as_ref().and_then(horizon_of);
        Self { evicted_before, found: RowsChecksum { rows: reply.rows, sum } }
    }
}

pub(super) fn place(place: EventPlace) -> internal::EventPlace {
    let EventPlace { time, partition, offset, row } = place;
    internal::EventPlace { time: time.0, partition: partition.0, offset: offset.0, row }
}

pub(super) fn place_of(place: internal::EventPlace) -> EventPlace {
    let internal::EventPlace { time, partition, offset, row } = place;
    EventPlace { time: Timestamp(time), partition: PartitionId(partition), offset: Offset(offset), row }
}

pub(super) fn horizon(before: Option<Timestamp>) -> internal::Horizon {
    internal::Horizon { before: before.map(|time| time.0) }
}

pub(super) fn horizon_of(horizon: &internal::Horizon) -> Option<Timestamp> {
    horizon.before.map(Timestamp)
}

impl internal::ScannedPartition {
    /// What a scan covers of a partition; its result goes as so many bytes besides.
    pub(super) fn of(scan: &PartitionScan, partial_bytes: Option<u64>) -> Self {
        Self {
            partition: scan.partition.0,
            version_high: high(scan.version),
            version_low: low(scan.version),
            next_offset: scan.next_offset.0,
            lacks_before: scan.lacks_before.iter().copied().map(horizon).collect(),
            gaps: scan.gaps.iter().map(gap).collect(),
            partial_bytes,
        }
    }

    /// The scan without its result.
    pub(super) fn read(self) -> Result<PartitionScan, Malformed> {
        Ok(PartitionScan {
            partition: PartitionId(self.partition),
            partial: None,
            version: version_of(self.version_high, self.version_low),
            next_offset: Offset(self.next_offset),
            lacks_before: self.lacks_before.iter().map(horizon_of).collect(),
            gaps: gaps_of(self.gaps)?,
        })
    }
}

pub(super) fn key(key: TableKey) -> internal::TableKey {
    internal::TableKey { tenant: key.tenant.0, table: key.table.0, generation: key.generation.0 }
}

pub(super) fn key_of(key: internal::TableKey) -> TableKey {
    TableKey { tenant: TenantId(key.tenant), table: TableId(key.table), generation: Generation(key.generation) }
}

pub(super) fn gap(gap: &LogGap) -> internal::LogGap {
    let reason = match gap.reason {
        GapReason::Gone => internal::GapReason::Gone,
        GapReason::Damaged => internal::GapReason::Damaged,
        GapReason::Inapplicable => internal::GapReason::Inapplicable,
    };
    internal::LogGap {
        first: gap.first.0,
        end: gap.end.0,
        table: gap.table.map(key),
        times: gap.times.map(|(first, last)| internal::TimeSpan { first: first.0, last: last.0 }),
        reason: reason.into(),
    }
}

pub(super) fn gaps_of(gaps: Vec<internal::LogGap>) -> Result<Vec<LogGap>, Malformed> {
    let gap = |gap: internal::LogGap| {
        let reason = match gap.reason() {
            internal::GapReason::Gone => GapReason::Gone,
            internal::GapReason::Damaged => GapReason::Damaged,
            internal::GapReason::Inapplicable => GapReason::Inapplicable,
            internal::GapReason::Unspecified => return Err(Malformed("a gap for an unknown reason")),
        };
        Ok(LogGap {
            first: Offset(gap.first),
            end: Offset(gap.end),
            table: gap.table.map(key_of),
            times: gap.times.map(|times| (Timestamp(times.first), Timestamp(times.last))),
            reason,
        })
    };
    gaps.into_iter().map(gap).collect()
}

pub(super) fn unavailable(unavailable: &[(PartitionId, Unavailable)]) -> Vec<internal::UnavailablePartition> {
    let message = |&(partition, why): &(PartitionId, Unavailable)| {
        let reason = match why {
            Unavailable::Unreachable => internal::UnavailableReason::Unreachable,
            Unavailable::Recovering => internal::UnavailableReason::Recovering,
        };
        internal::UnavailablePartition { partition: partition.0, reason: reason.into() }
    };
    unavailable.iter().map(message).collect()
}

/// Partitions that are not there for a reason that a later version has are unreachable for this one.
pub(super) fn unavailable_of(unavailable: &[internal::UnavailablePartition]) -> Vec<(PartitionId, Unavailable)> {
    let read = |of: &internal::UnavailablePartition| {
        let why = match of.reason() {
            internal::UnavailableReason::Recovering => Unavailable::Recovering,
            internal::UnavailableReason::Unreachable | internal::UnavailableReason::Unspecified => {
                Unavailable::Unreachable
            }
        };
        (PartitionId(of.partition), why)
    };
    unavailable.iter().map(read).collect()
}

impl From<&EventsCovered> for internal::EventsCovered {
    fn from(covered: &EventsCovered) -> Self {
        Self {
            partition: covered.partition.0,
            next_offset: covered.next_offset.0,
            evicted: Some(horizon(covered.evicted_before)),
            gaps: covered.gaps.iter().map(gap).collect(),
        }
    }
}

impl TryFrom<internal::EventsCovered> for EventsCovered {
    type Error = Malformed;

    fn try_from(covered: internal::EventsCovered) -> Result<Self, Malformed> {
        Ok(Self {
            partition: PartitionId(covered.partition),
            next_offset: Offset(covered.next_offset),
            evicted_before: covered.evicted.as_ref().and_then(horizon_of),
            gaps: gaps_of(covered.gaps)?,
        })
    }
}

impl From<PartitionStatus> for internal::PartitionStatus {
    fn from(status: PartitionStatus) -> Self {
        Self {
            partition: status.partition.0,
            next_offset: status.next_offset.0,
            append_time: status.append_time.0,
            rows: status.rows,
            bytes: status.bytes,
            events: status.events,
            scan_us: status.scan_us,
            map_version: status.map_version,
            whole: status.whole,
        }
    }
}

impl From<internal::PartitionStatus> for PartitionStatus {
    fn from(status: internal::PartitionStatus) -> Self {
        Self {
            partition: PartitionId(status.partition),
            next_offset: Offset(status.next_offset),
            append_time: Timestamp(status.append_time),
            rows: status.rows,
            bytes: status.bytes,
            events: status.events,
            scan_us: status.scan_us,
            map_version: status.map_version,
            whole: status.whole,
        }
    }
}

impl From<TablePartitionStatus> for internal::TablePartitionStatus {
    fn from(status: TablePartitionStatus) -> Self {
        Self {
            partition: status.partition.0,
            next_offset: status.next_offset.0,
            event_time_max: status.event_time_max.map(|time| time.0),
            last_events_at: status.last_events_at.map(|time| time.0),
            live: status.live,
            evicted: status.evicted,
            duplicate: status.duplicate,
            conflict: status.conflict,
            erased: status.erased,
            late: status.late,
        }
    }
}

impl From<internal::TablePartitionStatus> for TablePartitionStatus {
    fn from(status: internal::TablePartitionStatus) -> Self {
        Self {
            partition: PartitionId(status.partition),
            next_offset: Offset(status.next_offset),
            event_time_max: status.event_time_max.map(Timestamp),
            last_events_at: status.last_events_at.map(Timestamp),
            live: status.live,
            evicted: status.evicted,
            duplicate: status.duplicate,
            conflict: status.conflict,
            erased: status.erased,
            late: status.late,
        }
    }
}
