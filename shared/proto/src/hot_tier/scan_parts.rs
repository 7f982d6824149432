//! A node's scan in parts of bounded size, and back. Results are put into bytes one by one as partitions are done and the stream
//! takes them, and read as they arrive, so that neither side holds all of them twice.

use std::{collections::VecDeque, mem, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use query::{Partial, Plan, WireError};
use tokio::task::JoinHandle;
use types::{ApiError, PartitionId};

use super::{
    PartitionScan, Unavailable,
    messages::{INLINE_BYTES_MAX, unavailable, unavailable_of, unread},
};
use crate::{
    internal::{ScanPart, ScannedPartition, ScannedPiece},
    wire::Malformed,
};

/// Bytes of a part, about.
const PART_BYTES: usize = 256 << 10;

/// Cuts a scan into parts, partition by partition.
#[derive(Default)]
pub(super) struct Cutter {
    part: ScanPart,
    bytes: usize,
}

impl Cutter {
    /// Adds a partition of a scan of the plan. Returns the parts that are full.
    pub(super) fn add(&mut self, plan: &Plan, mut scan: PartitionScan) -> Vec<ScanPart> {
        let partial = scan.partial.take().map(|partial| Bytes::from(partial.into_bytes(plan)));
        let begin = ScannedPartition::of(&scan, partial.as_ref().map(|partial| partial.len() as u64));
        let (mut begin, mut rest, mut full) = (Some(begin), partial.unwrap_or_default(), Vec::new());
        loop {
            self.bytes += begin.as_ref().map_or(0, ScannedPartition::encoded_len);
            let piece = rest.split_to(rest.len().min(PART_BYTES.saturating_sub(self.bytes)));
            self.bytes += piece.len();
            self.part.pieces.push(ScannedPiece { begin: begin.take(), partial: piece });
            if self.bytes >= PART_BYTES {
                self.bytes = 0;
                full.push(mem::take(&mut self.part));
            }
            if rest.is_empty() {
                return full;
            }
        }
    }

    /// The last part.
    pub(super) fn finish(self, not_there: &[(PartitionId, Unavailable)]) -> ScanPart {
        ScanPart { unavailable: unavailable(not_there), last: true, ..self.part }
    }
}

/// A scan whose parts are coming.
pub(super) struct Gathering {
    plan: Arc<Plan>,
    /// Partitions that may come still.
    asked: Vec<PartitionId>,
    /// Those that have come and were not handed on, in the order in which they came.
    scans: VecDeque<Scanned>,
    /// The partition whose result is coming: its bytes so far, and how many they will be.
    open: Option<(PartitionScan, Vec<u8>, u64)>,
    /// Bytes of results so far.
    bytes: usize,
    unavailable: Vec<(PartitionId, Unavailable)>,
    whole: bool,
}

enum Scanned {
    Known(PartitionScan),
    Found(PartitionScan, Reading),
}

/// A result that is being read.
enum Reading {
    Done(Result<Partial, WireError>),
    Elsewhere(JoinHandle<Result<Partial, WireError>>),
}

impl Gathering {
    /// Nothing yet of a scan of these partitions.
    pub(super) fn new(plan: Arc<Plan>, partitions: &[PartitionId]) -> Self {
        Self {
            plan,
            asked: partitions.to_vec(),
            scans: VecDeque::new(),
            open: None,
            bytes: 0,
            unavailable: Vec::new(),
            whole: false,
        }
    }

    /// Takes the next part. `false`: it was the last.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where the results are longer than the plan allows; `INTERNAL` for parts that no node sends.
    pub(super) fn take(&mut self, part: ScanPart) -> Result<bool, ApiError> {
        for piece in part.pieces {
            if let Some(begin) = piece.begin {
                self.begin(begin)?;
            }
            self.add(&piece.partial)?;
        }
        if part.last {
            if self.open.is_some() {
                return Err(Malformed("a scan that ends within a result").into());
            }
            self.unavailable = unavailable_of(&part.unavailable);
            self.whole = true;
        }
        Ok(!part.last)
    }

    fn begin(&mut self, begin: ScannedPartition) -> Result<(), ApiError> {
        let length = begin.partial_bytes;
        let scan = begin.read()?;
        let place = self.asked.iter().position(|partition| *partition == scan.partition);
        let Some(place) = place.filter(|_| self.open.is_none()) else {
            return Err(Malformed("a partition that was not to come now").into());
        };
        self.asked.swap_remove(place);
        if scan.lacks_before.len() != self.plan.tables().len() {
            return Err(Malformed("a partition of other tables").into());
        }
        match length {
            None => self.scans.push_back(Scanned::Known(scan)),
            Some(length) => self.open = Some((scan, Vec::new(), length)),
        }
        Ok(())
    }

    /// Takes the next bytes of a result, and has it read where these are its last.
    fn add(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(piece.len());
        self.plan.allow_bytes(self.bytes)?;
        let Some((_, bytes, length)) = &mut self.open else {
            return if piece.is_empty() { Ok(()) } else { Err(Malformed("bytes of no partition").into()) };
        };
        bytes.extend_from_slice(piece);
        let so_far = bytes.len() as u64;
        if so_far > *length {
            return Err(Malformed("a result that is longer than was said").into());
        }
        if so_far < *length {
            return Ok(());
        }
        let Some((scan, bytes, _)) = self.open.take() else { return Ok(()) };
        let reading = if bytes.len() <= INLINE_BYTES_MAX {
            Reading::Done(Partial::from_bytes(&self.plan, &bytes))
        } else {
            let plan = Arc::clone(&self.plan);
            Reading::Elsewhere(tokio::task::spawn_blocking(move || Partial::from_bytes(&plan, &bytes)))
        };
        self.scans.push_back(Scanned::Found(scan, reading));
        Ok(())
    }

    /// The next partition, where more than `ahead` of them are being read.
    ///
    /// # Errors
    /// `INTERNAL`, `UNIMPLEMENTED` where its result cannot be read.
    pub(super) async fn next(&mut self, ahead: usize) -> Result<Option<PartitionScan>, ApiError> {
        if self.scans.len() <= ahead {
            return Ok(None);
        }
        let (scan, reading) = match self.scans.pop_front() {
            Some(Scanned::Found(scan, reading)) => (scan, reading),
            Some(Scanned::Known(scan)) => return Ok(Some(scan)),
            None => return Ok(None),
        };
        let read = match reading {
            Reading::Done(read) => read,
            Reading::Elsewhere(read) => {
                read.await.map_err(|error| ApiError::internal(format!("reading a result failed: {error}")))?
            }
        };
        let partial = read.map_err(|error| unread("the result of a partition", error))?;
        if partial.partition() != scan.partition {
            return Err(Malformed("a result of another partition").into());
        }
        Ok(Some(PartitionScan { partial: Some(partial), ..scan }))
    }

    /// The partitions that cannot be scanned now.
    ///
    /// # Errors
    /// `UNAVAILABLE` where the last part did not come.
    pub(super) fn finish(self) -> Result<Vec<(PartitionId, Unavailable)>, ApiError> {
        if self.whole {
            Ok(self.unavailable)
        } else {
            Err(ApiError::unavailable("a node of the hot tier left within its answer"))
        }
    }
}
