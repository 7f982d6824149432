//! From the partial results to the answer: the merge, off the network threads, and the further scans of an exact selection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use placement::PlacementMap;
use proto::hot_tier::PartitionScan;
use query::{Answer, Cancel, Finishing, Partial, Plan};
use tokio::sync::OwnedSemaphorePermit;
use types::{ApiError, PartitionId, Timestamp};

use crate::{
    arrivals::EarlyMerge,
    fanout::{FanOut, Gathered},
    fleet::Fleet,
};

/// Results of so many bytes are merged where they arrived: that is short, and no other thread has to be woken for it.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Where the scans of a query run.
pub(crate) struct Scans<'a> {
    pub(crate) first: &'a FanOut,
    pub(crate) fleet: &'a Fleet,
    pub(crate) placement: &'a PlacementMap,
    /// The query's place, which work keeps that outlasts its request.
    pub(crate) place: &'a Arc<OwnedSemaphorePermit>,
}

/// What came of the rounds after a first scan.
pub(crate) enum Concluded {
    Answer(Answer),
    /// Rows of the first scan have left memory meanwhile, so that all has to be asked again.
    RowsLeft,
    /// A partition of the first scan did not answer again.
    Away(PartitionId),
}

impl Scans<'_> {
    /// The answer of the first scan's results and of as many further scans, at the same offsets, as it takes.
    ///
    /// # Errors
    /// Those of scans and merges.
    pub(crate) async fn conclude(
        &self,
        gathered: Gathered,
        early: Option<Arc<EarlyMerge>>,
    ) -> Result<Concluded, ApiError> {
        let Gathered { scans, nodes, .. } = gathered;
        let start = self.first.plan.range().start();
        let horizons: Vec<_> = scans.iter().map(|scan| horizon(&scan.lacks_before, start)).collect();
        let at: Vec<_> = scans.iter().map(|scan| (scan.partition, scan.next_offset)).collect();
        let (plan, deadline) = (Arc::clone(&self.first.plan), self.first.deadline);
        let partials = partials(scans);
        let is_short = early.is_none() && partials.iter().map(Partial::bytes).sum::<usize>() <= INLINE_BYTES_MAX;
        let begin = move |cancel: &Cancel<'_>| {
            let finishing = match early {
                Some(early) => Finishing::after(&plan, early.take()?, partials, cancel)?,
                None => Finishing::new(&plan, partials, cancel)?,
            };
            Step::of(&plan, finishing, cancel)
        };
        let mut step = match is_short {
            true => begin(&Cancel::new(&AtomicBool::new(false), &|| Instant::now() >= deadline))?,
            false => off_network(deadline, self.place, begin).await?,
        };
        // The nodes of the first scan have its rows; another replica that has to help out may be behind and waits.
        let mut again = FanOut { after: at.clone(), known: Vec::new(), at, prefer: nodes, ..self.first.clone() };
        loop {
            let (mut finishing, round) = match step {
                Step::Answer(answer) => return Ok(Concluded::Answer(answer)),
                Step::Further(further) => *further,
                Step::RowsLeft => return Ok(Concluded::RowsLeft),
            };
            let round = Arc::new(round);
            again.plan = Arc::clone(&round);
            again.partitions = again.at.iter().map(|(partition, _)| *partition).collect();
            let found = again.run(self.fleet, self.placement, None).await?;
            if let Some((partition, _)) = found.unavailable.first() {
                return Ok(Concluded::Away(*partition));
            }
            if !found.scans.iter().map(|scan| horizon(&scan.lacks_before, start)).eq(horizons.iter().cloned()) {
                return Ok(Concluded::RowsLeft);
            }
            let (plan, partials) = (Arc::clone(&self.first.plan), crate::conclude::partials(found.scans));
            let narrow = move |cancel: &Cancel<'_>| match finishing.absorb(&round, partials, cancel)? {
                true => Step::of(&plan, finishing, cancel),
                false => Ok(Step::RowsLeft),
            };
            step = off_network(deadline, self.place, narrow).await?;
        }
    }
}

/// Where a query is after a scan.
enum Step {
    Answer(Answer),
    /// This has to be scanned as well.
    Further(Box<(Finishing, Plan)>),
    RowsLeft,
}

impl Step {
    /// The answer, where no further scan is needed: in one go, so that it waits for no thread in between.
    fn of(plan: &Plan, mut finishing: Finishing, cancel: &Cancel<'_>) -> Result<Self, ApiError> {
        Ok(match finishing.next_round(plan, cancel)? {
            Some(round) => Self::Further(Box::new((finishing, round))),
            None => Self::Answer(finishing.answer(plan, cancel)?),
        })
    }
}

/// What a partition no longer has of a range that begins at `start`: by table, before which time. Rows that leave before the
/// range are none of the query's.
fn horizon(lacks_before: &[Option<Timestamp>], start: Timestamp) -> Vec<Option<Timestamp>> {
    lacks_before.iter().map(|horizon| horizon.filter(|&before| before > start)).collect()
}

/// The partial results, which are there where not everything was known before.
fn partials(scans: Vec<PartitionScan>) -> Vec<Partial> {
    scans.into_iter().filter_map(|scan| scan.partial).collect()
}

/// Does work that may take milliseconds. It stops soon after the deadline, and when nobody waits for it any more; until it
/// has, the query's place is taken.
async fn off_network<R: Send + 'static>(
    deadline: Instant,
    place: &Arc<OwnedSemaphorePermit>,
    work: impl FnOnce(&Cancel<'_>) -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    let left = LeftOnDrop(Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&left.0);
    let place = Arc::clone(place);
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&Cancel::new(&flag, &|| Instant::now() >= deadline));
        drop(place);
        result
    });
    done.await.map_err(|error| ApiError::internal(format!("merging the answer failed: {error}")))?
}

/// Stops the work on an answer when the request is dropped.
struct LeftOnDrop(Arc<AtomicBool>);

impl Drop for LeftOnDrop {
    fn drop(&mut self) {
        // Relaxed: it only has to be seen soon.
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::sync::Semaphore;

    use super::*;

    /// Goal: rows that leave before the range change nothing for a query, and those that leave within it do.
    #[test]
    fn eviction_before_the_range_is_not_seen() {
        let of = |before: Option<i64>| horizon(&[before.map(Timestamp)], Timestamp(100));
        assert_eq!(of(None), of(Some(50)));
        assert_eq!(of(Some(50)), of(Some(100)));
        assert_ne!(of(Some(100)), of(Some(101)));
        assert_ne!(of(Some(101)), of(Some(102)));
    }

    /// Goal: work whose request was dropped keeps the query's place until it ends.
    #[tokio::test]
    async fn work_keeps_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::new(Arc::clone(&places).try_acquire_owned().unwrap());
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let request = tokio::spawn(async move {
            let work = move |cancel: &Cancel<'_>| {
                begun.send(()).unwrap();
                goes_on.recv().unwrap();
                cancel.check()
            };
            off_network(Instant::now() + Duration::from_secs(60), &place, work).await
        });
        tokio::task::spawn_blocking(move || begins.recv()).await.unwrap().unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(places.available_permits(), 0);
        go_on.send(()).unwrap();
        drop(places.acquire().await.unwrap());
    }
}
