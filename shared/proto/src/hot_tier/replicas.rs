//! Whether the replicas of a partition say the same: they are functions of one log, so at one offset they hold the same rows,
//! as far back as all of them still have them.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use query::RowsChecksum;
use types::{ApiError, ErrorCode, NodeId, Offset, PartitionId, TableKey, TimeRange, Timestamp};

use super::{ChecksumRequest, HotTier};

/// How often all are asked anew because rows left one of them meanwhile, or one went away.
const ROUNDS_MAX: usize = 8;

/// What the replicas of a partition say of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The rows of the records before this offset were compared.
    pub at: Offset,
    /// Those of them with event times from this on: all replicas have them.
    pub from: Timestamp,
    /// What each node has; empty where fewer than two are there to be compared.
    pub found: Vec<(NodeId, RowsChecksum)>,
    /// Nodes that are away, or whose partition is still being rebuilt.
    pub away: Vec<NodeId>,
}

impl Compared {
    /// Whether all that were compared have the same rows; `None` where there was nothing to compare.
    #[must_use]
    pub fn agree(&self) -> Option<bool> {
        let ((_, first), others) = self.found.split_first()?;
        Some(others.iter().all(|(_, sum)| sum == first))
    }
}

/// A node that is to be compared, and how far it is.
struct Replica<'a> {
    id: NodeId,
    node: &'a dyn HotTier,
    next_offset: Offset,
}

/// Compares what some nodes have of a table in a partition, at the offset of the one that is least far: all others can
/// still show their rows as they were then.
///
/// # Errors
/// `UNAVAILABLE` where rows leave faster than they are compared; `DEADLINE_EXCEEDED` where the sums take too long.
pub async fn compare_replicas(
    replicas: &[(NodeId, Arc<dyn HotTier>)],
    key: TableKey,
    partition: PartitionId,
    deadline: Instant,
) -> Result<Compared, ApiError> {
    let (mut there, mut away) = (Vec::new(), Vec::new());
    let statuses = join_all(replicas.iter().map(|(_, node)| node.status())).await;
    for ((id, node), statuses) in replicas.iter().zip(statuses) {
        // A node that cannot say how far it is is as good as away, whatever the reason.
        let status = statuses.ok().and_then(|all| all.into_iter().find(|status| status.partition == partition));
        match status {
            Some(status) => there.push(Replica { id: *id, node: &**node, next_offset: status.next_offset }),
            None => away.push(*id),
        }
    }
    let mut from = Timestamp::MIN;
    for _ in 0..ROUNDS_MAX {
        let at = there.iter().map(|replica| replica.next_offset).min().unwrap_or(Offset::ZERO);
        if there.len() < 2 {
            return Ok(Compared { at, from, found: Vec::new(), away });
        }
        let range = TimeRange::new(from, Timestamp::MAX).ok_or_else(|| ApiError::unavailable("no row is left"))?;
        let request = ChecksumRequest { key, partition, at, range, deadline };
        let sums = join_all(there.iter().map(|replica| replica.node.checksum(request))).await;
        let (mut found, mut gone, left_before) = (Vec::new(), None, away.len());
        for (replica, sum) in there.iter().zip(sums) {
            match sum {
                Ok(sum) => {
                    gone = gone.max(sum.evicted_before);
                    found.push((replica.id, sum.found));
                }
                Err(error) if matches!(error.code, ErrorCode::Unavailable | ErrorCode::Unimplemented) => {
                    away.push(replica.id);
                }
                Err(error) => return Err(error),
            }
        }
        there.retain(|replica| !away.contains(&replica.id));
        // Rows before this are gone somewhere; where that is no later than the beginning, all have had all of the range.
        match gone.filter(|gone| *gone > from) {
            Some(gone) => from = gone,
            None if away.len() == left_before => return Ok(Compared { at, from, found, away }),
            None => {}
        }
    }
    Err(ApiError::unavailable(format!("rows leave partition {partition} faster than its replicas are compared")))
}
