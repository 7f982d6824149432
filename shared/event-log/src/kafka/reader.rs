//! Reads a partition: from the tail in memory, else from the brokers until the tail has been reached.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use types::{Offset, PartitionId};

use super::{
    fetch::{Fetch, Source},
    store::Store,
};
use crate::api::{LogReader, ReadError, Record};

/// How long a record that there is may take to come, before that is an error: longer than a leader's change takes, shorter
/// than a stop may wait.
const COMING_TIMEOUT: Duration = Duration::from_secs(5);

/// A reader of one partition.
pub(crate) struct Reader {
    pub(crate) store: Arc<Store>,
    pub(crate) source: Source,
    pub(crate) partition: PartitionId,
    pub(crate) next: Offset,
    /// Reads what lies before the tail.
    pub(crate) behind: Option<Fetch>,
}

/// What a look at the store gave.
enum Found {
    Nothing,
    Copied(usize),
    /// It lies before the tail.
    Behind,
}

impl LogReader for Reader {
    fn position(&self) -> Offset {
        self.next
    }

    fn poll(&mut self, bytes_max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<usize, ReadError> {
        let count = match self.find(bytes_max, wait, into)? {
            Found::Nothing => 0,
            Found::Copied(count) => {
                self.behind = None;
                count
            }
            Found::Behind => self.read_behind(bytes_max, into)?,
        };
        self.next = Offset(self.next.0 + count as u64);
        Ok(count)
    }
}

impl Reader {
    fn find(&self, bytes_max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<Found, ReadError> {
        let (partition, wanted) = (self.partition, self.next);
        let (began, mut state) = (Instant::now(), self.store.lock());
        loop {
            let of = state.of(partition);
            if of.truncated {
                return Err(ReadError::NoSuchOffset { partition, wanted });
            }
            let (bounds, followed) = (state.bounds(partition), of.stand.next);
            if wanted < bounds.start {
                return Err(ReadError::Gap { partition, wanted, start: bounds.start });
            }
            if wanted < followed {
                let copied = state.tail.copy(partition, followed, wanted, bytes_max, into);
                return Ok(if copied > 0 { Found::Copied(copied) } else { Found::Behind });
            }
            // What was acked comes soon; where nothing was, what may come is waited for.
            let coming = wanted < bounds.end;
            if state.closed && !coming {
                return Err(ReadError::Closed);
            }
            let most = if coming { COMING_TIMEOUT } else { wait };
            let Some(left) = most.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                if coming {
                    let what = format!("no broker gave record {wanted} of partition {partition}, which is there");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what).into());
                }
                return Ok(Found::Nothing);
            };
            let grown = self.store.grown(partition);
            state = grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read_behind(&mut self, bytes_max: usize, into: &mut Vec<Record>) -> Result<usize, ReadError> {
        let mut behind = match self.behind.take().filter(|behind| behind.is_at(self.next)) {
            Some(behind) => behind,
            None => self.source.fetch(self.partition, self.next)?,
        };
        let count = behind.poll(bytes_max, COMING_TIMEOUT, into)?;
        self.behind = Some(behind);
        Ok(count)
    }
}
